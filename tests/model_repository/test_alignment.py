"""`align`: the crop is the family's own, to the pixel, and leads back to source pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.model_repository.version_folder import load

alignment = load("align", "alignment")

# Five-point files of Deep3DFaceRecon's examples: size, t (y up), size of the crop, scale, then width, height, left, up.
GOLDEN = [
    ((423, 594), (196.6142, 355.0627), 224, 0.729374, (308, 433, 31, 62)),
    ((423, 594), (196.6142, 355.0627), 512, 1.667142, (705, 990, 71, 142)),
    ((294, 255), (171.4116, 135.8974), 224, 1.178787, (346, 300, 89, 28)),
    ((294, 255), (171.4116, 135.8974), 512, 2.694370, (792, 687, 205, 64)),
    ((321, 341), (154.6408, 188.4666), 224, 1.000263, (321, 341, 42, 40)),
    ((321, 341), (154.6408, 188.4666), 512, 2.286316, (733, 779, 97, 92)),
]


def points_for(t: tuple[float, float], scale: float, height: float, turn: NDArray[Any] | None = None) -> NDArray[Any]:
    """Where a camera with that scale and translation sees the template; [5, 2], y down."""
    rotation = np.eye(3) if turn is None else turn
    seen = (alignment.TEMPLATE @ rotation.T)[:, :2] * scale + t
    return np.column_stack([seen[:, 0], height - 1 - seen[:, 1]])


def turned(yaw: float) -> NDArray[np.float64]:
    a = np.radians(yaw)
    return np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])


@pytest.mark.parametrize(("source", "t", "size", "scale", "expected"), GOLDEN)
def test_the_crop_stands_where_the_family_s_code_puts_it(
    source: tuple[int, int],
    t: tuple[float, float],
    size: int,
    scale: float,
    expected: tuple[int, int, int, int],
) -> None:
    points = points_for(t, alignment.RESCALE_224 * size / 224 / scale, source[1])
    fitted = alignment.fit(points, source[1])
    np.testing.assert_allclose(fitted.t, t, atol=1e-6)
    w = alignment.window(fitted, source, size)
    assert (w.width, w.height, w.left, w.up) == expected


def test_a_frontal_face_lands_on_the_family_s_five_points() -> None:
    source = (640, 480)
    points = points_for((300.3, 250.9), 140.0, source[1])
    sx, sy, ox, oy = alignment.window(alignment.fit(points, source[1]), source, 224).camera(source)
    landed = (points - (ox, oy)) / (sx, sy)
    known = [(80.23, 81.38), (143.60, 81.45), (112.33, 115.71), (86.28, 149.90), (137.34, 149.89)]
    np.testing.assert_allclose(landed, known, atol=1.0)  # the crop stands at whole pixels


@pytest.mark.parametrize("yaw", [-50.0, -20.0, 0.0, 35.0, 60.0])
def test_the_turn_of_the_head_is_read_off_the_fit(yaw: float) -> None:
    fitted = alignment.fit(points_for((300, 250), 140.0, 480, turned(yaw)), 480)
    assert fitted.yaw == pytest.approx(yaw, abs=1e-6)


def whole_then_cut(picture: NDArray[np.uint8], w: Any) -> NDArray[np.uint8]:
    """The plain way: resize all of the picture, then cut."""
    resized = Image.fromarray(picture).resize((w.width, w.height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((w.left, w.up, w.left + w.size, w.up + w.size)))


@pytest.mark.parametrize("scale", [0.31, 0.9, 1.0, 2.7])
@pytest.mark.parametrize("centre", [(200.0, 150.0), (5.0, 290.0), (395.0, 3.0)])
@pytest.mark.parametrize("size", [224, 512])
def test_cutting_is_resizing_the_whole_picture_and_then_cropping(
    scale: float, centre: tuple[float, float], size: int
) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (300, 400, 3), np.uint8)
    fitted = alignment.fit(points_for(centre, alignment.RESCALE_224 * size / 224 / scale, 300), 300)
    w = alignment.window(fitted, (400, 300), size)
    difference = np.abs(alignment.cut(picture, w).astype(int) - whole_then_cut(picture, w))
    # The box is given in floats: Pillow's fixed-point weights differ in their last bit here and there.
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.005


def test_outside_of_the_picture_is_black() -> None:
    picture = np.full((100, 100, 3), 200, np.uint8)
    fitted = alignment.fit(points_for((0, 99), 60.0, 100), 100)  # the face is at the top left corner
    crop = alignment.cut(picture, alignment.window(fitted, (100, 100), 224))
    assert not crop[:100, :].any()
    assert not crop[:, :100].any()
    assert (crop[130:200, 130:200] == 200).all()
    far = alignment.Window(size=224, left=5000, up=5000, width=300, height=300)
    assert not alignment.cut(picture, far).any()


@pytest.mark.parametrize("ratio", [1.0, 2.0, 1.37])
@pytest.mark.parametrize("size", [224, 512])
def test_the_camera_leads_from_the_crop_back_to_source_pixels(ratio: float, size: int) -> None:
    """A soft spot in the source is found in the crop and mapped back, also when the working picture is smaller."""
    source = (1200, 900)
    x, y, sigma = 640.3, 411.8, 14.0
    cols, rows = round(source[0] / ratio), round(source[1] / ratio)
    gx = np.exp(-((((np.arange(cols) + 0.5) * source[0] / cols - 0.5) - x) ** 2) / (2 * sigma**2))
    gy = np.exp(-((((np.arange(rows) + 0.5) * source[1] / rows - 0.5) - y) ** 2) / (2 * sigma**2))
    picture = np.repeat((255 * gy[:, None] * gx).round().astype(np.uint8)[..., None], 3, axis=2)
    fitted = alignment.fit(points_for((600, 470), 170.0, source[1]), source[1])
    w = alignment.window(fitted, source, size)
    crop = alignment.cut(picture, w)[..., 0].astype(float)
    col = (crop.sum(0) * np.arange(size)).sum() / crop.sum()
    row = (crop.sum(1) * np.arange(size)).sum() / crop.sum()
    sx, sy, ox, oy = w.camera(source)
    assert col * sx + ox == pytest.approx(x, abs=0.05 * sx)
    assert row * sy + oy == pytest.approx(y, abs=0.05 * sy)
