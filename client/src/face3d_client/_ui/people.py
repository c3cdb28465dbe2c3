"""The part of the page that names people: enrol some, then name the faces of a group.

Vectors live in the visitor's session and nowhere else; closing the page forgets them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

from face3d_client._client import Face3DClient
from face3d_client._detection import DetectedFace
from face3d_client._embedding import Embedding
from face3d_client._errors import Face3DError
from face3d_client._text import printable
from face3d_client._ui.studio import as_markdown, visitor_message
from face3d_client.gallery import MINIMUM_QUALITY, threshold_for

__all__ = ["People", "add_people"]

MAX_PEOPLE: Final = 20  # of a visitor
MAX_NAME: Final = 40
SHOWN: Final = 900  # longer side of the picture with names, pixels
Known = dict[str, Embedding]


class People:
    """The work behind the components: who is known to a visitor, and who is on a photograph."""

    def __init__(self, client: Face3DClient) -> None:
        self._client = client

    def enrol(self, known: Known | None, name: str, photograph: str | None, agreed: bool) -> tuple[Known, str]:
        """Add a person, and say what became of it."""
        known = dict(known or {})
        name = printable(name.strip(), MAX_NAME)
        if not agreed or not name or not photograph:
            return known, "Give a name and a photograph, and say that the person agrees."
        if len(known) >= MAX_PEOPLE and name not in known:
            return known, f"No more than {MAX_PEOPLE} people at a time."
        try:
            embedding = self._client.embed(photograph)
        except (Face3DError, OSError) as error:
            return known, visitor_message(error)
        if any(value < least for value, least in zip(embedding.quality, MINIMUM_QUALITY, strict=True)):
            return known, "This photograph is too small, blurred, turned or cut off to know a person by."
        known[name] = embedding
        return known, "Known here: " + ", ".join(as_markdown(one) for one in known) + "."

    def name_faces(self, known: Known | None, photograph: str | None) -> tuple[Image.Image | None, str]:
        """Name the faces of a photograph: the picture with the names, and a sentence."""
        if not known or not photograph:
            return None, "Add somebody first, and then a photograph."
        try:
            faces = sorted(self._client.detect(photograph), key=lambda face: face.box[0])  # as one reads
            named = [(face, self._name(known, self._client.embed(photograph, face=face))) for face in faces]
        except (Face3DError, OSError) as error:
            return None, visitor_message(error)
        if not named:
            return None, "No face was found."
        with Image.open(photograph) as picture:  # the service has decoded it before
            drawn = _drawn(picture.convert("RGB"), named)
        return drawn, "; ".join(as_markdown(name or "nobody") for _, name in named) + "."

    @staticmethod
    def _name(known: Known, face: Embedding) -> str | None:
        likeness = {name: face.similarity(other) for name, other in known.items()}
        best = max(likeness, key=lambda name: likeness[name])
        return best if likeness[best] >= threshold_for(1e-3, len(known)) else None


def _drawn(picture: Image.Image, named: list[tuple[DetectedFace, str | None]]) -> Image.Image:
    """The photograph with a box and a name at every face."""
    scale = min(1.0, SHOWN / max(picture.size))
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(max(14, picture.height // 28))
    for face, name in named:
        x1, y1, x2, y2 = (float(value) * scale for value in face.box)
        colour = (37, 99, 163) if name else (110, 110, 110)
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=3)
        text = name or "nobody"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        low = min(y2, picture.height - (bottom - top) - 10)
        draw.rectangle((x1, low, x1 + right - left + 12, low + bottom - top + 10), fill=colour)
        draw.text((x1 + 6 - left, low + 5 - top), text, font=font, fill="white")
    return picture


def add_people(gr: Any, client: Face3DClient, uploaded: Callable[[Any], str | None], forget: int) -> None:
    """Make the components inside a `gradio.Blocks`, and connect them.

    Args:
        gr: the module gradio.
        client: the server.
        uploaded: gives the path of a visitor's photograph from what Gradio has of it.
        forget: seconds after which a visit is deleted.
    """
    people, private = People(client), {"api_visibility": "private"}
    with gr.Accordion("Who is it?", open=False, elem_id="people"):
        gr.Markdown(
            "Add people by a photograph each, then name the faces of another. Who they are is forgotten with the visit."
        )
        known = gr.State(None, time_to_live=forget)
        with gr.Row():
            with gr.Column():
                name = gr.Textbox(label="Name", max_length=MAX_NAME, elem_id="person")
                portrait = gr.Image(type="filepath", sources=["upload"], label="Photograph of this person", height=200)
                agreed = gr.Checkbox(label="This person agrees to be recognised", elem_id="agreed")
                add = gr.Button("Add", elem_id="enrol")
                status = gr.Markdown(elem_id="known")
            with gr.Column():
                group = gr.Image(type="filepath", sources=["upload"], label="Photograph of a group", height=200)
                ask = gr.Button("Name the faces", elem_id="name-faces")
                answer = gr.Image(label="Names", interactive=False, buttons=[], elem_id="names")
                said = gr.Markdown(elem_id="named")
    for picture in (portrait, group):
        picture.preprocess = uploaded

    def enrol(*values: Any) -> tuple[Any, ...]:
        return *people.enrol(*values), False  # each person is asked

    add.click(enrol, [known, name, portrait, agreed], [known, status, agreed], **private)
    ask.click(people.name_faces, [known, group], [answer, said], **private)
