"""Programs that write the committed ranges of INT8, and measure the error of each layer in INT8.

Graphs depend on the files that they write, not on their code, so a change here rebuilds no version.
"""

from __future__ import annotations

import argparse

from export.models import MODEL_NAMES, get_model

CALIBRATED = tuple(name for name in MODEL_NAMES if get_model(name).calibration_error)
"""Models that have ranges."""


def command_parser(program: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the argument `network`, a name of `CALIBRATED` or `all`."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("network", choices=[*CALIBRATED, "all"])
    return parser


def selected(network: str) -> tuple[str, ...]:
    """Return the names that the argument `network` stands for."""
    return CALIBRATED if network == "all" else (network,)
