"""The life of the embedded server: starting, waiting, failing in one sentence, ending without a trace."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from server import shared_memory, stub_processes
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.errors import (
    ExportMissing,
    ModelLoadFailed,
    PortTaken,
    RepositoryInvalid,
    ServerCrashed,
    ServerDied,
    ServerError,
    SharedMemoryTooSmall,
    StartTimeout,
)
from tests.server.calls import infer, rows
from tests.server.repositories import ECHO, arithmetic, ensemble, python_model
from tests.servers import serving

SLOW = """\
def execute(self, requests):
    time.sleep(1.5)
    return [answer(r, pb_utils.get_input_tensor_by_name(r, 'x').as_numpy()) for r in requests]
"""

ENVIRONMENT = """\
def execute(self, requests):
    import cv2
    values = [os.environ['OMP_NUM_THREADS'], os.environ['OPENBLAS_NUM_THREADS'], cv2.getNumThreads(), os.nice(0)]
    return [answer(r, np.array([values], np.float32)) for r in requests]
"""


def options(repository: Path, **changes: object) -> ServerOptions:
    return on_free_ports(ServerOptions(repository=repository, **changes))  # type: ignore[arg-type]


def leftovers(server: EmbeddedServer, prefix: str) -> list[Path]:
    assert prefix
    return shared_memory.regions(prefix)


def processes_in_group(group: int) -> list[int]:
    """Living processes of a process group, without those that only wait to be reaped."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, process_group = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:3]
            except OSError:
                continue
            if int(process_group) == group and state != "Z":
                found.append(int(entry.name))
    return found


def listening_addresses(port: int) -> set[str]:
    """The local addresses, as /proc/net writes them, on which somebody listens at this port."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    found = (local.split(":") for _, local, _, state, *_ in rows if state == "0A")
    return {address for address, number in found if int(number, 16) == port}


class TestStart:
    def test_waits_for_the_ensembles_and_tells_its_progress(self, tmp_path: Path) -> None:
        arithmetic(tmp_path)
        ensemble(tmp_path, "chain", ["arithmetic"])
        lines: list[str] = []
        with serving(options(tmp_path), lines.append) as server:
            assert infer(server, "chain", x=rows(4))["y"].tolist() == rows(8).tolist()
        assert lines[0] == f"loading 2 models from {tmp_path}"
        assert sorted(lines[1:]) == ["loaded arithmetic (1 of 2)", "loaded chain (2 of 2)"]

    def test_listens_on_loopback_only(self, tmp_path: Path) -> None:
        arithmetic(tmp_path)
        with serving(options(tmp_path)) as server:
            for endpoint in (server.http, server.grpc, server.metrics):
                addresses = listening_addresses(int(endpoint.split(":")[1]))
                assert addresses
                # 127.0.0.1, or the same as IPv6 writes it, in the byte order of /proc/net.
                assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}

    def test_bounds_the_threads_of_the_models_processes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
        python_model(tmp_path, "environment", ENVIRONMENT)
        with serving(options(tmp_path)) as server:
            omp, openblas, opencv, _ = infer(server, "environment", x=rows(0))["y"][0]
        assert (omp, opencv) == (1, 1)
        assert openblas == 2, "what the caller asks for stands"

    def test_loads_only_the_models_it_was_told_to(self, tmp_path: Path) -> None:
        arithmetic(tmp_path)
        ensemble(tmp_path, "chain", ["arithmetic"])
        python_model(tmp_path, "broken", "this is not Python")
        with serving(options(tmp_path, model_control_mode="explicit", load_models=("chain",))) as server:
            assert server.is_ready("arithmetic")
            assert not server.is_ready("broken")

    def test_keeps_the_log_where_it_was_told_to(self, tmp_path: Path) -> None:
        arithmetic(tmp_path / "repository")
        with serving(options(tmp_path / "repository", log_file=tmp_path / "logs" / "triton.log")):
            pass
        assert "Started HTTPService" in (tmp_path / "logs" / "triton.log").read_text()

    def test_asks_for_the_admin_key_before_the_server_may_be_changed(self, tmp_path: Path) -> None:
        arithmetic(tmp_path)
        with serving(options(tmp_path, model_control_mode="explicit", admin_key="sesame")) as server:
            key = {"triton-grpc-protocol-admin-key": "sesame"}
            with triton_grpc.InferenceServerClient(server.grpc) as client:
                with pytest.raises(InferenceServerException, match="expecting header 'triton-grpc-protocol-admin-key'"):
                    client.unload_model("arithmetic")
                assert infer(server, "arithmetic", x=rows(1))["twice"].tolist() == rows(2).tolist()
                client.unload_model("arithmetic", headers=key)


class TestErrors:
    @pytest.mark.parametrize("kind", ["http", "grpc", "metrics"])
    def test_name_the_port_that_is_taken(self, tmp_path: Path, kind: str) -> None:
        arithmetic(tmp_path)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0, f"{kind}_port": port}
            with pytest.raises(PortTaken, match=rf"port {port} \({kind}\) on 127.0.0.1 .*--{kind}-port"):
                EmbeddedServer(ServerOptions(repository=tmp_path, **ports)).start()

    def test_say_that_there_is_no_repository(self, tmp_path: Path) -> None:
        with pytest.raises(RepositoryInvalid, match="does not exist"):
            EmbeddedServer(options(tmp_path / "nowhere")).start()
        with pytest.raises(RepositoryInvalid, match="holds no model"):
            EmbeddedServer(options(tmp_path)).start()

    def test_say_which_file_the_export_did_not_write(self, tmp_path: Path) -> None:
        (arithmetic(tmp_path) / "1" / "model.onnx").unlink()
        with pytest.raises(ExportMissing, match=r"arithmetic/1/model.onnx is missing: run `make export`"):
            EmbeddedServer(options(tmp_path)).start()

    def test_give_the_reason_of_a_model_that_does_not_load(self, tmp_path: Path) -> None:
        path = arithmetic(tmp_path) / "config.pbtxt"
        path.write_text(path.read_text().replace('"square"', '"cube"'))
        ensemble(tmp_path, "chain", ["arithmetic"])
        with pytest.raises(ModelLoadFailed) as caught:
            EmbeddedServer(options(tmp_path)).start()
        assert str(caught.value) == (
            "the model 'arithmetic' failed to load: model 'arithmetic': output 'cube' is in the configuration but the "
            "model has only ['square', 'twice']."
        )

    def test_give_the_exception_of_a_python_model(self, tmp_path: Path) -> None:
        python_model(tmp_path, "sick", "def initialize(self, args):\n    raise ValueError('the topology is missing')")
        with pytest.raises(ModelLoadFailed, match=r"^the model 'sick' failed to load: the topology is missing$"):
            EmbeddedServer(options(tmp_path)).start()

    def test_give_the_line_of_a_configuration_that_cannot_be_read(self, tmp_path: Path) -> None:
        (arithmetic(tmp_path) / "config.pbtxt").write_text('backend: "onnxruntime"\nmax_bach_size: 8\n')
        with pytest.raises(RepositoryInvalid, match="2:1"):
            EmbeddedServer(options(tmp_path)).start()

    def test_give_triton_s_reason_for_a_configuration_that_makes_no_sense(self, tmp_path: Path) -> None:
        path = arithmetic(tmp_path) / "config.pbtxt"
        path.write_text(path.read_text().replace("KIND_CPU", "KIND_GPU"))
        with pytest.raises(ServerError, match="arithmetic"):
            EmbeddedServer(options(tmp_path)).start()

    def test_say_how_much_shared_memory_is_missing(self, tmp_path: Path) -> None:
        arithmetic(tmp_path)
        with pytest.raises(SharedMemoryTooSmall, match="--shm-size=1048576m"):
            EmbeddedServer(options(tmp_path, shared_memory=1 << 40)).start()

    def test_say_what_it_still_waited_for(self, tmp_path: Path) -> None:
        python_model(tmp_path, "slow", "def initialize(self, args):\n    time.sleep(60)\n" + ECHO)
        server = EmbeddedServer(options(tmp_path, start_timeout=1, exit_timeout=1))
        with pytest.raises(StartTimeout, match=r"still waiting for slow\): give it longer"):
            server.start()

    def test_pass_on_what_triton_says_of_words_it_does_not_know(self, tmp_path: Path) -> None:
        arithmetic(tmp_path)
        with pytest.raises(ServerDied, match="does not understand its options: unrecognized option '--no-such-option'"):
            EmbeddedServer(options(tmp_path, extra=("--no-such-option",))).start()

    def test_are_raised_when_it_is_used_before_it_runs(self, tmp_path: Path) -> None:
        with pytest.raises(ServerDied, match="not running"):
            _ = EmbeddedServer(options(tmp_path)).http


CRASHING = """\
def initialize(self, args):
    marker = os.path.join(args['model_repository'], 'tried')
    if not os.path.exists(marker) or os.path.getsize(marker) < {times}:
        open(marker, 'a').write('x')
        os.kill(os.getppid(), 6)
        time.sleep(60)
"""


class TestCrash:
    def test_while_it_starts_is_answered_by_another_try(self, tmp_path: Path) -> None:
        python_model(tmp_path, "crashing", CRASHING.format(times=1) + ECHO)
        lines: list[str] = []
        with serving(options(tmp_path), lines.append) as server:
            assert server.is_ready("crashing")
        assert lines[1].startswith("trying again: tritonserver crashed (SIGABRT: ")

    def test_is_reported_when_it_happens_every_time(self, tmp_path: Path) -> None:
        python_model(tmp_path, "crashing", CRASHING.format(times=9) + ECHO)
        with pytest.raises(ServerCrashed, match="SIGABRT"):
            EmbeddedServer(options(tmp_path)).start()


class TestStop:
    def test_leaves_no_process_no_shared_memory_and_no_folder(self, tmp_path: Path) -> None:
        arithmetic(tmp_path, count=2)
        server = EmbeddedServer(options(tmp_path)).start()
        prefix, group, folder = server.shm_prefix, server.pid, server.log_path.parent
        assert shared_memory.regions(prefix)
        assert len(processes_in_group(group)) == 3
        assert server.stop() == 0
        assert shared_memory.regions(prefix) == []
        assert processes_in_group(group) == []
        assert not folder.exists()
        assert server.stop() is None

    def test_lets_a_request_in_flight_finish(self, tmp_path: Path) -> None:
        python_model(tmp_path, "slow", SLOW)
        server = EmbeddedServer(options(tmp_path)).start()
        answers: list[float] = []
        thread = threading.Thread(target=lambda: answers.append(infer(server, "slow", x=rows(5))["y"][0, 0]))
        thread.start()
        time.sleep(0.5)  # into the model's sleep
        assert server.stop() == 0
        thread.join()
        assert answers == [5]

    def test_does_not_wait_for_a_killed_stub_and_removes_what_it_left(self, tmp_path: Path) -> None:
        arithmetic(tmp_path)
        server = EmbeddedServer(options(tmp_path, exit_timeout=3600)).start()
        prefix, group = server.shm_prefix, server.pid
        (stub,) = (pid for pid in processes_in_group(group) if pid != group)
        os.kill(stub, signal.SIGKILL)
        assert server.stop() == 0
        assert shared_memory.regions(prefix) == []
        assert processes_in_group(group) == []

    @pytest.mark.alone  # the next start of any server removes it
    def test_of_everything_by_force_leaves_what_the_next_start_removes(self, tmp_path: Path) -> None:
        """A stub that does nothing any more outlives its server, and neither of the two can end it."""
        arithmetic(tmp_path)
        program = f"""if True:
            import time
            from pathlib import Path
            from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
            server = EmbeddedServer(on_free_ports(ServerOptions(repository=Path({str(tmp_path)!r})))).start()
            print(server.pid, server.shm_prefix, flush=True)
            time.sleep(300)
        """
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            group, prefix = parent.stdout.readline().split()
            (stub,) = (pid for pid in processes_in_group(int(group)) if pid != int(group))
            os.kill(stub, signal.SIGSTOP)
            os.kill(int(group), signal.SIGKILL)
            parent.kill()
        deadline = time.monotonic() + 60
        while processes_in_group(int(group)) != [stub] or stub not in stub_processes.orphans():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert stub_processes.orphans()[stub].startswith(prefix)
        with serving(options(tmp_path)) as server:
            assert server.is_ready("arithmetic")
            assert stub not in stub_processes.orphans()
            deadline = time.monotonic() + 60
            while processes_in_group(int(group)):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert shared_memory.regions(prefix) == []

    def test_happens_when_the_start_fails(self, tmp_path: Path) -> None:
        arithmetic(tmp_path)
        python_model(tmp_path, "sick", "def initialize(self, args):\n    raise ValueError('no')")
        server = EmbeddedServer(options(tmp_path))
        seen: list[str] = []
        server._progress = lambda _: seen.append(server.shm_prefix)
        with pytest.raises(ModelLoadFailed):
            server.start()
        assert all(shared_memory.regions(prefix) == [] for prefix in seen)
        with pytest.raises(ServerDied):
            _ = server.pid

    def test_is_noticed_when_it_comes_by_itself(self, tmp_path: Path) -> None:
        arithmetic(tmp_path)
        with serving(options(tmp_path)) as server:
            os.kill(server.pid, signal.SIGKILL)
            assert server.wait(10) == -signal.SIGKILL
            assert not server.is_ready("arithmetic")


def test_two_servers_run_beside_each_other(tmp_path: Path) -> None:
    arithmetic(tmp_path / "a", factor=3)
    arithmetic(tmp_path / "b", factor=5)
    with serving(options(tmp_path / "a")) as a, serving(options(tmp_path / "b")) as b:
        answers = [infer(server, "arithmetic", x=rows(1))["twice"][0, 0] for server in (a, b)]
        prefix = b.shm_prefix
        a.stop()
        assert shared_memory.regions(prefix), "one server's end must not touch the other's memory"
        assert infer(b, "arithmetic", x=rows(2))["twice"][0, 0] == np.float32(10)
    assert answers == [3, 5]
