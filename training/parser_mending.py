"""Mend the parsing teacher's answers where it is known to err, by MediaPipe's face mesh and by the picture's colours.

The teacher (PAN) calls grey beards clothes, and in other faces lips, wrinkles and shadows; and it calls short dark hair
and red hair above the eyes skin. They are told from what they are not by where they lie on the face and by colour:

* Below the nose and inside the face's oval nobody wears clothes: they are hair where the face has a beard, of which the
  teacher sees a part, and skin where it has none. Below the chin a beard's end is not told from a collar: unknown.
* In pictures without colour the teacher takes cheeks for hair, or for nothing: unknown, unless it says skin.
* Above the eyes, and outside of the middle of the face, what is far darker than the skin beside it, or of another hue,
  is hair.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Points = npt.NDArray[np.floating[Any]]

# MediaPipe's points: the face's oval, clockwise from the top; others.
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
FOREHEAD, CHIN, NOSE_BASE, EYE_CORNERS = 10, 152, 2, (33, 263)

# Shares of the lower face that the teacher calls hair, and clothes, from which on it has a beard.
BEARD_HAIR, BEARD_CLOTHES = 0.03, 0.06
GREY = 4.0  # levels between the channels, in the mean over the face, below which a picture has no colour
BELOW, ABOVE = 0.35, 0.25  # of the oval's height: how far around the chin a beard may end
INNER = 0.93  # of the oval: its middle, in which brows, eyes and shadows are dark
NEAR = 0.12  # of the oval's height: standard deviation over which the skin beside is averaged
FAR = 1e-3  # weight of the mean of all skin against that of a neighbourhood
# Logarithms of a colour's ratio to the skin beside: of the mean of the channels, and of a channel against that mean. Up
# to the first it is skin, from the second on hair.
DARKER, HUE = (0.35, 0.6), (0.2, 0.35)
SOFT = 6.0  # levels added before logarithms: a shadow has no hue


def mended(answers: F32, points: Points, picture: U8) -> U8:
    """Mend what the teachers say of a crop.

    Args:
        answers: (4, s, s) 0..1, of `training.parser_labels`: skin, clothes, hair, person.
        points: (478, 2), MediaPipe's, pixels of the answers; NaN where it sees no face: then nothing is mended.
        picture: (s, s, 3) RGB.

    Returns:
        (4, s, s), 0..255: skin, hair, person, unknown.
    """
    skin, clothes, hair, person = answers
    unknown = np.zeros_like(skin)
    if np.isfinite(points).all():
        face = _Face(points, len(skin))
        lower = face.lower & (person > 0.5)
        grey = _chroma(picture, face.oval) < GREY
        bearded = not grey and has_beard(answers, points)
        worn = clothes * cv2.GaussianBlur(lower.astype(np.float32), (0, 0), 1.5)
        hair, skin = (hair + worn, skin) if bearded else (hair, skin + worn)
        if bearded:
            unknown[face.around_chin(lower) & (clothes > 0.3)] = 1
        if grey:
            unknown[face.oval & (answers[0] < 0.5)] = 1
        grown = _unlike_skin(picture, face.oval & (skin > 0.8) & (hair < 0.1) & (person > 0.5), NEAR * face.height)
        grown = np.asarray(cv2.GaussianBlur(grown * face.hairline * (person > 0.5) * skin, (0, 0), 0.7), np.float32)
        hair, skin = hair + grown, skin - grown
    result: U8 = np.rint(np.stack([skin, hair, person, unknown]).clip(0, 1) * 255).astype(np.uint8)
    return result


def has_beard(answers: F32, points: Points) -> bool:
    """Say whether a face has a beard that the teacher sees in part; arguments as of `mended`."""
    skin, clothes, hair, person = answers
    lower = _Face(points, len(skin)).lower & (person > 0.5)
    if not lower.any():
        return False
    return bool(hair[lower].mean() > BEARD_HAIR and clothes[lower].mean() > BEARD_CLOTHES)


class _Face:
    """Where parts of the face lie in a crop.

    Attributes:
        oval, lower, hairline: (s, s) bool: the face; its part below the nose; what is above the eyes but not in its
            middle.
        height: of the oval, pixels.
    """

    def __init__(self, points: Points, side: int) -> None:
        self._points, self._side = points, side
        up = points[FOREHEAD] - points[CHIN]
        self.height = float(np.linalg.norm(up))
        self._up = up / (self.height + 1e-6)
        oval = points[list(OVAL)]
        middle = oval.mean(0)
        self.oval = self._filled(oval)
        self.lower = self.oval & (self._above(points[NOSE_BASE]) < 0)
        inner = self._filled((oval - middle) * INNER + middle)
        self.hairline = (self._above(points[list(EYE_CORNERS)].mean(0)) > 0) & ~inner

    def around_chin(self, lower: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return where a beard may end below the face, (s, s)."""
        above, reach = self._above(self._points[CHIN]), round(BELOW * self.height)
        near = cv2.dilate(lower.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
        return np.asarray(near & ~self.oval & (above < ABOVE * self.height) & (above > -BELOW * self.height), bool)

    def _filled(self, outline: Points) -> npt.NDArray[np.bool_]:
        mask = np.zeros((self._side, self._side), np.uint8)
        cv2.fillPoly(mask, [np.rint(outline * 16).astype(np.int32)], (1,), shift=4)
        return mask > 0

    def _above(self, point: Points) -> Points:
        """How far above a point pixels lie, along the face, (s, s)."""
        rows, columns = np.mgrid[: self._side, : self._side]
        return np.asarray((columns - point[0]) * self._up[0] + (rows - point[1]) * self._up[1])


def _chroma(picture: U8, where: npt.NDArray[np.bool_]) -> float:
    """Return the mean difference of the largest and the smallest channel, levels."""
    pixels = picture[where]
    return float((pixels.max(-1) - pixels.min(-1)).mean()) if len(pixels) else 0.0


def _unlike_skin(picture: U8, skin: npt.NDArray[np.bool_], near: float) -> F32:
    """Say how far colours are from those of the skin beside, (s, s) 0..1; `near` in pixels."""
    levels = np.log(picture.astype(np.float32) + np.float32(SOFT))
    known = skin.astype(np.float32)[..., None]
    share = known.mean()
    if share == 0:
        return np.zeros(skin.shape, np.float32)
    mean = (levels * known).mean((0, 1)) / share
    sums = cv2.GaussianBlur(np.concatenate([levels * known, known], -1), (0, 0), near)
    beside = (sums[..., :3] + FAR * share * mean) / (sums[..., 3:] + FAR * share)
    ratio = levels - beside
    shade = ratio.mean(-1)
    hue = np.abs(ratio - shade[..., None]).max(-1)
    dark, other = (((v - at[0]) / (at[1] - at[0])).clip(0, 1) for v, at in ((-shade, DARKER), (hue, HUE)))
    return np.asarray(np.maximum(dark, other), np.float32)
