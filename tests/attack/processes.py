"""The processes of a running `python -m server`, by what they do; and faults that they may have."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from server import census
from tests.server.commands import Command

Victims = Callable[[Command], list[int]]


def triton(command: Command) -> list[int]:
    """Tritonserver; none while there is none."""
    children = psutil.Process(command.process.pid).children()
    return [child.pid for child in children if _name(child) == "tritonserver"]


def gateway(command: Command) -> list[int]:
    """The gateway; none while there is none."""
    children = psutil.Process(command.process.pid).children()
    return [child.pid for child in children if "server.gateway" in _words(child)]


def stubs(model: str) -> Victims:
    """The processes of one model."""

    def find(command: Command) -> list[int]:
        found = (
            pids for server in triton(command) for (name, _), pids in census.stubs(server).items() if name == model
        )
        return [pid for pids in found for pid in pids]

    return find


def decoders(command: Command) -> list[int]:
    """The processes that decode pictures, and the one that starts them."""
    family = psutil.Process(command.process.pid).children(recursive=True)
    return [child.pid for child in family if any(word.endswith("decode_worker.py") for word in _words(child))]


def _words(process: psutil.Process) -> list[str]:
    try:
        words: list[str] = process.cmdline()
    except psutil.Error:
        return []  # it has ended meanwhile
    return words


def _name(process: psutil.Process) -> str:
    return Path((_words(process) or [""])[0]).name


@dataclass(frozen=True)
class Fault:
    """Something that happens to processes.

    Attributes:
        what: the processes and the signal, in words.
        victims: finds them.
        number: the signal; after SIGSTOP, SIGCONT follows.
        pause: seconds until SIGCONT; None for never: who looks after the process has to end it.
        everyone: whether all victims are struck, or the first.
        ends: whether the signal ends them; a model's processes ignore SIGTERM, as Triton's stub does.
    """

    what: str
    victims: Victims
    number: signal.Signals
    pause: float | None = None
    everyone: bool = False
    ends: bool = True

    @property
    def replaces(self) -> bool:
        """Whether the struck process has to be replaced by another."""
        return self.ends and (self.number is not signal.SIGSTOP or self.pause is None)

    def strike(self, command: Command) -> list[int]:
        """Let it happen; the process ids that were struck."""
        struck = self.victims(command)
        struck = struck if self.everyone else struck[:1]
        for pid in struck:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, self.number)
        if self.number is signal.SIGSTOP and self.pause is not None:
            time.sleep(self.pause)
            for pid in struck:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        return struck


MODELS = ("preprocess", "detector", "align", "regressor", "parser", "texture", "postprocess")

FAULTS = [
    *(Fault(f"{model} killed", stubs(model), signal.SIGKILL) for model in MODELS),
    *(Fault(f"{model} stopped", stubs(model), signal.SIGSTOP) for model in MODELS),
    Fault("regressor stopped for 3 s", stubs("regressor"), signal.SIGSTOP, 3, ends=False),
    Fault("both of postprocess killed", stubs("postprocess"), signal.SIGKILL, everyone=True),
    Fault("regressor crashes", stubs("regressor"), signal.SIGSEGV),
    Fault("align asked to end", stubs("align"), signal.SIGTERM, ends=False),
    Fault("tritonserver killed", triton, signal.SIGKILL),
    Fault("tritonserver crashes", triton, signal.SIGFPE),
    Fault("tritonserver aborts", triton, signal.SIGABRT),
    Fault("tritonserver asked to end", triton, signal.SIGTERM),
    Fault("tritonserver stopped for 2 s", triton, signal.SIGSTOP, 2),
    Fault("tritonserver stopped for 5 s", triton, signal.SIGSTOP, 5),
    Fault("gateway killed", gateway, signal.SIGKILL),
    Fault("gateway crashes", gateway, signal.SIGSEGV),
    Fault("gateway asked to end", gateway, signal.SIGTERM),
    Fault("gateway stopped for 3 s", gateway, signal.SIGSTOP, 3),
    Fault("decoder killed", decoders, signal.SIGKILL),
    Fault("all decoders killed", decoders, signal.SIGKILL, everyone=True),
    Fault("all decoders stopped for 2 s", decoders, signal.SIGSTOP, 2, everyone=True),
    Fault("all decoders asked to end", decoders, signal.SIGTERM, everyone=True, ends=False),
    Fault("tritonserver killed again", triton, signal.SIGKILL),
    Fault("preprocess killed again", stubs("preprocess"), signal.SIGKILL),
    Fault("gateway killed again", gateway, signal.SIGKILL),
    Fault("detector crashes", stubs("detector"), signal.SIGBUS),
    Fault("texture aborts", stubs("texture"), signal.SIGABRT),
]
"""The faults that the service outlives within seconds."""
