"""Coefficients of the morphable face model, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Coefficients"]


@dataclass(frozen=True, eq=False)
class Coefficients:
    """The 257 numbers of the face model, in the layout of Deep3DFaceRecon and HRN.

    Attributes:
        values: float32 (257,), all of them in the order of the properties below.
    """

    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.values.shape != (257,):
            raise ValueError(f"257 coefficients are needed, not an array of shape {self.values.shape}")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype, copy=bool(copy) or dtype not in (None, self.values.dtype))

    @property
    def identity(self) -> NDArray[np.float32]:
        """float32 (80,): shape of this person's face, standard deviations."""
        return self.values[0:80]

    @property
    def expression(self) -> NDArray[np.float32]:
        """float32 (64,): weights of the expression modes."""
        return self.values[80:144]

    @property
    def texture(self) -> NDArray[np.float32]:
        """float32 (80,): colour of the skin (albedo modes)."""
        return self.values[144:224]

    @property
    def angles(self) -> NDArray[np.float32]:
        """float32 (3,): rotation of the head in radians: pitch about x, yaw about y, roll about z."""
        return self.values[224:227]

    @property
    def light(self) -> NDArray[np.float32]:
        """float32 (27,): spherical harmonics of the light, nine for red, nine for green, nine for blue."""
        return self.values[227:254]

    @property
    def translation(self) -> NDArray[np.float32]:
        """float32 (3,): place of the head in the camera's frame, decimetres."""
        return self.values[254:257]
