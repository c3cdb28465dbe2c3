"""`/healthz` and `/metrics` of the gateway itself, on a port of its own that clients do not reach."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from server.gateway import outcomes
from server.gateway.gateway import Gateway


class StatusServer:
    """Answers /healthz (200 while inference is taken, else 503) and /metrics (Prometheus' text format)."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        application = web.Application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self, address: str, port: int) -> int:
        """Listen; returns the port. OSError where it is taken."""
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
        return web.Response(text="\n".join(_lines(self._gateway)) + "\n")


def _lines(gateway: Gateway) -> Iterator[str]:
    yield "# HELP face3d_gateway_requests_total Inference requests by protocol and what became of them."
    yield "# TYPE face3d_gateway_requests_total counter"
    for (protocol, outcome), count in sorted(gateway.answers.items()):
        yield f'face3d_gateway_requests_total{{protocol="{protocol}",outcome="{outcome}"}} {count}'
    yield "# HELP face3d_gateway_causes_total Inference requests by who has to do something about how they ended."
    yield "# TYPE face3d_gateway_causes_total counter"
    causes = dict.fromkeys(outcomes.CAUSES, 0)  # all of them from the start, so that an alert sees the first step
    for (_, outcome), count in gateway.answers.items():
        causes[outcomes.cause(outcome)] += count
    for cause, count in causes.items():
        yield f'face3d_gateway_causes_total{{cause="{cause}"}} {count}'
    yield "# HELP face3d_gateway_request_seconds_total Seconds that inference requests were inside, by protocol."
    yield "# TYPE face3d_gateway_request_seconds_total counter"
    for protocol, seconds in sorted(gateway.seconds.items()):
        yield f'face3d_gateway_request_seconds_total{{protocol="{protocol}"}} {seconds:.6f}'
    yield "# HELP face3d_gateway_in_flight Inference requests that are inside."
    yield "# TYPE face3d_gateway_in_flight gauge"
    yield f"face3d_gateway_in_flight {gateway.admission.in_flight}"
    yield "# HELP face3d_gateway_held_bytes Bytes of requests that are held, or may still come."
    yield "# TYPE face3d_gateway_held_bytes gauge"
    yield f"face3d_gateway_held_bytes {gateway.admission.held}"
    yield "# HELP face3d_gateway_ready Whether inference requests are taken."
    yield "# TYPE face3d_gateway_ready gauge"
    yield f"face3d_gateway_ready {int(gateway.ready)}"
