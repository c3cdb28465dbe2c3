"""Coefficients of the morphable face model, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Coefficients"]

_MM_PER_DM: Final = 100.0


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

    @property
    def head_to_camera(self) -> NDArray[np.float64]:
        """float64 (4, 4): from the head frame to the frame of `Reconstruction.vertices`, mm: Rz Ry Rx, then the shift.

        The rotation is that of Deep3DFaceRecon (``compute_rotation``).
        """
        x, y, z = self.angles.astype(np.float64)
        about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
        about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
        matrix = np.eye(4)
        matrix[:3, :3] = about_z @ about_y @ about_x
        matrix[:3, 3] = self.translation.astype(np.float64) * _MM_PER_DM
        return matrix
