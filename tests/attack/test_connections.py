"""Connections that no client would make: HTTP/2 frames by hand, thousands of connections, slow and half ones."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from server.gateway import limits
from server.service import Service
from tests.attack import http2_frames as frames
from tests.attack import http_bytes, neighbours
from tests.attack.conftest import MIB, peak_memory
from tests.attack.verdicts import over_grpc
from tests.server.gateway.conftest import message

SOAK_CONNECTIONS = int(os.environ.get("FACE3D_SOAK_CONNECTIONS", "1000"))
SEED = int(os.environ.get("FACE3D_SOAK_SEED", "1"))
SOAK = [pytest.mark.soak, pytest.mark.timeout(3600)]


@pytest.fixture
def public(attacked: Service) -> Iterator[Any]:
    """A channel to the gateway."""
    with grpc.insecure_channel(attacked.grpc) as channel:
        yield channel


@pytest.fixture(scope="module")
def good(photo: bytes) -> bytes:
    """The message of a request that is answered."""
    data: bytes = message(photo, model="detect", outputs=("faces",)).SerializeToString()
    return data


def once_there_is_room(channel: Any, data: bytes) -> str:
    """Send a request until it is not refused for want of room, which calls that were cut off leave a moment later."""
    deadline = time.monotonic() + 60
    while (answer := over_grpc(channel, data)).startswith("UNAVAILABLE: [Overloaded]"):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return answer


@pytest.mark.parametrize("count", [len(frames.KINDS), pytest.param(SOAK_CONNECTIONS, marks=SOAK)])
def test_frames_by_hand_harm_nobody_and_take_no_memory(
    attacked: Service, public: Any, good: bytes, photo: bytes, count: int
) -> None:
    assert attacked.gateway is not None
    before = peak_memory(attacked.gateway.pid)
    kinds: Counter[str] = Counter()
    with neighbours.at_work(attacked.http, attacked.grpc, photo) as found:
        for kind, data in frames.odd_connections(count, SEED):
            frames.converse(attacked.grpc, data)
            assert once_there_is_room(public, good) == "OK", kind
            kinds[kind] += 1
    print(f"\n{count} connections of {len(kinds)} kinds; {found}")
    assert not found.lost, found.lost
    assert peak_memory(attacked.gateway.pid) - before < 600 * MIB


def test_calls_that_are_cut_off_together_leave_their_room_behind(attacked: Service, public: Any, good: bytes) -> None:
    flood = frames.start() + b"".join(frames.open_call(2 * index + 1) for index in range(limits.MAX_STREAMS + 2))
    for _ in range(3):
        frames.converse(attacked.grpc, flood)
    assert once_there_is_room(public, good) == "OK"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("count", [600, pytest.param(4000, marks=SOAK)])
def test_thousands_of_idle_connections_leave_those_who_work_alone(
    attacked: Service, photo: bytes, protocol: str, count: int
) -> None:
    host, port = getattr(attacked, protocol).split(":")
    opened: list[socket.socket] = []
    with neighbours.at_work(attacked.http, attacked.grpc, photo) as found:
        try:
            time.sleep(0.5)  # neighbours are connected
            for _ in range(count):
                with contextlib.suppress(OSError):
                    opened.append(socket.create_connection((host, int(port)), timeout=5))
                if len(opened) > limits.MAX_CONNECTIONS + 100:  # each is answered or closed: no descriptor more here
                    opened.pop(0).close()
        finally:
            for sock in opened:
                sock.close()
    assert not found.lost, found.lost


SLOW_BODY = http_bytes.post(b"x", b"Content-Length: 30000000", b"Inference-Header-Content-Length: 0")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_bodies_that_do_not_arrive_take_no_neighbours_place(attacked: Service, photo: bytes, protocol: str) -> None:
    """As many unfinished requests as there is room for, and more; neighbours work on."""
    host, port = getattr(attacked, protocol).split(":")
    opened: list[socket.socket] = []
    slow = SLOW_BODY if protocol == "http" else frames.start() + frames.open_call(1)
    with neighbours.at_work(attacked.http, attacked.grpc, photo, least=3) as found:
        try:
            for _ in range(limits.MAX_IN_FLIGHT + 20):
                sock = socket.create_connection((host, int(port)), timeout=5)
                sock.sendall(slow)
                opened.append(sock)
            time.sleep(limits.HURRIED_BODY_TIME + 2)
        finally:
            for sock in opened:
                sock.close()
    print(f"\n{found}")
    assert not found.lost, found.lost
