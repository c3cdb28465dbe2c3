"""Memory that stays with a model's process between two requests.

The source is deploy/configurations/shared/memory.py; `make configs` copies it into the version folders that use it, as
a version folder is complete by itself.
"""

from __future__ import annotations

import ctypes

# glibc's numbers for: from this size on, a piece of memory is a mapping of its own; so much may stay free at the end.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
# A face and what is around it have, in four bytes a pixel, 4 MiB for a picture of one megapixel.
_KEPT_PIECE, _KEPT_HEAP = 32 << 20, 64 << 20


def keep_memory() -> None:
    """Use the memory of one request for the next: what glibc gives back the kernel has to clear again."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_PIECE)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_HEAP)
