"""Faces made worse as cameras, phones and networks do it: blur, fewer pixels, noise, compression."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from export.pictures import load_picture
from training.crops import listed

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Chance = np.random.Generator

PATCH = 64
# The grid of JPEG's blocks and that of the kept pixels begin anywhere in a face's square.
GRID = 8
HELD_OUT = 24  # one picture of so many only measures
CLEAN, SINGLE = 0.06, 0.5  # shares of samples that are left as they are, and that suffer one kind of harm


@dataclass(frozen=True)
class Harm:
    """What happens to a picture, in this order.

    Attributes:
        blur: standard deviation in pixels of the picture.
        motion: length in pixels and direction in radians of a blur along a line.
        shrink: pixels of the picture for one that is kept; it is enlarged again by Lanczos.
        noise: standard deviation of a kept pixel, levels.
        quality: of the JPEG file, after it is shrunk; 100: none is made.
    """

    blur: float = 0.0
    motion: tuple[float, float] = (0.0, 0.0)
    shrink: float = 1.0
    noise: float = 0.0
    quality: int = 100

    @classmethod
    def drawn(cls, chance: Chance) -> Harm:
        """Draw one."""
        share = chance.random()
        if share < CLEAN:
            return cls()
        if share < CLEAN + SINGLE:
            return cls._single(chance)
        blur = chance.uniform(0.3, 1.8) if chance.random() < 0.4 else 0.0
        motion = (chance.uniform(2, 5), chance.uniform(0, math.pi)) if chance.random() < 0.12 else (0.0, 0.0)
        shrink = math.exp(chance.uniform(0, math.log(3))) if chance.random() < 0.7 else 1.0
        noise = math.exp(chance.uniform(0, math.log(18))) if chance.random() < 0.5 else 0.0
        quality = int(chance.integers(25, 95)) if chance.random() < 0.65 else 100
        return cls(blur, motion, shrink, noise, quality)

    @classmethod
    def _single(cls, chance: Chance) -> Harm:
        """Draw one of one kind; compression and few pixels, which are learned slowest, more often."""
        kind = int(chance.choice(4, p=(0.2, 0.3, 0.2, 0.3)))
        if kind == 0:
            return cls(blur=chance.uniform(0.4, 1.8))
        if kind == 1:
            return cls(shrink=math.exp(chance.uniform(math.log(1.3), math.log(3))))
        if kind == 2:
            return cls(noise=math.exp(chance.uniform(math.log(2), math.log(18))))
        return cls(quality=int(chance.integers(20, 90)))

    def done(self, picture: U8, chance: Chance) -> U8:
        """Harm a picture (h, w, 3)."""
        worse: F32 = picture.astype(np.float32)
        if self.blur:
            worse = np.asarray(cv2.GaussianBlur(worse, (0, 0), self.blur), np.float32)
        if self.motion[0]:
            worse = np.asarray(cv2.filter2D(worse, -1, _line(*self.motion)), np.float32)
        height, width = picture.shape[:2]
        if self.shrink > 1:
            size = (max(8, round(width / self.shrink)), max(8, round(height / self.shrink)))
            worse = np.asarray(cv2.resize(worse, size, interpolation=cv2.INTER_AREA), np.float32)
        if self.noise:
            # Half of it alike in all colours, as a dim sensor's after its colours were smoothed.
            grain = chance.standard_normal(worse.shape, np.float32) * 0.7
            grain += chance.standard_normal((*worse.shape[:2], 1), np.float32) * 0.7
            worse = worse + grain * np.float32(self.noise)
        levels: U8 = np.rint(worse.clip(0, 255)).astype(np.uint8)
        if self.quality < 100:
            data = cv2.imencode(".jpg", levels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1]
            levels = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
        if self.shrink > 1:
            levels = np.asarray(cv2.resize(levels, (width, height), interpolation=cv2.INTER_LANCZOS4), np.uint8)
        return np.ascontiguousarray(levels)


def _line(length: float, angle: float) -> F32:
    """A kernel that smears along a line."""
    size = 2 * math.ceil(length / 2) + 1
    kernel = np.zeros((size, size), np.float32)
    middle, across = (size - 1) / 2, np.array([math.cos(angle), math.sin(angle)]) * length / 2
    ends = [tuple(int(v) for v in np.rint(16 * (middle + side * across))) for side in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], [1.0], 1, cv2.LINE_AA, 4)
    return kernel / max(float(kernel.sum()), 1e-6)


class Faces:
    """Pictures of a folder's index.csv; draws pairs of patches."""

    def __init__(self, folder: Path) -> None:
        pictures = [np.asarray(load_picture(folder / file), np.uint8) for file in listed(folder)]
        self.held_out = pictures[::HELD_OUT]
        self.pictures = [p for k, p in enumerate(pictures) if k % HELD_OUT]
        # Larger pictures are sharper, and hold more patches.
        sides = np.array([min(p.shape[:2]) for p in self.pictures], np.float64)
        self.weights = sides**2 / (sides**2).sum()

    def drawn(self, chance: Chance) -> tuple[U8, U8]:
        """A harmed patch (64, 64, 3) and the true one."""
        picture = self.pictures[int(chance.choice(len(self.pictures), p=self.weights))]
        # A face's square is served at 256 px, as large as most of these pictures; what is reduced is sharper.
        scale = math.exp(chance.uniform(math.log(0.45), math.log(1.1)))
        side = PATCH + GRID
        need = math.ceil(side / scale)
        height, width = picture.shape[:2]
        # The face is in the middle; its edges belong to it.
        top = int(np.clip(chance.normal(0.5, 0.22), 0, 1) * (height - need))
        left = int(np.clip(chance.normal(0.5, 0.22), 0, 1) * (width - need))
        part = picture[top : top + need, left : left + need]
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        truth = np.asarray(cv2.resize(part, (side, side), interpolation=how), np.uint8)
        if chance.random() < 0.5:
            truth = truth[:, ::-1]
        truth = _coloured(np.ascontiguousarray(truth), chance)
        worse = Harm.drawn(chance).done(truth, chance)
        y, x = (int(v) for v in chance.integers(GRID, size=2))
        inside = np.s_[y : y + PATCH, x : x + PATCH]
        return worse[inside], truth[inside]


def _coloured(picture: U8, chance: Chance) -> U8:
    if chance.random() < 0.6:
        gain, gamma = chance.normal(1, 0.08, 3) * chance.uniform(0.7, 1.1), chance.uniform(0.75, 1.35)
        curve = 255 * (np.arange(256)[:, None] / 255) ** gamma * gain
        picture = np.stack(
            [cv2.LUT(picture[..., k], np.rint(curve[:, k].clip(0, 255)).astype(np.uint8)) for k in range(3)], -1
        )
    return picture


# What is measured: one kind of harm each, then the usual mixture of a picture sent around.
KINDS: dict[str, Harm] = {
    "clean": Harm(),
    "blur": Harm(blur=1.3),
    "small": Harm(shrink=2.0),
    "noise": Harm(noise=12.0),
    "jpeg": Harm(quality=35),
    "small, noise, jpeg": Harm(shrink=2.0, noise=5.0, quality=70),
    "blur, noise, jpeg": Harm(blur=1.2, noise=5.0, quality=50),
    "dark phone": Harm(blur=0.8, shrink=2.0, noise=9.0, quality=45),
}
