"""The files of one face, each made from what the request brought along."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from face_tensors import check_context, check_shapes
from finish import MIME, encode, finish
from glb import write_glb
from numpy.typing import NDArray
from options import POSES, Options, Refused
from preview import TEXTURE_SIDE, page
from surface import Surface

U8 = NDArray[np.uint8]


class Files:
    """What can be made of the tensors of one face. Each property is an output of the model.

    A finished texture is taken from the tensors where a step before has already made it.
    """

    def __init__(self, surface: Surface, tensors: Mapping[str, NDArray[Any]], options: Options) -> None:
        """``tensors`` are those of the configuration, without the batch dimension; any may be missing."""
        self._surface = surface
        self._tensors = tensors
        self._options = options

    @cached_property
    def finished(self) -> U8:
        """The texture with the options applied: uint8 [size, size, 3] RGB, row 0 is v = 1."""
        if "finished" in self._tensors:
            return self._tensors["finished"]
        return finish(self._need("texture"), self._need("crop_hd"), self._options)

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
        """A GLB file with the texture inside."""
        surface = self._surface
        vertices = self._shapes()[POSES.index(self._options.pose)]
        kind = self._options.texture_format or "jpeg"
        said = {"pose": self._options.pose, "face_model": surface.name, "fingerprint": str(surface.fingerprint)}
        texture = encode(self.finished, kind)
        return write_glb(vertices, surface.normals(vertices), surface.uv, surface.triangles, texture, MIME[kind], said)

    @property
    def texture_image(self) -> bytes:
        """The texture as a PNG or JPEG file."""
        return encode(self.finished, self._options.texture_format or "png")

    @property
    def preview(self) -> bytes:
        """The picture of the result, a PNG file."""
        pose = POSES.index("neutral" if self._options.pose == "neutral" else "head")
        context = self._need("context")
        check_context(context)
        sheet = page(self._surface, self._shapes(), pose, self.thumbnail, context, self._need("crop_hd"))
        return encode(sheet, "png")

    def _shapes(self) -> NDArray[np.float32]:
        shapes = self._need("shapes")
        self._surface.check(int(self._need("fingerprint")[0]), shapes.shape[1])
        check_shapes(shapes)
        return shapes

    def _need(self, name: str) -> NDArray[Any]:
        if name not in self._tensors:
            raise Refused("BadOption", f"the request lacks `{name}`, which this output is made of: send it as well.")
        return self._tensors[name]
