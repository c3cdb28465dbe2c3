"""What the model's process and a decoding worker exchange: one block of shared memory, and messages over a socket.

The block is a memfd, which has no name and so leaves nothing behind. Its layout:

    0                 FILE_BYTES         + CANVAS_BYTES      + WHOLE_BYTES
    | the file        | the canvas       | the picture       |

The canvases of tiles stand in the place of the picture, which is not wanted beside them.

Messages are fixed structs or JSON of numbers and strings. Nothing is pickled.
"""

from __future__ import annotations

import json
import mmap
import socket
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from structure import WHOLE_PIXELS, WORKING_SIDE

CANVAS_SIDE = 512
CANVAS_BYTES = 3 * CANVAS_SIDE * CANVAS_SIDE
# Of a picture as it is handed on as a rule, which a block keeps; and of the largest, on request.
PICTURE_BYTES, WHOLE_BYTES = 3 * WORKING_SIDE * WORKING_SIDE, 3 * WHOLE_PIXELS
MAX_MESSAGE = 4096
# What a block keeps between pictures; more is given back to the system after a large file. A picture of a telephone.
KEPT_FILE_BYTES = 4 << 20

# Bytes of the file, largest number of pixels, processor time in seconds, whether the picture is wanted, its
# `structure.Size`, and the longer side in source pixels of the smallest faces for which tiles are wanted; 0: no tiles.
TASK = struct.Struct("<QQd?Bd")


class Block:
    """The shared memory of one worker, seen from either side.

    Args:
        descriptor: of the memfd.
        max_bytes: the longest file.
    """

    def __init__(self, descriptor: int, max_bytes: int) -> None:
        self._file_bytes = -(-max_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(descriptor, block_bytes(max_bytes))
        whole: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        self.canvas = whole[self._file_bytes :][:CANVAS_BYTES].reshape(3, CANVAS_SIDE, CANVAS_SIDE)
        self._picture = whole[self._file_bytes + CANVAS_BYTES :][:WHOLE_BYTES]
        self._large = False

    def picture(self, height: int, width: int) -> NDArray[np.uint8]:
        """View the picture, uint8 [height, width, 3]; ValueError for one that is larger than the block holds."""
        if not (height > 0 and width > 0 and height * width <= WHOLE_PIXELS):
            raise ValueError(f"a picture of {width} x {height} does not fit")
        self._large |= height * width * 3 > PICTURE_BYTES
        return self._picture[: height * width * 3].reshape(height, width, 3)

    def tiles(self, count: int) -> NDArray[np.uint8]:
        """View the canvases of tiles, uint8 [count, 3, 512, 512]; ValueError for more than the block holds."""
        if not 0 <= count * CANVAS_BYTES <= WHOLE_BYTES:
            raise ValueError(f"{count} tiles do not fit")
        self._large |= count * CANVAS_BYTES > PICTURE_BYTES
        return self._picture[: count * CANVAS_BYTES].reshape(count, 3, CANVAS_SIDE, CANVAS_SIDE)

    def put_file(self, data: bytes) -> None:
        """Write the file; ValueError if it is longer than the block holds."""
        if len(data) > self._file_bytes:
            raise ValueError(f"a file of {len(data)} bytes does not fit")
        self._map[: len(data)] = data

    def file(self, size: int) -> bytes:
        """Copy the first ``size`` bytes of the file."""
        return self._map[: min(size, self._file_bytes)]

    def forget(self) -> None:
        """Give back the memory of a large picture, whose views then show nothing."""
        if self._large:
            kept = self._file_bytes + CANVAS_BYTES + PICTURE_BYTES
            self._map.madvise(mmap.MADV_REMOVE, kept, len(self._map) - kept)
            self._large = False

    def trim(self, size: int) -> None:
        """Give back the memory of a file of ``size`` bytes, except for what is kept."""
        if size > KEPT_FILE_BYTES:
            self._map.madvise(mmap.MADV_REMOVE, KEPT_FILE_BYTES, self._file_bytes - KEPT_FILE_BYTES)


def block_bytes(max_bytes: int) -> int:
    """Return the size of a block for files of at most ``max_bytes``."""
    return -(-max_bytes // mmap.PAGESIZE) * mmap.PAGESIZE + CANVAS_BYTES + WHOLE_BYTES


def send(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send a message of numbers, strings and lists; long strings are cut so that it fits."""
    channel.send(json.dumps({k: v[:1000] if isinstance(v, str) else v for k, v in message.items()}).encode())


def receive(channel: socket.socket) -> dict[str, Any] | None:
    """Receive the next message; None when the other side has ended.

    Raises:
        TimeoutError: none came within the channel's timeout.
        ValueError: what came is no message.
    """
    try:
        data = channel.recv(MAX_MESSAGE)
    except ConnectionResetError:
        return None
    if not data:
        return None
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("not a message")
    return message
