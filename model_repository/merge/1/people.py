"""Whether photographs show one person, by the embedder's vectors."""

from __future__ import annotations

import numpy as np
from merge_refusals import Refused
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def similarities(embeddings: F32) -> F32:
    """Mean cosine of each of K vectors [K, D] of length 1 with the others: float32 [K]; of one alone 1."""
    count = len(embeddings)
    if count == 1:
        return np.ones(1, np.float32)
    cosines = embeddings.astype(np.float64) @ embeddings.T.astype(np.float64)
    return np.asarray((cosines.sum(1) - np.diag(cosines)) / (count - 1), np.float32)


def check_one_person(embeddings: F32, threshold: float) -> F32:
    """Return the similarities of K photographs of one person.

    Raises:
        Refused: ``DifferentPeople``, naming the photograph that is least like the others.
    """
    found = similarities(embeddings)
    stranger = int(found.argmin())
    if found[stranger] >= threshold:
        return found
    who = (
        f"row {stranger} of the {len(found)} in this request shows somebody else than the others"
        if len(found) > 2
        else "the two photographs show different people"
    )
    raise Refused(
        "DifferentPeople",
        f"{who} (mean cosine {found[stranger]:.2f}, needed {threshold:g}): leave it out, choose its face, or lower "
        "`same_person` if you know better.",
    )
