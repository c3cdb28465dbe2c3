"""`python -m server` as a user meets it: a process with options, signals and exit statuses."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton_http

from server import probe, stub_processes
from server.__main__ import Supervision, parse_options
from server.control import Control
from server.embedded import ServerOptions
from server.service import PublicOptions
from tests.server.calls import rows
from tests.server.commands import FREE_PORTS, Command
from tests.server.repositories import arithmetic, python_model


def failure_of(url: str, body: bytes) -> OSError:
    """Post a request that is not going to be answered."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - a reset, a closed connection: whatever the kernel says
        urllib.request.urlopen(url, body, timeout=60).close()
    return caught.value


@pytest.fixture
def commands() -> Iterator[list[Command]]:
    started: list[Command] = []
    yield started
    for command in started:
        command.process.kill()
        command.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_until_it_is_told_to_stop(tmp_path: Path, commands: list[Command], number: signal.Signals) -> None:
    arithmetic(tmp_path)
    commands.append(Command("--repository", str(tmp_path), *FREE_PORTS))
    client = triton_http.InferenceServerClient(commands[0].ready())
    tensor = triton_http.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(rows(2))
    assert client.infer("arithmetic", [tensor]).as_numpy("twice")[0, 0] == np.float32(4)
    client.close()
    commands[0].process.send_signal(number)
    assert commands[0].end() == 0
    assert [line for line in commands[0].errors if not line.startswith("gateway: ")] == [
        f"loading 1 models from {tmp_path}",
        "loaded arithmetic (1 of 1)",
        "stopping: requests in flight may finish",
    ]


def test_stops_while_it_is_still_loading(tmp_path: Path, commands: list[Command]) -> None:
    python_model(tmp_path, "slow", "def initialize(self, args):\n    time.sleep(60)")
    commands.append(Command("--repository", str(tmp_path), *FREE_PORTS))
    while not commands[0].errors:
        time.sleep(0.05)
    commands[0].process.send_signal(signal.SIGTERM)
    assert commands[0].end(30) == 0
    assert commands[0].errors[-1] == "stopping: requests in flight may finish"


def test_ends_at_once_when_told_twice(tmp_path: Path, commands: list[Command]) -> None:
    python_model(tmp_path, "slow", "def execute(self, requests):\n    time.sleep(60)")
    commands.append(Command("--repository", str(tmp_path), *FREE_PORTS))
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}]}'
    url = f"http://{commands[0].ready()}/v2/models/slow/infer"
    failed: list[OSError] = []
    thread = threading.Thread(target=lambda: failed.append(failure_of(url, body)))
    thread.start()
    time.sleep(0.5)  # into the model's sleep
    commands[0].process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert commands[0].process.poll() is None, "the first time it waits for the request"
    commands[0].process.send_signal(signal.SIGINT)
    assert commands[0].end(20) == 1
    assert "ended with status -9" in commands[0].errors[-1]
    thread.join()
    assert len(failed) == 1


def test_reads_ports_from_the_environment(tmp_path: Path, commands: list[Command]) -> None:
    arithmetic(tmp_path)
    names = ("HTTP", "GRPC", "METRICS", "TRITON_HTTP", "TRITON_GRPC")
    environment = {f"FACE3D_{name}_PORT": "0" for name in names}
    commands.append(Command("--repository", str(tmp_path), **environment))
    assert not commands[0].ready().endswith(":8000")
    assert not commands[0].triton_http.endswith(":8010")
    commands[0].process.terminate()
    assert commands[0].end() == 0


def test_says_in_one_sentence_why_it_cannot_start(tmp_path: Path, commands: list[Command]) -> None:
    (arithmetic(tmp_path) / "1" / "model.onnx").unlink()
    commands.append(Command("--repository", str(tmp_path), *FREE_PORTS))
    assert commands[0].end() == 1
    assert len(commands[0].errors) == 1
    assert commands[0].errors[0].endswith("arithmetic/1/model.onnx is missing: run `make export`.")


def test_says_so_when_the_server_ends_by_itself(tmp_path: Path, commands: list[Command]) -> None:
    arithmetic(tmp_path)
    commands.append(Command("--repository", str(tmp_path), *FREE_PORTS))
    commands[0].ready()
    children = Path(f"/proc/{commands[0].process.pid}/task/{commands[0].process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    assert commands[0].end() == 1
    own = [line for line in commands[0].errors if not line.startswith("gateway: ")]
    assert "ended by itself with status -9" in own[-1]


def test_takes_the_server_with_it_when_it_is_killed(tmp_path: Path, commands: list[Command]) -> None:
    arithmetic(tmp_path)
    commands.append(Command("--repository", str(tmp_path), *FREE_PORTS))
    commands[0].ready()
    parent = commands[0].process.pid
    (child,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    commands[0].process.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()


def test_revives_a_model_whose_process_was_killed(tmp_path: Path, commands: list[Command]) -> None:
    arithmetic(tmp_path)
    command = Command("--repository", str(tmp_path), *FREE_PORTS, "--supervise", "0.5", "--supervisor-port", "0")
    commands.append(command)
    command.ready()
    control = Control(command.triton_http)
    health = f"http://{command.supervisor()}/healthz"
    server = command.server_pid()
    assert server is not None
    ((stub,),) = stub_processes.stubs(server).values()
    os.kill(stub, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not any(line.startswith("supervisor: reviving arithmetic: ") for line in command.errors):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    while True:  # the load takes a moment more
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(health, timeout=5) as answer:
            assert answer.read() == b"every model answers"
            break
    probe.check(control, "arithmetic")


def test_starts_a_supervised_server_again_that_ended_by_itself(tmp_path: Path, commands: list[Command]) -> None:
    arithmetic(tmp_path)
    command = Command("--repository", str(tmp_path), *FREE_PORTS, "--supervise", "0.5", "--supervisor-port", "0")
    commands.append(command)
    command.ready()
    control = Control(command.triton_http)
    (server,) = Path(f"/proc/{command.process.pid}/task/{command.process.pid}/children").read_text().split()
    os.kill(int(server), signal.SIGSEGV)
    deadline = time.monotonic() + 60
    while command.errors.count("loaded arithmetic (1 of 1)") < 2 or not control.is_ready("arithmetic"):
        assert time.monotonic() < deadline, command.errors
        time.sleep(0.1)
    assert probe.check(control, "arithmetic")
    command.process.terminate()
    assert command.end() == 0


def test_starts_a_supervised_server_again_that_hangs(tmp_path: Path, commands: list[Command]) -> None:
    arithmetic(tmp_path)
    command = Command("--repository", str(tmp_path), *FREE_PORTS, "--supervise", "0.5", "--supervisor-port", "0")
    commands.append(command)
    command.ready()
    control = Control(command.triton_http)
    address = command.supervisor()
    hung = command.server_pid()
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    deadline = time.monotonic() + 120
    while command.server_pid() in (hung, None) or not control.is_ready("arithmetic"):
        assert time.monotonic() < deadline, command.errors
        assert command.process.poll() is None, command.errors
        time.sleep(0.1)
    assert probe.check(control, "arithmetic")
    assert "supervisor: no answer to 3 questions in a row; ending the server" in command.errors
    while True:  # the next probe takes a moment
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as page:
            text = page.read().decode()
        if "face3d_healthy 1" in text:
            break
        assert time.monotonic() < deadline, command.errors
        time.sleep(0.1)
    assert "face3d_restarts_total 1" in text
    command.process.terminate()
    assert command.end() == 0


class TestOptions:
    def test_are_those_of_the_embedded_server_closed_by_a_key(self) -> None:
        settings = parse_options([])
        assert replace(settings.triton, admin_key=None) == ServerOptions(metrics_address="127.0.0.1")
        assert settings.supervision == Supervision(None, 8003)
        assert settings.triton.admin_key
        assert settings.triton.admin_key != parse_options([]).triton.admin_key

    def test_put_the_gateway_where_clients_are_and_triton_on_loopback(self) -> None:
        settings = parse_options(["--address", "0.0.0.0"])
        assert settings.public == PublicOptions("0.0.0.0", 8000, 8001)
        triton = settings.triton
        assert (triton.address, triton.http_port, triton.grpc_port) == ("127.0.0.1", 8010, 8011)
        assert (triton.metrics_address, settings.address) == ("0.0.0.0", "0.0.0.0")

    def test_let_triton_face_clients_without_a_gateway(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = parse_options(["--no-gateway", "--address", "0.0.0.0"])
        assert settings.public is None
        triton = settings.triton
        assert (triton.address, triton.http_port, triton.grpc_port) == ("0.0.0.0", 8000, 8001)
        monkeypatch.setenv("FACE3D_GATEWAY", "0")
        assert parse_options([]).public is None
        assert parse_options(["--gateway"]).public is not None

    def test_supervision_needs_a_server_that_takes_loads(self) -> None:
        settings = parse_options(["--supervise", "2.5", "--supervisor-port", "0"])
        assert settings.triton.model_control_mode == "explicit"
        assert settings.supervision == Supervision(2.5, 0)

    def test_come_from_the_command_line_before_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FACE3D_HTTP_PORT", "9000")
        monkeypatch.setenv("FACE3D_GRPC_PORT", "9001")
        monkeypatch.setenv("FACE3D_ADMIN_KEY", "sesame")
        settings = parse_options(
            ["--http-port", "0", "--load-model", "a", "--load-model", "b", "--", "--rate-limit=off"]
        )
        options = settings.triton
        assert settings.public is not None
        assert (settings.public.http_port, settings.public.grpc_port, options.metrics_port) == (0, 9001, 8002)
        assert options.load_models == ("a", "b")
        assert options.extra == ("--rate-limit=off",)
        assert options.admin_key == "sesame"

    def test_turn_fusion_on_and_name_what_signs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert parse_options([]).triton.fusion is False
        settings = parse_options(["--fusion", "--fusion-certificate", "chain.pem", "--fusion-key", "key.pem"]).triton
        assert (settings.fusion, settings.fusion_certificate, settings.fusion_key) == (
            *(True, Path("chain.pem")),
            Path("key.pem"),
        )
        monkeypatch.setenv("FACE3D_FUSION", "1")
        assert parse_options([]).triton.fusion is True
        assert parse_options(["--no-fusion"]).triton.fusion is False

    def test_name_an_authority_of_time_stamps(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert parse_options([]).triton.fusion_timestamps is None
        assert parse_options(["--fusion-timestamps", ""]).triton.fusion_timestamps is None
        settings = parse_options(["--fusion-timestamps", "https://stamps.example/rfc3161"]).triton
        assert settings.fusion_timestamps == "https://stamps.example/rfc3161"
        with pytest.raises(SystemExit):
            parse_options(["--fusion-timestamps", "file:///etc/passwd"])
        assert "no http or https address" in capsys.readouterr().err

    def test_want_certificate_and_key_together(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            parse_options(["--fusion", "--fusion-key", "key.pem"])
        assert "belong together" in capsys.readouterr().err

    @pytest.mark.parametrize("port", ["-1", "65536", "http"])
    def test_refuse_what_is_no_port(self, port: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            parse_options([f"--http-port={port}"])
        assert f"argument --http-port: '{port}' is not a port (0 to 65535)" in capsys.readouterr().err
