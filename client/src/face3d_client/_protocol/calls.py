"""Requests and replies of inference, as every transport understands them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

__all__ = ["Call", "Parameter", "Place", "Placed", "Reply"]

Parameter: TypeAlias = "str | int | bool"
Reply: TypeAlias = Mapping[str, NDArray[Any]]
"""Output name -> array with the batch dimension still in front."""


@dataclass(frozen=True)
class Placed:
    """An input whose bytes are in shared memory.

    Attributes:
        region: the region's name.
        byte_size: bytes of the input, from the beginning of the region.
    """

    region: str
    byte_size: int


@dataclass(frozen=True)
class Place:
    """A frame's place in a clip, which is a sequence of Triton's.

    Attributes:
        clip: the sequence's number, a random one.
        first, last: whether the clip begins and ends with this frame.
    """

    clip: int
    first: bool
    last: bool


@dataclass(frozen=True)
class Call:
    """One inference, as every transport understands it.

    Attributes:
        model: name of an ensemble.
        inputs: tensor name -> array with batch dimension 1, or a person's photographs; object arrays hold bytes.
        outputs: names of the tensors to compute and send.
        parameters: request parameters. Triton 2.51 takes strings, integers and booleans, so numbers with a fraction go
            as text.
        placed: inputs whose bytes are in shared memory instead of in the request.
        place: of a frame in its clip. None: the call is none of a sequence.
    """

    model: str
    inputs: Mapping[str, NDArray[Any]]
    outputs: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    placed: Mapping[str, Placed] = field(default_factory=dict)
    place: Place | None = None

    def sequence(self) -> dict[str, int | bool]:
        """Return the arguments by which NVIDIA's clients name a frame's place; none for a call of no sequence."""
        if self.place is None:
            return {}
        return {
            "sequence_id": self.place.clip,
            "sequence_start": self.place.first,
            "sequence_end": self.place.last,
        }

    @property
    def rows(self) -> int:
        """How many photographs it holds: the first dimension of its inputs."""
        return len(next(iter(self.inputs.values())))
