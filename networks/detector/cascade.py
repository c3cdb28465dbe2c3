"""The whole MTCNN cascade as one module: canvas in, K face slots out, every picture on its own.

What the sequential cascade does with growing lists is done with the best K candidates and a mask. Where a stage
has no more than K candidates the result is the sequential one's.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from networks.detector import pyramid
from networks.detector.mtcnn import CELL, STRIDE, ONet, PNet, RNet, load_networks
from networks.detector.screen import ANSWERS, CANDIDATES, REACH, Screen
from networks.detector.suppression import overlaps, suppress, suppress_union
from networks.detector.weights import SCREEN

SLOTS = 16
"""Rows of the output, K of the contract."""
PER_LEVEL = 64
"""Windows kept of each pyramid level: a face fires 5 to 20 windows of its level."""
TO_REFINE = 128
"""Candidates that R-Net sees: a portrait has about 60, and 192 found no further face in pictures of 16 faces."""
TO_OUTPUT = 64
"""Candidates that O-Net sees; a portrait has about 10, a crowd six or more a face: with 32, a fortieth of them went
missing."""
TO_OUTPUT_FIXED = 32
"""The same where each one costs whether it is there or not: two for each slot."""
WORTH_CUTTING = 100
"""Pixels of a level's side from which on leaving out the grey around the picture gains more than it costs."""
P_THRESHOLD, R_THRESHOLD = 0.6, 0.7
FLOOR = 0.3
"""Lowest final score that is reported; who consumes the faces decides what is good enough."""


class Detector(nn.Module):
    """`canvas` UINT8 [B,3,512,512], `geometry` FP32 [B,6] -> `faces` FP32 [B,16,15] in source pixels.

    With `fixed`, no size inside depends on the picture and suppression is products of matrices, as TensorRT likes it.
    Without, P-Net leaves out the grey around the picture, R- and O-Net see only the slots that are filled (of a
    portrait's 128 and 64 about 60 and 8), suppression is an operator, and a `screen` keeps from R-Net what it would
    refuse: the same faces, on a CPU in less than half of the time.
    """

    INPUTS = ("canvas", "geometry")
    OUTPUTS = ("faces",)
    windows: Tensor
    reach: Tensor
    apart: Tensor
    sides: Tensor
    starts: Tensor

    def __init__(
        self, p_net: PNet, r_net: RNet, o_net: ONet, fixed: bool = False, screen: Screen | None = None
    ) -> None:
        super().__init__()
        self.p_net, self.r_net, self.o_net = p_net, r_net, o_net
        self.fixed, self.screen = fixed, screen
        self.to_output = TO_OUTPUT_FIXED if fixed else TO_OUTPUT
        sides = [p_net.side_of(pyramid.level_side(scale)) for scale in pyramid.level_scales()]
        self.cells = [side * side for side in sides]
        windows, reach = [], []
        for scale, side in zip(pyramid.level_scales(), sides, strict=True):
            grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy"), -1).view(-1, 2)
            low, high = torch.floor((STRIDE * grid + 1) / scale), torch.floor((STRIDE * grid + CELL) / scale)
            windows.append(torch.cat([low, high], 1))
            reach.append(high - STRIDE / scale)
        self.register_buffer("windows", torch.cat(windows), persistent=False)
        self.register_buffer("reach", torch.cat(reach).T.contiguous(), persistent=False)
        # Added to the windows before suppression, so that windows of different levels never overlap.
        level = torch.arange(len(sides), dtype=torch.float32).repeat_interleave(PER_LEVEL)
        self.register_buffer("apart", level[:, None] * (4 * pyramid.CANVAS), persistent=False)
        # Where a level's windows lie among all windows.
        self.register_buffer("sides", torch.tensor(sides), persistent=False)
        self.register_buffer("starts", torch.tensor([0, *self.cells]).cumsum(0)[:-1], persistent=False)

    @classmethod
    def load(cls, folder: Path, fixed: bool = False, screened: bool = True) -> Detector:
        """Read `pnet.pt`, `rnet.pt`, `onet.pt` from a folder; see the class for `fixed`.

        With other weights than the default ones, with fixed sizes, or unless `screened`, there is no screen.
        """
        networks = load_networks(folder)
        wanted = screened and not fixed
        screen = Screen.load(SCREEN, folder / "pnet.pt", len(pyramid.level_scales())) if wanted else None
        return cls(*networks, fixed, screen).eval()

    def forward(self, canvas: Tensor, geometry: Tensor) -> Tensor:
        """Find faces.

        Args:
            canvas: uint8 RGB [B,3,512,512]: the whole picture, long side 512, top left, the rest grey.
            geometry: [B,6] source_w, source_h, rx_canvas, ry_canvas, (2 unused): source pixels per canvas pixel.

        Returns:
            [B,16,15]: x1 y1 x2 y2 score, then x y of left eye, right eye (as seen), nose tip, left and right mouth
            corner, in source pixels with centres at integers; best score first, empty slots all zero.
        """
        ratio = geometry[:, None, 2:4]
        content = torch.round(geometry[:, None, 0:2] / ratio)
        table = pyramid.summed_area_table(canvas)

        boxes, scores = self.propose(table, content)
        boxes, scores, _ = self.refine(boxes, *self.judge(table, boxes, scores, content), content)
        faces, _ = self.output(table, boxes, scores, content)

        # One-based canvas pixels -> source pixels with centres at integers: X = (x - 1 + 0.5) r - 0.5.
        scale = ratio.repeat(1, 1, 7)
        places = (faces[..., 1:] - 0.5) * scale - 0.5
        found = (faces[..., :1] > 0).to(faces.dtype)
        return torch.cat([places[..., :4], faces[..., :1], places[..., 4:]], 2) * found

    def propose(self, table: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """P-Net over all levels: boxes [B,TO_REFINE,4] squared, scores [B,TO_REFINE], 0 where there is none."""
        answers = torch.cat([answer.flatten(2) for answer in self._answers(table, content)], 2)
        score = torch.sigmoid(answers[:, 0])
        # A window that reaches beyond the picture into the grey has no counterpart in a plain cascade.
        across, down = content.split(1, 2)
        inside = (self.reach[0] <= across[..., 0]) & (self.reach[1] <= down[..., 0])
        score = score * ((score >= P_THRESHOLD) & inside).to(score.dtype)

        best: list[Tensor] = []
        places: list[Tensor] = []
        start = 0
        for part in score.split(self.cells, 1):
            cells = self.cells[len(best)]
            value, at = torch.topk(part, min(PER_LEVEL, cells), dim=1)
            empty = (0, max(0, PER_LEVEL - cells))
            best.append(nn.functional.pad(value, empty))
            places.append(nn.functional.pad(at + start, empty))
            start += cells
        scores, at = torch.cat(best, 1), torch.cat(places, 1)
        boxes = self.windows[at]
        # The sequential cascade suppresses once more between levels, at 0.7. Windows of neighbouring levels differ by
        # 0.709 in side, so they cannot overlap by more than 0.51 (0.57 with the rounding of the smallest): no effect.
        apart = boxes + self.apart
        if self.fixed:
            levels = (-1, len(self.cells), PER_LEVEL)
            scores = self._suppressed(apart.reshape(*levels, 4), scores.reshape(levels), 0.5).flatten(1)
        else:
            scores = self._suppressed(apart, scores, 0.5)
        scores, slot = torch.topk(scores, CANDIDATES if self.screen else TO_REFINE, dim=1)
        if self.screen is not None:
            slot, scores = self._filled(slot, scores)
            level = torch.div(slot, PER_LEVEL, rounding_mode="trunc")
            around = self.around(answers, torch.gather(at, 1, slot), level)
            scores = scores * (self.screen(around, level) > 0).to(scores.dtype)
            scores, order = torch.topk(scores, scores.shape[1], dim=1)
            scores, slot = scores[:, :TO_REFINE], torch.gather(slot, 1, order)[:, :TO_REFINE]
        boxes, at = _take(boxes, slot), torch.gather(at, 1, slot)
        moves = torch.gather(answers, 2, at[:, None].expand(-1, ANSWERS, -1))[:, 1:].transpose(1, 2)
        size = boxes[..., 2:] - boxes[..., :2]
        return _square(boxes + moves * size.repeat(1, 1, 2)), scores

    def around(self, answers: Tensor, at: Tensor, level: Tensor) -> Tensor:
        """What P-Net says around windows.

        Args:
            answers: [B,C,windows], all levels one after the other.
            at: [B,n] windows.
            level: [B,n] of which level they are.

        Returns:
            [B,n,C,25] by rows; beyond a level's border its last windows are repeated.
        """
        side, start = self.sides[level], self.starts[level]
        row = torch.div(at - start, side, rounding_mode="trunc")
        steps = torch.arange(-REACH, REACH + 1)
        down, across = (
            torch.minimum(torch.relu(place[..., None] + steps), side[..., None] - 1)
            for place in (row, at - start - row * side)
        )
        cells = (start[..., None] + down * side[..., None])[..., None] + across[..., None, :]
        seen = torch.gather(answers, 2, cells.flatten(1)[:, None].expand(-1, answers.shape[1], -1))
        return seen.reshape(*seen.shape[:2], -1, (2 * REACH + 1) ** 2).transpose(1, 2)

    def _answers(self, table: Tensor, content: Tensor) -> list[Tensor]:
        """P-Net's answer for every window of each level, [B,C,side,side]; 0 for windows that lie in the grey.

        C is 5, and with a screen as many more as it asks for.
        """
        answers = []
        more = None if self.screen is None else self.screen.look
        columns, rows = content.amax((0, 1)).unbind()
        for scale in pyramid.level_scales():
            pixels = pyramid.level_side(scale)
            if self.fixed or pixels < WORTH_CUTTING:
                answers.append(self.p_net(pyramid.level(table, scale), more))
                continue
            side = self.p_net.side_of(pixels)
            # As many of the level's pixels as the picture covers and four more, in steps of two as windows are, one
            # window at least: what reaches beyond them reaches beyond the picture.
            height, width = (
                (2 * torch.ceil(length * (pixels / pyramid.CANVAS / 2)) + 4).clamp(CELL, pixels).long()
                for length in (rows, columns)
            )
            answer = self.p_net(pyramid.level(table, scale, (height, width)), more)
            grey = nn.functional.pad(answer, (0, side, 0, side))  # any more than needed, so that no size is computed
            answers.append(grey[:, :, :side, :side])
        return answers

    def judge(self, table: Tensor, boxes: Tensor, scores: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """R-Net: probabilities [B,n], 0 for empty slots, and box offsets [B,n,4]; n at most TO_REFINE."""
        boxes, scores = self._filled(boxes, scores)
        count = scores.shape[1]
        low, high, valid = _inside(boxes, scores, content)
        probability, offsets = self.r_net(pyramid.crops(table, low, high, RNet.SIDE))
        return probability.reshape(-1, count) * valid, offsets.reshape(-1, count, 4)

    def refine(
        self, boxes: Tensor, probability: Tensor, offsets: Tensor, content: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What R-Net takes: boxes [B,to_output,4] squared, scores and which candidates they were, [B,to_output]."""
        count = probability.shape[1]
        boxes = _seen(boxes[:, :count], content)
        scores = probability * (probability > R_THRESHOLD).to(probability.dtype)
        scores, came = torch.topk(scores, count, dim=1)
        boxes, offsets = _take(boxes, came), _take(offsets, came)
        scores = self._suppressed(boxes, scores, 0.7)
        boxes = _square(_moved(boxes, offsets))
        scores, at = torch.topk(nn.functional.pad(scores, (0, self.to_output)), self.to_output, dim=1)
        came = torch.gather(nn.functional.pad(came, (0, self.to_output)), 1, at)
        return _take(nn.functional.pad(boxes, (0, 0, 0, self.to_output)), at), scores, came

    def output(self, table: Tensor, boxes: Tensor, scores: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """O-Net: [B,16,15] score, x1 y1 x2 y2, five (x, y) in one-based canvas pixels, best first; of which boxes."""
        boxes, scores = self._filled(boxes, scores)
        count = scores.shape[1]
        low, high, valid = _inside(boxes, scores, content)
        boxes = _seen(boxes, content)
        probability, offsets, points = self.o_net(pyramid.crops(table, low, high, ONet.SIDE))
        probability = probability.reshape(-1, count)
        scores = probability * valid * (probability > FLOOR).to(valid.dtype)
        points = points.reshape(-1, count, 2, 5).transpose(2, 3)
        side = boxes[..., 2:] - boxes[..., :2] + 1
        points = (points * side[:, :, None] + boxes[:, :, None, :2]).reshape(-1, count, 10)
        rows = torch.cat([_moved(boxes, offsets.reshape(-1, count, 4)), points], 2)
        scores, came = torch.topk(nn.functional.pad(scores, (0, self.to_output)), self.to_output, dim=1)
        rows = _take(nn.functional.pad(rows, (0, 0, 0, self.to_output)), came)
        keep = suppress(overlaps(rows[..., :4], 0.7, "smaller", extra=1.0), (scores > 0).to(scores.dtype))
        scores, at = torch.topk(scores * keep, SLOTS, dim=1)
        return torch.cat([scores[..., None], _take(rows, at)], 2), torch.gather(came, 1, at)

    def _suppressed(self, boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
        """Scores [B,n] of boxes [B,n,4], best first, with 0 for those that a better one covers."""
        if self.fixed:
            return scores * suppress(overlaps(boxes, threshold), (scores > 0).to(scores.dtype))
        return suppress_union(boxes, scores, threshold)

    def _filled(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Without the slots that are empty in every picture of the batch, sorted last; one slot always stays."""
        if self.fixed:
            return boxes, scores
        count = (scores > 0).sum(1).max().clamp(min=1)
        return boxes[:, :count], scores[:, :count]


def example_inputs(batch: int = 2) -> tuple[Tensor, Tensor]:
    """Inputs of the right shapes and types for tracing."""
    geometry = torch.tensor([[pyramid.CANVAS, pyramid.CANVAS, 1, 1, 1, 1]], dtype=torch.float32)
    return torch.zeros(batch, 3, pyramid.CANVAS, pyramid.CANVAS, dtype=torch.uint8), geometry.repeat(batch, 1)


def _take(rows: Tensor, at: Tensor) -> Tensor:
    """Rows [B,n,c] at indices [B,k] -> [B,k,c]."""
    return torch.gather(rows, 1, at[..., None].expand(-1, -1, rows.shape[2]))


def _inside(boxes: Tensor, scores: Tensor, content: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The whole pixels of boxes that lie in the picture: first, one past the last, and 1.0 where there are any."""
    low = torch.relu(torch.floor(boxes[..., :2]) - 1)
    high = torch.minimum(torch.floor(torch.relu(boxes[..., 2:])), content)
    valid = (high > low).all(2) & (scores > 0)
    return low, high, valid.to(scores.dtype)


def _seen(boxes: Tensor, content: Tensor) -> Tensor:
    """The part of boxes that lies in the picture: what a network says of a crop, it says of this part."""
    low = torch.clamp(boxes[..., :2], min=1.0)
    return torch.cat([low, torch.maximum(torch.minimum(boxes[..., 2:], content), low)], 2)


def _moved(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Edges moved by parts of the inclusive sides."""
    side = boxes[..., 2:] - boxes[..., :2] + 1
    return boxes + offsets * side.repeat(1, 1, 2)


def _square(boxes: Tensor) -> Tensor:
    """The shorter side grown about the centre."""
    size = boxes[..., 2:] - boxes[..., :2]
    side = size.max(dim=2, keepdim=True).values
    low = boxes[..., :2] + size * 0.5 - side * 0.5
    return torch.cat([low, low + side], 2)
