"""ICT-FaceKit light's whole head as parts with materials: what of the source becomes the head model.

Left out are surfaces that only the source's own renderer understands (tear film, occlusion and blend sheets of the
eyes) and the inner iris: the outer shell of an eyeball carries its texture, cornea included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

# Part here: (part of the source, material here). The order is the order of vertices: what a portrait shows comes first.
_PARTS = {
    "face": ("Face", "skin"),
    "head_and_neck": ("Head and Neck", "skin"),
    "mouth_socket": ("Mouth socket", "skin"),
    "eye_socket_left": ("Eye socket left", "skin"),
    "eye_socket_right": ("Eye socket right", "skin"),
    "eye_left": ("Eyeball left", "eye_left"),
    "eye_right": ("Eyeball right", "eye_right"),
    "gums": ("Gums and tongue", "mouth"),
    "tongue": ("Gums and tongue", "mouth"),
    "teeth_upper": ("Teeth", "teeth"),
    "teeth_lower": ("Teeth", "teeth"),
    "lashes_left": ("Eyelashes left", "lashes"),
    "lashes_right": ("Eyelashes right", "lashes"),
}
PART_NAMES = tuple(_PARTS)
PART_MATERIALS = tuple(material for _, material in _PARTS.values())

# The tongue is that piece of the source's texture chart of gums and tongue whose root lies furthest back on the floor
# of the mouth; this place (centimetres) is on its back.
_ON_TONGUE_CM = np.array([0.0, -3.07, 7.19])


@dataclass(frozen=True)
class Source:
    """The parts that are kept, renumbered.

    Attributes:
        neutral: (N, 3) centimetres, y up, z out of the face.
        identity: (100, N, 3) centimetres per sigma.
        expression: (57, N, 3) centimetres at full expression.
        faces: (F, 4) vertices, -1 in the last column of a triangle.
        part: (F,) index into `PART_NAMES`, ascending.
        uv: (M, 2) the source's texture coordinates, whole numbers of UDIM tiles taken off part by part.
        faces_uv: (F, 4) into ``uv``.
        landmarks: (68,) vertices.
        mirror: (N,) the vertex on the other side; its own inverse.
        expression_names: the source's 57 names.
    """

    neutral: Float
    identity: npt.NDArray[np.float32]
    expression: npt.NDArray[np.float32]
    faces: Int
    part: Int
    uv: Float
    faces_uv: Int
    landmarks: Int
    mirror: Int
    expression_names: tuple[str, ...]

    def vertices(self, *names: str) -> Int:
        """The vertices of the named parts, ascending."""
        corners = self.faces[np.isin(self.part, [PART_NAMES.index(name) for name in names])]
        used: Int = np.unique(corners[corners >= 0])
        return used


def read(path: Path) -> Source:
    """Read ``ict_facekit_full.npz``."""
    with np.load(path, allow_pickle=False) as data:
        neutral = data["neutral"].astype(np.float64)
        quads, quads_uv = data["faces_quad"].astype(np.int64), data["faces_uv_quad"].astype(np.int64)
        uv, material = data["uv"].astype(np.float64), data["face_material"]
        ranges = {str(name): (int(first), int(last)) for name, _, _, first, last in json.loads(str(data["parts"]))}
        identity, expression = data["identity"].astype(np.float32), data["expression"].astype(np.float32)
        landmarks = data["landmarks68"].astype(np.int64)
        names = tuple(str(x) for x in data["expression_names"])
    chosen, part = [], []
    for index, (name, (origin, _)) in enumerate(_PARTS.items()):
        rows = np.arange(ranges[origin][0], ranges[origin][1] + 1)
        if name.startswith("eye_"):
            rows = rows[~np.char.startswith(material[rows].astype(str), "M_Iris")]
        elif name in ("gums", "tongue"):
            rows = rows[_on_tongue(neutral, quads[rows], quads_uv[rows]) == (name == "tongue")]
        elif name.startswith("teeth"):
            jaw = expression[names.index("jawOpen")]
            follows = np.abs(jaw[quads[rows, 0]]).max(1) > 0.1
            rows = rows[follows == (name == "teeth_lower")]
        chosen.append(rows)
        part.append(np.full(len(rows), index))
    rows, part_of = np.concatenate(chosen), np.concatenate(part)
    faces = quads[rows]
    used = np.unique(faces[faces >= 0])
    number = np.full(len(neutral) + 1, -1)
    number[used] = np.arange(len(used))
    faces = number[faces]
    kept_uv, faces_uv = _own_squares(uv, quads_uv[rows], part_of)
    kept = neutral[used]
    return Source(
        kept, identity[:, used], expression[:, used], faces, part_of, kept_uv, faces_uv,
        number[landmarks], mirrored(kept, faces), names,
    )  # fmt: skip


def _on_tongue(points: Float, faces: Int, faces_uv: Int) -> npt.NDArray[np.bool_]:
    """(F,) whether a face belongs to the piece of the texture chart that holds the tongue's back."""
    corners = faces_uv >= 0
    first = np.repeat(faces_uv[:, :1], 4, 1)
    n = int(faces_uv.max()) + 1
    graph = sp.coo_matrix((np.ones(corners.sum()), (first[corners], faces_uv[corners])), shape=(n, n))
    piece = connected_components(graph, directed=False)[1][faces_uv[:, 0]]
    nearest = np.linalg.norm(points[faces[:, 0]] - _ON_TONGUE_CM, axis=1).argmin()
    return np.asarray(piece == piece[nearest])


def _own_squares(uv: Float, faces_uv: Int, part: Int) -> tuple[Float, Int]:
    """Texture coordinates of the kept faces, moved part by part from their UDIM tile into 0..1; lashes scaled to it."""
    moved, renumbered, count = [], faces_uv.copy(), 0
    for index, name in enumerate(PART_NAMES):
        rows = faces_uv[part == index]
        used = np.unique(rows[rows >= 0])
        places = uv[used]
        # A stray vertex of the source lies in a tile of its own; the tile of a part is that of most of its vertices.
        places = places - np.median(np.floor(places), axis=0)
        if name.startswith("lashes"):  # left and right share a tile; here both fill the square
            places[:, 0] = (places[:, 0] - places[:, 0].min()) / np.ptp(places[:, 0])
        number = np.full(len(uv) + 1, -1)
        number[used] = count + np.arange(len(used))
        renumbered[part == index] = number[rows]
        moved.append(places)
        count += len(used)
    return np.concatenate(moved), renumbered


def mirrored(points: Float, faces: Int) -> Int:
    """(N,) the vertex on the other side of x = 0.

    Vertices of sheets that lie on one another differ in where their faces' centres lie.

    Raises:
        ValueError: the mesh is not alike on both sides.
    """
    corners = faces >= 0
    safe = np.where(corners, faces, 0)
    centre = (points[safe] * corners[..., None]).sum(1) / corners.sum(1, keepdims=True)
    total, uses = np.zeros_like(points), np.zeros(len(points))
    for k in range(4):
        np.add.at(total, faces[corners[:, k], k], centre[corners[:, k]])
        np.add.at(uses, faces[corners[:, k], k], 1)
    around = total / uses[:, None]
    key = np.concatenate([points, 3 * around], 1)
    mirror: Int = cKDTree(key).query(key * [-1, 1, 1, -1, 1, 1])[1].astype(np.int64)
    if (mirror[mirror] != np.arange(len(points))).any():
        raise ValueError("the source is not alike on both sides: a vertex has no partner of its own")
    return mirror
