"""The gateway in front of the real server, and small ways to speak to it."""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from server.embedded import EmbeddedServer
from server.gateway.process import GatewayOptions, GatewayProcess

LENGTH = "Inference-Header-Content-Length"


class Answer(NamedTuple):
    """An HTTP answer; ``error`` is its sentence where its body is an error in the protocol's form."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


@pytest.fixture(scope="session")
def gateway(server: EmbeddedServer) -> Iterator[GatewayProcess]:
    """The gateway in front of the real server: do not change its state."""
    with GatewayProcess(GatewayOptions(server.http, server.grpc, status_port=0)) as running:
        wait_ready(running)
        yield running


def wait_ready(gateway: GatewayProcess, seconds: float = 120) -> None:
    """Return when the gateway takes requests."""
    import time

    deadline = time.monotonic() + seconds
    while ask(gateway.http, "GET", "/healthz").status != 200:
        assert time.monotonic() < deadline, "the gateway is not ready"
        time.sleep(0.1)


def ask(
    address: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """One HTTP request on a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), dict(answer.getheaders()))
    finally:
        connection.close()


def element(data: bytes) -> bytes:
    """A BYTES tensor of one element."""
    return struct.pack("<I", len(data)) + data


def request_body(picture: bytes, **changes: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an inference over HTTP; ``changes`` replace fields of the JSON."""
    tensor = element(picture)
    tree = {
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(tensor)}}
        ],
        "outputs": [{"name": "coefficients", "parameters": {"binary_data": True}}],
    } | changes
    header = json.dumps(tree).encode()
    return header + tensor, {LENGTH: str(len(header))}


def message(
    picture: bytes, model: str = "face3d", outputs: tuple[str, ...] = ("coefficients",), **parameters: Any
) -> Any:
    """A ModelInferRequest."""
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(element(picture))
    for name in outputs:
        request.outputs.add(name=name)
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
        setattr(request.parameters[name], kind, value)
    return request


@pytest.fixture
def stub(gateway: GatewayProcess) -> Iterator[Any]:
    """A gRPC stub without a limit of its own."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(gateway.grpc, options=options) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="session")
def small_picture() -> bytes:
    """A portrait of 9 KB."""
    from server.probe import PORTRAIT

    return Path(PORTRAIT).read_bytes()
