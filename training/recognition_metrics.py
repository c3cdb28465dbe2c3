"""Figures of verification: accuracy by folds, the ROC, and true-accept rates at given false-accept rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
FOLDS = 10
"""Folds of LFW's protocol."""
RATES = (1e-2, 1e-3, 1e-4)
"""False-accept rates that are reported."""


@dataclass(frozen=True)
class Pairs:
    """Compared pairs of photographs.

    Attributes:
        similarity: float64 [n], the cosine; -1 where a photograph shows no face, so that such a pair is never accepted.
        same: bool [n], whether both show one person.
        fold: int [n], which fold a pair belongs to.
    """

    similarity: Scores
    same: NDArray[np.bool_]
    fold: NDArray[np.int64]

    def of(self, chosen: NDArray[np.bool_]) -> Pairs:
        """Return some of the pairs."""
        return Pairs(self.similarity[chosen], self.same[chosen], self.fold[chosen])


def accuracies(pairs: Pairs) -> Scores:
    """Return the accuracy on each fold with the threshold that is best on the others, float64 [folds].

    The same number of equal and unequal pairs is expected (`balanced`).
    """
    found = []
    for fold in np.unique(pairs.fold):
        rest, here = pairs.of(pairs.fold != fold), pairs.of(pairs.fold == fold)
        found.append(float(((here.similarity >= best_threshold(rest)) == here.same).mean()))
    return np.array(found)


def best_threshold(pairs: Pairs) -> float:
    """Return the threshold with the highest accuracy: midway between two neighbouring similarities."""
    order = np.argsort(pairs.similarity)
    similarity, same = pairs.similarity[order], pairs.same[order]
    # Right answers when everything from place i on is accepted.
    right = np.cumsum(np.concatenate([[same.sum()], np.where(same, -1, 1)]))
    place = int(right.argmax())
    edges = np.concatenate([[-1.0], (similarity[1:] + similarity[:-1]) / 2, [1.0]])
    return float(edges[place])


def threshold_at(pairs: Pairs, rate: float) -> float:
    """Return the smallest threshold by which at most this part of the unequal pairs is accepted."""
    others = np.sort(pairs.similarity[~pairs.same])[::-1]
    allowed = int(rate * len(others))
    return float(np.nextafter(others[allowed], 2)) if allowed < len(others) else -1.0


def accepted(pairs: Pairs, threshold: float) -> float:
    """Return the part of the equal pairs that a threshold accepts."""
    same = pairs.similarity[pairs.same]
    return float((same >= threshold).mean()) if len(same) else float("nan")


def roc(pairs: Pairs) -> tuple[Scores, Scores]:
    """Return false-accept and true-accept rates from the strictest threshold on, float64 [n] each."""
    order = np.argsort(-pairs.similarity, kind="stable")
    same = pairs.same[order]
    return np.cumsum(~same) / max(1, int((~same).sum())), np.cumsum(same) / max(1, int(same.sum()))


def every_pair(
    vectors: NDArray[np.float32], people: Sequence[str], folds: int = FOLDS
) -> tuple[Pairs, NDArray[np.int64]]:
    """Compare each photograph with each other one.

    People are dealt out to the folds; a pair belongs to the fold of its first photograph.

    Args:
        vectors: float32 [n, D] of length 1; zeros where no face was found.
        people: n names.
        folds: number of folds.

    Returns:
        the pairs, and int64 [pairs, 2] which photographs they are of.
    """
    number = np.unique(np.asarray(people), return_inverse=True)[1]
    first, second = np.triu_indices(len(vectors), 1)
    products = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    found = np.abs(vectors).sum(axis=1) > 0
    similarity = np.where(found[first] & found[second], products[first, second], -1.0)
    pairs = Pairs(similarity, number[first] == number[second], number[first] % folds)
    return pairs, np.stack([first, second], axis=1)


def balanced(pairs: Pairs, seed: int = 0) -> Pairs:
    """Return all equal pairs and, in each fold, as many unequal ones at random."""
    chance = np.random.default_rng(seed)
    chosen = pairs.same.copy()
    for fold in np.unique(pairs.fold):
        others = np.flatnonzero((pairs.fold == fold) & ~pairs.same)
        count = min(len(others), int((pairs.same & (pairs.fold == fold)).sum()))
        chosen[chance.choice(others, count, replace=False)] = True
    return pairs.of(chosen)
