"""What a fit leaves in one photograph is made good; what all photographs have in common stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from training.registration import MAX_SCATTER_MM, Registration, Seen

FRAME = np.array([[0.0, -80.0], [-80.0, 0.0]])  # a face that lies on its side, 80 pixels a decimetre
COMMON, OWN, NONE = np.array([0.0, 0.02]), np.array([0.03, 0.0]), np.array([0.0, 0.0])  # decimetres


def surface() -> npt.NDArray[np.float64]:
    """Vertices every tenth of a decimetre of a plane, and one far away from it."""
    grid = np.stack(np.meshgrid(np.linspace(-0.5, 0.5, 11), np.linspace(-0.5, 0.5, 11)), -1).reshape(-1, 2)
    return np.concatenate([np.pad(grid, ((0, 0), (0, 1))), [[0, 4.0, -1]]])


@pytest.fixture
def registration(tmp_path: Path) -> Registration:
    """The teacher's first 121 points lie on the plane's vertices; the first of them again; others wander."""
    vertex, scatter = np.zeros(478, np.int32), np.full(478, np.inf, np.float32)
    vertex[:121], scatter[:122] = np.arange(121), MAX_SCATTER_MM / 2
    np.savez(tmp_path / "map.npz", vertex=vertex, scatter_mm=scatter)
    photographs = [photograph(own) for own in (NONE, OWN, -OWN)]
    return Registration(tmp_path / "map.npz", surface(), surface(), photographs)


def photograph(own: npt.NDArray[np.float64]) -> Seen:
    """A photograph in which the teacher's points lie beside the fit by what is common and by ``own``."""
    places = surface()[:, :2] @ FRAME + 200
    points = np.zeros((478, 2))
    points[:121] = places[:121] + (COMMON + own) @ FRAME
    points[121] = points[0]
    return Seen(places, points, FRAME)


def test_a_photograph_s_own_error_is_made_good_and_the_common_one_stays(registration: Registration) -> None:
    seen = photograph(OWN)
    moved = registration.moved(seen)
    np.testing.assert_allclose(registration.common, np.broadcast_to(COMMON, registration.common.shape), atol=1e-9)
    np.testing.assert_allclose((moved - seen.places)[:121], np.broadcast_to(OWN @ FRAME, (121, 2)), atol=0.1)
    assert np.abs(moved - seen.places)[121].max() < 1e-6, "far from the points nothing moves"


def test_a_photograph_as_usual_stays_as_it_is(registration: Registration) -> None:
    seen = photograph(NONE)
    np.testing.assert_allclose(registration.moved(seen), seen.places, atol=1e-6)
