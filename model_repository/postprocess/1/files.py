"""The files of one face, each made from what the request brought along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from enhancing import Enhance, unchanged
from face_tensors import check_context, check_expression, check_places, check_shapes
from figure import Figure
from finish import HALVED, MIME, encode
from irises import Irises, measure_eyes
from likeness import with_likeness
from numpy.typing import NDArray
from options import Options, Refused
from photograph import USUAL_TEXTURE
from placing import Upright, face_upright, head_upright
from preview import TEXTURE_SIDE, page
from skin import Skin
from surface import Surface

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]


class Files:
    """What can be made of the tensors of one face. Each property is an output of the model.

    A thumbnail is taken from the tensors where a step before has already made it.
    """

    def __init__(
        self, surface: Surface, tensors: Mapping[str, NDArray[Any]], options: Options, enhance: Enhance = unchanged
    ) -> None:
        """Take the tensors of the configuration, without the batch dimension; any may be missing.

        ``enhance`` asks the model of that name, where `upscale` needs it.

        Raises:
            Refused: ``BadOption``, the face model has no shapes for the rig.
        """
        self._surface = surface
        self._tensors = tensors
        self._options = options
        self._skin = Skin(surface, tensors, options, enhance)
        if options.rig != "none" and surface.head is None:
            raise Refused(
                "BadOption",
                f'`rig` is "{options.rig}", but the face model here ({surface.name}) has no shapes of that kind: '
                "leave it out.",
            )

    @cached_property
    def finished(self) -> U8:
        """The texture with the options applied: uint8 [size, size, 3] RGB, row 0 is v = 1."""
        return self._skin.finished

    @property
    def mesh_done(self) -> NDArray[np.bool_]:
        """Bool [1], true: what the calls for other outputs wait for."""
        return np.array([True])

    @property
    def visibility(self) -> U8:
        """uint8 [1, 1024, 1024], 255 where the texture is seen skin, as the texture network says it."""
        places = self._need("places")
        check_places(places)
        seen = cv2.resize(places[3], (USUAL_TEXTURE, USUAL_TEXTURE), interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.convertScaleAbs(seen, alpha=255)[None], np.uint8)

    @cached_property
    def thumbnail(self) -> U8:
        """The finished texture, no larger than the preview can show: uint8 [side, side, 3]."""
        if "thumbnail" in self._tensors:
            return self._tensors["thumbnail"]
        if len(self.finished) <= TEXTURE_SIDE:
            return self.finished
        small = cv2.resize(self.finished, (TEXTURE_SIDE, TEXTURE_SIDE), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8)

    @property
    def mesh(self) -> bytes:
        """A GLB file with the textures inside."""
        surface, options = self._surface, self._options
        kind = options.texture_format or "jpeg"
        said = {
            **{name: getattr(options, name) for name in ("mesh", "rig", "expression", "pose")},
            "likeness": options.likeness,
            "units": "metre",
            "face_model": surface.name,
            "fingerprint": str(surface.fingerprint),
        }
        textures = [("skin", encode(self.finished, kind, HALVED), MIME[kind])]
        if (relief := self._skin.relief_map(kind)) is not None:
            textures.append(("skin_normal", relief, MIME[kind]))
        return self._figure.write(textures, said)

    @property
    def texture_warnings(self) -> list[bytes]:
        """What is doubtful about the texture, a sentence each."""
        return [sentence.encode() for sentence in self.texture_doubts.values()]

    @property
    def texture_doubts(self) -> dict[str, str]:
        """Kinds of doubt about the texture, each with its sentence."""
        return self._skin.doubts

    @property
    def upright(self) -> Figure:
        """The mesh in the head's frame, for pictures: without morph targets."""
        return replace(self._figure_of(self._upright, False), expression=None)

    @property
    def texture_image(self) -> bytes:
        """The texture as a PNG or JPEG file."""
        return encode(self.finished, self._options.texture_format or "png", HALVED)

    @property
    def preview(self) -> bytes:
        """The picture of the result, a PNG file."""
        context = self._need("context")
        check_context(context)
        crop = self._need("crop_hd")
        seen, upright = self.upright, self._upright
        posed = replace(seen, vertices=upright.pose.apply(upright.vertices))
        sheet = page(posed.painted(self.thumbnail), seen.painted(self.thumbnail), upright.pose.turn, context, crop)
        return encode(sheet, "png")

    @cached_property
    def _figure(self) -> Figure:
        """The mesh in the frame of the file."""
        return self._figure_of(self._upright, self._options.pose == "camera")

    def _figure_of(self, upright: Upright, posed: bool) -> Figure:
        vertices, turn = upright.vertices, np.eye(3, dtype=np.float32)
        if posed:
            vertices, turn = upright.pose.apply(vertices), upright.pose.turn
        expression = upright.expression if self._options.rig != "none" else None
        return Figure(self._surface, self._options.mesh, vertices, turn, upright.light, self._irises, expression)

    @cached_property
    def _upright(self) -> Upright:
        """The shape in the head's frame, with the expression that was asked for."""
        shapes = with_likeness(self._shapes, self._surface.mean, self._options.likeness)
        neutral = self._options.expression == "neutral"
        if self._surface.head is None:
            return face_upright(shapes, neutral)
        return head_upright(self._surface.head, shapes, self._expression, self._irises.sideways, neutral)

    @cached_property
    def _irises(self) -> Irises:
        """What the photograph shows of the eyes."""
        if self._surface.head is None:
            return Irises()
        context = self._need("context")
        check_context(context)
        return measure_eyes(self._surface.head, self._shapes[0], context, self._need("crop_hd"))

    @cached_property
    def _shapes(self) -> F32:
        shapes = self._need("shapes")
        self._surface.check(int(self._need("fingerprint")[0]), shapes.shape[1])
        check_shapes(shapes)
        return shapes

    @property
    def _expression(self) -> F32:
        expression = self._need("expression")
        check_expression(expression)
        return expression

    def _need(self, name: str) -> NDArray[Any]:
        if name not in self._tensors:
            raise Refused("BadOption", f"the request lacks `{name}`, which this output is made of: send it as well.")
        return self._tensors[name]
