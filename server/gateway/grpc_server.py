"""The public gRPC endpoint.

Calls are handled as streams of bytes although each has one message: so the time for reading and writing it is ours to
bound, and nothing is parsed that need not be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2 as pb

from server.gateway import limits, outcome
from server.gateway.gateway import EXTENSIONS, Gateway, log
from server.gateway.grpc_message import description, parse, to_triton
from server.gateway.refusal import NO_ANSWER, NOT_FOUND, NOT_SERVED, Refused, bad_request, shown, too_slow
from server.gateway.trace import TRACEPARENT
from server.gateway.upstream import SERVICE
from server.gateway.wire import split

HEALTH: Final = "grpc.health.v1.Health"
_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"  # HealthCheckResponse with status SERVING, NOT_SERVING

OPTIONS: Final = [
    ("grpc.max_receive_message_length", limits.MAX_MESSAGE),
    ("grpc.max_send_message_length", -1),  # answers are Triton's own
    # Compressed messages are refused, and not unpacked before that: only "identity", and no unpacking.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.per_message_decompression", 0),
    ("grpc.per_message_compression", 0),
    ("grpc.max_metadata_size", limits.MAX_METADATA),
    ("grpc.absolute_max_metadata_size", limits.MAX_METADATA),
    ("grpc.max_concurrent_streams", limits.MAX_STREAMS),
    ("grpc.max_allowed_incoming_connections", limits.MAX_CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", int(limits.HEADER_TIME * 1000)),
    ("grpc.max_connection_idle_ms", int(limits.IDLE_TIME_GRPC * 1000)),
    # A client that has gone without a word is noticed, and what it asked for is given up.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", int(limits.PING_INTERVAL * 1000)),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.so_reuseport", 0),  # a port that is taken must be an error
]

_NOTHING: Final[tuple[tuple[str, str], ...]] = ()

Handler = Callable[[Any], Awaitable[None]]


class GrpcServer(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers the calls that are served, and says of every other that it is not."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=limits.MAX_CALLS)
        self._server.add_generic_rpc_handlers((self,))
        plain: dict[str, Callable[[bytes, Any], Awaitable[bytes]]] = {
            f"/{SERVICE}/ServerLive": self._live,
            f"/{SERVICE}/ServerReady": self._ready,
            f"/{SERVICE}/ServerMetadata": self._server_metadata,
            f"/{SERVICE}/ModelReady": self._model_ready,
            f"/{SERVICE}/ModelMetadata": self._model_metadata,
            f"/{SERVICE}/ModelConfig": self._model_config,
            f"/{HEALTH}/Check": self._health,
        }
        self._handlers = {method: _stream(self._answering(handler)) for method, handler in plain.items()}
        self._handlers[f"/{SERVICE}/ModelInfer"] = _stream(self._infer)
        self._unknown = _stream(self._not_served)

    async def start(self, address: str, port: int) -> int:
        """Listen, and return the port; RuntimeError or OSError where it is taken."""
        bound: int = self._server.add_insecure_port(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
        await self._server.start()
        return bound

    async def stop(self, grace: float) -> None:
        """Take no more calls, and end those that are not over after ``grace`` seconds."""
        await self._server.stop(grace)

    def service(self, details: Any) -> Any:
        """Return the handler of a method; grpc calls it for each call."""
        return self._handlers.get(details.method, self._unknown)

    # --- inference --------------------------------------------------------------------------------------------------
    async def _infer(self, context: Any) -> None:
        with self._gateway.request("grpc") as ticket:
            async with self._gateway.admission.reading(in_one_piece=True):
                data = await _read(context)
            await ticket.hold(len(data))
            ticket.enter()
            parts = split(data)
            message = parse(pb.ModelInferRequest, parts.rest)
            large = self._gateway.check(description(message, parts.tensors))
            data = parts.with_rest(to_triton(message))
            del parts, message
            try:
                async with self._gateway.admission.turn(large):
                    answer = await self._call("ModelInfer", data, context)
            except grpc.aio.AioRpcError as error:
                ticket.outcome = outcome.of_grpc(error.code(), error.details() or "")
                raise
            del data
            await _write(context, answer)

    async def _call(self, method: str, data: bytes, context: Any) -> bytes:
        left = context.time_remaining()
        timeout = limits.WORK_TIME if left is None else min(left, limits.WORK_TIME)
        return await self._gateway.upstream.call(method, data, timeout, _traceparent(context))

    # --- the rest ---------------------------------------------------------------------------------------------------
    def _answering(self, handler: Callable[[bytes, Any], Awaitable[bytes]]) -> Handler:
        """Wrap a handler that takes one message and returns one."""

        async def answer(context: Any) -> None:
            try:
                async with asyncio.timeout(limits.BODY_TIME):
                    data = await _read(context)
            except TimeoutError:
                raise too_slow() from None
            await _write(context, await handler(data, context))

        return answer

    async def _live(self, data: bytes, _: Any) -> bytes:
        parse(pb.ServerLiveRequest, data)
        return pb.ServerLiveResponse(live=True).SerializeToString()  # type: ignore[no-any-return]

    async def _ready(self, data: bytes, _: Any) -> bytes:
        parse(pb.ServerReadyRequest, data)
        return pb.ServerReadyResponse(ready=self._gateway.ready).SerializeToString()  # type: ignore[no-any-return]

    async def _server_metadata(self, data: bytes, _: Any) -> bytes:
        parse(pb.ServerMetadataRequest, data)
        self._gateway.check_serving()
        version = self._gateway.upstream.state.version
        return pb.ServerMetadataResponse(name="triton", version=version, extensions=EXTENSIONS).SerializeToString()  # type: ignore[no-any-return]

    async def _model_ready(self, data: bytes, _: Any) -> bytes:
        asked = parse(pb.ModelReadyRequest, data)
        ready = self._gateway.is_model_ready(asked.name, asked.version)
        return pb.ModelReadyResponse(ready=ready).SerializeToString()  # type: ignore[no-any-return]

    async def _model_metadata(self, data: bytes, context: Any) -> bytes:
        asked = parse(pb.ModelMetadataRequest, data)
        return await self._about("ModelMetadata", asked, pb.ModelMetadataRequest, context)

    async def _model_config(self, data: bytes, context: Any) -> bytes:
        asked = parse(pb.ModelConfigRequest, data)
        return await self._about("ModelConfig", asked, pb.ModelConfigRequest, context)

    async def _about(self, method: str, asked: Any, kind: Any, context: Any) -> bytes:
        self._gateway.check_public(asked.name)
        self._gateway.check_serving()
        self._gateway.find_model(asked.name, asked.version)
        return await self._call(method, kind(name=asked.name, version=asked.version).SerializeToString(), context)

    async def _health(self, data: bytes, _: Any) -> bytes:
        # HealthCheckRequest has one field, a string, as the first field of this message is.
        service = parse(pb.ModelReadyRequest, data, "HealthCheckRequest").name
        if service not in ("", SERVICE):
            raise Refused(NOT_FOUND, "BadRequest", f"no service `{shown(service)}` is here: ask for `{SERVICE}`.")
        return _SERVING if self._gateway.ready else _NOT_SERVING

    async def _not_served(self, _: Any) -> None:
        raise Refused(
            NOT_SERVED,
            "BadRequest",
            "this method is not served here: there are ModelInfer, ModelReady, ModelMetadata, ModelConfig, ServerLive, "
            "ServerReady and ServerMetadata.",
        )


def _stream(handler: Handler) -> Any:
    """Wrap a handler that reads and writes by its context: what it raises becomes the status of the call."""

    async def answer(_: Any, context: Any) -> None:
        try:
            await handler(context)
        except Refused as error:
            code, sentence = error.kind.grpc, str(error)
        except grpc.aio.AioRpcError as error:  # what Triton answered
            code, sentence = error.code(), error.details()
        except Exception as error:
            if not context.done():  # else the client has gone, which is why it could not be answered
                log(f"unexpected: {shown(repr(error), 200)}")
            code, sentence = grpc.StatusCode.INTERNAL, "[ServerUnavailable] the gateway failed: see its log."
        else:
            return
        await context.abort(code, sentence)

    return grpc.stream_stream_rpc_method_handler(answer)


async def _read(context: Any) -> bytes:
    """Read the message of a call.

    Raises:
        Refused: none came.
    """
    data = await context.read()
    if not isinstance(data, bytes):
        raise bad_request("the call has no message: send one.")
    return data


async def _write(context: Any, data: bytes) -> None:
    try:
        async with asyncio.timeout(limits.ANSWER_TIME):
            await context.write(data)
    except TimeoutError:
        sentence = f"the answer was not read within {limits.ANSWER_TIME:.0f} s: read it, or ask for fewer outputs."
        raise Refused(NO_ANSWER, "Timeout", sentence) from None


def _traceparent(context: Any) -> tuple[tuple[str, str], ...]:
    """Return the one header that is passed on: where the request belongs in the client's trace."""
    for name, value in context.invocation_metadata():
        if name == "traceparent" and isinstance(value, str) and TRACEPARENT.fullmatch(value):
            return (("traceparent", value),)
    return _NOTHING
