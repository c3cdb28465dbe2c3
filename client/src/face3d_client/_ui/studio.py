"""The work behind the page of ``face3d ui``: photographs in; faces, files and messages out."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from face3d_client._client import Face3DClient
from face3d_client._detection import DetectedFace
from face3d_client._errors import BadImage, BadOption, Face3DError, ImageTooLarge, NoFace, RequestError, Timeout
from face3d_client._images import decode_upright, read_file
from face3d_client._mesh.expressions import Expressions
from face3d_client._mesh.formats import write_whole
from face3d_client._mesh.overlay import draw_overlay
from face3d_client._mesh.renderer import Light, View, render
from face3d_client._mesh.surface import Surface
from face3d_client._protocol.options import Options, with_face
from face3d_client._results import Reconstruction

__all__ = ["DOWNLOADS", "MOODS", "Studio", "Visit", "as_markdown", "visitor_message"]

DOWNLOADS: Final = ("GLB", "OBJ (zip)", "PLY (zip)", "STL", "NPZ")
_SHOWN: Final = 1280  # longer side of the photograph on the page, px
_KEPT: Final = 3600.0  # seconds for which a visitor's files are kept
_CLEANUP_INTERVAL: Final = 60.0  # seconds between two searches for old files
# Photographs decoded at the same time: one of 65 megapixels takes 400 MB meanwhile.
_DECODING: Final = threading.BoundedSemaphore(2)
_CHOSEN, _OTHER = (255, 140, 0), (60, 190, 255)

# Sliders of the page and the shapes that each moves, by Apple's names.
MOODS: Final[dict[str, tuple[str, ...]]] = {
    "Smile": ("mouthSmileLeft", "mouthSmileRight"),
    "Open mouth": ("jawOpen",),
    "Pucker": ("mouthPucker",),
    "Raise brows": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "Frown": ("browDownLeft", "browDownRight", "mouthFrownLeft", "mouthFrownRight"),
    "Close eyes": ("eyeBlinkLeft", "eyeBlinkRight"),
    "Puff cheeks": ("cheekPuff",),
    "Look to the left": ("eyeLookOutLeft", "eyeLookInRight"),
    "Look to the right": ("eyeLookInLeft", "eyeLookOutRight"),
}


@dataclass
class Visit:
    """What a visitor has on the page.

    Attributes:
        photograph: the file as it was uploaded.
        faces: what was found in it.
        shown: the photograph as shown, upright; None where no face was found, or only the server can read it.
        scale: shown pixels per source pixel.
        chosen: number of the face that is looked at.
        result: that face, once it was made.
    """

    photograph: str = ""
    faces: list[DetectedFace] = field(default_factory=list)
    shown: Image.Image | None = None
    scale: float = 1.0
    chosen: int = 0
    result: Reconstruction | None = None

    def annotated(self) -> Image.Image | None:
        """Draw a numbered box around every face; the chosen one stands out."""
        if self.shown is None:
            return None
        picture = self.shown.copy()
        pen = ImageDraw.Draw(picture)
        line = max(2, round(max(picture.size) / 300))
        font = ImageFont.load_default(max(picture.size) / 28)
        # The chosen one last, so that no other box is drawn over it.
        for face in sorted(self.faces, key=lambda face: face.index == self.chosen):
            colour = _CHOSEN if face.index == self.chosen else _OTHER
            x1, y1, x2, y2 = (float(value) * self.scale for value in face.box)
            pen.rectangle([x1, y1, x2, y2], outline=colour, width=line)
            label, corner = f" {face.index + 1} ", (max(x1, 0), max(y1, 0))
            pen.rectangle(pen.textbbox(corner, label, font=font), fill=colour)
            pen.text(corner, label, fill=(0, 0, 0), font=font)
        return picture

    def overlaid(self) -> Image.Image | None:
        """Draw the mesh of `result` over the photograph as shown."""
        if self.shown is None or self.result is None:
            return None
        result = self.result
        return draw_overlay(self.shown, mesh=result._wireframe(), landmarks=result.landmarks, scale=self.scale)

    def face_at(self, x: float, y: float) -> int | None:
        """Find the face whose box holds a pixel of the shown photograph; the smallest box where several do."""
        point = np.array([x, y]) / self.scale
        holding = [face for face in self.faces if (face.box[:2] <= point).all() and (point <= face.box[2:]).all()]
        return min(holding, key=lambda face: face.size).index if holding else None


class Studio:
    """The page's work; one for all visitors, safe between threads.

    Everything it makes for a visitor is a file of its own: visitors with the same photograph share none, so that nobody
    reads what is being written for somebody else.

    Args:
        client: the server.
        expressions: the face model's, for the sliders where a mesh is not rigged. None: then they do nothing.
        parent: a folder that takes the folder of its files. None: the system's for temporary files.
    """

    def __init__(
        self, client: Face3DClient, expressions: Expressions | None = None, parent: str | Path | None = None
    ) -> None:
        self._client = client
        self._expressions = expressions
        if parent is not None:
            Path(parent).mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="face3d-ui-", dir=parent))
        self._last_cleanup = time.monotonic()

    def close(self) -> None:
        """Remove what was made for visitors."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, photograph: str, threshold: float) -> tuple[Visit, str]:
        """Detect faces in a new photograph; return the visit and a message for the visitor."""
        visit = Visit(photograph)
        return visit, self.look_again(visit, threshold)

    def look_again(self, visit: Visit, threshold: float) -> str:
        """Detect again with another threshold; return a message for the visitor."""
        visit.faces, visit.chosen, visit.result = [], 0, None
        try:
            data = read_file(visit.photograph)
            visit.faces = self._client.detect(data, score_threshold=threshold)
        except (Face3DError, OSError) as error:
            return visitor_message(error)
        if not visit.faces:
            return visitor_message(NoFace(""))
        if visit.shown is None:
            # Not before the service has decoded it within its limits: a picture that would take this process minutes or
            # gigabytes is refused there. Pillow and the service may differ in what they read: then none is shown.
            with _DECODING, contextlib.suppress(BadImage, ImageTooLarge):
                visit.shown, visit.scale = decode_upright(data, _SHOWN)
        count = len(visit.faces)
        return "One face found." if count == 1 else f"{count} faces found: click another one in the photograph."

    def make(self, visit: Visit, number: int, options: Options) -> Reconstruction:
        """Reconstruct the chosen face; it stays in the visit.

        Raises:
            Face3DError, OSError: what `Face3DClient.reconstruct` raises.
        """
        visit.chosen, visit.result = number, None
        data, chosen = read_file(visit.photograph), with_face(options, visit.faces[number])
        try:
            visit.result = self._client.reconstruct(data, **chosen)
        except BadOption:
            if chosen.get("rig") != "arkit":
                raise
            # A face model that is no head has no rig. Whatever else is wrong is said now.
            chosen["rig"] = None
            visit.result = self._client.reconstruct(data, **chosen)
        return visit.result

    def files(self, result: Reconstruction) -> dict[str, str]:
        """Write the result as files to show and to download."""
        folder = self._new_folder()
        for suffix in (".glb", ".stl", ".npz"):
            result.save(folder / f"face{suffix}")
        # What lies here is what a visitor gets: the page's clock deletes no other files.
        for kind in ("obj", "ply"):
            with (
                tempfile.TemporaryDirectory() as parts,
                zipfile.ZipFile(folder / f"face-{kind}.zip", "w", zipfile.ZIP_DEFLATED) as archive,
            ):
                for path in result.save(Path(parts) / f"face.{kind}"):
                    archive.write(path, path.name)
        names = ("face.glb", "face-obj.zip", "face-ply.zip", "face.stl", "face.npz")
        return {what: str(folder / name) for what, name in zip(DOWNLOADS, names, strict=True)}

    # --- moving it --------------------------------------------------------------------------------------------------

    def moved(self, result: Reconstruction, own: float, moods: Mapping[str, float]) -> Surface:
        """Change the expression of the upright mesh.

        Args:
            result: has mesh, which is rigged; or vertices_neutral, coefficients and face_model, and this page the face
                model's expressions.
            own: how much of the photographed expression stays, 1 = all of it.
            moods: weights by the names of `MOODS`.

        Returns:
            Without either, and with a model that is not the result's: the mesh as it came.
        """
        if result.rigged:
            return result._surface_in("canonical", self._blendshapes(result, own, moods))
        model = self._expressions
        if model is None or model.face_model != result.face_model or len(result.parts) > 1:
            return result._surface_in()
        shapes = ((shape, weight) for mood, weight in moods.items() for shape in MOODS[mood])
        named = {mode: weight for shape, weight in shapes for mode in model.modes_of(shape)}
        weights = result.coefficients.expression * np.float32(own)
        return result._surface.with_vertices(model.move(result.vertices_neutral, weights, named))

    def _blendshapes(self, result: Reconstruction, own: float, moods: Mapping[str, float]) -> dict[str, float]:
        """Add the moods to the photographed weights; no shape goes beyond 1."""
        weights = {name: own * weight for name, weight in result.blendshapes.items()}
        for mood, weight in moods.items():
            for shape in MOODS[mood]:
                if shape in weights:
                    weights[shape] += weight
        return {name: min(weight, 1.0) for name, weight in weights.items()}

    def picture(self, surface: Surface, yaw: float, light: Light) -> Image.Image:
        """Render it turned and lit."""
        return render(surface, View(yaw), light)

    def moved_file(self, result: Reconstruction, own: float, moods: Mapping[str, float]) -> str:
        """Write a GLB of the mesh with another expression, see `moved`; a rigged one stays rigged."""
        path = self._new_folder() / "face-moved.glb"
        if result.rigged:
            result.save(path, pose="canonical", blendshapes=self._blendshapes(result, own, moods))
            return str(path)
        surface = self.moved(result, own, moods)
        return str(write_whole(path, result._glb_of(surface)))

    def picture_file(self, picture: Image.Image, name: str) -> str:
        """Write a picture as a file; the name's suffix is its format."""
        path = self._new_folder() / name
        picture.save(path, quality=90)
        return str(path)

    def kept_file(self, data: bytes, name: str) -> str:
        """Write the bytes of a file as they are."""
        return str(write_whole(self._new_folder() / name, data))

    def delete_old_files(self) -> None:
        """Delete what was made more than an hour ago."""
        for old in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another thread was faster
                if time.time() - old.stat().st_mtime > _KEPT:
                    shutil.rmtree(old, ignore_errors=True)

    def _new_folder(self) -> Path:
        now = time.monotonic()
        if now - self._last_cleanup > _CLEANUP_INTERVAL:
            self._last_cleanup = now
            self.delete_old_files()
        # Whoever knows a file's name can have it, so no name can be guessed.
        folder = self._folder / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        return folder


def visitor_message(error: Face3DError | OSError) -> str:
    """Write what to tell a visitor, in words that need no knowledge of Triton."""
    if isinstance(error, NoFace):
        return (
            "**No face was found.** Try a photograph that shows a face from the front and large enough, or lower the "
            "score below and detect again."
        )
    if isinstance(error, RequestError):
        return f"**That did not work:** {as_markdown(error.message)}"
    if isinstance(error, OSError):
        return "**That did not work:** the file could not be read. Upload it again."
    if isinstance(error, Timeout):
        return "**That took too long.** The service is busy; your photograph is fine. Try again in a moment."
    return "**The service is busy or away.** Your photograph is fine; try again in a moment."


def as_markdown(text: str) -> str:
    """Escape a text of other origin for Markdown: no links, pictures or tags."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~&])", r"\\\1", text)
