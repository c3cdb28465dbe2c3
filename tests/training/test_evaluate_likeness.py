"""Errors of vertices know shape, and neither size, place nor rotation."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluate_likeness import vertex_error
from training.render import euler


def test_a_similarity_is_no_error_and_a_bump_is_its_height() -> None:
    rows, columns = np.mgrid[:20, :20] / 10
    truth = np.stack([rows, columns, np.sin(3 * rows) * 0.3], -1).reshape(-1, 3)
    moved = 1.4 * truth @ euler(0.1, 0.3, -0.2) + [0.2, 0, 1]
    assert vertex_error(moved, truth) == pytest.approx(0, abs=1e-9)
    bump = truth.copy()
    bump[::2, 2] += 0.02  # two millimetres, half of them above and half below once it is laid over the truth
    assert vertex_error(bump, truth) == pytest.approx(1, abs=0.05)
