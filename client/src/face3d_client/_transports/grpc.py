"""gRPC on tritonclient: one channel per client, shared by all threads (or by all tasks of one event loop)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from face3d_client._errors import BadResponse, Face3DError
from face3d_client._protocol.calls import Call, Reply
from face3d_client._protocol.server import ModelStatus, ServerInfo
from face3d_client._protocol.status import error_from, is_tagged
from face3d_client._protocol.tensors import MAX_ANSWER, Tensor, read_tensors
from face3d_client._transports.endpoint import Endpoint
from face3d_client._transports.failures import client_closed, no_server
from face3d_client._transports.inputs import microseconds, pack_inputs
from face3d_client._transports.loops import PerLoop
from face3d_client._transports.retry import MORE_TIME
from face3d_client._transports.shared_memory import Region

__all__ = ["AsyncGrpcTransport", "GrpcTransport"]

_CHANNEL: Final[list[tuple[str, Any]]] = [
    # gRPC's own limit of 4 MiB is less than a mesh with a 2048 texture.
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", MAX_ANSWER),
    # The gateway's and Triton's answers carry a few hundred bytes of metadata.
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.absolute_max_metadata_size", 16 << 10),
    # A server that was started again is found within seconds; by default gRPC waits for up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A connection that a firewall dropped in silence is noticed after 60 + 10 s, but an idle one is left in peace:
    # servers close connections that ping without calls.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Retries are this package's, where they are counted; two layers of them would multiply.
    ("grpc.enable_retries", 0),
    # Two clients of one process must not share, and so not close, one connection.
    ("grpc.use_local_subchannel_pool", 1),
]


def _client_options(endpoint: Endpoint) -> dict[str, Any]:
    # A server on this machine is not reached through a proxy, whatever the environment says; over HTTP none is ever.
    proxy = [("grpc.enable_http_proxy", 0)] if endpoint.is_loopback else []
    options: dict[str, Any] = {"url": endpoint.address, "channel_args": _CHANNEL + proxy}
    if endpoint.tls is not None:
        options["ssl"] = True
        for name, path in (
            ("root_certificates", endpoint.tls.ca),
            ("certificate_chain", endpoint.tls.cert),
            ("private_key", endpoint.tls.key),
        ):
            options[name] = None if path is None else os.fspath(path)
    return options


def _request(call: Call, timeout: float, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "model_name": call.model,
        "inputs": pack_inputs(call, triton.InferInput),
        "outputs": [triton.InferRequestedOutput(name) for name in call.outputs],
        "parameters": dict(call.parameters) or None,
        "headers": headers,
        "client_timeout": timeout,
        "timeout": microseconds(timeout),
        **call.sequence(),
    }


def _reply(call: Call, result: Any) -> Reply:
    message = result.get_response()
    if len(message.outputs) != len(message.raw_output_contents):
        raise BadResponse(f"the server sent {len(message.outputs)} outputs as {len(message.raw_output_contents)}.")
    tensors = [
        Tensor(output.name, output.datatype, list(output.shape), raw)
        for output, raw in zip(message.outputs, message.raw_output_contents, strict=True)
    ]
    return read_tensors(call.outputs, tensors, call.rows)


_NO_MESSAGE: Final = "the answer is larger than any of this service, or no message of its protocol"


def _exception_of(endpoint: Endpoint, error: InferenceServerException) -> Face3DError:
    status = str(error.status() or "UNKNOWN").removeprefix("StatusCode.")
    words = str(error.message() or "")
    if "CLIENT: Received message larger than max" in words or "deserializing" in words:
        return BadResponse(f"{_NO_MESSAGE} ({words}).", status=status)
    if is_tagged(words):  # the service's or the gateway's own sentence
        return error_from(status, words)
    # The deadline's own status can come second to that of the stream it cuts.
    if status == "DEADLINE_EXCEEDED" or "deadline exceeded" in words.lower():
        return error_from("DEADLINE_EXCEEDED", f"no answer before the deadline. {MORE_TIME}")
    # A server that dies amid an answer shows as a cut stream, which gRPC calls by several names.
    cut = status == "CANCELLED" or "RST_STREAM" in words or "Stream removed" in words
    if cut or (status == "UNAVAILABLE" and _is_connection_trouble(words)):
        return no_server(endpoint, words)
    return error_from(status, words)


def _is_connection_trouble(words: str) -> bool:
    signs = (
        "failed to connect",
        "connection",
        "socket closed",
        "dns",
        "resolving",
        "name resolution",
        "endpoint",
        "goaway",
    )
    return any(sign in words.lower() for sign in signs)


def _statuses(index: Any) -> list[ModelStatus]:
    return [ModelStatus(model.name, model.version, model.state, model.reason) for model in index.models]


class GrpcTransport:
    """Blocking gRPC."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._headers = dict(endpoint.headers)
        self._client = triton.InferenceServerClient(**_client_options(endpoint))
        self._closed = False

    def infer(self, call: Call, timeout: float) -> Reply:
        """See `Transport`."""
        with self._errors():
            return _reply(call, self._client.infer(**_request(call, timeout, self._headers)))

    def model_ready(self, model: str, timeout: float) -> bool:
        """See `Transport`."""
        with self._errors():
            return bool(self._client.is_model_ready(model, headers=self._headers, client_timeout=timeout))

    def models(self, timeout: float) -> list[ModelStatus]:
        """See `Transport`."""
        with self._errors():
            return _statuses(self._client.get_model_repository_index(headers=self._headers, client_timeout=timeout))

    def info(self, timeout: float) -> ServerInfo:
        """See `Transport`."""
        with self._errors():
            answer = self._client.get_server_metadata(headers=self._headers, client_timeout=timeout)
        return ServerInfo(answer.name, answer.version, tuple(answer.extensions))

    def register(self, region: Region, timeout: float) -> None:
        """See `Transport`."""
        with self._errors():
            self._client.register_system_shared_memory(
                region.name, region.key, region.size, headers=self._headers, client_timeout=timeout
            )

    def unregister(self, name: str, timeout: float) -> None:
        """See `Transport`."""
        with self._errors():
            self._client.unregister_system_shared_memory(name, headers=self._headers, client_timeout=timeout)

    def close(self) -> None:
        """See `Transport`."""
        self._closed = True
        self._client.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        if self._closed:
            raise client_closed()
        try:
            yield
        except (InferenceServerException, ValueError) as error:  # ValueError: the channel was closed just now
            if self._closed:
                raise client_closed() from error
            if isinstance(error, ValueError):
                raise
            raise _exception_of(self._endpoint, error) from error


class AsyncGrpcTransport:
    """Non-blocking gRPC: a channel for each event loop, made by the first call there."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._headers = dict(endpoint.headers)
        self._clients: PerLoop[Any] = PerLoop(
            lambda: triton_aio.InferenceServerClient(**_client_options(endpoint)), lambda client: client.close()
        )
        self._closed = False

    async def _client(self) -> Any:
        if self._closed:
            raise client_closed()
        return await self._clients.get()

    async def infer(self, call: Call, timeout: float) -> Reply:
        """See `AsyncTransport`."""
        with self._errors():
            return _reply(call, await (await self._client()).infer(**_request(call, timeout, self._headers)))

    async def model_ready(self, model: str, timeout: float) -> bool:
        """See `AsyncTransport`."""
        with self._errors():
            return bool(
                await (await self._client()).is_model_ready(model, headers=self._headers, client_timeout=timeout)
            )

    async def models(self, timeout: float) -> list[ModelStatus]:
        """See `AsyncTransport`."""
        with self._errors():
            return _statuses(
                await (await self._client()).get_model_repository_index(headers=self._headers, client_timeout=timeout)
            )

    async def info(self, timeout: float) -> ServerInfo:
        """See `AsyncTransport`."""
        with self._errors():
            answer = await (await self._client()).get_server_metadata(headers=self._headers, client_timeout=timeout)
            return ServerInfo(answer.name, answer.version, tuple(answer.extensions))

    async def register(self, region: Region, timeout: float) -> None:
        """See `AsyncTransport`."""
        with self._errors():
            await (await self._client()).register_system_shared_memory(
                region.name, region.key, region.size, headers=self._headers, client_timeout=timeout
            )

    async def unregister(self, name: str, timeout: float) -> None:
        """See `AsyncTransport`."""
        with self._errors():
            await (await self._client()).unregister_system_shared_memory(
                name, headers=self._headers, client_timeout=timeout
            )

    async def close(self) -> None:
        """See `AsyncTransport`."""
        self._closed = True
        await self._clients.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            if self._closed:
                raise client_closed() from error
            raise _exception_of(self._endpoint, error) from error
        except AttributeError as error:  # what cannot be read as a message, grpc.aio hands over as None
            raise BadResponse(f"{_NO_MESSAGE}. Check the address.") from error
