"""ICC profiles for colours that a file states by other means: chromaticities and a curve.

Profiles of the display class, version 2.4 (ICC.1:2001-04), three colorants and one curve. Chromaticities and curves by
number are those of ITU-T H.273; white points are adapted to D50 by Bradford's matrix, as the specification of ICC
profiles (version 4) has it.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of red, green, blue and white."""

_D65 = (0.3127, 0.3290)
BT709: Chromaticities = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, *_D65)
ADOBE_RGB: Chromaticities = (0.640, 0.330, 0.210, 0.710, 0.150, 0.060, *_D65)
ADOBE_RGB_GAMMA = 563 / 256
PRIMARIES: dict[int, Chromaticities] = {
    1: BT709,
    4: (0.670, 0.330, 0.210, 0.710, 0.140, 0.080, 0.310, 0.316),
    5: (0.640, 0.330, 0.290, 0.600, 0.150, 0.060, *_D65),
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, 0.310, 0.316),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),
    22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, *_D65),
}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])
_ENTRIES = 1024
# White of a picture with a larger range, cd/m2 of PQ and signal of HLG: ITU-R BT.2408. What is brighter is cut.
_PQ_WHITE, _HLG_WHITE = 203.0, 0.75


def curve(transfer: int) -> NDArray[np.float64] | None:
    """Return light, 0..1, by sample, for a transfer function of H.273; None for a number without one."""
    x = np.linspace(0.0, 1.0, _ENTRIES)
    match transfer:
        case 1 | 6 | 14 | 15:  # video, shown as sRGB: displays decode it about as they do that
            return srgb()
        case 4:
            return power(2.2)
        case 5:
            return power(2.8)
        case 7:
            return np.where(x < 0.0913, x / 4.0, ((x + 0.1115) / 1.1115) ** (1 / 0.45))
        case 8:
            return x
        case 13:
            return srgb()
        case 16:
            m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
            root = x ** (1 / m2)
            light = (np.maximum(root - c1, 0.0) / (c2 - c3 * root)) ** (1 / m1) * 10_000.0
            return np.asarray(np.minimum(light / _PQ_WHITE, 1.0))
        case 18:
            return np.asarray(np.minimum(_hlg(x) / _hlg(np.array(_HLG_WHITE)), 1.0))
        case _:
            return None


def srgb() -> NDArray[np.float64]:
    """Return the curve of sRGB, IEC 61966-2-1."""
    x = np.linspace(0.0, 1.0, _ENTRIES)
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def power(exponent: float) -> NDArray[np.float64]:
    """Return light as a power of the sample."""
    return np.asarray(np.linspace(0.0, 1.0, _ENTRIES) ** exponent)


def _hlg(x: NDArray[np.float64]) -> NDArray[np.float64]:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(x <= 0.5, x * x / 3.0, (np.exp((x - c) / a) + b) / 12.0)


def profile(chromaticities: Chromaticities, light: NDArray[np.float64]) -> bytes:
    """Build an ICC profile.

    Args:
        chromaticities: of the three colours at full, and of white.
        light: float64 [n], 0..1, by sample.

    Raises:
        ValueError: the chromaticities span no triangle, or white lies outside of it.
    """
    colorants = _colorants(chromaticities)
    curv = struct.pack(">4sII", b"curv", 0, len(light)) + np.rint(np.clip(light, 0, 1) * 65_535).astype(">u2").tobytes()
    name = b"stated by the file\0"
    desc = struct.pack(">4sII", b"desc", 0, len(name)) + name + bytes(78)
    tags = [(b"desc", desc), (b"cprt", struct.pack(">4sI", b"text", 0) + b"\0"), (b"wtpt", _xyz(_D50))]
    tags += [(tag, _xyz(colorants[:, index])) for index, tag in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))]
    tags += [(tag, curv) for tag in (b"rTRC", b"gTRC", b"bTRC")]
    return _assembled(tags)


def _assembled(tags: list[tuple[bytes, bytes]]) -> bytes:
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for tag, content in tags:
        table += struct.pack(">4sII", tag, at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    head += bytes(28) + _xyz(_D50)[8:]
    return head.ljust(128, b"\0") + table + body


def _colorants(chromaticities: Chromaticities) -> NDArray[np.float64]:
    """Compute float64 [3, 3]: XYZ of red, green and blue in columns, relative to D50."""
    points = np.array(chromaticities, np.float64).reshape(4, 2)
    if not (np.isfinite(points).all() and (points[:, 1] > 1e-3).all() and (np.abs(points) < 4).all()):
        raise ValueError("no chromaticities")
    xyz = np.stack([points[:, 0] / points[:, 1], np.ones(4), (1 - points.sum(1)) / points[:, 1]])
    if abs(np.linalg.det(xyz[:, :3])) < 1e-3:
        raise ValueError("the colours span no triangle")
    amounts = np.linalg.solve(xyz[:, :3], xyz[:, 3])
    if (amounts <= 0).any():
        raise ValueError("white lies outside of the colours")
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ xyz[:, 3])
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD
    return np.asarray(adapted @ (xyz[:, :3] * amounts))


def _xyz(values: NDArray[np.float64]) -> bytes:
    return struct.pack(">4sI3i", b"XYZ ", 0, *(round(float(value) * 65_536) for value in values))
