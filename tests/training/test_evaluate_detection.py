"""WiderFace's protocol: what is read, what counts, and the average precision, on a folder of its layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from scipy.io import savemat

from export.errors import ExportError
from training.evaluate_detection import LISTS, Image, average_precision, main, measure, read_protocol

Floats = NDArray[np.float64]


def cells(values: list[object]) -> NDArray[np.object_]:
    """Make a MATLAB cell array of one column."""
    column = np.empty((len(values), 1), object)
    column[:, 0] = values
    return column


def layout(folder: Path, boxes: list[Floats], hard_only: list[list[int]]) -> None:
    """Write one event's lists; faces of ``hard_only`` (places from 0) belong to no other list."""
    names = [f"picture_{number}" for number in range(len(boxes))]
    files = cells([cells([np.array([name]) for name in names])])
    savemat(
        folder / "wider_face_val.mat",
        {
            "event_list": cells([np.array(["0--Parade"])]),
            "file_list": files,
            "face_bbx_list": cells([cells(list(boxes))]),
        },
    )
    for which in LISTS:
        kept = [
            np.array([n + 1 for n in range(len(all_)) if which == "hard" or n not in left], np.uint16).reshape(-1, 1)
            for all_, left in zip(boxes, hard_only, strict=True)
        ]
        savemat(folder / f"wider_{which}_val.mat", {"gt_list": cells([cells(list(kept))])})


BOXES = [np.array([[10, 10, 40, 50], [100, 20, 8, 9]], float), np.array([[30, 30, 60, 60]], float)]


@pytest.fixture
def images(tmp_path: Path) -> list[Image]:
    layout(tmp_path, BOXES, [[1], []])
    return list(read_protocol(tmp_path / "images", tmp_path))


def test_the_lists_are_read(images: list[Image], tmp_path: Path) -> None:
    assert [image.path for image in images] == [
        tmp_path / "images" / "0--Parade" / f"picture_{number}.jpg" for number in (0, 1)
    ]
    np.testing.assert_array_equal(images[0].boxes, BOXES[0])
    assert images[0].counted["easy"].tolist() == [True, False]
    assert images[0].counted["hard"].tolist() == [True, True]


def found(*rows: tuple[float, ...]) -> Floats:
    return np.array(rows, float).reshape(-1, 5)


def test_what_is_found_exactly_and_nothing_else_is_perfect(images: list[Image]) -> None:
    faces = [found((10, 10, 40, 50, 1.0), (100, 20, 8, 9, 0.5)), found((30, 30, 60, 60, 0.9))]
    for which in LISTS:
        assert average_precision(images, faces, which) == pytest.approx(1.0)


def test_a_missed_face_and_a_false_alarm_cost_what_the_protocol_says(images: list[Image]) -> None:
    # The small face is missed, which only the list `hard` knows; a false alarm has the best score.
    faces = [found((200, 200, 30, 30, 1.0), (10, 10, 40, 50, 0.8)), found((30, 30, 60, 60, 0.6))]
    assert average_precision(images, faces, "easy") == pytest.approx(2 / 3)
    assert average_precision(images, faces, "hard") == pytest.approx(2 / 3 * 2 / 3)


def test_a_face_that_is_found_twice_is_wrong_once_and_one_outside_of_the_list_does_not_count(
    images: list[Image],
) -> None:
    twice = [found((10, 10, 40, 50, 1.0), (12, 10, 40, 50, 0.9), (100, 20, 8, 9, 0.8)), found((30, 30, 60, 60, 0.5))]
    # easy: right, wrong, (not counted), right -> recall 0.5 at precision 1, then 1 at 2/3.
    assert average_precision(images, twice, "easy") == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_the_command_measures_the_detector(
    tmp_path: Path, portrait_jpeg: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images" / "0--Parade"
    folder.mkdir(parents=True)
    (folder / "picture_0.jpg").write_bytes(portrait_jpeg)
    Pillow.new("RGB", (200, 200), "grey").save(folder / "picture_1.jpg")
    layout(tmp_path, [np.array([[0, 0, 1, 1]], float), np.zeros((0, 4))], [[], []])
    assert main([str(tmp_path / "images"), str(tmp_path)]) == 0
    assert '"found": 1' in capsys.readouterr().out
    assert main([str(tmp_path / "images"), str(tmp_path / "none")]) == 2
    assert "ground_truth" in capsys.readouterr().err


def test_scores_are_spread_over_their_range(images: list[Image]) -> None:
    by_file = {image.path: box for image, box in zip(images, BOXES, strict=True)}
    scores = iter((0.71, 0.7))

    def detect(path: Path) -> Floats:
        return np.column_stack([by_file[path], np.full(len(by_file[path]), next(scores))])

    figures = measure(images, detect)
    assert figures["average precision"]["hard"] == pytest.approx(1.0)
    assert figures["faces"] == {"easy": 2, "medium": 2, "hard": 3}


def test_another_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wider_face_val.mat").write_bytes(b"no matrix")
    with pytest.raises(ExportError, match="ground_truth"):
        list(read_protocol(tmp_path, tmp_path))
