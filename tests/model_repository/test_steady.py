"""The filter of a clip's frames."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from networks.camera import rotation
from tests.model_repository.version_folder import load

tracks, options, lips = (load("steady", name) for name in ("tracks", "steady_options", "lips"))
FRAME = 1 / 30
JAW, YAW = 100, 225


def steadied(values: np.ndarray[tuple[int], np.dtype[np.float64]], slot: int, smoothing: float = 1.0) -> list[float]:
    track = tracks.Track(smoothing)
    frames = []
    for value in values:
        coefficients = np.zeros(257, np.float32)
        coefficients[slot] = value
        frames.append(float(track.step(coefficients, FRAME).coefficients[slot]))
    return frames


def test_a_head_at_rest_trembles_less() -> None:
    noise = np.random.default_rng(2).normal(0, 0.02, 120)
    assert np.std(steadied(noise, YAW)[30:]) < 0.5 * noise[30:].std()
    assert np.std(steadied(noise, JAW, 2.0)[30:]) < np.std(steadied(noise, JAW)[30:])


def test_a_fast_movement_is_followed_within_three_frames() -> None:
    opened = steadied(np.array([0.0] * 10 + [1.0] * 10), JAW)
    assert opened[9] == pytest.approx(0, abs=1e-6)
    assert opened[12] > 0.75


def test_no_smoothing_passes_every_frame_as_it_is() -> None:
    noise = np.random.default_rng(2).normal(0, 0.02, 20)
    np.testing.assert_allclose(steadied(noise, YAW, 0.0), noise, atol=1e-6)


def test_another_shot_begins_anew() -> None:
    assert steadied(np.array([0.5] * 10 + [-0.5]), YAW)[-1] == pytest.approx(-0.5, abs=1e-6)


def test_identity_and_light_are_left_alone() -> None:
    coefficients = np.random.default_rng(1).normal(0, 0.3, (2, 257)).astype(np.float32)
    track = tracks.Track(1.0)
    for frame in coefficients:
        found = track.step(frame, FRAME).coefficients
    rest = np.setdiff1d(np.arange(257), tracks.MOVING)
    np.testing.assert_array_equal(found[rest], coefficients[1, rest])
    assert (found[tracks.MOVING] != coefficients[1, tracks.MOVING]).all()


def test_lips_that_are_hardly_open_are_closed_and_open_ones_stay_so() -> None:
    names = ["jawOpen", "mouthClose", *[""] * 62]
    gaps = np.zeros(145, np.float32)
    gaps[0], gaps[81], gaps[82] = -0.004, 0.2, -0.2  # of the mean face, of the jaw, of closing
    mouth = lips.Lips(names, gaps)
    levels = []
    for jaw in np.linspace(0, 0.5, 51):
        expression = np.zeros(64, np.float32)
        expression[0] = jaw
        changed = mouth.closed(np.zeros(80, np.float32), expression)
        levels.append(float(gaps[0] + changed @ gaps[81:]))
    assert max(levels[:20]) <= -0.005
    assert levels[40] == pytest.approx(0.2 * 0.4 - 0.004, abs=1e-6)
    assert np.abs(np.diff(levels)).max() < 0.02  # without a jump
    untouched = lips.Lips(["", "", *[""] * 62], gaps).closed(np.zeros(80, np.float32), np.ones(64, np.float32))
    np.testing.assert_array_equal(untouched, 1)


def test_the_quaternion_turns_as_the_regressor_s_angles_do() -> None:
    angles = np.array([0.3, -0.8, 0.2], np.float32)
    x, y, z, w = tracks.quaternion(angles).astype(float)
    matrix = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    np.testing.assert_allclose(matrix, rotation(torch.from_numpy(angles)[None])[0].numpy().T, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"), [("frame_rate", 0), ("frame_rate", "nan"), ("smoothing", 3), ("smoothing", True)]
)
def test_a_bad_option_says_what_may_be(name: str, value: object) -> None:
    with pytest.raises(options.Refused, match=f"`{name}` is .*: give a number from"):
        options.options_from(json.dumps({name: value}))
