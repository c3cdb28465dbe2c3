"""The modules of `merge`: who is one person, one identity, one texture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from networks.camera import project as project_in_crop
from networks.camera import rotation
from tests.model_repository.version_folder import load

people, identities, textures, photo_tensors, grazing = (
    load("merge", name) for name in ("people", "identities", "textures", "photo_tensors", "grazing")
)
chart_module, correction_module = load("merge", "chart"), load("merge", "person_correction")
SIDE, TABLE = 128, 64
LANDMARKS = np.arange(20, dtype=np.int32)  # vertices


def unit(*rows: list[float]) -> NDArray[np.float32]:
    vectors = np.array(rows, np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_photographs_of_one_person_pass_and_a_stranger_is_named() -> None:
    one = unit([1, 0.1, 0], [1, -0.1, 0.1], [1, 0, -0.1])
    assert (people.check_one_person(one, 0.25) > 0.9).all()
    with pytest.raises(Exception, match="row 1 of the 3 in this request shows somebody else") as error:
        people.check_one_person(np.insert(one[:2], 1, unit([0, 0, 1]), axis=0), 0.25)
    assert getattr(error.value, "tag", "") == "DifferentPeople"
    with pytest.raises(Exception, match="the two photographs show different people"):
        people.check_one_person(unit([1, 0], [0, 1]), 0.25)
    assert people.check_one_person(unit([1, 0]), 0.25).tolist() == [1.0]


@pytest.fixture
def modes() -> NDArray[np.float32]:
    """A face model of 20 vertices: mean, 80 modes of identity and 64 of expression."""
    return np.random.default_rng(3).normal(0, 0.1, (145, 20, 3)).astype(np.float32)


def coefficients_of(count: int) -> NDArray[np.float32]:
    return np.asarray(np.random.default_rng(4).normal(0, 0.4, (count, 257)), np.float32)


def decoded(modes: NDArray[np.float32], coefficients: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shapes [K, 3, N, 3] as the regressor's decoder makes them."""
    neutral = modes[0] + np.tensordot(coefficients[:, :80], modes[1:81], 1)
    shape = neutral + np.tensordot(coefficients[:, 80:144], modes[81:], 1)
    turn = rotation(torch.from_numpy(coefficients[:, 224:227])).numpy()
    posed = shape @ turn + coefficients[:, None, 254:257]
    return np.asarray(np.stack([posed, shape, neutral], 1), np.float32)


def test_joined_shapes_are_those_of_the_joined_coefficients(modes: NDArray[np.float32]) -> None:
    coefficients, weights = coefficients_of(3), np.array([0.5, 0.2, 0.3], np.float32)
    person = identities.join(decoded(modes, coefficients), coefficients, weights, LANDMARKS)
    np.testing.assert_allclose(person.shapes, decoded(modes, person.coefficients), atol=1e-4)
    np.testing.assert_allclose(
        person.coefficients[:, :80], np.repeat([weights @ coefficients[:, :80]], 3, 0), atol=1e-5
    )
    np.testing.assert_array_equal(person.coefficients[:, 80:144], coefficients[:, 80:144])
    np.testing.assert_array_equal(person.coefficients[:, 224:254], coefficients[:, 224:254])


def test_one_photograph_stays_as_it_is(modes: NDArray[np.float32]) -> None:
    coefficients = coefficients_of(1)
    shapes = decoded(modes, coefficients)
    person = identities.join(shapes, coefficients, np.ones(1, np.float32), LANDMARKS)
    np.testing.assert_allclose(person.shapes, shapes, atol=1e-5)


def test_the_common_identity_leaves_landmarks_where_they_were_seen(modes: NDArray[np.float32]) -> None:
    coefficients, weights = coefficients_of(2), np.array([0.5, 0.5], np.float32)
    coefficients[0, 0], coefficients[1, 0] = -0.3, 0.3
    growing = modes.copy()
    growing[1] = modes[0]  # the first mode makes the head larger
    shapes = decoded(growing, coefficients)
    person = identities.join(shapes, coefficients, weights, LANDMARKS)
    cameras = np.tile(np.array([1, 1, 0, 0], np.float32), (2, 1))
    step = (person.coefficients - coefficients)[:, None, 254:257]
    seen = (shapes[:, 0], person.shapes[:, 0], person.shapes[:, 0] - step)
    before, after, unmoved = (identities.project(posed, cameras).mean(1) for posed in seen)
    assert np.abs(after - before).max() < 0.3 * np.abs(unmoved - before).max()
    np.testing.assert_allclose(person.shapes, decoded(growing, person.coefficients), atol=1e-4)


def correction_of(modes: NDArray[np.float32], embedder: int = 7) -> Any:
    """A map that adds the difference of turned and frontal embeddings' first number to the first coefficient."""
    matrix = np.zeros((2 * (80 + 4), 80), np.float32)
    matrix[160, 0], matrix[164, 0] = -1, 1
    offset = np.zeros(80, np.float32)
    offset[1] = 0.5
    return correction_module.PersonCorrection(matrix, offset, embedder, modes[1:81])


def turned_to(*degrees: float) -> NDArray[np.float32]:
    coefficients = coefficients_of(len(degrees))
    coefficients[:, 225] = np.radians(degrees)
    return coefficients


def test_photographs_from_the_front_and_from_the_sides_say_more_than_their_mean(modes: NDArray[np.float32]) -> None:
    coefficients, weights = turned_to(3, -40, 38), np.array([0.2, 0.4, 0.4], np.float32)
    vectors = np.array([[0.1, 0, 0, 0], [0.5, 0, 0, 0], [0.7, 0, 0, 0]], np.float32)
    sure, embedder = np.ones(3, np.float32), np.full((3, 1), 7, np.int64)
    correction = correction_of(modes)
    lacking = correction.lacking(coefficients, weights, vectors, embedder, sure)
    assert lacking.identity[:3] == pytest.approx([0.5, 0.5, 0], abs=1e-6)
    person = identities.join(decoded(modes, coefficients), coefficients, weights, LANDMARKS, lacking)
    np.testing.assert_allclose(person.shapes, decoded(modes, person.coefficients), atol=1e-4)
    mean = weights @ coefficients[:, :80]
    np.testing.assert_allclose(person.coefficients[:, :80], [mean + lacking.identity] * 3, atol=1e-5)
    # Other weights than it was made for: another embedder, vectors of another size, another regressor.
    assert correction_of(modes, 8).lacking(coefficients, weights, vectors, embedder, sure) is None
    assert correction.lacking(coefficients, weights, np.zeros((3, 512), np.float32), embedder, sure) is None
    assert correction.lacking(coefficients, weights, vectors, embedder, np.zeros(3, np.float32)) is None


def test_photographs_of_one_side_keep_their_mean_and_in_between_nothing_jumps(modes: NDArray[np.float32]) -> None:
    weights, sure, embedder = np.full(2, 0.5, np.float32), np.ones(2, np.float32), np.full((2, 1), 7, np.int64)
    vectors = np.array([[0.1, 0, 0, 0], [0.5, 0, 0, 0]], np.float32)

    def said(*degrees: float) -> float:
        found = correction_of(modes).lacking(turned_to(*degrees), weights, vectors, embedder, sure)
        return 0.0 if found is None else float(found.identity[1])

    assert said(0, 8) == said(35, 45) == 0
    assert said(0, 40) == pytest.approx(0.5)
    steps = np.diff([said(0, float(degrees)) for degrees in np.arange(10, 32, 0.5)])
    assert (steps >= -1e-6).all()
    assert steps.max() < 0.15


def test_half_a_turn_to_the_side_weighs_most_and_a_profile_a_small_or_a_blurred_face_least() -> None:
    frontal, half, profile, small, blurred = range(5)
    coefficients = np.zeros((5, 257), np.float32)
    coefficients[half, 225], coefficients[profile, 225] = -0.7, 1.4  # yaw
    quality = np.ones((5, 4), np.float32)
    quality[small, 0], quality[blurred, 1] = 0.3, 0.2
    weights = identities.weigh(coefficients, quality, np.ones(5, np.float32), np.zeros(5, np.float32))
    assert weights.sum() == pytest.approx(1)
    assert weights[half] > weights[frontal] > weights[[profile, small, blurred]].max()
    assert (weights > 0.05).all()
    surer = np.array([1, 1, 1, 1, 2], np.float32)
    assert identities.weigh(coefficients, quality, np.ones(5, np.float32), surer)[blurred] > 1.5 * weights[blurred]


def test_the_expression_is_that_of_the_best_frontal_photograph() -> None:
    coefficients, quality = np.zeros((3, 257), np.float32), np.ones((3, 4), np.float32)
    coefficients[0, 225], quality[2, 0] = 0.7, 0.4
    assert identities.most_frontal(coefficients, quality) == 1


def test_landmarks_lie_where_the_camera_of_the_regressor_puts_them() -> None:
    points = np.random.default_rng(5).normal(0, 0.8, (2, 68, 3)).astype(np.float32)
    cameras = np.array([[1.5, 1.5, 40, 60], [0.5, 0.6, 3, 4]], np.float32)
    there = project_in_crop(torch.from_numpy(points)).numpy() * cameras[:, None, :2] + cameras[:, None, 2:]
    np.testing.assert_allclose(identities.project(points, cameras), there, atol=1e-3)


def painted(level: float) -> NDArray[np.uint8]:
    """A texture [3, S, S] of a level with stripes."""
    stripes = level + 12 * np.sin(np.arange(SIDE) * 2 * np.pi / 8)
    return np.broadcast_to(stripes.astype(np.uint8), (3, SIDE, SIDE)).copy()


def halves(overlap: int) -> NDArray[np.uint8]:
    """Visibility [2, 1, S, S] of two photographs that show one side each, and the middle both."""
    seen = np.zeros((2, 1, SIDE, SIDE), np.uint8)
    seen[0, ..., : SIDE // 2 + overlap], seen[1, ..., SIDE // 2 - overlap :] = 255, 255
    return seen


def merged(first: NDArray[np.uint8], second: NDArray[np.uint8], **more: Any) -> Any:
    arguments: dict[str, Any] = {
        "facing": np.ones((2, TABLE, TABLE), np.float32),
        "detail": np.ones(2, np.float32),
        "core": np.zeros((TABLE, TABLE), np.float32),
        "reference": 0,
    } | more
    return textures.merge_textures(np.stack([first, second]), halves(20), **arguments)


def test_photographs_in_one_light_give_what_they_show() -> None:
    result = merged(painted(120), painted(120))
    assert np.abs(result.colours.astype(int) - painted(120)).max() <= 2
    np.testing.assert_array_equal(result.visibility, 255)


def test_the_light_of_one_photograph_passes_into_that_of_the_other_without_a_seam() -> None:
    result = merged(painted(90), painted(150)).colours.astype(float)
    columns = result.mean((0, 1)).reshape(-1, 8).mean(1)  # without the stripes
    assert np.abs(np.diff(columns)).max() < 6  # 60 levels apart
    stripes = result.std(axis=2).mean()
    assert stripes > 6


def test_each_side_is_taken_from_the_photograph_that_shows_it() -> None:
    """Details tell which one it is, as colours are made to agree."""
    plain = np.full((3, SIDE, SIDE), 120, np.uint8)
    result = merged(painted(120), plain).colours.astype(float)
    steps = np.abs(np.diff(result, axis=2)).mean((0, 1))
    assert steps[: SIDE // 4].mean() > 5
    assert steps[-SIDE // 4 :].mean() < 1


def test_a_finer_photograph_is_preferred_where_both_show_the_skin() -> None:
    plain = np.full((3, SIDE, SIDE), 120, np.uint8)
    middle = slice(SIDE // 2 - 4, SIDE // 2 + 4)
    fine, coarse = (
        merged(painted(120), plain, detail=np.array(detail, np.float32)).colours[:, :, middle].astype(float)
        for detail in ((1.0, 0.3), (0.3, 1.0))
    )
    assert fine.std(axis=2).mean() > 3 * coarse.std(axis=2).mean()


# --- what is seen under a flat angle ---------------------------------------------------------------------------------

LITTLE = 40  # of 255, that the texture network takes of skin under the angle of these tests


def slope(skin: float = 255, colour: float = 120, core: float = 0.0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Texture and visibility after a photograph of one colour that shows the left half of a chart under a flat angle.

    The texture network has taken the right half, a little of the left one, and expects 120 there.
    """
    rows, columns = np.mgrid[:TABLE, :TABLE] / TABLE - 0.5
    skin_points = np.stack([columns, -rows, np.zeros_like(rows)], -1).reshape(-1, 3).astype(np.float32)
    every = np.arange(TABLE * TABLE, dtype=np.int32)
    chart = chart_module.Chart(
        skin=every, triangles=np.zeros((0, 3), np.int32), corners=np.stack([every] * 3, 1),
        bary=np.full((TABLE * TABLE, 3), 1 / 3, np.float32), core=np.full((TABLE, TABLE), core, np.float32),
        landmarks=every[:68], vertices=TABLE * TABLE, fingerprint=1,
    )  # fmt: skip
    facing = np.ones((TABLE, TABLE), np.float32)
    facing[:, : TABLE // 2] = 0.3
    crop = np.full((3, 512, 512), colour, np.uint8)
    cameras = np.array([1, 1, 0, 0, 224 / 512, 224 / 512, 0, 0], np.float32)
    parts = np.zeros((3, 128, 128), np.uint8)
    parts[0] = skin
    seen = np.full((1, SIDE, SIDE), LITTLE, np.uint8)
    seen[..., SIDE // 2 :] = 255
    photograph = grazing.Photograph(skin_points, crop, cameras, parts)
    answer: tuple[NDArray[np.uint8], NDArray[np.uint8]] = grazing.with_grazing(
        chart, photograph, facing, np.full((3, SIDE, SIDE), 120, np.uint8), seen
    )
    return answer


def test_skin_under_a_flat_angle_is_taken_from_the_photograph() -> None:
    texture, seen = slope(colour=132)
    left = slice(8, SIDE // 2 - 8)
    assert (seen[..., left] > 200).all()
    np.testing.assert_allclose(texture[..., left], 132, atol=3)
    np.testing.assert_array_equal(texture[..., SIDE // 2 + 8 :], 120)  # what was taken before stays as it was
    np.testing.assert_array_equal(seen[..., SIDE // 2 + 8 :], 255)


@pytest.mark.parametrize("unlike", [{"skin": 0}, {"colour": 20}, {"colour": 250}, {"core": 1.0}])
def test_hair_another_colour_and_the_middle_of_the_face_are_not_taken_so(unlike: dict[str, float]) -> None:
    texture, seen = slope(**unlike)
    left = slice(8, SIDE // 2 - 8)
    np.testing.assert_array_equal(seen[..., left], LITTLE)
    np.testing.assert_array_equal(texture[..., left], 120)


def test_what_lies_behind_a_nose_is_hidden_and_a_steep_cheek_is_not() -> None:
    places = np.stack(np.meshgrid(np.arange(TABLE) * 3.0, np.arange(TABLE) * 3.0), -1).astype(np.float32)
    depth, facing = np.zeros((TABLE, TABLE), np.float32), np.ones((TABLE, TABLE), np.float32)
    places[0], depth[0] = places[1], 0.2  # a row of the chart two centimetres before the next one
    seen = grazing.unhidden(places, depth, facing)
    assert (seen[0] == 1).all()
    assert (seen[1] == 0).all()
    assert (seen[2:] == 1).all()
    facing[1] = 0.1  # so steep that a cell spans as much depth
    assert (grazing.unhidden(places, depth, facing)[1] > 0.9).all()


@pytest.mark.parametrize(
    ("tensors", "tag"),
    [
        ({"photo_embedding": np.zeros((2, 128), np.float32)}, "BadTensor"),
        (
            {
                "photo_embedding": np.zeros((2, 128), np.float32),
                "photo_crop": np.zeros((3, 3, 224, 224), np.uint8),
            },
            "BadTensor",
        ),
        (
            {
                "photo_embedding": np.full((2, 128), np.nan, np.float32),
                "photo_crop": np.zeros((2, 3, 224, 224), np.uint8),
            },
            "BadFace",
        ),
        (
            {
                "photo_embedding": np.zeros((9, 128), np.float32),
                "photo_crop": np.zeros((9, 3, 224, 224), np.uint8),
            },
            "BadTensor",
        ),
    ],
)
def test_tensors_that_no_step_gives_are_refused(tensors: dict[str, NDArray[Any]], tag: str) -> None:
    with pytest.raises(Exception, match=r": send|: no dimension") as error:
        photo_tensors.need(tensors, photo_tensors.CHECK)
    assert getattr(error.value, "tag", "") == tag


@pytest.mark.parametrize("size", [(512, 1024), (64, 64), (1, 65_000)])
def test_textures_of_a_size_that_no_step_gives_are_refused(size: tuple[int, int]) -> None:
    names = ("photo_texture", "photo_visibility")
    visibility = np.zeros((2, 1, 1024, 1024), np.uint8)
    for side in photo_tensors.TEXTURE_SIDES:
        photo_tensors.need(dict(zip(names, (np.zeros((2, 3, side, side), np.uint8), visibility), strict=True)), names)
    tensors = dict(zip(names, (np.zeros((2, 3, *size), np.uint8), visibility), strict=True))
    with pytest.raises(Exception, match=f"{size[0]} x {size[1]} texels: send") as error:
        photo_tensors.need(tensors, names)
    assert getattr(error.value, "tag", "") == "BadTensor"
