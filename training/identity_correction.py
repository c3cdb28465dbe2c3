"""Step 6c: what a face embedder's features say of a person's identity beyond what the regressor says.

    python -m training.identity_correction heads PICTURES LABELS.npz ict_facekit.npz OUT.npz --count 400
    python -m training.identity_correction fit OUT.npz [OUT.npz ...]

Each exact head is drawn from the front and from both sides, two fifths of them with nearly the photographed person's
shape. A ridge regression, its weight chosen by five-fold cross-validation over photographs, maps the mean identity and
the mean features of one, two or three of its pictures to what the identity lacks: of one picture alone it would learn
to hold back more, although pictures are corrected one by one and then joined. ``heads`` with another ``--seed`` draws
others: several files are fitted together.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file
from tqdm import tqdm

from export.samples import served_alignment
from networks.alignment import crop_transform
from networks.certainty import digest
from networks.embedder.dlib_resnet import FEATURES, DlibResNet
from networks.embedder.embedder import Embedder
from networks.embedder.embedder import default_weights as embedder_weights
from networks.head_model import HeadModel, load_face_model
from networks.identity_correction import FILE, IDENTITY, IdentityCorrection, default_weights
from training.certainty import Features
from training.face_model import ORIGIN_CM
from training.precision import autocast
from training.raster import interpolate, rasterise
from training.regressor import SOURCES
from training.render import MARGIN, SHADES, SIZE, Renderer, _sampled, euler, five_points, vertex_normals

Float = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
YAWS = (0.0, -40.0, 40.0)  # degrees
PARTS = ((0.24, 0.38, 0.38), ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)))
"""Each view's part in the mean, as `merge` weighs them, and which views are joined."""
RIDGES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)  # of inputs of unit variance
FOLDS = 5
OWN = 0.4  # share of heads with nearly the photographed person's shape
TILT = np.radians([7.0, 6.0, 5.0])  # standard deviations of pitch, of yaw around the wanted one, and of roll


class Views(Renderer):
    """Draws each head from several sides, cut out as the regressor sees it."""

    def identity(self, index: int) -> Float:
        """Draw an identity (100,) for the head of picture ``index``."""
        fitted = self.source(index).fitted.identity
        own = self.rng.random() < OWN
        drawn = fitted + self.rng.normal(0, 0.35, 100) if own else 0.6 * fitted + self.rng.normal(0, 0.8, 100)
        return np.clip(drawn, -2.8, 2.8)

    def view(self, index: int, identity: Float, yaw: float) -> tuple[U8, Float]:
        """Draw one picture (288, 288, 3) RGB, and its five points (5, 2)."""
        rng, heads, source = self.rng, self.heads, self.source(index)
        change = np.where(rng.random(57) < 0.1, rng.normal(0, 0.3, 57), 0)
        expression = np.clip(source.fitted.expression * rng.choice([1.0, 0.4]) + change, 0, 1)
        angle = rng.normal([0, yaw, 0], TILT)
        camera = float(np.exp(rng.uniform(*np.log((55.0, 200.0)))))
        posed = (heads.shape(identity, expression) - ORIGIN_CM) @ euler(*angle).T
        seen = posed[:, :2] / (camera - posed[:, 2:]) * camera * [1, -1] * 10 + 400
        points = five_points(seen[heads.landmarks])
        points += rng.normal(0, 0.025, (5, 2)) * max(float(np.linalg.norm(points[0] - points[1])), 25.0)
        scale, dx, dy = crop_transform(points, 800)
        shift = np.array([dx + MARGIN, dy + MARGIN])
        tri, bary, _ = rasterise(seen * scale + shift, posed[:, 2], heads.triangles, SIZE, SIZE)
        mirror = heads.mirror
        values = [source.places, source.places[mirror], source.facing[:, None], source.facing[mirror][:, None]]
        shade = [source.shade[:, None], source.shade[mirror][:, None]]
        normals = vertex_normals(posed, heads.triangles)
        field = interpolate(tri, bary, heads.triangles, np.concatenate([*values, normals, *shade], 1))
        mirrored = (field[..., 4] < 0.15) & (field[..., 5] > field[..., 4] + 0.2)
        where = np.where(mirrored[..., None], field[..., 2:4], field[..., 0:2])
        colour = _sampled(source.picture, where, scale * 10 / source.fitted.scale)
        if rng.random() < 0.4:
            before = np.where(mirrored, field[..., 10], field[..., 9])
            light = self.shading(source, field[..., 6:9], euler(*angle))
            colour *= (light / np.maximum(before, SHADES[0]))[..., None]
        elif rng.random() < 0.6:
            colour *= self._lamp(field[..., 6:9])
        return np.ascontiguousarray(self.pasted(colour, tri >= 0)), points * scale + shift


@torch.no_grad()
def heads(a: argparse.Namespace) -> None:
    """Write what needs no regressor: see `Drawn`."""
    renderer = Views(a.pictures, a.labels, a.heads, a.seed, teacher_map=a.teacher_map)
    nothing = torch.zeros(IDENTITY + FEATURES, IDENTITY), torch.zeros(IDENTITY)
    correction = IdentityCorrection(DlibResNet.load(default_weights()), *nothing).eval()
    embedder, upright = Embedder.load(embedder_weights()).eval(), served_alignment("embedding_crop")
    rows = []
    for _ in tqdm(range(a.count), desc="heads", mininterval=5):
        index = int(renderer.rng.choice(len(renderer.files), p=renderer.weight))
        identity = renderer.identity(index)
        views = [renderer.view(index, identity, np.radians(yaw)) for yaw in YAWS]
        pictures, points = (np.stack(column) for column in zip(*views, strict=True))
        inner = np.ascontiguousarray(pictures[:, MARGIN:-MARGIN, MARGIN:-MARGIN].transpose(0, 3, 1, 2))
        crops, five = torch.from_numpy(inner).float(), torch.from_numpy((points - MARGIN).astype(np.float32))
        aligned = [
            upright.cut_upright(picture, upright.similarity(point)).transpose(2, 0, 1)
            for picture, point in zip(pictures, points, strict=True)
        ]
        with autocast(crops.device):
            features = correction.network.features(correction.chip(crops, five)).float().numpy()
            embeddings = embedder(torch.from_numpy(np.stack(aligned)))[0].float().numpy()
        seen = torch.nn.functional.interpolate(crops, size=(a.resolution,) * 2, mode="area").round().byte().numpy()
        true = (renderer.to_modes @ identity).astype(np.float32)
        rows.append((true, seen, features, embeddings, renderer.files[index]))
    np.savez(a.out, **dict(zip(Drawn._fields, map(np.array, zip(*rows, strict=True)), strict=True)))


class Drawn(NamedTuple):
    """What is known of n heads, each drawn in three views.

    Attributes:
        identity: (n, 80) true.
        seen: uint8 (n, 3, 3, S, S) RGB, the crops at the side at which the regressor sees them.
        features: (n, 3, 256) dlib's.
        embeddings: (n, 3, 128) the served embedder's, for `training.person_correction`.
        files: (n,) names of the photographs.
    """

    identity: F32
    seen: U8
    features: F32
    embeddings: F32
    files: npt.NDArray[np.str_]

    @classmethod
    def read(cls, paths: list[Path]) -> Drawn:
        """Read what `heads` wrote into several files."""
        parts = [np.load(path, allow_pickle=False) for path in paths]
        return cls(*(np.concatenate([part[name] for part in parts]) for name in cls._fields))


@torch.no_grad()
def codes(regressor: Path, seen: U8) -> F32:
    """Compute what a regressor says of drawn heads: identities (n, 3, 80), not corrected.

    Args:
        regressor: its weights.
        seen: see `Drawn`.
    """
    look, found = Features(regressor, seen.shape[-1]), []
    for views in tqdm(np.array_split(seen, -(-len(seen) // 16)), desc="identities", mininterval=5):
        pictures = torch.from_numpy(views).flatten(0, 1).float() / 255
        with autocast(pictures.device):
            found.append(look(pictures)[1][:, :IDENTITY].float().numpy())
    return np.asarray(np.concatenate(found).reshape(len(seen), len(YAWS), IDENTITY), np.float32)


def joined(values: F32) -> list[F32]:
    """Join what was found in three views (n, 3, D) in all ways: means (n, D)."""
    shares, subsets = PARTS
    parts = [np.array(shares)[list(subset)] for subset in subsets]
    return [
        np.einsum("v,nvk->nk", part / part.sum(), values[:, list(subset)])
        for part, subset in zip(parts, subsets, strict=True)
    ]


def ridge(values: Float, wanted: Float, weight: float) -> tuple[Float, Float, Float]:
    """Fit ``wanted = (values - middle) @ matrix + offset`` on inputs scaled to unit variance."""
    middle, offset, scale = values.mean(0), wanted.mean(0), values.std(0) + 1e-6
    scaled = (values - middle) / scale
    system = scaled.T @ scaled / len(scaled) + weight * np.eye(scaled.shape[1])
    matrix = np.linalg.solve(system, scaled.T @ (wanted - offset) / len(scaled))
    return middle, matrix / scale[:, None], offset


def folds_of(files: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Deal photographs (n,) out to `FOLDS` folds; all heads of a photograph get into one."""
    return np.asarray(np.unique(files, return_inverse=True)[1] % FOLDS, np.int64)


def best_ridge(
    values: Float, wanted: Float, fold: npt.NDArray[np.int64], root: Float, weights: Sequence[float] = RIDGES
) -> tuple[float, Float]:
    """Choose a ridge's weight by cross-validation; print the errors.

    Args:
        values: (n, D).
        wanted: (n, 80).
        fold: (n,) of each row.
        root: of `metric`.
        weights: to choose from.

    Returns:
        the weight, and what it says of each row (n, 80) when it has learned from the other folds.
    """
    before = np.sqrt(np.square(wanted @ root).sum() / len(wanted))
    errors: dict[float, float] = {}
    said: dict[float, Float] = {}
    for weight in weights:
        said[weight] = np.empty_like(wanted)
        for k in range(FOLDS):
            middle, matrix, offset = ridge(values[fold != k], wanted[fold != k], weight)
            said[weight][fold == k] = (values[fold == k] - middle) @ matrix + offset
        errors[weight] = float(np.sqrt(np.square((wanted - said[weight]) @ root).sum() / len(wanted)))
        print(f"ridge {weight}: {errors[weight]:.3f} mm, {before:.3f} before")
    best = min(errors, key=errors.__getitem__)
    return best, said[best]


def metric(model: HeadModel) -> Float:
    """A root (80, 80) of the squared millimetres that coefficients move the inner face by, size and place aside."""
    tip = model.mean[model.landmarks[30]]
    inner = (np.linalg.norm(model.mean - tip, axis=1) < 0.75) & (model.mean[:, 2] > tip[2] - 1.0)
    points = model.mean[inner].astype(np.float64)
    x, y, z = (points - points.mean(0)).T
    nothing = np.zeros_like(x)
    turns = [[nothing, -z, y], [z, nothing, -x], [-y, x, nothing], [x, y, z]]
    moves = [np.broadcast_to(axis, points.shape).ravel() for axis in np.eye(3)]
    basis = np.linalg.qr(np.stack([*moves, *(np.stack(turn, 1).ravel() for turn in turns)], 1))[0]
    modes = model.identity[:, inner].reshape(80, -1).astype(np.float64) * 100
    modes -= (modes @ basis) @ basis.T
    return np.linalg.cholesky(modes @ modes.T / len(points) + 1e-9 * np.eye(80))


def fit(a: argparse.Namespace) -> None:
    """Fit the map for a regressor and write it beside its weights."""
    drawn = Drawn.read(a.found)
    write_correction(a.regressor, drawn, codes(a.regressor, drawn.seen))


def write_correction(regressor: Path, drawn: Drawn, found: F32) -> None:
    """Fit the map and write it beside the regressor's weights; print the errors of the held-out folds.

    Args:
        regressor: its weights, beside the face model.
        drawn: n heads.
        found: (n, 3, 80) the identities that the regressor gives for them.
    """
    identity, features = drawn.identity, drawn.features
    model = load_face_model(regressor.with_name("face_model.npz"))
    assert isinstance(model, HeadModel)
    root = metric(model)
    means = joined(np.concatenate([found, features], 2))
    values = np.concatenate(means).astype(np.float64)
    wanted = np.tile(identity, (len(means), 1)).astype(np.float64) - values[:, :IDENTITY]
    weight, _ = best_ridge(values, wanted, np.tile(folds_of(drawn.files), len(means)), root)
    about = {
        "regressor": digest(regressor),
        "embedder": digest(default_weights()),
        "face_model": str(model.fingerprint),
        "heads": str(len(identity)),
    }
    save_map(regressor.with_name(FILE), ridge(values, wanted, weight), about)


def save_map(path: Path, fitted: tuple[Float, Float, Float], about: dict[str, str]) -> None:
    """Write what `ridge` found as ``change = values @ matrix + offset``, the matrix in float16.

    Args:
        path: of the safetensors file.
        fitted: middle, matrix and offset.
        about: what it belongs to, for the metadata.
    """
    middle, matrix, offset = fitted
    arrays: dict[str, npt.NDArray[Any]] = {
        "matrix": matrix.astype(np.float16),
        "offset": (offset - middle @ matrix).astype(np.float32),
    }
    save_file(arrays, path, {**about, "licence": "Apache-2.0", "sources": SOURCES})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regressor", type=Path, default=Path("weights/regressor.safetensors"))
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("heads")
    for option, what in (("pictures", "folder with index.csv"), ("labels", "labels.npz of training.label")):
        drawing.add_argument(option, type=Path, help=what)
    drawing.add_argument("heads", type=Path, help="ict_facekit.npz")
    drawing.add_argument("out", type=Path, help="what was found (.npz)")
    drawing.add_argument("--count", type=int, default=400)
    drawing.add_argument("--resolution", type=int, default=112, help="pixels at which the regressor sees its crop")
    drawing.add_argument("--seed", type=int, default=0)
    drawing.add_argument("--teacher-map", type=Path, help="register the photographs to the surface by it")
    fitting = commands.add_parser("fit")
    fitting.add_argument("found", type=Path, nargs="+")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    {"heads": heads, "fit": fit}[options.command](options)
