"""Reconstructions: what the service returns for a face, as typed fields, files and drawings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face3d_client._camera import Camera
from face3d_client._coefficients import Coefficients
from face3d_client._detection import DetectedFace
from face3d_client._errors import NotRequested
from face3d_client._images import ImageSource, open_upright
from face3d_client._mesh.formats import npz_bytes, surface_files, write_files
from face3d_client._mesh.glb import check_glb, embedded_image, surface_from_glb
from face3d_client._mesh.overlay import draw_overlay
from face3d_client._mesh.surface import Surface, check_texture, open_texture
from face3d_client._text import printable

if TYPE_CHECKING:
    import trimesh

__all__ = ["Reconstruction"]


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
        """Tell whether this output was asked for and is here."""
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
        return self._surface_in("camera").to_trimesh()

    @cached_property
    def neutral_mesh(self) -> trimesh.Trimesh:
        """The textured mesh, upright and without expression. Needs `mesh`, `vertices_neutral`."""
        return self._surface_in("neutral").to_trimesh()

    def _surface_in(self, pose: Literal["camera", "neutral"] | None) -> Surface:
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
        texts = (text.decode(errors="replace") if isinstance(text, bytes) else str(text) for text in values)
        return tuple(printable(text) for text in texts if text)

    # --- files and drawings -----------------------------------------------------------------------------------------

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
        target = Path(path)
        suffix = target.suffix.lower()
        if suffix == ".npz":
            return write_files(target.parent, {target.name: npz_bytes(self._arrays())})
        if suffix == ".glb" and pose is None and units in (None, "m"):
            return write_files(target.parent, {target.name: self.glb})  # as the server made it
        return write_files(target.parent, surface_files(lambda: self._surface_in(pose), target.name, units))

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Collect every number that was asked for, by the names of `save`."""
        arrays = {name: array for name, array in self.raw.items() if array.dtype.kind in "fiu"}
        arrays.pop("face", None)
        if self.has("face"):
            arrays |= {"box": self.box, "score": np.array(self.score, np.float32), "points": self.points}
        if self.has("camera"):
            arrays["camera_matrix"] = self.camera.matrix
        if self.has("mesh"):
            arrays |= {"faces": self.faces, "uv": self.uv}
        if self.has("mesh") or self.has("texture"):
            arrays["texture"] = np.asarray(self.texture)
        if self.has("warnings"):
            arrays["warnings"] = np.array(self.warnings, dtype=np.str_)
        return arrays

    def overlay(
        self, image: ImageSource, *, wireframe: bool = True, landmarks: bool = True, box: bool = False
    ) -> Image.Image:
        """Draw the mesh over the photograph.

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
        return draw_overlay(
            open_upright(image),
            mesh=(self.camera.project(self.vertices), self.faces) if wireframe else None,
            landmarks=self.landmarks if landmarks else None,
            box=self.box if box else None,
        )

    def __repr__(self) -> str:
        parts = [repr(self.detection)] if self.has("face") else []
        if self.has("vertices"):
            parts.append(f"{len(self.vertices)} vertices")
        if self.has("warnings"):
            parts.append(f"{len(self.warnings)} warnings")
        return f"Reconstruction({', '.join(parts) or ', '.join(self.raw)})"
