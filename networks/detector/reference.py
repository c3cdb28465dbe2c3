"""A sequential implementation of the MTCNN cascade: one picture, loops, growing lists, greedy suppression.

The graph in `cascade` is tested against it: both have to find the same faces. It follows the published cascade
with the conventions of facenet-pytorch 2.6.0 (area resampling, clipped crops, thresholds .6 .7 .7, suppression
at .5 within a level, .7 between levels, .7 by the smaller area at the end), except that the offsets of a
crop at the picture's border refer to the visible part of its box.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from networks.detector.contract import GREY
from networks.detector.mtcnn import STRIDE, WINDOW, ONet, PNet, RNet

Floats = NDArray[np.float32]
Observer = Callable[[str, int], None]


def greedy_suppression(
    boxes: Floats, scores: Floats, threshold: float, mode: Literal["union", "smaller"] = "union", extra: float = 0.0
) -> list[int]:
    """Return the indices kept by greedy non-maximum suppression, best score first; equal scores keep their order.

    Args:
        boxes: [n,4] x1 y1 x2 y2.
        scores: [n].
        threshold: a box goes when its overlap with a kept, better one is above this.
        mode: overlap measured against the union of the two areas or against the smaller area.
        extra: added to each side when areas are computed (1 where coordinates are inclusive pixels).
    """
    area = (boxes[:, 2] - boxes[:, 0] + extra) * (boxes[:, 3] - boxes[:, 1] + extra)
    order = list(np.argsort(-scores, kind="stable"))
    kept: list[int] = []
    while order:
        best, rest = order[0], np.array(order[1:], dtype=int)
        kept.append(int(best))
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:4], boxes[rest, 2:4])
        inter = np.prod(np.maximum(high - low + extra, 0.0), axis=1)
        against = area[best] + area[rest] - inter if mode == "union" else np.minimum(area[best], area[rest])
        order = list(rest[inter <= np.float32(threshold) * against])
    return kept


def detect(
    picture: NDArray[np.uint8],
    networks: tuple[PNet, RNet, ONet],
    min_face: float = 20.0,
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
    factor: float = 0.709,
    observe: Observer | None = None,
) -> Floats:
    """Detect the faces of one picture.

    Args:
        picture: uint8 RGB [h,w,3].
        networks: P-, R- and O-Net.
        min_face: smallest face in pixels.
        thresholds: face probabilities, 0..1, for the three stages.
        factor: scale of a pyramid level over that of the next finer one.
        observe: called with a stage's name and its number of candidates, to choose the graph's fixed sizes.

    Returns:
        float32 [n,15]: x1 y1 x2 y2 score and five (x, y) in pixels with centres at integers, best score first.
    """
    report = observe or (lambda _name, _count: None)
    p_net, r_net, o_net = networks
    image = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].float() - GREY
    with torch.no_grad():
        boxes, scores = _propose(image, p_net, min_face, thresholds[0], factor, report)
        if not len(boxes):
            return np.zeros((0, 15), np.float32)

        boxes, crops = _crops(image, boxes, RNet.SIDE)
        if not len(boxes):
            return np.zeros((0, 15), np.float32)
        probability, offsets = (t.numpy() for t in r_net(crops))
        passed = probability > thresholds[1]
        boxes, scores, offsets = boxes[passed], probability[passed], offsets[passed]
        report("r_passed", len(boxes))
        kept = greedy_suppression(boxes, scores, 0.7)
        report("r_kept", len(kept))
        boxes = square(refine(boxes[kept], offsets[kept]))

        boxes, crops = _crops(image, boxes, ONet.SIDE)
        if not len(boxes):
            return np.zeros((0, 15), np.float32)
        probability, offsets, points = (t.numpy() for t in o_net(crops))
        passed = probability > thresholds[2]
        boxes, scores, offsets, points = boxes[passed], probability[passed], offsets[passed], points[passed]
    side = boxes[:, 2:] - boxes[:, :2] + 1
    xy = np.stack([points[:, :5] * side[:, :1] + boxes[:, :1], points[:, 5:] * side[:, 1:] + boxes[:, 1:2]], axis=2)
    boxes = refine(boxes, offsets)
    report("o_passed", len(boxes))
    kept = greedy_suppression(boxes, scores, 0.7, "smaller", extra=1.0)
    # The cascade counts pixels from 1; pixel centres at integers from 0 are one less.
    rows = np.concatenate([boxes - 1, scores[:, None], xy.reshape(len(boxes), 10) - 1], axis=1)
    return np.asarray(rows[kept], np.float32)


def refine(boxes: Floats, offsets: Floats) -> Floats:
    """Move the four edges by parts of the box's (inclusive) sides."""
    side = np.tile(boxes[:, 2:] - boxes[:, :2] + 1, (1, 2))
    return np.asarray(boxes + offsets * side, np.float32)


def square(boxes: Floats) -> Floats:
    """Grow the shorter side about the centre."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True)
    low = boxes[:, :2] + size * 0.5 - side * 0.5
    return np.asarray(np.concatenate([low, low + side], axis=1), np.float32)


def _propose(
    image: torch.Tensor, p_net: PNet, min_face: float, threshold: float, factor: float, report: Observer
) -> tuple[Floats, Floats]:
    height, width = image.shape[2:]
    scale = WINDOW / min_face
    levels: list[Floats] = []
    while min(height, width) * scale >= WINDOW:
        level = interpolate(image, size=(int(height * scale + 1), int(width * scale + 1)), mode="area")
        output = p_net(level)[0]
        probability, offsets = torch.sigmoid(output[0]).numpy(), output[1:].numpy()
        row, col = np.nonzero(probability >= threshold)
        low = np.floor((STRIDE * np.stack([col, row], axis=1) + 1) / scale)
        high = np.floor((STRIDE * np.stack([col, row], axis=1) + WINDOW) / scale)
        score = probability[row, col]
        rows = np.concatenate([low, high, score[:, None], offsets[:, row, col].T], axis=1).astype(np.float32)
        report(f"p_level_{len(levels)}", len(rows))
        levels.append(rows[greedy_suppression(rows[:, :4], score, 0.5)])
        scale *= factor
    if not levels:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    rows = np.concatenate(levels)
    report("p_after_level_nms", len(rows))
    rows = rows[greedy_suppression(rows[:, :4], rows[:, 4], 0.7)]
    report("p_kept", len(rows))
    size = np.tile(rows[:, 2:4] - rows[:, :2], (1, 2))
    return square(rows[:, :4] + rows[:, 5:9] * size), rows[:, 4]


def _crops(image: torch.Tensor, boxes: Floats, side: int) -> tuple[Floats, torch.Tensor]:
    """Return the visible parts of the boxes that have any, [n,4], and these resampled to side x side by area.

    A network's offsets refer to the part of the box that it saw. facenet-pytorch applies them to the whole box, which
    is wrong by as much as the face reaches beyond the picture.
    """
    height, width = image.shape[2:]
    integer_boxes = np.trunc(boxes).astype(int)
    low = np.maximum(integer_boxes[:, :2], 1) - 1
    high = np.minimum(integer_boxes[:, 2:], (width, height))
    touching = np.flatnonzero((high > low).all(axis=1))
    crops = [
        interpolate(image[:, :, low[i, 1] : high[i, 1], low[i, 0] : high[i, 0]], size=(side, side), mode="area")
        for i in touching
    ]
    visible_boxes = np.concatenate([np.maximum(boxes[:, :2], 1), np.minimum(boxes[:, 2:], (width, height))], axis=1)
    return np.asarray(visible_boxes[touching], np.float32), torch.cat(crops) if crops else torch.zeros(0, 3, side, side)
