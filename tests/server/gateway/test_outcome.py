"""The outcomes by which the gateway counts requests, and the errors that carry them."""

from __future__ import annotations

import face3d_client
import pytest

from server.gateway.outcome import FAULT, OUTCOMES, REFUSALS, of_error


@pytest.mark.parametrize(
    ("sentence", "outcome"),
    [
        ("[BadImage] the picture is damaged", "BadImage"),
        ("in ensemble 'face3d', [NoFace] no face was found: send another", "NoFace"),
        ('{"error":"in ensemble \'face3d\', [Overloaded] 64 requests wait"}', "Overloaded"),
        ("in ensemble 'face3d', Failed to process the request(s) for model 'align_0_0', message: KeyError: 'x'", FAULT),
        ("[BadTensor] the request lacks `picture`", FAULT),
        ("", FAULT),
        ("x" * 5000 + "[BadImage] ", FAULT),
    ],
)
def test_refusals_are_told_from_faults(sentence: str, outcome: str) -> None:
    assert of_error(sentence) == outcome


def test_refusals_are_exceptions_of_the_client() -> None:
    for name in REFUSALS:
        assert issubclass(getattr(face3d_client, name), face3d_client.Face3DError)
    assert len(set(OUTCOMES)) == len(OUTCOMES)
