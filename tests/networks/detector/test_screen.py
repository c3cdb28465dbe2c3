"""The screen between P- and R-Net: what it looks at, what it keeps away, and whose weights it takes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from export.models.detector import iou
from export.pictures import canvas_of
from networks.detector import pyramid
from networks.detector.cascade import ONET_CANDIDATES, Detector
from networks.detector.screen import NEIGHBOURHOOD_RADIUS, Screen
from networks.detector.weights import SCREEN, default_weights
from networks.errors import NetworkError

LEVELS = len(pyramid.level_scales())
P_NET = default_weights() / "pnet.pt"


@pytest.fixture(scope="module")
def unscreened() -> Detector:
    return Detector.load(default_weights(), screened=False)


@pytest.fixture(scope="module")
def screened() -> Detector:
    detector = Detector.load(default_weights())
    assert detector.screen is not None
    return detector


def _inputs(picture: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    canvas, geometry = canvas_of(picture)
    return torch.from_numpy(canvas)[None], torch.from_numpy(geometry)[None]


@torch.no_grad()
def _candidates(detector: Detector, picture: NDArray[np.uint8]) -> int:
    canvas, geometry = _inputs(picture)
    content = torch.round(geometry[:, None, 0:2] / geometry[:, None, 2:4])
    _, scores = detector.run_pnet(pyramid.summed_area_table(canvas), content)
    return int((scores > 0).sum())


@torch.no_grad()
def test_it_keeps_most_candidates_away_and_the_face_stays_as_it_was(
    unscreened: Detector, screened: Detector, portraits: dict[str, NDArray[np.uint8]]
) -> None:
    for picture in portraits.values():
        assert _candidates(screened, picture) < 0.6 * _candidates(unscreened, picture)
        without, with_screen = unscreened(*_inputs(picture))[0, 0], screened(*_inputs(picture))[0, 0]
        assert iou(without[:4].numpy(), with_screen[None, :4].numpy())[0] > 0.95
        assert (without[5:] - with_screen[5:]).abs().max() < 0.02 * (without[2] - without[0])


def test_only_the_default_weights_have_it_and_only_where_sizes_may_depend_on_the_picture() -> None:
    assert Detector.load(default_weights(), fixed=True).screen is None
    assert Detector.load(default_weights(), screened=False).screen is None


def test_another_p_net_gets_no_screen(tmp_path: Path) -> None:
    other = tmp_path / "pnet.pt"
    other.write_bytes(P_NET.read_bytes() + b" ")
    assert Screen.load(SCREEN, P_NET, LEVELS) is not None
    assert Screen.load(SCREEN, other, LEVELS) is None


def test_a_missing_damaged_or_wrong_file_is_named_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "screen.safetensors"
    with pytest.raises(NetworkError, match="is not there"):
        Screen.load(path, P_NET, LEVELS)
    path.write_bytes(SCREEN.read_bytes()[:1000])
    with pytest.raises(NetworkError, match="does not hold the detector's screen"):
        Screen.load(path, P_NET, LEVELS)
    tensors = load_file(SCREEN)
    del tensors["look.bias"]
    with safe_open(SCREEN, "pt") as file:
        save_file(tensors, path, file.metadata())
    with pytest.raises(NetworkError, match=r"look\.bias"):
        Screen.load(path, P_NET, LEVELS)


def test_it_sees_the_windows_around_and_at_the_border_the_last_ones_again(screened: Detector) -> None:
    windows = sum(screened.window_counts)
    outputs = torch.stack([torch.arange(windows), -torch.arange(windows)])[None].float()
    level = 1
    start, side = screened.window_counts[0], int(screened.window_counts[level] ** 0.5)
    for row, column in ((0, 0), (7, 9), (side - 1, side - 2)):
        window = torch.tensor([[start + row * side + column]])
        gathered = screened.neighbourhoods(outputs, window, torch.tensor([[level]]))[0, 0]
        steps = np.arange(-NEIGHBOURHOOD_RADIUS, NEIGHBOURHOOD_RADIUS + 1)
        down, across = np.clip(row + steps, 0, side - 1), np.clip(column + steps, 0, side - 1)
        expected = start + down[:, None] * side + across
        np.testing.assert_array_equal(gathered[0].numpy(), expected.ravel())
        np.testing.assert_array_equal(gathered[1].numpy(), -expected.ravel())


def test_a_batch_is_screened_picture_by_picture(screened: Detector, portraits: dict[str, NDArray[np.uint8]]) -> None:
    pairs = [_inputs(picture) for picture in portraits.values()]
    with torch.no_grad():
        together = screened(torch.cat([canvas for canvas, _ in pairs]), torch.cat([place for _, place in pairs]))
        for row, pair in zip(together, pairs, strict=True):
            torch.testing.assert_close(row, screened(*pair)[0], atol=0.05, rtol=0)


@torch.no_grad()
def test_a_crowd_has_more_candidates_than_three_a_face_and_all_of_them_reach_the_last_network(
    screened: Detector, portraits: dict[str, NDArray[np.uint8]]
) -> None:
    canvas, geometry = _inputs(np.tile(portraits["astronaut"][:320, 80:400], (3, 3, 1)))
    content = torch.round(geometry[:, None, 0:2] / geometry[:, None, 2:4])
    table = pyramid.summed_area_table(canvas)
    boxes, scores = screened.run_pnet(table, content)
    _, scores, _ = screened.select_rnet(boxes, *screened.run_rnet(table, boxes, scores, content), content)
    assert 3 * 9 < int((scores > 0).sum()) < ONET_CANDIDATES
