"""Fixtures of the client's tests."""

from __future__ import annotations

import pytest
from face3d_client import Reconstruction
from face3d_client._codec import parse_reconstruct

from tests.client import synthetic


@pytest.fixture
def result() -> Reconstruction:
    """A result of known numbers with every output in it."""
    return parse_reconstruct(synthetic.reply())
