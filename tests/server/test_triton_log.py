"""Reading Triton's log. The lines are real ones of Triton 2.51."""

from __future__ import annotations

import pytest

from server import triton_log

LOG = """\
I1121 02:00:14.855220 8301 model_lifecycle.cc:472] "loading: regressor:1"
I1121 02:00:14.855220 8301 model_lifecycle.cc:839] "successfully loaded 'regressor'"
E1121 02:11:07.412924 14315 model_lifecycle.cc:642] "failed to load 'detector' version 1: Invalid argument: unable to \
find backend library for backend 'onnxruntime', try specifying runtime on the model configuration."
E1121 02:11:07.412924 14315 model_lifecycle.cc:642] "failed to load 'align' version 2: Internal: ValueError: the \
threshold is missing\\n\\nAt:\\n  /repository/align/2/model.py(5): initialize\\n"
I1121 02:11:07.412924 14315 model_lifecycle.cc:777] "failed to load 'align'"
E1121 02:11:07.412924 14315 model_repository_manager.cc:1460] "Invalid argument: ensemble 'face3d' depends on 'align' \
which has no loaded version. Model 'align' loading failed with error: version 2 is at UNAVAILABLE state"
"""


def test_names_the_models_that_are_loaded() -> None:
    assert triton_log.loaded_models(LOG) == {"regressor"}


def test_finds_the_reason_of_each_failure_without_codes_and_tracebacks() -> None:
    assert triton_log.failures(LOG) == {
        "detector": "unable to find backend library for backend 'onnxruntime', try specifying runtime on the model "
        "configuration.",
        "align": "the threshold is missing",
    }


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ("", ""),
        ("I1121 02:00:14.855220 8301 server.cc:674] all is well\n\n", "all is well"),
        ("E1121 02:00:14.855220 8301 a.cc:6] Internal: bad luck\nI1121 02:00:14.855220 8301 b.cc:1] bye\n", "bad luck"),
        (
            "/opt/bin/tritonserver: unrecognized option '--zeal'\nUsage: tritonserver [options]\n  --help\n",
            "it does not understand its options: unrecognized option '--zeal'",
        ),
        (
            "Usage: tritonserver [options]\n  --help\nInvalid option value. Got abc\n",
            "it does not understand its options: Invalid option value. Got abc",
        ),
    ],
)  # fmt: skip
def test_finds_the_last_words(log: str, says: str) -> None:
    assert triton_log.last_error(log) == says


def test_finds_the_consents() -> None:
    line = 'I1130 03:55:22.854525 5696 model.py:72] "fusion: signed urn:c2pa:56e4 consent=\\"ok\\""'
    assert triton_log.is_consent(line)
    assert triton_log.is_consent(line.replace('] "', "] "))
    assert not triton_log.is_consent('I1130 03:55:22.8 5696 x.cc:1] "request: fusion: signed urn:c2pa:1 consent="')
    assert not triton_log.is_consent("fusion: signed urn:c2pa:56e4")


def test_recognises_a_port_that_was_taken() -> None:
    assert triton_log.port_in_use("failed to start HTTP service: Unavailable - Socket '127.0.0.1:8000' already in use")
    assert not triton_log.port_in_use(LOG)
