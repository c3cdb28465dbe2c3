"""Keeps a gateway process running on the same ports until it is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from server.backoff import Backoff
from server.errors import ServerError
from server.gateway.process import GatewayOptions, GatewayProcess

# Seconds between two looks at whether it lives: one system call each.
_LOOK = 0.05


class GatewayKeeper:
    """A gateway that is started again at once when it ends by itself.

    One thread starts it, watches it and drains it: the kernel ends a gateway when the thread that started it ends.

    Args:
        options: how to start it; ports that are 0 are chosen once and kept.
        say: takes a line for the log.
    """

    def __init__(self, options: GatewayOptions, say: Callable[[str], None] = lambda _: None) -> None:
        self._options, self._say = options, say
        self._process = GatewayProcess(options)
        self._listening, self._told = threading.Event(), threading.Event()
        self._failure: ServerError | None = None
        self._answered, self._timeout = True, 0.0
        self._thread = threading.Thread(target=self._keep, name="gateway", daemon=True)
        self.restarts = 0

    @property
    def http(self) -> str:
        """``host:port`` of the public HTTP endpoint."""
        return self._process.http

    @property
    def grpc(self) -> str:
        """``host:port`` of the public gRPC endpoint."""
        return self._process.grpc

    @property
    def status(self) -> str | None:
        """``host:port`` of its own /healthz and /metrics, where they were asked for."""
        return self._process.status

    @property
    def pid(self) -> int:
        """Process id of the gateway that runs now."""
        return self._process.pid

    def start(self) -> Self:
        """Start it and return when it listens.

        Raises:
            ServerError: it could not be started; nothing is left running.
        """
        self._thread.start()
        self._listening.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def stop(self, timeout: float) -> bool:
        """Refuse new requests, answer those inside, end; whether all were answered within ``timeout`` seconds.

        Safe to call twice, and before `start`.
        """
        if self._thread.is_alive():
            self._timeout = timeout
            self._told.set()
            self._thread.join()
        return self._answered

    def kill(self) -> None:
        """End it at once, answered or not, and do not start it again; `stop` still has to be called."""
        self._told.set()
        if self._thread.is_alive():
            self._process.kill()

    def _keep(self) -> None:
        try:
            self._process.start()
        except ServerError as error:
            self._failure = error
            return
        finally:
            self._listening.set()
        backoff = Backoff()
        while not self._told.wait(_LOOK):
            if (status := self._process.poll()) is not None:
                self._say(f"supervisor: the gateway ended by itself with status {status}; starting it again")
                self._start_again(backoff)
        self._answered = self._process.drain(self._timeout)

    def _start_again(self, backoff: Backoff) -> None:
        http, grpc, status = (
            None if endpoint is None else int(endpoint.rsplit(":", 1)[1])
            for endpoint in (self.http, self.grpc, self.status)
        )
        options = replace(self._options, http_port=http or 0, grpc_port=grpc or 0, status_port=status)
        while not self._told.wait(backoff.delay()):
            process = GatewayProcess(options)
            backoff.started()
            try:
                process.start()
            except ServerError as error:
                self._say(f"supervisor: the gateway could not be started again, the next try follows: {error}")
                continue
            self._process = process
            self.restarts += 1
            return
