"""Measure the weights: 2D error against the teacher on photographs, 3D error on exact heads, texture fidelity.

    python -m training.evaluate pictures FOLDER LABELS.npz [FOLDER LABELS.npz ...]
    python -m training.evaluate heads RENDERS

Faces are found and cut out as the service does it, with the detector's own points. 2D errors are distances in source
pixels over the outer-eye distance; shape errors are millimetres from the true surface to the predicted one after a
similarity by landmarks and ICP (the protocol of the NoW benchmark, on the inner face).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import trimesh
from scipy.spatial import cKDTree
from tqdm import tqdm

from export.camera import CROP_HD, project
from export.face_model import COEFFICIENTS, FaceModel
from export.regressor import Regressor
from export.samples import Sample, sample_of
from export.texture import TextureNet
from training.crops import Finder, faces_of
from training.raster import interpolate, rasterise
from training.render import MARGIN, MEDIAPIPE_OF_IBUG
from training.teacher_map import MAX_SCATTER_MM

Float = npt.NDArray[np.float64]
BANDS = ((0, 20), (20, 40), (40, 60), (60, 90))
# Pictures in which the teacher itself is lost say nothing: it and the detector must mean the same face.
_SAME_FACE = 0.35
_CANDIDATES = 32  # triangles tried for each point, nearest centres first


def similarity(source: Float, target: Float) -> tuple[float, Float, Float]:
    """Least-squares similarity (s, R, t) of two point sets (P, 3): ``target ~ s * source @ R + t`` (Umeyama 1991)."""
    ms, mt = source.mean(0), target.mean(0)
    u, s, vt = np.linalg.svd((source - ms).T @ (target - mt))
    flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    turn = (u * flip) @ vt
    scale = float((s * flip).sum() / ((source - ms) ** 2).sum())
    return scale, turn, mt - scale * ms @ turn


def nearest_on_surface(points: Float, vertices: Float, triangles: npt.NDArray[np.integer[Any]]) -> tuple[Float, Float]:
    """The nearest place of a mesh to each point -> places (P, 3) and distances (P,), in the unit of the input.

    Exact as long as the nearest triangle is among the `_CANDIDATES` with the nearest centres, which it is on a mesh
    whose triangles are of like size. (trimesh's own search would need a library more.)
    """
    corners = vertices[triangles]
    near = cKDTree(corners.mean(1)).query(points, k=min(_CANDIDATES, len(triangles)))[1].reshape(len(points), -1)
    count = near.shape[1]
    found = trimesh.triangles.closest_point(corners[near.ravel()], np.repeat(points, count, 0)).reshape(-1, count, 3)
    distance = np.linalg.norm(found - points[:, None], axis=2)
    best = distance.argmin(1)
    rows = np.arange(len(points))
    return found[rows, best], distance[rows, best]


def shape_error(predicted: Float, model: FaceModel, truth: Float) -> float:
    """Mean distance in mm from the true inner face (within 7.5 cm of the nose tip) to the predicted surface.

    Args:
        predicted: (N, 3) dm. It is moved, turned and scaled first: by landmarks, then by ICP.
        model: gives triangles and landmarks.
        truth: (N, 3) dm.
    """
    marks = model.landmarks[17:]
    scale, turn, shift = similarity(predicted[marks], truth[marks])
    placed = scale * predicted @ turn + shift
    points = truth[np.linalg.norm(truth - truth[model.landmarks[30]], axis=1) < 0.75][::3]
    for _ in range(8):
        nearest, distance = nearest_on_surface(points, placed, model.triangles)
        near = distance < np.percentile(distance, 90)
        scale, turn, shift = similarity(nearest[near], points[near])
        placed = scale * placed @ turn + shift
    return float(nearest_on_surface(points, placed, model.triangles)[1].mean() * 100)


def summary(name: str, errors: Iterable[float]) -> str:
    """Median, mean and share over 10 % of a list of errors (fractions)."""
    e = np.array(list(errors))
    if not len(e):
        return f"{name:34s} none"
    return (
        f"{name:34s} n {len(e):5d}  median {np.median(e):6.2%}  mean {e.mean():6.2%}  over 10%: {(e > 0.1).mean():6.2%}"
    )


def named(files: npt.NDArray[np.str_], parts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(n,) which file names hold one of the parts."""
    return np.array([any(part in str(file) for part in parts) for file in files], bool)


class Evaluator:
    """Networks and correspondences, loaded once."""

    def __init__(self, weights: Path, teacher_map: Path) -> None:
        self.model = FaceModel.load(weights / "face_model.npz")
        self.regressor = Regressor.load(weights / "regressor.safetensors", self.model)
        self.texture = TextureNet.load(weights / "texture.safetensors", self.model)
        found = np.load(teacher_map)
        self.vertex, self.scatter = found["vertex"], found["scatter_mm"]
        self.dense = np.flatnonzero(self.scatter < MAX_SCATTER_MM)
        self.inner = np.array(list(MEDIAPIPE_OF_IBUG.values()))

    @torch.no_grad()
    def shapes(self, sample: Sample) -> tuple[torch.Tensor, npt.NDArray[np.float32]]:
        """Shapes (1, 3, N, 3) dm and coefficients (257,)."""
        out = self.regressor(torch.from_numpy(sample.crop), torch.from_numpy(sample.context))
        return out[0], out[2][0].numpy()

    def in_source(self, shapes: torch.Tensor, sample: Sample) -> Float:
        """Projected vertices (N, 2) in source pixels."""
        camera = sample.context[0, 15:23]
        placed: Float = project(shapes[:, 0])[0].numpy() * camera[0:2] + camera[2:4]
        return placed

    @torch.no_grad()
    def fidelity(self, sample: Sample, shapes: torch.Tensor) -> float:
        """PSNR in dB of the re-rendered visible face against the 512 px crop."""
        context = torch.from_numpy(sample.context)
        texture, seen = self.texture(torch.from_numpy(sample.crop_hd), shapes, context)
        camera = sample.context[0, 15:23]
        place = (self.in_source(shapes, sample) - camera[6:8]) / camera[4:6]
        posed = shapes[0, 0].numpy()
        tri, bary, _ = rasterise(place, posed[:, 2], self.model.triangles, CROP_HD, CROP_HD)
        uv = interpolate(tri, bary, self.model.triangles, self.model.uv)
        grid = torch.from_numpy(np.stack([uv[..., 0] * 2 - 1, 1 - uv[..., 1] * 2], -1))[None].float()
        drawn = torch.nn.functional.grid_sample(texture.float(), grid, align_corners=False)[0].numpy()
        visible = torch.nn.functional.grid_sample(seen.float(), grid, align_corners=False)[0, 0].numpy()
        judged = (tri >= 0) & (visible > 200)
        error = ((drawn - sample.crop_hd[0].astype(np.float32)) ** 2)[:, judged].mean()
        return float(10 * np.log10(255**2 / max(error, 1e-9)))

    def pictures(self, folder: Path, labels: Path, limit: int, leave_out: Sequence[str] = ()) -> None:
        """Print 2D errors, by yaw band, texture PSNR and the share of pictures missed."""
        with np.load(labels, allow_pickle=False) as data:
            good = np.flatnonzero(np.isfinite(data["points"][:, 0, 0]) & ~named(data["files"], leave_out))
            good = good[np.random.default_rng(0).permutation(len(good))[:limit]]
            files, points = data["files"][good].tolist(), data["points"][good][:, :, :2].astype(np.float64)
        inner: list[float] = []
        dense: list[float] = []
        yaws: list[float] = []
        fidelities: list[float] = []
        missed = 0
        for k, sample in faces_of(folder, files, folder.name):
            teacher = points[k]
            eyes = np.linalg.norm(teacher[33] - teacher[263])
            across = max(float(np.ptp(teacher[:, 0])), float(np.ptp(teacher[:, 1])))
            if sample is not None and np.linalg.norm(sample.context[0, 9:11] - teacher[4]) > _SAME_FACE * across:
                sample = None
            if sample is None:
                missed += 1
                continue
            shapes, coefficients = self.shapes(sample)
            placed = self.in_source(shapes, sample)
            # In profile the outer eye corners fall together: the width of a face is the honest unit then.
            unit = max(eyes, 0.35 * across)
            distance = np.linalg.norm(placed[self.vertex] - teacher, axis=1) / unit
            inner.append(distance[self.inner].mean())
            dense.append(distance[self.dense].mean())
            yaws.append(abs(np.degrees(coefficients[COEFFICIENTS["angle"]][1])))
            if len(fidelities) < 60:
                fidelities.append(self.fidelity(sample, shapes))
        print(summary(f"{folder.name}: inner landmarks", inner))
        print(summary(f"{folder.name}: dense points", dense))
        for low, high in BANDS:
            chosen = [e for e, y in zip(dense, yaws, strict=True) if low <= y < high]
            print(summary(f"  dense, yaw {low}-{high}", chosen))
        print(f"  texture PSNR over visible skin: median {np.median(fidelities):.1f} dB (n {len(fidelities)})")
        print(f"  missed: {missed} of {len(files)} ({missed / len(files):.1%})", flush=True)

    def heads(self, renders: Path, limit: int, leave_out: Sequence[str] = ()) -> None:
        """Print shape error beside the mean face's, and pose error, on renders of exact heads."""
        crops = np.load(renders.with_suffix(".npy"), mmap_mode="r")
        with np.load(renders.with_suffix(".labels.npz"), allow_pickle=False) as data:
            labels = {k: data[k] for k in ("identity", "expression", "angle")}
            judged = np.flatnonzero(~named(data["files"], leave_out))[:limit]
        find = Finder()
        ours, neutral_ours, mean, mean_of_heads, angles, yaws, missed = [], [], [], [], [], [], 0
        count = len(judged)
        for k in tqdm(judged, desc="exact heads", mininterval=5):
            sample = sample_of(str(k), np.ascontiguousarray(crops[k]), find)
            if sample is None:
                missed += 1
                continue
            shapes, coefficients = self.shapes(sample)
            neutral = self.model.mean + np.tensordot(labels["identity"][k], self.model.identity, 1)
            truth = neutral + np.tensordot(labels["expression"][k], self.model.expression, 1)
            head, predicted_neutral = shapes[0, 1].numpy().astype(np.float64), shapes[0, 2].numpy().astype(np.float64)
            ours.append(shape_error(head, self.model, truth.astype(np.float64)))
            neutral_ours.append(shape_error(predicted_neutral, self.model, neutral.astype(np.float64)))
            mean.append(shape_error(self.model.mean.astype(np.float64), self.model, neutral.astype(np.float64)))
            mean_of_heads.append(shape_error(self.model.mean.astype(np.float64), self.model, truth.astype(np.float64)))
            difference = np.degrees(coefficients[COEFFICIENTS["angle"]] - labels["angle"][k])
            angles.append(np.abs(difference))
            yaws.append(abs(np.degrees(labels["angle"][k][1])))
        error, pose = np.array(neutral_ours), np.array(angles)
        print(f"exact heads ({MARGIN} px margin): {len(ours)} measured, {missed} of {count} missed by the detector")
        for name, reached, baseline in (
            ("the head as it is", np.mean(ours), np.mean(mean_of_heads)),
            ("identity alone, expression taken away", error.mean(), np.mean(mean)),
        ):
            print(f"  {name}: shape error mean {reached:.2f} mm, mean face {baseline:.2f} mm "
                  f"({1 - reached / baseline:.0%} better)")  # fmt: skip
        for low, high in BANDS:
            chosen = [k for k, y in enumerate(yaws) if low <= y < high]
            if chosen:
                print(f"  yaw {low}-{high}: n {len(chosen)}, head {np.array(ours)[chosen].mean():.2f} mm "
                      f"(mean face {np.array(mean_of_heads)[chosen].mean():.2f}), identity {error[chosen].mean():.2f}, "
                      f"yaw error median {np.median(pose[chosen, 1]):.1f} degrees")  # fmt: skip
        print(f"  pose error, median degrees: pitch {np.median(pose[:, 0]):.1f} yaw {np.median(pose[:, 1]):.1f} "
              f"roll {np.median(pose[:, 2]):.1f}")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pictures", "heads"))
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--teacher-map", type=Path, default=Path("weights/teacher_map.npz"))
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument(
        "--leave-out", nargs="*", default=(), help="parts of file names: people who are in the training set too"
    )
    options = parser.parse_args()
    evaluator = Evaluator(options.weights, options.teacher_map)
    if options.what == "heads":
        for path in options.paths:
            evaluator.heads(path, options.limit, options.leave_out)
    else:
        for pictures_folder, teacher_labels in zip(options.paths[::2], options.paths[1::2], strict=True):
            evaluator.pictures(pictures_folder, teacher_labels, options.limit, options.leave_out)
