"""ONNX GraphSurgeon, told to speak of errors only: on every message it would also ask for an optional package."""

import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

G_LOGGER.severity = G_LOGGER.ERROR

__all__ = ["gs"]
