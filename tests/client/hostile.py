"""Servers that lie: real sockets on loopback that answer an inference with whatever a test wants, by HTTP or gRPC."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from tests.client import synthetic

Answer = bytes | Callable[[socket.socket], None]
"""What follows a request: bytes, or a function that talks on the socket until it returns."""

DATATYPES = {"float32": "FP32", "uint8": "UINT8", "int64": "INT64", "object": "BYTES"}


# --- HTTP -------------------------------------------------------------------------------------------------------------


@contextmanager
def http_server(answer: Answer) -> Iterator[str]:
    """The address of a server that answers every request so, and then closes the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(listener, answer), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _accept(listener: socket.socket, answer: Answer) -> None:
    with contextlib.suppress(OSError):
        while True:
            wire, _ = listener.accept()
            threading.Thread(target=_answer_one, args=(wire, answer), daemon=True).start()


def _answer_one(wire: socket.socket, answer: Answer) -> None:
    with wire, contextlib.suppress(OSError):
        received = b""
        while b"\r\n\r\n" not in received:
            if not (chunk := wire.recv(65536)):
                return
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        while length is not None and len(body) < int(length[1]):
            body += wire.recv(65536)
        if callable(answer):
            answer(wire)
        else:
            wire.sendall(answer)


def http(body: bytes, status: str = "200 OK", version: str = "HTTP/1.1", **headers: str) -> bytes:
    """An HTTP answer; names of headers with _ for -; an empty value leaves a header out."""
    lines = {"Content-Length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"{version} {status}\r\n{head}\r\n".encode("latin-1") + body


def inference(outputs: Any, payload: bytes = b"", **headers: str) -> bytes:
    """An answer to an inference: a JSON head with these outputs, then the payload."""
    head = json.dumps({"model_name": "face3d", "model_version": "1", "outputs": outputs}).encode()
    return http(head + payload, **{"Inference_Header_Content_Length": str(len(head)), **headers})


def output(name: Any, datatype: Any, shape: Any, size: Any) -> dict[str, Any]:
    """An output in the head of an answer."""
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def raw_of(array: np.ndarray[Any, Any]) -> bytes:
    """An array's elements as the protocol carries them."""
    if array.dtype != np.object_:
        return array.tobytes()
    return b"".join(struct.pack("<I", len(text)) + text for text in array.ravel())


def honest(**changes: bytes | np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Every output as it should be, some of them changed; bytes become an output of one element."""
    reply = synthetic.reply()
    for name, value in changes.items():
        reply[name] = np.array([[value]], np.object_) if isinstance(value, bytes) else value
    return reply


def honest_http(names: tuple[str, ...], reply: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """The answer of a true server with these outputs."""
    parts = [(name, reply[name], raw_of(reply[name])) for name in names]
    heads = [output(name, DATATYPES[str(a.dtype)], list(a.shape), len(raw)) for name, a, raw in parts]
    return inference(heads, b"".join(raw for _, _, raw in parts))


def dripping(begin: bytes, seconds: float = 0.05) -> Callable[[socket.socket], None]:
    """Sends this, then one byte after the other without end."""

    def talk(wire: socket.socket) -> None:
        wire.sendall(begin)
        while True:
            wire.sendall(b"a")
            time.sleep(seconds)

    return talk


def slowly(answer: bytes) -> Callable[[socket.socket], None]:
    """Sends an answer in two parts with a pause between them."""

    def talk(wire: socket.socket) -> None:
        wire.sendall(answer[:-500])
        time.sleep(0.2)
        wire.sendall(answer[-500:])

    return talk


def silent(wire: socket.socket) -> None:
    """Sends nothing until the client closes the connection."""
    wire.recv(1)


def endless(begin: bytes, chunk: bytes) -> Callable[[socket.socket], None]:
    """Sends this, then the chunk again and again."""

    def talk(wire: socket.socket) -> None:
        wire.sendall(begin)
        while True:
            wire.sendall(chunk)

    return talk


def reset(begin: bytes) -> Callable[[socket.socket], None]:
    """Sends this, then resets the connection."""

    def talk(wire: socket.socket) -> None:
        wire.sendall(begin)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return talk


# --- gRPC -------------------------------------------------------------------------------------------------------------

Handler = Callable[[grpc.ServicerContext], bytes]
"""Gives the bytes of an answer's message, or ends the call by its context."""


@contextmanager
def grpc_server(handler: Handler) -> Iterator[str]:
    """The address of a gRPC server that answers every call so, whatever it asks."""

    class Everything(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc carries no types
        def service(self, _: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda _, context: handler(context))

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Everything()], options=[("grpc.max_send_message_length", -1)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def message(names: tuple[str, ...], reply: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    """The protobuf answer of a true server with these outputs, to be changed."""
    made = service_pb2.ModelInferResponse(model_name="face3d", model_version="1")
    for name in names:
        array = reply[name]
        made.outputs.add(name=name, datatype=DATATYPES[str(array.dtype)], shape=list(array.shape))
        made.raw_output_contents.append(raw_of(array))
    return made
