"""What the service gives back, as typed objects."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face3d_client._errors import BadResponse, NotRequested
from face3d_client._mesh.glb import check_glb, embedded_image, surface_from_glb
from face3d_client._mesh.surface import Surface, check_texture, open_texture
from face3d_client._text import printable

if TYPE_CHECKING:
    import trimesh

    from face3d_client._images import ImageSource

__all__ = ["Camera", "Coefficients", "DetectedFace", "Reconstruction"]

_FOCAL: Final = 1015.0  # pixels of the 224 crop
_CENTRE: Final = 112.0
_CROP: Final = 224
_DISTANCE: Final = 1000.0  # mm from the camera to the origin


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """A face that `detect` found.

    Attributes:
        row: float32 (15,): x1 y1 x2 y2 score, then five points (x, y), all in source pixels.
        index: place in the order of score, 0 = best; what ``reconstruct(face=...)`` counts in.
    """

    row: NDArray[np.float32]
    index: int = 0

    def __post_init__(self) -> None:
        row = np.array(self.row, np.float32)
        if row.shape != (15,):
            raise ValueError(f"a face is a row of 15 numbers, not an array of shape {row.shape}")
        row.setflags(write=False)
        object.__setattr__(self, "row", row)

    @property
    def box(self) -> NDArray[np.float32]:
        """float32 (4,): x1, y1, x2, y2 in source pixels."""
        return self.row[:4]

    @property
    def score(self) -> float:
        """How sure the detector is, 0..1."""
        return float(self.row[4])

    @property
    def points(self) -> NDArray[np.float32]:
        """float32 (5, 2), source pixels: eye left in the picture, eye right, nose tip, mouth corner left, right."""
        return self.row[5:].reshape(5, 2)

    @property
    def size(self) -> float:
        """The longer side of the box in source pixels."""
        return float(max(self.row[2] - self.row[0], self.row[3] - self.row[1]))

    def __repr__(self) -> str:
        corners = ", ".join(f"{value:.0f}" for value in self.box)
        return f"DetectedFace(index={self.index}, score={self.score:.3f}, box=({corners}))"


@dataclass(frozen=True, eq=False)
class Coefficients:
    """The 257 numbers of the face model, in the layout of Deep3DFaceRecon and HRN.

    Attributes:
        values: float32 (257,), all of them in the order of the properties below.
    """

    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.values.shape != (257,):
            raise ValueError(f"257 coefficients are needed, not an array of shape {self.values.shape}")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype, copy=bool(copy) or dtype not in (None, self.values.dtype))

    @property
    def identity(self) -> NDArray[np.float32]:
        """float32 (80,): shape of this person's face, standard deviations."""
        return self.values[0:80]

    @property
    def expression(self) -> NDArray[np.float32]:
        """float32 (64,): weights of the expression modes."""
        return self.values[80:144]

    @property
    def texture(self) -> NDArray[np.float32]:
        """float32 (80,): colour of the skin (albedo modes)."""
        return self.values[144:224]

    @property
    def angles(self) -> NDArray[np.float32]:
        """float32 (3,): rotation of the head in radians: pitch about x, yaw about y, roll about z."""
        return self.values[224:227]

    @property
    def light(self) -> NDArray[np.float32]:
        """float32 (27,): spherical harmonics of the light, nine for red, nine for green, nine for blue."""
        return self.values[227:254]

    @property
    def translation(self) -> NDArray[np.float32]:
        """float32 (3,): place of the head in the camera's frame, decimetres."""
        return self.values[254:257]


@dataclass(frozen=True, eq=False)
class Camera:
    """From posed millimetres to pixels of the photograph.

    The camera looks along -z from 1000 mm: with x, y, z in mm, ``u = 1015 x / (1000 - z) + 112`` and
    ``v = 1015 y / (1000 - z) + 112`` in a crop of 224 pixels, whose column is u and row 223 - v; a scale and an
    offset take the crop to the source. Pixel centres are at integers; the source is the EXIF-rotated photograph at
    its full size.

    Attributes:
        numbers: float32 (8,): sx, sy, ox, oy of the 224 crop, then of the 512 crop: source x = column * sx + ox,
            source y = row * sy + oy.
    """

    numbers: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.numbers.shape != (8,):
            raise ValueError(f"a camera has 8 numbers, not an array of shape {self.numbers.shape}")

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """float64 (3, 4): ``[x w, y w, w] = matrix @ [X, Y, Z, 1]``, posed mm to source pixels."""
        sx, sy, ox, oy = (float(value) for value in self.numbers[:4])
        centre_x = _CENTRE * sx + ox
        centre_y = (_CROP - 1 - _CENTRE) * sy + oy
        return np.array(
            [
                [_FOCAL * sx, 0, -centre_x, centre_x * _DISTANCE],
                [0, -_FOCAL * sy, -centre_y, centre_y * _DISTANCE],
                [0, 0, -1, _DISTANCE],
            ]
        )

    def project(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Where points in space are in the photograph.

        Args:
            points: (..., 3) in mm, in the frame of `Reconstruction.vertices`.

        Returns:
            float64 (..., 2): x, y in source pixels.
        """
        homogeneous = np.asarray(points, np.float64) @ self.matrix[:, :3].T + self.matrix[:, 3]
        pixels: NDArray[np.float64] = homogeneous[..., :2] / homogeneous[..., 2:]
        return pixels

    def crop_to_source(self, pixels: NDArray[np.floating[Any]], crop: Literal[224, 512] = 224) -> NDArray[np.float64]:
        """Pixels (..., 2) (column, row) of one of the two crops as source pixels (..., 2)."""
        numbers = self.numbers[:4] if crop == 224 else self.numbers[4:]
        source: NDArray[np.float64] = np.asarray(pixels, np.float64) * numbers[:2] + numbers[2:]
        return source


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruction:
    """A face in three dimensions.

    Lengths are millimetres, except inside GLB and OBJ files, which are in metres. Fields are decoded when first read;
    one that was not among the `outputs` asked for raises `NotRequested`.

    Attributes:
        raw: output name -> array, as the server sent them, batch dimension removed.
    """

    raw: Mapping[str, NDArray[Any]] = field(repr=False)

    def _get(self, name: str) -> NDArray[Any]:
        try:
            return self.raw[name]
        except KeyError:
            raise NotRequested(f"{name!r} was not asked for: add it to outputs=(...).") from None

    def _first_bytes(self, name: str) -> bytes:
        value = self._get(name).ravel()[0]
        return value if isinstance(value, bytes) else str(value).encode()

    def has(self, name: str) -> bool:
        """Whether this output was asked for and is here."""
        return name in self.raw

    # --- the surface ------------------------------------------------------------------------------------------------

    @property
    def glb(self) -> bytes:
        """The GLB file as the server made it: texture and normals inside, metres, y up, facing +z."""
        return check_glb(self._first_bytes("mesh"))

    @cached_property
    def _surface(self) -> Surface:
        return surface_from_glb(self.glb, self.texture_bytes)

    @cached_property
    def mesh(self) -> trimesh.Trimesh:
        """The textured mesh in the frame that `pose` asked for, millimetres, y up, facing +z."""
        return self._surface.to_trimesh()

    @property
    def faces(self) -> NDArray[np.int32]:
        """int32 (F, 3): the triangles' vertex numbers, counter-clockwise seen from outside. Comes with `mesh`."""
        return self._surface.faces

    @property
    def uv(self) -> NDArray[np.float32]:
        """float32 (N, 2): texture coordinates of the vertices, 0..1, v up. Comes with `mesh`."""
        return self._surface.uv

    @property
    def vertices(self) -> NDArray[np.float32]:
        """float32 (N, 3): mm, as photographed (camera frame: x right, y up, z toward the camera)."""
        return self._get("vertices")

    @property
    def vertices_neutral(self) -> NDArray[np.float32]:
        """float32 (N, 3): mm, upright (head frame), without expression."""
        return self._get("vertices_neutral")

    @cached_property
    def posed_mesh(self) -> trimesh.Trimesh:
        """The textured mesh as photographed: on `vertices`, so that `camera` projects it. Needs `mesh`, `vertices`."""
        return self._posed("camera").to_trimesh()

    @cached_property
    def neutral_mesh(self) -> trimesh.Trimesh:
        """The textured mesh, upright and without expression. Needs `mesh`, `vertices_neutral`."""
        return self._posed("neutral").to_trimesh()

    def _posed(self, pose: Literal["camera", "neutral"] | None) -> Surface:
        if pose is None:
            return self._surface
        return self._surface.with_vertices(self.vertices if pose == "camera" else self.vertices_neutral)

    @cached_property
    def texture(self) -> Image.Image:
        """The texture, RGB, row 0 at v = 1; from `texture` if that was asked for, else from inside `mesh`."""
        return open_texture(self.texture_bytes)

    @property
    def texture_bytes(self) -> bytes:
        """The texture as a PNG or JPEG file."""
        return check_texture(self._first_bytes("texture") if self.has("texture") else embedded_image(self.glb))

    @cached_property
    def preview(self) -> Image.Image:
        """A picture of the face from several sides."""
        return open_texture(self.preview_bytes)

    @property
    def preview_bytes(self) -> bytes:
        """`preview` as a PNG file."""
        return check_texture(self._first_bytes("preview"))

    @property
    def visibility(self) -> NDArray[np.uint8]:
        """uint8 (512, 512): 255 where the photograph shows the texel, 0 where the network filled it."""
        visibility = self._get("visibility")
        return visibility.reshape(visibility.shape[-2:])

    # --- where it is in the photograph -------------------------------------------------------------------------------

    @cached_property
    def detection(self) -> DetectedFace:
        """The face that was reconstructed; comes with `face`."""
        return DetectedFace(self._get("face"))

    @property
    def box(self) -> NDArray[np.float32]:
        """float32 (4,): x1, y1, x2, y2 in source pixels."""
        return self.detection.box

    @property
    def score(self) -> float:
        """How sure the detector is that this is a face, 0..1."""
        return self.detection.score

    @property
    def points(self) -> NDArray[np.float32]:
        """float32 (5, 2): the detector's five points in source pixels."""
        return self.detection.points

    @property
    def landmarks(self) -> NDArray[np.float32]:
        """float32 (68, 2): landmarks in source pixels, in the order of iBUG 300-W."""
        return self._get("landmarks")

    @property
    def landmarks_3d(self) -> NDArray[np.float32]:
        """float32 (68, 3): the same landmarks in mm, in the frame of `vertices`."""
        return self._get("landmarks_3d")

    @cached_property
    def camera(self) -> Camera:
        """The camera that `vertices` and `landmarks_3d` are in front of."""
        return Camera(self._get("camera"))

    @cached_property
    def coefficients(self) -> Coefficients:
        """The 257 coefficients of the face model."""
        return Coefficients(self._get("coefficients"))

    @property
    def face_model(self) -> int:
        """Fingerprint of the face model: results with the same one share `faces` and `uv`."""
        return int(self._get("face_model").ravel()[0])

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What makes this result doubtful (turned far, small, dark, blurred): a sentence each; mostly none."""
        values = self._get("warnings").ravel()
        texts = [text.decode(errors="replace") if isinstance(text, bytes) else str(text) for text in values]
        if len(texts) == 1 and texts[0].startswith("["):
            try:
                texts = [str(text) for text in json.loads(texts[0])]
            except (ValueError, RecursionError) as error:
                raise BadResponse("the server's warnings are no list of texts. Is it a Face3D server?") from error
        return tuple(printable(text) for text in texts if text)

    # --- out of here ------------------------------------------------------------------------------------------------

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        pose: Literal["camera", "neutral"] | None = None,
        units: Literal["m", "mm"] | None = None,
    ) -> list[Path]:
        """Write the face to a file; the suffix says how.

        ======  ==========================================================  ========
        suffix  what                                                         units
        ======  ==========================================================  ========
        .glb    one file, texture and normals inside                         m
        .obj    with STEM.mtl and the texture STEM.png beside it, normals    m
        .ply    binary, normals, texture coordinates and vertex colours      mm
        .stl    binary, shape only, for printing                             mm
        .npz    every array that was asked for (see below)                   mm
        ======  ==========================================================  ========

        Every file appears whole or not at all, the named one last. All are y up and face +z. NPZ keys: those of `raw`
        that are numbers, and where known faces, uv, box, score, points, camera_matrix (3, 4), texture (H, W, 3) uint8,
        warnings.

        Args:
            path: the folder is made if it is not there.
            pose: None: the mesh in the frame it was asked for. "camera": as photographed. "neutral": upright, without
                expression.
            units: None: those of the table. Ignored for .npz.

        Returns:
            The files written.

        Raises:
            ValueError: another suffix.
            NotRequested: something needed was not asked for.
        """
        from face3d_client._mesh.formats import save

        return save(self, Path(path), pose, units)

    def overlay(
        self, image: ImageSource, *, wireframe: bool = True, landmarks: bool = True, box: bool = False
    ) -> Image.Image:
        """The photograph with the mesh drawn over it.

        Args:
            image: the photograph that was sent.
            wireframe: draw the triangles that face the camera. Needs `mesh`, `vertices`, `camera`.
            landmarks: draw the 68 landmarks. Needs `landmarks`.
            box: draw the face's box. Needs `face`.

        Returns:
            RGB, of the EXIF-rotated photograph's full size.

        Raises:
            BadImage, ImageTooLarge, OSError: the photograph cannot be decoded here: JPEG, PNG, WebP, BMP and TIFF up to
                65 megapixels can. Decoding is not interrupted; a photograph that the service made a face of is none
                that takes long.
        """
        from face3d_client._images import open_upright
        from face3d_client._mesh.overlay import draw_overlay

        return draw_overlay(self, open_upright(image), wireframe=wireframe, landmarks=landmarks, box=box)

    def __repr__(self) -> str:
        parts = [repr(self.detection)] if self.has("face") else []
        if self.has("vertices"):
            parts.append(f"{len(self.vertices)} vertices")
        if self.has("warnings"):
            parts.append(f"{len(self.warnings)} warnings")
        return f"Reconstruction({', '.join(parts) or ', '.join(self.raw)})"
