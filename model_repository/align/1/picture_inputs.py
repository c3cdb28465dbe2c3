"""Whether the tensors of a request can be what `preprocess` and the detector give: shapes, and a picture's geometry.

Through the ensembles they always are. A caller of `align` alone may send anything of the configuration's types, and
Triton hands a request whose batch dimension is 0 on without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from face_rows import Refused
from numpy.typing import NDArray
from tensor_shapes import Rows, shape_fault

ROWS: Rows = {
    "picture": (None, None, 3),
    "geometry": (6,),
    "faces": (64, 15),
    "choice": (15,),
}
# Pixels of a side. `preprocess` takes 65 megapixels, so that no picture is longer.
LONGEST_SIDE = 65_000_000.0


class Size(NamedTuple):
    """What a row of ``geometry`` says: the source's size in its own pixels, and that of the decoded picture."""

    source: tuple[float, float]
    rows: int
    columns: int


def check_inputs(tensors: Mapping[str, NDArray[Any]]) -> None:
    """Check that a request's tensors have the shapes of `ROWS` and one batch size.

    Raises:
        Refused: ``BadTensor``, with the tensor's name and shape.
    """
    for name in ("picture", "geometry"):
        if name not in tensors:
            raise Refused("BadTensor", f"the request lacks `{name}`: send what `preprocess` returns.")
    if fault := shape_fault(tensors, ROWS):
        raise Refused("BadTensor", fault)


def true_size(picture: NDArray[np.uint8], geometry: NDArray[np.float32]) -> Size:
    """Return the size of one picture, which may be padded below and to the right.

    Args:
        picture: uint8 [rows, columns, 3].
        geometry: float32 [6], source width and height; two numbers for the detector; source pixels per picture pixel.

    Raises:
        Refused: ``BadTensor``, when no picture of this shape can have this geometry.
    """
    width, height, _, _, ratio_x, ratio_y = (float(value) for value in geometry)
    # Written so that a NaN fails.
    if not (1 <= width <= LONGEST_SIDE and 1 <= height <= LONGEST_SIDE and ratio_x > 0 and ratio_y > 0):
        raise Refused("BadTensor", "`geometry` is that of no picture: send what `preprocess` returns.")
    rows, columns = height / ratio_y + 0.01, width / ratio_x + 0.01
    if not (rows < len(picture) + 1 and columns < picture.shape[1] + 1):
        raise Refused(
            "BadTensor",
            f"by `geometry` the picture has {rows:.6g} x {columns:.6g} pixels and by its shape at most "
            f"{picture.shape[0]} x {picture.shape[1]}: send both as `preprocess` returns them.",
        )
    # A JPEG that was reduced while it was decoded may be narrower than one of its pixels.
    return Size((width, height), max(1, int(rows)), max(1, int(columns)))
