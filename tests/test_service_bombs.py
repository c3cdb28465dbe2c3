"""Hostile pictures and killed decoders on the real service: whoever else asks gets the right answer."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.attack import pictures as hostile
from tests.servers import serving
from tests.service import Refusal, Service

# A second and more of decoding, within what is allowed.
EXPENSIVE = hostile.progressive(8000, 8000, 190)


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server whose processes may be killed."""
    log = tmp_path_factory.mktemp("bombs") / "triton.log"
    with serving(on_free_ports(ServerOptions(log_file=log))) as running:
        yield running


@pytest.fixture(scope="module")
def service(own_server: EmbeddedServer) -> Service:
    return Service(own_server.grpc)


def decoders(server_pid: int) -> dict[str, list[int]]:
    """Process ids of the decoding workers of a server, and of the process that starts them."""
    parents, programs = {}, set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if b"decode_worker.py" in (entry / "cmdline").read_bytes():
                    programs.add(int(entry.name))
            except OSError:
                continue  # it has ended meanwhile

    def descends(pid: int) -> bool:
        while pid in parents and pid != server_pid:
            pid = parents[pid]
        return pid == server_pid

    ours = {pid for pid in programs if descends(pid)}
    return {
        "workers": [pid for pid in ours if parents[pid] in ours],
        "parent": [pid for pid in ours if parents[pid] not in ours],
    }


def test_neighbours_get_their_faces_while_hostile_pictures_come(service: Service, portrait_jpeg: bytes) -> None:
    alone = service.ask(portrait_jpeg, outputs=("landmarks",))["landmarks"]
    finished = threading.Event()

    def neighbour(_: int) -> int:
        served = 0
        while served < 5 or not finished.is_set():
            landmarks = service.ask(portrait_jpeg, outputs=("landmarks",))["landmarks"]
            np.testing.assert_allclose(landmarks, alone, atol=0.05)
            served += 1
        return served

    with ThreadPoolExecutor(3) as pool:
        neighbours = [pool.submit(neighbour, number) for number in range(3)]
        try:
            for kind, make in hostile.KINDS.items():
                with pytest.raises(Refusal) as caught:
                    service.ask(make(**hostile.QUICK.get(kind, {})), outputs=("landmarks",))
                assert caught.value.tag in ("BadImage", "ImageTooLarge", "NoFace"), (kind, caught.value)
                assert caught.value.code == "INVALID_ARGUMENT"
        finally:
            finished.set()
        assert min(future.result() for future in neighbours) >= 5


def test_a_picture_that_takes_seconds_delays_nobody(service: Service, portrait_jpeg: bytes) -> None:
    with ThreadPoolExecutor(1) as pool:
        expensive = pool.submit(service.ask, EXPENSIVE, outputs=("landmarks",))
        time.sleep(0.3)
        service.ask(portrait_jpeg, outputs=("landmarks",))
        assert not expensive.done(), "it was to take longer than a neighbour's picture"
        with pytest.raises(Refusal) as caught:
            expensive.result()
    assert caught.value.tag == "NoFace"


def test_killed_decoders_lose_no_request(own_server: EmbeddedServer, service: Service, portrait_jpeg: bytes) -> None:
    pid = own_server.pid
    assert pid is not None
    finished = threading.Event()

    def kill() -> int:
        chance, killed = random.Random(4), 0
        while not finished.wait(0.3):
            found = decoders(pid)
            victims = found["parent"] if killed % 4 == 2 else found["workers"]
            if victims:
                os.kill(chance.choice(victims), signal.SIGKILL)
                killed += 1
        return killed

    with ThreadPoolExecutor(4) as pool:
        killer = pool.submit(kill)
        try:
            for shape in pool.map(
                lambda _: service.ask(portrait_jpeg, outputs=("landmarks",))["landmarks"].shape, range(80)
            ):
                assert shape == (68, 2)
        finally:
            finished.set()
        assert killer.result() >= 3
