"""Whether the tensors of a request can be what the steps before give.

Through the ensembles they always are. A caller of `postprocess` alone may send anything of the configuration's types,
and Triton hands a request whose batch dimension is 0 on without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from options import LARGEST_TEXTURE, Refused
from tensor_shapes import Rows, shape_fault

ROWS: Rows = {
    "texture": (3, None, None),
    "shapes": (3, None, 3),
    "fingerprint": (1,),
    "expression": (64,),
    "context": (23,),
    "crop_hd": (3, 512, 512),
    "places": (4, 256, 256),
    "parts": (3, None, None),
    "close_up": (None, None, 3),
    "close_up_camera": (4,),
    "mesh_done": (1,),
    "thumbnail": (None, None, 3),
}
# Decimetres: a head is three and stands ten before the camera; squares and products of these stay far from overflow.
FARTHEST = 100.0  # and coefficients are of order one
# Pixels of the 224 px crop: what lies in the camera's plane is projected a long way off.
FARTHEST_PLACE = 1e7
# Sides of the textures that the texture network gives.
TEXTURE_SIDES = (512, 1024)


def check_inputs(tensors: Mapping[str, NDArray[Any]]) -> None:
    """Check that a request's tensors have the shapes of `ROWS` and one batch size, and textures a side that can be.

    Raises:
        Refused: ``BadTensor``, with the tensor's name and shape.
    """
    if not tensors:
        raise Refused("BadTensor", "the request holds no tensor: send what the outputs are made of.")
    if fault := shape_fault(tensors, ROWS):
        raise Refused("BadTensor", fault)
    value = tensors.get("texture")
    if value is not None and (value.shape[2] != value.shape[3] or value.shape[3] not in TEXTURE_SIDES):
        raise Refused(
            "BadTensor",
            f"`texture` has {value.shape[2]} x {value.shape[3]} texels: send a square of "
            f"{' or '.join(map(str, TEXTURE_SIDES))}.",
        )
    value = tensors.get("thumbnail")
    if value is not None and (value.shape[1] != value.shape[2] or value.shape[1] > LARGEST_TEXTURE):
        raise Refused(
            "BadTensor",
            f"`thumbnail` has {value.shape[1]} x {value.shape[2]} texels: send a square of at most {LARGEST_TEXTURE}.",
        )


def check_shapes(shapes: NDArray[np.float32]) -> None:
    """Check that vertices, float32 [3, N, 3] decimetres, are those of a face.

    Raises:
        Refused: ``BadFace``.
    """
    # Written so that a NaN fails: it is the least and the greatest of whatever it is among.
    if not (shapes.min() >= -FARTHEST and shapes.max() <= FARTHEST):
        raise Refused("BadFace", "the networks found no shape for this face: send another picture.")


def check_expression(expression: NDArray[np.float32]) -> None:
    """Check that coefficients of an expression, float32 [64], are those of a face.

    Raises:
        Refused: ``BadFace``.
    """
    if not (expression.min() >= -FARTHEST and expression.max() <= FARTHEST):
        raise Refused("BadFace", "the networks found no expression for this face: send another picture.")


def check_context(context: NDArray[np.float32]) -> None:
    """Check that the face and the camera, float32 [23], are finite, and that the crops' pixels have a size.

    Raises:
        Refused: ``BadTensor``.
    """
    scales = context[[15, 16, 19, 20]]
    # As the regressor's configuration has it: no source picture has a longer side than 65 million pixels.
    if not (scales.min() >= 1e-6 and np.abs(context).max() <= 1e9):
        raise Refused("BadTensor", "`context` is that of no face: send what `align` returns.")


def check_places(places: NDArray[np.float32]) -> None:
    """See that places and shares of texels, float32 [4, t, t], are finite.

    Raises:
        Refused: ``BadTensor``.
    """
    if not (places.min() >= -FARTHEST_PLACE and places.max() <= FARTHEST_PLACE):
        raise Refused("BadTensor", "`places` are those of no face: send what the texture network returns.")
