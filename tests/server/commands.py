"""`python -m server` as a child process, the way a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import psutil

FREE_PORTS = tuple(
    word for kind in ("http", "grpc", "metrics", "triton-http", "triton-grpc") for word in (f"--{kind}-port", "0")
)


class Command:
    """A running `python -m server`; ``errors`` fills with the lines of its stderr."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.errors: list[str] = []
        self.http = self.grpc = self.metrics = self.triton_http = self.triton_grpc = ""
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,))
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        self.errors.extend(line.rstrip() for line in stream)

    def ready(self) -> str:
        """The HTTP endpoint for clients, once the command says that it is ready.

        ``http``, ``grpc``, ``metrics`` and Triton's own ``triton_http`` and ``triton_grpc`` are known then too.
        """
        assert self.process.stdout is not None
        match = re.match(
            r"ready: http (\S+), grpc (\S+), metrics http://(\S+)/metrics$", self.process.stdout.readline()
        )
        assert match, self.errors
        self.http, self.grpc, self.metrics = match[1], match[2], match[3]
        bare = re.match(r"triton: http (\S+), grpc (\S+)$", self.process.stdout.readline())
        assert bare, self.errors
        self.triton_http, self.triton_grpc = bare[1], bare[2]
        return match[1]

    def supervisor(self) -> str:
        """``host:port`` of the supervisor, after `ready`."""
        assert self.process.stdout is not None
        match = re.match(r"supervised: http://([\d.:]+)/healthz", self.process.stdout.readline())
        assert match, self.errors
        return match[1]

    def server_pid(self) -> int | None:
        """Process id of tritonserver, None while there is none."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def gateway_pid(self) -> int:
        """Process id of the gateway."""
        children = psutil.Process(self.process.pid).children()
        (gateway,) = (child.pid for child in children if "server.gateway" in child.cmdline())
        return int(gateway)

    def end(self, timeout: float = 60) -> int:
        """Wait for the end; the exit status."""
        status = self.process.wait(timeout)
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self.process.stderr is not None:
            self.process.stderr.close()
        return status
