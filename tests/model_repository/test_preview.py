"""`postprocess`: the picture of the result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.model_repository import dome
from tests.model_repository.version_folder import load

preview = load("postprocess", "preview")
surface = load("postprocess", "surface")
figure = load("postprocess", "figure")
irises = load("postprocess", "irises")
placing = load("postprocess", "placing")
U8 = NDArray[np.uint8]

P, G = preview.PANEL, preview.GUTTER
# Both crops at the same scale as the source picture: the 512 crop is the 224 crop, only larger.
STEP = 224 / 512
CONTEXT = np.array([0] * 15 + [1, 1, 0, 0, STEP, STEP, STEP / 2 - 0.5, STEP / 2 - 0.5], np.float32)
CROP = np.full((3, 512, 512), 40, np.uint8)


def face() -> Any:
    return surface.Surface.from_arrays(dome.arrays())


def chart(size: int = 256) -> U8:
    """Left half red, right half green; the upper quarter of each brighter."""
    texture = np.zeros((size, size, 3), np.uint8)
    texture[:, : size // 2], texture[:, size // 2 :] = (180, 20, 20), (20, 180, 20)
    texture[: size // 4] += 60
    return texture


def panels(sheet: U8) -> list[list[U8]]:
    return [[sheet[G + i * (P + G) :, G + k * (P + G) :][:P, :P] for k in range(4)] for i in range(2)]


def page(shapes: NDArray[np.float32], texture: U8) -> U8:
    posed, upright = (
        figure.Figure(face(), "head", shape, np.eye(3), None, irises.Irises(), None).painted(texture)
        for shape in shapes[:2]
    )
    turn = placing.Pose.between(shapes[1], shapes[0]).turn
    return np.asarray(preview.page(posed, upright, turn, CONTEXT, CROP))


def drawn(yaw: float = 0.0, texture: U8 | None = None) -> list[list[U8]]:
    texture = chart() if texture is None else texture
    sheet = page(dome.shapes(yaw), texture)
    assert sheet.shape == (2 * P + 3 * G, 4 * P + 5 * G, 3)
    assert sheet.dtype == np.uint8
    return panels(sheet)


def outline(panel: U8, background: U8) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows, cols = np.nonzero(np.abs(panel.astype(int) - background).max(axis=2) > 40)
    return rows, cols


def test_the_front_view_shows_the_texture_the_right_way_round() -> None:
    front = drawn()[0][1]
    middle, quarter = P // 2, P // 4
    assert front[middle, middle - quarter, 0] > 120 > front[middle, middle - quarter, 1]
    assert front[middle, middle + quarter, 1] > 120 > front[middle, middle + quarter, 0]
    assert front[int(P * 0.16), middle - 20].min() > front[middle, middle - 20].min() + 20


def test_the_face_fills_its_panel_and_stays_inside() -> None:
    rows, cols = outline(drawn()[0][1], preview._wall())
    assert rows.max() - rows.min() == pytest.approx(preview.FILL * 0.96 * P, rel=0.12)
    assert min(rows.min(), cols.min()) > 5
    assert max(rows.max(), cols.max()) < P - 6


@pytest.mark.parametrize("yaw", [-30.0, 30.0])
def test_the_side_views_show_the_half_that_the_camera_saw(yaw: float) -> None:
    """A nose that points to the right of the picture shows the left half (red), and keeps pointing there."""
    _, _, three_quarter, profile = drawn(yaw)[0]
    for panel in (three_quarter, profile):
        red = (panel[..., 0].astype(int) - panel[..., 1] > 60).sum()
        green = (panel[..., 1].astype(int) - panel[..., 0] > 60).sum()
        assert (red > 2 * green) if yaw > 0 else (green > 2 * red)
    rows, cols = outline(profile, preview._wall())
    nose = cols[np.abs(rows - P // 2) < 4]
    assert nose.max() == cols.max() if yaw > 0 else nose.min() == cols.min()


def test_the_photograph_is_shown_and_the_shape_lies_on_it_where_the_camera_puts_it() -> None:
    photograph, laid = (row[0] for row in drawn(yaw=20.0))
    assert (photograph == 40).all()
    rows, cols = outline(laid, np.full((P, P, 3), 40, np.uint8))
    posed = dome.turned(20.0)
    depth = preview.DISTANCE - posed[:, 2]
    u = (preview.FOCAL * posed[:, 0] / depth + preview.CENTRE + 0.5) * P / 224 - 0.5
    v = (223 - (preview.FOCAL * posed[:, 1] / depth + preview.CENTRE) + 0.5) * P / 224 - 0.5
    assert cols.min() == pytest.approx(u.min(), abs=1.5)
    assert cols.max() == pytest.approx(u.max(), abs=1.5)
    assert rows.min() == pytest.approx(v.min(), abs=1.5)
    assert rows.max() == pytest.approx(v.max(), abs=1.5)


def test_the_bare_shape_is_grey_and_lit_from_above() -> None:
    front = drawn()[1][1].astype(int)
    assert np.abs(front[..., 0] - front[..., 2]).max() < 20
    middle = P // 2
    assert front[middle - 60, middle - 50].mean() > front[middle + 60, middle + 50].mean() + 10


def test_fine_detail_of_the_texture_is_still_there() -> None:
    """Stripes of four texels of a 512 texture, some two pixels of a panel, keep most of their contrast."""
    stripes = np.full((512, 512, 3), 90, np.uint8)
    stripes[:, (np.arange(512) // 4) % 2 == 0] = 170
    front = drawn(texture=stripes)[0][1][P // 2 - 60, P // 2 - 90 : P // 2 - 30, 0].astype(float)
    assert front.std() > 20


def test_a_shape_of_no_size_is_drawn_as_nothing() -> None:
    sheet = page(np.zeros_like(dome.shapes()), chart())
    np.testing.assert_array_equal(panels(sheet)[0][1], preview._wall())
