"""YuNet and MTCNN's O-Net as one graph: a canvas in, K face slots out, every picture of a batch on its own.

YuNet finds boxes in one pass over a reduced canvas. Its points err by twice as much as O-Net's, so each box is cropped
from the full canvas, turned upright by YuNet's points, and O-Net gives the points, the box and a second opinion.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.detector import contract
from networks.detector.contract import CANVAS, GREY, MIN_SCORE, SLOTS, gather_rows
from networks.detector.crops import Levels, crops
from networks.detector.mtcnn import ONet
from networks.detector.suppression import overlaps, suppress, suppress_union
from networks.detector.weights import ONET, YUNET
from networks.detector.yunet import OUTPUTS, STRIDES, YuNet

SIDE = 320
"""Side of the reduced canvas in pixels: at 384 and 512 the same faces, for 1.4 and 2.5 times the time."""
SECOND_SIDE = 640
"""Side of the canvas, enlarged, for a second look at pictures whose faces are small or not found: all twelve faces of
14 pixels of the canvas are found there, at 320 none, at 512 eight."""
SMALL = 32.0
"""Canvas pixels of a box's longer side below which a picture gets the second look."""
SURE = 0.6
"""Score of YuNet's that a picture without a second look has at least once; one that has it in neither of both gets
the last looks."""
CANDIDATES = 512
"""Cells that enter suppression: eight for each slot of the output."""
CANDIDATES_FIXED = 256
"""The same with fixed sizes, where each costs a row and a column of a matrix."""
MIN_CELL_SCORE = 0.3
"""Score of YuNet's that a cell needs, 0..1."""
OVERLAP = 0.4
"""Intersection over union from which two boxes are one face."""
CROP_SIDE = 0.9
"""Side of O-Net's crop in parts of the box's longer side: the one with the least error of the points."""
UPRIGHT = 0.91
"""Score of YuNet's below which a face may be turned. Of 260 upright faces 3 % have less, of turned ones from 90 degrees
on all; and O-Net alone does not tell: it takes an upside-down face for an upright one with 0.58 to 0.999."""
TURNED_SLOTS = 8
"""Boxes, best first, that are looked at in the other directions when they may be turned."""
QUARTERS = ((0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))
"""Cosine and sine of these directions."""
CELL_SCORES = (0.3, 0.6, 0.8, 0.88, 0.95)
"""Scores of YuNet's."""
CALIBRATED = (0.1, 0.49, 0.62, 0.76, 1.0)
"""What they become before they are multiplied with O-Net's, so that a score of 0.7 asks for as much as MTCNN's does
(`export/reports/detectors.py`)."""


class SingleShotDetector(nn.Module):
    """Detect faces: `canvas` UINT8 [B,3,512,512], `geometry` FP32 [B,6] -> `faces` FP32 [B,64,15], source pixels.

    With `fixed`, no size inside depends on the picture and suppression is a product of matrices, as TensorRT needs it.
    Without, YuNet looks a second time only where faces are small or not found, and at the canvas turned and halved only
    where there is still none; O-Net gets only the filled slots, and turned crops only of the faces that may be turned.
    """

    INPUTS = contract.INPUTS
    OUTPUTS = contract.OUTPUTS
    cells: Tensor
    second_cells: Tensor

    def __init__(self, yunet: YuNet, o_net: ONet, fixed: bool = False, side: int = SIDE) -> None:
        super().__init__()
        self.yunet, self.o_net, self.fixed, self.side = yunet, o_net, fixed, side
        self.candidates = CANDIDATES_FIXED if fixed else CANDIDATES
        self.register_buffer("cells", _cells(side), persistent=False)
        self.register_buffer("second_cells", _cells(SECOND_SIDE), persistent=False)

    @classmethod
    def load(cls, yunet: Path = YUNET, o_net: Path = ONET, fixed: bool = False, side: int = SIDE) -> SingleShotDetector:
        """Read YuNet's ONNX file and `onet.pt`.

        Args:
            yunet, o_net: the two files.
            fixed: see the class.
            side: of the reduced canvas in pixels, a multiple of 32.

        Raises:
            NetworkError: a file is missing, damaged, or of another network.
        """
        refiner = ONet.load(o_net)
        assert isinstance(refiner, ONet)
        return cls(YuNet.load(yunet), refiner, fixed, side).eval()

    def forward(self, canvas: Tensor, geometry: Tensor) -> Tensor:
        """Detect the faces of each picture.

        Args:
            canvas: uint8 RGB [B,3,512,512]: the whole picture, long side 512, top left, the rest grey.
            geometry: [B,6] source_w, source_h, rx_canvas, ry_canvas, (2 unused): source pixels per canvas pixel.

        Returns:
            [B,64,15]: x1 y1 x2 y2 score, then x y of left eye, right eye (as seen in the upright face), nose tip, left
            and right mouth corner, in source pixels with centres at integers; best score first, empty slots all zero.
        """
        pixels = canvas.float()
        reduced = _resized(pixels, self.side)
        boxes, axes, scores = self.propose(pixels, reduced)
        faces, probability = self.refine(Levels.of(canvas, reduced, self.side), boxes, axes, scores)
        scores = torch.sqrt(calibrated(scores) * probability)
        scores, order = torch.topk(scores * (scores > MIN_SCORE).to(scores.dtype), SLOTS, dim=1)
        faces = gather_rows(faces, order)
        # O-Net may have moved two boxes to the same face.
        scores, order = torch.topk(self._suppress(faces[..., :4], scores), SLOTS, dim=1)
        # Pixel edges of the canvas -> source pixels with centres at integers.
        coordinates = gather_rows(faces, order) * geometry[:, None, 2:4].repeat(1, 1, 7) - 0.5
        is_face = (scores[..., None] > 0).to(scores.dtype)
        return torch.cat([coordinates[..., :4], scores[..., None], coordinates[..., 4:]], 2) * is_face

    def propose(self, pixels: Tensor, reduced: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find boxes with YuNet.

        Args:
            pixels: RGB 0..255, float32 [B,3,512,512].
            reduced: the same brought to the reduced canvas.

        Returns:
            boxes [B,64,4] x1 y1 x2 y2 in canvas pixels, edges at integers; unit vectors [B,64,2] along the eyes and
            the mouth; and scores [B,64], best first, 0 for an empty slot.
        """
        first = self._cells_of(reduced, self.side, self.cells)
        second = self._second_look(pixels, *first)
        looks = (first, second, self._last_looks(reduced, first[1], second[1]))
        scores, index = torch.topk(torch.cat([scores for _, scores in looks], 1), self.candidates, dim=1)
        rows = gather_rows(torch.cat([rows for rows, _ in looks], 1), index)
        scores, index = torch.topk(self._suppress(rows[..., :4], scores), SLOTS, dim=1)
        rows = gather_rows(rows, index)
        return rows[..., :4], _axes(rows[..., 4:]), scores

    def _second_look(self, pixels: Tensor, rows: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Look at the enlarged canvas of the pictures whose faces are small or not found.

        Args:
            pixels: RGB 0..255, float32 [B,3,512,512].
            rows, scores: of the first look.

        Returns:
            rows [B,n,14] and scores [B,n] as `_cells_of`; zeros for a picture without a second look.
        """
        again = self._unsure(rows, scores)
        enlarged = _resized(pixels[again], SECOND_SIDE)
        found = self._cells_of(enlarged, SECOND_SIDE, self.second_cells, may_be_empty=not self.fixed)
        return found if self.fixed else _placed(again, rows.shape[0], *found)

    def _last_looks(self, reduced: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Look at the canvas turned by a quarter, either way, and at half its size, where no face was found.

        A picture may lie on its side without saying so; and of a face that fills it YuNet sees no border.

        Args:
            reduced: RGB 0..255, float32 [B,3,side,side].
            first, second: scores [B,n] of the other looks.

        Returns:
            rows [B,n,14] and scores [B,n] as `_cells_of`, of the upright canvas, in any order.
        """
        best = torch.maximum(first[:, 0], second[:, 0])
        again = torch.arange(best.shape[0]) if self.fixed else torch.nonzero(best < SURE)[:, 0]
        seen = reduced[again]
        sideways, border = seen.transpose(2, 3), [self.side // 4] * 4
        # Turned clockwise, counter-clockwise, and in the middle of a grey canvas.
        views = [sideways.flip(3), sideways.flip(2), F.pad(_resized(seen, self.side // 2), border, value=GREY)]
        rows, scores = self._cells_of(torch.cat(views), self.side, self.cells, may_be_empty=not self.fixed)
        count = again.shape[0]
        clockwise, counter, halved = rows[:count], rows[count : 2 * count], rows[2 * count :]
        rows = torch.cat(
            [_upright(clockwise, clockwise=True), _upright(counter, clockwise=False), 2 * halved - CANVAS / 2], 1
        )
        scores = torch.cat([scores[:count], scores[count : 2 * count], scores[2 * count :]], 1)
        if self.fixed:
            return rows, scores * (best < SURE).to(scores.dtype)[:, None]
        return _placed(again, best.shape[0], rows, scores)

    def _cells_of(self, pixels: Tensor, side: int, cells: Tensor, may_be_empty: bool = False) -> tuple[Tensor, Tensor]:
        """Run YuNet and decode its best cells.

        Args:
            pixels: [B,3,side,side], the whole canvas in any size.
            side: its size.
            cells: `_cells` of this size.
            may_be_empty: whether B may be 0.

        Returns:
            boxes and points [B,n,14] in canvas pixels, and scores [B,n], best first, 0 below `MIN_CELL_SCORE`.
        """
        # With sizes written out: nothing is inferred where there is no picture.
        maps = zip(self.yunet(pixels, may_be_empty), STRIDES, strict=True)
        shaped = [cell.reshape(cell.shape[0], OUTPUTS, (side // stride) ** 2) for cell, stride in maps]
        outputs = torch.cat(shaped, 2)
        scores = torch.sqrt(torch.sigmoid(outputs[:, 0]) * torch.sigmoid(outputs[:, 5]))
        scores, index = torch.topk(scores * (scores > MIN_CELL_SCORE).to(scores.dtype), self.candidates, dim=1)
        corner, stride = cells[index][..., :2], cells[index][..., 2:]
        rows = torch.gather(outputs, 2, index[:, None].expand(-1, outputs.shape[1], -1)).transpose(1, 2)
        centre, half = corner + rows[..., 1:3] * stride, torch.exp(rows[..., 3:5]) * stride / 2
        points = rows[..., 6:] * stride + corner.repeat(1, 1, 5)
        return torch.cat([centre - half, centre + half, points], 2) * (CANVAS / side), scores

    def _unsure(self, rows: Tensor, scores: Tensor) -> Tensor:
        """Return the indices of the pictures that get a second look, int64 [m]; with fixed sizes all do."""
        if self.fixed:
            return torch.arange(scores.shape[0])
        side = (rows[..., 2:4] - rows[..., :2]).amax(2)
        small = ((side < SMALL) & (scores > 0)).any(1)
        return torch.nonzero(small | (scores[:, 0] < SURE))[:, 0]

    def refine(self, levels: Levels, boxes: Tensor, axes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Run O-Net on crops of the boxes.

        Args:
            levels: of the canvas.
            boxes, axes, scores: of `propose`.

        Returns:
            boxes and points [B,64,14] in canvas pixels, edges at integers, and probabilities of a face [B,64].
        """
        side = (boxes[..., 2:] - boxes[..., :2]).amax(2, keepdim=True) * CROP_SIDE
        squares = torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, side, axes], 2)
        picture, slot = self._filled(scores)
        chosen = squares[picture, slot]
        probability, rows = self._look(levels, picture, chosen)
        rows, probability = self._turn_upright(levels, (picture, slot), chosen, scores, rows, probability)
        where = (picture, slot)
        faces = scores.new_zeros(1).expand(*scores.shape, 14)
        return faces.index_put(where, rows), torch.zeros_like(scores).index_put(where, probability)

    def _turn_upright(
        self,
        levels: Levels,
        where: tuple[Tensor, Tensor],
        squares: Tensor,
        scores: Tensor,
        rows: Tensor,
        probability: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Look at faces that may be turned in the other three directions too, and keep O-Net's best answer.

        Args:
            levels: of the canvas.
            where: picture and slot of n boxes.
            squares: [n,5] their crops.
            scores: [B,64] YuNet's.
            rows, probability: [n,14] and [n] of `_look`.

        Returns:
            rows and probabilities as they came in, or turned.
        """
        own_scores = scores[where]
        doubtful = self._doubtful(own_scores, where[1], scores.shape[0])
        quarters = torch.tensor(QUARTERS)
        count = len(QUARTERS)
        turned = squares[doubtful][:, None].expand(-1, count, -1)
        turned = torch.cat([turned[..., :3], _turned(turned[..., 3:], quarters)], 2).flatten(0, 1)
        pictures = where[0][doubtful][:, None].expand(-1, count).flatten()
        others, other_rows = self._look(levels, pictures, turned)
        other, best = others.reshape(-1, count).max(1)
        index = best[:, None, None].expand(-1, 1, other_rows.shape[1])
        other_rows = torch.gather(other_rows.reshape(-1, count, other_rows.shape[1]), 1, index)[:, 0]
        before = probability[doubtful]
        better = (other > before) & (own_scores[doubtful] < UPRIGHT)
        rows = rows.index_put((doubtful,), torch.where(better[:, None], other_rows, rows[doubtful]))
        return rows, probability.index_put((doubtful,), torch.where(better, other, before))

    def _filled(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return picture and slot of the boxes that O-Net looks at, int64 [n] each."""
        if self.fixed:
            slots = torch.arange(SLOTS).expand(scores.shape)
            return torch.arange(scores.shape[0])[:, None].expand(scores.shape).flatten(), slots.flatten()
        picture, slot = torch.nonzero(scores > 0, as_tuple=True)
        return picture, slot

    def _doubtful(self, scores: Tensor, slot: Tensor, batch: int) -> Tensor:
        """Return which of the n boxes may be turned, by YuNet's scores [n], int64 [m]; with fixed sizes all may."""
        if self.fixed:
            return ((torch.arange(batch) * SLOTS)[:, None] + torch.arange(TURNED_SLOTS)).flatten()
        return torch.nonzero((slot < TURNED_SLOTS) & (scores < UPRIGHT))[:, 0]

    def _look(self, levels: Levels, picture: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Run O-Net on squares [n,5] (centre, side, axis): probabilities [n], boxes and points [n,14]."""
        centre, side, axis = squares[:, :2], squares[:, 2], squares[:, 3:]
        probability, offsets, points = self.o_net(crops(levels, picture, squares, ONet.SIDE, self.fixed))
        # All in parts of the square, from its centre.
        edges = offsets.reshape(-1, 2, 2) + torch.tensor([[-0.5], [0.5]])
        places = torch.cat([points.reshape(-1, 2, 5).transpose(1, 2) - 0.5, edges.mean(1, keepdim=True)], 1)
        places = _turned(axis[:, None], places) * side[:, None, None] + centre[:, None]
        half = (edges[:, 1] - edges[:, 0]) * side[:, None] / 2
        return probability, torch.cat([places[:, 5] - half, places[:, 5] + half, places[:, :5].flatten(1)], 1)

    def _suppress(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Return the scores [B,n] of boxes [B,n,4], best first, with 0 for those that a better one overlaps."""
        if self.fixed:
            return scores * suppress(overlaps(boxes, OVERLAP), (scores > 0).to(scores.dtype))
        return suppress_union(boxes, scores, OVERLAP)


def _resized(pixels: Tensor, side: int) -> Tensor:
    return F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)


def _placed(pictures: Tensor, batch: int, rows: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Spread rows [m,n,14] and scores [m,n] of some pictures, int64 [m], over a batch; zeros for the others."""
    empty_rows, empty_scores = rows.new_zeros(1), scores.new_zeros(1)
    return (
        empty_rows.expand(batch, *rows.shape[1:]).index_put((pictures,), rows),
        empty_scores.expand(batch, *scores.shape[1:]).index_put((pictures,), scores),
    )


def _upright(rows: Tensor, clockwise: bool) -> Tensor:
    """Bring boxes and points [B,n,14] of a canvas that was turned by a quarter back to the upright canvas.

    Args:
        rows: x1 y1 x2 y2 and five points in canvas pixels, edges at integers.
        clockwise: which way the canvas was turned.
    """
    # Without reshaping, which is not defined where there is no picture.
    x, y = rows[..., 0::2], rows[..., 1::2]
    x, y = (y, CANVAS - x) if clockwise else (CANVAS - y, x)
    # The corners change places along one axis.
    corners = [torch.minimum(x[..., :1], x[..., 1:2]), torch.minimum(y[..., :1], y[..., 1:2])]
    corners += [torch.maximum(x[..., :1], x[..., 1:2]), torch.maximum(y[..., :1], y[..., 1:2])]
    points = [part[..., index : index + 1] for index in range(2, 7) for part in (x, y)]
    return torch.cat([*corners, *points], 2)


def calibrated(scores: Tensor) -> Tensor:
    """Map YuNet's scores by straight lines from `CELL_SCORES` to `CALIBRATED`."""
    result = (scores * (CALIBRATED[0] / CELL_SCORES[0])).clamp(max=CALIBRATED[0])
    for x0, x1, y0, y1 in zip(CELL_SCORES, CELL_SCORES[1:], CALIBRATED, CALIBRATED[1:], strict=False):
        result = result + (scores.clamp(x0, x1) - x0) * ((y1 - y0) / (x1 - x0))
    return result


def _cells(side: int) -> Tensor:
    """Return x and y of the corner and the stride of every cell of a reduced canvas, by map, row, column: [n,3]."""
    maps = []
    for stride in STRIDES:
        steps = torch.arange(0, side, stride, dtype=torch.float32)
        rows, columns = torch.meshgrid(steps, steps, indexing="ij")
        maps.append(torch.stack([columns, rows, torch.full_like(rows, stride)], -1).reshape(-1, 3))
    return torch.cat(maps)


def _axes(points: Tensor) -> Tensor:
    """Return unit vectors [B,n,2] from left to right in a face, by its points [B,n,10] relative to anything."""
    x, y = points.unflatten(2, (5, 2)).unbind(3)
    right = torch.stack([value[..., 1] - value[..., 0] + value[..., 4] - value[..., 3] for value in (x, y)], -1)
    length = torch.sqrt((right * right).sum(2, keepdim=True))
    ahead = torch.tensor([1.0, 0.0])
    return torch.where(length > 1e-3, right / length.clamp(min=1e-3), ahead)


def _turned(first: Tensor, second: Tensor) -> Tensor:
    """Multiply vectors [...,2] as complex numbers: a rotation by the first one's angle if its length is 1."""
    x = first[..., 0] * second[..., 0] - first[..., 1] * second[..., 1]
    y = first[..., 0] * second[..., 1] + first[..., 1] * second[..., 0]
    return torch.stack([x, y], -1)
