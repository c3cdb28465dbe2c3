"""A render's labels describe its pixels. Needs the exact heads, which are not part of the repository."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from networks.camera import rotation
from training.regressor import seen_by_render_camera
from training.render import LABELS, MARGIN, MEDIAPIPE_OF_IBUG, SIZE, Heads, Renderer, render

RED, BLUE = (0, 0, 255), (255, 0, 0)  # BGR


@pytest.fixture(scope="module")
def renderer(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    """Draws red heads before blue backgrounds: picture 0 is red, the others are blue."""
    source = data_dir / "ict_facekit.npz"
    if not source.exists():
        pytest.skip("ict_facekit.npz is not among the evaluation data: exact heads cannot be drawn")
    folder = tmp_path_factory.mktemp("pictures")
    files = [f"{k}.png" for k in range(40)]
    for k, file in enumerate(files):
        cv2.imwrite(str(folder / file), np.full((400, 400, 3), BLUE if k else RED, np.uint8))
    (folder / "index.csv").write_text("file\n" + "\n".join(files) + "\n")
    # The teacher sees the neutral head from the front: 12 pixels a centimetre, the middle of the picture.
    heads = Heads.load(source)
    points = np.zeros((len(files), 478, 3))
    places = heads.neutral[heads.landmarks] * [12, -12, -12] + [200, 200, 0]
    for ibug, teacher in MEDIAPIPE_OF_IBUG.items():
        points[:, teacher] = places[ibug]
    np.savez(folder / "labels.npz", files=np.array(files), points=points)
    return Renderer(folder, folder / "labels.npz", source, seed=3)


def inside(renderer: Renderer, crop: npt.NDArray[np.uint8], label: dict[str, npt.NDArray[np.float32]]) -> list[float]:
    """Share of the face model's vertices that fall on red, where the labels put them and 40 px to the right."""
    model = renderer.model
    shape = model.mean + np.tensordot(label["identity"], model.identity, 1)
    shape = shape + np.tensordot(label["expression"], model.expression, 1)
    posed = torch.from_numpy(shape.astype(np.float32))[None] @ rotation(torch.from_numpy(label["angle"])[None])
    seen = seen_by_render_camera(posed, torch.from_numpy(label["camera"])[None])[0].numpy() + MARGIN
    red = crop[..., 0].astype(int) > crop[..., 2].astype(int)
    shares = []
    for shift in (0, 40):
        column, row = np.round(seen + np.array([shift, 0])).astype(int).T
        within = (column >= 0) & (row >= 0) & (column < SIZE) & (row < SIZE)
        shares.append(float(red[row[within], column[within]].mean()))
    return shares


def test_labels_put_the_face_model_where_the_head_was_drawn(renderer: Renderer) -> None:
    shares = []
    for _ in range(6):
        crop, label = renderer.draw(0)
        assert crop.shape == (SIZE, SIZE, 3)
        assert {name: len(value) for name, value in label.items()} == LABELS
        shares.append(inside(renderer, crop, label))
    here, beside = np.median(shares, 0)
    assert here > 0.97
    assert beside < here - 0.05


def test_a_shard_holds_pictures_and_labels_in_one_order(renderer: Renderer, tmp_path: Path) -> None:
    render(renderer, 3, tmp_path / "r-0-000")
    crops = np.load(tmp_path / "r-0-000.npy")
    with np.load(tmp_path / "r-0-000.labels.npz") as labels:
        assert len(crops) == len(labels["files"]) == 3
        assert all(labels[name].shape == (3, width) for name, width in LABELS.items())
    assert len(np.unique(crops.reshape(3, -1), axis=0)) == 3
