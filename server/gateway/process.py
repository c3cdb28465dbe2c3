"""The gateway as a child process.

with GatewayProcess(GatewayOptions(triton_http=server.http, triton_grpc=server.grpc)) as gateway:
    ...  # gateway.http, gateway.grpc are "HOST:PORT"
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from server.errors import PortTaken, ServerDied, StartTimeout
from server.repository import DEFAULT_REPOSITORY, ROOT

_LINE: Final = re.compile(r"gateway: http (\S+), grpc (\S+?)(?:, status (\S+))?\s*")


@dataclass(frozen=True)
class GatewayOptions:
    """How to start the gateway. A port of 0 means: any free one.

    Attributes:
        triton_http, triton_grpc: ``host:port`` of the tritonserver behind it; it need not be there yet.
        address: where to listen.
        http_port, grpc_port: TCP ports.
        repository: its ensembles are served.
        models: served in place of the repository's ensembles.
        exit_timeout: seconds that requests inside get to finish once it was told to stop.
        status_port: where it answers /healthz and /metrics, on loopback; None for nowhere.
        start_timeout: seconds until it must listen.
        stderr: where its log goes; None for where this process's goes.
    """

    triton_http: str
    triton_grpc: str
    address: str = "127.0.0.1"
    http_port: int = 0
    grpc_port: int = 0
    repository: Path = DEFAULT_REPOSITORY
    models: Sequence[str] = ()
    exit_timeout: float = 30
    status_port: int | None = None
    start_timeout: float = 60
    stderr: IO[bytes] | int | None = None


class GatewayProcess:
    """A gateway process, from start to end.

    Start it in a thread that outlives it: the kernel ends the gateway when the thread that started it ends.
    """

    def __init__(self, options: GatewayOptions) -> None:
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False  # a second signal would end it at once
        self._endpoints: tuple[str, str, str | None] = ("", "", None)

    @property
    def http(self) -> str:
        """``host:port`` of the public HTTP endpoint."""
        return self._endpoints[0]

    @property
    def grpc(self) -> str:
        """``host:port`` of the public gRPC endpoint."""
        return self._endpoints[1]

    @property
    def status(self) -> str | None:
        """``host:port`` of /healthz and /metrics; None where there is none."""
        return self._endpoints[2]

    @property
    def pid(self) -> int:
        """Process id."""
        return self._running().pid

    def poll(self) -> int | None:
        """Return the exit status if the process has ended, else None."""
        return self._running().poll()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drain(self.options.exit_timeout + 10)

    def start(self) -> Self:
        """Start the process and return when it listens; Triton need not be there.

        Raises:
            PortTaken: a port is in use.
            ServerDied, StartTimeout: it ended, or did not listen in time.
        """
        self._process = subprocess.Popen(
            self._command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.options.stderr,
            cwd=ROOT,
            # gRPC's core writes a line for each call that it refuses: a stranger could fill a disk with them.
            env={"GRPC_VERBOSITY": "NONE", **os.environ},
            start_new_session=True,
        )
        self._told = False
        line = self._first_line(self._process)
        match = _LINE.fullmatch(line)
        if match is None:
            self.kill()
            sentence = line.removeprefix("error: ").strip()
            if sentence.startswith("port "):
                raise PortTaken(sentence)
            raise ServerDied(sentence or f"the gateway ended with status {self._process.returncode} while it started.")
        self._endpoints = (match[1], match[2], match[3])
        return self

    def drain(self, timeout: float | None = None) -> bool:
        """Let it answer what is inside and end; it is killed after ``timeout`` seconds.

        Returns whether everything inside was answered.
        """
        process = self._running()
        if not self._told:
            self._told = True
            process.send_signal(signal.SIGTERM)  # does nothing where it has ended
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        return process.returncode == 0

    def kill(self) -> None:
        """End it at once."""
        process = self._running()
        process.kill()
        process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerDied("the gateway is not running: call start() first.")
        return self._process

    def _command(self) -> list[str]:
        options = self.options
        command = [
            sys.executable,
            "-m",
            "server.gateway",
            f"--address={options.address}",
            f"--http-port={options.http_port}",
            f"--grpc-port={options.grpc_port}",
            f"--triton-http={options.triton_http}",
            f"--triton-grpc={options.triton_grpc}",
            f"--repository={options.repository.resolve()}",
            f"--exit-timeout={options.exit_timeout}",
            # Done by the gateway itself: Python between fork and exec can abort where other threads use gRPC.
            f"--parent={os.getpid()}",
        ]
        if options.models:
            command.append(f"--models={','.join(options.models)}")
        if options.status_port is not None:
            command.append(f"--status-port={options.status_port}")
        return command

    def _first_line(self, process: subprocess.Popen[bytes]) -> str:
        """Read the first line of its stdout, empty where it ended before."""
        assert process.stdout is not None
        deadline, text = time.monotonic() + self.options.start_timeout, b""
        with process.stdout:  # it says nothing more there
            while not text.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                    self.kill()
                    raise StartTimeout(f"the gateway did not listen within {self.options.start_timeout:g} s.")
                part = os.read(process.stdout.fileno(), 4096)
                if not part:
                    break
                text += part
        return text.decode(errors="replace")
