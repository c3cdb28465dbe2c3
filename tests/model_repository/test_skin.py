"""What is computed of a texture: close-ups, light, relief, covers, and what preprocess decodes for large ones."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.model_repository import heads
from tests.model_repository.version_folder import load

close_up = load("align", "close_up")
covers = load("postprocess", "covers")
glasses = load("postprocess", "glasses")
light = load("postprocess", "light")
photograph = load("postprocess", "photograph")
relief = load("postprocess", "relief")

F32 = NDArray[np.float32]
# A face in the middle of a crop of 224 whose pixels are those of the source.
POINTS = (81.0, 81.0, 143.0, 81.0, 112.0, 117.0, 87.0, 150.0, 137.0, 150.0)
CONTEXT = np.array([60, 50, 164, 180, 1, *POINTS, 1, 1, 0, 0, 224 / 512, 224 / 512, 0, 0], np.float32)


def parts(skin: float = 1.0) -> NDArray[np.uint8]:
    found = np.zeros((3, 128, 128), np.uint8)
    found[0], found[2] = round(255 * skin), round(255 * (1 - skin))
    return found


# --- close-ups ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1536, 2048, 4096])
def test_a_close_up_shows_the_pixels_that_its_camera_says(size: int) -> None:
    rows, columns = np.mgrid[0:1500, 0:1800]
    picture = np.stack([columns // 8, rows // 8, np.zeros_like(rows)], -1).astype(np.uint8)
    shown = close_up.close_up(picture, (2.0, 2.0), [4.0, 4.0, 300.0, 200.0], size)
    sx, sy, ox, oy = shown.camera
    height, width = shown.pixels.shape[:2]
    assert sx == pytest.approx(max(2.0, 4 * 1024 / size / close_up.FINER), rel=0.01)
    for column, row in ((10, 10), (width - 10, height - 10), (width // 2, 30)):
        at_x, at_y = (column * sx + ox + 0.5) / 2 - 0.5, (row * sy + oy + 0.5) / 2 - 0.5
        found = shown.pixels[row, column].astype(float)
        assert (found[0], found[1]) == (pytest.approx(at_x / 8, abs=1.1), pytest.approx(at_y / 8, abs=1.1))


@pytest.mark.parametrize(
    ("crop", "size"), [([4.0, 4.0, 300.0, 200.0], 1024), ([2.0, 2.0, 0.0, 0.0], 4096), ([4.0, 4.0, 1e6, 1e6], 2048)]
)
def test_nothing_is_cut_out_where_it_would_show_no_more(crop: list[float], size: int) -> None:
    picture = np.full((1500, 1800, 3), 9, np.uint8)
    assert close_up.close_up(picture, (2.0, 2.0), crop, size) is close_up.NONE


def test_preprocess_decodes_more_for_a_large_texture_and_no_more_than_its_bound() -> None:
    pictures, structure = load("preprocess", "pictures"), load("preprocess", "structure")
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((5000, 4000)).save(buffer, "JPEG")
    usual = pictures.decode(buffer.getvalue(), structure.Limits())
    fine = pictures.decode(buffer.getvalue(), structure.Limits(size=structure.Size.FINE))
    assert max(usual.pixels.shape) <= 2048 < max(fine.pixels.shape) <= 4096
    assert fine.pixels[..., 0].size <= structure.FINE_PIXELS
    assert usual.source == fine.source == (5000, 4000)
    assert structure.inspect(buffer.getvalue(), structure.Limits(size=structure.Size.FINE)).pixels == 5000 * 4000


# --- the texture as seen by the photograph ----------------------------------------------------------------------------


def shown(pixels: NDArray[np.uint8], gain: float = 1.0) -> Any:
    axis = (np.arange(256, dtype=np.float32) + 0.5) * (224 / 256) - 0.5
    columns, rows = np.meshgrid(axis, axis)
    seen = np.ones((256, 256), np.float32)
    ratio = np.full(2, len(pixels) / 224)
    return photograph.Photograph(np.stack([columns, rows, seen, seen]), pixels, ratio, (ratio - 1) / 2, gain)


def test_an_enlarged_texture_is_the_photograph_where_it_is_seen_and_mirrors_it_elsewhere() -> None:
    pixels = np.random.default_rng(3).integers(90, 160, (2048, 2048, 3)).astype(np.uint8)
    own = shown(pixels, 4.0)
    base = np.asarray(cv2.resize(pixels, (1024, 1024), interpolation=cv2.INTER_AREA), np.uint8)
    own.places[3, :, :128] = 0
    made = photograph.enlarged(base, own, 2048).astype(int)
    assert np.abs(made[:, 1100:] - pixels[:, 1100:]).mean() < 1
    enlarged = cv2.resize(base, (2048, 2048), interpolation=cv2.INTER_CUBIC).astype(int)
    fine, mirrored = made[:, :900] - enlarged[:, :900], (made - enlarged)[:, ::-1][:, :900]
    assert np.corrcoef(fine.ravel(), mirrored.ravel())[0, 1] > 0.95


def test_rows_of_a_map_are_those_of_the_whole_map_enlarged() -> None:
    own = shown(np.zeros((224, 224, 3), np.uint8))
    table = np.random.default_rng(1).random((256, 256), np.float32)
    whole = cv2.resize(table, (1408, 1408), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(own.spread(table, 1408, slice(300, 500)), whole[300:500], atol=1e-5)


# --- light ------------------------------------------------------------------------------------------------------------


def ball() -> F32:
    """Normals of a half ball toward the camera: [128, 128, 3]."""
    axis = np.linspace(-0.95, 0.95, 128, dtype=np.float32)
    x, y = np.meshgrid(axis, -axis)
    z = np.sqrt(np.maximum(1 - x * x - y * y, 0.02))
    normals = np.stack([x, y, z], -1)
    return np.asarray(normals / np.linalg.norm(normals, axis=-1, keepdims=True), np.float32)


def test_the_light_of_a_lamp_is_found_and_divided_out() -> None:
    normals, albedo = ball(), np.full((128, 128, 3), 0.3, np.float32)
    albedo[:, 64:] *= 0.8
    lamp = np.array([0.6, 0.3, 0.74], np.float32)
    colour = albedo * (0.3 + np.maximum(normals @ lamp, 0))[..., None] * 0.7
    inside = np.hypot(*np.meshgrid(np.linspace(-1, 1, 128), np.linspace(-1, 1, 128))) < 0.9
    weight = inside.astype(np.float32)
    found = light.fit_light(colour, albedo, normals, weight)
    bare = colour * light.gains(colour, albedo, normals, found, weight, weight)[..., None]
    ratio, before = np.log(bare / albedo)[inside], np.log(colour / albedo)[inside]
    assert ratio.std() < 0.15 * before.std()


def test_the_slope_of_the_light_is_its_derivative() -> None:
    normals = ball()[40:90:7, 40:90:7].reshape(-1, 3).astype(np.float64)
    some = light.Light(np.array([1, 0.2, 0.1, 0.3, 0.05, -0.04, 0.03, 0.06, 0.02]))
    turning = some.turning(normals)
    for axis in range(3):
        step = np.eye(3)[axis] * 1e-5
        numeric = (np.log(some.on(normals + step)) - np.log(some.on(normals - step))) / 2e-5
        np.testing.assert_allclose(turning[:, axis], numeric, atol=2e-2)


# --- relief -----------------------------------------------------------------------------------------------------------


def test_a_dark_line_is_a_groove_and_a_mole_is_none() -> None:
    texture = np.full((1024, 1024, 3), 150, np.uint8)
    cv2.line(texture, (300, 512), (700, 512), (110, 110, 110), 3)
    texture = np.asarray(cv2.GaussianBlur(texture, (0, 0), 1.5), np.uint8)
    surface = heads.surface_of_head()
    flat = light.Light(np.eye(1, 9, dtype=np.float32)[0])
    shape = heads.tensors(np.zeros(64, np.float32))["shapes"][0]
    own = shown(np.zeros((224, 224, 3), np.uint8))
    slopes = relief.relief(texture, own, surface.texels, (shape, surface.normals(shape)), flat, np.zeros((256, 256)))
    above, below = slopes[500:511, 340:400, 1].mean(), slopes[514:525, 340:400, 1].mean()
    assert above > 0.02  # up the texture the skin rises out of the groove
    assert below < -0.02
    dotted = np.full((1024, 1024, 3), 150, np.uint8)
    cv2.circle(dotted, (400, 512), 6, (60, 40, 35), -1)
    mask = relief.moles(np.asarray(cv2.GaussianBlur(dotted, (0, 0), 1.5), np.uint8), 1.0)
    assert mask[512, 400] > 0.8 > 0.05 > mask[300, 400]
    assert relief.moles(texture, 1.0)[512, 500] < 0.2


def test_a_flat_map_points_along_the_normal() -> None:
    np.testing.assert_array_equal(relief.normal_map(np.zeros((4, 4, 2), np.float32), 1.0)[0, 0], (128, 128, 255))
    risen = relief.normal_map(np.full((4, 4, 2), (0.5, 0.0), np.float32), 1.0)[0, 0]
    assert risen[0] < 100 < risen[1] == 128


# --- covers -----------------------------------------------------------------------------------------------------------


def named(given: NDArray[np.uint8], crop: NDArray[np.uint8] | None = None) -> tuple[str, ...]:
    shape = np.full((3, 512, 512), 140, np.uint8) if crop is None else crop
    regions = covers.Regions.of(CONTEXT, shown(np.zeros((224, 224, 3), np.uint8)).places, 128)
    kinds: tuple[str, ...] = covers.covers_of(given, regions, CONTEXT, shape).kinds
    return kinds


def covered(rows: slice, columns: slice, by: int = 2) -> NDArray[np.uint8]:
    """Parts of a face of skin with a cover in rows and columns of the 224 crop."""
    given = parts()
    at = tuple(slice(round(s.start * 128 / 224), round(s.stop * 128 / 224)) for s in (rows, columns))
    given[0][at], given[by][at] = 0, 255
    return given


def test_what_covers_a_face_has_a_name() -> None:
    assert named(parts()) == ()
    assert named(covered(slice(115, 190), slice(60, 164))) == ("mask",)
    assert named(covered(slice(60, 140), slice(60, 110))) == ("thing",)
    assert named(covered(slice(50, 130), slice(115, 164), by=1)) == ("hair",)
    assert named(covered(slice(68, 96), slice(64, 160))) == ("glasses",)  # dark lenses
    # A beard that the parser does not know covers mouth and chin, and not the cheeks.
    assert named(covered(slice(138, 190), slice(85, 139))) == ()


def test_thin_frames_are_found_by_the_bridge_of_the_nose() -> None:
    crop = np.full((512, 512, 3), 150, np.uint8)
    for x in (185, 327):
        cv2.ellipse(crop, (x, 185), (52, 40), 0, 0, 360, (30, 30, 30), 4)
    assert named(parts(), np.ascontiguousarray(crop.transpose(2, 0, 1))) == ()
    cv2.line(crop, (236, 180), (276, 180), (30, 30, 30), 5)
    assert named(parts(), np.ascontiguousarray(crop.transpose(2, 0, 1))) == ("glasses",)


def test_a_face_turned_far_to_the_side_has_no_covers() -> None:
    context = CONTEXT.copy()
    context[9] = 165  # the tip of the nose
    regions = covers.Regions.of(context, shown(np.zeros((224, 224, 3), np.uint8)).places, 128)
    given = covered(slice(60, 140), slice(60, 110))
    assert covers.covers_of(given, regions, context, np.full((3, 512, 512), 140, np.uint8)).kinds == ()
