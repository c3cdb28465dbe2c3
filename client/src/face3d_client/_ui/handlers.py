"""Event handlers of the page."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from PIL import Image

from face3d_client._errors import Face3DError
from face3d_client._mesh.renderer import Light
from face3d_client._protocol.options import Options
from face3d_client._results import Reconstruction
from face3d_client._ui.studio import DOWNLOADS, Studio, Visit, as_markdown, visitor_message

__all__ = ["Handlers"]

# Face alone, rig, without expression, as photographed, white balance, sharpening, texture size, enhanced; texture
# without light, relief, without glasses, hair.
_OPTIONS: Final = 12


class Handlers:
    """Event handlers of the page. They take and return the values of its components, in the order of `Layout.shown`.

    ``values`` are those of the options (`_OPTIONS`) and of the sliders (5, then one for each mood).

    Args:
        gr: the module gradio.
        studio: does the work.
        moods: names of the sliders of the expression.
    """

    def __init__(self, gr: Any, studio: Studio, moods: list[str]) -> None:
        self._update: Callable[..., Any] = gr.update
        self._studio = studio
        self._moods = moods

    def open(self, photograph: str | None, threshold: float, *values: Any) -> list[Any]:
        """Open a new photograph."""
        if not photograph:
            return self.clear()
        visit, words = self._studio.open(photograph, threshold)
        return self._made(visit, 0, words, values)

    def clear(self) -> list[Any]:
        """Close the photograph."""
        return self._nothing("", None)

    def look_again(self, visit: Visit | None, threshold: float, *values: Any) -> list[Any]:
        """Detect again in the same photograph, with another threshold."""
        if visit is None:
            return self._nothing("Drop a photograph first.", None)
        return self._made(visit, 0, self._studio.look_again(visit, threshold), values)

    def choose(self, place: tuple[float, float], visit: Visit | None, *values: Any) -> list[Any]:
        """Choose the face at a pixel of the photograph as shown."""
        if visit is None:
            return self._nothing("Drop a photograph first.", None)
        number = visit.face_at(*place)
        if number is None:
            return [visit, "Click inside one of the boxes.", *[self._update()] * (len(self._nothing("", None)) - 2)]
        return self._made(visit, number, f"Face {number + 1} of {len(visit.faces)}.", values)

    def make_again(self, visit: Visit | None, *values: Any) -> list[Any]:
        """Make the same face again with other options."""
        if visit is None or not visit.faces:
            return self._nothing("Drop a photograph with a face first.", visit)
        return self._made(visit, visit.chosen, f"Face {visit.chosen + 1} of {len(visit.faces)}.", values)

    def move(self, visit: Visit | None, *values: Any) -> Any:
        """Draw the face as the sliders say."""
        return None if visit is None or visit.result is None else self._moved_picture(visit.result, values)

    def keep(self, visit: Visit | None, *values: Any) -> Any:
        """Make a file of the face as the sliders left it; turn and light are no part of it."""
        if visit is None or visit.result is None:
            return self._update(value=None, visible=False)
        own, moods = self._expression(values)
        return self._update(value=self._studio.moved_file(visit.result, own, moods), visible=True)

    def _expression(self, values: tuple[Any, ...]) -> tuple[float, dict[str, float]]:
        return float(values[4]), dict(zip(self._moods, values[5:], strict=True))

    def _moved_picture(self, result: Reconstruction, values: tuple[Any, ...]) -> Any:
        yaw, side, height, strength = (float(value) for value in values[:4])
        picture = self._studio.picture(
            self._studio.moved(result, *self._expression(values)), yaw, Light(side, height, strength)
        )
        return self._studio.picture_file(picture, "moved.jpg")

    def _file(self, picture: Image.Image | None, name: str) -> str | None:
        return None if picture is None else self._studio.picture_file(picture, name)

    def _made(self, visit: Visit, number: int, words: str, values: tuple[Any, ...]) -> list[Any]:
        if not visit.faces:
            return self._nothing(words, visit)
        face_only, rig, neutral, camera, balance, sharpen, size, upscale, albedo, detail, bare, hair = values[:_OPTIONS]
        options = Options(
            mesh="face" if face_only else "head",
            rig="arkit" if rig else "none",
            expression="neutral" if neutral else "photo",
            pose="camera" if camera else "canonical",
            white_balance=bool(balance),
            sharpen=float(sharpen),
            texture_size=int(size) or None,
            upscale=bool(upscale),
            texture_light="albedo" if albedo else "photo",
            detail=float(detail),
            glasses="remove" if bare else "keep",
            hair="paint" if hair else "skin",
            outputs=[
                "mesh", "texture", "preview", "vertices", "vertices_neutral", "landmarks", "coefficients", "face",
                "camera", "warnings", "face_model",
            ],
        )  # fmt: skip
        try:
            return self._filled(visit, words, self._studio.make(visit, number, options), values)
        except (Face3DError, OSError) as error:
            return self._nothing(visitor_message(error), visit)

    def _filled(self, visit: Visit, words: str, result: Reconstruction, values: tuple[Any, ...]) -> list[Any]:
        """Fill the page for this face.

        Raises:
            Face3DError: the service's answer cannot be used.
        """
        files = self._studio.files(result)
        return [
            visit,
            words,
            self._update(value=self._file(visit.annotated(), "faces.jpg"), visible=visit.shown is not None),
            files["GLB"],
            self._moved_picture(result, values[_OPTIONS:]),
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
    shape = f"{width:.0f} \u00d7 {height:.0f} mm (the model's size, not measured), {len(result.vertices):,} vertices."
    lines = [f"Score {result.score:.2f}. {turned} {shape}"]
    if result.rigged:
        strong = sorted(result.blendshapes.items(), key=lambda item: -item[1])[:4]
        lines.append("Strongest shapes: " + ", ".join(f"{name} {weight:.2f}" for name, weight in strong) + ".")
    lines += [f"\u26a0 {as_markdown(warning)}" for warning in result.warnings]
    return "\n\n".join(lines)
