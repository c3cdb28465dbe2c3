"""Starts a real tritonserver as a child process, waits until it serves, and ends it without leaving anything.

with EmbeddedServer(ServerOptions(http_port=0, grpc_port=0, metrics_port=0)) as server:
    ...  # server.http, server.grpc, server.metrics are "127.0.0.1:PORT"
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from server import shared_memory, stub_processes, triton_log
from server.errors import (
    ModelLoadFailed,
    PortTaken,
    ServerCrashed,
    ServerDied,
    ServerError,
    StartHung,
    StartTimeout,
)
from server.repository import (
    DEFAULT_REPOSITORY,
    SWITCHED,
    Model,
    check_products,
    link_models,
    models_to_await,
    read_repository,
    with_steps,
    without,
)
from server.runtime import Runtime, find_runtime
from server.stall import StallDetector

ControlMode = Literal["none", "explicit", "poll"]
Progress = Callable[[str], None]

# How often a start is tried when a port that was free a moment ago was taken by somebody else, or when Triton crashes:
# on a machine that is very busy, its Python backend aborts now and then while it starts the models' processes
# (boost::interprocess::lock_exception; one of seven starts with eight times more work than cores; a known fault).
_ATTEMPTS = 3
# Seconds without a sign of work (`server.stall`) after which a start is tried again; the limit doubles each time,
# for a model whose start really waits for something, until the start timeout is over. 3 s of silence and a
# start of 3 to 5 s leave a service away for less than 10 s.
_HUNG_AFTER = 3.0
_CRASHES = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS)
_PR_SET_PDEATHSIG = 1
_PENDING = re.compile(r"^nv_inference_pending_request_count{.*} (\S+)$", re.MULTILINE)
# Seconds without work after which a server counts as idle: two looks of `StallDetector`.
_IDLE_FOR = 1.0
# Seconds that the ports of a server that has ended may still be taken.
_PORTS_FREE_WITHIN = 10.0


@dataclass(frozen=True)
class ServerOptions:
    """How to start the server. A port of 0 means: any free one.

    Attributes:
        repository: the model repository.
        address: where to listen; loopback, unless the machine is meant to be reached from outside.
        http_port, grpc_port, metrics_port: TCP ports. Clients use the gateway's, 8000 and 8001 (`server.service`).
        metrics_address: where the metrics page listens, if elsewhere than at ``address``.
        model_control_mode: ``none`` (load all, change nothing), ``explicit`` (load all, then by API), ``poll``.
        model_config_name: flavour of the configurations (``configs/NAME.pbtxt``); None for ``config.pbtxt``.
        load_models: with ``explicit``: what to load at start; None for everything.
        log_verbose: Triton's verbosity, 0 for none.
        log_file: where Triton's log is kept; None for a file that goes with the server.
        exit_timeout: seconds that requests in flight get to finish once the server was told to stop.
        start_timeout: seconds until the models must be ready.
        stub_timeout: seconds a model's process may take to start; Triton's 30 are short on a busy machine.
        shared_memory: bytes that must be free in /dev/shm. The stubs' pools start at 1 MB each and grow to a few
            copies of the largest batch of pictures (2048 x 2048 x 3 = 12.6 MB each).
        fusion: whether the ensemble ``fuse`` is served: off, nothing of it is loaded.
        fusion_certificate, fusion_key: PEM files by which its results are signed (`server.signing`).
        fusion_timestamps: address of the time-stamp authority (RFC 3161) whose stamp each signature gets.
        admin_key: when set, the APIs that change the server (repository, shared memory, trace, logging) ask for this
            key: header ``admin-key`` on HTTP, ``triton-grpc-protocol-admin-key`` on gRPC.
        extra: more words for tritonserver's command line.
    """

    repository: Path = DEFAULT_REPOSITORY
    address: str = "127.0.0.1"
    http_port: int = 8010
    grpc_port: int = 8011
    metrics_port: int = 8002
    metrics_address: str | None = None
    model_control_mode: ControlMode = "none"
    model_config_name: str | None = None
    load_models: tuple[str, ...] | None = None
    log_verbose: int = 0
    log_file: Path | None = None
    exit_timeout: int = 30
    start_timeout: float = 300.0
    stub_timeout: int = 120
    shared_memory: int = 128 << 20
    fusion: bool = False
    fusion_certificate: Path | None = None
    fusion_key: Path | None = None
    fusion_timestamps: str | None = None
    admin_key: str | None = None
    extra: tuple[str, ...] = ()


class EmbeddedServer:
    """A tritonserver process, from start to the last trace of it.

    Start it in a thread that outlives it: the kernel ends the server when the thread that started it ends, so that no
    server is left behind by a program that was killed.
    """

    def __init__(self, options: ServerOptions | None = None, progress: Progress | None = None) -> None:
        self.options = options or ServerOptions()
        self._progress: Progress = progress or (lambda _: None)
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._claim: int | None = None
        self._prefix = ""
        self._ports = self._asked_ports()

    # --- what is known of it ---------------------------------------------------------------------------------------
    @property
    def http(self) -> str:
        """``host:port`` of the HTTP endpoint."""
        return self._endpoint("http")

    @property
    def grpc(self) -> str:
        """``host:port`` of the gRPC endpoint."""
        return self._endpoint("grpc")

    @property
    def metrics(self) -> str:
        """``host:port`` of the metrics endpoint; the page is ``/metrics``."""
        return self._endpoint("metrics")

    @property
    def pid(self) -> int:
        """Process id of tritonserver; it leads a process group of its own that holds its stubs."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether there is a process that has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def shm_prefix(self) -> str:
        """What the names of its shared-memory regions start with."""
        return self._prefix

    @property
    def log_path(self) -> Path:
        """Triton's log."""
        if self.options.log_file is not None:
            return self.options.log_file
        assert self._folder is not None, "the server has not been started"
        return self._folder / "triton.log"

    def log(self) -> str:
        """Return Triton's log so far."""
        with contextlib.suppress(FileNotFoundError):
            return self.log_path.read_text(encoding="utf-8", errors="replace")
        return ""

    def poll(self) -> int | None:
        """Return the exit status if the process has ended by itself, else None."""
        return self._running().poll()

    def is_ready(self, model: str) -> bool:
        """Return whether ``model`` answers requests now."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{self.http}/v2/models/{model}/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    # --- life ------------------------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check(self) -> dict[str, Model]:
        """Read the repository and see that all is there; the models that are going to be loaded, by name.

        Raises:
            ServerError: a model or a file is missing, or cannot be read.
        """
        models = read_repository(self.options.repository, self.options.model_config_name)
        if not self.options.fusion:
            models = without(models, SWITCHED)
        if (chosen := self.options.load_models) is not None:
            models = with_steps(models, chosen)
        check_products(models)
        return models

    def start(self) -> Self:
        """Start the process and return when the ensembles are ready.

        Raises:
            ServerError: one of its subclasses; nothing is left running.
        """
        runtime, models = find_runtime(), self.check()
        shared_memory.sweep()
        shared_memory.check_room(self.options.shared_memory)
        deadline = time.monotonic() + self.options.start_timeout
        failures, hung_after = 0, _HUNG_AFTER
        while True:
            self._spawn(runtime)
            self._progress(f"loading {len(models)} models from {self.options.repository}")
            try:
                self._wait_until_ready(models, deadline, hung_after)
            except StartHung as error:
                self._end_failed_start()
                hung_after *= 2
                self._progress(f"trying again: {error}")
            except (PortTaken, ServerCrashed) as error:
                self._end_failed_start()
                failures += 1
                hopeless = isinstance(error, PortTaken) and 0 not in self._asked_ports().values()
                if hopeless or failures == _ATTEMPTS:
                    raise
                self._progress(f"trying again: {error}")
            except BaseException:
                self._end_failed_start()
                raise
            else:
                return self

    def _spawn(self, runtime: Runtime) -> None:
        """Start the process on the ports that were asked for, with a folder and shared memory of its own."""
        self._ports = choose_ports({kind: (self._listens_at(kind), port) for kind, port in self._asked_ports().items()})
        self._prefix = shared_memory.new_prefix()
        self._claim = shared_memory.claim(self._prefix)
        self._folder = Path(tempfile.mkdtemp(prefix=self._prefix))
        backends = runtime.lay_out_backends(self._folder / "backends")
        repository = self._served_repository(self._folder / "models")
        command = [str(runtime.binary), *self._arguments(repository, backends, runtime.caches, self._ports)]
        metrics_page = f"http://{self.address_of('metrics')}/metrics"
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=runtime.environment() | self._signing_environment() | {"FACE3D_METRICS_PAGE": metrics_page},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _served_repository(self, folder: Path) -> Path:
        """Return the repository, or in ``folder`` one of links where an ensemble is switched off.

        Triton then does not know of it: it cannot be loaded, by whatever mode of control.
        """
        everything = read_repository(self.options.repository, self.options.model_config_name)
        if self.options.fusion or not SWITCHED & everything.keys():
            return self.options.repository.resolve()
        return link_models(without(everything, SWITCHED), folder)

    def _signing_environment(self) -> dict[str, str]:
        """Return what tells the model `fusion` where certificate and key lie, and which authority stamps the time."""
        files = {"CERTIFICATE": self.options.fusion_certificate, "KEY": self.options.fusion_key}
        found = {f"FACE3D_FUSION_{name}": str(path.resolve()) for name, path in files.items() if path is not None}
        # Empty where there is none: the variable of the process around must not be taken for it.
        return found | {"FACE3D_FUSION_TIMESTAMPS": self.options.fusion_timestamps or ""}

    def _end_failed_start(self) -> None:
        """Clean up after a start that failed: nobody has been answered, so there is nothing to wait for."""
        self.kill()
        self.stop()

    def wait_until_idle(self, timeout: float) -> bool:
        """Wait until no request is inside, as far as that can be seen from outside; whether that was so in time.

        Triton counts requests that wait for a model (``nv_inference_pending_request_count``) and not those that a model
        works on: those are seen by the processor time they use. New requests are not kept out, so under steady load
        the server is never idle.
        """
        deadline = time.monotonic() + timeout
        stall = StallDetector(self.pid, self.log_path)
        while time.monotonic() < deadline and self.poll() is None:
            if stall.seconds() > _IDLE_FOR and not self._pending_requests():
                return True
            time.sleep(0.1)
        return False

    def _pending_requests(self) -> int:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{self.metrics}/metrics", timeout=5) as page:
                text = page.read().decode()
        except (urllib.error.URLError, OSError):
            return 0
        return sum(int(float(count)) for count in _PENDING.findall(text))

    def restart(self) -> Self:
        """Start again on the same ports, after the process has ended by itself.

        Raises:
            ServerError: it did not come back; another call tries again.
        """
        ports = self._ports
        self.stop()
        # Its stubs had the sockets too: the ports are free when the last of them is gone, not when it was told to go.
        deadline = time.monotonic() + _PORTS_FREE_WITHIN
        self.options = replace(
            self.options, http_port=ports["http"], grpc_port=ports["grpc"], metrics_port=ports["metrics"]
        )
        while True:
            try:
                return self.start()
            except PortTaken:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def stop(self) -> int | None:
        """Let requests in flight finish, end the server and its stubs, remove its shared memory and folder.

        Safe to call twice. Returns the exit status, None if there was no process.
        """
        status = None
        if self._process is not None:
            process = self._process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            status = self._await_end(process)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # stubs that outlived it
            self._process = None
        if self._prefix:
            shared_memory.remove(self._prefix)
            self._prefix = ""
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        return status

    def kill(self) -> None:
        """End the process at once, answered or not; `stop` still has to clean up after it."""
        if self._process is not None:
            self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process ends by itself and return its exit status; TimeoutExpired after ``timeout`` s."""
        return self._running().wait(timeout)

    def _await_end(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the process to end; end it when only the dead are left in it, or when its time is over."""
        deadline = time.monotonic() + self.options.exit_timeout + 10
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(0.1)
            if stub_processes.dead_stubs(process.pid) and not stub_processes.stubs(process.pid):
                # Every other model has answered and gone. Triton would wait for the dead one until its own timeout.
                process.kill()
                process.wait()
                return 0
            if time.monotonic() > deadline:
                process.kill()

    # --- parts -----------------------------------------------------------------------------------------------------
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerDied("the server is not running: call start() first.")
        return self._process

    def _endpoint(self, kind: str) -> str:
        self._running()
        return self.address_of(kind)

    def address_of(self, kind: str) -> str:
        """Return ``host:port`` of an endpoint (``http``, ``grpc``, ``metrics``), also while the server is away."""
        return f"{reachable(self._listens_at(kind))}:{self._ports[kind]}"

    def _listens_at(self, kind: str) -> str:
        return (self.options.metrics_address if kind == "metrics" else None) or self.options.address

    def _asked_ports(self) -> dict[str, int]:
        return {
            "http": self.options.http_port,
            "grpc": self.options.grpc_port,
            "metrics": self.options.metrics_port,
        }

    def _arguments(self, repository: Path, backends: Path, caches: Path, ports: dict[str, int]) -> list[str]:
        options = self.options
        arguments = [
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            f"--cache-directory={caches}",
            *(f"--{kind}-address={self._listens_at(kind)}" for kind in ports),
            *(f"--{kind}-port={port}" for kind, port in ports.items()),
            f"--model-control-mode={options.model_control_mode}",
            # The configurations are complete; completing them would start every model's process twice.
            "--disable-auto-complete-config",
            f"--exit-timeout-secs={options.exit_timeout}",
            f"--log-verbose={options.log_verbose}",
            "--log-format=default",
            "--allow-gpu-metrics=false",
            # Quantiles of latency on the metrics page: the dashboard and `make top` show them.
            "--metrics-config=summary_latencies=true",
            "--metrics-config=summary_quantiles=0.5:0.05,0.95:0.01,0.99:0.001",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
            f"--backend-config=python,stub-timeout-seconds={options.stub_timeout}",
        ]
        if options.model_config_name:
            arguments.append(f"--model-config-name={options.model_config_name}")
        if options.model_control_mode == "explicit":
            arguments += [f"--load-model={name}" for name in (options.load_models or ("*",))]
        if options.admin_key:
            closed = f"model-repository,shared-memory,trace,logging:admin-key={options.admin_key}"
            arguments += [f"--http-restricted-api={closed}", f"--grpc-restricted-protocol={closed}"]
        return [*arguments, *options.extra]

    def _wait_until_ready(self, models: dict[str, Model], deadline: float, hung_after: float) -> None:
        awaited = models_to_await(models)
        reported: set[str] = set()
        stall = StallDetector(self.pid, self.log_path)
        while True:
            if self.poll() is not None:
                raise self._why_it_died()
            log = self.log()
            for name in sorted(triton_log.loaded_models(log) - reported):
                reported.add(name)
                self._progress(f"loaded {name} ({len(reported)} of {len(models)})")
            # The endpoints open when loading is over, one way or the other.
            if "Started HTTPService" in log and all(self.is_ready(name) for name in awaited):
                return
            if "Started HTTPService" in log and (failed := triton_log.failures(log)):
                raise ModelLoadFailed(_failure_sentence(failed))
            missing = ", ".join(name for name in models if name not in reported) or ", ".join(awaited)
            if time.monotonic() > deadline:
                raise StartTimeout(
                    f"the server was not ready after {self.options.start_timeout:.0f} s (still waiting for {missing}): "
                    "give it longer with --start-timeout."
                )
            if (seconds := stall.seconds()) > hung_after:
                raise StartHung(f"the start has done nothing for {seconds:.0f} s (still waiting for {missing}).")
            time.sleep(0.1)

    def _why_it_died(self) -> ServerError:
        """Turn the end of the process into a sentence."""
        log = self.log()
        if failed := triton_log.failures(log):
            return ModelLoadFailed(_failure_sentence(failed))
        if triton_log.port_in_use(log):
            return PortTaken(f"a port was taken while the server started: {triton_log.last_error(log)}")
        status = self.poll() or 0
        if -status in _CRASHES:
            name = signal.Signals(-status).name
            return ServerCrashed(f"tritonserver crashed ({name}: {triton_log.last_error(log) or 'it said nothing'})")
        return ServerDied(f"tritonserver ended with status {status}: {triton_log.last_error(log) or 'it said nothing'}")


def _failure_sentence(failed: dict[str, str]) -> str:
    # An ensemble fails because one of its steps did: say the step's reason, not the echo.
    causes = {name: reason for name, reason in failed.items() if "depends on" not in reason} or failed
    name, reason = next(iter(causes.items()))
    more = f" (and {len(causes) - 1} more)" if len(causes) > 1 else ""
    return f"the model '{name}' failed to load{more}: {reason}"


def _port_sentence(kind: str, port: int, address: str, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"port {port} ({kind}) needs privileges: choose one above 1023 with --{kind}-port."
    return (
        f"port {port} ({kind}) on {address} cannot be used ({error.strerror}): stop the program that has it, or choose "
        f"another with --{kind}-port (0 takes any free one)."
    )


def _die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent is gone; runs between fork and exec."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def choose_ports(asked: dict[str, tuple[str, int]]) -> dict[str, int]:
    """Bind every port once to see that it is free; all at the same time, so that free ones differ.

    Args:
        asked: kind (``http``, ``grpc``, ``metrics``) -> address and port, 0 for any.

    Raises:
        PortTaken: one is in use, or needs privileges.
    """
    chosen = {}
    with contextlib.ExitStack() as stack:
        for kind, (address, port) in asked.items():
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((address, port))
            except OSError as error:
                raise PortTaken(_port_sentence(kind, port, address, error)) from None
            chosen[kind] = sock.getsockname()[1]
    return chosen


def reachable(address: str) -> str:
    """Return an address at which what listens at ``address`` can be reached from this machine."""
    return "127.0.0.1" if address in ("0.0.0.0", "::") else address


def on_free_ports(options: ServerOptions) -> ServerOptions:
    """Let every port be any free one, for tests and tools that start a server of their own."""
    return replace(options, http_port=0, grpc_port=0, metrics_port=0)
