"""`python -m server` as a child process, the way a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


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
        self.grpc = self.metrics = ""
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,))
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        self.errors.extend(line.rstrip() for line in stream)

    def ready(self) -> str:
        """The HTTP endpoint, once the command says that it is ready; ``grpc`` and ``metrics`` are known then too."""
        assert self.process.stdout is not None
        match = re.match(
            r"ready: http (\S+), grpc (\S+), metrics http://(\S+)/metrics$", self.process.stdout.readline()
        )
        assert match, self.errors
        self.grpc, self.metrics = match[2], match[3]
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

    def end(self, timeout: float = 60) -> int:
        """Wait for the end; the exit status."""
        status = self.process.wait(timeout)
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self.process.stderr is not None:
            self.process.stderr.close()
        return status
