"""The web page of ``face3d ui``: drop a photograph, click a face, turn it, move it, take it home.

Gradio is an extra (``pip install face3d-client[ui]``) and typed too loosely to help, so it is imported by name. One
client serves all visitors; each visitor's photograph and faces are kept in that visitor's session.

No event is an endpoint of an API, and a photograph is decoded here only after the service has found faces in it: its
decoders are caged, those of this process are not.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
from PIL import Image

from face3d_client._client import Face3DClient
from face3d_client._errors import Face3DError
from face3d_client._images import MAX_BYTES
from face3d_client._mesh.expressions import Expressions
from face3d_client._mesh.renderer import Light
from face3d_client._protocol.codec import SCORE_THRESHOLD
from face3d_client._protocol.options import Options
from face3d_client._results import Reconstruction
from face3d_client._ui.guard import PageGuard, is_upload
from face3d_client._ui.studio import DOWNLOADS, Studio, Visit, as_markdown, in_plain_words

__all__ = ["build_page", "launch_options"]

_TITLE: Final = "Face3D: a photograph becomes a 3D face"
_FORGET: Final = 3600  # seconds after which files and visits are forgotten
_VISITS: Final = 300  # kept at the same time, a few megabytes each
# The 3D view tries WebGPU first, which fails noisily and slowly where a browser has it without a graphics card.
_HEAD: Final = "<script>delete Navigator.prototype.gpu;</script>"


def launch_options(page: Any, hosts: Iterable[str] = ()) -> dict[str, Any]:
    """Words for `launch` that go with the page.

    The fonts are the visitor's own, so that the page asks no other machine, and nothing is drawn by a Node process.
    Visitors see no exception's words but those meant for them.

    Args:
        page: what `build_page` made.
        hosts: further names by which browsers may call it, see `PageGuard`.
    """
    gr: Any = importlib.import_module("gradio")
    middleware: Any = importlib.import_module("starlette.middleware")
    theme = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    guard = middleware.Middleware(PageGuard, uploads=page.GRADIO_CACHE, hosts=tuple(hosts))
    return {
        "theme": theme, "head": _HEAD, "ssr_mode": False, "max_file_size": MAX_BYTES, "footer_links": [],
        "show_error": False, "state_session_capacity": _VISITS, "enable_monitoring": False, "share": False,
        "app_kwargs": {"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None},
    }  # fmt: skip


def build_page(client: Face3DClient, expressions: Expressions | None = None) -> Any:
    """The page as a gradio.Blocks, ready to `launch` (with `launch_options`).

    Args:
        client: the server.
        expressions: the face model's, for the sliders of the expression; None: a sentence stands in their place.

    Raises:
        ModuleNotFoundError: gradio is not installed.
    """
    gr: Any = importlib.import_module("gradio")
    with gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(_FORGET, _FORGET)) as page:
        # Files in Gradio's folder are served as they are. Pictures that it puts there itself lie under their content's
        # hash, and are written again while another visitor reads them.
        studio = Studio(client, expressions, parent=page.GRADIO_CACHE)
        moods = studio.moods()
        visit = gr.State(None, time_to_live=_FORGET)
        gr.Markdown(f"# {_TITLE}\nDrop a photograph or take one. Files are deleted within two hours.")
        with gr.Row():
            with gr.Column(scale=2):
                photograph = gr.Image(
                    type="filepath", sources=["upload", "webcam", "clipboard"], label="Photograph",
                    height=240, elem_id="photograph",
                )  # fmt: skip
                # Gradio would decode it first, whatever it is, and its check for files that nobody uploaded can be
                # avoided by leaving out a word of the request.
                photograph.preprocess = lambda payload: _uploaded(gr, payload, page.GRADIO_CACHE)
                status = gr.Markdown(elem_id="status")
                faces = gr.Image(
                    show_label=False, interactive=False, visible=False, buttons=[], elem_id="faces",
                )  # fmt: skip
                threshold = gr.Slider(
                    0.3, 0.95, SCORE_THRESHOLD, step=0.05, label="Lowest score of a face", elem_id="threshold"
                )
                again = gr.Button("Detect again", elem_id="again")
                with gr.Accordion("Options", open=False):
                    neutral = gr.Checkbox(label="Without expression")
                    balance = gr.Checkbox(label="Correct the light's colour")
                    sharpen = gr.Slider(0, 1, 0.3, step=0.1, label="Sharpening")
                    size = gr.Radio([256, 512, 1024, 2048], value=512, label="Texture, pixels")
                    apply = gr.Button("Make the face again", elem_id="apply")
            with gr.Column(scale=3):
                summary = gr.Markdown(elem_id="summary")
                with gr.Tab("3D"):
                    model = gr.Model3D(label="Face", height=480, clear_color=(0.95, 0.95, 0.96, 1.0), elem_id="model")
                with gr.Tab("Move it", elem_id="move"), gr.Row():
                    with gr.Column(scale=3):
                        moved = gr.Image(label="Moved", interactive=False, buttons=[], elem_id="moved")
                        yaw = gr.Slider(-90, 90, 0, step=1, label="Turn, degrees", elem_id="yaw")
                        light = gr.Slider(-90, 90, 20, step=1, label="Light from the side, degrees")
                        height = gr.Slider(-90, 90, 30, step=1, label="Light from above, degrees")
                        strength = gr.Slider(0, 2, 1, step=0.05, label="Light's strength", elem_id="strength")
                    with gr.Column(scale=2):
                        if not moods:
                            gr.Markdown(
                                "Sliders for the expression need the face model's file: start the page with "
                                "`face3d ui --face-model face_model.npz`."
                            )
                        own = gr.Slider(0, 1.5, 1, step=0.05, label="Photographed expression", visible=bool(moods))
                        sliders = [
                            gr.Slider(0, 1, 0, step=0.05, label=mood, elem_id=f"mood-{number}")
                            for number, mood in enumerate(moods)
                        ]
                        keep = gr.Button("Make a GLB of this", elem_id="keep")
                        kept = gr.File(label="GLB", interactive=False, visible=False, elem_id="kept")
                with gr.Tab("Preview"):
                    preview = gr.Image(label="From several sides", interactive=False, elem_id="preview")
                with gr.Tab("On the photograph"):
                    overlay = gr.Image(label="The mesh over the photograph", interactive=False)
                with gr.Tab("Texture"):
                    texture = gr.Image(label="Texture", interactive=False)
                with gr.Tab("Coefficients", elem_id="coefficients"):
                    plots = [
                        gr.BarPlot(x="mode", y="weight", title=what, height=180)
                        for what in ("Identity (80)", "Expression (64)", "Skin (80)")
                    ]
                with gr.Row():
                    downloads = [gr.DownloadButton(what, interactive=False) for what in DOWNLOADS]
        shown = [status, faces, model, moved, summary, preview, overlay, texture, *plots, *downloads]
        settings = [neutral, balance, sharpen, size]
        moves = [yaw, light, height, strength, own, *sliders]
        handlers = _Handlers(gr, studio, moods)

        def choose(event: Any, *values: Any) -> list[Any]:
            return handlers.choose((float(event.index[0]), float(event.index[1])), *values)

        # Gradio hands over the click to the parameter of this type; the name is only known here.
        choose.__annotations__["event"] = gr.SelectData

        private = {"api_visibility": "private"}
        photograph.input(handlers.open, [photograph, threshold, *settings, *moves], [visit, *shown], **private)
        photograph.clear(handlers.clear, None, [visit, *shown], **private)
        again.click(handlers.look_again, [visit, threshold, *settings, *moves], [visit, *shown], **private)
        faces.select(choose, [visit, *settings, *moves], [visit, *shown], **private)
        apply.click(handlers.make_again, [visit, *settings, *moves], [visit, *shown], **private)
        for slider in moves:
            # While a picture is drawn, only the slider's last place counts.
            slider.input(
                handlers.move, [visit, *moves], [moved], trigger_mode="always_last", show_progress="hidden", **private
            )
        keep.click(handlers.keep, [visit, *moves], [kept], **private)
    # Waiting visitors are told their place; beyond a hundred they are asked to come back.
    page.queue(max_size=100, default_concurrency_limit=4, api_open=False)
    page.studio = studio
    return page


def _uploaded(gr: Any, payload: Any, uploads: str) -> str | None:
    """The path of a visitor's photograph, which must be a file that was uploaded."""
    if payload is None or payload.path is None:
        return None
    if not is_upload(payload.path, uploads):
        raise gr.Error("This photograph was not uploaded here.", print_exception=False)
    return str(payload.path)


class _Handlers:
    """What happens on the page: takes and gives the values of its parts, in the order of `shown`.

    ``values`` are those of the options (4) and of the sliders (5 and the moods').
    """

    def __init__(self, gr: Any, studio: Studio, moods: list[str]) -> None:
        self._update: Callable[..., Any] = gr.update
        self._studio = studio
        self._moods = moods

    def open(self, photograph: str | None, threshold: float, *values: Any) -> list[Any]:
        """A new photograph."""
        if not photograph:
            return self.clear()
        visit, words = self._studio.open(photograph, threshold)
        return self._made(visit, 0, words, values)

    def clear(self) -> list[Any]:
        """No photograph any more."""
        return self._nothing("", None)

    def look_again(self, visit: Visit | None, threshold: float, *values: Any) -> list[Any]:
        """The same photograph with another threshold."""
        if visit is None:
            return self._nothing("Drop a photograph first.", None)
        return self._made(visit, 0, self._studio.look_again(visit, threshold), values)

    def choose(self, place: tuple[float, float], visit: Visit | None, *values: Any) -> list[Any]:
        """A click on the photograph, at a pixel of it as shown."""
        if visit is None:
            return self._nothing("Drop a photograph first.", None)
        number = visit.face_at(*place)
        if number is None:
            return [visit, "Click inside one of the boxes.", *[self._update()] * (len(self._nothing("", None)) - 2)]
        return self._made(visit, number, f"Face {number + 1} of {len(visit.faces)}.", values)

    def make_again(self, visit: Visit | None, *values: Any) -> list[Any]:
        """The same face with other options."""
        if visit is None or not visit.faces:
            return self._nothing("Drop a photograph with a face first.", visit)
        return self._made(visit, visit.chosen, f"Face {visit.chosen + 1} of {len(visit.faces)}.", values)

    def move(self, visit: Visit | None, *values: Any) -> Any:
        """A slider was moved."""
        return None if visit is None or visit.result is None else self._moved_picture(visit.result, values)

    def keep(self, visit: Visit | None, *values: Any) -> Any:
        """The face as the sliders left it, as a file; turn and light are no part of it."""
        if visit is None or visit.result is None:
            return self._update(value=None, visible=False)
        return self._update(value=self._studio.moved_file(self._moved(visit.result, values)), visible=True)

    def _moved(self, result: Reconstruction, values: tuple[Any, ...]) -> Any:
        return self._studio.moved(result, float(values[4]), dict(zip(self._moods, values[5:], strict=True)))

    def _moved_picture(self, result: Reconstruction, values: tuple[Any, ...]) -> Any:
        yaw, side, height, strength = (float(value) for value in values[:4])
        picture = self._studio.picture(self._moved(result, values), yaw, Light(side, height, strength))
        return self._studio.picture_file(picture, "moved.jpg")

    def _file(self, picture: Image.Image | None, name: str) -> str | None:
        return None if picture is None else self._studio.picture_file(picture, name)

    def _made(self, visit: Visit, number: int, words: str, values: tuple[Any, ...]) -> list[Any]:
        if not visit.faces:
            return self._nothing(words, visit)
        neutral, balance, sharpen, size = values[:4]
        options = Options(
            pose="neutral" if neutral else "head",
            white_balance=bool(balance),
            sharpen=float(sharpen),
            texture_size=int(size),
            outputs=[
                "mesh", "texture", "preview", "vertices", "vertices_neutral", "landmarks", "coefficients", "face",
                "camera", "warnings", "face_model",
            ],
        )  # fmt: skip
        try:
            return self._filled(visit, words, self._studio.make(visit, number, options), values)
        except (Face3DError, OSError) as error:
            return self._nothing(in_plain_words(error), visit)

    def _filled(self, visit: Visit, words: str, result: Reconstruction, values: tuple[Any, ...]) -> list[Any]:
        """All of the page for this face; raises Face3DError where the service's answer cannot be used."""
        files = self._studio.files(result)
        return [
            visit,
            words,
            self._update(value=self._file(visit.annotated(), "faces.jpg"), visible=visit.shown is not None),
            files["GLB"],
            self._moved_picture(result, values[4:]),
            _summary(result),
            self._file(result.preview, "preview.png"),
            self._file(visit.overlaid(), "overlay.jpg"),
            self._file(result.texture, "texture.png"),
            *_plots(result),
            *(self._update(value=files[what], interactive=True) for what in DOWNLOADS),
        ]

    def _nothing(self, words: str, visit: Visit | None) -> list[Any]:
        boxes = visit.annotated() if visit is not None and visit.faces else None
        return [
            visit,
            words,
            self._update(value=self._file(boxes, "faces.jpg"), visible=boxes is not None),
            None,
            None,
            "",
            *[None] * 6,  # three pictures, three plots
            *(self._update(value=None, interactive=False) for _ in DOWNLOADS),
        ]


def _plots(result: Reconstruction) -> Any:
    pandas: Any = importlib.import_module("pandas")
    parts = result.coefficients
    return [
        pandas.DataFrame({"mode": np.arange(1, len(values) + 1), "weight": values.astype(float)})
        for values in (parts.identity, parts.expression, parts.texture)
    ]


def _summary(result: Reconstruction) -> str:
    pitch, yaw, roll = np.degrees(result.coefficients.angles)
    width, height = (float(value) for value in result.mesh.extents[:2])
    turned = f"Turned {yaw:+.0f}\u00b0, nodding {pitch:+.0f}\u00b0, tilted {roll:+.0f}\u00b0."
    size = f"{width:.0f} \u00d7 {height:.0f} mm, {len(result.mesh.vertices):,} vertices."
    lines = [f"Score {result.score:.2f}. {turned} {size}"]
    lines += [f"\u26a0 {as_markdown(warning)}" for warning in result.warnings]
    return "\n\n".join(lines)
