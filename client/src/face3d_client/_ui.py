"""The web page of ``face3d ui``: drop a photograph, click a face, turn it around, take it home.

Gradio is an extra (``pip install face3d-client[ui]``) and typed too loosely to help, so it is imported by name. One
client serves all visitors; each visitor's photograph and faces are kept in that visitor's session.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from ._client import Face3DClient
from ._codec import SCORE_THRESHOLD, Options, with_face
from ._errors import BadImage, Face3DError, NoFace, RequestError
from ._images import open_upright
from ._results import DetectedFace, Reconstruction

__all__ = ["Studio", "build_page"]

_SHOWN: Final = 1280  # longer side of the photograph on the page, px
_KEPT_RESULTS: Final = 200
_TITLE: Final = "Face3D: a photograph becomes a 3D face"
_DOWNLOADS: Final = ("GLB", "OBJ (zip)", "PLY", "NPZ")


@dataclass
class Visit:
    """What a visitor has on the page.

    Attributes:
        photograph: the file as it was uploaded.
        faces: what was found in it.
        shown: the photograph as shown, upright.
        scale: shown pixels per source pixel.
    """

    photograph: str = ""
    faces: list[DetectedFace] = field(default_factory=list)
    shown: Image.Image | None = None
    scale: float = 1.0

    def annotated(self) -> tuple[Image.Image, list[tuple[tuple[int, int, int, int], str]]] | None:
        """The photograph and a labelled box for every face, as gradio.AnnotatedImage takes them."""
        if self.shown is None:
            return None
        width, height = self.shown.size
        boxes = []
        for face in self.faces:
            # Boxes may reach over the edge; gradio draws inside the picture only.
            limits = (width - 1, height - 1, width - 1, height - 1)
            x1, y1, x2, y2 = (
                int(min(max(value * self.scale, 0), limit)) for value, limit in zip(face.box, limits, strict=True)
            )
            boxes.append(((x1, y1, x2, y2), f"face {face.index + 1} ({face.score:.2f})"))
        return self.shown, boxes


class Studio:
    """What the page does, without the page."""

    def __init__(self, client: Face3DClient) -> None:
        self._client = client
        self._folder = Path(tempfile.mkdtemp(prefix="face3d-ui-"))
        self._results: deque[Path] = deque()

    def close(self) -> None:
        """Remove what was made for visitors."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, photograph: str, threshold: float) -> tuple[Visit, str]:
        """Look for faces in a new photograph; the visit and what to say."""
        visit = Visit(photograph)
        try:
            whole = open_upright(photograph)
        except (BadImage, OSError):
            # Pillow and the server may differ in what they read: the server has the say, the page shows no picture.
            whole = None
        if whole is not None:
            visit.shown = whole.copy()
            visit.shown.thumbnail((_SHOWN, _SHOWN))
            visit.scale = visit.shown.width / whole.width
        return visit, self.look_again(visit, threshold)

    def look_again(self, visit: Visit, threshold: float) -> str:
        """Look for faces once more, with another threshold; what to say."""
        try:
            visit.faces = self._client.detect(visit.photograph, score_threshold=threshold)
        except (Face3DError, OSError) as error:
            visit.faces = []
            return in_plain_words(error)
        if not visit.faces:
            return in_plain_words(NoFace(""))
        count = len(visit.faces)
        return "One face found." if count == 1 else f"{count} faces found: click another one to see it."

    def make(self, visit: Visit, number: int, options: Options) -> Reconstruction:
        """The chosen face."""
        return self._client.reconstruct(visit.photograph, **with_face(options, visit.faces[number]))

    def files(self, result: Reconstruction) -> dict[str, str]:
        """The result as files to look at and to download."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        self._results.append(folder)
        while len(self._results) > _KEPT_RESULTS:
            shutil.rmtree(self._results.popleft(), ignore_errors=True)
        for suffix in (".glb", ".ply", ".npz"):
            result.save(folder / f"face{suffix}")
        with zipfile.ZipFile(folder / "face-obj.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in result.save(folder / "face.obj"):
                archive.write(path, path.name)
        names = ("face.glb", "face-obj.zip", "face.ply", "face.npz")
        return {what: str(folder / name) for what, name in zip(_DOWNLOADS, names, strict=True)}


def in_plain_words(error: Face3DError | OSError) -> str:
    """What to tell a visitor, who has never heard of Triton."""
    if isinstance(error, NoFace):
        return (
            "**No face was found.** Try a photograph that shows a face from the front and large enough, or look again "
            "with a lower threshold."
        )
    if isinstance(error, RequestError):
        return f"**That did not work:** {error.message}"
    if isinstance(error, OSError):
        return "**That did not work:** the file could not be read. Upload it again."
    return "**The service is busy or away.** Your photograph is fine; try again in a moment."


def _plots(result: Reconstruction) -> Any:
    pandas: Any = importlib.import_module("pandas")
    parts = result.coefficients
    named = (("identity", parts.identity), ("expression", parts.expression), ("skin", parts.texture))
    return [
        pandas.DataFrame({"mode": np.arange(1, len(values) + 1), "weight": values.astype(float)}) for _, values in named
    ]


def _summary(result: Reconstruction) -> str:
    pitch, yaw, roll = np.degrees(result.coefficients.angles)
    width, height = (float(value) for value in result.mesh.extents[:2])
    turned = f"Turned {yaw:+.0f}\u00b0, nodding {pitch:+.0f}\u00b0, tilted {roll:+.0f}\u00b0."
    size = f"{width:.0f} \u00d7 {height:.0f} mm, {len(result.mesh.vertices):,} vertices."
    lines = [f"Score {result.score:.2f}. {turned} {size}"]
    lines += [f"\u26a0 {warning}" for warning in result.warnings]
    return "\n\n".join(lines)


def build_page(client: Face3DClient) -> Any:
    """The page as a gradio.Blocks, ready to `launch`.

    Raises:
        ModuleNotFoundError: gradio is not installed.
    """
    gr: Any = importlib.import_module("gradio")
    studio = Studio(client)
    with gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        visit = gr.State(None)
        number = gr.State(0)
        gr.Markdown(f"# {_TITLE}\nDrop a photograph or take one. Nothing is kept.")
        with gr.Row():
            with gr.Column(scale=2):
                photograph = gr.Image(
                    type="filepath", sources=["upload", "webcam", "clipboard"], label="Photograph", elem_id="photograph"
                )
                status = gr.Markdown(elem_id="status")
                boxes = gr.AnnotatedImage(label="Faces: click one", visible=False, elem_id="faces", show_legend=True)
                with gr.Row():
                    threshold = gr.Slider(0.3, 0.95, SCORE_THRESHOLD, step=0.05, label="Lowest score of a face")
                    again = gr.Button("Detect again", elem_id="again")
                with gr.Accordion("Options", open=False):
                    neutral = gr.Checkbox(label="Without expression")
                    balance = gr.Checkbox(label="Correct the light's colour")
                    sharpen = gr.Slider(0, 1, 0.3, step=0.1, label="Sharpening")
                    size = gr.Radio([256, 512, 1024, 2048], value=512, label="Texture, pixels")
                    apply = gr.Button("Make the face again")
            with gr.Column(scale=3):
                model = gr.Model3D(label="Face", height=480, clear_color=(0.95, 0.95, 0.96, 1.0), elem_id="model")
                summary = gr.Markdown(elem_id="summary")
                with gr.Row():
                    downloads = [gr.DownloadButton(what, interactive=False) for what in _DOWNLOADS]
                with gr.Tab("Preview"):
                    preview = gr.Image(label="From several sides", interactive=False, elem_id="preview")
                with gr.Tab("On the photograph"):
                    overlay = gr.Image(label="The mesh over the photograph", interactive=False)
                with gr.Tab("Texture"):
                    texture = gr.Image(label="Texture", interactive=False)
                with gr.Tab("Coefficients"):
                    plots = [
                        gr.BarPlot(x="mode", y="weight", title=what, height=180)
                        for what in ("Identity (80)", "Expression (64)", "Skin (80)")
                    ]
        shown = [status, boxes, model, summary, preview, overlay, texture, *plots, *downloads]
        settings = [neutral, balance, sharpen, size]
        handlers = _Handlers(gr, studio)

        def choose(event: Any, *values: Any) -> list[Any]:
            return handlers.choose(int(event.index), *values)

        # Gradio hands over the click to the parameter of this type; the name is only known here.
        choose.__annotations__["event"] = gr.SelectData

        photograph.input(handlers.open, [photograph, threshold, *settings], [visit, number, *shown])
        photograph.clear(handlers.clear, None, [visit, number, *shown])
        again.click(handlers.look_again, [visit, threshold, *settings], [visit, number, *shown])
        boxes.select(choose, [visit, *settings], [number, *shown])
        apply.click(handlers.make_again, [visit, number, *settings], shown)
    # Waiting visitors are told their place; beyond a hundred they are asked to come back.
    page.queue(max_size=100, default_concurrency_limit=4)
    page.studio = studio
    return page


class _Handlers:
    """What happens on the page: takes and gives the values of its parts, in the order of `shown`."""

    def __init__(self, gr: Any, studio: Studio) -> None:
        self._gr = gr
        self._studio = studio

    def open(self, photograph: str | None, threshold: float, *settings: Any) -> list[Any]:
        """A new photograph."""
        if not photograph:
            return self.clear()
        visit, words = self._studio.open(photograph, threshold)
        return [visit, 0, *self._shown(visit, 0, words, settings)]

    def clear(self) -> list[Any]:
        """No photograph any more."""
        return [None, 0, *self._nothing("", None)]

    def look_again(self, visit: Visit | None, threshold: float, *settings: Any) -> list[Any]:
        """The same photograph with another threshold."""
        if visit is None:
            return [None, 0, *self._nothing("Drop a photograph first.", None)]
        return [visit, 0, *self._shown(visit, 0, self._studio.look_again(visit, threshold), settings)]

    def choose(self, number: int, visit: Visit | None, *settings: Any) -> list[Any]:
        """A click on a face."""
        if visit is None or not 0 <= number < len(visit.faces):
            return [0, *self._nothing("Drop a photograph first.", visit)]
        return [number, *self._shown(visit, number, f"Face {number + 1} of {len(visit.faces)}.", settings)]

    def make_again(self, visit: Visit | None, number: int, *settings: Any) -> list[Any]:
        """The same face with other options."""
        if visit is None or not visit.faces:
            return self._nothing("Drop a photograph with a face first.", visit)
        return self._shown(visit, number, f"Face {number + 1} of {len(visit.faces)}.", settings)

    def _shown(self, visit: Visit, number: int, words: str, settings: tuple[Any, ...]) -> list[Any]:
        if not visit.faces:
            return self._nothing(words, visit)
        neutral, balance, sharpen, size = settings
        options = Options(
            pose="neutral" if neutral else "head",
            white_balance=bool(balance),
            sharpen=float(sharpen),
            texture_size=int(size),
            outputs=[
                "mesh", "texture", "preview", "vertices", "landmarks", "coefficients", "face", "camera", "warnings",
            ],
        )  # fmt: skip
        try:
            result = self._studio.make(visit, number, options)
        except (Face3DError, OSError) as error:
            return self._nothing(in_plain_words(error), visit)
        files = self._studio.files(result)
        over = None if visit.shown is None else result.overlay(visit.photograph)
        if over is not None:
            over.thumbnail((_SHOWN, _SHOWN))
        update: Callable[..., Any] = self._gr.update
        return [
            words,
            update(value=visit.annotated(), visible=visit.shown is not None),
            files["GLB"],
            _summary(result),
            result.preview,
            over,
            result.texture,
            *_plots(result),
            *(update(value=files[what], interactive=True) for what in _DOWNLOADS),
        ]

    def _nothing(self, words: str, visit: Visit | None) -> list[Any]:
        update: Callable[..., Any] = self._gr.update
        boxes = None if visit is None else visit.annotated()
        return [
            words,
            update(value=boxes, visible=bool(boxes and boxes[1])),
            None,
            "",
            *[None] * 6,  # three pictures, three plots
            *(update(value=None, interactive=False) for _ in _DOWNLOADS),
        ]
