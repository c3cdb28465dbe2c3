"""Which face of a picture is meant.

Without a word of the request it is the main person's: the face whose score times its size times its place in the
picture is largest. A poster behind a person has the better score when the person tilts her head, but not the size.
"""

from __future__ import annotations

import numpy as np
from face_options import Options
from face_rows import LYING_DEGREES, Refused, Row, roll_of, side_of
from numpy.typing import NDArray

# A box given by the client means a detected face when they overlap at least this much.
MIN_IOU = 0.3
# What a face at a corner of the picture weighs of one in its middle, and a face that lies on its side or upside down of
# an upright one.
AT_CORNER, LYING = 0.5, 0.25


def choose(faces: NDArray[np.float32], options: Options, default_threshold: float, source: tuple[float, float]) -> Row:
    """Choose the row of ``faces``, float32 [K, 15], that is meant in a picture of ``source`` (width, height) pixels.

    Raises:
        Refused: ``NoFace`` when none is good enough, ``NoSuchFace`` when the one asked for is not there.
    """
    threshold = default_threshold if options.score_threshold is None else options.score_threshold
    faces = faces[np.isfinite(faces).all(axis=1)]
    faces = faces[np.argsort(-faces[:, 4], kind="stable")]
    good = faces[(faces[:, 4] >= threshold) & (faces[:, 4] > 0)]
    if not len(good):
        best = float(faces[0, 4]) if len(faces) else 0.0
        seen = f"the best score is {best:.2f} and the threshold is {threshold:g}" if best > 0 else "nothing like one"
        raise Refused(
            "NoFace",
            f"no face was found ({seen}): send a picture that shows a face upright and from the front"
            + (", or lower `score_threshold`." if best > 0 else "."),
        )
    if options.box is not None:
        overlaps = _iou(good[:, :4], options.box)
        if overlaps.max() < MIN_IOU:
            raise Refused(
                "NoSuchFace",
                f"no face overlaps the box enough (best overlap {overlaps.max():.2f}, needed {MIN_IOU:g}): "
                "take a box as `detect` returns it.",
            )
        return np.asarray(good[int(overlaps.argmax())])
    if options.face is None:
        return np.asarray(good[int(np.argmax([_prominence(row, source) for row in good]))])
    index = options.face
    if index >= len(good):
        count = "1 face was" if len(good) == 1 else f"{len(good)} faces were"
        raise Refused("NoSuchFace", f"face {index} was asked for and {count} found: ask for 0 to {len(good) - 1}.")
    return np.asarray(good[index])


def validate_choice(choice: Row, options: Options) -> Row:
    """Validate the row that a client chose itself, as `detect` returned it.

    Raises:
        Refused: ``NoSuchFace`` for an empty slot, ``BadOption`` when the options choose as well.
    """
    if options.face is not None or options.box is not None:
        raise Refused("BadOption", "`face` and `box` choose among detected faces: leave them out, or use `face3d`.")
    if not choice.any():
        raise Refused(
            "NoSuchFace", "`choice` is an empty slot (all zeros): take a row of `detect` with a score above 0."
        )
    return choice


def count(faces: NDArray[np.float32], options: Options, default_threshold: float) -> int:
    """Count the rows of ``faces``, [K, 15], that are good enough."""
    threshold = default_threshold if options.score_threshold is None else options.score_threshold
    return int(((faces[:, 4] >= threshold) & (faces[:, 4] > 0)).sum())


def is_full(faces: NDArray[np.float32], options: Options, default_threshold: float) -> bool:
    """Return whether every row of ``faces`` is good enough, so that there may be more faces than rows."""
    return count(faces, options, default_threshold) == len(faces)


def _prominence(face: Row, source: tuple[float, float]) -> float:
    """Weigh how likely a face is the one that the picture was taken for; any unit."""
    half = np.array(source, np.float64) / 2
    middle = (face[:2] + face[2:4]).astype(np.float64) / 2
    off = min(float(np.linalg.norm((middle - half) / half)) / 2**0.5, 1.0)
    upright = LYING if abs(roll_of(face)) > LYING_DEGREES else 1.0
    return float(face[4]) * max(side_of(face), 0.0) * (1 - (1 - AT_CORNER) * off) * upright


def _iou(boxes: NDArray[np.float32], box: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """Compute the intersection over union of float [n, 4] boxes with one box."""
    one = np.array(box, np.float64)
    many = boxes.astype(np.float64)
    sides = np.minimum(many[:, 2:], one[2:]) - np.maximum(many[:, :2], one[:2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    total = (many[:, 2:] - many[:, :2]).prod(axis=1) + (one[2:] - one[:2]).prod() - shared
    return np.asarray(shared / np.maximum(total, 1e-9))
