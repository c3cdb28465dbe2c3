"""Memory that stays with the process between two faces."""

from __future__ import annotations

import ctypes

# glibc's numbers for: from this size on, a piece of memory is a mapping of its own; so much may stay free at the end.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
# What is cut out for the larger crop has, in the four bytes of Pillow, 4 MiB for a picture of one megapixel.
_KEPT_CROP, _KEPT_HEAP = 32 << 20, 64 << 20


def keep_memory() -> None:
    """Use the memory of one crop for the next: what glibc gives back the kernel has to clear again."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_CROP)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_HEAP)
