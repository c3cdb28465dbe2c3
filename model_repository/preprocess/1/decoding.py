"""Decodes the pictures of one request by a worker, and puts them into the tensors that were asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from cage import Worker
from cost import Cost
from numpy.typing import NDArray
from refusals import BadPicture
from structure import Limits, budget

T = TypeVar("T")


class Outputs(NamedTuple):
    """The tensors of a request, and for each of its pictures how long decoding took (s) and its size (pixels)."""

    tensors: dict[str, NDArray[Any]]
    decoded: list[tuple[float, int]]


def decode(
    worker: Worker,
    files: Sequence[bytes],
    costs: Sequence[Cost],
    limits: Sequence[Limits],
    wanted: set[str],
    min_face: float = 0.0,
) -> Outputs:
    """Decode the pictures of a request one after the other.

    Args:
        worker: decodes them; nobody else uses it meanwhile.
        files: the bytes of each picture.
        costs: what `structure.inspect` found for each.
        limits: of each.
        wanted: names of the outputs: ``canvas`` uint8 [n, 3, 512, 512], ``geometry`` float32 [n, 6], ``view`` float32
            [n, 4], ``picture`` uint8 [n, h, w, 3]. n is the number of files; of a single one whose ``view`` is wanted
            and whose ``picture`` is not, 1 and the tiles for faces from ``min_face`` on.
        min_face: longer side in source pixels; 0 for no tiles.

    Raises:
        BadPicture: one of them is refused.
    """
    canvases, geometries, views, pictures, decoded = [], [], [], [], []
    alone = len(files) == 1
    tiled = min_face if alone and "view" in wanted and "picture" not in wanted else 0.0
    for row, (data, cost, limit) in enumerate(zip(files, costs, limits, strict=True)):
        start = time.perf_counter()
        needs = budget(cost)
        decode_one = partial(worker.decode, data, limit.max_pixels, needs, "picture" in wanted, limit.size, tiled)
        result = of_row(row, len(files), decode_one)
        decoded.append((time.perf_counter() - start, int(result.geometry[0] * result.geometry[1])))
        # The worker's memory holds one picture; of several, each is copied out of it.
        canvases += [result.canvas if alone else result.canvas.copy(), *result.tiles]
        geometries.append(result.geometry)
        views.append([0, 0, *result.geometry[:2]])
        for look in result.looks:
            geometries.append(np.concatenate([result.geometry[:2], look[4:], result.geometry[4:]]))
            views.append(look[:4])
        if result.pixels is not None:
            pictures.append(result.pixels if alone else result.pixels.copy())
    tensors: dict[str, NDArray[Any]] = {
        "canvas": canvases[0][None] if len(canvases) == 1 else np.stack(canvases),
        "geometry": np.stack(geometries),
        "view": np.array(views, np.float32),
    }
    if pictures:
        tensors["picture"] = _padded(pictures)
    return Outputs({name: tensors[name] for name in wanted}, decoded)


def of_row(row: int, rows: int, step: Callable[..., T], *arguments: Any) -> T:
    """Return what a step gives for one picture; its refusal names the picture where the request has several.

    Triton has one answer for a request: the good pictures of such a batch are sent again without the named one.

    Raises:
        BadPicture: of the step.
    """
    try:
        return step(*arguments)
    except BadPicture as error:
        if rows == 1:
            raise
        raise BadPicture(error.tag, f"row {row} of the {rows} in this request: {error}") from None


def _padded(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Put the rows of one request into one tensor; align knows the true size of each from the geometry."""
    if len(pictures) == 1:
        return pictures[0][None]
    height, width = np.max([picture.shape[:2] for picture in pictures], axis=0)
    rows = np.zeros((len(pictures), height, width, 3), np.uint8)
    for row, picture in zip(rows, pictures, strict=True):
        row[: picture.shape[0], : picture.shape[1]] = picture
    return rows
