"""MTCNN's cascade as one graph: a canvas in, K face slots out, every picture of a batch on its own.

The sequential cascade keeps growing lists; here a stage has the best K candidates and a mask. Where a stage has no
more than K candidates, the result is the sequential one's.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from networks.detector import contract, pyramid
from networks.detector.contract import CANVAS, MIN_SCORE, SLOTS, gather_rows
from networks.detector.mtcnn import STRIDE, WINDOW, ONet, PNet, RNet, load_networks
from networks.detector.screen import NEIGHBOURHOOD_RADIUS, PNET_OUTPUTS, SCREEN_CANDIDATES, Screen
from networks.detector.suppression import overlaps, suppress, suppress_union
from networks.detector.weights import SCREEN

WINDOWS_PER_LEVEL = 64
"""Windows kept of each pyramid level: a face scores in 5 to 20 windows of its level."""
RNET_CANDIDATES = 128
"""Candidates that R-Net gets: a portrait has about 60, and 192 found no further face in pictures of 16 faces."""
ONET_CANDIDATES = 64
"""Candidates that O-Net gets: a portrait has about 10, a crowd more than three a face."""
ONET_CANDIDATES_FIXED = 32
"""The same with fixed sizes, where an empty slot costs as much as a full one."""
MIN_CROPPED_SIDE = 100
"""Side of a level in pixels from which on leaving out the grey around the picture saves more than it costs."""
PNET_THRESHOLD, RNET_THRESHOLD = 0.6, 0.7
"""Face probabilities, 0..1, that the published cascade asks for after its first two stages."""


class Detector(nn.Module):
    """Detect faces: `canvas` UINT8 [B,3,512,512], `geometry` FP32 [B,6] -> `faces` FP32 [B,64,15], source pixels.

    With `fixed`, no size inside depends on the picture and suppression is a product of matrices, as TensorRT needs it.
    Without, P-Net leaves out the grey around the picture, R- and O-Net get only the filled slots (of a portrait's 128
    and 64 about 60 and 8), suppression is an operator, and a `screen` removes candidates that R-Net would reject: the
    same faces, on a CPU in less than half of the time.
    """

    INPUTS = contract.INPUTS
    OUTPUTS = contract.OUTPUTS
    windows: Tensor
    window_ends: Tensor
    level_offset: Tensor
    level_sides: Tensor
    level_starts: Tensor

    def __init__(
        self, p_net: PNet, r_net: RNet, o_net: ONet, fixed: bool = False, screen: Screen | None = None
    ) -> None:
        super().__init__()
        self.p_net, self.r_net, self.o_net = p_net, r_net, o_net
        self.fixed, self.screen = fixed, screen
        self.onet_candidates = ONET_CANDIDATES_FIXED if fixed else ONET_CANDIDATES
        sides = [p_net.output_side(pyramid.level_side(scale)) for scale in pyramid.level_scales()]
        self.window_counts = [side * side for side in sides]
        windows, window_ends = [], []
        for scale, side in zip(pyramid.level_scales(), sides, strict=True):
            grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy"), -1).view(-1, 2)
            low, high = torch.floor((STRIDE * grid + 1) / scale), torch.floor((STRIDE * grid + WINDOW) / scale)
            windows.append(torch.cat([low, high], 1))
            window_ends.append(high - STRIDE / scale)
        self.register_buffer("windows", torch.cat(windows), persistent=False)
        self.register_buffer("window_ends", torch.cat(window_ends).T.contiguous(), persistent=False)
        # Added to the windows before suppression, so that windows of different levels never overlap.
        level = torch.arange(len(sides), dtype=torch.float32).repeat_interleave(WINDOWS_PER_LEVEL)
        self.register_buffer("level_offset", level[:, None] * (4 * CANVAS), persistent=False)
        # Windows along a side of each level, and the index of each level's first window among all windows.
        self.register_buffer("level_sides", torch.tensor(sides), persistent=False)
        self.register_buffer("level_starts", torch.tensor([0, *self.window_counts]).cumsum(0)[:-1], persistent=False)

    @classmethod
    def load(cls, folder: Path, fixed: bool = False, screened: bool = True) -> Detector:
        """Read `pnet.pt`, `rnet.pt` and `onet.pt` from a folder.

        Args:
            folder: where the three files are.
            fixed: see the class.
            screened: whether to use the screen; there is none for other weights than the default ones, and none with
                fixed sizes.

        Raises:
            NetworkError: a file is missing, damaged, or of another network.
        """
        networks = load_networks(folder)
        use_screen = screened and not fixed
        screen = Screen.load(SCREEN, folder / "pnet.pt", len(pyramid.level_scales())) if use_screen else None
        return cls(*networks, fixed, screen).eval()

    def forward(self, canvas: Tensor, geometry: Tensor) -> Tensor:
        """Detect the faces of each picture.

        Args:
            canvas: uint8 RGB [B,3,512,512]: the whole picture, long side 512, top left, the rest grey.
            geometry: [B,6] source_w, source_h, rx_canvas, ry_canvas, (2 unused): source pixels per canvas pixel.

        Returns:
            [B,64,15]: x1 y1 x2 y2 score, then x y of left eye, right eye (as seen), nose tip, left and right mouth
            corner, in source pixels with centres at integers; best score first, empty slots all zero.
        """
        ratio = geometry[:, None, 2:4]
        content = torch.round(geometry[:, None, 0:2] / ratio)
        table = pyramid.summed_area_table(canvas)

        boxes, scores = self.run_pnet(table, content)
        probability, offsets = self.run_rnet(table, boxes, scores, content)
        boxes, scores, _ = self.select_rnet(boxes, probability, offsets, content)
        faces, _ = self.run_onet(table, boxes, scores, content)

        # One-based canvas pixels -> source pixels with centres at integers: X = (x - 1 + 0.5) r - 0.5.
        scale = ratio.repeat(1, 1, 7)
        coordinates = (faces[..., 1:] - 0.5) * scale - 0.5
        is_face = (faces[..., :1] > 0).to(faces.dtype)
        return torch.cat([coordinates[..., :4], faces[..., :1], coordinates[..., 4:]], 2) * is_face

    def run_pnet(self, table: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """Run P-Net over all levels and select R-Net's candidates.

        Args:
            table: [B,513,513,3] of `pyramid.summed_area_table`.
            content: [B,1,2] width and height of the picture on the canvas, whole pixels.

        Returns:
            boxes [B,n,4] x1 y1 x2 y2, squares in one-based canvas pixels, and scores [B,n], best first, 0 for an empty
            slot; n is RNET_CANDIDATES, or fewer with a screen.
        """
        outputs = torch.cat([output.flatten(2) for output in self._pnet_outputs(table, content)], 2)
        scores, window = self._best_windows(self._window_scores(outputs, content))
        boxes = self.windows[window]
        scores = self._suppress_within_levels(boxes, scores)
        scores, slot = torch.topk(scores, SCREEN_CANDIDATES if self.screen else RNET_CANDIDATES, dim=1)
        if self.screen is not None:
            slot, scores = self._drop_empty_slots(slot, scores)
            level = torch.div(slot, WINDOWS_PER_LEVEL, rounding_mode="trunc")
            neighbourhoods = self.neighbourhoods(outputs, torch.gather(window, 1, slot), level)
            scores = scores * (self.screen(neighbourhoods, level) > 0).to(scores.dtype)
            scores, order = torch.topk(scores, scores.shape[1], dim=1)
            scores, slot = scores[:, :RNET_CANDIDATES], torch.gather(slot, 1, order)[:, :RNET_CANDIDATES]
        boxes, window = gather_rows(boxes, slot), torch.gather(window, 1, slot)
        offsets = torch.gather(outputs, 2, window[:, None].expand(-1, PNET_OUTPUTS, -1))[:, 1:].transpose(1, 2)
        size = boxes[..., 2:] - boxes[..., :2]
        return _squares(boxes + offsets * size.repeat(1, 1, 2)), scores

    def _window_scores(self, outputs: Tensor, content: Tensor) -> Tensor:
        """Return face probabilities [B,windows], 0 below the threshold and beyond the picture."""
        score = torch.sigmoid(outputs[:, 0])
        # A window that reaches beyond the picture into the grey has no counterpart in the sequential cascade.
        width, height = content.split(1, 2)
        inside = (self.window_ends[0] <= width[..., 0]) & (self.window_ends[1] <= height[..., 0])
        passed: Tensor = (score >= PNET_THRESHOLD) & inside
        return score * passed.to(score.dtype)

    def _best_windows(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and window indices, [B,levels * WINDOWS_PER_LEVEL] each, best first within a level."""
        best: list[Tensor] = []
        indices: list[Tensor] = []
        start = 0
        for count, level_score in zip(self.window_counts, score.split(self.window_counts, 1), strict=True):
            value, index = torch.topk(level_score, min(WINDOWS_PER_LEVEL, count), dim=1)
            padding = (0, max(0, WINDOWS_PER_LEVEL - count))
            best.append(nn.functional.pad(value, padding))
            indices.append(nn.functional.pad(index + start, padding))
            start += count
        return torch.cat(best, 1), torch.cat(indices, 1)

    def _suppress_within_levels(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with 0 for windows that a better one of their level overlaps by more than 0.5."""
        # The sequential cascade suppresses once more between levels, at 0.7. Windows of neighbouring levels differ by
        # 0.709 in side, so they cannot overlap by more than 0.51 (0.57 with the rounding of the smallest): no effect.
        separated = boxes + self.level_offset
        if not self.fixed:
            return self._suppress(separated, scores, 0.5)
        levels = (-1, len(self.window_counts), WINDOWS_PER_LEVEL)
        return self._suppress(separated.reshape(*levels, 4), scores.reshape(levels), 0.5).flatten(1)

    def neighbourhoods(self, outputs: Tensor, window: Tensor, level: Tensor) -> Tensor:
        """Gather P-Net's outputs in the 5 x 5 windows around each candidate.

        Args:
            outputs: [B,C,windows], all levels one after the other.
            window: [B,n] indices of the candidates' windows.
            level: [B,n] indices of their pyramid levels.

        Returns:
            [B,n,C,25] by rows; beyond a level's border its last windows are repeated.
        """
        side, start = self.level_sides[level], self.level_starts[level]
        row = torch.div(window - start, side, rounding_mode="trunc")
        steps = torch.arange(-NEIGHBOURHOOD_RADIUS, NEIGHBOURHOOD_RADIUS + 1)
        rows, columns = (
            torch.minimum(torch.relu(centre[..., None] + steps), side[..., None] - 1)
            for centre in (row, window - start - row * side)
        )
        indices = (start[..., None] + rows * side[..., None])[..., None] + columns[..., None, :]
        gathered = torch.gather(outputs, 2, indices.flatten(1)[:, None].expand(-1, outputs.shape[1], -1))
        return gathered.reshape(*gathered.shape[:2], -1, (2 * NEIGHBOURHOOD_RADIUS + 1) ** 2).transpose(1, 2)

    def _pnet_outputs(self, table: Tensor, content: Tensor) -> list[Tensor]:
        """Return P-Net's outputs for every window of each level, [B,C,side,side]; 0 for windows that lie in the grey.

        C is PNET_OUTPUTS, and with a screen EXTRA_FEATURES more.
        """
        outputs = []
        extra_head = None if self.screen is None else self.screen.look
        columns, rows = content.amax((0, 1)).unbind()
        for scale in pyramid.level_scales():
            pixels = pyramid.level_side(scale)
            if self.fixed or pixels < MIN_CROPPED_SIDE:
                outputs.append(self.p_net(pyramid.level(table, scale), extra_head))
                continue
            side = self.p_net.output_side(pixels)
            # The level's pixels that the picture covers and four more, in steps of two as windows are, one window at
            # least: windows beyond them reach beyond the picture.
            height, width = (
                (2 * torch.ceil(length * (pixels / CANVAS / 2)) + 4).clamp(WINDOW, pixels).long()
                for length in (rows, columns)
            )
            output = self.p_net(pyramid.level(table, scale, (height, width)), extra_head)
            padded = nn.functional.pad(output, (0, side, 0, side))  # more than needed, so that no size is computed
            outputs.append(padded[:, :, :side, :side])
        return outputs

    def run_rnet(self, table: Tensor, boxes: Tensor, scores: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """Run R-Net on the candidates of `run_pnet`.

        Returns:
            probabilities [B,n], 0 for empty slots, and box offsets [B,n,4] as parts of the sides; n is at most
            RNET_CANDIDATES.
        """
        boxes, scores = self._drop_empty_slots(boxes, scores)
        count = scores.shape[1]
        low, high, valid = _visible_pixels(boxes, scores, content)
        probability, offsets = self.r_net(pyramid.crops(table, low, high, RNet.SIDE))
        return probability.reshape(-1, count) * valid, offsets.reshape(-1, count, 4)

    def select_rnet(
        self, boxes: Tensor, probability: Tensor, offsets: Tensor, content: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Select O-Net's candidates by R-Net's results.

        Args:
            boxes: [B,m,4] of `run_pnet`.
            probability, offsets: [B,n] and [B,n,4] of `run_rnet`.
            content: [B,1,2] as in `run_pnet`.

        Returns:
            boxes [B,k,4], squares in one-based canvas pixels; scores [B,k], best first, 0 for an empty slot; and the
            index [B,k] of each one among R-Net's candidates; k is `onet_candidates`.
        """
        count = probability.shape[1]
        boxes = _clip_boxes(boxes[:, :count], content)
        scores = probability * (probability > RNET_THRESHOLD).to(probability.dtype)
        scores, source_index = torch.topk(scores, count, dim=1)
        boxes, offsets = gather_rows(boxes, source_index), gather_rows(offsets, source_index)
        scores = self._suppress(boxes, scores, 0.7)
        boxes = _squares(_apply_offsets(boxes, offsets))
        scores, index = torch.topk(nn.functional.pad(scores, (0, self.onet_candidates)), self.onet_candidates, dim=1)
        source_index = torch.gather(nn.functional.pad(source_index, (0, self.onet_candidates)), 1, index)
        padded = nn.functional.pad(boxes, (0, 0, 0, self.onet_candidates))
        return gather_rows(padded, index), scores, source_index

    def run_onet(self, table: Tensor, boxes: Tensor, scores: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """Run O-Net on the candidates of `select_rnet` and suppress overlapping faces.

        Returns:
            [B,64,15] score, x1 y1 x2 y2, five (x, y) in one-based canvas pixels, best first; and the index [B,64] of
            each one among O-Net's candidates.
        """
        boxes, scores = self._drop_empty_slots(boxes, scores)
        count = scores.shape[1]
        low, high, valid = _visible_pixels(boxes, scores, content)
        boxes = _clip_boxes(boxes, content)
        probability, offsets, points = self.o_net(pyramid.crops(table, low, high, ONet.SIDE))
        probability = probability.reshape(-1, count)
        scores = probability * valid * (probability > MIN_SCORE).to(valid.dtype)
        points = points.reshape(-1, count, 2, 5).transpose(2, 3)
        side = boxes[..., 2:] - boxes[..., :2] + 1
        points = (points * side[:, :, None] + boxes[:, :, None, :2]).reshape(-1, count, 10)
        rows = torch.cat([_apply_offsets(boxes, offsets.reshape(-1, count, 4)), points], 2)
        places = max(self.onet_candidates, SLOTS)
        scores, source_index = torch.topk(nn.functional.pad(scores, (0, places)), places, dim=1)
        rows = gather_rows(nn.functional.pad(rows, (0, 0, 0, places)), source_index)
        keep = suppress(overlaps(rows[..., :4], 0.7, "smaller", extra=1.0), (scores > 0).to(scores.dtype))
        scores, index = torch.topk(scores * keep, SLOTS, dim=1)
        return torch.cat([scores[..., None], gather_rows(rows, index)], 2), torch.gather(source_index, 1, index)

    def _suppress(self, boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
        """Return the scores [B,n] of boxes [B,n,4], best first, with 0 for those that a better one overlaps."""
        if self.fixed:
            return scores * suppress(overlaps(boxes, threshold), (scores > 0).to(scores.dtype))
        return suppress_union(boxes, scores, threshold)

    def _drop_empty_slots(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Drop the last slots that are empty in every picture of the batch; one slot always stays."""
        if self.fixed:
            return boxes, scores
        count = (scores > 0).sum(1).max().clamp(min=1)
        return boxes[:, :count], scores[:, :count]


def _visible_pixels(boxes: Tensor, scores: Tensor, content: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the whole pixels of boxes inside the picture: first, one past the last, and 1.0 where there are any."""
    low = torch.relu(torch.floor(boxes[..., :2]) - 1)
    high = torch.minimum(torch.floor(torch.relu(boxes[..., 2:])), content)
    valid = (high > low).all(2) & (scores > 0)
    return low, high, valid.to(scores.dtype)


def _clip_boxes(boxes: Tensor, content: Tensor) -> Tensor:
    """Clip boxes to the picture, which is what a network's offsets for their crops refer to."""
    low = torch.clamp(boxes[..., :2], min=1.0)
    return torch.cat([low, torch.maximum(torch.minimum(boxes[..., 2:], content), low)], 2)


def _apply_offsets(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Move the four edges by parts of the box's (inclusive) sides."""
    side = boxes[..., 2:] - boxes[..., :2] + 1
    return boxes + offsets * side.repeat(1, 1, 2)


def _squares(boxes: Tensor) -> Tensor:
    """Grow the shorter side about the centre."""
    size = boxes[..., 2:] - boxes[..., :2]
    side = size.max(dim=2, keepdim=True).values
    low = boxes[..., :2] + size * 0.5 - side * 0.5
    return torch.cat([low, low + side], 2)
