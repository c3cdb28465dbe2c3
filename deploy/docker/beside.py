"""Runs a gateway and a tritonserver beside each other, for containers that bring a tritonserver of their own.

The gateway listens from the first moment and answers "starting" until Triton serves. A tritonserver that ends after it
has served is started again, for ever; one that ends before is a configuration that cannot work, and ends the container.
SIGTERM lets every request that is inside finish before Triton hears of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from server.backoff import Backoff
from server.control import Control
from server.errors import ServerError
from server.gateway.process import GatewayOptions
from server.gateway_keeper import GatewayKeeper

# Seconds between two looks at whether tritonserver lives, and what it and the gateway get beyond the exit timeout.
_LOOK, _GRACE = 0.2, 5.0


def serve(command: Sequence[str], options: GatewayOptions) -> int:
    """Stay until SIGTERM or SIGINT; the exit status.

    Args:
        command: tritonserver's command line.
        options: of the gateway; its models tell when Triton serves.
    """
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    gateway = GatewayKeeper(options, _say)
    try:
        gateway.start()
    except ServerError as error:
        _say(f"error: {error}")
        return 1
    triton = _Triton(command, options)
    try:
        if (status := triton.stay(told)) is not None:
            _say(f"error: tritonserver ended with status {status} before it served; its last words are above.")
            return 1
        _say("stopping: requests in flight may finish")
        return 0 if gateway.stop(options.exit_timeout + _GRACE) else 1
    finally:
        gateway.stop(0)
        triton.stop(options.exit_timeout + _GRACE)


class _Triton:
    """The tritonserver process, and those that take its place."""

    def __init__(self, command: Sequence[str], options: GatewayOptions) -> None:
        self._command = command
        self._control, self._models = Control(options.triton_http), options.models
        self._process = self._started()
        self._has_served = False

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, start_new_session=True)

    def stay(self, told: threading.Event) -> int | None:
        """Keep it running until ``told``, then return None; its exit status where it ended before it ever served."""
        backoff = Backoff()
        while not told.wait(_LOOK):
            self._has_served = self._has_served or all(self._control.is_ready(name) for name in self._models)
            if (status := self._process.poll()) is not None:
                self._end_processes_of_models()
                if not self._has_served:
                    return status
                _say(f"tritonserver ended by itself with status {status}; starting it again")
                if not told.wait(backoff.delay()):
                    self._process = self._started()
                    backoff.started()
        return None

    def stop(self, timeout: float) -> None:
        """Tell it to end, and end it where it has not after ``timeout`` seconds."""
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._end_processes_of_models()

    def _end_processes_of_models(self) -> None:
        """End what a tritonserver that has ended left in its process group.

        A model's process that waits for a lock in shared memory does not notice the end of its server: it would keep
        its memory for ever.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
