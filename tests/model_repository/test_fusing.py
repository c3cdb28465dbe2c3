"""`fusion`: the parts of a fusion, on made pictures and the real face model's region."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from export.stages.fusion_region import outline_share, region_arrays
from networks.head_model import HeadModel, load_face_model
from tests.model_repository.version_folder import load

region_module = load("fusion", "region")
shape = load("fusion", "shape")
light = load("fusion", "fusion_light")
relighting = load("fusion", "relighting")
blending = load("fusion", "blending")
contrast = load("fusion", "contrast")
rim = load("fusion", "rim")
grain = load("fusion", "grain")
masks = load("fusion", "masks")
photographs = load("fusion", "photographs")
pairs = load("fusion", "pairs")
picture_files = load("fusion", "picture_files")
pasting = load("fusion", "pasting")
drawing = load("fusion", "drawing")
rasterizer = load("fusion", "rasterizer")
fusion_options = load("fusion", "fusion_options")
enhancement = load("fusion", "enhancement")
F32 = NDArray[np.float32]
FACE_MODEL = Path(__file__).resolve().parents[2] / "weights" / "face_model.npz"


@pytest.fixture(scope="module")
def model() -> HeadModel:
    found = load_face_model(FACE_MODEL)
    assert isinstance(found, HeadModel)
    return found


@pytest.fixture(scope="module")
def region(model: HeadModel) -> Any:
    return region_module.Region.from_arrays(region_arrays(model))


def heads(model: HeadModel) -> tuple[F32, F32]:
    """Shapes [3, N, 3] of two people, the second turned and smiling."""
    generator = np.random.default_rng(4)
    found = []
    for turn in (0.0, 0.5):
        neutral = model.shape(generator.normal(0, 1, 80).astype(np.float32), np.zeros(64, np.float32))
        expressive = neutral + model.expression[20] * (turn > 0)
        c, s = np.cos(turn), np.sin(turn)
        posed = expressive @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) + [0.1, 0.2, 0.3]
        found.append(np.stack([posed, expressive, neutral]).astype(np.float32))
    return found[0], found[1]


def test_the_shape_is_the_target_s_at_0_and_its_outline_always(model: HeadModel, region: Any) -> None:
    source, target = heads(model)
    posed = target[0][region.vertex]
    np.testing.assert_allclose(shape.fused_shape(source, target, region, 0.0), posed, atol=1e-5)
    moved = np.linalg.norm(shape.fused_shape(source, target, region, 1.0) - posed, axis=1)
    assert moved[region.freedom == 0].max() < 1e-5
    assert moved[region.freedom == 1].mean() > 0.01


def test_one_s_own_shape_on_oneself_changes_nothing(model: HeadModel, region: Any) -> None:
    _, target = heads(model)
    np.testing.assert_allclose(shape.fused_shape(target, target, region, 1.0), target[0][region.vertex], atol=1e-4)


def test_an_expression_that_the_source_lacks_is_drawn_stronger_than_the_target_s(model: HeadModel, region: Any) -> None:
    """A photograph of the same person without the smile: only `BEYOND` moves a place."""
    _, target = heads(model)
    plain = np.stack([target[0], target[2], target[2]])
    moved = np.linalg.norm(shape.fused_shape(plain, target, region, 1.0) - target[0][region.vertex], axis=1)
    smile = np.linalg.norm(target[1] - target[2], axis=1)[region.vertex]
    np.testing.assert_allclose(moved, shape.BEYOND * region.freedom * smile, atol=1e-4)


def square_drawing(side: int = 40) -> Any:
    """A face that fills a window of one pixel a cell, with eyes in its upper half, and a source of the same size."""
    ones, columns = np.ones((side, side), np.float32), np.arange(side, dtype=np.float32)
    grid = np.stack(np.meshgrid(columns, columns), axis=2)
    eyes = np.zeros_like(ones)
    eyes[15:18, 8:14] = eyes[15:18, 26:32] = 1
    normals = np.dstack([0 * ones, 0 * ones, ones])
    from_mouth = (np.linalg.norm(grid - [side / 2, 0.75 * side], axis=2) / side).astype(np.float32)
    return drawing.Drawing(
        drawing.Window(0, 0, 1, side, side), grid, grid, grid / side, normals, normals, ones, from_mouth, ones,
        1 - eyes, eyes, 0 * ones,
    )  # fmt: skip


def photograph_of(hair: F32) -> Any:
    """A picture of 224 px, of which the parser finds hair, uint8 [40, 40], in the first 40."""
    parts = np.zeros((3, 128, 128), np.uint8)
    parts[0] = 255
    around = np.zeros((224, 224), np.float32)
    around[:40, :40] = hair
    parts[1] = 255 * (around[::7, ::7].repeat(4, 0).repeat(4, 1) > 0)
    context = np.zeros(23, np.float32)
    context[[15, 16]] = 1
    return photographs.Photograph(np.zeros((224, 224, 3), np.uint8), (1.0, 1.0), np.zeros((3, 1, 3)), context, parts)


def test_fringe_strand_and_beard_stay_with_the_source() -> None:
    face = square_drawing()
    fringe, beard, strand = (np.zeros((40, 40), np.float32) for _ in range(3))
    fringe[:8], beard[28:], strand[:, :8] = 1, 1, 1
    found = [masks.hidden_skin(photograph_of(hair), face) for hair in (fringe, beard, strand)]
    assert found[0][2, 4:36].min() > 0.9
    assert found[0][25:].max() < 0.1
    assert found[1][32:, 4:36].min() > 0.9
    assert found[1][:20].max() < 0.1
    assert found[2][30:, 2].min() > 0.9


def test_an_eye_that_is_not_seen_is_told() -> None:
    face = square_drawing()
    shown = np.ones((40, 40), np.float32)
    assert not masks.an_eye_is_hidden(face, shown)
    shown[:, :18] = 0
    assert masks.an_eye_is_hidden(face, shown)


def test_broad_shades_far_from_the_target_s_are_held_and_narrow_ones_are_not() -> None:
    face = square_drawing(80)
    ones, difference = np.ones((80, 80), np.float32), np.zeros((80, 80, 3), np.float32)
    shown = relighting.Shown(ones, ones, ones)
    near = relighting._too_different(difference - relighting.DARKER, shown, face)
    np.testing.assert_allclose(near, 0, atol=1e-6)
    held = relighting._too_different(difference - 3 * relighting.DARKER, shown, face)
    np.testing.assert_allclose(held[40, 40], -2 * relighting.DARKER, rtol=0.05)
    assert relighting._too_different(difference + 3 * relighting.BRIGHTER, shown, face)[25, 40] > 0.2
    crease = difference.copy()
    crease[40:42] = -3 * relighting.DARKER
    np.testing.assert_allclose(relighting._too_different(crease, shown, face), 0, atol=1e-6)


@pytest.mark.parametrize(("sides", "found"), [((11, 29), True), ((11,), False)])
def test_frames_of_glasses_are_below_both_eyes_and_a_hard_shadow_below_one(sides: tuple[int, ...], found: bool) -> None:
    face = square_drawing()
    skin = np.ones((40, 40), np.float32)
    for middle in sides:
        for reach in (3, 6):
            cv2.ellipse(skin, (middle, 18), (reach, reach), 0, 0, 180, (0.5,))
    assert bool(masks.frames(skin, face).any()) is found


def test_the_nearest_triangle_stands_in_each_cell_in_perspective() -> None:
    """Beside each ray's own intersection with each triangle's plane."""
    generator = np.random.default_rng(3)
    triangles = np.arange(90, dtype=np.int32).reshape(30, 3)
    depths = generator.uniform(5, 15, 90).astype(np.float32)
    places = generator.uniform(-5, 25, (90, 2)).astype(np.float32)
    met = rasterizer.rasterized(places, depths, triangles, 20, 16)
    points = np.column_stack([places, np.ones(90)]) * depths[:, None]  # of a camera whose rays are (column, row, 1)
    for cell in range(20 * 16):
        ray = np.array([cell % 16, cell // 16, 1.0])
        best = (np.inf, -1, np.zeros(3))
        for number, corners in enumerate(triangles):
            weights = np.linalg.solve(points[corners].T, ray)
            if weights.min() > 0 and 1 / weights.sum() < best[0]:
                best = (1 / weights.sum(), number, weights / weights.sum())
        assert met.triangle[cell] == best[1]
        np.testing.assert_allclose(met.weights[:, cell], best[2], atol=2e-3)


@pytest.mark.parametrize("depth", [-1.0, 0.0, np.nan])
def test_a_shape_behind_the_camera_is_refused(depth: float) -> None:
    triangle = np.array([[0, 1, 2]], np.int32)
    with pytest.raises(Exception, match="behind the camera"):
        rasterizer.rasterized(np.zeros((3, 2), np.float32), np.array([1, 1, depth], np.float32), triangle, 8, 8)


def test_a_shape_that_covers_its_picture_many_times_is_refused() -> None:
    corners = np.array([[-1e9, -1e9], [1e9, -1e9], [0, 1e9]], np.float32)
    triangles = np.tile(np.array([[0, 1, 2]], np.int32), (100, 1))
    with pytest.raises(Exception, match="many times"):
        rasterizer.rasterized(corners, np.ones(3, np.float32), triangles, 8, 8)


def test_shades_are_held_to_the_target_s_and_become_them_where_the_expressions_differ() -> None:
    columns = np.arange(100, dtype=np.float32)
    stripes = np.repeat(np.tile(np.sin(2 * np.pi * columns / 20), (100, 1))[..., None], 3, axis=2).astype(np.float32)
    none, all_of_it = np.zeros((100, 100), np.float32), np.ones((100, 100), np.float32)
    inner = np.s_[20:-20, 20:-20]

    def strength(own: float, wanted: float, taken: F32) -> float:
        made = own * stripes + contrast.correction(own * stripes, wanted * stripes, all_of_it, taken, none)
        return float((made[inner] * stripes[inner]).sum() / (stripes[inner] ** 2).sum())

    assert 0.1 < strength(0.4, 0.1, none) < 0.28
    assert strength(0.1, 0.4, none) == pytest.approx(0.1, abs=0.01)
    assert strength(0.1, 0.4, all_of_it) > 0.25
    spared = contrast.correction(0.4 * stripes, 0.1 * stripes, all_of_it, none, all_of_it)
    assert np.abs(spared).max() < 1e-4


def test_the_border_leaves_out_what_is_no_skin_and_keeps_brows_and_what_lies_deep() -> None:
    face = square_drawing(80)
    ones, difference = np.ones((80, 80), np.float32), np.zeros((80, 80, 3), np.float32)
    for rows, columns in ((slice(60, 70), slice(0, 8)), (slice(2, 8), slice(30, 50)), (slice(50, 58), slice(36, 44))):
        difference[rows, columns] = -0.8
    left_out = rim.disagreeing(difference, ones, ones, face)
    assert left_out[65, 1] > 0.7  # hair beside the cheek
    assert left_out[4, 40] < 0.1  # a brow
    assert left_out[54, 40] < 0.1  # a moustache
    assert left_out[75, 40] < 0.1
    assert rim.disagreeing(difference, ones, 0 * ones, face)[54, 40] > 0.7  # where it was completed, a stain


def test_mouths_differ_by_their_expression_and_not_by_their_shape(model: HeadModel, region: Any) -> None:
    source, target = heads(model)
    context, parts = np.zeros(23, np.float32), np.zeros((3, 128, 128), np.uint8)
    rim_of_lips = region.vertex[region.from_mouth < shape.RIM]
    moved = np.linalg.norm(model.expression[:, rim_of_lips], axis=2).mean(axis=1)
    smile = model.expression[moved.argmax()] / moved.max() * (2 * shape.APART[1])
    smiling = np.stack([target[2] + smile, target[2] + smile, target[2]])
    photos = [
        photographs.Photograph(np.zeros((8, 8, 3), np.uint8), (1.0, 1.0), shapes, context, parts)
        for shapes in (source, np.stack([target[2]] * 3), smiling)
    ]
    assert shape.mouths_apart(photos[0], photos[1], region) == 0
    assert shape.mouths_apart(photos[0], photos[2], region) == 1


@pytest.mark.parametrize("size", [(512, 1024), (64, 64), (0, 0)])
def test_a_texture_of_a_size_that_no_step_gives_is_refused(size: tuple[int, int]) -> None:
    visibility = np.zeros((1, 1, 1024, 1024), np.uint8)
    for side in (512, 1024):
        taken = pairs.source_skin({"texture": np.zeros((1, 3, side, side), np.uint8), "visibility": visibility})
        assert taken.texture.shape == (3, side, side)
    with pytest.raises(Exception, match=f"{size[0]} x {size[1]} texels: send") as error:
        pairs.source_skin({"texture": np.zeros((1, 3, *size), np.uint8), "visibility": visibility})
    assert getattr(error.value, "tag", "") == "BadTensor"


def test_eyes_are_not_made_as_much_brighter_as_the_skin_around_them() -> None:
    face = square_drawing()
    ones = np.ones((40, 40), np.float32)
    change = np.full((40, 40, 3), 1.0, np.float32)
    difference = change - 0.8 * face.eyes[..., None]
    made = relighting._with_eyes(change, difference, relighting.Shown(ones, ones, ones), face)
    assert abs(made[16, 10].mean() - 0.2) < 0.1
    np.testing.assert_allclose(made[30], 1.0, atol=1e-3)
    covered = relighting._with_eyes(change, difference, relighting.Shown(ones, 0 * ones, ones), face)
    np.testing.assert_array_equal(covered, change)


def test_the_region_holds_the_features_and_leaves_out_ears_and_scalp(model: HeadModel, region: Any) -> None:
    way = outline_share(model.mean[model.landmarks])
    assert (way[17:] < 1).all()
    assert region.inside.max() == 1
    place = model.mean[region.vertex]
    assert (region.inside[np.abs(place[:, 0]) > 0.7] == 0).all()
    assert (region.inside[place[:, 1] > 0.8] == 0).all()
    assert set(np.unique(region.kind)) == {region_module.SKIN, region_module.EYE, region_module.MOUTH}


def test_where_a_face_model_has_no_mouth_every_place_is_far_from_one(model: HeadModel) -> None:
    arrays = region_arrays(model)
    others = arrays["kind"] != region_module.MOUTH
    without = {**arrays, "triangles": arrays["triangles"][others], "kind": arrays["kind"][others]}
    from_mouth = region_module.Region.from_arrays(without).from_mouth
    assert np.isfinite(from_mouth).all()  # it is interpolated: infinity times no weight is no number
    assert from_mouth.min() > max(masks.FOLDS[1], masks.LIPS[1], shape.RIM)


def test_the_mouth_s_inside_is_coarser_and_ends_where_it_did(model: HeadModel, region: Any) -> None:
    arrays = region_arrays(model)
    fine = arrays["triangles"][arrays["kind"] == region_module.MOUTH]
    coarse = region_module.coarser(fine, len(arrays["vertex"]))
    assert 0 < len(coarse) < len(fine) / 3
    spans = [np.ptp(model.mean[arrays["vertex"][np.unique(part)]], axis=0) for part in (coarse, fine)]
    np.testing.assert_allclose(spans[0], spans[1], atol=0.1)
    assert region.triangles.max() + 1 == len(region.vertex) < len(arrays["vertex"])


@pytest.mark.parametrize(("spread", "kept"), [(0.1, relighting.FOLLOWED), (0.4, 0.8), (1.0, 1.0)])
def test_a_face_keeps_its_shading_in_a_light_like_its_own_and_loses_it_in_a_strong_one(
    spread: float, kept: float
) -> None:
    gain = np.full((20, 20, 3), 0.3, np.float32) + np.where(np.arange(20) < 10, -spread, spread)[:, None, None]
    gain = (gain + np.array([-0.1, 0.0, 0.1])).astype(np.float32)
    followed = relighting._followed(gain, np.ones((20, 20), np.float32))
    np.testing.assert_allclose(followed.mean(axis=(0, 1)), gain.mean(axis=(0, 1)), atol=1e-5)
    np.testing.assert_allclose(np.ptp(followed[..., 1]), kept * np.ptp(gain[..., 1]), rtol=1e-3)
    np.testing.assert_allclose(np.diff(followed, axis=2), np.diff(gain, axis=2), atol=1e-5)


def test_a_light_that_falls_from_one_side_is_moved_to_the_other() -> None:
    side = 64
    x, y = np.meshgrid(np.linspace(-0.9, 0.9, side), np.linspace(-0.9, 0.9, side))
    z = np.sqrt(np.maximum(1 - (x * x + y * y) / 2, 0.05))
    normals = np.stack([x, -y, z], axis=2)
    normals = (normals / np.linalg.norm(normals, axis=2, keepdims=True)).astype(np.float32)
    tone = np.array([200, 150, 120], np.float32)

    def lit(direction: float) -> F32:
        return np.asarray(tone * (0.7 + 0.3 * direction * normals[..., :1]), np.float32)

    own, wanted = lit(1.0), lit(-1.0)
    freckle = own.copy()
    freckle[30:33, 30:33] *= 0.5
    weights = np.ones((side, side), np.float32)
    first, second = (light.base(light.logarithms(picture), normals, weights) for picture in (freckle, wanted))
    passed = light.Passage.between(first, second).of(freckle)
    inner = np.s_[8:-8, 8:-8]
    off = np.abs(passed - wanted)[inner].mean(axis=2)
    assert np.median(off) < 4
    assert passed[31, 31].mean() < 0.75 * wanted[31, 31].mean()  # the freckle stays


def test_a_membrane_spreads_what_is_known_and_keeps_it() -> None:
    known = np.zeros((40, 60), np.float32)
    known[:, 0] = known[:, -1] = 1
    values = np.zeros((40, 60, 3), np.float32)
    values[:, -1] = 10
    spread = blending.membrane(values, known)
    assert spread[20, 0, 0] == 0
    assert spread[20, -1, 0] == 10
    middle = spread[20, 5:-5, 0]
    assert (np.diff(middle) > -0.5).all()
    assert 3 < middle.mean() < 7


def test_bands_are_mixed_over_widths_of_their_own_and_far_from_the_border_each_picture_is_itself() -> None:
    mask = np.zeros((96, 96), np.float32)
    mask[:, 48:] = 1
    over, under = (np.full((96, 96, 3), level, np.float32) for level in (200, 100))
    mixed = blending.blend(over, under, mask, 3)
    np.testing.assert_allclose(mixed[:, -10:], 200, atol=1)
    np.testing.assert_allclose(mixed[:, :10], 100, atol=1)
    assert np.abs(np.diff(mixed[48, :, 0])).max() < 30


def test_a_sharp_face_becomes_as_blurred_and_as_grainy_as_its_target() -> None:
    generator = np.random.default_rng(0)
    step = np.kron(generator.integers(60, 200, (12, 12)), np.ones((10, 10))).astype(np.float32)
    sharp = np.repeat(step[..., None], 3, axis=2)
    blurred = grain._blurred(sharp, 2.0) + generator.normal(0, 4, (120, 120, 1)).astype(np.float32)
    weight = np.ones((120, 120), bool)
    result = grain.matched(sharp, blurred, weight)
    goal, before, after = (grain.sharpness(grain._grey(picture), weight) for picture in (blurred, sharp, result))
    assert abs(after - goal) < 0.4 * abs(before - goal)
    assert grain.noise(grain._grey(result), weight) > 1


def test_a_window_may_reach_beyond_the_picture() -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    window = drawing.Window(-2, -1, 2, 4, 3)
    here = pasting.surroundings(pixels, window)
    assert here.shape == (6, 8, 3)
    np.testing.assert_array_equal(here[1:5, 2:7], pixels)
    np.testing.assert_array_equal(here[0], here[1])
    np.testing.assert_array_equal(here[:, 0], here[:, 2])


@pytest.mark.parametrize("shape", [(37, 53, 3), (37, 53), (1, 1, 3), (1, 1), (2, 300, 3)])
def test_a_png_file_holds_every_pixel(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    with Image.open(io.BytesIO(picture_files.encoded(pixels, "png"))) as file:
        assert (file.format, file.mode) == ("PNG", "RGB" if len(shape) == 3 else "L")
        np.testing.assert_array_equal(np.asarray(file), pixels)
    picture = cv2.imdecode(np.frombuffer(picture_files.png(pixels), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(picture[..., ::-1] if len(shape) == 3 else picture, pixels)


def test_options_are_read_and_others_left_alone() -> None:
    read = fusion_options.options_from('{"shape": "0.25", "eyes": "Target", "mark": true, "consent": "x"}')
    assert (read.shape, read.eyes, read.mouth, read.mark) == (0.25, "target", "target", True)
    for bad in ('{"shape": true}', '{"shape": "nan"}', '{"eyes": 1}', '{"mark": "maybe"}'):
        with pytest.raises(load("fusion", "fusion_refusals").Refused):
            fusion_options.options_from(bad)


def pictured(shapes: F32, side: int, pixels: NDArray[np.uint8]) -> Any:
    """A photograph whose 224 px crop is ``side`` of its pixels wide, from (20, 30) on."""
    scale = side / 224
    context = np.array([0] * 15 + [scale, scale, 20, 30, scale, scale, 20, 30], np.float32)
    return photographs.Photograph(pixels, (1.0, 1.0), shapes, context, np.full((3, 128, 128), 255, np.uint8))


def test_an_enhanced_source_shows_the_same_places_and_is_as_fine_as_the_target(model: HeadModel, region: Any) -> None:
    source, target = heads(model)
    rows, columns = np.mgrid[:200, :220]
    ramps = np.stack([columns, rows, np.full_like(rows, 90)], -1).astype(np.uint8)
    small = pictured(source, 150, ramps)
    large = pictured(target, 360, np.zeros((500, 500, 3), np.uint8))
    asked = []

    def enhance(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        asked.append(len(tiles))
        return tiles

    made = enhancement.enhanced_source(small, large, region, enhance)
    assert asked
    inner = region.vertex[region.inside > 0.9]
    before, after, goal = (p.project(p.shapes[0][inner]) for p in (small, made, large))
    assert np.ptp(after, axis=0).max() == pytest.approx(np.ptp(goal, axis=0).max(), rel=0.1)
    columns, rows = after.astype(np.float32).T
    found = cv2.remap(made.pixels, columns[None], rows[None], cv2.INTER_LINEAR)[0]
    np.testing.assert_allclose(found[:, :2], before, atol=1.5)
    np.testing.assert_allclose(made.to_crop(after), small.to_crop(before), atol=0.02)


def test_a_source_that_is_fine_enough_stays(model: HeadModel, region: Any) -> None:
    source, target = heads(model)
    large = pictured(source, 420, np.zeros((500, 500, 3), np.uint8))
    small = pictured(target, 200, np.zeros((300, 300, 3), np.uint8))
    assert enhancement.enhanced_source(large, small, region, lambda tiles: tiles) is large
