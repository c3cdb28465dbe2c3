"""Tiles of a second look: where they lie, that every small face is whole in one, and that a face is told once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.model_repository.version_folder import load
from tests.service import file_of

tiles = load("preprocess", "tiles")
structure = load("preprocess", "structure")
refusals = load("preprocess", "refusals")
cage = load("preprocess", "cage")
lanes = load("preprocess", "lanes")
decoding = load("preprocess", "decoding")
tile_faces = load("merge", "tile_faces")
FINE = structure.Limits(size=structure.Size.FINE)


@given(
    st.integers(200, 4096),
    st.integers(200, 4096),
    st.floats(12, 400),
    st.floats(0, 1),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_every_face_that_the_whole_picture_is_too_coarse_for_lies_whole_in_a_tile(
    width: int, height: int, least: float, larger: float, place: tuple[float, float]
) -> None:
    try:
        found = tiles.tiles_of(width, height, least)
    except refusals.BadPicture:
        return
    coarse = max(width, height) / tiles.SEEN
    if not found:
        assert least >= coarse - 1
        return
    assert len(found) <= tiles.MOST_TILES
    side = least + larger * max(0.0, coarse - least)
    x, y = place[0] * max(0.0, width - side), place[1] * max(0.0, height - side)
    assert any(t.left <= x and t.top <= y and x + side <= t.right and y + side <= t.bottom for t in found)
    assert all(0 <= t.left < t.right <= width and 0 <= t.top < t.bottom <= height for t in found)


def test_a_size_that_takes_too_many_tiles_is_refused_with_the_one_that_does_not() -> None:
    with pytest.raises(refusals.BadPicture, match="give 22 or more") as caught:
        tiles.tiles_of(4032, 3024, 14)
    assert caught.value.tag == "BadOption"
    assert 20 < len(tiles.tiles_of(4032, 3024, 22)) <= tiles.MOST_TILES
    # Of a picture at half its size the sentence speaks of the picture's own pixels.
    with pytest.raises(refusals.BadPicture, match=r"give 4[34] or more"):
        tiles.tiles_of(4032, 3024, 28, ratio=2.0)


@pytest.fixture(scope="module")
def worker() -> Iterator[Any]:
    source = cage.WorkerSource(FINE.max_bytes)
    worker = cage.Worker(source, structure.MAX_MEMORY + lanes.SPARE_MEMORY)
    yield worker
    worker.close()
    source.close()


def dotted(spots: list[tuple[int, int]]) -> Image.Image:
    picture = Image.new("RGB", (3000, 2000), (40, 40, 40))
    for x, y in spots:
        picture.paste((250, 250, 250), (x, y, x + 24, y + 24))
    return picture


def outputs(worker: Any, data: bytes, wanted: set[str], min_face: float) -> Any:
    cost = structure.inspect(data, FINE)
    return decoding.decode(worker, [data], [cost], [FINE], wanted, min_face).tensors


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_canvas_of_a_tile_shows_its_view_of_the_upright_picture(worker: Any, orientation: int) -> None:
    spots = [(900, 700), (2900, 1900), (20, 30)]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = dotted(spots) if orientation == 1 else dotted(spots).transpose(Image.Transpose.ROTATE_90)
    tensors = outputs(worker, file_of(stored, "JPEG", quality=95, exif=exif), {"canvas", "geometry", "view"}, 30)
    canvases, geometry, views = (tensors[name] for name in ("canvas", "geometry", "view"))
    assert canvases.shape == (len(views), 3, 512, 512)
    assert len(views) > 4
    np.testing.assert_array_equal(views[0], [0, 0, 3000, 2000])
    np.testing.assert_array_equal(geometry[:, :2], [[3000, 2000]] * len(views))
    for x, y in spots:
        centre = np.array([x + 12.0, y + 12.0])
        inside = ((views[1:, :2] + 16 < centre) & (centre < views[1:, 2:] - 16)).all(1)
        assert inside.any()
        for canvas, view, numbers in zip(canvases[1:][inside], views[1:][inside], geometry[1:][inside], strict=True):
            column, row = ((centre - view[:2]) / numbers[2:4]).astype(int)
            assert canvas[:, row, column].min() > 200
            assert canvas[:, row, min(511, column + int(40 / numbers[2]))].max() < 90


def test_a_picture_is_given_as_ever_where_nobody_wants_views(worker: Any) -> None:
    data = file_of(dotted([(5, 5)]), "JPEG")
    assert len(outputs(worker, data, {"canvas", "geometry"}, 30)["canvas"]) == 1
    tensors = outputs(worker, data, {"canvas", "geometry", "view", "picture"}, 30)
    assert len(tensors["view"]) == len(tensors["canvas"]) == 1
    assert tensors["picture"].shape == (1, 2000, 3000, 3)
    assert len(outputs(worker, data, {"canvas", "view"}, 0)["view"]) == 1


def test_too_many_tiles_are_refused_by_the_worker_and_it_goes_on(worker: Any) -> None:
    data = file_of(Image.new("RGB", (4000, 3000)), "JPEG")
    with pytest.raises(refusals.BadPicture, match="`min_face` is 12"):
        outputs(worker, data, {"canvas", "view"}, 12)
    assert len(outputs(worker, data, {"canvas", "view"}, 0)["canvas"]) == 1


def face(x: float, y: float, side: float, score: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    points = [x + 0.3 * side, y + 0.4 * side, x + 0.7 * side, y + 0.4 * side, x + 0.5 * side, y + 0.6 * side]
    mouth = [x + 0.35 * side, y + 0.8 * side, x + 0.65 * side, y + 0.8 * side]
    return np.array([x, y, x + side, y + side, score, *points, *mouth], np.float32)


def looks(*rows: list[Any]) -> Any:
    faces = np.zeros((len(rows), 64, 15), np.float32)
    for slots, found in zip(faces, rows, strict=True):
        for index, row in enumerate(found):
            slots[index] = row
    return faces


VIEWS = np.array([[0, 0, 2000, 1000], [0, 0, 1000, 1000], [900, 0, 2000, 1000]], np.float32)


def test_a_face_of_several_tiles_is_told_once_where_it_is_in_the_picture() -> None:
    seen = looks(
        [face(100, 100, 300, 0.8)], [face(101, 99, 299, 0.95), face(930, 500, 40, 0.9)], [face(31, 501, 40, 0.8)]
    )
    found = tile_faces.join(seen, VIEWS)
    assert found.shape == (64, 15)
    np.testing.assert_array_equal(found[0], face(101, 99, 299, 0.95))
    np.testing.assert_array_equal(found[1], face(930, 500, 40, 0.9))
    assert not found[2:].any()


def test_a_face_is_moved_with_its_points() -> None:
    found = tile_faces.join(looks([], [], [face(500, 20, 40, 0.9)]), VIEWS)
    np.testing.assert_allclose(found[0], face(1400, 20, 40, 0.9))


def test_what_a_border_inside_the_picture_cuts_is_no_face_of_the_tile() -> None:
    half = face(960, 500, 40, 0.99)  # ends where the first tile does
    at_border = face(0, 960, 40, 0.9)  # ends where the picture does
    found = tile_faces.join(looks([], [half, at_border], [face(60, 500, 60, 0.8)]), VIEWS)
    assert found[:2, 4].tolist() == [np.float32(0.9), np.float32(0.8)]


def test_a_part_of_a_face_that_a_tile_takes_for_one_is_left_out() -> None:
    found = tile_faces.join(looks([face(300, 300, 400, 0.95)], [face(420, 420, 120, 0.9)], []), VIEWS)
    assert (found[:, 4] > 0).sum() == 1


def test_a_crowd_has_more_than_the_usual_slots() -> None:
    row = [face(10 + 30 * i, 10, 25, 0.9) for i in range(32)] + [face(10 + 30 * i, 60, 25, 0.8) for i in range(32)]
    other = [face(120 + 30 * i, 300, 25, 0.7) for i in range(30)]
    found = tile_faces.join(looks([], row, other), VIEWS)
    assert found.shape == (94, 15)
    assert (np.diff(found[:, 4]) <= 0).all()


@pytest.mark.parametrize("wrong", ["rows", "columns", "nan", "none", "far"])
def test_what_is_no_tile_s_is_refused(wrong: str) -> None:
    faces, views = looks([face(1, 1, 30, 0.9)], [], []), VIEWS.copy()
    if wrong == "rows":
        views = views[:2]
    elif wrong == "columns":
        faces = faces[..., :14]
    elif wrong == "nan":
        faces[0, 0, 6] = np.nan
    elif wrong == "none":
        faces, views = faces[:0], views[:0]
    else:
        views[2, 2] = np.inf
    with pytest.raises(load("merge", "merge_refusals").Refused) as caught:
        tile_faces.join(faces, views)
    assert caught.value.tag == "BadTensor"
