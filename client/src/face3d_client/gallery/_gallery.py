"""The gallery itself: who may be enrolled by which photographs, and who counts as found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from face3d_client._embedding import Embedding, Quality
from face3d_client._errors import BadOption, DifferentPeople, GalleryError, GalleryMismatch, PoorQuality
from face3d_client._text import printable
from face3d_client.gallery._postgres import PostgresStore
from face3d_client.gallery._sqlite import SqliteStore
from face3d_client.gallery._store import Record as Person
from face3d_client.gallery._store import Store, Vector
from face3d_client.gallery._thresholds import DEFAULT_FALSE_ACCEPTS, threshold_for

__all__ = ["MINIMUM_QUALITY", "Gallery", "Match", "Person"]

MINIMUM_QUALITY: Final = Quality(size=0.4, sharpness=0.1, pose=0.7, cover=0.7)
"""The least that a photograph needs to enrol a person by: 45 px from chin to brow, not blurred, turned by no more than
45 degrees, and with less than a third of the crop beyond the photograph's border."""
SAME_PERSON_FALSE_ACCEPTS: Final = 1e-2
"""Rate by which photographs of one enrolment must fit each other: mild, as they are said to be of one person."""
MAX_NAME: Final = 200
"""Longest name, and half of the longest note of consent, in characters."""
_NEAREST: Final = 8  # vectors that a search looks at: the best of them is the answer


@dataclass(frozen=True)
class Match:
    """Who a face is.

    Attributes:
        name: of the enrolled person.
        similarity: cosine with the nearest of that person's vectors, -1..1.
        threshold: the cosine that it had to reach.
    """

    name: str
    similarity: float
    threshold: float

    @property
    def accepted(self) -> bool:
        """Whether the similarity reaches the threshold."""
        return self.similarity >= self.threshold


class Gallery(AbstractContextManager["Gallery"]):
    """People by name, each with some vectors; see `face3d_client.gallery`.

    A gallery belongs to the embedder that made its first vector, and to the thread that opened it. Other processes may
    use the same one at the same time.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    def open(cls, place: str | Path, key: str | None = None) -> Self:
        """Open a gallery, or begin one.

        Args:
            place: path of a file, or ``postgresql://USER@HOST/DATABASE``.
            key: passphrase to encrypt the file by; the same one each time. On PostgreSQL the server's storage is to be
                encrypted instead.

        Raises:
            GalleryError: it cannot be opened, or not by this key.
        """
        if str(place).startswith(("postgresql://", "postgres://")):
            if key is not None:
                raise GalleryError(
                    "a key encrypts a gallery in a file: on PostgreSQL, where the server compares the vectors, encrypt "
                    "its storage (an encrypted volume), and leave the key out."
                )
            return cls(PostgresStore(str(place)))
        if key == "":
            raise GalleryError("the key is empty: give a passphrase, or none.")
        return cls(SqliteStore(Path(place), key))

    def add(
        self,
        name: str,
        faces: Sequence[Embedding],
        *,
        consent: str = "",
        minimum: Quality = MINIMUM_QUALITY,
    ) -> None:
        """Enrol a person, or add photographs to one; all of them or none.

        Args:
            name: of the person, unique in the gallery.
            faces: embeddings of photographs of this person alone.
            consent: by what the person has agreed, for instance a form and its date; needed for a new one.
            minimum: the least quality, number by number.

        Raises:
            PoorQuality: a photograph is below ``minimum``.
            DifferentPeople: one does not show the same person as the others, or as those enrolled.
            GalleryMismatch: the embedder is not the gallery's.
            BadOption: no name, no face, or no consent.
        """
        known = self._check_add(name, faces, consent)
        for number, face in enumerate(faces):
            _check_quality(number, face.quality, minimum)
        _check_same([face.vector for face in faces], known)
        self._store.add(name, consent, faces[0].embedder, [face.vector for face in faces])

    def _check_add(self, name: str, faces: Sequence[Embedding], consent: str) -> list[Vector]:
        if not name.strip() or len(name) > MAX_NAME or printable(name) != name:
            raise BadOption(f"the name has to have 1 to {MAX_NAME} letters and no control characters.")
        if not faces:
            raise BadOption("there is no face to enrol: give one photograph or more.")
        for face in faces:
            self._check_embedder(face)
        if len({face.embedder for face in faces}) > 1:
            raise GalleryMismatch("the photographs were embedded by different embedders: embed all of them anew.")
        known = self._store.vectors(name)
        if not known and not consent.strip():
            raise BadOption("consent is missing: note by what the person has agreed to be recognised.")
        if len(consent) > 2 * MAX_NAME:
            raise BadOption(f"the note of consent has more than {2 * MAX_NAME} letters: shorten it.")
        return known

    def identify(
        self, face: Embedding, *, false_accepts: float = DEFAULT_FALSE_ACCEPTS, threshold: float | None = None
    ) -> Match | None:
        """Say who a face is; None: nobody who is enrolled.

        Args:
            face: of the unknown person.
            false_accepts: part of the people who are not enrolled that may be taken for somebody, see `threshold_for`.
            threshold: a cosine instead.

        Raises:
            GalleryMismatch: the embedder is not the gallery's.
        """
        best = self.nearest(face, false_accepts=false_accepts, threshold=threshold)
        return best if best is not None and best.accepted else None

    def nearest(
        self, face: Embedding, *, false_accepts: float = DEFAULT_FALSE_ACCEPTS, threshold: float | None = None
    ) -> Match | None:
        """Return the nearest person, near enough or not; None where nobody is enrolled. Arguments as for `identify`."""
        self._check_embedder(face)
        found = self._store.nearest(face.vector, _NEAREST)
        if not found:
            return None
        limit = threshold_for(false_accepts, self._store.count()) if threshold is None else threshold
        return Match(found[0][0], found[0][1], limit)

    def verify(
        self,
        name: str,
        face: Embedding,
        *,
        false_accepts: float = DEFAULT_FALSE_ACCEPTS,
        threshold: float | None = None,
    ) -> Match:
        """Say whether a face is that of an enrolled person (`Match.accepted`). Arguments as for `identify`.

        Raises:
            BadOption: there is no such person.
            GalleryMismatch: the embedder is not the gallery's.
        """
        self._check_embedder(face)
        vectors = self._store.vectors(name)
        if not vectors:
            raise BadOption(f"nobody is enrolled as {name!r}.")
        similarity = max(float(vector @ face.vector) for vector in vectors)
        return Match(name, similarity, threshold_for(false_accepts) if threshold is None else threshold)

    def remove(self, name: str) -> bool:
        """Delete a person and everything about them; returns whether there was one."""
        return self._store.remove(name)

    def people(self) -> list[Person]:
        """Return everybody who is enrolled, by name."""
        return list(self._store.people())

    def export(self, name: str | None = None) -> Iterator[dict[str, Any]]:
        """Return all that is kept, of one person or of everybody, as what JSON can hold."""
        embedder = self._store.embedder()
        for person in self.people():
            if name is None or person.name == name:
                yield {
                    "name": person.name,
                    "consent": person.consent,
                    "enrolled": person.enrolled,
                    "embedder": embedder and embedder[0],
                    "vectors": [vector.tolist() for vector in self._store.vectors(person.name)],
                }

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_embedder(self, face: Embedding) -> None:
        known = self._store.embedder()
        if known is not None and known != (face.embedder, len(face.vector)):
            raise GalleryMismatch(
                "the gallery holds vectors of another embedder than the server's: enrol everybody in a new one, or "
                "serve the embedder that it was begun with."
            )


_REMEDIES: Final = {
    "size": "the face is too small: take a larger picture of it",
    "sharpness": "the face is blurred: take a sharper picture",
    "pose": "the face is turned away: take a picture from the front",
    "cover": "the face is cut by the border: take a picture that shows all of it",
}


def _check_quality(number: int, quality: Quality, minimum: Quality) -> None:
    for (name, remedy), value, least in zip(_REMEDIES.items(), quality, minimum, strict=True):
        if not value >= least:
            raise PoorQuality(
                f"photograph {number + 1}: {remedy} ({name} is {value:.2f}, and at least {least:.2f} is needed)."
            )


def _check_same(vectors: Sequence[Vector], known: Sequence[Vector]) -> None:
    """See that each vector fits the mean of all others of the person."""
    limit = threshold_for(SAME_PERSON_FALSE_ACCEPTS)
    for number, vector in enumerate(vectors):
        others = [other for index, other in enumerate(vectors) if index != number] + list(known)
        if not others:
            return
        mean = np.sum(others, axis=0)
        similarity = float(vector @ mean) / max(float(np.linalg.norm(mean)), 1e-9)
        if similarity < limit:
            raise DifferentPeople(
                f"photograph {number + 1} does not show the person of the others (similarity {similarity:.2f}, and at "
                f"least {limit:.2f} is needed): leave it out."
            )
