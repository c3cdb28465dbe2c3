"""Numbers on command lines: what does harm is refused with a sentence, by every command that takes them."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from server.arguments import LARGEST, positive_number, whole_number


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("7", 7), (str(LARGEST), LARGEST)])
def test_whole_numbers_within_the_bounds_are_taken(text: str, value: int) -> None:
    assert whole_number(1)(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "nan", "inf", "", "x", "9" * 5000, str(LARGEST + 1), "1e3"])
def test_other_text_is_no_whole_number_from_1_on(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number from 1 to"):
        whole_number(1)(text)


@pytest.mark.parametrize(("text", "value"), [("0.5", 0.5), ("1e3", 1000.0)])
def test_positive_numbers_are_taken(text: str, value: float) -> None:
    assert positive_number()(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "-inf", "", "x", "1e10"])
def test_other_text_is_no_positive_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number above 0"):
        positive_number()(text)


@pytest.mark.parametrize(
    "words",
    [
        ("server", "--exit-timeout", "-1"),
        ("server", "--start-timeout", "nan"),
        ("server", "--stub-timeout", "0"),
        ("server", "--shared-memory", "-5"),
        ("server", "--log-verbose", "-1"),
        ("server", "--supervise", "0"),
        ("server", "--supervise", "inf"),
        ("server", "--http-port", "65536"),
        ("server.release", "prune", "--keep", "-1"),
        ("server.release", "pin", "regressor", "0"),
        ("deploy.top", "--interval", "-1"),
        ("deploy.simulate", "--seed", "-1"),
        ("deploy.simulate.measure", "--cores", "0"),
        ("export", "all", "--version", "0"),
        ("export.report", "--rounds", "0"),
        ("perf.analyzer", "--seconds", "0"),
        ("perf.measure", "--rounds", "0"),
    ],
    ids=" ".join,
)
def test_a_command_refuses_a_number_that_does_harm_before_it_does_anything(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2, done.stderr
    assert words[-2] in done.stderr or words[-1] in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
