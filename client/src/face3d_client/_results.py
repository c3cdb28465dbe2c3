"""Reconstructions: what the service returns for a face, as typed fields, files and drawings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face3d_client._camera import Camera
from face3d_client._coefficients import Coefficients
from face3d_client._detection import DetectedFace
from face3d_client._errors import NotRequested
from face3d_client._expected import ExpectedErrors
from face3d_client._images import ImageSource, open_upright
from face3d_client._mesh.formats import npz_bytes, scale_of, surface_files, write_files
from face3d_client._mesh.glb import check_glb, embedded_image, surface_from_glb
from face3d_client._mesh.overlay import draw_overlay, mesh_edges
from face3d_client._mesh.pictures import check_texture, open_texture
from face3d_client._mesh.placement import Placement
from face3d_client._mesh.renderer import Light, View, render
from face3d_client._mesh.surface import Surface
from face3d_client._text import printable

if TYPE_CHECKING:
    import trimesh

__all__ = ["Reconstruction"]

Placed: TypeAlias = Literal["canonical", "camera", "neutral"]
_METRES: Final = 0.001  # file units per millimetre


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruction:
    """A head or face in three dimensions.

    Lengths are millimetres, except inside GLB, OBJ and USDZ files, which are in metres. Fields are decoded when first
    read; one that was not among the `outputs` asked for raises `NotRequested`. The size is the face model's and not
    measured: one photograph does not tell how large a head is.

    `vertices` are the face model's; `mesh` has *places*, which are vertices with one texture coordinate: on a seam of
    the texture a vertex has several, and `faces` and `uv` number those.

    Attributes:
        raw: output name -> array, as the server sent them, batch dimension removed.
        source: the photograph's file, which `save` does not write over.
    """

    raw: Mapping[str, NDArray[Any]] = field(repr=False)
    source: Path | None = None

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
        return surface_from_glb(self.glb, self.texture_bytes if self.has("texture") else None)

    @cached_property
    def mesh(self) -> trimesh.Trimesh:
        """All parts as one textured mesh in the frame that `pose` asked for, millimetres, y up, facing +z."""
        return self._surface_in().to_trimesh()

    @property
    def faces(self) -> NDArray[np.int32]:
        """int32 (T, 3): the triangles' place numbers, counter-clockwise seen from outside. Comes with `mesh`."""
        return self._surface.faces

    @property
    def uv(self) -> NDArray[np.float32]:
        """float32 (M, 2): texture coordinates of the places, 0..1, v up, in their own part's picture."""
        return self._surface.uv

    @property
    def parts(self) -> dict[str, NDArray[np.intp]]:
        """Triangle numbers of each part, by the name of its material: skin, eye_left, eye_right, teeth, mouth, lashes.

        A face alone has the part skin. Comes with `mesh`.
        """
        surface = self._surface
        return {
            part.material.name: np.flatnonzero(surface.part_of_face == number)
            for number, part in enumerate(surface.parts)
        }

    @property
    def rigged(self) -> bool:
        """Whether the mesh has `blendshapes`."""
        return bool(self._surface.weights)

    @property
    def blendshapes(self) -> dict[str, float]:
        """Apple's 52 shapes by name (``jawOpen``, ...) and the weight of each in the photograph, 0..1.

        Raises:
            NotRequested: the mesh has none: `rig` was not ``"arkit"``.
        """
        weights = self._surface.weights
        if not weights:
            raise NotRequested("the mesh has no blendshapes: ask for rig='arkit'.")
        return dict(weights)

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
        """The textured mesh as photographed, so that `camera` projects it. Needs `mesh`, and `coefficients`.

        Where the face model is no head, `vertices` are needed and no coefficients.
        """
        return self._surface_in("camera").to_trimesh()

    @cached_property
    def neutral_mesh(self) -> trimesh.Trimesh:
        """The textured mesh, upright and without expression. Needs `mesh` that is rigged or was asked for so.

        Where the face model is no head, `vertices_neutral` are needed.
        """
        return self._surface_in("neutral").to_trimesh()

    def _surface_in(self, pose: Placed | None = None, blendshapes: Mapping[str, float] | None = None) -> Surface:
        return self._placement(pose, blendshapes).surface(self._surface)

    def _placement(self, pose: Placed | None, blendshapes: Mapping[str, float] | None) -> Placement:
        """Find what brings the mesh into a pose and expression; the arguments are those of `save`."""
        surface = self._surface
        if blendshapes is not None and (unknown := set(blendshapes) - set(surface.weights)):
            raise ValueError(f"the mesh has no blendshape {', '.join(sorted(unknown))}. See `blendshapes`.")
        if pose in ("camera", "neutral") and len(surface.parts) == 1 and not surface.weights:
            return Placement(vertices=self.vertices if pose == "camera" else self.vertices_neutral)
        weights = blendshapes
        if pose == "neutral" and weights is None:
            if not (surface.weights or surface.neutral):
                raise ValueError("this head has its expression in its shape: ask for expression='neutral' or a rig.")
            weights = {} if surface.weights else None
        if pose is None or (pose == "camera") == surface.posed:
            return Placement(weights=weights)
        matrix = self.coefficients.head_to_camera
        return Placement(weights=weights, matrix=matrix if pose == "camera" else np.linalg.inv(matrix))

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
        """Return uint8 (1024, 1024): 255 where the photograph shows the texel's skin, 0 where it was filled."""
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
    def certainty(self) -> NDArray[np.float32]:
        """float32 (4,): one over each of `expected_errors`, 0 where it is not known."""
        return self._get("certainty")

    @cached_property
    def expected_errors(self) -> ExpectedErrors:
        """How large the errors of this result are likely to be, by the network's own estimate; of `certainty`."""
        return ExpectedErrors.of(self.certainty)

    @property
    def face_model(self) -> int:
        """Fingerprint of the face model: results with the same one share `faces` and `uv`."""
        return int(self._get("face_model").ravel()[0])

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What makes this result doubtful (turned far, small, dark, blurred, covered): a sentence each; mostly none.

        What is doubtful about the texture is among them where one was asked for. Where `certainty` is there and small,
        a sentence of the client's own says that the network is not sure.
        """
        values = self._get("warnings").ravel()
        if self.has("texture_warnings"):
            values = np.concatenate([values, self._get("texture_warnings").ravel()])
        texts = (text.decode(errors="replace") if isinstance(text, bytes) else str(text) for text in values)
        doubt = self.expected_errors.doubt if self.has("certainty") else ""
        return tuple(printable(text) for text in (*texts, doubt) if text)

    # --- files and drawings -----------------------------------------------------------------------------------------

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        pose: Placed | None = None,
        units: Literal["m", "mm"] | None = None,
        blendshapes: Mapping[str, float] | None = None,
    ) -> list[Path]:
        """Write the mesh to a file; the suffix says how.

        ======  ==========================================================  ========
        suffix  what                                                         units
        ======  ==========================================================  ========
        .glb    one file: textures, normals, morph targets inside            m
        .obj    quads; beside it STEM.mtl and a STEM_PART.png for each part  m
        .ply    binary, triangles, vertex colours; texture beside it         mm
        .stl    binary, shape only; a head is closed, for printing           mm
        .usdz   one file, quads and textures inside, for AR (needs usd-core) m
        .npz    every array that was asked for (see below)                   mm
        ======  ==========================================================  ========

        Every file appears whole or not at all, the named one last, and none over the photograph. All are y up and face
        +z. Names inside, and of the files beside, are STEM without spaces. The skin's texture beside an OBJ is
        STEM_texture.png, that of a PLY STEM_atlas.png where there are several parts. NPZ keys: those of `raw` that are
        numbers, and where known faces, uv, box, score, points, camera_matrix (3, 4), texture (H, W, 3) uint8, warnings;
        of a head also mesh_vertices (M, 3) mm and mesh_parts (T,), numbers of mesh_part_names; of a rigged one
        blendshapes and blendshape_names.

        Args:
            path: the folder is made if it is not there.
            pose: None: the mesh in the frame it was asked for. "canonical": upright. "camera": as photographed.
                "neutral": upright, without expression.
            units: None: those of the table. Ignored for .npz.
            blendshapes: weights, 0..1, of a rigged mesh's shapes by name; those left out are 0. None: as they are.
                A GLB stays rigged, the other formats take the shape that the weights make.

        Returns:
            The files written.

        Raises:
            ValueError: another suffix, a shape that is not there, an expression that cannot be taken out of an unrigged
                head, or one of the files is the photograph.
            NotRequested: something needed was not asked for.
            ModuleNotFoundError: .usdz, and usd-core is not installed (``pip install face3d-client[usd]``).
        """
        target = Path(path)
        suffix = target.suffix.lower()
        if suffix == ".npz":
            files = {target.name: npz_bytes(self._arrays())}
        elif suffix == ".glb":
            files = {target.name: self._glb_in(pose, scale_of(target.name, units), blendshapes)}
        else:
            files = surface_files(lambda: self._surface_in(pose, blendshapes), target.name, units)
        if self.source is not None and any(_same(target.parent / name, self.source) for name in files):
            raise ValueError(f"{target} would be written over the photograph {self.source}. Choose another name.")
        return write_files(target.parent, files)

    def _glb_of(self, surface: Surface) -> bytes:
        """Put the vertices of a mesh of one part into the server's file."""
        return Placement(vertices=surface.vertices).glb(self.glb, self._surface, _METRES)

    def _glb_in(self, pose: Placed | None, scale: float, blendshapes: Mapping[str, float] | None) -> bytes:
        if pose is None and scale == _METRES and blendshapes is None:
            return self.glb  # as the server made it
        return self._placement(pose, blendshapes).glb(self.glb, self._surface, scale)

    def render(
        self,
        *,
        yaw: float = 0.0,
        pitch: float = 0.0,
        clay: bool = False,
        side: int = 512,
        light: tuple[float, float, float] = (20.0, 30.0, 1.0),
        blendshapes: Mapping[str, float] | None = None,
    ) -> Image.Image:
        """Draw the mesh, upright, without a GPU. Needs `mesh`.

        Args:
            yaw: degrees; positive turns the face to the picture's right.
            pitch: degrees; positive turns the face up.
            clay: grey instead of the texture.
            side: of the square picture in pixels.
            light: degrees from the front to the right, degrees above the eyes, strength (1 is a usual lamp).
            blendshapes: as for `save`.

        Returns:
            RGB.
        """
        surface = self._surface_in("canonical" if self._surface.posed else None, blendshapes)
        return render(surface, View(yaw, pitch, clay, side, oversampling=2.0), Light(*light))

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
            if len(self._surface.parts) > 1:
                names = np.array(list(self.parts), dtype=np.str_)
                arrays |= {"mesh_vertices": self._surface_in().vertices, "mesh_part_names": names}
                arrays["mesh_parts"] = self._surface.part_of_face
            if weights := self._surface.weights:
                arrays["blendshapes"] = np.array(list(weights.values()), np.float32)
                arrays["blendshape_names"] = np.array(list(weights), dtype=np.str_)
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
            wireframe: draw the edges that the camera sees, of quads without their diagonals. Needs `mesh`, `camera`,
                `coefficients`; where the face model is no head, `vertices` and no coefficients. A head that was asked
                for without expression is drawn without.
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
            mesh=self._wireframe() if wireframe else None,
            landmarks=self.landmarks if landmarks else None,
            box=self.box if box else None,
        )

    def _wireframe(self) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Project the mesh into the photograph: pixels (M, 2), and the edges (E, 2) that the camera sees."""
        surface = self._surface_in("camera")
        pixels = self.camera.project(surface.vertices)
        return pixels, mesh_edges(surface, pixels, self.camera.distance(surface.vertices))

    def __repr__(self) -> str:
        parts = [repr(self.detection)] if self.has("face") else []
        if self.has("vertices"):
            parts.append(f"{len(self.vertices)} vertices")
        if self.has("warnings"):
            parts.append(f"{len(self.warnings)} warnings")
        return f"Reconstruction({', '.join(parts) or ', '.join(self.raw)})"


def _same(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve()
