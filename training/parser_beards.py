"""Beards of other people, put on the faces that the parser learns from.

Few training pictures show a full beard, and seven samples in ten show a cover, which a mask over the chin is: a network
that sees no more beards than that calls them covers. The crops are aligned, so that a beard taken out of one
lies about where it grows in another; its colour is drawn anew, grey and white as often as any other.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from networks.camera import CROP
from training.parser_covers import POINTS
from training.parser_labels import HAIR, LABEL_SIDE, PERSON, SKIN

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Chance = np.random.Generator

RATIO = LABEL_SIDE / CROP
MOUTH = POINTS[3:].mean(0) * RATIO  # column and row in the labels
CHIN = (slice(int(MOUTH[1] + 4), int(MOUTH[1] + 40)), slice(int(MOUTH[0] - 30), int(MOUTH[0] + 30)))
SHARE = 0.2  # of the chin that is hair, from which on a face has a beard
GROWN = 0.4  # of the chin, from which on a beard is given to others
REACH = (62.0, 74.0)  # pixels of the labels, half a beard's width and height around a place below the mouth
GREY = 0.5  # share of the beards that are coloured grey or white


def bearded(labels: npt.NDArray[Any]) -> F32:
    """Return the share of the chin that is hair, (n,) 0..1, of labels (n, 4, 256, 256)."""
    chin = labels[:, HAIR, CHIN[0], CHIN[1]].astype(np.float32) / 255
    return np.asarray(chin.mean((1, 2)), np.float32)


class Beards:
    """Puts beards on faces.

    Args:
        crops: (n, 256, 256, 3) RGB, labels: (n, 4, 256, 256), of people with beards.
    """

    def __init__(self, crops: U8, labels: U8) -> None:
        rows, columns = np.mgrid[:LABEL_SIDE, :LABEL_SIDE].astype(np.float32)
        place = np.hypot((columns - MOUTH[0]) / REACH[0], (rows - MOUTH[1] - 12) / REACH[1])
        near = np.clip((1 - place) * 5, 0, 1)
        self.crops = crops
        self.masks = np.asarray(labels[:, HAIR] * near, np.uint8)

    def put_on(self, crop: U8, labels: U8, chance: Chance) -> tuple[U8, U8]:
        """Return a crop (256, 256, 3) and its labels (256, 256, 4) with another person's beard."""
        index = int(chance.integers(len(self.crops)))
        matrix = cv2.getRotationMatrix2D(
            (float(MOUTH[0]), float(MOUTH[1])), chance.normal(0, 3), chance.normal(1, 0.06)
        )
        matrix = matrix + np.array([[0, 0, 1], [0, 0, 1]]) * chance.normal(0, 4, (2, 1))
        if chance.random() < 0.5:
            matrix = np.array([[-1, 0, LABEL_SIDE - 1], [0, 1, 0]]) @ np.vstack([matrix, [0, 0, 1]])
        size = (LABEL_SIDE, LABEL_SIDE)
        beard, mask = (
            np.asarray(cv2.warpAffine(plane[index], matrix, size), np.float32) for plane in (self.crops, self.masks)
        )
        mask = mask / 255 * (labels[..., PERSON].astype(np.float32) / 255)
        beard = _coloured(beard, mask, chance)
        weight = mask[..., None]
        mixed = crop * (1 - weight) + beard * weight
        with_it = labels.astype(np.float32)
        with_it[..., SKIN] *= 1 - mask
        with_it[..., HAIR] = np.maximum(with_it[..., HAIR], 255 * mask)
        return np.rint(mixed.clip(0, 255)).astype(np.uint8), np.rint(with_it).astype(np.uint8)


def _coloured(beard: F32, mask: F32, chance: Chance) -> F32:
    """Colour a beard (256, 256, 3) grey or white, or change its own colour."""
    if chance.random() < GREY:
        grey = beard.mean(-1, keepdims=True)
        mean = (grey * mask[..., None]).sum() / (mask.sum() + 1)
        strands = (grey - mean) * chance.uniform(0.8, 1.6)
        return np.asarray(chance.uniform(80, 225) + chance.normal(0, 8, 3) + strands, np.float32)
    return np.asarray(beard * chance.uniform(0.6, 1.5) * chance.normal(1, 0.06, 3), np.float32)
