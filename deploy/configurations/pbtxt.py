"""Typed parts of a config.pbtxt, and how each is written.

A comment belongs to what stands behind it: every number of a configuration has its reason beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_ENTRY = 72
"""Letters of a parameter that fit on a line of 120 with what stands around them."""
VERSION_POLICY = "version_policy { latest { num_versions: 1 } }"


@dataclass(frozen=True)
class Tensor:
    """An input or output: name, type without its prefix (FP32), dims without the batch, and the comment above it."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    comment: str = ""

    def declaration(self) -> str:
        """Return the entry of `input` or `output`."""
        return f'{{ name: "{self.name}" data_type: TYPE_{self.dtype} dims: [ {_numbers(self.dims)} ] }}'


@dataclass(frozen=True)
class Parameter:
    """An entry of `parameters`."""

    key: str
    value: str
    comment: str

    def entry(self) -> str:
        """Return the entry, on two lines where one would be too long."""
        gap = "\n  " if len(self.key) + len(self.value) > MAX_ENTRY else " "
        return f'{{ key: "{self.key}" value: {{ string_value:{gap}"{self.value}" }} }}'


@dataclass(frozen=True)
class Step:
    """A step of an ensemble: the model, and its tensors -> the ensemble's."""

    model: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    comment: str = ""

    def lines(self) -> list[str]:
        """Return the entry of `step`."""
        return [
            "{",
            f'  model_name: "{self.model}"',
            "  model_version: -1  # whichever version its policy serves",
            *(f'  input_map {{ key: "{key}" value: "{value}" }}' for key, value in self.inputs.items()),
            *(f'  output_map {{ key: "{key}" value: "{value}" }}' for key, value in self.outputs.items()),
            "}",
        ]


def comment(text: str) -> list[str]:
    """Return comment lines; none for an empty text."""
    return [f"# {line}" for line in text.splitlines()]


def block(key: str, entries: Sequence[tuple[str, str]]) -> list[str]:
    """Return ``key [ ... ]`` of entries that take a line each: (comment, entry)."""
    lines = [f"{key} ["]
    for index, (above, entry) in enumerate(entries):
        lines += [f"  {line}" for line in comment(above)]
        lines += [f"  {line}" for line in entry.splitlines()]
        lines[-1] += "," if index < len(entries) - 1 else ""
    return [*lines, "]"]


def tensors(key: str, listed: Sequence[Tensor]) -> list[str]:
    """Return `input` or `output`."""
    return block(key, [(tensor.comment, tensor.declaration()) for tensor in listed])


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def warmup(name: str, batch: int, reason: str, inputs: Sequence[Tensor]) -> list[str]:
    """Return an entry of `model_warmup` that reads one raw file an input."""
    return [
        "  {",
        f'    name: "{name}"',
        f"    batch_size: {batch}  # {reason}",
        *(
            f'    inputs {{ key: "{tensor.name}" value: {{ data_type: TYPE_{tensor.dtype} dims: '
            f'[ {_numbers(tensor.dims)} ] input_data_file: "{tensor.name}" }} }}'
            for tensor in inputs
        ),
        "  }",
    ]
