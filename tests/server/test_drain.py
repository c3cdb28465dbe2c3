"""SIGTERM on the real service under load: what was inside is answered, what comes later is refused in words."""

from __future__ import annotations

import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import shared_memory
from tests.server.commands import FREE_PORTS, Command
from tests.service import Refusal, Service

CLIENTS = 12


@pytest.fixture(params=["gateway", "no-gateway"])
def command(request: pytest.FixtureRequest) -> Iterator[Command]:
    # Two minutes for twelve faces: a very busy machine takes one.
    made = Command(f"--{request.param}", "--exit-timeout", "120", *FREE_PORTS)
    try:
        yield made
    finally:
        made.process.kill()
        made.end()


def pending(command: Command) -> int:
    """Requests that wait for a model now."""
    with urllib.request.urlopen(f"http://{command.metrics}/metrics", timeout=10) as page:
        found = re.findall(r"(?m)^nv_inference_pending_request_count{.*} (\S+)$", page.read().decode())
    return int(sum(map(float, found)))


def crowd(command: Command, portrait_jpeg: bytes) -> tuple[list[threading.Thread], list[str]]:
    """Clients whose requests are all inside, and a list that fills with how each ends."""
    outcomes: list[str] = []

    def ask() -> None:
        try:
            Service(command.grpc).ask(portrait_jpeg)
            outcomes.append("answered")
        except Refusal as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while pending(command) < CLIENTS // 3:  # they are inside: the first ones are being worked on
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.5)  # the last of the twelve have been sent
    return threads, outcomes


def test_sigterm_answers_every_request_that_is_inside(command: Command, portrait_jpeg: bytes) -> None:
    command.ready()
    threads, outcomes = crowd(command, portrait_jpeg)
    command.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert outcomes == ["answered"] * CLIENTS
    assert command.end(180) == 0, command.errors


def test_what_comes_after_sigterm_is_refused_in_words(tmp_path: Path, portrait_jpeg: bytes) -> None:
    command = Command("--exit-timeout", "120", "--log-file", str(tmp_path / "log"), *FREE_PORTS)
    try:
        http = command.ready()
        service = Service(command.grpc)
        inside, _ = crowd(command, portrait_jpeg)
        command.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while not any("told to stop" in line for line in command.errors):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(Refusal, match="shutting down") as refusal:
            service.ask(portrait_jpeg)
        assert (refusal.value.code, refusal.value.tag) == ("UNAVAILABLE", "ServerUnavailable")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"http://{http}/v2/health/ready", timeout=5).close()
        for thread in inside:
            thread.join()
        assert command.end(180) == 0
    finally:
        command.process.kill()
        command.end()
    assert not [path for path in shared_memory.regions("face3d") if f"-{command.process.pid}-" in path.name]
