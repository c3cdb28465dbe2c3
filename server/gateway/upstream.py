"""The connections to Triton, what it serves, and whether it does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import grpc
import grpc.aio

from server.gateway import limits
from server.gateway.description import PublicModel, public_model
from server.gateway.refusal import Refused, lost, revived

SERVICE: Final = "inference.GRPCInferenceService"

_CHANNEL: Final = [
    ("grpc.max_receive_message_length", -1),  # answers are Triton's own
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),  # a restarted Triton is found within one look at its readiness
    ("grpc.enable_retries", 0),  # a request is sent once; clients retry
    ("grpc.enable_http_proxy", 0),  # it is on this machine
    ("grpc.client_idle_timeout_ms", 2**31 - 1),  # the state of the connection is watched: keep it
    ("grpc.use_local_subchannel_pool", 1),
    # An answer of 1.8 MB in 2 frames and not in 110, sent without waiting for more room here: a tenth of the processor
    # time of passing it on.
    ("grpc.http2.max_frame_size", limits.MIB),
    ("grpc.http2.lookahead_bytes", 4 * limits.MIB),
]
# What gRPC's own transport says, in contrast to what Triton answers, when a connection breaks.
_BROKEN: Final = re.compile(
    r"failed to connect|connection|socket closed|broken pipe|recvmsg|goaway|stream removed|rst_stream|endpoint closing",
    re.IGNORECASE,
)
# What Triton says, as an INTERNAL error of the request, while a model lacks its process.
_NO_PROCESS: Final = re.compile(r"Stub process '[^']*' is not healthy")
# Looks at the readiness between two readings of the configurations (10 s): they change by a reload only.
_CONFIG_EVERY: Final = 20
_LOOK_TIMEOUT: Final = aiohttp.ClientTimeout(total=5)


@dataclass
class TritonState:
    """What the last looks at Triton found.

    Attributes:
        serving: whether it takes requests.
        ready: the public models that are ready.
        models: what they are like, by name.
        configs: their configurations, as Triton writes them.
        version: Triton's version.
    """

    serving: bool = False
    ready: frozenset[str] = frozenset()
    models: dict[str, PublicModel] = field(default_factory=dict)
    configs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    version: str = ""


def check_process(words: str) -> None:
    """See that what Triton says does not mean that a model's process has died.

    Raises:
        Refused: ``ServerUnavailable``: the request is right, and may be sent again.
    """
    if _NO_PROCESS.search(words):
        raise revived()


class Upstream:
    """Triton behind the gateway.

    Args:
        http, grpc_address: ``host:port``.
        names: the models that clients may call.
        changed: called with whether Triton serves, each time that changes.
    """

    def __init__(self, http: str, grpc_address: str, names: tuple[str, ...], changed: Callable[[bool], None]) -> None:
        self._base = f"http://{http}"
        self.names = names
        self.state = TritonState()
        self._changed = changed
        # No limit of connections: requests are counted before they come here. No compression between the two.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=limits.WORK_TIME, sock_connect=5),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept"),
            read_bufsize=limits.MIB,
        )
        self._channel = grpc.aio.insecure_channel(grpc_address, options=_CHANNEL)
        self._calls: dict[str, Any] = {}
        self._watch: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def start(self) -> None:
        """Begin to watch."""
        self._watch = asyncio.create_task(self._look_for_ever())

    async def close(self) -> None:
        """End the watch and close the connections."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await self._session.close()
        await self._channel.close()

    # --- requests ---------------------------------------------------------------------------------------------------
    async def call(self, method: str, message: bytes, timeout: float, metadata: tuple[tuple[str, str], ...]) -> bytes:
        """Make one unary gRPC call; message and answer are serialised.

        Raises:
            Refused: ``ServerUnavailable`` where the connection broke, or a model's process died.
            grpc.aio.AioRpcError: what Triton answered otherwise.
        """
        multicallable = self._calls.get(method)
        if multicallable is None:
            multicallable = self._calls[method] = self._channel.unary_unary(f"/{SERVICE}/{method}")
        try:
            answer: bytes = await multicallable(message, timeout=timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if self._is_broken(error):
                self._wake.set()
                raise lost() from None
            check_process(error.details() or "")
            raise
        return answer

    def http_request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Make one HTTP request, as a context manager that gives aiohttp's response.

        The errors of the connection are aiohttp's: see `connection_lost`.
        """
        return self._session.request(method, self._base + path, data=body, headers=headers, allow_redirects=False)

    def connection_lost(self) -> Refused:
        """Return the refusal where HTTP to Triton broke, and look at once whether it is gone."""
        self._wake.set()
        return lost()

    @staticmethod
    def _is_broken(error: grpc.aio.AioRpcError) -> bool:
        code = error.code()
        if code is grpc.StatusCode.CANCELLED:  # nobody here cancels a call and then waits for it
            return True
        transport = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
        return code in transport and _BROKEN.search(error.details() or "") is not None

    # --- state ------------------------------------------------------------------------------------------------------
    def _set(self, serving: bool) -> None:
        if serving != self.state.serving:
            self.state.serving = serving
            self._changed(serving)
        if not serving:
            self.state.ready = frozenset()

    async def _look_for_ever(self) -> None:
        turn = 0
        while True:
            with contextlib.suppress(TimeoutError):  # busy is not gone: what was known still holds
                try:
                    await self._look(read_configs=not self.state.serving or turn % _CONFIG_EVERY == 0)
                except (OSError, aiohttp.ClientError, ValueError, KeyError):
                    self._set(False)  # gone until it is seen again
            turn += 1
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.POLL):
                    await self._wake.wait()

    async def _look(self, read_configs: bool) -> None:
        ready = frozenset([name for name in self.names if await self._is_ready(name)])
        connected = self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY
        if read_configs and ready:
            await self._read_configs(ready)
        self.state.ready = ready
        # One that is loaded again is not ready for a moment, and the others are: that does not end the service.
        if connected and len(ready) == len(self.names):
            self._set(True)

    async def _is_ready(self, name: str) -> bool:
        async with self._session.get(f"{self._base}/v2/models/{name}/ready", timeout=_LOOK_TIMEOUT) as answer:
            return bool(answer.status == 200)

    async def _read_configs(self, names: frozenset[str]) -> None:
        for name in names:
            config = await self._json(f"/v2/models/{name}/config")
            metadata = await self._json(f"/v2/models/{name}")
            self.state.configs[name] = config
            self.state.models[name] = public_model(config, tuple(metadata.get("versions", ())))
        self.state.version = str((await self._json("/v2"))["version"])

    async def _json(self, path: str) -> Any:
        async with self._session.get(self._base + path, timeout=_LOOK_TIMEOUT) as answer:
            answer.raise_for_status()
            return json.loads(await answer.read())
