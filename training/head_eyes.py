"""Eyeballs: where they turn, that they look where the lids say, and that lids neither cut nor hover.

The source's eyeballs stand still while its lids move, and its lids slide on straight lines, so that half-closed they
lie inside of the eyeball. Here an eyeball follows its lids from person to person, turns with the eyeLook shapes, and
gives way a little where lids pass over it: a linear model cannot bend the lids' way. All lengths are centimetres of the
source's frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import trimesh
from trimesh.ray.ray_pyembree import RayMeshIntersector

Float = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]

SIDES = ("eye_left", "eye_right")
# How far an eyeball turns at full weight, degrees: the range that people use before they turn their heads.
LOOK_DEGREES = {"eyeLookUp": 22.0, "eyeLookDown": 26.0, "eyeLookIn": 27.0, "eyeLookOut": 27.0}

# Lid triangles: of the face, with their middle this near to the eyeball's centre and in front of it.
_LIDS_REACH_CM = 2.6
# Places on a lid triangle that are measured.
_SAMPLES = np.array(
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3]]
)
# Cosine between a lid's normal and the direction from the eyeball's centre above which the lid is outer skin, which
# the eyeball must not come through. The inner face of a lid and its margin rest on the eyeball and may dip into it.
OUTER = 0.2
# Lids up to the second are near the eyeball, up to the first they touch it: these should do so in everybody.
_TOUCHING_CM, _NEAR_CM = 0.02, 0.25
# The neutral eyeball keeps this from its lids.
_REST_CM = 0.01
_AZIMUTHS, _TILTS = 73, 61  # of the table of radii
# What an eyeball may come through a lid by in the model's own shapes; the test allows a little more.
_ALLOWED_CM = 0.015
_STEPS = 24
# The source lays its eyeballs out by the angle from the pole, 200 degrees a unit; half of the disk for what lids hide.
_DEGREES_PER_UV, _EYE_EDGE_DEGREES = 200.0, 100.0
_EYE_SPREAD_DEGREES = 50.0
# An iris is 11.7 mm wide; on the source's large eyeballs that is this angle from the pole.
_IRIS_DEGREES = 21.5
# How firmly an eyeball stays round: what a linear map has besides a scaling counts this much (centimetres).
_ROUND = 0.05
_NOT_A_SCALING = np.eye(9) - np.outer(np.eye(3).ravel(), np.eye(3).ravel()) / 3
WEIGHTS = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Eye:
    """One eyeball and the lids over it.

    Attributes:
        vertices: of the eyeball.
        triangles: (T, 3) of the eyeball, numbered within ``vertices``.
        lids: (L, 3) vertices of lid triangles.
        poles: front and back pole.
        share: of the way from back to front pole at which it turns.
        outer: (7 L,) whether a place of `Gaps` is outer skin in the neutral shape.
    """

    vertices: Int
    triangles: Int
    lids: Int
    poles: Int
    share: float
    outer: npt.NDArray[np.bool_]

    def centre(self, points: Float) -> Float:
        """(3,) where the eyeball of a shape (N, 3) turns."""
        front, back = points[self.poles]
        return np.asarray(back + self.share * (front - back))

    def radius(self, points: Float, rays: Float) -> tuple[Float, Int]:
        """Distance (R,) from the centre to the surface along unit rays (R, 3), and the triangle there (R,)."""
        centre = self.centre(points)
        shell = trimesh.Trimesh(points[self.vertices] - centre, self.triangles, process=False)
        places, hit, under = RayMeshIntersector(shell).intersects_location(
            np.zeros_like(rays), rays, multiple_hits=False
        )
        radius, triangle = np.full(len(rays), np.inf), np.zeros(len(rays), np.int64)
        radius[hit], triangle[hit] = np.linalg.norm(places, axis=1), under
        return radius, triangle

    def gaps(self, points: Float) -> Gaps:
        """What lies between lids and eyeball in a shape (N, 3)."""
        centre = self.centre(points)
        corners = points[self.lids]
        arms = np.einsum("sk,lkc->lsc", _SAMPLES, corners).reshape(-1, 3) - centre
        distance = np.linalg.norm(arms, axis=1)
        rays = arms / distance[:, None]
        radius, triangle = self.radius(points, rays)
        return Gaps(distance - radius, self.outer, rays, triangle, arms)


@dataclass(frozen=True)
class Gaps:
    """Measured at seven places of each lid triangle, in the order of the triangles.

    Attributes:
        length: (G,) from the eyeball's surface out to the lid, along the line from its centre; negative: cut.
        outer: (G,) whether the place lies on outer skin (in the neutral shape).
        rays: (G, 3) unit directions from the eyeball's centre.
        triangle: (G,) triangle of the eyeball underneath.
        arms: (G, 3) from the eyeball's centre to the lid.
    """

    length: Float
    outer: npt.NDArray[np.bool_]
    rays: Float
    triangle: Int
    arms: Float

    @property
    def cut(self) -> float:
        """How far the eyeball comes through outer skin at most; negative: nowhere."""
        return float(-self.length[self.outer].min())


def find(points: Float, shells: tuple[Int, Int], face: Int) -> tuple[Eye, Eye]:
    """The two eyes of a neutral shape.

    Args:
        points: (N, 3) centimetres.
        shells: triangles (T, 3) of the left and the right eyeball.
        face: (F, 3) triangles of the face.
    """
    eyes = []
    for triangles in shells:
        vertices = np.unique(triangles)
        front, back, share = _poles(points, vertices, triangles)
        centre = points[back] + share * (points[front] - points[back])
        middle = points[face].mean(1) - centre
        near = (np.linalg.norm(middle, axis=1) < _LIDS_REACH_CM) & (middle[:, 2] > 0)
        poles = np.array([front, back])
        outer = _outer(points[face[near]], centre)
        eyes.append(Eye(vertices, np.searchsorted(vertices, triangles), face[near], poles, share, outer))
    return eyes[0], eyes[1]


def _outer(lids: Float, centre: Float) -> npt.NDArray[np.bool_]:
    """(7 L,) whether each place of the lids' triangles (L, 3, 3) looks away from an eyeball's centre."""
    normals = np.cross(lids[:, 1] - lids[:, 0], lids[:, 2] - lids[:, 0])
    arms = np.einsum("sk,lkc->lsc", _SAMPLES, lids) - centre
    cosine = np.einsum("lc,lsc->ls", normals, arms)
    cosine /= np.linalg.norm(normals, axis=1)[:, None] * np.linalg.norm(arms, axis=2)
    return np.asarray((cosine > OUTER).ravel())


def _poles(points: Float, vertices: Int, triangles: Int) -> tuple[int, int, float]:
    """Front and back pole, the two vertices with the most triangles, and the share of the way where the centre lies.

    The centre is that of the sphere fitted to the half behind. A share along a line keeps its meaning when the eyeball
    is moved, scaled or stretched.
    """
    uses = np.bincount(triangles.ravel())
    front, back = sorted(np.argsort(uses)[-2:], key=lambda v: -points[v, 2])
    behind = points[vertices]
    behind = behind[behind[:, 2] < np.median(behind[:, 2])]
    system = np.concatenate([2 * behind, np.ones((len(behind), 1))], 1)
    centre = np.linalg.lstsq(system, (behind**2).sum(1), rcond=None)[0][:3]
    line = points[front] - points[back]
    return int(front), int(back), float((centre - points[back]) @ line / (line @ line))


def rest(eye: Eye, neutral: Float) -> None:
    """Move the eyeball of the neutral shape back until it just does not touch its lids; changes ``neutral``."""
    front, back = neutral[eye.poles]
    axis = (front - back) / np.linalg.norm(front - back)
    for _ in range(_STEPS):
        missing = eye.gaps(neutral).cut + _REST_CM
        if missing <= 1e-5:
            break
        neutral[eye.vertices] -= missing * axis


def follow_lids(eye: Eye, neutral: Float, identity: F32) -> None:
    """Let an eyeball follow its lids from person to person: changes its vertices in ``identity`` (K, N, 3).

    Each mode moves, scales and hardly stretches the eyeball so that, to first order, the lids that touch it stay as far
    from it as they are in the mean head.
    """
    gaps = eye.gaps(neutral)
    near = gaps.outer & (gaps.length < _NEAR_CM)
    sample = np.flatnonzero(near)
    lid, place = eye.lids[sample // len(_SAMPLES)], _SAMPLES[sample % len(_SAMPLES)]
    rays, under = gaps.rays[near], eye.vertices[eye.triangles[gaps.triangle[near]]]
    weight = np.exp(-gaps.length[near] / _TOUCHING_CM)
    weight = np.sqrt(weight / weight.mean())
    # Unknown: a translation, and a linear map of the shell about its centre that hardly differs from a scaling.
    linear = np.einsum("gi,gj->gij", rays, gaps.arms[near]).reshape(len(rays), 9)
    system = np.concatenate([rays, linear], 1) * weight[:, None]
    ridge = np.concatenate([np.zeros((9, 3)), _ROUND * np.sqrt(len(rays)) * _NOT_A_SCALING], 1)
    shell = neutral[eye.vertices] - eye.centre(neutral)
    for mode in identity:
        moved = (np.einsum("gk,gkc->gc", place, mode[lid]) * rays).sum(1)
        followed = (mode[under].mean(1) * rays).sum(1)
        target = np.concatenate([(moved - followed) * weight, np.zeros(9)])
        step = np.linalg.lstsq(np.concatenate([system, ridge]), target, rcond=None)[0]
        mode[eye.vertices] += step[:3] + shell @ step[3:].reshape(3, 3).T


def radius_table(eye: Eye, neutral: Float) -> Float:
    """(A, T) radius of the left eyeball in distances of its poles; see `networks.head_eyes`."""
    front, back = neutral[eye.poles]
    size = np.linalg.norm(front - back)
    axis = (front - back) / size
    across = np.cross([0.0, 1.0, 0.0], axis)
    across /= np.linalg.norm(across)
    azimuth = np.linspace(-np.pi, np.pi, _AZIMUTHS)[:, None]
    tilt = np.linspace(0, np.pi, _TILTS)[None]
    local = np.stack([np.cos(azimuth) * np.sin(tilt), np.sin(azimuth) * np.sin(tilt), np.cos(tilt) + 0 * azimuth], -1)
    rays = local.reshape(-1, 3) @ np.stack([across, np.cross(axis, across), axis])
    return eye.radius(neutral, rays)[0].reshape(_AZIMUTHS, _TILTS) / size


def outer_lids(eye: Eye, neutral: Float) -> Int:
    """Vertices of the lids' outer skin that lie near the eyeball in the neutral shape and not in it, ascending."""
    gaps = eye.gaps(neutral)
    outer = gaps.outer.reshape(-1, len(_SAMPLES))[:, :3]
    length = gaps.length.reshape(-1, len(_SAMPLES))[:, :3]
    lids: Int = np.unique(eye.lids[outer & (length > _REST_CM) & (length < _NEAR_CM)])
    return lids


def look(eye: Eye, neutral: Float, name: str) -> Float:
    """Displacements (V, 3) of an eyeball that turns by `LOOK_DEGREES` about its centre."""
    centre = eye.centre(neutral)
    angle, outward = np.radians(LOOK_DEGREES[name]), np.sign(centre[0])  # +1 for the left eye
    if name in ("eyeLookUp", "eyeLookDown"):
        angle *= -1 if name == "eyeLookUp" else 1
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    else:
        angle *= outward if name == "eyeLookOut" else -outward
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    arms = neutral[eye.vertices] - centre
    return np.asarray(arms @ turn.T - arms)


def give_way(eye: Eye, neutral: Float, shape: F32, allowed: float = _ALLOWED_CM) -> float:
    """Move the eyeball in one expression shape (N, 3) until it comes through no lid on its way to full weight.

    Again and again it moves away from the place where it cuts most.

    Returns:
        centimetres that it has moved at full weight.
    """
    total = np.zeros(3)
    for _ in range(_STEPS):
        found = [(w, eye.gaps(neutral + w * shape)) for w in WEIGHTS]
        weight, gaps = max(found, key=lambda f: (f[1].cut - allowed) / f[0])
        if gaps.cut <= allowed:
            break
        worst = np.where(gaps.outer, gaps.length, np.inf).argmin()
        step = -0.6 * (gaps.cut - allowed) / weight * gaps.rays[worst]
        shape[eye.vertices] += step
        total += step
    return float(np.linalg.norm(total))


def iris_radius() -> float:
    """Radius of the iris in an eye's square after `enlarge_iris`."""
    return float(_place(np.array(_IRIS_DEGREES)))


def _place(degrees: Float) -> Float:
    """Distance from the middle of an eye's square at an angle from the pole; the iris gets more than its share."""
    spread = 1 - np.exp(-_EYE_EDGE_DEGREES / _EYE_SPREAD_DEGREES)
    return np.asarray(0.5 * (1 - np.exp(-degrees / _EYE_SPREAD_DEGREES)) / spread)


def enlarge_iris(places: Float) -> Float:
    """The source's layout of an eyeball (P, 2) with the iris enlarged; what lies outside of its disk stays."""
    arms = places - 0.5
    radius = np.linalg.norm(arms, axis=1)
    scale = np.divide(_place(radius * _DEGREES_PER_UV), radius, out=np.ones_like(radius), where=radius > 1e-9)
    return np.asarray(np.where((radius <= 0.5)[:, None], 0.5 + arms * scale[:, None], places))
