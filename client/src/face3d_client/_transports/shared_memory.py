"""System shared memory: pictures reach a server on the same machine without passing through a socket.

A region is made once, registered with the server once, and used again and again; there are as many as calls were ever
in flight at the same time. Only pictures go this way: how large an answer will be is not known before it is there.
"""

from __future__ import annotations

import struct
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.shared_memory import SharedMemory
from typing import Final

from face3d_client._errors import Face3DError
from face3d_client._protocol.calls import Call, Placed
from face3d_client._transports.endpoint import Endpoint
from face3d_client._transports.failures import client_closed

__all__ = ["Region", "Regions", "is_unknown_region"]

_MIN_REGION: Final = 1 << 20


@dataclass(eq=False)
class Region:
    """A piece of shared memory.

    Attributes:
        name: what the server knows it by.
        memory: the memory.
        registered: whether the server knows it.
    """

    name: str
    memory: SharedMemory
    registered: bool = False

    @property
    def key(self) -> str:
        """Its name to the operating system, as Triton wants it."""
        return "/" + self.memory.name.lstrip("/")

    @property
    def size(self) -> int:
        """Bytes, as asked for when it was made."""
        return self.memory.size


@dataclass
class Regions:
    """The regions of one client; safe between threads."""

    _free: list[Region] = field(default_factory=list)
    _all: list[Region] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    @staticmethod
    def check(endpoint: Endpoint) -> None:
        """Refuse a server that is not on this machine.

        Raises:
            ValueError: it is not.
        """
        if endpoint.host not in ("localhost", "::1") and not endpoint.host.startswith("127."):
            raise ValueError(f"shared memory works on one machine only, and {endpoint.host} is another. Leave it out.")

    @contextmanager
    def place(self, call: Call) -> Iterator[tuple[Call, Region]]:
        """Put the call's picture into a region for as long as the block lasts.

        Raises:
            ServerUnavailable: the client is closed.
        """
        picture: bytes = call.inputs["image"][0, 0]
        size = 4 + len(picture)
        region = self._acquire(size)
        try:
            view = region.memory.buf
            if view is None:  # closed by another thread in this very moment
                raise client_closed()
            # A BYTES element travels behind its length in four bytes, little-endian.
            view[:4] = struct.pack("<I", len(picture))
            view[4:size] = picture
            yield replace(call, placed={"image": Placed(region.name, size)}), region
        finally:
            with self._lock:
                if not self._closed:
                    self._free.append(region)

    def _acquire(self, size: int) -> Region:
        with self._lock:
            if self._closed:  # a region made now would never be given back
                raise client_closed()
            fitting = [region for region in self._free if region.size >= size]
            if fitting:
                smallest = min(fitting, key=lambda region: region.size)
                self._free.remove(smallest)
                return smallest
            # Powers of two, so that a few regions serve pictures of every size.
            room = max(_MIN_REGION, 1 << (size - 1).bit_length())
            name = f"face3d_{uuid.uuid4().hex[:16]}"
            region = Region(name, SharedMemory(name=name, create=True, size=room))
            self._all.append(region)
            return region

    def registered(self) -> list[str]:
        """List the names that the server knows."""
        with self._lock:
            return [region.name for region in self._all if region.registered]

    def close(self) -> None:
        """Give the memory back to the system."""
        with self._lock:
            self._closed = True
            for region in self._all:
                region.memory.close()
                region.memory.unlink()
            self._all.clear()
            self._free.clear()


def is_unknown_region(error: Face3DError) -> bool:
    """Tell whether the server does not know the region any more: it was restarted."""
    return "unable to find shared memory region" in error.message.lower()
