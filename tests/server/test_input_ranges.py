"""Ranges of inputs in a configuration: how they are read, and what is said of values beyond them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from server.backends.onnxruntime.input_ranges import InputRanges


def ranges(text: str, name: str = "x", dims: list[Any] | None = None) -> InputRanges:
    parameters = {f"input_range.{name}": {"string_value": text}, "rows_per_run": {"string_value": "1"}}
    return InputRanges({"input": [{"name": "x", "dims": dims or ["4"]}], "parameters": parameters})


def said(text: str, *values: float) -> str | None:
    return ranges(text).violation({"x": np.array([values], np.float32)})


def test_a_configuration_without_ranges_allows_everything() -> None:
    everything = InputRanges({"input": [{"name": "x", "dims": ["4"]}]})
    assert everything.violation({"x": np.full((1, 4), np.nan, np.float32)}) is None


@pytest.mark.parametrize("values", [(0, 0, 0, 0), (-1, 1, 0.5, -0.0), (1e-45, -1e-45, 0, 1)])
def test_values_within_the_range_pass_and_so_do_its_ends(values: tuple[float, ...]) -> None:
    assert said("-1:1", *values) is None
    assert said("4*-1:1", *values) is None


@pytest.mark.parametrize(
    ("text", "values", "says"),
    [
        ("-1:1", (0, np.nan, 0, 0), "input 'x' holds nan, where it may hold -1 to 1"),
        ("-1:1", (0, np.inf, 0, 0), "input 'x' holds inf, where it may hold -1 to 1"),
        ("-1:1", (0, -np.inf, 9, 0), "input 'x' holds -inf, where it may hold -1 to 1"),
        ("-1:1", (0, 0, 0, 1.5), "input 'x' holds 1.5, where it may hold -1 to 1"),
        ("2*0:1,2:3,1e-3:1E3", (0, 1, 2, 0), "input 'x' holds 0 at place 3 of its last dimension, where it may hold"),
        ("2*0:1, 2:3, 1e-3:1e3", (0, np.nan, 2, 1), "input 'x' holds nan at place 1 of its last dimension"),
    ],
)
def test_a_value_beyond_is_named_with_its_place(text: str, values: tuple[float, ...], says: str) -> None:
    assert (said(text, *values) or "").startswith(says)


def test_no_row_at_all_is_within() -> None:
    assert ranges("0:1").violation({"x": np.zeros((0, 4), np.float32)}) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is not 'low:high'"),
        ("1", "'1' is not 'low:high'"),
        ("0:1,", "'' is not 'low:high'"),
        ("1:0", "'1:0' is no range of finite numbers"),
        ("0:1e999", "'0:1e999' is no range of finite numbers"),
        ("nan:1", "'nan:1' is not 'low:high'"),
        ("e:1", "could not convert"),
        ("3*0:1", "has 3 ranges and the input's last dimension is 4"),
    ],
)
def test_a_range_that_cannot_be_read_is_refused_at_load(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"parameter 'input_range\.x'") as caught:
        ranges(text)
    assert says in str(caught.value)


def test_a_range_of_an_input_that_is_not_there_is_refused_at_load() -> None:
    with pytest.raises(ValueError, match=r"'input_range.z' is of no input, only \['x'\] are"):
        ranges("0:1", name="z")


def test_an_open_last_dimension_takes_one_range_only() -> None:
    assert ranges("0:1", dims=["-1"]).violation({"x": np.ones((1, 9), np.float32)}) is None
    with pytest.raises(ValueError, match="last dimension is -1"):
        ranges("2*0:1", dims=["-1"])
