"""Programs that make the committed ranges of INT8, and tell which layers it costs most.

What they write decides what a graph is; what they are does not, so a change here makes no version anew.
"""

from __future__ import annotations

from export.models import MODEL_NAMES, get_model

CALIBRATED = tuple(name for name in MODEL_NAMES if get_model(name).calibration_error)
"""Models that have ranges."""
