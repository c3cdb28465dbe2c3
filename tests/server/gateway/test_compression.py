"""What is compressed is refused unread, over both protocols, however it is declared."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import grpc
import pytest

from server.gateway.process import GatewayProcess
from tests.server.gateway import http2
from tests.server.gateway.conftest import ask, message, request_body

UNIMPLEMENTED, INTERNAL = 12, 13
MIB = 1 << 20


def memory(gateway: GatewayProcess) -> int:
    """The most bytes of memory that the gateway has ever had."""
    for line in Path(f"/proc/{gateway.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """400 MiB of zeros in 400 KiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(MIB)
    return b"".join(packer.compress(zeros) for _ in range(400)) + packer.flush()


@pytest.mark.parametrize(
    "encodings",
    [["gzip"], ["identity", "gzip"], ["gzip", "identity"], ["gzip", "gzip"], ["deflate"], ["identity"], []],
    ids=lambda names: "+".join(names) or "none",
)
def test_a_compressed_message_is_not_unpacked(gateway: GatewayProcess, bomb: bytes, encodings: list[str]) -> None:
    before = memory(gateway)
    for _ in range(4):
        answer = http2.call(gateway.grpc, [("grpc-encoding", name) for name in encodings], bomb, flag=1)
        assert answer.status in (UNIMPLEMENTED, INTERNAL), answer
    assert memory(gateway) - before < 32 * MIB
    assert ask(gateway.http, "GET", "/healthz").status == 200


def test_a_clients_compression_is_unimplemented(gateway: GatewayProcess, stub: object, small_picture: bytes) -> None:
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(message(small_picture), compression=compression)  # type: ignore[attr-defined]
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_an_uncompressed_message_by_hand_is_answered(gateway: GatewayProcess, small_picture: bytes) -> None:
    data = message(small_picture).SerializeToString()
    assert http2.call(gateway.grpc, [], data, flag=0).status == 0
    assert http2.call(gateway.grpc, [("grpc-encoding", "identity")], data, flag=0).status == 0


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "x"])
def test_a_compressed_body_is_415(gateway: GatewayProcess, bomb: bytes, encoding: str) -> None:
    before = memory(gateway)
    body, headers = request_body(b"x")
    for data in (gzip.compress(body), bomb):
        answer = ask(gateway.http, "POST", "/v2/models/face3d/infer", data, headers | {"Content-Encoding": encoding})
        assert answer.status == 415
        assert "[BadRequest] the body is compressed" in answer.error
    assert memory(gateway) - before < 32 * MIB


def test_an_answer_is_never_compressed(gateway: GatewayProcess, small_picture: bytes) -> None:
    body, headers = request_body(small_picture)
    asked = headers | {"Accept-Encoding": "gzip, deflate, br"}
    answer = ask(gateway.http, "POST", "/v2/models/face3d/infer", body, asked)
    assert answer.status == 200
    assert "Content-Encoding" not in answer.headers
