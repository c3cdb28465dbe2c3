"""What a gallery asks of a database; the SQLite and the PostgreSQL store do it each in its own words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Record", "Store", "Vector"]

Vector: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Record:
    """A person as the database has it.

    Attributes:
        name: unique in the gallery.
        consent: by what the person has agreed.
        enrolled: when, ISO 8601 in UTC.
        faces: number of vectors.
    """

    name: str
    consent: str
    enrolled: str
    faces: int


class Store(Protocol):
    """A database of people and vectors. What a method has returned from is on the disk.

    Every method may be called while other processes use the same database.
    """

    def embedder(self) -> tuple[int, int] | None:
        """Return fingerprint and length of the vectors; None before the first one."""
        ...

    def add(self, name: str, consent: str, embedder: int, vectors: Sequence[Vector]) -> None:
        """Add vectors to a person, who is made when missing; all of them or none.

        Raises:
            GalleryMismatch: the gallery's vectors are another embedder's.
        """
        ...

    def nearest(self, vector: Vector, count: int) -> list[tuple[str, float]]:
        """Return names and cosines of the nearest vectors, best first."""
        ...

    def vectors(self, name: str) -> list[Vector]:
        """Return a person's vectors; none where there is no such person."""
        ...

    def people(self) -> Iterator[Record]:
        """Return everybody, by name."""
        ...

    def count(self) -> int:
        """Return how many people there are."""
        ...

    def remove(self, name: str) -> bool:
        """Delete a person with all vectors, for good; returns whether there was one."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
