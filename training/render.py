"""Step 3, render: photographs put on heads of exactly known geometry and rendered at any pose.

For each picture the head model is fitted to the teacher's points; the picture becomes the head's texture by projection;
identity and expression are perturbed, the head is turned, seen by a perspective camera, relit, and cut out the way the
service cuts faces out (five points with noise). Every coefficient behind the pixels is known. 10 to 30 a second a core.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from tqdm import tqdm

from networks.alignment import crop_transform
from training import topology
from training.face_model import ORIGIN_CM
from training.face_model import build as build_face_model
from training.raster import interpolate, rasterise
from training.registration import Registration, Seen

Float = npt.NDArray[np.float64]
MARGIN = 32  # pixels around the 224 px crop, room for augmentation
SIZE = 224 + 2 * MARGIN

# iBUG-68 index -> MediaPipe index for the inner landmarks (the contour of the two is not comparable).
MEDIAPIPE_OF_IBUG = {
    17: 70, 18: 63, 19: 105, 20: 66, 21: 107, 22: 336, 23: 296, 24: 334, 25: 293, 26: 300, 27: 168, 28: 197, 29: 5,
    30: 4, 31: 75, 32: 97, 33: 2, 34: 326, 35: 305, 36: 33, 37: 160, 38: 158, 39: 133, 40: 153, 41: 144, 42: 362,
    43: 385, 44: 387, 45: 263, 46: 373, 47: 380, 48: 61, 49: 39, 50: 37, 51: 0, 52: 267, 53: 269, 54: 291, 55: 405,
    56: 314, 57: 17, 58: 84, 59: 181, 60: 78, 61: 82, 62: 13, 63: 312, 64: 308, 65: 317, 66: 14, 67: 87,
}  # fmt: skip
# Real portraits are taken from 0.5 m (a phone at arm's length) to 2 m; centimetres.
CAMERA_CM = (45.0, 200.0)


def euler(pitch: float, yaw: float, roll: float) -> Float:
    """Return the rotation Rz Ry Rx for column vectors, radians; the transpose of `networks.camera.rotation`'s."""
    cx, sx, cy, sy, cz, sz = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw), np.cos(roll), np.sin(roll)
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx)


def five_points(landmarks: Float) -> Float:
    """Reduce landmarks (68, 2) to (5, 2): eye centres, nose tip, mouth corners, left in the picture first."""
    return np.stack([landmarks[36:42].mean(0), landmarks[42:48].mean(0), landmarks[30], landmarks[48], landmarks[54]])


def five_points_of_teacher(points: Float) -> Float:
    """Reduce MediaPipe's points (478, 2) to the same five points."""
    at = {k: points[v] for k, v in MEDIAPIPE_OF_IBUG.items()}
    left, right = (np.mean([at[k] for k in range(first, first + 6)], 0) for first in (36, 42))
    return np.stack([left, right, at[30], at[48], at[54]])


@dataclass
class Heads:
    """The exact heads with eyes and mouth closed; modes are applied before the closing.

    Attributes:
        neutral: (M, 3) centimetres, y up, z to the camera.
        identity: (100, M, 3) centimetres per sigma.
        expression: (57, M, 3) centimetres at full expression.
        triangles: (F, 3), counter-clockwise seen from outside.
        landmarks: (68,) vertices in iBUG-68 order.
        mirror: (M,) the vertex on the other side of the face.
    """

    neutral: Float
    identity: Float
    expression: Float
    triangles: npt.NDArray[np.int64]
    landmarks: npt.NDArray[np.int64]
    mirror: npt.NDArray[np.int64]

    @classmethod
    def load(cls, path: Path) -> Heads:
        """Read ``ict_facekit.npz``."""
        with np.load(path, allow_pickle=False) as data:
            neutral = data["neutral"].astype(np.float64)
            identity, expression = data["identity"].astype(np.float64), data["expression"].astype(np.float64)
            triangles, landmarks = data["faces_tri"].astype(np.int64), data["landmarks68"].astype(np.int64)
            face = int(data["n_face"])
        holes = topology.boundary_loops(triangles[(triangles < face).all(1)])[:3]
        closed, weights, offset = topology.close_holes(neutral, triangles, holes)
        identity, expression = (np.stack([weights @ mode for mode in modes]) for modes in (identity, expression))
        positions = weights @ neutral + offset
        mirror = cKDTree(positions).query(positions * [-1, 1, 1])[1]
        return cls(positions, identity, expression, closed, landmarks, mirror.astype(np.int64))

    def shape(self, identity: Float, expression: Float) -> Float:
        """Return the shape (M, 3) in centimetres of identity (100,) and expression (57,)."""
        change: Float = np.tensordot(identity, self.identity, 1)
        return self.neutral + change + np.tensordot(expression, self.expression, 1)


@dataclass
class Fit:
    """A head fitted to a picture: ``picture = scale * shape @ turn + shift`` (pixels, y up), orthographic.

    Attributes:
        scale: pixels per centimetre.
        turn: (3, 3), for row vectors.
        shift: (3,) pixels.
        identity: (100,) in sigma.
        expression: (57,) 0..1.
    """

    scale: float
    turn: Float
    shift: Float
    identity: Float
    expression: Float


def fit(heads: Heads, points: Float) -> Fit:
    """Fit pose (Procrustes), identity and expression (ridge) to the teacher's points (478, 3): pixels, y up, z to the
    camera.
    """
    chosen = np.array(list(MEDIAPIPE_OF_IBUG))
    target = points[np.array(list(MEDIAPIPE_OF_IBUG.values()))]
    vertices = heads.landmarks[chosen]
    base, by_identity, by_expression = (
        heads.neutral[vertices],
        heads.identity[:, vertices],
        heads.expression[:, vertices],
    )
    identity, expression = np.zeros(len(by_identity)), np.zeros(len(by_expression))
    # The teacher's depth is poor: it weighs less than its image positions.
    trust = np.array([1.0, 1.0, 0.4])
    system = np.concatenate([(by_identity * trust).reshape(100, -1), (by_expression * trust).reshape(57, -1)]).T
    ridge = np.diag(np.concatenate([np.full(len(identity), 0.08), np.full(len(expression), 0.25)]))
    inverse = np.linalg.solve(system.T @ system + ridge, system.T)
    for _ in range(12):
        shape = base + np.tensordot(identity, by_identity, 1) + np.tensordot(expression, by_expression, 1)
        ms, mt = shape.mean(0), target.mean(0)
        u, s, vt = np.linalg.svd((shape - ms).T @ (target - mt))
        flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
        turn = (u * flip) @ vt
        scale = float((s * flip).sum() / ((shape - ms) ** 2).sum())
        shift = mt - scale * ms @ turn
        residual = ((target - shift) / scale) @ turn.T - base
        solution = inverse @ (residual * trust).reshape(-1)
        identity, expression = solution[:100].clip(-3, 3), solution[100:].clip(0, 1)
    return Fit(scale, turn, shift, identity, expression)


@dataclass
class Source:
    """A picture with its fitted head: per vertex its place in the picture and whether it is seen there.

    Attributes:
        picture: (H, W, 3) BGR.
        fitted: the head behind it.
        places: (M, 2) column and row.
        facing: (M,) cosine between the vertex normal and the view.
        light: (9,) of the picture, see `photographed_light`.
        shade: (M,) what the light does to each vertex, 1 in the mean.
    """

    picture: npt.NDArray[np.uint8]
    fitted: Fit
    places: npt.NDArray[np.float32]
    facing: npt.NDArray[np.float32]
    light: Float
    shade: npt.NDArray[np.float32]


def vertex_normals(vertices: Float, triangles: npt.NDArray[np.integer[Any]]) -> Float:
    """Compute area-weighted unit normals (N, 3)."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, triangles[:, k], face)
    return np.asarray(normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12))


def harmonics(normals: Float) -> Float:
    """Compute spherical harmonics to the second order (..., 9), without constants, of unit normals (..., 3)."""
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    return np.stack([np.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], -1)


SHADES = (0.4, 1.8)  # outside of it a fitted light is not to be believed


def photographed_light(brightness: Float, normals: Float) -> Float:
    """Fit a photograph's light, as harmonics of the normals, such that skin of one colour would be as bright.

    Ridge regression, twice: what is far off after the first time (brows, eyes, beard, hair) is left out of the second.

    Args:
        brightness: (P,) of places of the face.
        normals: (P, 3) unit, in the camera frame.

    Returns:
        (9,), scaled so that the mean shade of the places is 1.
    """
    system = harmonics(normals)
    kept = np.ones(len(system), bool)
    light = np.zeros(9)
    for _ in range(2):
        a, b = system[kept], brightness[kept]
        ridge = np.diag([0.0, *[0.02] * 3, *[0.1] * 5]) * len(a)
        light = np.linalg.solve(a.T @ a + ridge, a.T @ b)
        off = np.abs(system @ light - brightness)
        kept = off <= np.quantile(off, 0.7)
    return np.asarray(light / max(float((system @ light).mean()), 1e-6))


@dataclass
class Surface:
    """What the camera sees of a head, in a crop with its margin: H = W = 288 pixels.

    Attributes:
        where: (H, W, 2) column and row in the photograph that lends the colour.
        colour: (H, W, 3) BGR 0..255, under the new light; anything where there is no head.
        hit: (H, W) whether there is a head.
        facing: (H, W) how squarely the photograph showed the place, as a cosine; 0: it did not.
        label: see ``LABELS``.
    """

    where: npt.NDArray[np.float32]
    colour: npt.NDArray[Any]
    hit: npt.NDArray[np.bool_]
    facing: npt.NDArray[np.float32]
    label: dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Mixture:
    """What the renders that train have beyond those that measure; the defaults are none of it.

    Attributes:
        relit: share of heads whose photographed light is taken out by harmonics and replaced by another, so that the
            shading is that of the new shape.
        own: share of heads with nearly the photographed person's own identity, so that shape and looks belong together.
        turned: share of heads turned by 50 to 90 degrees.
    """

    relit: float = 0.0
    own: float = 0.0
    turned: float = 0.0


class Renderer:
    """Draws random heads from labelled pictures.

    Args:
        pictures, labels, heads, seed: see the command line.
        yaw: standard deviation, degrees; cut at 75.
        calm: share of heads that keep only 0.3 of the photographed expression.
        mixture: what else is varied.
        teacher_map: of `training.teacher_map`; with it photographs are registered to the surface (`Registration`).
    """

    def __init__(
        self,
        pictures: Path,
        labels: Path,
        heads: Path,
        seed: int,
        yaw: float = 40.0,
        calm: float = 1 / 3,
        mixture: Mixture | None = None,
        teacher_map: Path | None = None,
    ) -> None:
        self.yaw, self.calm, self.mixture = yaw, calm, mixture or Mixture()
        # Of its own: heads of one seed keep their poses and shapes, whatever the mixture.
        self.extra = np.random.default_rng((seed, 1))
        self.rng = np.random.default_rng(seed)
        self.heads = Heads.load(heads)
        self.model, self.mesh = build_face_model(heads)
        with np.load(labels, allow_pickle=False) as data:
            good = np.isfinite(data["points"][:, 0, 0])
            self.files, self.points = data["files"][good], data["points"][good].astype(np.float64)
        with (pictures / "index.csv").open(newline="") as handle:
            sharp = {r["file"]: "sfhq" in r["file"] for r in csv.DictReader(handle)}
        self.folder = pictures
        weight = np.array([3.0 if sharp[f] else 1.0 for f in self.files])
        self.weight = weight / weight.sum()
        self.cache: dict[int, Source] = {}
        self.registration = None
        if teacher_map is not None:
            neutral = (self.heads.neutral - ORIGIN_CM) / 10
            photographs = [self.seen(index, self.fitted(index)) for index in range(len(self.files))]
            self.registration = Registration(teacher_map, self.model.mean.astype(np.float64), neutral, photographs)
        tip = self.heads.neutral[self.heads.landmarks[30]]
        self.inner = np.linalg.norm(self.heads.neutral - tip, axis=1) < 9.0
        # 80 modes from 100: least squares of the exact shape on the face model's basis
        basis = self.model.identity.reshape(80, -1).astype(np.float64)
        source = np.stack([(self.mesh.weights @ m).ravel() for m in np.load(heads)["identity"].astype(np.float64)]) / 10
        self.to_modes = np.linalg.lstsq(basis.T, source.T, rcond=None)[0]

    def fitted(self, index: int) -> Fit:
        """Fit a head to picture ``index``."""
        return fit(self.heads, self.points[index] * [1, -1, -1])

    def seen(self, index: int, fitted: Fit) -> Seen:
        """Return where picture ``index`` shows its head, by the fit and by the teacher."""
        shape = self.heads.shape(fitted.identity, fitted.expression)
        placed = fitted.scale * shape @ fitted.turn + fitted.shift
        roll = np.arctan2(fitted.turn[0, 1], fitted.turn[0, 0])
        along = np.array([[np.cos(roll), -np.sin(roll)], [-np.sin(roll), -np.cos(roll)]])
        return Seen(placed[:, :2] * [1, -1], self.points[index, :, :2], along * fitted.scale * 10)

    def source(self, index: int) -> Source:
        """Fit a head to picture ``index``; kept, so that each is fitted once."""
        if index not in self.cache:
            picture = np.asarray(cv2.imread(str(self.folder / self.files[index])), np.uint8)
            fitted = self.fitted(index)
            shape = self.heads.shape(fitted.identity, fitted.expression)
            placed = fitted.scale * shape @ fitted.turn + fitted.shift
            normals = vertex_normals(placed, self.heads.triangles)
            found = self.seen(index, fitted)
            where = found.places if self.registration is None else self.registration.moved(found)
            facing, places = normals[:, 2], where.astype(np.float32)
            grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), (0, 0), 1.5)
            seen = cv2.remap(
                grey,
                places[:, None, 0].copy(),
                places[:, None, 1].copy(),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )[:, 0]
            skin = (facing > 0.3) & self.inner
            light = photographed_light(seen[skin].astype(np.float64), normals[skin])
            shade = np.clip(harmonics(normals) @ light, *SHADES).astype(np.float32)
            self.cache[index] = Source(picture, fitted, places, facing.astype(np.float32), light, shade)
        return self.cache[index]

    def shading(self, source: Source, normals: npt.NDArray[np.float32], turn: Float) -> Float:
        """Shade (H, W) of a relit head: a third keeps the photograph's light, which turns with the head.

        Args:
            source: the photograph.
            normals: (H, W, 3) in the camera frame.
            turn: (3, 3) of the head, for column vectors.
        """
        unit = normals / (np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-6)
        if self.extra.random() < 1 / 3:
            return np.clip(harmonics(unit @ turn @ source.fitted.turn) @ source.light, *SHADES)
        direction = self.extra.normal(0, 1, 3) * [1, 0.6, 0.7] + [0, 0.3, 0.8]
        strength, ambient = self.extra.uniform(0.1, 1.0), self.extra.normal(0, 0.12, 3)
        facing = unit @ (direction / np.linalg.norm(direction))
        # A lamp of some size (wrapped cosine) and a sky that is not the same all round.
        lamp = np.clip((facing + 0.3) / 1.3, 0, None)
        return np.asarray(
            np.clip(1 + strength * (lamp - 0.5) + unit @ ambient, 0.25, 1.9) * self.extra.uniform(0.75, 1.15)
        )

    def draw(self, index: int) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[np.float32]]]:
        """Draw one render: crop (288, 288, 3) uint8 RGB and its labels (see ``LABELS``)."""
        surface = self.surface(index)
        return np.ascontiguousarray(self.pasted(surface.colour, surface.hit)), surface.label

    def surface(self, index: int) -> Surface:
        """Draw a head in the colours of picture ``index``."""
        rng, heads = self.rng, self.heads
        source = self.source(index)
        fitted = source.fitted
        identity = np.clip(0.6 * fitted.identity + rng.normal(0, 0.8, 100), -2.8, 2.8)
        change = np.where(rng.random(57) < 0.1, rng.normal(0, 0.35, 57), 0)
        expression = np.clip(fitted.expression * rng.choice([1.0, 0.3], p=[1 - self.calm, self.calm]) + change, 0, 1)
        yaw = np.radians(np.clip(rng.normal(0, self.yaw), -75, 75))
        pitch, roll = np.radians(np.clip(rng.normal(0, 12), -32, 32)), np.radians(rng.normal(0, 7))
        if self.extra.random() < self.mixture.turned:
            yaw = np.radians(self.extra.choice([-1, 1]) * self.extra.uniform(50, 90))
        if self.extra.random() < self.mixture.own:
            identity = np.clip(fitted.identity + self.extra.normal(0, 0.35, 100), -2.8, 2.8)
        angle = np.array([pitch, yaw, roll])
        camera = float(np.exp(rng.uniform(*np.log(CAMERA_CM))))
        centred = heads.shape(identity, expression) - ORIGIN_CM
        posed = centred @ euler(*angle).T
        # The head need not be on the optical axis, but the crop hides where it was: keep it central.
        seen = posed[:, :2] / (camera - posed[:, 2:]) * camera * [1, -1] * 10 + 400
        points = five_points(seen[heads.landmarks])
        eyes = float(np.linalg.norm(points[0] - points[1])) + 1e-6
        noisy = points + rng.normal(0, 0.035, (5, 2)) * max(eyes, 25.0)
        scale, dx, dy = crop_transform(noisy, 800)
        place = seen * scale + [dx + MARGIN, dy + MARGIN]

        triangles = heads.triangles
        tri, bary, _ = rasterise(place, posed[:, 2], triangles, SIZE, SIZE)
        hit = tri >= 0
        normals = vertex_normals(posed, triangles)
        attributes = np.concatenate(
            [
                source.places,
                source.places[heads.mirror],
                source.facing[:, None],
                source.facing[heads.mirror][:, None],
                normals,
                source.shade[:, None],
                source.shade[heads.mirror][:, None],
            ],
            1,
        )
        field = interpolate(tri, bary, triangles, attributes)
        use_mirror = (field[..., 4] < 0.15) & (field[..., 5] > field[..., 4] + 0.2)
        where = np.where(use_mirror[..., None], field[..., 2:4], field[..., 0:2])
        colour = _sampled(source.picture, where, scale * 10 / fitted.scale)
        relit = self.extra.random() < self.mixture.relit
        if relit:
            before = np.where(use_mirror, field[..., 10], field[..., 9])
            colour *= (self.shading(source, field[..., 6:9], euler(*angle)) / np.maximum(before, SHADES[0]))[..., None]
        if rng.random() < 0.6 and not relit:
            colour *= self._lamp(field[..., 6:9])
        label = {
            "identity": (self.to_modes @ identity).astype(np.float32),
            "expression": np.concatenate([expression, np.zeros(7)]).astype(np.float32),
            "angle": angle.astype(np.float32),
            "camera": np.array([camera / 10, scale * 100, scale * 400 + dx, scale * 400 + dy], np.float32),
        }
        facing = np.where(use_mirror, field[..., 5], field[..., 4])
        return Surface(where.astype(np.float32), colour, hit, facing.clip(0).astype(np.float32), label)

    def _lamp(self, normals: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Compute the factors (H, W, 3) of one tinted lamp from somewhere in front, for normals (H, W, 3)."""
        rng = self.rng
        light = rng.normal(0, 1, 3) * [1, 0.6, 0.7] + [0, 0.3, 1]
        light /= np.linalg.norm(light)
        strength = rng.uniform(0.15, 0.7)
        tint = 1 + rng.normal(0, 0.05, 3)
        shade = 1 - strength / 2 + strength * np.clip(normals @ light, -0.6, 1)
        return np.asarray(shade[..., None] * tint)

    def pasted(self, colour: npt.NDArray[Any], hit: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
        """Paste the head (H, W, 3) BGR on a blurred picture with a soft edge; return RGB."""
        rng = self.rng
        other = cv2.imread(str(self.folder / self.files[rng.integers(len(self.files))]))
        background = cv2.GaussianBlur(cv2.resize(other, (SIZE, SIZE)), (0, 0), rng.uniform(0.5, 10)).astype(np.float32)
        # A soft edge hides the cut-out look of a rendered silhouette.
        mask = cv2.GaussianBlur(hit.astype(np.float32), (0, 0), rng.uniform(0.4, 1.5))[..., None]
        crop = np.where(hit[..., None], colour, background)
        pasted = np.clip(crop * mask + background * (1 - mask), 0, 255).astype(np.uint8)
        return np.asarray(pasted[..., ::-1])


def _sampled(picture: npt.NDArray[Any], where: npt.NDArray[Any], shrink: float) -> npt.NDArray[np.float32]:
    """Return colours (H, W, 3) at places (H, W, 2) x, y; ``shrink``: pixels of the result for one of the picture."""
    if shrink < 0.6:  # the result is coarser than the picture: blur before sampling
        picture = cv2.GaussianBlur(picture, (0, 0), 0.4 / shrink)
    columns, rows = where[..., 0].copy(), where[..., 1].copy()
    return cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT).astype(np.float32)


# identity (80,), expression (64,), angle (3,) radians, camera (4,): distance in dm, pixels per decimetre at the origin,
# and column and row of the origin in the 224 px crop (without the margin).
LABELS = {"identity": 80, "expression": 64, "angle": 3, "camera": 4}


def render(renderer: Renderer, count: int, output: Path) -> None:
    """Write ``count`` renders: OUTPUT.npy (count, 288, 288, 3) uint8 and OUTPUT.labels.npz."""
    output.parent.mkdir(parents=True, exist_ok=True)
    crops = np.lib.format.open_memmap(output.with_suffix(".npy"), "w+", np.uint8, (count, SIZE, SIZE, 3))
    labels = {k: np.zeros((count, n), np.float32) for k, n in LABELS.items()}
    chosen = renderer.rng.choice(len(renderer.files), count, p=renderer.weight)
    for k in tqdm(range(count), desc=f"render {output.name}", mininterval=5):
        crops[k], label = renderer.draw(int(chosen[k]))
        for key, value in label.items():
            labels[key][k] = value
    crops.flush()
    np.savez(output.with_suffix(".labels.npz"), files=renderer.files[chosen], **labels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder with index.csv")
    parser.add_argument("labels", type=Path, help="labels.npz of training.label")
    parser.add_argument("heads", type=Path, help="ict_facekit.npz")
    parser.add_argument("output", type=Path, help="output stem; STEM-SEED-SHARD.npy and .labels.npz are written")
    parser.add_argument("--count", type=int, default=1000, help="renders a shard")
    parser.add_argument("--shards", type=int, default=20, help="files to write; training may start on the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--yaw", type=float, default=40.0, help="standard deviation of the yaw, degrees")
    parser.add_argument("--calm", type=float, default=1 / 3, help="share of heads with little expression")
    parser.add_argument("--relit", type=float, default=0.0, help="share of heads in another light than photographed")
    parser.add_argument("--own", type=float, default=0.0, help="share of heads with the photographed person's shape")
    parser.add_argument("--turned", type=float, default=0.0, help="share of heads turned by 50 to 90 degrees")
    parser.add_argument("--teacher-map", type=Path, help="register the photographs to the surface by it")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    drawer = Renderer(
        arguments.pictures,
        arguments.labels,
        arguments.heads,
        arguments.seed,
        arguments.yaw,
        arguments.calm,
        Mixture(arguments.relit, arguments.own, arguments.turned),
        arguments.teacher_map,
    )
    stem: Path = arguments.output
    for shard in range(arguments.shards):
        render(drawer, arguments.count, stem.with_name(f"{stem.name}-{arguments.seed}-{shard:03d}"))
