"""The outcome of `map` for one picture: a result or an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from face3d_client._errors import Face3DError
from face3d_client._images import ImageSource

__all__ = ["Outcome"]

S = TypeVar("S", bound=ImageSource)
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Outcome(Generic[S, R]):
    """One picture of many.

    Attributes:
        index: the picture's place among those handed in, from 0.
        source: the picture as it was handed in.
        result: what came back, or None.
        error: why nothing did, or None: a `Face3DError`, or OSError where the file cannot be read.
    """

    index: int
    source: S
    result: R | None = None
    error: Face3DError | OSError | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a result."""
        return self.error is None

    def unwrap(self) -> R:
        """Return the result; raise the error if there is none."""
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result
