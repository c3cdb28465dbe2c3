"""Measure what a factor on the identity does: how far heads are from the truth, and how much they differ.

    python -m training.evaluate_likeness RENDERS --heads ict_facekit.npz --factors 1 1.2 1.4 1.6 2

The regressor's identities lie nearer to the mean than the heads do, as every estimate does that is trained for a small
error. A factor above 1 gives back the spread, not the knowledge. Errors are of exact heads: vertex by vertex after a
similarity, of points in the picture, and with ``--surface`` as `training.evaluate` measures shapes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from export.samples import sample_of
from networks.face_model import COEFFICIENTS
from networks.head_model import HeadModel
from training.crops import Finder
from training.evaluate import (
    SERVED_THRESHOLD,
    Evaluator,
    Float,
    decoded,
    face_model_1,
    named,
    rendered_at,
    shape_error,
    similarity,
    variation,
)


def vertex_error(predicted: Float, truth: Float) -> float:
    """Compute the mean distance in mm of vertices (P, 3) dm after a similarity."""
    scale, turn, shift = similarity(predicted, truth)
    return float(np.linalg.norm(scale * predicted @ turn + shift - truth, axis=1).mean() * 100)


@torch.no_grad()
def measure(evaluator: Evaluator, a: argparse.Namespace) -> None:
    """Print errors and variation for each factor."""
    assert isinstance(evaluator.model, HeadModel)
    judge = face_model_1(evaluator.model, a.heads)
    inner = np.linalg.norm(judge.mean - judge.mean[judge.landmarks[30]], axis=1) < 0.75
    crops = np.load(a.renders.with_suffix(".npy"), mmap_mode="r")
    with np.load(a.renders.with_suffix(".labels.npz"), allow_pickle=False) as data:
        labels = {k: data[k].astype(np.float64) for k in ("identity", "expression", "angle", "camera")}
        judged = np.flatnonzero(~named(data["files"], a.leave_out))[: a.limit]
    find, rows, codes = Finder(), [], []
    for k in tqdm(judged, desc="exact heads", mininterval=5):
        sample = sample_of(str(k), np.ascontiguousarray(crops[k]), find, SERVED_THRESHOLD)
        if sample is None:
            continue
        coefficients = evaluator.shapes(sample)[1]
        truth = labels["identity"][k], labels["expression"][k]
        codes.append((coefficients[COEFFICIENTS["identity"]].astype(np.float64), truth[0]))
        true_neutral, true_head = decoded(judge, *truth)
        points = evaluator.teacher.on(
            rendered_at(decoded(evaluator.model, *truth)[1], labels["angle"][k], labels["camera"][k])
        )
        row = []
        for factor in a.factors:
            changed = coefficients.copy()
            changed[COEFFICIENTS["identity"]] *= factor
            found = [changed[COEFFICIENTS[name]].astype(np.float64) for name in ("identity", "expression")]
            neutral, head = decoded(judge, *found)
            shapes = torch.stack(list(evaluator.regressor.decoder(torch.from_numpy(changed)[None])), 1)
            row.append(
                [
                    vertex_error(neutral[inner], true_neutral[inner]),
                    vertex_error(head[inner], true_head[inner]),
                    evaluator.errors_2d(shapes, sample, points)[1] * 100,
                    shape_error(neutral, judge, true_neutral) if a.surface else np.nan,
                    shape_error(head, judge, true_head) if a.surface else np.nan,
                ]
            )
        rows.append(row)
    found_codes, true_codes = (np.stack(column) for column in zip(*codes, strict=True))
    print(f"{len(rows)} heads; true neutral shapes vary by {variation(true_codes, evaluator.model):.2f} mm")
    for factor, mean in zip(a.factors, np.mean(rows, 0), strict=True):
        print(
            f"likeness {factor:.2f}: neutral vertices {mean[0]:.3f} mm, head {mean[1]:.3f} mm, 2D {mean[2]:.2f} %, "
            f"surface: neutral {mean[3]:.3f} mm, head {mean[4]:.3f} mm; "
            f"variation {variation(found_codes * factor, evaluator.model):.2f} mm",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("renders", type=Path, help="of training.render, from photographs that did not train")
    parser.add_argument("--heads", type=Path, required=True, help="ict_facekit.npz")
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 1.2, 1.4, 1.6, 2.0])
    parser.add_argument("--surface", action="store_true", help="also by landmarks and ICP, as training.evaluate")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--leave-out", nargs="*", default=["biden", "obama"])
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--teacher-map", type=Path, default=Path("weights/teacher_map.npz"))
    options = parser.parse_args()
    measure(Evaluator(options.weights, options.teacher_map), options)
