"""Measure what several photographs of one person give over one, on exact heads seen from several sides.

    python -m training.evaluate_person PICTURES LABELS.npz ict_facekit.npz --count 40

Each head has an identity of its own, as those of `training.render`, and is drawn at every yaw with another expression
and in another light. Detector, alignment and regressor look at each picture as the service does; the served modules of
`merge` weigh and join. Errors are millimetres from the true neutral face to the predicted one, as those of
`training.evaluate`, over the inner and over the narrow face, beside the mean face's and beside what the network gives
for the first picture without its correction (`networks.identity_correction`). The texture's cover is the share of the
face's skin that a picture shows, which only heads without painted hair tell (``--skin``).
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import trimesh
from scipy.spatial import cKDTree
from tqdm import tqdm

from export.samples import Sample, sample_of, served_alignment
from export.stages.topology import face_alone
from networks.embedder.embedder import Embedder, default_weights
from networks.head_model import HeadModel
from networks.parser import PARTS, PARTS_SIDE, SKIN
from training.crops import Finder
from training.evaluate import (
    SERVED_THRESHOLD,
    Evaluator,
    Places,
    decoded,
    face_model_1,
    narrow_face,
    shape_error,
)
from training.face_model import ORIGIN_CM
from training.raster import interpolate, rasterise
from training.render import Heads, Renderer, _sampled, euler, vertex_normals

Float = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
SIDE, PIXELS_PER_CM = 640, 20.0
CAMERA_CM = 120.0  # distance of the camera: a portrait's
SLACK_CM = 0.4  # so far behind what the camera sees in a pixel, a place is seen too: faces of the mesh are as large
MERGE = Path(__file__).resolve().parents[1] / "model_repository" / "merge"


class View(NamedTuple):
    """A head in one picture: uint8 (SIDE, SIDE, 3) RGB, and the angles (3,) in radians that it was turned by."""

    picture: U8
    angle: Float


def _placed(points: Float) -> Float:
    """Project points (P, 3) cm in the camera frame: columns and rows (P, 2)."""
    return points[:, :2] / (CAMERA_CM - points[:, 2:]) * CAMERA_CM * PIXELS_PER_CM * [1, -1] + SIDE / 2


class Person(NamedTuple):
    """An exact head: identity (80,), and how it looks from several sides."""

    identity: npt.NDArray[np.float32]
    views: list[View]


class Skins:
    """The photographs' heads as skin all round: without hair, and whole where nothing was seen.

    A head in these has no hair that could be taken for skin, so that what is left out of its texture is a loss.

    Args:
        evaluator: makes the textures.
        find: finds faces.
        heads: the exact heads that are painted.
    """

    # As near to eyes and lips the photograph itself is drawn, centimetres: the exact heads' sockets are closed.
    OWN_CM = (0.8, 1.6)

    def __init__(self, evaluator: Evaluator, find: Finder, heads: Heads) -> None:
        assert isinstance(evaluator.model, HeadModel)
        self.evaluator, self.find = evaluator, find
        # Of each vertex of the heads: column and row in the texture, 0..1, and the photograph's share.
        uv = _uv_of(evaluator.model, (heads.neutral - ORIGIN_CM) / 10)
        away = cKDTree(heads.neutral[heads.landmarks[36:]]).query(heads.neutral)[0]
        near, far = self.OWN_CM
        share = np.clip((far - away) / (far - near), 0, 1)
        self.vertices = np.stack([uv[:, 0], 1 - uv[:, 1], share], 1)
        self._made: dict[int, U8 | None] = {}

    def texture(self, index: int, picture: U8) -> U8 | None:
        """The whole texture (S, S, 3) BGR of photograph ``index``, (H, W, 3) BGR; None where no face is found."""
        if index not in self._made:
            self._made[index] = self._texture(picture)
        return self._made[index]

    @torch.no_grad()
    def _texture(self, picture: U8) -> U8 | None:
        found = read(self.evaluator, self.find, np.ascontiguousarray(picture[..., ::-1]))
        if found is None:
            return None
        sample, evaluator = found.sample, self.evaluator
        parts = evaluator.parser(torch.from_numpy(sample.crop), evaluator.regressor.fingerprint)
        values = [torch.from_numpy(array) for array in (sample.crop_hd, found.shapes[None], sample.context)]
        texture = evaluator.texture(*values, parts)[0][0].permute(1, 2, 0).numpy()
        return np.ascontiguousarray(texture[..., ::-1])


def _uv_of(model: HeadModel, points: Float) -> Float:
    """Texture coordinates (P, 2) of the mean head's skin nearest to points (P, 3), decimetres."""
    places = model.triangles("face", "head_and_neck")
    corners = model.mean.astype(np.float64)[model.vertex[places]]
    near = cKDTree(corners.mean(1)).query(points, k=8)[1]
    found = trimesh.triangles.closest_point(corners[near.ravel()], np.repeat(points, 8, 0)).reshape(*near.shape, 3)
    best = np.linalg.norm(found - points[:, None], axis=2).argmin(1)
    rows = np.arange(len(points))
    triangle = near[rows, best]
    weights = trimesh.triangles.points_to_barycentric(corners[triangle], found[rows, best])
    return np.asarray((model.uv[places[triangle]] * weights[..., None]).sum(1), np.float64)


class ViewsRenderer(Renderer):
    """Draws each head from several sides, in its photograph's colours or, with ``skins``, as skin all round."""

    skins: Skins | None = None

    def person(self, index: int, yaws: list[float]) -> Person:
        """Draw the head of picture ``index``, perturbed, at yaws in degrees."""
        identity = np.clip(0.6 * self.source(index).fitted.identity + self.rng.normal(0, 0.8, 100), -2.8, 2.8)
        views = [self.view(index, identity, float(np.radians(yaw))) for yaw in yaws]
        return Person((self.to_modes @ identity).astype(np.float32), views)

    def view(self, index: int, identity: Float, yaw: float) -> View:
        """Draw one picture of an identity (100,): a calm expression, and a lamp from somewhere."""
        rng, heads, source = self.rng, self.heads, self.source(index)
        change = np.where(rng.random(57) < 0.1, rng.normal(0, 0.25, 57), 0)
        expression = np.clip(0.5 * source.fitted.expression + change, 0, 1)
        angle = np.array(
            [np.radians(rng.normal(0, 5)), yaw + np.radians(rng.normal(0, 3)), np.radians(rng.normal(0, 4))]
        )
        posed = (heads.shape(identity, expression) - ORIGIN_CM) @ euler(*angle).T
        triangles = heads.triangles
        tri, bary, _ = rasterise(_placed(posed), posed[:, 2], triangles, SIDE, SIDE)
        mirror = heads.mirror
        values = [source.places, source.places[mirror], source.facing[:, None], source.facing[mirror][:, None]]
        field = interpolate(tri, bary, triangles, np.concatenate([*values, vertex_normals(posed, triangles)], 1))
        mirrored = (field[..., 4] < 0.15) & (field[..., 5] > field[..., 4] + 0.2)
        where = np.where(mirrored[..., None], field[..., 2:4], field[..., 0:2])
        colour = _sampled(source.picture, where, PIXELS_PER_CM / source.fitted.scale)
        if self.skins is not None and (skin := self.skins.texture(index, source.picture)) is not None:
            own = interpolate(tri, bary, triangles, self.skins.vertices)
            painted = _sampled(skin, own[..., :2] * len(skin), 1.0)
            colour = painted + (colour - painted) * own[..., 2:]
        return View(self._before(colour * self._lamp(field[..., 6:9]), tri >= 0), angle)

    def _before(self, colour: npt.NDArray[Any], hit: npt.NDArray[np.bool_]) -> U8:
        """Paste the head (H, W, 3) BGR on grey with a soft edge; return RGB."""
        mask = cv2.GaussianBlur(hit.astype(np.float32), (0, 0), 1.0)[..., None]
        pasted = np.where(hit[..., None], colour, 120.0) * mask + 120.0 * (1 - mask)
        return np.ascontiguousarray(np.clip(pasted, 0, 255).astype(np.uint8)[..., ::-1])


def served(module: str) -> ModuleType:
    """Import a module of the served `merge`, from its newest version folder."""
    newest = max((path for path in MERGE.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    if str(newest) not in sys.path:  # as in the Python stub: the module imports others of its folder
        sys.path.append(str(newest))
    return importlib.import_module(module)


class Reading(NamedTuple):
    """What is read in a picture: sample, shapes (3, N, 3) dm, coefficients (257,), quality (4,), certainty in 1/mm, the
    identity (80,) without its correction, and the embedding (D,).
    """

    sample: Sample
    shapes: npt.NDArray[np.float32]
    coefficients: npt.NDArray[np.float32]
    quality: npt.NDArray[np.float32]
    certainty: float
    uncorrected: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]


@torch.no_grad()
def read(evaluator: Evaluator, find: Finder, picture: U8) -> Reading | None:
    """Find, cut out and regress the face of a picture; None where there is none."""
    sample = sample_of("view", picture, find, SERVED_THRESHOLD)
    if sample is None:
        return None
    shapes, coefficients = evaluator.shapes(sample)
    upright, face = served_alignment("embedding_crop"), sample.context[0, :15]
    whole = upright.similarity(face[5:].reshape(5, 2))
    yaw = float(np.degrees(coefficients[225]))
    aligned = np.ascontiguousarray(sample.aligned[0].transpose(1, 2, 0))
    quality = upright.quality(face, whole, (float(picture.shape[1]), float(picture.shape[0])), yaw, aligned)
    plain, certainty = evaluator.regressor.regress(evaluator.regressor.picture(torch.from_numpy(sample.crop)))
    embedding = embedder()(torch.from_numpy(sample.aligned))[0][0].numpy()
    identity = plain[0, :80].numpy()
    return Reading(sample, shapes[0].numpy(), coefficients, quality, float(certainty[0, 0]), identity, embedding)


def joined(readings: list[Reading]) -> Any:
    """Join the readings of one person by the served modules: `identities.Person`."""
    identities = served("identities")
    coefficients = np.stack([reading.coefficients for reading in readings])
    score = np.array([reading.sample.context[0, 4] for reading in readings], np.float32)
    certainty = np.array([reading.certainty for reading in readings], np.float32)
    weights = identities.weigh(coefficients, np.stack([reading.quality for reading in readings]), score, certainty)
    shapes, vectors = (np.stack([getattr(one, name) for one in readings]) for name in ("shapes", "embedding"))
    fingerprints = np.full((len(readings), 1), int(embedder().fingerprint))
    table = correction()
    lacking = table and table.lacking(coefficients, weights, vectors, fingerprints, certainty)
    return identities.join(shapes, coefficients, weights, chart().landmarks, lacking)


@functools.cache
def embedder() -> Embedder:
    """Load the embedder that is served."""
    return Embedder.load(default_weights()).eval()


@functools.cache
def correction() -> Any:
    """Read what the served `merge` knows of several photographs: its `PersonCorrection`, or None."""
    module = served("person_correction")
    return module.PersonCorrection.from_file(Path(str(module.__file__)).with_name("chart.npz"))


@functools.cache
def chart() -> Any:
    """Read what the served `merge` knows of the face model."""
    module = served("chart")
    return module.Chart.from_file(Path(str(module.__file__)).with_name("chart.npz"))


class Skin(NamedTuple):
    """Faces of the mesh that are the skin of the face alone.

    Attributes:
        row: (Q,) of their middles in the texture.
        column: (Q,) likewise.
        area: (Q,) 1 together.
        corners: (Q, 4) vertices of the mesh.
    """

    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    area: Float
    corners: npt.NDArray[np.int64]

    @classmethod
    def of(cls, model: HeadModel, side: int) -> Skin:
        """Find them in a texture of ``side`` texels, row 0 at v = 1; sockets are left out."""
        outer = np.isin(model.part, [model.part_names.index(name) for name in ("face", "head_and_neck")])
        faces = model.faces[face_alone(model) & outer]
        corners = np.where(faces < 0, faces[:, :1], faces)
        vertices = model.vertex[corners].astype(np.int64)
        a, b, c, d = model.mean[vertices].astype(np.float64).transpose(1, 0, 2)
        area = np.linalg.norm(np.cross(c - a, d - b), axis=1) / 2
        u, v = model.uv[corners].mean(1).T
        return cls(((1 - v) * side).astype(np.int64), (u * side).astype(np.int64), area / area.sum(), vertices)


def within_sight(model: HeadModel, person: Person, skin: Skin) -> float:
    """Compute the share of the skin that any camera could have seen: what no texture of these pictures exceeds.

    A face of the mesh counts where it faces a camera, at however flat an angle, and nothing of the head lies before it.
    The exact head is taken without its expression.
    """
    head = (model.mean + np.tensordot(person.identity, model.identity, 1)).astype(np.float64) * 10
    triangles = model.vertex[model.triangles("face", "head_and_neck")]
    a, b, c, d = head[skin.corners].transpose(1, 0, 2)
    middles, normals = (a + b + c + d) / 4, np.cross(c - a, d - b)
    seen = np.zeros(len(middles), bool)
    for view in person.views:
        turn = euler(*view.angle).T
        posed, there = head @ turn, middles @ turn
        nearest = rasterise(_placed(posed), posed[:, 2], triangles, SIDE, SIDE)[2]
        column, row = _placed(there).round().astype(np.int64).clip(0, SIDE - 1).T
        faces_camera = ((normals @ turn) * ([0, 0, CAMERA_CM] - there)).sum(1) > 0
        seen |= faces_camera & (there[:, 2] > nearest[row, column] - SLACK_CM)
    return float(skin.area @ seen)


@torch.no_grad()
def cover(evaluator: Evaluator, readings: list[Reading], skin: Skin) -> tuple[float, float]:
    """Compute the share of the face's skin that the first picture shows, and that the merged texture has of all.

    All of a drawn head counts as skin: the parser, which would leave out hair, is not asked.
    """
    parts = torch.zeros(1, len(PARTS), PARTS_SIDE, PARTS_SIDE, dtype=torch.uint8)
    parts[:, SKIN] = 255
    grazing, textures = served("grazing"), served("textures")
    single, wider = [], []
    for reading in readings:
        crop, context = reading.sample.crop_hd, reading.sample.context
        values = [torch.from_numpy(value) for value in (crop, reading.shapes[None], context)]
        texture, visible, _ = (output[0].numpy() for output in evaluator.texture(*values, parts))
        facing, cameras = chart().facing(reading.shapes[0]), context[0, 15:23]
        photograph = grazing.Photograph(reading.shapes[0], crop[0], cameras, parts[0].numpy())
        single.append(visible)
        wider.append((*grazing.with_grazing(chart(), photograph, facing, texture, visible), facing))
    colours, visibility, facings = (np.stack(column) for column in zip(*wider, strict=True))
    detail = np.ones(len(readings), np.float32)
    merged = textures.merge_textures(colours, visibility, facings, detail, chart().core, 0)
    one, whole = (visible[0, skin.row, skin.column] >= 128 for visible in (single[0], merged.visibility))
    return float(skin.area @ one), float(skin.area @ whole)


def measure(arguments: argparse.Namespace) -> None:
    """Print errors and cover."""
    evaluator = Evaluator(arguments.weights, arguments.weights / "teacher_map.npz")
    assert isinstance(evaluator.model, HeadModel)
    judge, skin = face_model_1(evaluator.model, arguments.heads), Skin.of(evaluator.model, 1024)
    renderer, find = ViewsRenderer(arguments.pictures, arguments.labels, arguments.heads, arguments.seed), Finder()
    renderer.skins = Skins(evaluator, find, renderer.heads) if arguments.skin else None
    chosen = renderer.rng.permutation(len(renderer.files))[: arguments.count]
    narrow = Places.find(judge, narrow_face(arguments.heads))
    nothing, mean = np.zeros(64), judge.mean.astype(np.float64)
    errors: list[list[list[float]]] = []
    covers: list[tuple[float, float, float]] = []
    found = []
    for index in tqdm(chosen, desc="people", mininterval=5):
        person = renderer.person(int(index), arguments.yaws)
        readings = [reading for view in person.views if (reading := read(evaluator, find, view.picture)) is not None]
        if len(readings) < len(arguments.yaws):
            continue
        truth, _ = decoded(judge, person.identity.astype(np.float64), nothing)
        codes = [
            readings[0].uncorrected,
            *(reading.coefficients[:80] for reading in readings),
            joined(readings).coefficients[0, :80],
        ]
        guesses = [decoded(judge, code.astype(np.float64), nothing)[0] for code in codes]
        errors.append(
            [[shape_error(guess, judge, truth, where) for guess in (*guesses, mean)] for where in (None, narrow)]
        )
        found.append([person.identity, *codes])
        if len(covers) < arguments.covers:
            covers.append((*cover(evaluator, readings, skin), within_sight(evaluator.model, person, skin)))
    if arguments.codes:
        np.savez(arguments.codes, codes=np.array(found), errors=np.array(errors))
    show(np.array(errors), np.array(covers), arguments.yaws)


def show(errors: Float, covers: Float, yaws: list[float]) -> None:
    """Print means.

    Args:
        errors: (n, 2, K + 3) mm over the inner and over the narrow face: of the first picture without correction, of
            the K pictures, of all together, of the mean face.
        covers: (n, 3) shares of the skin: one picture's, all pictures', and what any of them could show.
        yaws: K, degrees.
    """
    print(f"{len(errors)} heads, {len(yaws)} pictures each; error of the neutral face, mm")
    names = (f"yaw {yaws[0]:.0f}, without correction", *(f"yaw {yaw:.0f}" for yaw in yaws), "all together")
    for where, part in zip(("the inner face", "the narrow face"), errors.transpose(1, 0, 2), strict=True):
        *found, mean = part.mean(0)
        print(f"  {where} (the mean face: {mean:.3f})")
        for name, error in zip(names, found, strict=True):
            print(f"    {name:26s}: {error:.3f} ({1 - error / mean:.1%} below the mean face, "
                  f"{1 - error / found[0]:.1%} below the first picture without correction)")  # fmt: skip
    if len(covers):
        one, whole, possible = covers.mean(0)
        print(
            f"  skin of the face shown: {one:.1%} by the first picture, {whole:.1%} by all "
            f"(lowest {covers[:, 1].min():.1%}) of {possible:.1%} that any camera could have seen"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder with index.csv")
    parser.add_argument("labels", type=Path, help="labels.npz of training.label")
    parser.add_argument("heads", type=Path, help="ict_facekit.npz")
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--covers", type=int, default=10, help="heads whose texture is judged")
    parser.add_argument(
        "--yaws", type=float, nargs="+", default=[0.0, -40.0, 40.0], help="degrees, the first alone too"
    )
    parser.add_argument("--skin", action="store_true", help="draw heads as skin all round, without the painted hair")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--codes", type=Path, help="also write the true and the found codes there (.npz)")
    cv2.setNumThreads(1)
    measure(parser.parse_args())
