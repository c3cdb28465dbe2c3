"""The picture of the page's sliders: what is where, what hides what, where the light comes from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from face3d_client import Reconstruction
from face3d_client._mesh.expressions import Expressions
from face3d_client._mesh.renderer import Light, View, render
from face3d_client._mesh.surface import Surface
from numpy.typing import NDArray

from networks.head_model import HeadModel

MODEL = Path(__file__).resolve().parents[2] / "weights" / "face_model.npz"
DARK = Light(strength=0)


def pixels(surface: Surface, yaw: float = 0, light: Light = DARK) -> NDArray[np.float64]:
    return np.asarray(render(surface, View(yaw, side=200), light), np.float64)


@pytest.fixture
def patch(result: Reconstruction) -> Surface:
    """160 x 200 mm, its texture redder to the right and greener downward."""
    return result._surface_in(None)


def test_right_is_right_and_up_is_up(patch: Surface) -> None:
    picture = pixels(patch)
    assert picture[100, 150, 0] > 1.5 * picture[100, 60, 0]
    assert picture[160, 100, 1] > 1.5 * picture[40, 100, 1]
    assert picture[100, 100, 2] < 10  # no blue in the texture
    assert picture[2, 2].min() > 200  # the wall


def test_a_positive_yaw_turns_the_face_to_the_right_of_the_picture(patch: Surface) -> None:

    def middle(yaw: float) -> int:
        """The column of the patch's middle, by its colour: that part bulges toward the viewer, as a nose does."""
        row = pixels(patch, yaw)[100]
        return int(np.argmin(np.abs(row[:, 0] - row[row[:, 2] < 50, 0].max() / 2) + 1000 * (row[:, 2] > 50)))

    assert middle(-30) < 95 < middle(0) < 107 < middle(30)


def test_what_is_nearer_hides_what_is_behind(patch: Surface) -> None:
    (part,) = patch.parts
    # The one behind comes last and is all bottom right: red and green.
    behind = dataclasses.replace(
        part, vertices=part.vertices - np.array([0, 0, 100], np.float32), uv=np.full_like(part.uv, (1, 0))
    )
    both = dataclasses.replace(patch, parts=(part, behind))
    assert pixels(both)[60, 60, 0] < 100


def test_the_light_falls_on_the_side_it_comes_from(patch: Surface) -> None:
    (part,) = patch.parts
    grey = dataclasses.replace(patch, parts=(dataclasses.replace(part, uv=np.full_like(part.uv, 0.5)),))
    from_right, from_left = (pixels(grey, light=Light(side, 0, 1.5)) for side in (70, -70))
    assert from_right[100, 150].sum() > 1.1 * from_right[100, 50].sum()
    assert from_left[100, 50].sum() > 1.1 * from_left[100, 150].sum()
    assert pixels(grey, light=Light(strength=2)).sum() > pixels(grey, light=Light(strength=0)).sum()


def test_expressions_move_what_their_names_say() -> None:
    model, exact = Expressions.load(MODEL), HeadModel.load(MODEL)
    assert model.face_model == exact.fingerprint
    neutral = exact.mean.astype(np.float32) * 100
    moved = model.move(neutral, named={"jawOpen": 1.0}) - neutral
    chin, forehead = moved[exact.landmarks[8]], moved[exact.landmarks[19]]
    assert chin[1] < -5  # mm, downward
    assert np.abs(forehead).max() < 1
    weights = np.random.default_rng(1).normal(0, 0.3, 64).astype(np.float32)
    expected = neutral + np.tensordot(weights, exact.expression, 1) * 100
    assert model.move(neutral, weights) == pytest.approx(expected, abs=1e-3)
    assert np.array_equal(model.move(neutral), neutral)
    for unknown in ("jawOpened", ""):
        with pytest.raises(KeyError):
            model.move(neutral, named={unknown: 1.0})


def test_a_file_that_is_no_face_model_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "other.npz", mean=np.zeros((4, 3)))
    shapes = {"mean": np.zeros((4, 3)), "triangles": np.zeros((2, 3)), "uv": np.zeros((4, 2))}
    np.savez(tmp_path / "odd.npz", **shapes, expression=np.zeros((64, 5, 3)), expression_names=np.array(["x"] * 64))
    for name in ("text", "other", "odd"):
        with pytest.raises(ValueError, match=r"is no face model.*Give a face_model\.npz"):
            Expressions.load(tmp_path / f"{name}.npz")
