"""The whole service: a gateway that faces clients, and the tritonserver behind it.

with Service(on_free_ports(ServerOptions())) as service:
    ...  # service.http, service.grpc are the gateway's; service.triton is the bare server on loopback
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from server import metrics_page
from server.backoff import Backoff
from server.embedded import EmbeddedServer, Progress, ServerOptions, choose_ports, reachable
from server.errors import PortTaken, ServerCrashed, StartTimeout
from server.gateway.process import GatewayOptions
from server.gateway_keeper import GatewayKeeper
from server.metrics_page import counter
from server.repository import models_to_await
from server.signing import make_test_certificate

# How often ports of Triton's that were free a moment ago and are not any more are chosen again.
_ATTEMPTS = 3
# The gateway looks at Triton twice a second; on a busy machine a look takes a while.
_SEEN_WITHIN = 30.0


@dataclass(frozen=True)
class PublicOptions:
    """Where the gateway listens. A port of 0 means: any free one.

    Attributes:
        address: where to listen; loopback, unless the machine is meant to be reached from outside.
        http_port, grpc_port: TCP ports for clients.
        status_port: where on loopback the gateway shows its own state and counters; None for nowhere.
    """

    address: str = "127.0.0.1"
    http_port: int = 0
    grpc_port: int = 0
    status_port: int | None = None


class Service:
    """A gateway and the tritonserver behind it, from start to the last trace of them.

    Start it in a thread that outlives it, as an `EmbeddedServer`.

    Args:
        options: of tritonserver.
        public: where the gateway listens; None for no gateway: then tritonserver faces clients itself.
        progress: takes a line for the log.
    """

    def __init__(
        self,
        options: ServerOptions | None = None,
        public: PublicOptions | None = PublicOptions(),
        progress: Progress | None = None,
    ) -> None:
        self._asked, self._public = options or ServerOptions(), public
        self._progress: Progress = progress or (lambda _: None)
        self._signing: Path | None = None
        self.triton = EmbeddedServer(self._asked, self._progress)
        self.gateway: GatewayKeeper | None = None
        self._is_ready = False

    @property
    def http(self) -> str:
        """``host:port`` of the HTTP endpoint that clients use."""
        return self.triton.http if self.gateway is None else _reachable(self.gateway.http)

    @property
    def grpc(self) -> str:
        """``host:port`` of the gRPC endpoint that clients use."""
        return self.triton.grpc if self.gateway is None else _reachable(self.gateway.grpc)

    @property
    def metrics(self) -> str:
        """``host:port`` of Triton's metrics page, ``/metrics``."""
        return self.triton.metrics

    @property
    def signing(self) -> Path | None:
        """The folder of the test certificate, its root beside it; None where the operator has named one."""
        return self._signing

    def gateway_metrics(self) -> str:
        """Return the gateway's own metrics and how often it was started again, in Prometheus' text format.

        Empty without a gateway; without the gateway's own part where it does not answer, or has no status port.
        """
        if self.gateway is None:
            return ""
        restarts = "Starts of a gateway that had ended by itself"
        page = metrics_page.page([counter("face3d_gateway_restarts_total", restarts, self.gateway.restarts)])
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        if self.gateway.status is not None:
            with (
                contextlib.suppress(OSError),
                opener.open(f"http://{self.gateway.status}/metrics", timeout=2) as answer,
            ):
                page += answer.read().decode()
        return page

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *, keep_trying: bool = False) -> Self:
        """Start both and return when the gateway passes requests on.

        The gateway comes first, and answers "starting" until Triton is ready.

        Args:
            keep_trying: start Triton again, for ever, where it crashed or was not ready in time; a configuration that
                cannot work ends the start all the same.

        Raises:
            ServerError: one of its subclasses; nothing is left running.
        """
        try:
            self._asked = self._with_certificate(self._asked)
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    self._start(keep_trying)
                    return self
                except PortTaken:
                    if attempt == _ATTEMPTS or 0 not in (self._asked.http_port, self._asked.grpc_port):
                        raise
                    self._stop()
        except BaseException:
            self.stop()
            raise
        raise AssertionError("unreachable")

    def _start(self, keep_trying: bool) -> None:
        if self._public is not None:
            self.triton = EmbeddedServer(_on_fixed_ports(self._asked), self._progress)
            self._start_gateway(self._public)
        backoff = Backoff()
        while True:
            backoff.started()
            try:
                self.triton.start()
                break
            except (StartTimeout, ServerCrashed) as error:
                if not keep_trying:
                    raise
                self._progress(f"supervisor: the next try follows: {error}")
            time.sleep(backoff.delay())
        self._is_ready = True
        if self.gateway is not None:
            self._wait_until_passed_on(self.gateway)

    def _with_certificate(self, options: ServerOptions) -> ServerOptions:
        """Make a test certificate where fusion is on and its operator has named none; it goes with the service."""
        if not options.fusion or options.fusion_certificate is not None:
            return options
        self._signing = Path(tempfile.mkdtemp(prefix="face3d-signing-"))
        files = make_test_certificate(self._signing)
        self._progress(
            "warning: fused pictures are signed by a test certificate that ends with this server: name your own with "
            "--fusion-certificate and --fusion-key, or make one that stays: python -m server.signing FOLDER"
        )
        return replace(options, fusion_certificate=files.certificate, fusion_key=files.key)

    def _start_gateway(self, public: PublicOptions) -> None:
        options = self.triton.options
        models = self.triton.check()
        choose_ports({"http": (public.address, public.http_port), "grpc": (public.address, public.grpc_port)})
        self.gateway = GatewayKeeper(
            GatewayOptions(
                triton_http=self.triton.address_of("http"),
                triton_grpc=self.triton.address_of("grpc"),
                address=public.address,
                http_port=public.http_port,
                grpc_port=public.grpc_port,
                repository=options.repository,
                models=models_to_await(models),
                exit_timeout=options.exit_timeout,
                status_port=public.status_port,
            ),
            self._progress,
        )
        self.gateway.start()

    def _wait_until_passed_on(self, gateway: GatewayKeeper) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + _SEEN_WITHIN
        while True:
            try:
                with opener.open(f"http://{_reachable(gateway.http)}/v2/health/ready", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                if time.monotonic() > deadline:
                    raise StartTimeout(
                        f"the gateway has not found the server at {self.triton.address_of('http')} within "
                        f"{_SEEN_WITHIN:.0f} s: its own lines say why."
                    ) from None
            time.sleep(0.05)

    def stop(self) -> int | None:
        """Refuse new requests, answer those that are inside, then end Triton and remove what it left.

        Safe to call twice. Returns 0 when every request was answered, None if nothing ran, else another number.
        """
        status = self._stop()
        if self._signing is not None:
            shutil.rmtree(self._signing, ignore_errors=True)
            self._signing = None
            self._asked = replace(self._asked, fusion_certificate=None, fusion_key=None)
        return status

    def _stop(self) -> int | None:
        answered = True
        if self.gateway is not None:
            answered = self.gateway.stop(self.triton.options.exit_timeout + 5)
            self.gateway = None
        elif self._is_ready and self.triton.is_running:
            # Triton ends the steps of an ensemble that have not begun: wait for them, as nobody keeps new ones out.
            self.triton.wait_until_idle(self.triton.options.exit_timeout)
        self._is_ready = False
        status = self.triton.stop()
        return status if answered else status or 1

    def kill(self) -> None:
        """End both at once, answered or not; `stop` still has to clean up after them."""
        if self.gateway is not None:
            self.gateway.kill()
        self.triton.kill()


def _reachable(endpoint: str) -> str:
    host, port = endpoint.rsplit(":", 1)
    return f"{reachable(host)}:{port}"


def _on_fixed_ports(options: ServerOptions) -> ServerOptions:
    """Choose free ports in place of 0 for HTTP and gRPC: the gateway has to know them before Triton is there."""
    ports = choose_ports({kind: (options.address, getattr(options, f"{kind}_port")) for kind in ("http", "grpc")})
    return replace(options, http_port=ports["http"], grpc_port=ports["grpc"])
