"""`python -m server`: start the embedded Triton server and stay with it.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

from server import triton_log
from server.arguments import positive_number, whole_number
from server.control import Control
from server.embedded import EmbeddedServer, ServerOptions
from server.errors import ServerDied, ServerError
from server.release.commands import Releases
from server.release.store import ReleaseError, Store
from server.supervise import Supervisor, what_to_probe

_DEFAULTS = {field.name: field.default for field in fields(ServerOptions)}


# A server that ends by itself within so many seconds of its start, so many times in a row, will do so the next time.
_NOT_WORTH_IT, _TIMES = 2.0, 3


class _Stop(BaseException):
    """Raised in the main thread by SIGTERM or SIGINT."""


def _parser() -> argparse.ArgumentParser:
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
    add("model-control-mode", str, "who decides what is loaded", choices=("none", "explicit", "poll"))
    add("model-config-name", str, "flavour of the configurations: configs/NAME.pbtxt", metavar="NAME")
    add("log-verbose", whole_number(0), "Triton's verbosity", metavar="N")
    add("log-file", Path, "keep Triton's log here", metavar="FILE")
    add("exit-timeout", whole_number(0), "seconds that requests in flight get to finish", metavar="S")
    add("start-timeout", positive_number(), "seconds until the models must be ready", metavar="S")
    add("stub-timeout", whole_number(1), "seconds that a model's process may take to start", metavar="S")
    add("shared-memory", whole_number(0, 2**63 - 1), "bytes that must be free in /dev/shm", metavar="BYTES")
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


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port (0 to 65535)")
    return int(text)


@dataclass(frozen=True)
class Supervision:
    """How often to probe, in seconds (None: not at all), and where to answer."""

    period: float | None
    port: int


def parse_options(arguments: Sequence[str]) -> tuple[ServerOptions, Supervision]:
    """Turn a command line and the environment into options; SystemExit 2 when they make no sense."""
    values = vars(_parser().parse_args(arguments))
    loaded, extra = values.pop("load_model"), values.pop("extra")
    supervision = Supervision(values.pop("supervise"), values.pop("supervisor_port"))
    if supervision.period is not None:
        values["model_control_mode"] = "explicit"  # the cure is a load, which no other mode takes
    options = ServerOptions(
        **values,
        load_models=tuple(loaded) if loaded else None,
        # Closed by default: with a key that nobody knows where none was given.
        admin_key=os.environ.get("FACE3D_ADMIN_KEY") or secrets.token_urlsafe(32),
        extra=tuple(extra),
    )
    return options, supervision


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _LogFollower:
    """Prints what Triton logs after the start: warnings and errors, or all of it when it was asked to be verbose."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._log = server.log_path.open(encoding="utf-8", errors="replace")
        self._log.seek(0, os.SEEK_END)
        self._verbose = server.options.log_verbose > 0

    def print_new(self) -> None:
        """Print the lines that have come since the last call."""
        for line in self._log:
            if self._verbose or triton_log.is_trouble(line):
                _say(line.rstrip())

    def close(self) -> None:
        """Let go of the file."""
        self._log.close()


def _stay(server: EmbeddedServer) -> int:
    """Wait until the process ends by itself, which it should not."""
    follower = _LogFollower(server)
    try:
        while True:
            try:
                return server.wait(0.5)
            except subprocess.TimeoutExpired:
                follower.print_new()
    finally:
        follower.print_new()
        follower.close()


def _serve(options: ServerOptions, supervision: Supervision) -> int:
    """Start, stay, and where a supervisor was asked for start again what has ended by itself; the exit status."""
    server = EmbeddedServer(options, progress=_say)
    _end_on_signals(server)
    try:
        _take_back_interrupted(options)
        server.start()
        print(f"ready: http {server.http}, grpc {server.grpc}, metrics http://{server.metrics}/metrics", flush=True)
        if supervision.period is None:
            _say(f"error: tritonserver ended by itself with status {_stay(server)}; its last words are above.")
        else:
            _stay_supervised(server, supervision, supervision.period)
    except _Stop:
        _say("stopping: requests in flight may finish")
        if not (end := server.stop()):
            return 0
        _say(
            f"error: tritonserver ended with status {end}: when the exit timeout was over, a request had no answer, or "
            "a process of a model had died."
        )
    except ServerError as error:
        _say(f"error: {error}")
    finally:
        server.stop()
    return 1


def _take_back_interrupted(options: ServerOptions) -> None:
    """Nothing is served from a repository in which some models of a release have changed and others have not."""
    try:
        Releases(Store(options.repository, options.model_config_name), say=_say).take_back_interrupted()
    except ReleaseError as error:
        _say(f"warning: a release was interrupted and is not taken back: {error}")


def _stay_supervised(server: EmbeddedServer, supervision: Supervision, period: float) -> None:
    control = Control(server.http, server.options.admin_key)
    supervisor = Supervisor(control, what_to_probe(control), server.pid, _say, server.kill)
    with supervisor.running(period, server.options.address, supervision.port) as endpoint:
        print(f"supervised: http://{endpoint}/healthz, http://{endpoint}/metrics", flush=True)
        soon = 0
        while True:
            began = time.monotonic()
            status = _stay(server)
            soon = soon + 1 if time.monotonic() - began < _NOT_WORTH_IT else 0
            if soon == _TIMES:
                raise ServerDied(f"tritonserver ended with status {status} again, so soon that starting it is no use.")
            _say(f"supervisor: tritonserver ended by itself with status {status}; starting it again")
            supervisor.replace_server(lambda: server.restart().pid)


def _end_on_signals(server: EmbeddedServer) -> None:
    asked = 0

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise _Stop
        server.kill()  # the second time somebody is in a hurry

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    return _serve(*parse_options(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    sys.exit(main())
