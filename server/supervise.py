"""Watches a server from outside and revives models whose process has died.

Triton 2.51 neither notices nor restarts a dead stub: the model stays "ready" and every request to it fails after a
second. Two things find it: a count of the stubs (`server.stub_processes`, on the same machine), and a real small
inference through every model (`server.probe`), which also finds what no count can. The cure is a load with the
model's own configuration, marked by a parameter so that it differs; a load without any change does nothing. Where that
does not bring the service back, and where the server itself hangs and gives no answer to anything, it is ended, for
whoever started it to start it again.

`python -m server --supervise` runs it beside the server, `python -m server.supervise` beside any other. It answers on a
port of its own: ``/healthz`` is 200 when the last probe got its answers, else 503; ``/metrics`` has the counters.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from server import metrics_page, probe, stall, stub_processes
from server.control import Control, ControlError, Unreachable
from server.errors import ServerError
from server.metrics_page import counter, counters, gauge
from server.repository import ASKED, SWITCHED, covering

# "Stub process 'regressor_0_0' is not healthy.": the model's name and the numbers of the instance.
_DEAD_STUB = re.compile(r"Stub process '(?P<instance>[^']+)' is not healthy")
# A model with a dead stub is never taken down whole: its other stubs of that generation stay behind. They are ended
# this many seconds after the revival, when the requests that had reached them have finished.
_GRACE = 10.0
# Between two probes the stubs are looked at this often: a few milliseconds of reading /proc.
_LOOK = 0.5
# Seconds for a question about the state of models, for the load that revives one (it takes one to three), and for the
# probe after it. A process that was killed while it held a lock in shared memory sometimes leaves a server behind that
# answers none of them; a start of all models takes some four seconds.
_STATE_WITHIN, _LOAD_WITHIN, _ANSWER_WITHIN = 3.0, 6.0, 4.0
# Seconds that a stub without a sign of life gets before its model is loaded again.
_SECOND_CHANCE = 1.0
# Steps in a row without any answer after which the server counts as hung. A step waits 3 s for the state of models and
# 30 s for the probe, which a full queue of the default models takes 5 s to reach.
_SILENT_STEPS = 3
# Seconds for which a load that exceeded its limit is not sent again: under load it goes on after the limit.
_LOAD_GOES_ON = 20.0
# What a revival adds to a model's parameters: the time. No model looks at it.
REVIVAL_PARAMETER = "face3d_revival"


class Supervisor:
    """Looks after one server.

    Args:
        control: how to reach it, with the admin key if it has one; it must run with ``--model-control-mode explicit``.
        targets: the models that a probe asks; None for what `what_to_probe` finds at the first one.
        pid: its process id, when it runs on this machine: then its stubs are counted as well.
        say: takes a line for the log.
        give_up: ends the server, when its models were revived and still do not answer, or when it hangs; None to leave
            it as it is.
        more_metrics: lines in Prometheus' text format for the end of the metrics page.
    """

    def __init__(
        self,
        control: Control,
        targets: Sequence[str] | None = None,
        pid: int | None = None,
        say: Callable[[str], None] = lambda _: None,
        give_up: Callable[[], None] | None = None,
        more_metrics: Callable[[], str] = lambda: "",
    ) -> None:
        self._control = Control(control.endpoint, control.admin_key, _STATE_WITHIN)
        self._targets, self._pid, self._say = tuple(targets or ()), pid, say
        self._give_up, self._more_metrics = give_up, more_metrics
        self._lock = threading.Lock()
        self._pending_kills: dict[int, float] = {}  # process id -> when to end it
        # Models that were seen to have stubs: on other backends there are none to count. Seen now, for one that dies
        # before the first step.
        self._counted = set() if pid is None else {model for model, _ in stub_processes.stubs(pid)}
        self._loading: dict[str, float] = {}  # models whose load did not end in time -> until when it may still
        self._noticed: set[int] = set()  # stubs whose death has been looked into
        self._silent = 0  # steps in a row without any answer
        self.probes: Counter[str] = Counter()  # by result: ok, failed
        self.revivals: Counter[str] = Counter()  # by model
        self.restarts = 0  # of the server itself
        self.failed_restarts = 0
        self.probe_seconds = 0.0
        self.healthy = False
        self.reason = "not probed yet"

    def step(self) -> bool:
        """Count, probe, revive what is dead; whether everything answered in the end."""
        with self._lock:
            revived = sum(self.revivals.values())
            try:
                self._end_outdated_stubs()
                for model in self._missing():
                    self._revive(model, "a process of it has died")
                self._probe(_ANSWER_WITHIN if sum(self.revivals.values()) > revived else 30)
                self._silent = 0
            except ControlError as error:
                self._failed(str(error))
                # A refusal, of a load or by a full queue, is an answer: a new start would only make it worse.
                silent = isinstance(error, Unreachable)
                self._silent = self._silent + 1 if silent else 0
                lost = silent or _DEAD_STUB.search(str(error)) is not None
                tried = sum(self.revivals.values()) > revived
                if lost and tried and not (silent and self._is_working()):
                    self._end_server("that did not help")
                elif self._silent >= _SILENT_STEPS:
                    self._end_server(f"no answer to {self._silent} questions in a row")
            return self.healthy

    def _is_working(self) -> bool:
        """Return whether the server does anything: under load a revival succeeds after its limits."""
        return self._pid is not None and stall.is_working(self._pid)

    def _end_server(self, why: str) -> None:
        if self._give_up is not None:
            self._say(f"supervisor: {why}; ending the server")
            self._silent = 0
            self._give_up()

    def replace_server(self, start: Callable[[], int]) -> None:
        """Have a server started in the place of one that has ended, on the same ports, and go on with it.

        Args:
            start: starts it and returns its process id. No step is taken meanwhile: counted with the old process id,
                every model of the new server would seem to be dead.

        Raises:
            ServerError: what ``start`` raised.
        """
        with self._lock:
            self.healthy, self.reason = False, "the server is being started again"
            self._pid = None
            self._pending_kills.clear()
            self._loading.clear()
            self._noticed.clear()
            self._silent = 0
            try:
                self._pid = start()
            except ServerError as error:
                self.failed_restarts += 1
                self.reason = f"the server could not be started again: {error}"
                raise
            self.restarts += 1

    def new_deaths(self) -> bool:
        """Return whether a stub is dead that was not at the last call: reads /proc and asks nobody.

        One that is stopped is ended first. Triton gives it up within a second, and aborts when it goes on after that.
        """
        if self._pid is None:
            return False
        for pid in stub_processes.stopped_stubs(self._pid):
            _end(pid)
        dead = stub_processes.dead_stubs(self._pid)
        new = dead - self._noticed
        self._noticed = dead
        return bool(new)

    def _missing(self) -> list[str]:
        """Find the models with fewer stubs than configured; seen twice, so that no swap is mistaken for it."""
        if self._pid is None:
            return []
        suspects = self._short_of_stubs()
        if suspects:
            time.sleep(0.3)
            suspects &= self._short_of_stubs()
        return sorted(model for model in suspects if not self._is_loading(model))

    def _is_loading(self, model: str) -> bool:
        return time.monotonic() < self._loading.get(model, 0.0)

    def _short_of_stubs(self) -> set[str]:
        assert self._pid is not None
        alive = stub_processes.stubs(self._pid)
        self._counted |= {model for model, _ in alive}
        short = set()
        for entry in self._control.index():
            if entry.state == "READY" and entry.model in self._counted:
                count = len(alive.get((entry.model, entry.version), set()) - set(self._pending_kills))
                if count < stub_processes.expected(self._control.config(entry.model)):
                    short.add(entry.model)
        return short

    def _probe(self, timeout: float) -> None:
        """Ask every target; where a stub is dead, revive the model and ask again, once for each model.

        Triton also says so of one that lives and gave no sign of it for a second, starved or stopped: that one is given
        another second, and then ended.
        """
        revived: set[str] = set()
        waited = False
        while True:
            began = time.monotonic()
            try:
                self._targets = self._targets or what_to_probe(self._control)
                for name in self._targets:
                    probe.check(self._control, name, timeout)
            except ControlError as error:
                model, stub = self._dead_model(str(error)), self._living_stub(str(error))
                if model is None or model in revived or self._is_loading(model):
                    raise
                if stub is not None and not waited:
                    time.sleep(_SECOND_CHANCE)
                    waited = True
                    continue
                if stub is not None:  # a load beside one that comes back to life can abort Triton 2.51
                    _end(stub)
                self._revive(model, str(error))
                revived.add(model)
                timeout = _ANSWER_WITHIN
            else:
                self.probe_seconds = time.monotonic() - began
                self.probes["ok"] += 1
                if not self.healthy:
                    self._say("supervisor: every model answers")
                self.healthy, self.reason = True, ""
                return

    def _living_stub(self, message: str) -> int | None:
        """Find the process of the instance that a message calls dead, if there still is one."""
        match = _DEAD_STUB.search(message)
        return None if self._pid is None or match is None else stub_processes.stub_of(self._pid, match["instance"])

    def _dead_model(self, message: str) -> str | None:
        if not (match := _DEAD_STUB.search(message)):
            return None
        instance = match["instance"]
        names = {entry.model for entry in self._control.index()}
        return max((name for name in names if instance.startswith(f"{name}_")), key=len, default=None)

    def _revive(self, model: str, why: str) -> None:
        before = self._stubs_of(model)
        self._say(f"supervisor: reviving {model}: {why}")
        self.revivals[model] += 1  # before it is done: one that fails was tried all the same
        config = self._control.config(model)
        # Something must differ from the configuration before: Triton does nothing for one that it has already.
        mark = {"string_value": f"{time.time():.3f}"}
        config["parameters"] = {**config.get("parameters", {}), REVIVAL_PARAMETER: mark}
        self._loading[model] = time.monotonic() + _LOAD_GOES_ON
        self._control.load(model, config, _LOAD_WITHIN)  # what is raised leaves the note: it goes on
        del self._loading[model]
        self._pending_kills |= dict.fromkeys(before & self._stubs_of(model), time.monotonic() + _GRACE)

    def _stubs_of(self, model: str) -> set[int]:
        if self._pid is None:
            return set()
        return {pid for (name, _), pids in stub_processes.stubs(self._pid).items() if name == model for pid in pids}

    def _end_outdated_stubs(self, *, early: bool = False) -> None:
        if not self._pending_kills or self._pid is None:
            return
        living = {pid for pids in stub_processes.stubs(self._pid).values() for pid in pids}
        for pid, when in list(self._pending_kills.items()):
            if pid not in living:
                del self._pending_kills[pid]
            elif early or time.monotonic() > when:
                _end(pid)

    def _failed(self, reason: str) -> None:
        self.probes["failed"] += 1
        if self.healthy or reason != self.reason:
            self._say(f"supervisor: {reason}")
        self.healthy, self.reason = False, reason

    def metrics(self) -> str:
        """Return the counters in Prometheus' text format."""
        results = [((result,), self.probes[result]) for result in ("ok", "failed")]
        revivals = [((model,), count) for model, count in self.revivals.items()]
        own = (
            counters("face3d_probes_total", "Probes of every model by result", ["result"], results),
            counters("face3d_revivals_total", "Loads of models one of whose processes had died", ["model"], revivals),
            counter("face3d_restarts_total", "Starts of a server that had ended by itself", self.restarts),
            counter("face3d_failed_restarts_total", "Such starts that failed", self.failed_restarts),
            gauge("face3d_probe_seconds", "Duration of the last probe that was answered", self.probe_seconds),
            gauge("face3d_healthy", "Whether every model answered the last probe", self.healthy),
        )
        return metrics_page.page(own) + self._more_metrics()

    @contextlib.contextmanager
    def running(self, period: float, address: str = "127.0.0.1", port: int | None = None) -> Iterator[str | None]:
        """Take a step every ``period`` seconds in a thread; give ``host:port`` of /healthz and /metrics if asked to.

        When a stub dies the next step comes at once.

        Args:
            period: seconds between the starts of two steps.
            address: where to answer.
            port: 0 for any free one, None for no answers at all.
        """
        stop = threading.Event()

        def watch() -> None:
            while not stop.is_set():
                due = time.monotonic() + period
                self.new_deaths()  # of these the step takes care
                self.step()
                while not stop.is_set() and (left := due - time.monotonic()) > 0 and not self.new_deaths():
                    stop.wait(min(left, _LOOK))

        threads = [threading.Thread(target=watch, name="supervisor", daemon=True)]
        with contextlib.ExitStack() as stack:
            endpoint = None
            if port is not None:
                http = stack.enter_context(ThreadingHTTPServer((address, port), _handler(self)))
                endpoint = f"{address}:{http.server_address[1]}"
                threads.append(threading.Thread(target=http.serve_forever, name="supervisor-http", daemon=True))
                stack.callback(http.shutdown)
            for thread in threads:
                thread.start()
            try:
                yield endpoint
            finally:
                stop.set()
                threads[0].join(timeout=5)
                # A server that is told to end would wait for them until its exit timeout.
                self._end_outdated_stubs(early=True)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _handler(supervisor: Supervisor) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/healthz":
                self._answer(200 if supervisor.healthy else 503, supervisor.reason or "every model answers")
            elif self.path == "/metrics":
                self._answer(200, supervisor.metrics())
            else:
                self._answer(404, "there are /healthz and /metrics")

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", metrics_page.CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            """Log nothing: health is asked for every few seconds."""

    return Handler


def _server_pid(port: int) -> int | None:
    """Find the process that listens on a TCP port of this machine, if this user may know."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if "tritonserver" in (entry / "comm").read_text():
                    links = {str(link.readlink()) for link in (entry / "fd").iterdir()}
                    if any(f"socket:[{inode}]" in links for inode in inodes):
                        return int(entry.name)
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command beside a server that is already there; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m server.supervise", description="Watch a server, revive its models."
    )
    add = parser.add_argument
    add(
        "--server", default=os.environ.get("FACE3D_SERVER", "127.0.0.1:8010"), metavar="HOST:PORT", help="HTTP endpoint"
    )
    add("--period", type=float, default=5.0, metavar="S", help="seconds between probes (default 5)")
    add("--address", default="127.0.0.1", metavar="IP", help="where /healthz and /metrics answer")
    add("--port", type=int, default=8003, metavar="PORT", help="port of /healthz and /metrics (default 8003)")
    add("--once", action="store_true", help="one probe without reviving; status 1 if it fails (for health checks)")
    options = parser.parse_args(arguments)
    control = Control(options.server, os.environ.get("FACE3D_ADMIN_KEY"))
    try:
        targets = what_to_probe(control)
        if options.once:
            for name in targets:
                probe.check(control, name)
            return 0
        host, port = options.server.rsplit(":", 1)
        pid = _server_pid(int(port)) if host in ("127.0.0.1", "localhost") else None
        supervisor = Supervisor(control, targets, pid, lambda line: print(line, file=sys.stderr, flush=True))
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        with supervisor.running(options.period, options.address, options.port) as endpoint:
            print(f"watching {', '.join(targets)} on {options.server}; http://{endpoint}/healthz", flush=True)
            stopped.wait()
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def what_to_probe(control: Control) -> tuple[str, ...]:
    """Find the models which, asked together, make every model of the server work."""
    names = dict.fromkeys(entry.model for entry in control.index() if entry.state == "READY")
    if not names:
        raise Unreachable(f"the server at {control.endpoint} serves no model.")
    configs = {name: control.config(name) for name in names}
    steps = {
        name: [step["model_name"] for step in config["ensemble_scheduling"]["step"]]
        for name, config in configs.items()
        if config.get("platform") == "ensemble"
    }
    used = {model for models in (*steps.values(), *ASKED.values()) for model in models}
    # Not those that are switched on: a fused picture needs somebody's consent, and takes longer than all else together.
    # The process of the model that only it uses is watched like every other.
    probed = {name: models for name, models in steps.items() if name not in SWITCHED}
    return (*covering(probed), *(name for name in names if name not in steps and name not in used))


if __name__ == "__main__":
    sys.exit(main())
