"""Components of the page, in the places where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from face3d_client._protocol.codec import SCORE_THRESHOLD
from face3d_client._ui.guard import is_upload
from face3d_client._ui.studio import DOWNLOADS

__all__ = ["FORGET", "TITLE", "Layout", "lay_out", "uploaded"]

TITLE = "Face3D: a photograph becomes a 3D face"
FORGET = 3600  # seconds after which files and visits are deleted


@dataclass(frozen=True)
class Input:
    """The photograph and its options.

    Attributes:
        photograph: takes the file.
        status: what to tell the visitor.
        faces: the photograph with a box around every face.
        threshold: lowest score of a face.
        again: detects again.
        settings: options of the reconstruction, in the order of `handlers`.
        apply: makes the face again.
    """

    photograph: Any
    status: Any
    faces: Any
    threshold: Any
    again: Any
    settings: list[Any]
    apply: Any


@dataclass(frozen=True)
class Motion:
    """The sliders that turn, light and move the face.

    Attributes:
        picture: the face as they say.
        sliders: yaw, light from the side, from above, its strength, the photographed expression, one for each mood.
        keep: makes a file of it.
        file: that file.
    """

    picture: Any
    sliders: list[Any]
    keep: Any
    file: Any


@dataclass(frozen=True)
class Layout:
    """All components that events read or write.

    Attributes:
        visit: the visitor's `Visit`.
        input: the photograph and its options.
        motion: the sliders.
        shown: what an event that makes a face writes, after `visit`.
    """

    visit: Any
    input: Input
    motion: Motion
    shown: list[Any]


def lay_out(gr: Any, moods: list[str], uploads: str) -> Layout:
    """Make the components, inside a `gradio.Blocks`.

    Args:
        gr: the module gradio.
        moods: names of the sliders of the expression.
        uploads: the folder of uploaded files.
    """
    visit = gr.State(None, time_to_live=FORGET)
    gr.Markdown(f"# {TITLE}\nDrop a photograph or take one. Files are deleted within two hours.")
    with gr.Row():
        with gr.Column(scale=2):
            given = _input(gr, uploads)
        with gr.Column(scale=3):
            summary = gr.Markdown(elem_id="summary")
            with gr.Tab("3D"):
                model = gr.Model3D(label="Face", height=480, clear_color=(0.95, 0.95, 0.96, 1.0), elem_id="model")
            with gr.Tab("Move it", elem_id="move"), gr.Row():
                motion = _motion(gr, moods)
            pictures, plots = _pictures(gr)
            with gr.Row():
                downloads = [gr.DownloadButton(what, interactive=False) for what in DOWNLOADS]
    shown = [given.status, given.faces, model, motion.picture, summary, *pictures, *plots, *downloads]
    return Layout(visit, given, motion, shown)


def _input(gr: Any, uploads: str) -> Input:
    """Make the left column."""
    photograph = gr.Image(
        type="filepath", sources=["upload", "webcam", "clipboard"], label="Photograph",
        height=240, elem_id="photograph",
    )  # fmt: skip
    # Gradio would decode it first, whatever it is, and its check for files that nobody uploaded can be avoided by
    # leaving out a word of the request.
    photograph.preprocess = lambda payload: uploaded(gr, payload, uploads)
    status = gr.Markdown(elem_id="status")
    faces = gr.Image(show_label=False, interactive=False, visible=False, buttons=[], elem_id="faces")
    threshold = gr.Slider(0.3, 0.95, SCORE_THRESHOLD, step=0.05, label="Lowest score of a face", elem_id="threshold")
    again = gr.Button("Detect again", elem_id="again")
    with gr.Accordion("Options", open=False):
        face_only = gr.Checkbox(label="The face alone, not the whole head")
        rig = gr.Checkbox(value=True, label="With ARKit's 52 shapes, which the sliders move")
        neutral = gr.Checkbox(label="Without expression")
        camera = gr.Checkbox(label="Turned as in the photograph")
        balance = gr.Checkbox(label="Correct the light's colour")
        sharpen = gr.Slider(0, 1, 0.3, step=0.1, label="Sharpening")
        sizes = [("as photographed, up to 1024", 0), *((str(side), side) for side in (256, 512, 1024, 2048, 4096))]
        size = gr.Radio(sizes, value=0, label="Texture, pixels")
        upscale = gr.Checkbox(label="Enhance a face of few pixels")
        albedo = gr.Checkbox(label="Texture without the photograph's light")
        detail = gr.Slider(0, 2, 0, step=0.1, label="Relief of the skin")
        no_glasses = gr.Checkbox(label="Texture without glasses")
        hair = gr.Checkbox(label="Hair on the scalp, where it is seen")
        apply = gr.Button("Make the face again", elem_id="apply")
    settings = [face_only, rig, neutral, camera, balance, sharpen, size, upscale, albedo, detail, no_glasses, hair]
    return Input(photograph, status, faces, threshold, again, settings, apply)


def _motion(gr: Any, moods: list[str]) -> Motion:
    """Make the sliders and the picture that follows them."""
    with gr.Column(scale=3):
        picture = gr.Image(label="Moved", interactive=False, buttons=[], elem_id="moved")
        view = [
            gr.Slider(-90, 90, 0, step=1, label="Turn, degrees", elem_id="yaw"),
            gr.Slider(-90, 90, 20, step=1, label="Light from the side, degrees"),
            gr.Slider(-90, 90, 30, step=1, label="Light from above, degrees"),
            gr.Slider(0, 2, 1, step=0.05, label="Light's strength", elem_id="strength"),
        ]
    with gr.Column(scale=2):
        own = gr.Slider(0, 1.5, 1, step=0.05, label="Photographed expression", elem_id="own")
        expression = [
            gr.Slider(0, 1, 0, step=0.05, label=mood, elem_id=f"mood-{number}") for number, mood in enumerate(moods)
        ]
        keep = gr.Button("Make a GLB of this", elem_id="keep")
        file = gr.File(label="GLB", interactive=False, visible=False, elem_id="kept")
    return Motion(picture, [*view, own, *expression], keep, file)


def _pictures(gr: Any) -> tuple[list[Any], list[Any]]:
    """Make the tabs of pictures (preview, overlay, texture) and of plots (identity, expression, skin)."""
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
    return [preview, overlay, texture], plots


def uploaded(gr: Any, payload: Any, uploads: str) -> str | None:
    """Return the path of a visitor's photograph, which must be a file that was uploaded."""
    if payload is None or payload.path is None:
        return None
    if not is_upload(payload.path, uploads):
        raise gr.Error("This photograph was not uploaded here.", print_exception=False)
    return str(payload.path)
