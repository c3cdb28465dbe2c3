"""The part of the page that puts one person's face on another picture, where the server does so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from face3d_client._client import Face3DClient
from face3d_client._errors import Face3DError
from face3d_client._protocol.fuse import LONGEST_CONSENT, FuseOptions
from face3d_client._ui.studio import Studio, as_markdown, visitor_message

__all__ = ["Fuser", "add_fuse"]

_ASK: Final = "Give both photographs, and say who agreed to this picture, and to what."


class Fuser:
    """The work behind the components.

    Args:
        client: the server.
        studio: keeps the files of visitors.
    """

    def __init__(self, client: Face3DClient, studio: Studio) -> None:
        self._client = client
        self._studio = studio

    def fuse(
        self,
        source: str | None,
        target: str | None,
        consent: str,
        shape: float,
        eyes: bool,
        mouth: bool,
        enhance: bool,
        mark: bool,
    ) -> tuple[str | None, str]:
        """Fuse two photographs: the file as the server signed it, and a sentence."""
        if not source or not target or not consent.strip():
            return None, _ASK
        options = FuseOptions(
            shape=float(shape),
            eyes="source" if eyes else "target",
            mouth="source" if mouth else "target",
            enhance=bool(enhance),
            mark=bool(mark),
        )
        try:
            made = self._client.fuse(source, target, consent=consent, **options)
        except (Face3DError, OSError) as error:
            return None, visitor_message(error)
        words = ["The picture says in itself that its face was edited, by whose server, and what you wrote above."]
        words += [f"\u26a0 {as_markdown(warning)}" for warning in made.warnings]
        name = "fused.jpg" if made.format == "jpeg" else "fused.png"
        return self._studio.kept_file(made.data, name), "\n\n".join(words)


def add_fuse(gr: Any, fuser: Fuser, uploaded: Callable[[Any], str | None]) -> None:
    """Make the components inside a `gradio.Blocks`, and connect them.

    Args:
        gr: the module gradio.
        fuser: does the work.
        uploaded: gives the path of a visitor's photograph from what Gradio has of it.
    """
    with gr.Accordion("Fuse two photographs", open=False, elem_id="fuse"):
        gr.Markdown(
            "The face of one photograph on another, with everybody's consent. The result carries a signed note of how "
            "it was made and of the statement below, which everybody who has the picture can read."
        )
        with gr.Row():
            with gr.Column():
                source = gr.Image(type="filepath", sources=["upload"], label="Whose face", height=200)
                target = gr.Image(type="filepath", sources=["upload"], label="On which photograph", height=200)
                consent = gr.Textbox(
                    label="Consent: who agreed, and to what", max_length=LONGEST_CONSENT, lines=2, elem_id="consent"
                )
            with gr.Column():
                shape = gr.Slider(0, 1, 1.0, step=0.05, label="Shape: the photograph's (0) to the face's own (1)")
                eyes = gr.Checkbox(value=True, label="The face's own eyes")
                mouth = gr.Checkbox(label="The face's own mouth")
                enhance = gr.Checkbox(label="Sharpen a face of few pixels")
                mark = gr.Checkbox(value=True, label="A small visible mark in the corner")
                ask = gr.Button("Fuse", elem_id="fuse-them")
                said = gr.Markdown(elem_id="fuse-status")
                answer = gr.Image(label="Fused", interactive=False, buttons=[], type="filepath", elem_id="fused")
                download = gr.DownloadButton("The signed file", interactive=False, elem_id="fused-file")
    for picture in (source, target):
        picture.preprocess = uploaded

    def fuse(*values: Any) -> tuple[Any, ...]:
        file, words = fuser.fuse(*values)
        return file, gr.update(value=file, interactive=file is not None), words, ""  # consent is asked for each picture

    ask.click(
        fuse, [source, target, consent, shape, eyes, mouth, enhance, mark], [answer, download, said, consent],
        api_visibility="private",
    )  # fmt: skip
