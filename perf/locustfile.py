"""Traffic for locust: gRPC and HTTP users, some of whose requests have to be refused.

    locust -f perf/locustfile.py --host 127.0.0.1                  # with its page; HTTP 8000, gRPC 8001
    python -m perf.soak_traffic --users 16 --seconds 60            # headless, on a server of its own, pass or fail

SHARES holds the shares of the traffic. A picture without a face and a broken file have to be refused with their typed
errors; anything else counts as a failure. The time in each stage is listed among the requests as `stage:...`, read from
Triton's counters. FACE3D_HTTP and FACE3D_GRPC (host:port) choose other addresses.

Thresholds are ratios, as milliseconds depend on the machine: p99 over p50 of the portraits, and the share of
failures; the command ends with status 1 beyond them.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
import grpc.experimental.gevent as grpc_gevent
from face3d_client import BadImage, Face3DClient, NoFace
from locust import User, between, events, task

from perf import photos
from perf.calls import Calls

# gRPC blocks gevent's loop, in which locust runs, unless it is initialised for it once a process.
grpc_gevent.init_gevent()

SHARES = {"portrait": 70, "detect": 10, "group": 8, "no_face": 7, "broken": 5}
"""Of a hundred requests: a mesh of a portrait, boxes only, every face of a group of four, no face, a broken file."""
MAX_P99_OVER_P50 = float(os.environ.get("FACE3D_P99_OVER_P50", "3"))
MAX_FAILURE_SHARE = float(os.environ.get("FACE3D_FAILURES", "0"))
STAGES = ("preprocess", "detector", "align", "regressor", "parser", "texture", "postprocess")


def addresses() -> tuple[str, str]:
    """Return the addresses of HTTP and gRPC, host:port."""
    return os.environ.get("FACE3D_HTTP", "127.0.0.1:8000"), os.environ.get("FACE3D_GRPC", "127.0.0.1:8001")


class ServiceUser(User):
    """Sends one request after the other, chosen by the shares."""

    abstract = True
    wait_time = between(0.0, 0.02)
    scheme = ""

    def on_start(self) -> None:
        """Create one client a user."""
        http, grpc = addresses()
        self.client = Face3DClient(f"{self.scheme}://{grpc if self.scheme == 'grpc' else http}", timeout=120)
        self.mix = list(photos.mix().values())

    def on_stop(self) -> None:
        """Close the connection."""
        self.client.close()

    @task
    def request(self) -> None:
        """Send one request of a random kind."""
        kind = random.choices(list(SHARES), list(SHARES.values()))[0]
        calls: dict[str, Callable[[], Any]] = {
            "portrait": lambda: self.client.reconstruct(random.choice(self.mix)),
            "detect": lambda: self.client.detect(random.choice(self.mix)),
            "group": lambda: self.client.reconstruct_all(photos.group(4)),
            "no_face": lambda: refused(NoFace, self.client, photos.no_face()),
            "broken": lambda: refused(BadImage, self.client, photos.broken()),
        }
        start = time.perf_counter()
        error: Exception | None = None
        try:
            calls[kind]()
        except Exception as caught:  # locust shows any error
            error = caught
        took = (time.perf_counter() - start) * 1000
        self.environment.events.request.fire(
            request_type=self.scheme, name=kind, response_time=took, response_length=0, exception=error, context={}
        )


class GrpcUser(ServiceUser):
    """A user over gRPC."""

    scheme = "grpc"
    weight = 3


class HttpUser(ServiceUser):
    """A user over HTTP."""

    scheme = "http"
    weight = 1


def refused(kind: type[Exception], client: Face3DClient, data: bytes) -> None:
    """Send a picture that has to be refused with an error of ``kind``.

    Raises:
        AssertionError: it was accepted.
    """
    try:
        client.reconstruct(data)
    except kind:
        return
    raise AssertionError(f"the response should have been {kind.__name__}")


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def watch_stages(environment: Any, **_: Any) -> None:
    """Report the mean time of a picture in each stage as a request every two seconds."""
    calls = Calls(addresses()[1])

    def watch() -> None:
        before = calls.statistics()
        while True:
            gevent.sleep(2.0)
            after = calls.statistics()
            for stage in STAGES:
                spent = {key: after[stage][key] - before.get(stage, {}).get(key, 0.0) for key in after[stage]}
                if spent["count"] > 0:
                    mean = sum(v for k, v in spent.items() if k.startswith(("queue", "compute"))) / spent["count"]
                    environment.events.request.fire(
                        request_type="stage",
                        name=f"stage:{stage}",
                        response_time=mean,
                        response_length=0,
                        exception=None,
                        context={},
                    )
            before = after

    environment.stage_watcher = gevent.spawn(watch)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def judge(environment: Any, **_: Any) -> None:
    """Set exit status 1 when a threshold is exceeded, and print which one."""
    if hasattr(environment, "stage_watcher"):
        environment.stage_watcher.kill()
    entries = [entry for entry in environment.stats.entries.values() if entry.method != "stage"]
    requests = sum(entry.num_requests for entry in entries)
    failures = sum(entry.num_failures for entry in entries)
    portraits = environment.stats.get("portrait", "grpc")
    p50, p99 = (portraits.get_response_time_percentile(share) or 0.0 for share in (0.5, 0.99))
    ratio = p99 / p50 if p50 else 0.0
    print(f"{requests} requests, {failures} failures, portraits over gRPC: p99 / p50 = {ratio:.2f}")
    if not requests or failures / requests > MAX_FAILURE_SHARE:
        print(f"FAILED: more than {MAX_FAILURE_SHARE:.1%} of the requests failed")
        environment.process_exit_code = 1
    elif ratio > MAX_P99_OVER_P50:
        print(f"FAILED: p99 is more than {MAX_P99_OVER_P50:g} times p50")
        environment.process_exit_code = 1
    else:
        environment.process_exit_code = 0


@events.quit.add_listener  # type: ignore[untyped-decorator]
def leave(exit_code: int, **_: Any) -> None:
    """End the process at once: gRPC's threads would keep it running."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
