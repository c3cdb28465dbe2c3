"""People: what several photographs of one person say together."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from face3d_client._errors import Face3DError
from face3d_client._images import ImageSource, source_path
from face3d_client._results import Placed, Reconstruction

__all__ = ["Person", "naming_photographs", "sources_of"]

# Outputs that are the person's and not a photograph's.
_SHARED: Final = frozenset({"mesh", "texture", "preview", "visibility", "vertices_neutral", "face_model"})
_ABOUT: Final = frozenset({"similarity", "weights", "reference"})


@dataclass(frozen=True, eq=False, repr=False)
class Person:
    """One head of several photographs, and what each of them shows.

    Attributes:
        raw: output name -> array, as the server sent them.
        sources: the photographs' files, None for one that is none; `save` writes over none of them.
    """

    raw: Mapping[str, NDArray[Any]] = field(repr=False)
    sources: tuple[Path | None, ...]

    @cached_property
    def head(self) -> Reconstruction:
        """The head: mesh, texture and neutral shape of the person, expression and pose of the reference."""
        shared = {name: array[0] for name, array in self.raw.items() if name in _SHARED}
        return Reconstruction({**self._of(self.reference), **shared}, self.sources[self.reference])

    @cached_property
    def photographs(self) -> tuple[Reconstruction, ...]:
        """Each photograph: the person's identity with its expression, pose, landmarks and camera; without a mesh."""
        neutral = {name: self.raw[name][0] for name in ("vertices_neutral", "face_model") if name in self.raw}
        return tuple(Reconstruction({**self._of(k), **neutral}, source) for k, source in enumerate(self.sources))

    def _of(self, row: int) -> dict[str, NDArray[Any]]:
        return {name: array[row] for name, array in self.raw.items() if name not in _SHARED | _ABOUT}

    @property
    def reference(self) -> int:
        """Which photograph's expression and pose the head has, from 0 on."""
        return int(self.raw["reference"][0])

    @property
    def weights(self) -> NDArray[np.float32]:
        """float32 (K,): each photograph's part in the identity, 1 together."""
        return self.raw["weights"]

    @property
    def similarity(self) -> NDArray[np.float32]:
        """float32 (K,): mean cosine of each photograph's face with the others; 1 for one alone."""
        return self.raw["similarity"]

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        pose: Placed | None = None,
        units: Literal["m", "mm"] | None = None,
        blendshapes: Mapping[str, float] | None = None,
    ) -> list[Path]:
        """Write the head to a file; see `Reconstruction.save`.

        Raises:
            ValueError: the file is one of the photographs, or as of `Reconstruction.save`.
        """
        target = Path(path)
        for source in self.sources:
            if source is not None and target.resolve() == source.resolve():
                raise ValueError(f"{target} would be written over the photograph {source}. Choose another name.")
        return self.head.save(target, pose=pose, units=units, blendshapes=blendshapes)

    def __repr__(self) -> str:
        shares = ", ".join(f"{weight:.2f}" for weight in self.weights)
        return f"Person({len(self.sources)} photographs, weights {shares}, reference {self.reference})"


def sources_of(images: Sequence[ImageSource]) -> list[Path | None]:
    """Return the file of each photograph, None for one that is none.

    Raises:
        TypeError: one photograph instead of a list of them.
    """
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, np.ndarray)):
        raise TypeError("photographs of a person come as a list: reconstruct_person([front, left, right])")
    return [source_path(image) for image in images]


@contextmanager
def naming_photographs(sources: Sequence[Path | None]) -> Iterator[None]:
    """Let an error that counts rows name the photograph's file instead.

    Raises:
        Face3DError: what is raised inside, with the file's name where there is one.
    """
    try:
        yield
    except Face3DError as error:
        found = re.search(r"row (\d+) of the \d+ in this request:?", error.message)
        name = sources[int(found[1])] if found and int(found[1]) < len(sources) else None
        if found is None or name is None:
            raise
        colon = ":" if found[0].endswith(":") else ""
        said = error.message.replace(found[0], f"{name}{colon}", 1)
        raise type(error)(said, status=error.status, retryable=error.retryable) from error
