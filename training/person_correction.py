"""Step 6d: what photographs of a person from the front and from the sides say together beyond their mean identity.

    python -m training.person_correction HEADS.npz [HEADS.npz ...]

The heads are those of `training.identity_correction heads`. Their identities are corrected one by one, each by a
correction fitted to heads of other photographs, as the served one knows none of a user's. A ridge regression, its
weight chosen by five-fold cross-validation over photographs, maps frontal and turned identities and the embedder's
vectors of both to what the joined identity lacks, for a frontal picture with one or both of the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from networks import identity_correction
from networks.certainty import digest
from networks.embedder.embedder import Embedder, default_weights
from networks.head_model import HeadModel, load_face_model
from networks.identity_correction import IDENTITY
from networks.person_correction import FILE
from training.identity_correction import (
    F32,
    PARTS,
    YAWS,
    Drawn,
    Float,
    best_ridge,
    codes,
    folds_of,
    joined,
    metric,
    ridge,
    save_map,
)

TOGETHER = ((0, 1), (0, 2), (0, 1, 2))  # views of one person: the frontal one and turned ones
RIDGES = (0.2, 0.5, 1.0, 2.0, 4.0)  # of inputs of unit variance


def corrected(drawn: Drawn, found: F32, root: Float) -> Float:
    """Correct identities (n, 3, 80) of single pictures, each head's by heads of other photographs: (n, 3, 80).

    Args:
        drawn: n heads.
        found: (n, 3, 80) the identities that the regressor gives for them.
        root: of `metric`.
    """
    means = joined(np.concatenate([found, drawn.features], 2))
    values = np.concatenate(means).astype(np.float64)
    wanted = np.tile(drawn.identity, (len(means), 1)) - values[:, :IDENTITY]
    _, change = best_ridge(values, wanted, np.tile(folds_of(drawn.files), len(means)), root)
    # The first of all ways of joining are the single views, one after the other.
    single = (values[:, :IDENTITY] + change)[: len(found) * len(YAWS)]
    return single.reshape(len(YAWS), len(found), IDENTITY).transpose(1, 0, 2)


def inputs(identities: Float, embeddings: F32) -> tuple[Float, Float]:
    """Return what `merge` knows of n people in each way of `TOGETHER`: the map's inputs, and the joined identities.

    Args:
        identities: (n, 3, 80) corrected.
        embeddings: (n, 3, D).

    Returns:
        (3 n, 80 + 80 + D + D) and (3 n, 80).
    """
    both = np.concatenate([identities, embeddings], 2)
    values, means = [], []
    for views in TOGETHER:
        shares = np.array(PARTS[0])[list(views)]
        turned = np.einsum("v,nvk->nk", shares[1:] / shares[1:].sum(), both[:, list(views[1:])])
        front = both[:, 0]
        parts = (front[:, :IDENTITY], turned[:, :IDENTITY], front[:, IDENTITY:], turned[:, IDENTITY:])
        values.append(np.concatenate(parts, 1))
        means.append(np.einsum("v,nvk->nk", shares / shares.sum(), identities[:, list(views)]))
    return np.concatenate(values), np.concatenate(means)


def write_correction(regressor: Path, drawn: Drawn, found: F32, embedder: int) -> None:
    """Fit the map and write it beside the regressor's weights; print the errors of the held-out folds.

    Args:
        regressor: its weights, beside the face model and the correction of single identities.
        drawn: n heads.
        found: (n, 3, 80) the identities that the regressor gives for them.
        embedder: fingerprint of the embedder.
    """
    model = load_face_model(regressor.with_name("face_model.npz"))
    assert isinstance(model, HeadModel)
    root = metric(model)
    values, means = inputs(corrected(drawn, found, root), drawn.embeddings)
    wanted = np.tile(drawn.identity, (len(TOGETHER), 1)) - means
    fold = np.tile(folds_of(drawn.files), len(TOGETHER))
    weight, change = best_ridge(values, wanted, fold, root, RIDGES)
    before, after = (
        np.linalg.norm(left @ root, axis=1).reshape(len(TOGETHER), -1).mean(1) for left in (wanted, wanted - change)
    )
    for views, *errors in zip(TOGETHER, before, after, strict=True):
        print(f"views {views}: {errors[0]:.3f} mm joined, {errors[1]:.3f} corrected")
    about = {
        "regressor": digest(regressor),
        "identity_correction": digest(regressor.with_name(identity_correction.FILE)),
        "embedder": str(embedder),
        "face_model": str(model.fingerprint),
        "heads": str(len(drawn.identity)),
    }
    save_map(regressor.with_name(FILE), ridge(values, wanted, weight), about)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regressor", type=Path, default=Path("weights/regressor.safetensors"))
    parser.add_argument("found", type=Path, nargs="+", help="heads.npz")
    options = parser.parse_args()
    heads = Drawn.read(options.found)
    fingerprint = int(Embedder.load(default_weights()).fingerprint)
    write_correction(options.regressor, heads, codes(options.regressor, heads.seen), fingerprint)
