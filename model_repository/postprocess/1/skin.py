"""The skin of one face: its texture as the request's options have it, its relief, and what is doubtful about both."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from covers import HAIR, Covers, Regions, covers_of, scalp_hair
from enhancing import Enhance, unchanged
from face_tensors import check_context, check_places
from finish import Box, encode, finish
from layers import paint, shown_share, take_off
from light import LINEAR, Light, divided, fit_light, gains
from numpy.typing import NDArray
from options import Options, Refused
from photograph import USUAL_TEXTURE, Photograph, box_of, enlarged
from relief import confidence, normal_map, relief
from surface import Surface
from texels import Texels

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

# What the photograph shows is known by these, beside the shape.
SHOWN = ("places", "parts", "context", "crop_hd", "close_up", "close_up_camera")
SENTENCES = {
    "glasses": 'The face wears glasses, which are in the texture as if painted: `glasses` "remove" leaves them out.',
    "mask": "Something covers mouth and chin, a mask perhaps: what is under it is a guess.",
    "thing": "A hand or another thing covers a part of the face: what is under it is a guess.",
    "hair": "Hair lies over a part of the face: the skin under it is a guess.",
    "relief": "The face is too small or too blurred for a relief of its skin: the mesh has no normal map.",
}


class Skin:
    """What is made of the photograph for the skin's texture.

    Args:
        surface: of the face model.
        tensors: those of the configuration, without the batch dimension; any may be missing.
        options: of the request.
        enhance: asks the model of that name; called only where `upscale` is asked for.
    """

    def __init__(
        self, surface: Surface, tensors: Mapping[str, NDArray[Any]], options: Options, enhance: Enhance = unchanged
    ) -> None:
        self._surface, self._tensors, self._options, self._enhance = surface, tensors, options, enhance

    @cached_property
    def finished(self) -> U8:
        """The texture with the options applied: uint8 [side, side, 3] RGB, row 0 is v = 1."""
        return finish(self._lit, self._need("crop_hd"), self._options, self._side, self._shown_box)

    @cached_property
    def doubts(self) -> dict[str, str]:
        """Kinds of doubt about the texture, each with a sentence."""
        found: dict[str, str] = {}
        if self._photograph is None:
            return found
        for kind in self._covers.kinds:
            if kind != "glasses" or self._options.glasses == "keep":
                found[kind] = SENTENCES[kind]
        if self._side < (self._options.texture_size or 0):
            found["size"] = (
                f"The photograph has pixels for a texture of {self._side} texels a side, not of "
                f"{self._options.texture_size}: it was not enlarged."
            )
        if self._options.detail and not self._confidence:
            found["relief"] = SENTENCES["relief"]
        return found

    def relief_map(self, kind: str) -> bytes | None:
        """The normal map as a ``png`` or ``jpeg`` file; None where none is asked for, or the photograph has none."""
        strength = self._options.detail
        if not strength or not self._confidence:
            return None
        posed = self._posed
        hair = self._shown.at_table(self._parts[HAIR].astype(np.float32) / 255)
        slopes = relief(self._painted, self._shown, self._texels, posed, self._light, hair)
        return encode(normal_map(slopes, strength * self._confidence), kind)

    @property
    def _shown_box(self) -> Box | None:
        """Where the texture has what the photograph shows; None where that may be anywhere."""
        if self._photograph is None or self._options.hair == "paint":
            return None
        seen = self._shown.places[3]
        if "glasses" in self._covers.kinds:
            if self._options.glasses != "keep":
                return None
            seen = np.maximum(seen, shown_share(self._shown, self._covers.glasses))
        return box_of(seen)

    @cached_property
    def _side(self) -> int:
        there = len(self._given) if self._photograph is None else self._photograph.largest_texture
        return min(self._options.texture_size or USUAL_TEXTURE, there)

    @cached_property
    def _given(self) -> U8:
        """The texture as it came: uint8 [side, side, 3] RGB, `SMALL_TEXTURE` or `USUAL_TEXTURE` a side."""
        return np.asarray(cv2.merge(list(self._need("texture"))), np.uint8)  # a tenth of a transposed copy's time

    @cached_property
    def _painted(self) -> U8:
        """The texture in the light of the photograph, with what is painted over the skin, as large as given or more."""
        image = self._given
        if self._surface.lining is not None:
            self._surface.lining.paint(image)
        if self._photograph is None:
            return image
        if self._side > USUAL_TEXTURE or (self._options.upscale and self._side > len(image)):
            image = enlarged(image, self._photograph, self._side)
        if "glasses" in self._covers.kinds:
            if self._options.glasses == "keep":
                paint(image, self._photograph, self._covers.glasses)
            else:
                take_off(image, self._photograph, self._covers.glasses, self._surface.texels)
        if self._options.hair == "paint":
            paint(image, self._photograph, scalp_hair(self._parts, self._regions))
        return image

    @property
    def _lit(self) -> U8:
        """The same in the light that was asked for."""
        if self._options.texture_light == "photo":
            return self._painted
        image = self._painted.copy()
        colour, albedo, normals = self._colours
        seen = self._shown.places[3]
        divided(image, gains(colour, albedo, normals, self._light, seen, self._plain))
        return image

    @cached_property
    def _light(self) -> Light:
        colour, albedo, normals = self._colours
        return fit_light(colour, albedo, normals, self._plain * self._shown.places[3])

    @cached_property
    def _colours(self) -> tuple[F32, F32, F32]:
        """Linear colours of the texture and of the mean person, and normals as photographed: [t, t, 3] each."""
        texels = self._texels
        side = (texels.side, texels.side)
        small = np.asarray(cv2.resize(self._painted, side, interpolation=cv2.INTER_AREA), np.uint8)
        return LINEAR[small], LINEAR[texels.albedo], texels.normals(self._posed[1])

    @cached_property
    def _plain(self) -> F32:
        """How far a texel is plain skin without hair: [t, t], 0..1."""
        hair = self._shown.at_table(self._parts[HAIR].astype(np.float32) / 255)
        return np.asarray(self._texels.plain * (1 - np.clip(2 * hair, 0, 1) * self._shown.places[2]), np.float32)

    @cached_property
    def _posed(self) -> tuple[F32, F32]:
        """Vertices in the camera's frame and their normals, [N, 3] each."""
        shapes = self._need("shapes")
        self._surface.check(int(self._need("fingerprint")[0]), shapes.shape[1])
        return shapes[0], self._surface.normals(shapes[0])

    @cached_property
    def _confidence(self) -> float:
        return confidence(self._need("context"), self._need("crop_hd"))

    @cached_property
    def _covers(self) -> Covers:
        return covers_of(self._parts, self._regions, self._need("context"), self._need("crop_hd"))

    @cached_property
    def _regions(self) -> Regions:
        return Regions.of(self._need("context"), self._shown.places, self._parts.shape[-1])

    @cached_property
    def _photograph(self) -> Photograph | None:
        """The photograph; None where the request lacks a tensor of it, and no option needs it."""
        options = self._options
        plain = not options.detail and options.texture_light == "photo" and options.hair == "skin"
        plain = plain and not options.upscale
        if plain and not set(SHOWN) <= set(self._tensors):
            return None
        places, context = self._need("places"), self._need("context")
        check_context(context)
        check_places(places)
        photograph = Photograph.of(
            places, context, self._need("crop_hd"), self._need("close_up"), self._need("close_up_camera")
        )
        return photograph.upscaled(self._enhance) if options.upscale else photograph

    @property
    def _shown(self) -> Photograph:
        assert self._photograph is not None, "every option that needs the photograph has asked for it"
        return self._photograph

    @property
    def _texels(self) -> Texels:
        if self._surface.texels is None:
            raise Refused("BadOption", "this version of postprocess has no tables of texels: run the export again.")
        return self._surface.texels

    @property
    def _parts(self) -> U8:
        return self._need("parts")

    def _need(self, name: str) -> NDArray[Any]:
        if name not in self._tensors:
            raise Refused("BadOption", f"the request lacks `{name}`, which this output is made of: send it as well.")
        return self._tensors[name]
