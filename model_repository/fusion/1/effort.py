"""How much work a pair is worth: small or frontal faces take a short way, others the long one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from photographs import Photograph
from region import Region

# A face whose window is narrower, in pixels of the target: what the long way adds is finer than these.
SMALL = 160
# Degrees by which either head is turned, from which on parts of it hide others.
TURNED = 20.0
# Share of the target's face, by the parser, that something covers: its outline then needs the picture's own edges.
COVERED = 0.06


@dataclass(frozen=True)
class Effort:
    """What a way does.

    Attributes:
        name: ``short`` or ``long``.
        cells: of the grid of rays along the face's longer side.
        levels: bands of the blending.
        refine: whether what covers the face is cut out along the edges of the picture.
    """

    name: str
    cells: int
    levels: int
    refine: bool

    @classmethod
    def of(cls, mode: str, source: Photograph, target: Photograph, region: Region) -> Effort:
        """Choose the way: as ``mode`` says, or for ``auto`` by the faces."""
        if mode == "auto":
            mode = "short" if _is_easy(source, target, region) else "long"
        return SHORT if mode == "short" else LONG


SHORT = Effort("short", cells=128, levels=3, refine=False)
LONG = Effort("long", cells=208, levels=4, refine=True)


def _is_easy(source: Photograph, target: Photograph, region: Region) -> bool:
    points = target.project(target.shapes[0][region.vertex])
    column, row = points[region.inside > 0].T
    if max(float(np.ptp(column)), float(np.ptp(row))) < SMALL:
        return True
    if max(abs(source.yaw(region)), abs(target.yaw(region))) > TURNED:
        return False
    return target.covered_share(points[region.inside > 0.5]) < COVERED
