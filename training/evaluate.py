"""Measure the weights: 2D error against the teacher on photographs, 3D error on exact heads, texture fidelity.

    python -m training.evaluate pictures FOLDER LABELS.npz [FOLDER LABELS.npz ...]
    python -m training.evaluate heads RENDERS --heads ict_facekit.npz
    python -m training.evaluate people FOLDER

Faces are found and cut out as the service does it, with the detector's own points; a face is missed where the detector
is less sure than `align` asks for, or means another one than the teacher. 2D errors are distances in
source pixels over the outer-eye distance, from the teacher's points on photographs and from the exact ones on renders;
yaw bands go by the picture's note (Pointing04 measured its poses), else by the teacher, and by the render's label, not
by the prediction. Shape errors are millimetres from the true surface to the predicted one after a similarity by
landmarks and ICP (the protocol of the NoW benchmark, on the inner face).
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import trimesh
from scipy.spatial import cKDTree
from scipy.stats import rankdata
from tqdm import tqdm

from export.samples import Sample, sample_of
from networks.camera import CROP_HD, project, rotation
from networks.face_model import COEFFICIENTS, FaceModel
from networks.head_model import AnyFaceModel, HeadModel, load_face_model
from networks.parser import Parser
from networks.regressor import Regressor
from networks.texture import TextureNet
from training.crops import Finder, faces_of
from training.face_model import ORIGIN_CM
from training.face_model import build as build_face_model
from training.raster import interpolate, rasterise
from training.refinement_net import Refinement, RefinementNet
from training.registration import MAX_SCATTER_MM
from training.render import MARGIN, MEDIAPIPE_OF_IBUG, euler

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
# From the first degree on, below the second; measured poses come in steps of 15, and 60 is the end of the range.
BANDS = ((0, 20), (20, 40), (40, 61), (61, 91))
RANGE = (0, 61)  # what the regressor is made for
# Pictures in which the teacher itself is lost say nothing: it and the detector must mean the same face.
_SAME_FACE = 0.35
FIDELITIES = 60  # faces whose texture is judged
SERVED_THRESHOLD = 0.7  # of a face's score: what `align` asks for, so that what is missed here is missed there
_ROUNDS = 15  # of ICP; eight leave the mean face 1.5 % too far away
# The teacher's points that lie on face model 1's patches over the eyes; a head has eyeballs there.
_ON_PATCHES = (145, 163, 374, 390, 468, 473, 476)
_CANDIDATES = 32  # triangles tried for each point, nearest centres first


def similarity(source: Float, target: Float) -> tuple[float, Float, Float]:
    """Fit a similarity (s, R, t) of two point sets (P, 3): ``target ~ s * source @ R + t`` (Umeyama 1991)."""
    ms, mt = source.mean(0), target.mean(0)
    u, s, vt = np.linalg.svd((source - ms).T @ (target - mt))
    flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    turn = (u * flip) @ vt
    scale = float((s * flip).sum() / ((source - ms) ** 2).sum())
    return scale, turn, mt - scale * ms @ turn


def nearest_on_surface(points: Float, vertices: Float, triangles: npt.NDArray[np.integer[Any]]) -> tuple[Float, Float]:
    """Find the nearest place of a mesh to each point: places (P, 3) and distances (P,), in the unit of the input.

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


def surface_of(model: AnyFaceModel) -> Int:
    """Return the triangles (F, 3) that shapes are judged by, as vertices: a head's skin without its inside."""
    if isinstance(model, FaceModel):
        return model.triangles.astype(np.int64)
    return model.vertex[model.triangles("face", "head_and_neck")].astype(np.int64)


@dataclass(frozen=True)
class Places:
    """Places on a face model's surface, wherever that goes.

    Attributes:
        corners: (P, 3) vertices. weights: (P, 3) barycentric.
    """

    corners: Int
    weights: Float

    @classmethod
    def find(cls, model: AnyFaceModel, wanted: Float) -> Places:
        """Find the nearest places of the mean face to points (P, 3), decimetres, head frame."""
        triangles = surface_of(model)
        corners = model.mean.astype(np.float64)[triangles]
        near = cKDTree(corners.mean(1)).query(wanted, k=_CANDIDATES)[1]
        places = trimesh.triangles.closest_point(corners[near.ravel()], np.repeat(wanted, _CANDIDATES, 0))
        distance = np.linalg.norm(places.reshape(*near.shape, 3) - wanted[:, None], axis=2)
        rows = np.arange(len(wanted))
        best = distance.argmin(1)
        triangle = near[rows, best]
        weights = trimesh.triangles.points_to_barycentric(corners[triangle], places.reshape(*near.shape, 3)[rows, best])
        return cls(triangles[triangle], weights)

    def on(self, vertices: Float) -> Float:
        """Interpolate vertices (N, 3) at the places: (P, 3)."""
        points: Float = (vertices[self.corners] * self.weights[..., None]).sum(1)
        return points


def narrow_face(heads: Path) -> Float:
    """Read the vertices (P, 3) dm of the narrow face of ``ict_facekit.npz``, head frame.

    They cover what vertices of face model 1 cover, but crowd at the eyes, the nose and the mouth, so that these weigh
    more; measures by the original's vertices are of this kind.
    """
    with np.load(heads, allow_pickle=False) as data:
        points: Float = (data["neutral"][: int(data["n_narrow_face"])].astype(np.float64) - ORIGIN_CM) / 10
    return points


def face_model_1(model: HeadModel, heads: Path) -> FaceModel:
    """Build face model 1 without albedo, whose coefficients are those of a head, from ``ict_facekit.npz``.

    Shapes of a head are judged on it: a head has openings where it has patches, and the tables of weights are of it.
    """
    built, mesh = build_face_model(heads)
    with np.load(heads, allow_pickle=False) as data:
        modes = np.stack([mesh.weights @ mode for mode in data["identity"].astype(np.float64)]) / 10
    return replace(built, identity=np.tensordot(model.source_identity, modes, 1).astype(np.float32))


def shape_error(predicted: Float, model: AnyFaceModel, truth: Float, places: Places | None = None) -> float:
    """Measure the mean distance in mm from the true inner face (7.5 cm around the nose tip) to the predicted surface.

    Args:
        predicted: (N, 3) dm. It is moved, turned and scaled first: by landmarks, then by ICP.
        model: gives triangles and landmarks.
        truth: (N, 3) dm.
        places: which points of the true surface count; without them, every third vertex.
    """
    triangles = surface_of(model)
    marks = model.landmarks[17:]
    scale, turn, shift = similarity(predicted[marks], truth[marks])
    placed = scale * predicted @ turn + shift
    points = truth[::3] if places is None else places.on(truth)
    points = points[np.linalg.norm(points - truth[model.landmarks[30]], axis=1) < 0.75]
    for _ in range(_ROUNDS):
        nearest, distance = nearest_on_surface(points, placed, triangles)
        near = distance < np.percentile(distance, 90)
        scale, turn, shift = similarity(nearest[near], points[near])
        placed = scale * placed @ turn + shift
    return float(nearest_on_surface(points, placed, triangles)[1].mean() * 100)


def summary(name: str, errors: Iterable[float]) -> str:
    """Write median, mean and share over 10 % of a list of errors (fractions)."""
    e = np.array(list(errors))
    if not len(e):
        return f"{name:34s} none"
    return (
        f"{name:34s} n {len(e):5d}  median {np.median(e):6.2%}  mean {e.mean():6.2%}  over 10%: {(e > 0.1).mean():6.2%}"
    )


def in_bands(
    yaws: Sequence[float], bands: Sequence[tuple[int, int]] = BANDS
) -> Iterator[tuple[str, npt.NDArray[np.intp]]]:
    """Yield name and members of each band of the yaw, degrees without their sign."""
    yaw = np.abs(np.array(yaws))
    for low, high in bands:
        yield f"yaw {low}-{high // 10 * 10}", np.flatnonzero((low <= yaw) & (yaw < high))


@dataclass
class Measured:
    """What is printed for photographs and for exact heads alike; one entry a face.

    Attributes:
        inner, dense: 2D errors, fractions of the outer-eye distance.
        yaws: degrees, by the picture's note, the render's label or the teacher, never by the network that is judged.
        fidelities: PSNR in dB of the first `FIDELITIES` faces.
        missed: pictures in which the detector did not find the face.
    """

    inner: list[float] = field(default_factory=list)
    dense: list[float] = field(default_factory=list)
    yaws: list[float] = field(default_factory=list)
    fidelities: list[float] = field(default_factory=list)
    missed: int = 0

    def add(self, inner: float, dense: float, yaw: float) -> None:
        """Add one face."""
        self.inner.append(inner)
        self.dense.append(dense)
        self.yaws.append(yaw)

    def show(self, name: str) -> None:
        """Print it."""
        for what, errors in (("inner landmarks", self.inner), ("dense points", self.dense)):
            print(summary(f"{name}: {what}", errors))
            for band, members in [*in_bands(self.yaws), *in_bands(self.yaws, [RANGE])]:
                print(summary(f"  {band}", np.array(errors)[members]))
        if self.fidelities:
            print(f"  texture PSNR over visible skin: median {np.median(self.fidelities):.1f} dB, lowest "
                  f"{min(self.fidelities):.1f} (n {len(self.fidelities)})")  # fmt: skip
        count = len(self.inner) + self.missed
        print(f"  missed: {self.missed} of {count} ({self.missed / max(count, 1):.1%})", flush=True)


def noted_yaws(folder: Path) -> dict[str, float]:
    """Read file -> yaw in degrees, of a folder's pictures whose note says how far the head was turned ("pan +45")."""
    with (folder / "index.csv").open(newline="") as handle:
        found = {row["file"]: re.search(r"\bpan ([+-]?\d+)", row.get("note") or "") for row in csv.DictReader(handle)}
    return {file: float(match[1]) for file, match in found.items() if match}


def yaw_of(points: Float, mean: Float) -> float:
    """Estimate the yaw in degrees of a face by its points in a picture.

    It knows nothing of the regressor. The teacher sees turned heads as turned less: on photographs of measured poses
    (Pointing04), 15, 30, 45, 60, 75 and 90 degrees come out as 13, 25, 37, 48, 55 and 58.

    Args:
        points: (P, 3) of the teacher: pixels, y down, z away from the camera.
        mean: (P, 3) the same places on the mean face, head frame.
    """
    _, turned, _ = similarity(mean, points * [1, -1, -1])
    return float(np.degrees(np.arcsin(np.clip(-turned[0, 2], -1, 1))))


def rendered_at(head: Float, angle: Float, camera: Float) -> Float:
    """Project vertices (N, 3) dm of a head as `training.render` drew them: (N, 2) columns and rows with the margin.

    Args:
        head: in the head frame.
        angle: (3,) radians.
        camera: (4,) of the render's labels.
    """
    posed = head @ euler(*angle).T
    distance, pixels, column, row = camera
    placed: Float = posed[:, :2] / (distance - posed[:, 2:]) * distance * pixels * [1, -1] + [column, row] + MARGIN
    return placed


def named(files: npt.NDArray[np.str_], parts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return (n,) which file names hold one of the parts."""
    return np.array([any(part in str(file) for part in parts) for file in files], bool)


def teacher_places(model: AnyFaceModel, teacher_map: Path) -> tuple[Places, npt.NDArray[np.float32]]:
    """Find where the teacher's points lie on a face model, and by how many mm each scatters (478,).

    Args:
        model: a head says it itself.
        teacher_map: of face model 1, from `training.teacher_map`.
    """
    if not isinstance(model, FaceModel):
        places = Places(model.teacher_vertices.astype(np.int64), model.teacher_weights.astype(np.float64))
        return places, model.teacher_scatter.copy()
    with np.load(teacher_map, allow_pickle=False) as found:
        vertex, scatter = found["vertex"].astype(np.int64), found["scatter_mm"].copy()
    first = np.tile([1.0, 0.0, 0.0], (len(vertex), 1))
    return Places(np.repeat(vertex[:, None], 3, axis=1), first), scatter


class Evaluator:
    """Networks and correspondences, loaded once."""

    def __init__(
        self, weights: Path, teacher_map: Path, refinement: Path | None = None, corrected: bool = True
    ) -> None:
        self.model = load_face_model(weights / "face_model.npz")
        self.regressor = Regressor.load(weights / "regressor.safetensors", self.model)
        if not corrected:
            self.regressor.correction = None
        self.refinement = None
        if refinement is not None:
            if not isinstance(self.model, FaceModel):
                raise SystemExit("--refinement judges what corrects face model 1: give --weights with that.")
            self.refinement = Refinement(self.model, RefinementNet.load(refinement)).eval()
        self.texture = TextureNet.load(weights / "texture.safetensors", self.model)
        self.parser = Parser.load(weights / "parser.safetensors")
        self.teacher, scatter = teacher_places(self.model, teacher_map)
        steady = scatter < MAX_SCATTER_MM
        steady[list(_ON_PATCHES)] = False
        self.dense = np.flatnonzero(steady)
        self.inner = np.array(list(MEDIAPIPE_OF_IBUG.values()))

    @torch.no_grad()
    def shapes(self, sample: Sample) -> tuple[torch.Tensor, npt.NDArray[np.float32]]:
        """Decode shapes (1, 3, N, 3) dm and coefficients (257,)."""
        crop = torch.from_numpy(sample.crop)
        out = self.regressor(crop, torch.from_numpy(sample.context))
        shapes, coefficients = out[0], out[2]
        if self.refinement is not None:
            turn = rotation(coefficients[:, COEFFICIENTS["angle"]])
            coefficients = self.refinement(crop.float() / 255, coefficients, shapes[:, 0], turn)
            shapes = torch.stack(list(self.regressor.decoder(coefficients)), 1)
        return shapes, coefficients[0].numpy()

    def in_source(self, shapes: torch.Tensor, sample: Sample) -> Float:
        """Project vertices (N, 2) to source pixels."""
        camera = sample.context[0, 15:23]
        placed: Float = project(shapes[:, 0])[0].numpy() * camera[0:2] + camera[2:4]
        return placed

    @torch.no_grad()
    def fidelity(self, sample: Sample, shapes: torch.Tensor) -> float:
        """Measure the PSNR in dB of the re-rendered visible face against the 512 px crop; 0 where none is visible."""
        context, crop = torch.from_numpy(sample.context), torch.from_numpy(sample.crop)
        parts = self.parser(crop, self.regressor.fingerprint)
        texture, seen, _ = self.texture(torch.from_numpy(sample.crop_hd), shapes, context, parts)
        camera = sample.context[0, 15:23]
        place = (self.in_source(shapes, sample) - camera[6:8]) / camera[4:6]
        posed, model = shapes[0, 0].numpy(), self.model
        if isinstance(model, FaceModel):
            triangles = model.triangles
        else:
            place, posed, triangles = place[model.vertex], posed[model.vertex], model.triangles(*model.skin)
        tri, bary, _ = rasterise(place, posed[:, 2], triangles, CROP_HD, CROP_HD)
        uv = interpolate(tri, bary, triangles, model.uv)
        grid = torch.from_numpy(np.stack([uv[..., 0] * 2 - 1, 1 - uv[..., 1] * 2], -1))[None].float()
        drawn = torch.nn.functional.grid_sample(texture.float(), grid, align_corners=False)[0].numpy()
        visible = torch.nn.functional.grid_sample(seen.float(), grid, align_corners=False)[0, 0].numpy()
        judged = (tri >= 0) & (visible > 200)
        if not judged.any():
            return 0.0
        error = ((drawn - sample.crop_hd[0].astype(np.float32)) ** 2)[:, judged].mean()
        return float(10 * np.log10(255**2 / max(error, 1e-9)))

    def errors_2d(self, shapes: torch.Tensor, sample: Sample, points: Float) -> tuple[float, float]:
        """Average errors of the inner landmarks and of the dense points, given the 478 points in the source."""
        across = float(np.ptp(points, 0).max())
        # In profile the outer eye corners fall together: the width of a face is the honest unit then.
        unit = max(float(np.linalg.norm(points[33] - points[263])), 0.35 * across)
        distance = np.linalg.norm(self.teacher.on(self.in_source(shapes, sample)) - points, axis=1) / unit
        return float(distance[self.inner].mean()), float(distance[self.dense].mean())

    def pictures(self, folder: Path, labels: Path, limit: int, leave_out: Sequence[str] = ()) -> None:
        """Print 2D errors, by yaw band, texture PSNR and the share of pictures missed."""
        with np.load(labels, allow_pickle=False) as data:
            good = np.flatnonzero(np.isfinite(data["points"][:, 0, 0]) & ~named(data["files"], leave_out))
            good = good[np.random.default_rng(0).permutation(len(good))[:limit]]
            files, points = data["files"][good].tolist(), data["points"][good].astype(np.float64)
        measured = Measured()
        noted = noted_yaws(folder)
        marks = self.model.mean[self.model.landmarks[17:]].astype(np.float64)
        for k, sample in faces_of(folder, files, folder.name, SERVED_THRESHOLD):
            teacher = points[k, :, :2]
            across = float(np.ptp(teacher, 0).max())
            if sample is None or np.linalg.norm(sample.context[0, 9:11] - teacher[4]) > _SAME_FACE * across:
                measured.missed += 1
                continue
            shapes, _ = self.shapes(sample)
            yaw = noted.get(files[k], yaw_of(points[k][self.inner], marks))
            measured.add(*self.errors_2d(shapes, sample, teacher), yaw)
            if len(measured.fidelities) < FIDELITIES:
                measured.fidelities.append(self.fidelity(sample, shapes))
        measured.show(folder.name)

    def heads(self, renders: Path, limit: int, leave_out: Sequence[str] = (), heads: Path | None = None) -> None:
        """Print what `pictures` prints, shape error beside the mean face's, and pose error, on exact heads' renders.

        Args:
            renders: of `training.render`.
            limit: how many.
            leave_out: parts of names of files.
            heads: ``ict_facekit.npz``: shapes are judged at its narrow face as well. A head needs it (`face_model_1`).

        Raises:
            SystemExit: a head without ``heads``.
        """
        if isinstance(self.model, FaceModel):
            judge = self.model
        elif heads:
            judge = face_model_1(self.model, heads)
        else:
            raise SystemExit("shapes of a head are judged on face model 1: give --heads ict_facekit.npz.")
        narrow = Places.find(judge, narrow_face(heads)) if heads else None
        crops = np.load(renders.with_suffix(".npy"), mmap_mode="r")
        with np.load(renders.with_suffix(".labels.npz"), allow_pickle=False) as data:
            labels = {k: data[k].astype(np.float64) for k in ("identity", "expression", "angle", "camera")}
            judged = np.flatnonzero(~named(data["files"], leave_out))[:limit]
        find = Finder()
        measured = Measured()
        shape_errors: list[list[float]] = []
        turned: list[Float] = []
        mean = judge.mean.astype(np.float64)
        for k in tqdm(judged, desc="exact heads", mininterval=5):
            sample = sample_of(str(k), np.ascontiguousarray(crops[k]), find, SERVED_THRESHOLD)
            if sample is None:
                measured.missed += 1
                continue
            shapes, coefficients = self.shapes(sample)
            codes = labels["identity"][k], labels["expression"][k]
            truth = rendered_at(decoded(self.model, *codes)[1], labels["angle"][k], labels["camera"][k])
            yaw = float(np.degrees(labels["angle"][k][1]))
            measured.add(*self.errors_2d(shapes, sample, self.teacher.on(truth)), yaw)
            if len(measured.fidelities) < FIDELITIES:
                measured.fidelities.append(self.fidelity(sample, shapes))
            found = (coefficients[COEFFICIENTS[name]].astype(np.float64) for name in ("identity", "expression"))
            (neutral, head), (predicted_neutral, predicted) = decoded(judge, *codes), decoded(judge, *found)
            pairs = ((predicted, head), (mean, head), (predicted_neutral, neutral), (mean, neutral))
            shape_errors.append([shape_error(guess, judge, true) for guess, true in pairs])
            if narrow:
                shape_errors[-1] += [shape_error(guess, judge, head, narrow) for guess in (predicted, mean)]
            turned.append(np.abs(np.degrees(coefficients[COEFFICIENTS["angle"]] - labels["angle"][k])))
        measured.show(renders.name)
        show_shapes(np.array(shape_errors), np.array(turned), measured.yaws)

    def people(self, folder: Path, limit: int) -> None:
        """Print how much of a person is in the identity code of photographs, by `variation` and `discrimination`.

        Args:
            folder: with an index.csv that names the ``person`` of each ``file``.
            limit: pictures.
        """
        with (folder / "index.csv").open(newline="") as handle:
            rows = list(csv.DictReader(handle))[:limit]
        codes, persons = [], []
        for k, sample in faces_of(folder, [row["file"] for row in rows], folder.name, SERVED_THRESHOLD):
            if sample is not None:
                codes.append(self.shapes(sample)[1][COEFFICIENTS["identity"]])
                persons.append(rows[k]["person"])
        found, names = np.stack(codes), np.array(persons)
        first = np.unique(names, return_index=True)[1]
        drawn = np.random.default_rng(0).normal(0, 0.8, (200, found.shape[1]))
        print(f"{folder.name}: {len(found)} of {len(rows)} faces found, {len(first)} people")
        print(f"  neutral shape from person to person {variation(found[first], self.model):.2f} mm; "
              f"heads drawn at 0.8 sigma {variation(drawn, self.model):.2f} mm")  # fmt: skip
        print(f"  same or different by the identity code alone: AUC {discrimination(found, names):.3f}", flush=True)


def decoded(model: AnyFaceModel, identity: Float, expression: Float) -> tuple[Float, Float]:
    """Decode coefficients (80,) and (64,) to the neutral and the expressive shape (N, 3) dm."""
    neutral: Float = model.mean + np.tensordot(identity, model.identity, 1)
    return neutral, neutral + np.tensordot(expression, model.expression, 1)


def show_shapes(errors: Float, pose: Float, yaws: Sequence[float]) -> None:
    """Print shape errors (n, 4 or 6) in mm, each measure beside the mean face's, and pose errors (n, 3) in degrees."""
    rows = [("all", np.arange(len(errors))), *in_bands(yaws)]
    for name, ours, base in (
        ("the head as it is", 0, 1),
        ("identity alone, both without expression", 2, 3),
        ("the head as it is, at the vertices of the narrow face", 4, 5),
    ):
        if base >= errors.shape[1]:
            continue
        print(f"  shape error, {name}:")
        for band, members in rows:
            if len(members):
                reached, baseline = errors[members, ours].mean(), errors[members, base].mean()
                gain = 1 - reached / baseline
                print(f"    {band:10s} n {len(members):5d}  mean {reached:.2f} mm, mean face {baseline:.2f} mm "
                      f"({abs(gain):.0%} {'better' if gain >= 0 else 'worse'})")  # fmt: skip
    print("  pose error, median degrees:")
    for band, members in rows:
        if len(members):
            pitch, yaw, roll = np.median(pose[members], 0)
            print(f"    {band:10s} n {len(members):5d}  pitch {pitch:.1f} yaw {yaw:.1f} roll {roll:.1f}")


def variation(codes: npt.NDArray[np.floating[Any]], model: AnyFaceModel) -> float:
    """Measure how neutral shapes differ from their mean, size and place aside: root mean square in mm.

    Args:
        codes: (n, 80) identity.
        model: all of its vertices count.
    """
    shapes = model.mean + np.tensordot(codes, model.identity, 1).astype(np.float64)
    shapes -= shapes.mean(1, keepdims=True)
    size = np.linalg.norm(model.mean - model.mean.mean(0))
    shapes *= size / np.linalg.norm(shapes, axis=(1, 2), keepdims=True)
    return float(np.sqrt(((shapes - shapes.mean(0)) ** 2).sum(2).mean()) * 100)


def discrimination(codes: npt.NDArray[np.floating[Any]], persons: npt.NDArray[np.str_]) -> float:
    """Compute the area under the ROC curve of the cosine between codes, over all pairs: same or different people.

    Args:
        codes: (n, 80) identity; their mean is taken off first.
        persons: (n,) names.
    """
    rows = codes - codes.mean(0)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    upper = np.triu_indices(len(rows), 1)
    alike, same = (rows @ rows.T)[upper], (persons[:, None] == persons[None])[upper]
    ranks = rankdata(alike)
    hits = int(same.sum())
    return float((ranks[same].sum() - hits * (hits + 1) / 2) / (hits * (len(same) - hits)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pictures", "heads", "people"))
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--teacher-map", type=Path, default=Path("weights/teacher_map.npz"))
    parser.add_argument("--refinement", type=Path, help="weights of `training.refinement`: judge what they correct")
    parser.add_argument(
        "--without-correction", action="store_true", help="judge the network's identity as it is (identity_correction)"
    )
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument(
        "--heads", type=Path, help="ict_facekit.npz: judge shapes evenly over its skin, and at its narrow face as well"
    )
    parser.add_argument(
        "--leave-out", nargs="*", default=(), help="parts of file names: people who are in the training set too"
    )
    options = parser.parse_args()
    evaluator = Evaluator(options.weights, options.teacher_map, options.refinement, not options.without_correction)
    if options.what == "heads":
        for path in options.paths:
            evaluator.heads(path, options.limit, options.leave_out, options.heads)
    elif options.what == "people":
        for path in options.paths:
            evaluator.people(path, options.limit)
    else:
        for pictures_folder, teacher_labels in zip(options.paths[::2], options.paths[1::2], strict=True):
            evaluator.pictures(pictures_folder, teacher_labels, options.limit, options.leave_out)
