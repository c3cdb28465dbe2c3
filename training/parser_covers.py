"""Covers with known masks, drawn over crops: what the parser has to call "other" and the texture must not show.

Places are those of the aligned crop, where the eyes, the nose and the mouth lie within some pixels of the template
(`networks.alignment.TEMPLATE`); colours and patches of other pictures keep the covers from all looking drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from networks.alignment import RESCALE, TEMPLATE
from networks.camera import CROP

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Points = npt.NDArray[np.floating[Any]]
Chance = np.random.Generator

# Eyes, nose tip, mouth corners in the 224 px crop.
POINTS = np.stack([CROP / 2 + TEMPLATE[:, 0] * RESCALE, CROP / 2 - 1 - TEMPLATE[:, 1] * RESCALE], 1)
_SHIFT = 4  # OpenCV's fixed point: 16ths of a pixel


@dataclass(frozen=True)
class Cover:
    """A drawn cover.

    Attributes:
        kind: what it stands for.
        picture: (224, 224, 3) RGB, of the crop with it.
        mask: (224, 224) 0..1, how much of a pixel it covers.
    """

    kind: str
    picture: U8
    mask: F32


def _colour(chance: Chance, skin: F32) -> F32:
    """A colour for a cover: any, grey, or like the person's skin, as hands are."""
    kind = chance.random()
    if kind < 0.12:
        return np.asarray(np.clip(skin * chance.uniform(0.75, 1.25) + chance.normal(0, 8, 3), 0, 255), np.float32)
    if kind < 0.6:
        return np.asarray(np.clip(chance.uniform(0, 255) + chance.normal(0, 10, 3), 0, 255), np.float32)
    return chance.uniform(0, 255, 3).astype(np.float32)


def _surface(chance: Chance, skin: F32, patch: U8) -> F32:
    """(224, 224, 3) what a cover looks like: one colour with shading and noise, or a piece of another picture."""
    if chance.random() < 0.25:
        turned = np.rot90(patch, int(chance.integers(4)))
        zoom = int(chance.integers(60, CROP + 1))
        top, left = (int(chance.integers(CROP - zoom + 1)) for _ in range(2))
        piece = np.ascontiguousarray(turned[top : top + zoom, left : left + zoom])
        return np.asarray(cv2.resize(piece, (CROP, CROP)), np.float32)
    shade = cv2.resize(
        chance.normal(1, 0.15, (4, 4, 1)).astype(np.float32), (CROP, CROP), interpolation=cv2.INTER_CUBIC
    )
    surface = _colour(chance, skin) * shade[..., None]
    if chance.random() < 0.3:  # cloth, stripes
        direction = chance.uniform(0, np.pi)
        rows, columns = np.mgrid[:CROP, :CROP]
        phase = (rows * np.sin(direction) + columns * np.cos(direction)) * chance.uniform(0.3, 2.5)
        surface = surface + (np.sin(phase) * chance.uniform(5, 40))[..., None]
    noise = chance.standard_normal((CROP, CROP, 1), np.float32) * np.float32(chance.uniform(1, 8))
    noisy: F32 = np.asarray(surface, np.float32) + noise
    return noisy


def _fill(mask: F32, points: Points) -> None:
    cv2.fillPoly(mask, [np.rint(points * 2**_SHIFT).astype(np.int32)], [1.0], cv2.LINE_8, _SHIFT)


def _blob(chance: Chance) -> F32:
    """A rounded shape anywhere, as of a hand, a ball or a phone."""
    mask = np.zeros((CROP, CROP), np.float32)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = chance.uniform(12, 55) * (
        1 + 0.25 * np.interp(angles, np.linspace(0, 2 * np.pi, 7), chance.normal(0, 1, 7))
    )
    stretch = np.array([1, chance.uniform(0.4, 1.0)])
    turn = chance.uniform(0, np.pi)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * radius[:, None].clip(4) * stretch
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    _fill(mask, points @ rotation + chance.uniform(25, CROP - 25, 2))
    return mask


def _hand(chance: Chance) -> F32:
    """Fingers: thick parallel lines with round ends, from a side of the crop over the face."""
    mask = np.zeros((CROP, CROP), np.float32)
    tip = chance.uniform(60, CROP - 60, 2)
    angle = chance.uniform(0, 2 * np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    width = chance.uniform(9, 16)
    for finger in range(int(chance.integers(1, 6))):
        start = tip + across * width * finger * 1.05 + along * chance.uniform(-10, 10)
        end = start + along * chance.uniform(60, 160) + across * chance.normal(0, 8)
        cv2.line(mask, _pixel(start), _pixel(end), [1.0], int(width), cv2.LINE_8)
    return mask


def _stick(chance: Chance) -> F32:
    """A stick, a cable, a straw: a line of up to 9 pixels."""
    mask = np.zeros((CROP, CROP), np.float32)
    ends = chance.uniform(-20, CROP + 20, (2, 2))
    cv2.line(mask, _pixel(ends[0]), _pixel(ends[1]), [1.0], int(chance.integers(3, 10)), cv2.LINE_8)
    return mask


def _face_mask(chance: Chance) -> F32:
    """A mask over nose, mouth and chin, with straps."""
    mask = np.zeros((CROP, CROP), np.float32)
    nose, mouth = POINTS[2], POINTS[3:].mean(0)
    half, top = chance.uniform(42, 66), nose[1] + chance.uniform(-26, 8)
    bottom = mouth[1] + chance.uniform(25, 55)
    middle = nose[0] + chance.normal(0, 8)
    shape = [
        (-half, top + chance.uniform(5, 18)), (-0.35 * half, top + chance.uniform(-3, 5)), (0, top),
        (0.35 * half, top + chance.uniform(-3, 5)), (half, top + chance.uniform(5, 18)),
        (0.95 * half, bottom - chance.uniform(18, 35)), (0.45 * half, bottom), (-0.45 * half, bottom),
        (-0.95 * half, bottom - chance.uniform(18, 35)),
    ]  # fmt: skip
    _fill(mask, np.array(shape) + np.array([middle, 0]))
    if chance.random() < 0.6:
        for side in (-1, 1):
            start = np.array([middle + side * half, top + 12])
            cv2.line(
                mask, _pixel(start), _pixel(start + np.array([side * 60, chance.uniform(-40, 5)])), [1.0], 2, cv2.LINE_8
            )
    return mask


def _glasses(chance: Chance) -> F32:
    """Frames of glasses, or sunglasses with their lenses."""
    mask = np.zeros((CROP, CROP), np.float32)
    centres = POINTS[:2] + chance.normal(0, 3, 2)
    size = chance.uniform(17, 27, 2) * [1, 0.8]
    thick = -1 if chance.random() < 0.5 else int(chance.integers(2, 6))
    for centre in centres:
        if chance.random() < 0.5:
            cv2.ellipse(mask, _pixel(centre), (int(size[0]), int(size[1])), 0, 0, 360, [1.0], thick, cv2.LINE_8)
        else:
            cv2.rectangle(mask, _pixel(centre - size), _pixel(centre + size), [1.0], thick, cv2.LINE_8)
    line = int(chance.integers(2, 5))
    cv2.line(mask, _pixel(centres[0] + size * [1, 0]), _pixel(centres[1] - size * [1, 0]), [1.0], line, cv2.LINE_8)
    for side, centre in zip((-1, 1), centres, strict=True):
        end = centre + np.array([side * (size[0] + 50), chance.uniform(-8, 8)])
        cv2.line(mask, _pixel(centre + size * [side, 0]), _pixel(end), [1.0], line, cv2.LINE_8)
    return mask


def _text(chance: Chance) -> F32:
    """A line of letters, as of a watermark or a caption."""
    mask = np.zeros((CROP, CROP), np.float32)
    letters = "".join(chr(chance.integers(65, 91)) for _ in range(int(chance.integers(3, 12))))
    place = (int(chance.integers(0, CROP // 2)), int(chance.integers(20, CROP)))
    cv2.putText(
        mask, letters, place, int(chance.integers(8)), chance.uniform(0.5, 2.0), [1.0], int(chance.integers(1, 6))
    )
    return mask


def _microphone(chance: Chance) -> F32:
    """A ball on a rod, from below or from a side."""
    mask = np.zeros((CROP, CROP), np.float32)
    ball = POINTS[3:].mean(0) + chance.normal(0, 22, 2) + [0, 10]
    cv2.circle(mask, _pixel(ball), int(chance.integers(9, 24)), [1.0], -1)
    foot = np.array([chance.uniform(0, CROP), CROP + 20])
    cv2.line(mask, _pixel(ball), _pixel(foot), [1.0], int(chance.integers(6, 18)), cv2.LINE_8)
    return mask


def _hat(chance: Chance) -> F32:
    """A hat, a helmet, a scarf: all above a curve over the forehead, or all below one under the mouth."""
    mask = np.zeros((CROP, CROP), np.float32)
    below = chance.random() < 0.3
    level = POINTS[3, 1] + chance.uniform(0, 50) if below else POINTS[0, 1] - chance.uniform(18, 45)
    columns = np.arange(CROP)
    bend = chance.uniform(-25, 25)
    edge = level + bend * ((columns - CROP / 2) / 80) ** 2 + chance.uniform(-0.15, 0.15) * (columns - CROP / 2)
    rows = np.arange(CROP)[:, None]
    mask[rows > edge if below else rows < edge] = 1
    return mask


def _pixel(point: Points) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


KINDS: dict[str, Callable[[Chance], F32]] = {
    "blob": _blob,
    "hand": _hand,
    "stick": _stick,
    "mask": _face_mask,
    "glasses": _glasses,
    "text": _text,
    "microphone": _microphone,
    "hat": _hat,
}


def cover(crop: U8, patch: U8, chance: Chance, kind: str | None = None) -> Cover:
    """Draw a cover over a crop.

    Args:
        crop, patch: (224, 224, 3) RGB; the patch may lend its looks.
        chance: draws kind, place and looks.
        kind: one of `KINDS`; None: any.
    """
    kind = kind or str(chance.choice(list(KINDS)))
    mask = KINDS[kind](chance)
    nose = POINTS[2].astype(int)
    skin = np.median(crop[nose[1] - 20 : nose[1] + 20, nose[0] - 25 : nose[0] + 25].reshape(-1, 3), 0).astype(
        np.float32
    )
    soft = np.asarray(cv2.GaussianBlur(mask, (0, 0), chance.uniform(0.4, 0.9)), np.float32)
    surface = _surface(chance, skin, patch)
    if kind == "glasses" and chance.random() < 0.6:
        surface = surface * 0.3  # most frames and lenses are dark
    shown = crop * (1 - soft[..., None]) + surface * soft[..., None]
    return Cover(kind, np.rint(shown.clip(0, 255)).astype(np.uint8), soft)
