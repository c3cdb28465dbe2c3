"""`/healthz` and `/metrics` of the gateway itself, on a port of its own that clients do not reach."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web
from prometheus_client import Metric

from server.gateway import outcome
from server.gateway.gateway import Gateway
from server.metrics_page import CONTENT_TYPE, counters, gauge, page


class StatusServer:
    """Answers /healthz (200 while inference is taken, else 503) and /metrics (Prometheus' text format)."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        application = web.Application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self, address: str, port: int) -> int:
        """Listen, and return the port; OSError where it is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, address, port).start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Close the connections."""
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self._gateway.ready else 503, text=self._gateway.state() + "\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=page(_metrics(self._gateway)).encode(), headers={"Content-Type": CONTENT_TYPE})


def _metrics(gateway: Gateway) -> Iterator[Metric]:
    yield counters(
        "face3d_gateway_requests_total",
        "Inference requests by protocol and outcome.",
        ["protocol", "outcome"],
        gateway.answers.items(),
    )
    # All of them from the start, so that an alert sees the first step.
    causes = dict.fromkeys(outcome.CAUSES, 0)
    for (_, name), count in gateway.answers.items():
        causes[outcome.cause(name)] += count
    yield counters(
        "face3d_gateway_causes_total",
        "Inference requests by who has to do something about how they ended.",
        ["cause"],
        [((cause,), count) for cause, count in causes.items()],
    )
    yield counters(
        "face3d_gateway_request_seconds_total",
        "Seconds that inference requests were inside, by protocol.",
        ["protocol"],
        [((protocol,), seconds) for protocol, seconds in gateway.seconds.items()],
    )
    yield gauge("face3d_gateway_in_flight", "Inference requests that are inside.", gateway.admission.in_flight)
    yield gauge(
        "face3d_gateway_held_bytes", "Bytes of requests that are held, or may still come.", gateway.admission.held
    )
    yield gauge("face3d_gateway_ready", "Whether inference requests are taken.", gateway.ready)
