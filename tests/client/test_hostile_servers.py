"""Servers that lie to the client: every lie is a typed error or a valid result, soon, without harm to the caller.

Each lie is told by a real socket, to the blocking and to the asyncio client.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import struct
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
import numpy as np
import pytest
from face3d_client import (
    AsyncFace3DClient,
    BadEndpoint,
    BadImage,
    BadRequest,
    BadResponse,
    Face3DClient,
    Face3DError,
    Output,
    Reconstruction,
    Retry,
    ServerUnavailable,
    Timeout,
)
from face3d_client._protocol.tensors import MAX_ANSWER

from tests.client import hostile
from tests.client.hostile import Answer, Handler, honest, honest_http, http, inference, message, output

TOKEN = "SECRET-TOKEN"
ONCE = Retry(attempts=1)
# Seconds: for answers that come as soon as the machine has time for them, and for those that never come.
DEADLINE, SHORT_DEADLINE = 20.0, 0.7
# Lies that only the deadline ends.
ENDLESS = {"silence", "a body that drips", "a status that drips", "headers that drip", "endless interim answers"}
COEFFICIENTS = np.arange(257, dtype="<f4").tobytes()
ESCAPES = "[BadImage] \x1b[31mred\x07\r\nline \x9b2J \u202eturned"

flavours = pytest.mark.parametrize("flavour", ["blocking", "asyncio"])


def ask(flavour: str, url: str, *outputs: Output, deadline: float = DEADLINE) -> Reconstruction:
    """What a client of this kind gets for a picture."""
    if flavour == "blocking":
        with Face3DClient(url, token=TOKEN, retry=ONCE, timeout=deadline) as client:
            return client.reconstruct(b"picture", outputs=outputs)

    async def wait() -> Reconstruction:
        async with AsyncFace3DClient(url, token=TOKEN, retry=ONCE, timeout=deadline) as client:
            return await client.reconstruct(b"picture", outputs=outputs)

    return asyncio.run(wait())


def touch(result: Reconstruction) -> None:
    """Read everything that a result has."""
    for name in result.raw:
        getattr(result, {"face": "detection", "texture_warnings": "warnings"}.get(name, name))
    if result.has("mesh"):
        _ = result.glb, result.texture, result.faces, result.uv
    repr(result)


def harmless(error: Face3DError, seconds: float, log: str) -> None:
    """The error names no secret, would move no terminal, and came in time."""
    told = "".join(traceback.format_exception(error)) + repr(error) + log
    assert TOKEN not in told
    assert all(character.isprintable() for character in str(error)), ascii(str(error))
    assert len(str(error)) < 1500
    assert seconds < DEADLINE + 30


def judged(
    flavour: str,
    server: AbstractContextManager[str],
    outputs: tuple[Output, ...],
    log: str,
    deadline: float = DEADLINE,
) -> Face3DError | None:
    began = time.monotonic()
    with server as url:
        try:
            touch(ask(flavour, url, *outputs, deadline=deadline))
        except Face3DError as error:
            harmless(error, time.monotonic() - began, log)
            return error
    return None


# --- HTTP -------------------------------------------------------------------------------------------------------------


def coefficients(
    datatype: Any = "FP32", shape: Any = (1, 257), size: Any = 1028, raw: bytes = COEFFICIENTS, **headers: str
) -> bytes:
    shape = list(shape) if isinstance(shape, tuple) else shape
    return inference([output("coefficients", datatype, shape, size)], raw, **headers)


def numbers(value: float) -> bytes:
    return np.full(257, value, "<f4").tobytes()


def json_error(words: object) -> bytes:
    import json

    return json.dumps({"error": words}).encode()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNAVAILABLE = ServerUnavailable
LIES: dict[str, tuple[Answer, type[Face3DError] | None]] = {
    "an empty body": (http(b""), BadResponse),
    "a page": (http(b"<html>hi</html>", Content_Type="text/html"), BadResponse),
    "JSON of another kind": (http(b"[1, 2]"), BadResponse),
    "JSON in another encoding": (http(b"\xff\xfe[\x001\x00"), BadResponse),
    "deep JSON": (http(b"[" * 200_000), BadResponse),
    "deep JSON as the head": (http(b"[" * 60_000, Inference_Header_Content_Length="60000"), BadResponse),
    "JSON with a number of a million digits": (http(b'{"outputs": ' + b"1" * 1_000_000 + b"}"), BadResponse),
    "no outputs": (inference([]), BadResponse),
    "outputs that are no list": (inference({"coefficients": 1}), BadResponse),
    "an output that is no object": (inference([None]), BadResponse),
    "an output without bytes": (
        inference([{"name": "coefficients", "datatype": "FP32", "shape": [1, 257]}]),
        BadResponse,
    ),
    "numbers as JSON": (
        inference([{"name": "coefficients", "datatype": "FP32", "shape": [1, 257], "data": [0] * 257}]),
        BadResponse,
    ),
    "another output": (inference([output("camera", "FP32", [1, 8], 32)], bytes(32)), BadResponse),
    "a name that is no text": (inference([output(["face"], "FP32", [1, 257], 1028)], COEFFICIENTS), BadResponse),
    "the same output twice": (
        inference([output("coefficients", "FP32", [1, 257], 1028)] * 2, COEFFICIENTS * 2),
        BadResponse,
    ),
    "one output too many": (
        inference(
            [output("coefficients", "FP32", [1, 257], 1028), output("face", "FP32", [1, 15], 60)],
            COEFFICIENTS + bytes(60),
        ),
        BadResponse,
    ),
    "texts for numbers": (coefficients("BYTES", (1, 257), 8, b"\4\0\0\0abcd"), BadResponse),
    "an unknown type": (coefficients("PICKLE"), BadResponse),
    "a type that is no text": (coefficients(7), BadResponse),
    "a huge dimension": (coefficients(shape=(1, 2**40), size=16, raw=bytes(16)), BadResponse),
    "a dimension beyond all numbers": (coefficients(shape=(1, 2**80), size=16, raw=bytes(16)), BadResponse),
    "dimensions that multiply to nothing": (coefficients(shape=(2**32, 2**32)), BadResponse),
    "a negative dimension": (coefficients(shape=(-1, 257)), BadResponse),
    "two negative dimensions": (coefficients(shape=(-1, -257)), BadResponse),
    "dimensions that are fractions": (coefficients(shape=(1.0, 257.0)), BadResponse),
    "dimensions that are truths": (coefficients(shape=(True, 257)), BadResponse),
    "no dimensions": (coefficients(shape=()), BadResponse),
    "a thousand dimensions": (coefficients(shape=(1,) * 1000), BadResponse),
    "a shape that is a text": (coefficients(shape="1x257"), BadResponse),
    "a batch of three": (coefficients(shape=(3, 257), size=3084, raw=COEFFICIENTS * 3), BadResponse),
    "too few bytes": (coefficients(size=1024, raw=COEFFICIENTS[:1024]), BadResponse),
    "a size beyond the body": (coefficients(size=2**40), BadResponse),
    "a negative size": (coefficients(size=-4), BadResponse),
    "a size that is a text": (coefficients(size="1028"), BadResponse),
    "bytes after the last output": (coefficients(raw=COEFFICIENTS + b"more"), BadResponse),
    "NaN": (coefficients(raw=numbers(float("nan"))), BadResponse),
    "infinity": (coefficients(raw=numbers(float("inf"))), BadResponse),
    "a head longer than the body": (http(b"{}", Inference_Header_Content_Length="99999999"), BadResponse),
    "a head of negative length": (http(b"{}", Inference_Header_Content_Length="-5"), BadResponse),
    "a head of no length": (http(b"{}", Inference_Header_Content_Length="abc"), BadResponse),
    "a head of a length in other digits": (http(b"{}", Inference_Header_Content_Length="\xb2"), BadResponse),
    "a gzip bomb": (http(gzip.compress(bytes(50 << 20)), Content_Encoding="gzip"), BadResponse),
    "an unknown compression": (http(b"{}", Content_Encoding="br"), BadResponse),
    "a body larger than all": (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", BadResponse),
    "an endless body": (hostile.endless(b"HTTP/1.1 200 OK\r\n\r\n", bytes(1 << 20)), BadResponse),
    "endless chunks": (hostile.endless(CHUNKED, b"100000\r\n" + bytes(1 << 20) + b"\r\n"), BadResponse),
    "a chunk larger than all": (CHUNKED + b"FFFFFFFFFFFFFFF\r\nabc", UNAVAILABLE),
    "a chunk of negative size": (CHUNKED + b"-5\r\nabcde\r\n0\r\n\r\n", Face3DError),
    "a chunk of no size": (CHUNKED + b"zzz\r\nabc\r\n", Face3DError),
    "a body that drips": (hostile.dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"), Timeout),
    "headers that drip": (hostile.dripping(b"HTTP/1.1 200 OK\r\nX: "), Face3DError),
    "a status that drips": (hostile.dripping(b"HTTP/1.1 200 "), Face3DError),
    "endless headers": (hostile.endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000), UNAVAILABLE),
    "an endless header": (hostile.endless(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536), UNAVAILABLE),
    "endless interim answers": (hostile.endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), Face3DError),
    "silence": (hostile.silent, Timeout),
    "the truth without a length": (hostile.slowly(coefficients(Content_Length="")), None),
    "a closed connection": (b"", UNAVAILABLE),
    "a reset connection": (hostile.reset(b""), UNAVAILABLE),
    "a reset amid the body": (hostile.reset(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"), UNAVAILABLE),
    "a body cut short": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", UNAVAILABLE),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", UNAVAILABLE),
    "noise": (bytes(range(256)) * 10, UNAVAILABLE),
    "escapes for a status": (b"HTTP/1.1 500 \x1b[31mred\r\nContent-Length: 0\r\n\r\n", UNAVAILABLE),
    "a negative length": (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}", Face3DError),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\n{}ab", Face3DError),
    "a length in words": (b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}", Face3DError),
    "a header without a name": (b"HTTP/1.1 200 OK\r\n: x\r\n\r\n{}", Face3DError),
    "a redirect": (http(b"", "302 Found", Location="http://127.0.0.1:9/"), BadResponse),
    "a redirect that keeps the body": (http(b"", "307 Temporary", Location="http://127.0.0.1:9/"), BadResponse),
    "an answer without content": (http(b"", "204 No Content"), BadResponse),
    "a status that is none": (http(b"", "999 Odd"), Face3DError),
    "bytes that are no text": (http(b"\xff\xfe" * 1000, "500 Broken"), UNAVAILABLE),
    "an error of a megabyte": (http(json_error("x" * 900_000), "400 Bad"), Face3DError),
    "an error of four megabytes": (http(json_error("x" * (4 << 20)), "400 Bad"), Face3DError),
    "an error that is no text": (http(json_error({"a": 1}), "400 Bad"), Face3DError),
    "an error that is deep": (http(b'{"error": ' + b"[" * 100_000, "400 Bad"), Face3DError),
    "an error with escapes": (http(json_error(ESCAPES), "400 Bad"), BadImage),
    "a page with escapes": (http(ESCAPES.encode(), "502 Bad Gateway"), Face3DError),
    "a tag of the gateway": (http(json_error("[BadRequest] `mesh` cannot be classified."), "400 Bad"), BadRequest),
    "a tag that is none": (http(json_error("[Face3DError] x"), "400 Bad"), Face3DError),
    "cookies and what else": (coefficients(Set_Cookie="a=b; Domain=127.0.0.1"), None),
    "HTTP/1.0": (coefficients().replace(b"HTTP/1.1", b"HTTP/1.0"), None),
    "the truth and then noise": (coefficients() + b"HTTP/1.1 500 Unasked\r\n\r\n", None),
}  # fmt: skip


@flavours
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_over_http_is_a_typed_error(lie: str, flavour: str, caplog: pytest.LogCaptureFixture) -> None:
    answer, kind = LIES[lie]
    with caplog.at_level(logging.DEBUG):
        deadline = SHORT_DEADLINE if lie in ENDLESS else DEADLINE
        error = judged(flavour, hostile.http_server(answer), ("coefficients",), caplog.text, deadline)
    assert isinstance(error, kind) if kind is not None else error is None


def glb_with(**changes: Any) -> bytes:
    """The synthetic GLB whose JSON was changed."""
    import json

    glb = synthetic_glb()
    (size,) = struct.unpack_from("<I", glb, 12)
    tree = json.loads(glb[20 : 20 + size]) | changes
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    rest = glb[20 + size :]
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON") + text + rest


def synthetic_glb() -> bytes:
    glb: bytes = honest()["mesh"][0, 0]
    return glb


EVERYWHERE = [{"bufferView": number, "componentType": 5126, "count": 2**40, "type": "VEC3"} for number in range(4)]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
FILES: dict[str, dict[str, Any]] = {
    "a mesh that is no GLB": {"mesh": b"PK\3\4 something else"},
    "a mesh of nothing": {"mesh": b""},
    "a GLB cut short": {"mesh": synthetic_glb()[:-100]},
    "a GLB with noise behind it": {"mesh": synthetic_glb() + b"more"},
    "a GLB of version 1": {"mesh": b"glTF\1" + synthetic_glb()[5:]},
    "a GLB with a huge JSON chunk": {"mesh": synthetic_glb()[:12] + b"\xff\xff\xff\x7f" + synthetic_glb()[16:]},
    "a GLB whose vertices are 2^40": {"mesh": glb_with(accessors=EVERYWHERE)},
    "a GLB without buffers for its vertices": {
        "mesh": glb_with(accessors=[{"componentType": 5126, "count": 2**33, "type": "VEC3"}] * 4)
    },
    "a GLB whose views reach beyond it": {
        "mesh": glb_with(bufferViews=[{"buffer": 0, "byteOffset": 2**50, "byteLength": 4}] * 6)
    },
    "a GLB with a negative view": {
        "mesh": glb_with(bufferViews=[{"buffer": 0, "byteOffset": -8, "byteLength": 4}] * 6)
    },
    "a GLB that is elsewhere": {
        "mesh": glb_with(buffers=[{"uri": "file:///etc/passwd", "byteLength": 9}], bufferViews=[])
    },
    "a GLB without a mesh": {"mesh": glb_with(meshes=[])},
    "a GLB moved by a node": {"mesh": glb_with(nodes=[{"mesh": 0, "scale": [9, 9, 9]}])},
    "a GLB of odd JSON": {"mesh": glb_with(meshes=7, nodes=None, accessors="x")},
    "a texture that is EPS": {"texture": EPS},
    "a texture of nothing": {"texture": b""},
    "a texture cut short": {"texture": honest()["texture"][0, 0][:60]},
    "a preview that is a page": {"preview": b"<svg/>"},
    "warnings that are numbers": {"warnings": np.zeros((1, 2), np.float32)},
    "warnings in two dimensions": {"warnings": np.array([[[b"dark"]]], np.object_)},
    "visibility of another size": {"visibility": np.zeros((1, 1, 9, 9), np.uint8)},
    "vertices in two dimensions": {"vertices": np.zeros((1, 99, 2), np.float32)},
    "a face with an infinite box": {"face": np.full((1, 15), np.inf, np.float32)},
    "a camera of seven numbers": {"camera": np.zeros((1, 7), np.float32)},
    "a fingerprint as a text": {"face_model": b"abc"},
}  # fmt: skip


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels by its header."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )


FILES["a texture of 900 megapixels"] = {"texture": bomb()}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("lie", FILES)
def test_a_lie_in_a_file_or_tensor_is_a_typed_error_when_it_is_read(lie: str, protocol: str) -> None:
    (name,) = FILES[lie]
    names: tuple[Any, ...] = ("mesh", "texture") if name == "texture" else (name,)
    reply = honest(**FILES[lie])
    server = (
        hostile.http_server(honest_http(names, reply))
        if protocol == "http"
        else hostile.grpc_server(lambda _: message(names, reply).SerializeToString())
    )
    error = judged("blocking", server, names, "")
    assert isinstance(error, BadResponse), error


@flavours
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_same_servers_telling_the_truth_are_believed(protocol: str, flavour: str) -> None:
    reply = honest()
    names: tuple[Any, ...] = tuple(reply)
    server = (
        hostile.http_server(honest_http(names, reply))
        if protocol == "http"
        else hostile.grpc_server(lambda _: message(names, reply).SerializeToString())
    )
    assert judged(flavour, server, names, "") is None


def test_warnings_reach_the_caller_without_escapes() -> None:
    reply = honest(warnings=b"\x1b]0;title\x07 dark")
    with hostile.http_server(honest_http(("warnings",), reply)) as url:
        (warning,) = ask("blocking", url, "warnings").warnings
    assert warning.isprintable()
    assert warning.endswith("dark")


# --- gRPC -------------------------------------------------------------------------------------------------------------

ASKED = ("coefficients",)


def changed(change: Callable[[Any], object]) -> Handler:
    """A true message after a change."""

    def handler(_: grpc.ServicerContext) -> bytes:
        made = message(ASKED, honest())
        change(made)
        raw: bytes = made.SerializeToString()
        return raw

    return handler


def set_shape(*shape: int) -> Callable[[Any], object]:
    def change(made: Any) -> None:
        made.outputs[0].shape[:] = shape

    return change


def refused(code: grpc.StatusCode, words: str) -> Handler:
    def handler(context: grpc.ServicerContext) -> bytes:
        context.abort(code, words)
        raise AssertionError("unreachable")

    return handler


def with_metadata(count: int, size: int) -> Handler:
    def handler(context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata([(f"x-{number}", "y" * size) for number in range(count)])
        raw: bytes = message(ASKED, honest()).SerializeToString()
        return raw

    return handler


def silent(context: grpc.ServicerContext) -> bytes:
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait(60)
    return b""


GRPC_LIES: dict[str, tuple[Handler, type[Face3DError] | None]] = {
    "an empty message": (lambda _: b"", BadResponse),
    "bytes that are no message": (lambda _: b"\xff" * 1000, Face3DError),
    "a message of another kind": (lambda _: b"\x0a\x05hello", BadResponse),
    "a message that ends early": (lambda _: message(ASKED, honest()).SerializeToString()[:-1], Face3DError),
    "text that is no UTF-8": (lambda _: b"\x0a\x02\xff\xfe", Face3DError),
    "no outputs": (changed(lambda made: made.ClearField("outputs")), BadResponse),
    "no contents": (changed(lambda made: made.ClearField("raw_output_contents")), BadResponse),
    "contents too many": (changed(lambda made: made.raw_output_contents.append(b"more")), BadResponse),
    "numbers not as bytes": (
        changed(
            lambda made: (made.ClearField("raw_output_contents"), made.outputs[0].contents.fp32_contents.append(1))
        ),
        BadResponse,
    ),
    "another name": (changed(lambda made: setattr(made.outputs[0], "name", "camera")), BadResponse),
    "a name with escapes": (changed(lambda made: setattr(made.outputs[0], "name", "\x1b[31m")), BadResponse),
    "another type": (changed(lambda made: setattr(made.outputs[0], "datatype", "FP64")), BadResponse),
    "the same output twice": (
        changed(
            lambda made: (made.outputs.add().CopyFrom(made.outputs[0]), made.raw_output_contents.append(COEFFICIENTS))
        ),
        BadResponse,
    ),
    "a huge dimension": (changed(set_shape(1, 2**62)), BadResponse),
    "a negative dimension": (changed(set_shape(-1, -257)), BadResponse),
    "no dimensions": (changed(set_shape()), BadResponse),
    "ten thousand dimensions": (changed(set_shape(*[1] * 10_000)), BadResponse),
    "too few bytes": (changed(lambda made: made.raw_output_contents.__setitem__(0, b"abc")), BadResponse),
    "too many bytes": (changed(lambda made: made.raw_output_contents.__setitem__(0, bytes(9999))), BadResponse),
    "NaN": (changed(lambda made: made.raw_output_contents.__setitem__(0, numbers(float("nan")))), BadResponse),
    "a message larger than all": (lambda _: bytes(MAX_ANSWER + 1), BadResponse),
    "silence": (silent, Timeout),
    "a bomb of metadata": (with_metadata(500, 1000), Face3DError),
    "much metadata": (with_metadata(50, 50), None),
    "an error with escapes": (refused(grpc.StatusCode.INVALID_ARGUMENT, ESCAPES), BadImage),
    "an error of a megabyte": (refused(grpc.StatusCode.INVALID_ARGUMENT, "x" * 1_000_000), Face3DError),
    "an error without words": (refused(grpc.StatusCode.UNKNOWN, ""), Face3DError),
    "a tag of the gateway": (refused(grpc.StatusCode.INVALID_ARGUMENT, "[BadRequest] no."), BadRequest),
    "a cut call": (refused(grpc.StatusCode.CANCELLED, "gone"), UNAVAILABLE),
    "an exception": (lambda _: bytes(1 // 0), Face3DError),
    "data loss": (refused(grpc.StatusCode.DATA_LOSS, "\x00\x1b"), Face3DError),
}


@flavours
@pytest.mark.parametrize("lie", GRPC_LIES)
def test_a_lie_over_grpc_is_a_typed_error(lie: str, flavour: str, caplog: pytest.LogCaptureFixture) -> None:
    handler, kind = GRPC_LIES[lie]
    with caplog.at_level(logging.DEBUG, "face3d_client"):
        deadline = SHORT_DEADLINE if lie in ENDLESS else DEADLINE
        error = judged(flavour, hostile.grpc_server(handler), ("coefficients",), caplog.text, deadline)
    assert isinstance(error, kind) if kind is not None else error is None


@flavours
def test_a_grpc_server_may_say_anything_of_itself(flavour: str) -> None:
    async def wait(url: str, what: str) -> object:
        async with AsyncFace3DClient(url, retry=ONCE, timeout=DEADLINE) as client:
            return await getattr(client, what)()

    def now(url: str, what: str) -> object:
        with Face3DClient(url, retry=ONCE, timeout=DEADLINE) as client:
            return getattr(client, what)()

    with hostile.grpc_server(lambda _: b"\xff" * 100) as url:
        for what in ("info", "models"):
            with pytest.raises(BadResponse):
                asyncio.run(wait(url, what)) if flavour == "asyncio" else now(url, what)


@flavours
@pytest.mark.parametrize("noise", [b"", b"HTTP/1.1 400 Bad\r\n\r\n", bytes(range(256)) * 100, b"\x1b[31m" * 100])
def test_grpc_to_what_speaks_something_else_is_a_server_that_does_not_answer(noise: bytes, flavour: str) -> None:
    def talk(wire: Any) -> None:
        wire.sendall(noise)

    with hostile.http_server(talk) as url:
        began = time.monotonic()
        with pytest.raises(ServerUnavailable) as caught:
            ask(flavour, url.replace("http://", "grpc://"), "coefficients")
        harmless(caught.value, time.monotonic() - began, "")


# --- memory, health, information --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lie", ["an endless body", "endless chunks", "a gzip bomb", "deep JSON", "a huge dimension"])
def test_no_lie_takes_more_memory_than_an_answer_can_have(lie: str) -> None:
    answer, _ = LIES[lie]
    with hostile.http_server(answer) as url:
        tracemalloc.start()
        try:
            with pytest.raises(Face3DError):
                ask("blocking", url, "coefficients")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 2.5 * MAX_ANSWER


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"7",
        b'{"name": 1}',
        b'[{"state": "READY"}]',
        b'[{"name": "x", "version": 5}]',
        b'{"name": "a", "version": "b", "extensions": [1]}',
        b"[" * 100_000,
        b'{"name": "\xff"}',
        b"<html>",
    ],
)
def test_what_a_server_says_of_itself_may_be_anything(body: bytes) -> None:
    with hostile.http_server(http(body)) as url, Face3DClient(url, retry=ONCE, timeout=DEADLINE) as client:
        with pytest.raises(Face3DError):
            client.info()
        if body != b"[]":
            with pytest.raises(Face3DError):
                client.models()


def test_names_and_reasons_of_a_server_carry_no_escapes() -> None:
    body = rb'[{"name": "x\u001b[2J", "version": "1", "state": "UNAVAILABLE", "reason": "\u0007\u202e"}]'
    with hostile.http_server(http(body)) as url, Face3DClient(url, retry=ONCE) as client:
        (model,) = client.models()
    assert all(text.isprintable() for text in (model.name, model.version, model.state, model.reason))


def test_a_server_that_lies_about_its_health_is_found_out_by_the_first_call() -> None:
    with hostile.http_server(http(b"")) as url, Face3DClient(url, retry=ONCE) as client:
        assert client.ready()
        with pytest.raises(BadResponse):
            client.detect(b"picture")


@flavours
def test_a_redirect_takes_neither_token_nor_photograph_elsewhere(flavour: str) -> None:
    seen: list[bytes] = []

    def listen(wire: Any) -> None:
        seen.append(b"somebody came")

    with hostile.http_server(listen) as elsewhere:
        there = http(b"", "307 Temporary Redirect", Location=f"{elsewhere}/v2/models/face3d/infer")
        with hostile.http_server(there) as url, pytest.raises(BadResponse, match="307"):
            ask(flavour, url, "coefficients")
    assert seen == []


# --- addresses, tokens, headers ---------------------------------------------------------------------------------------

ADDRESSES = [
    "http://user:pa55@127.0.0.1:1", "grpc://user:pa55@127.0.0.1:1", "user:pa55@host", "https://pa55@host/path",
    "http://127.0.0.1:1/?token=pa55", "http://127.0.0.1:1/#pa55", "http://127.0.0.1:99999", "http://127.0.0.1:0",
    "ftp://x", "http://[::1", "http://[xyz]", "http://[::1]x:7", "file:///etc/passwd", "http://127.0.0.1:1\r\nX: y",
    "http://127.0.0.1:\u0661", "http://\x1b[31m", "http://a b", "http://a/b c", "http://a/\r\n", "http://\x00", "http://",
    "grpc://x/path", "://x", "http://.", "http://-x", "x" * 5000, "http://" + "x" * 300, "http://x/%0d%0a\n",
    "unix:/run/x", "http://\u202eevil", "dns:///x", "http://user:pa55@[::1]:7/", "http://user:pa55@",
]  # fmt: skip


@pytest.mark.parametrize("url", ADDRESSES)
@pytest.mark.parametrize("kind", [Face3DClient, AsyncFace3DClient])
def test_an_address_that_cannot_be_is_a_typed_error_without_its_password(url: str, kind: type[Face3DClient]) -> None:
    with pytest.raises(BadEndpoint) as caught:
        kind(url)
    harmless(caught.value, 0, "")
    assert isinstance(caught.value, ValueError)
    assert "pa55" not in "".join(traceback.format_exception(caught.value)).replace(url, "")


@pytest.mark.parametrize("text", ["x\r\nX-Evil: 1", "x\ny", "x\x00", "\x1b[31m", "t\u00f6ken", "x" * 9000])
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "grpc://127.0.0.1:1"])
def test_a_token_key_or_header_that_cannot_be_sent_is_refused(url: str, text: str) -> None:
    for words in ({"token": text}, {"admin_key": text}, {"headers": {"x-a": text}}, {"headers": {text: "a"}}):
        with pytest.raises(BadEndpoint) as caught:
            Face3DClient(url, **words)
        assert str(caught.value).isprintable()
        if "headers" not in words:
            assert text not in str(caught.value)


def test_nothing_shows_a_token_or_key() -> None:
    with Face3DClient("http://127.0.0.1:1", token=TOKEN, admin_key=TOKEN, headers={"x-key": TOKEN}) as client:
        assert TOKEN not in repr(client) + repr(client.endpoint) + str(client.endpoint)
