"""`python -m server.gateway`: stand between clients and a tritonserver that listens on this machine.

Prints one line on stdout once it listens. SIGTERM or SIGINT: new requests are refused, those inside are answered, then
it ends with status 0, or with 1 when they were not answered within --exit-timeout. A second signal ends it at once.
What keeps it from starting is one sentence, on stderr and as the line on stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from server.errors import PortTaken, ServerError
from server.gateway import limits
from server.gateway.gateway import Gateway, log
from server.gateway.grpc_server import GrpcServer
from server.gateway.http_server import HttpServer
from server.gateway.status import StatusServer
from server.gateway.upstream import Upstream
from server.repository import DEFAULT_REPOSITORY, SWITCHED, models_to_await, read_repository, without

# glibc's numbers for: from this size on, a piece of memory is a mapping of its own; so much may stay free at the end.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_PR_SET_PDEATHSIG = 1
_KEPT_HEAP = 128 * limits.MIB  # MAX_IN_FLIGHT answers of 1 MiB


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server.gateway", description="The gateway in front of a tritonserver."
    )
    parser.add_argument("--address", default="127.0.0.1", metavar="IP", help="address to listen on (127.0.0.1)")
    parser.add_argument("--http-port", type=int, default=8000, metavar="PORT", help="0 for any free one (8000)")
    parser.add_argument("--grpc-port", type=int, default=8001, metavar="PORT", help="0 for any free one (8001)")
    parser.add_argument("--triton-http", default="127.0.0.1:8010", metavar="HOST:PORT", help="Triton's HTTP endpoint")
    parser.add_argument("--triton-grpc", default="127.0.0.1:8011", metavar="HOST:PORT", help="Triton's gRPC endpoint")
    parser.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY, metavar="DIR", help="model repository")
    parser.add_argument("--models", metavar="A,B", help="the models to serve (the repository's ensembles but `fuse`)")
    parser.add_argument(
        "--exit-timeout", type=float, default=30, metavar="S", help="for requests inside at the end (30)"
    )
    parser.add_argument("--parent", type=int, metavar="PID", help="stop when this process, which started it, is gone")
    parser.add_argument(
        "--status-port", type=int, metavar="PORT", help="answer /healthz and /metrics there, on loopback"
    )
    return parser


def _names(options: argparse.Namespace) -> tuple[str, ...]:
    if options.models:
        return tuple(name for name in options.models.split(",") if name)
    return models_to_await(without(read_repository(options.repository), SWITCHED))


async def _serve(options: argparse.Namespace, names: tuple[str, ...]) -> int:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    upstream = Upstream(
        options.triton_http, options.triton_grpc, names, lambda on: log("Triton serves" if on else "Triton is away")
    )
    gateway = Gateway(upstream)
    http, grpc, status = HttpServer(gateway), GrpcServer(gateway), StatusServer(gateway)
    try:
        host = f"[{options.address}]" if ":" in options.address else options.address
        line = f"gateway: http {host}:{await _listen(http, options.address, options.http_port, 'http')}"
        line += f", grpc {host}:{await _listen(grpc, options.address, options.grpc_port, 'grpc')}"
        if options.status_port is not None:
            line += f", status 127.0.0.1:{await _listen(status, '127.0.0.1', options.status_port, 'status')}"
    except PortTaken as error:
        return _failed(error)
    upstream.start()
    print(line, flush=True)
    await stop.wait()
    return await _drain(gateway, http, grpc, status, options.exit_timeout)


async def _drain(gateway: Gateway, http: HttpServer, grpc: GrpcServer, status: StatusServer, timeout: float) -> int:
    log(f"told to stop: {gateway.admission.in_flight} requests are inside")
    gateway.draining = True
    try:
        async with asyncio.timeout(timeout):
            await gateway.admission.drained()
    except TimeoutError:
        log(f"{gateway.admission.in_flight} requests were not answered within {timeout:g} s")
    left = gateway.admission.in_flight
    await grpc.stop(0.5)
    await http.stop()
    await status.stop()
    await gateway.upstream.close()
    return 1 if left else 0


def _failed(error: ServerError) -> int:
    print(f"error: {error}", file=sys.stderr)
    print(f"error: {error}", flush=True)
    return 1


async def _listen(server: HttpServer | GrpcServer | StatusServer, address: str, port: int, kind: str) -> int:
    try:
        return await server.start(address, port)
    except (OSError, RuntimeError) as error:
        raise PortTaken(
            f"port {port} ({kind}) on {address} cannot be used: stop the program that has it, or choose another with "
            f"--{kind}-port (0 takes any free one)."
        ) from error


def _keep_memory() -> None:
    """Use the memory of one message for the next: that the kernel clears it again is a third of the time."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, limits.MAX_MESSAGE)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_HEAP)


def _end_with(parent: int) -> bool:
    """Have the kernel send SIGTERM when the parent is gone; returns whether it is still there."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop; returns the exit status."""
    options = _parser().parse_args(arguments)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (most, most)
    )  # a connection is a descriptor, and so is its way to Triton
    _keep_memory()
    if options.parent is not None and not _end_with(options.parent):
        return 1
    try:
        names = _names(options)
    except ServerError as error:
        return _failed(error)
    return asyncio.run(_serve(options, names))


if __name__ == "__main__":
    sys.exit(main())
