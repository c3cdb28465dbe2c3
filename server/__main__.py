"""`python -m server`: start the gateway and the embedded Triton server behind it, and stay with them.

Every option has an environment variable, FACE3D_ and its name in capitals (FACE3D_HTTP_PORT=0). Ends with status 0 when
it was told to stop (SIGTERM, SIGINT) and every request in flight was answered, else 1 and one sentence on stderr.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

from server import triton_log
from server.arguments import positive_number, whole_number
from server.backoff import Backoff
from server.control import Control
from server.embedded import EmbeddedServer, ServerOptions
from server.errors import ServerError
from server.release.commands import Releases
from server.release.store import ReleaseError, Store
from server.service import PublicOptions, Service
from server.supervise import Supervisor

_DEFAULTS = {
    **{field.name: field.default for field in fields(ServerOptions)},
    "http_port": 8000,
    "grpc_port": 8001,
    "triton_http_port": ServerOptions.http_port,
    "triton_grpc_port": ServerOptions.grpc_port,
}


class _StopRequested(BaseException):
    """Raised in the main thread by SIGTERM or SIGINT."""


def option_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Start a Triton server with this project's models and stay until SIGTERM or Ctrl-C.",
        epilog="Words after -- go to tritonserver as they are. Each option can also be set by the environment: "
        "FACE3D_HTTP_PORT and so on. The APIs that change the server want the key in FACE3D_ADMIN_KEY.",
    )

    def add(name: str, kind: Callable[[str], Any], text: str, **more: Any) -> None:
        field = name.replace("-", "_")
        default = _DEFAULTS[field]
        shown = "" if default is None else f" (default {default})"
        environment = os.environ.get(f"FACE3D_{field.upper()}")
        # argparse converts a default that is a string, so a bad value in the environment is reported like an option.
        parser.add_argument(
            f"--{name}", type=kind, default=default if environment is None else environment, help=text + shown, **more
        )

    add("repository", Path, "model repository", metavar="DIR")
    add("address", str, "address to listen on; 0.0.0.0 for all", metavar="IP")
    for port in ("http-port", "grpc-port", "metrics-port"):
        add(port, _port, f"{port.split('-')[0]} port, 0 for any free one", metavar="PORT")
    for port in ("triton-http-port", "triton-grpc-port"):
        add(port, _port, "Triton's own port on loopback, behind the gateway", metavar="PORT")
    parser.add_argument(
        "--gateway",
        action=argparse.BooleanOptionalAction,
        default=os.environ.get("FACE3D_GATEWAY", "1") not in ("0", "no", "false"),
        help="the gateway faces clients; without it Triton does, for those who bring their own (default: with)",
    )
    add("model-control-mode", str, "who decides what is loaded", choices=("none", "explicit", "poll"))
    add("model-config-name", str, "flavour of the configurations: configs/NAME.pbtxt", metavar="NAME")
    add("log-verbose", whole_number(0), "Triton's verbosity", metavar="N")
    add("log-file", Path, "keep Triton's log here", metavar="FILE")
    add("exit-timeout", whole_number(0), "seconds that requests in flight get to finish", metavar="S")
    add("start-timeout", positive_number(), "seconds until the models must be ready", metavar="S")
    add("stub-timeout", whole_number(1), "seconds that a model's process may take to start", metavar="S")
    add("shared-memory", whole_number(0, 2**63 - 1), "bytes that must be free in /dev/shm", metavar="BYTES")
    _add_fusion(parser, add)
    parser.add_argument("--load-model", action="append", metavar="NAME", help="with explicit control: load only this")
    parser.add_argument(
        "--supervise",
        type=positive_number(),
        default=os.environ.get("FACE3D_SUPERVISE"),
        metavar="S",
        help="probe every S seconds with a real inference and revive models whose process has died; implies "
        "--model-control-mode explicit",
    )
    parser.add_argument(
        "--supervisor-port",
        type=_port,
        default=os.environ.get("FACE3D_SUPERVISOR_PORT", "8003"),
        metavar="PORT",
        help="where the supervisor answers /healthz and /metrics (default 8003)",
    )
    parser.add_argument("extra", nargs="*", help=argparse.SUPPRESS)
    return parser


def _add_fusion(parser: argparse.ArgumentParser, add: Callable[..., None]) -> None:
    """Add the switch of `fuse`, and what signs its results; ``add`` adds an option with a default of `_DEFAULTS`."""
    parser.add_argument(
        "--fusion",
        action=argparse.BooleanOptionalAction,
        default=os.environ.get("FACE3D_FUSION", "0") in ("1", "yes", "true"),
        help="serve `fuse`, which puts one person's face on another's picture: read docs/guides/fuse.md first "
        "(default: without)",
    )
    add(
        "fusion-certificate",
        Path,
        "PEM file of certificates that sign fused pictures, the signer's first",
        metavar="FILE",
    )
    add("fusion-key", Path, "PEM file of the signer's private key", metavar="FILE")
    add(
        "fusion-timestamps",
        _url,
        "address of a time-stamp authority (RFC 3161) that is asked for each fused picture",
        metavar="URL",
    )


def _url(text: str) -> str | None:
    if not text:  # a variable that a compose file hands on, and nobody has set
        return None
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"'{text}' is no http or https address")
    return text


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port (0 to 65535)")
    return int(text)


@dataclass(frozen=True)
class Supervision:
    """How often to probe, in seconds (None: not at all), and where to answer."""

    period: float | None
    port: int


@dataclass(frozen=True)
class Settings:
    """What the command line and the environment ask for.

    Attributes:
        triton: how to start tritonserver.
        public: where the gateway listens; None for none.
        supervision: how to watch.
        address: where metrics and the supervisor's page are to be read.
    """

    triton: ServerOptions
    public: PublicOptions | None
    supervision: Supervision
    address: str


def parse_options(arguments: Sequence[str]) -> Settings:
    """Turn a command line and the environment into settings; SystemExit 2 when they make no sense."""
    parser = option_parser()
    values = vars(parser.parse_args(arguments))
    if (values["fusion_certificate"] is None) != (values["fusion_key"] is None):
        parser.error("--fusion-certificate and --fusion-key belong together: name both, or neither.")
    loaded, extra = values.pop("load_model"), values.pop("extra")
    supervision = Supervision(values.pop("supervise"), values.pop("supervisor_port"))
    if supervision.period is not None:
        values["model_control_mode"] = "explicit"  # reviving a model is a load, which no other mode takes
    address, public = values["address"], None
    triton_ports = {f"{kind}_port": values.pop(f"triton_{kind}_port") for kind in ("http", "grpc")}
    if values.pop("gateway"):
        # The gateway shows its own counters on the supervisor's page.
        status = None if supervision.period is None else 0
        public = PublicOptions(address, values["http_port"], values["grpc_port"], status)
        values |= triton_ports | {"address": "127.0.0.1", "metrics_address": address}
    options = ServerOptions(
        **values,
        load_models=tuple(loaded) if loaded else None,
        # Closed by default: with a key that nobody knows where none was given.
        admin_key=os.environ.get("FACE3D_ADMIN_KEY") or secrets.token_urlsafe(32),
        extra=tuple(extra),
    )
    return Settings(options, public, supervision, address)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _LogFollower:
    """Prints what Triton logs after the start: warnings, errors and consents, or all of it when asked to be verbose."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._log = server.log_path.open(encoding="utf-8", errors="replace")
        self._log.seek(0, os.SEEK_END)
        self._verbose = server.options.log_verbose > 0

    def print_new(self) -> None:
        """Print the lines that have come since the last call."""
        for line in self._log:
            if self._verbose or triton_log.is_trouble(line) or triton_log.is_consent(line):
                _say(line.rstrip())

    def close(self) -> None:
        """Let go of the file."""
        self._log.close()


def _stay(server: EmbeddedServer, signals: _Signals) -> int:
    """Wait until the process ends by itself, which it should not."""
    follower = _LogFollower(server)
    try:
        while True:
            signals.check()
            try:
                return server.wait(0.5)
            except subprocess.TimeoutExpired:
                follower.print_new()
    finally:
        follower.print_new()
        follower.close()


def _serve(settings: Settings) -> int:
    """Start, stay, and where a supervisor was asked for start again what has ended by itself; the exit status."""
    service = Service(settings.triton, settings.public, progress=_say)
    signals = _Signals(service)
    try:
        _take_back_interrupted(settings.triton)
        service.start(keep_trying=settings.supervision.period is not None)
        print(f"ready: http {service.http}, grpc {service.grpc}, metrics http://{service.metrics}/metrics", flush=True)
        print(f"triton: http {service.triton.http}, grpc {service.triton.grpc}", flush=True)
        if settings.supervision.period is None:
            status = _stay(service.triton, signals)
            _say(f"error: tritonserver ended by itself with status {status}; its last words are above.")
        else:
            _stay_supervised(service, settings, settings.supervision.period, signals)
    except _StopRequested:
        _say("stopping: requests in flight may finish")
        if not (end := service.stop()):
            return 0
        _say(
            f"error: tritonserver ended with status {end}: when the exit timeout was over, a request had no answer, or "
            "a process of a model had died."
        )
    except ServerError as error:
        _say(f"error: {error}")
    finally:
        service.stop()
    return 1


def _take_back_interrupted(options: ServerOptions) -> None:
    """Take back a release that was interrupted, so that nothing is served of which only a part has changed."""
    try:
        Releases(Store(options.repository, options.model_config_name), say=_say).take_back_interrupted()
    except ReleaseError as error:
        _say(f"warning: a release was interrupted and is not taken back: {error}")


def _stay_supervised(service: Service, settings: Settings, period: float, signals: _Signals) -> None:
    server = service.triton
    control = Control(server.http, server.options.admin_key)
    supervisor = Supervisor(control, None, server.pid, _say, server.kill, service.gateway_metrics)
    with supervisor.running(period, settings.address, settings.supervision.port) as endpoint:
        print(f"supervised: http://{endpoint}/healthz, http://{endpoint}/metrics", flush=True)
        backoff = Backoff()
        while True:
            backoff.started()
            status = _stay(server, signals)
            _say(f"supervisor: tritonserver ended by itself with status {status}; starting it again")
            _start_again(server, supervisor, backoff)


def _start_again(server: EmbeddedServer, supervisor: Supervisor, backoff: Backoff) -> None:
    """Start tritonserver on the same ports, as often as it takes: it has worked before."""
    while True:
        time.sleep(backoff.delay())
        backoff.started()
        try:
            supervisor.replace_server(lambda: server.restart().pid)
            return
        except ServerError as error:
            _say(f"supervisor: tritonserver could not be started again, the next try follows: {error}")


class _Signals:
    """Turns the first SIGTERM or SIGINT into `_StopRequested` in the main thread; the second ends all at once."""

    def __init__(self, service: Service) -> None:
        self._service, self._count = service, 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._count += 1
        if self._count == 1:
            raise _StopRequested
        self._service.kill()  # the second time somebody is in a hurry

    def check(self) -> None:
        """Raise `_StopRequested` once more: Python drops what is raised while it collects garbage."""
        if self._count:
            raise _StopRequested


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    return _serve(parse_options(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    sys.exit(main())
