"""The part of the page that makes one head of several photographs of a person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from face3d_client._client import Face3DClient
from face3d_client._errors import Face3DError
from face3d_client._images import read_file
from face3d_client._person import Person, naming_photographs
from face3d_client._ui.studio import Studio, as_markdown, visitor_message

__all__ = ["PersonMaker", "add_person"]

_MOST: Final = 8  # photographs of a person
_ASK: Final = f"Give two to {_MOST} photographs of one person: one from the front, and from each side."
_KINDS: Final = ["image", ".heic", ".heif", ".avif"]  # not every browser knows the last ones for pictures


class PersonMaker:
    """The work behind the components.

    Args:
        client: the server.
        studio: keeps the files of visitors.
    """

    def __init__(self, client: Face3DClient, studio: Studio) -> None:
        self._client = client
        self._studio = studio

    def make(
        self, photographs: list[str] | None, rig: bool, neutral: bool, likeness: float
    ) -> tuple[str | None, str | None, str]:
        """Make a head: its GLB, a picture from several sides, and what each photograph gave to it."""
        if not photographs or len(photographs) > _MOST:
            return None, None, _ASK
        # Named by their numbers: where they lie on this machine is nothing to a visitor.
        names = [Path(f"photograph {number}") for number in range(1, len(photographs) + 1)]
        try:
            with naming_photographs(names):
                person = self._client.reconstruct_person(
                    [read_file(photograph) for photograph in photographs],
                    rig="arkit" if rig else "none",
                    expression="neutral" if neutral else "photo",
                    likeness=float(likeness),
                    outputs=["mesh", "preview", "warnings"],
                )
            preview = self._studio.picture_file(person.head.preview, "person.png")
            return self._studio.kept_file(person.head.glb, "person.glb"), preview, _told(person)
        except (Face3DError, OSError) as error:
            return None, None, visitor_message(error)


def _told(person: Person) -> str:
    """Say what each photograph gave, and what is doubtful about it."""
    lines = []
    for number, (weight, photograph) in enumerate(zip(person.weights, person.photographs, strict=True), 1):
        line = f"Photograph {number}: {weight:.0%} of the shape"
        if len(person.weights) > 1:
            line += f", {person.similarity[number - 1]:.2f} like the others"
        line += " (its expression)." if number == person.reference + 1 else "."
        lines.append(" ".join([line, *(f"\u26a0 {as_markdown(warning)}" for warning in photograph.warnings)]))
    return "\n\n".join(lines)


def add_person(gr: Any, maker: PersonMaker, uploaded: Callable[[Any], str | None]) -> None:
    """Make the components inside a `gradio.Blocks`, and connect them.

    Args:
        gr: the module gradio.
        maker: does the work.
        uploaded: gives the path of a visitor's photograph from what Gradio has of it.
    """
    with gr.Accordion("One head of several photographs", open=False, elem_id="several"):
        gr.Markdown(
            "Two to eight photographs of one person, taken in one place: from the front, and turned by 30 to 50 "
            "degrees to each side. The sides are then seen and not guessed, and the shape is surer."
        )
        with gr.Row():
            with gr.Column(scale=2):
                photographs = gr.File(
                    file_count="multiple", file_types=_KINDS, label="Photographs", height=160, elem_id="photographs"
                )
                rig = gr.Checkbox(value=True, label="With ARKit's 52 shapes")
                neutral = gr.Checkbox(label="Without expression")
                likeness = gr.Slider(0, 2, 1, step=0.1, label="How far the shape leaves the mean face")
                make = gr.Button("Make the head", elem_id="make-person")
                said = gr.Markdown(elem_id="person-status")
            with gr.Column(scale=3):
                model = gr.Model3D(
                    label="Head", height=400, clear_color=(0.95, 0.95, 0.96, 1.0), elem_id="person-model"
                )
                preview = gr.Image(label="From several sides", interactive=False, elem_id="person-preview")
                download = gr.DownloadButton("GLB of this head", interactive=False, elem_id="person-file")
    photographs.preprocess = lambda payload: _all_uploaded(uploaded, payload)

    def made(*values: Any) -> tuple[Any, ...]:
        file, picture, words = maker.make(*values)
        return file, picture, gr.update(value=file, interactive=file is not None), words

    make.click(made, [photographs, rig, neutral, likeness], [model, preview, download, said], api_visibility="private")


def _all_uploaded(uploaded: Callable[[Any], str | None], payload: Any) -> list[str]:
    """Return the paths of a visitor's photographs, each of which must be a file that was uploaded."""
    files = [] if payload is None else payload.root
    return [path for path in map(uploaded, files) if path is not None]
