"""The asyncio client: the surface of `Face3DClient`, with ``await`` before it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Literal, Self, TypeVar, Unpack, overload

from face3d_client._client import not_ready, whole
from face3d_client._detection import DetectedFace
from face3d_client._errors import Face3DError, ServerUnavailable, Timeout
from face3d_client._images import ImageSource, image_bytes
from face3d_client._ordered import ordered_map_async
from face3d_client._outcome import Outcome
from face3d_client._protocol.calls import Call, Reply
from face3d_client._protocol.codec import ENSEMBLES, build_detect, build_reconstruct, parse_detect, parse_reconstruct
from face3d_client._protocol.options import Options, with_face
from face3d_client._protocol.server import ModelStatus, ServerInfo
from face3d_client._results import Reconstruction
from face3d_client._transports.endpoint import TLS, Endpoint, Protocol
from face3d_client._transports.factory import open_async_transport
from face3d_client._transports.retry import Budget, Deadline, Retry
from face3d_client._transports.shared_memory import Region, Regions, is_unknown_region

__all__ = ["AsyncFace3DClient"]

S = TypeVar("S", bound=ImageSource)
T = TypeVar("T")


class AsyncFace3DClient:
    """`Face3DClient` for asyncio: same arguments, same methods, same results and errors.

    ::

        async with AsyncFace3DClient("localhost:8001") as client:
            face = await client.reconstruct("portrait.jpg")

    It belongs to the event loop that makes its first call. Cancelling a task cancels its call on the server too (gRPC).
    Files are read and arrays encoded in a thread, so that neither holds up the loop.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        protocol: Protocol | None = None,
        timeout: float = 60.0,
        retry: Retry | None = None,
        tls: TLS | bool | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        admin_key: str | None = None,
        shared_memory: bool = False,
    ) -> None:
        self.endpoint = Endpoint.parse(url, protocol, tls, token, headers, admin_key)
        self._timeout = Deadline.checked(timeout)
        self._budget = Budget(retry or Retry())
        if shared_memory:
            Regions.check(self.endpoint)
        self._regions = Regions() if shared_memory else None
        self._transport = open_async_transport(self.endpoint)

    # --- faces ------------------------------------------------------------------------------------------------------

    async def detect(
        self, image: ImageSource, *, score_threshold: float | None = None, timeout: float | None = None
    ) -> list[DetectedFace]:
        """See `Face3DClient.detect`."""
        return parse_detect(await self._infer(build_detect(await self._bytes(image)), timeout), score_threshold)

    async def reconstruct(
        self, image: ImageSource, *, timeout: float | None = None, **options: Unpack[Options]
    ) -> Reconstruction:
        """See `Face3DClient.reconstruct`."""
        return parse_reconstruct(await self._infer(build_reconstruct(await self._bytes(image), options), timeout))

    @overload
    async def reconstruct_all(
        self,
        image: ImageSource,
        *,
        min_size: float = 0,
        concurrency: int = 8,
        return_exceptions: Literal[False] = False,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> list[Reconstruction]: ...

    @overload
    async def reconstruct_all(
        self,
        image: ImageSource,
        *,
        min_size: float = 0,
        concurrency: int = 8,
        return_exceptions: Literal[True],
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> list[Reconstruction | Face3DError]: ...

    async def reconstruct_all(
        self,
        image: ImageSource,
        *,
        min_size: float = 0,
        concurrency: int = 8,
        return_exceptions: bool = False,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> list[Reconstruction] | list[Reconstruction | Face3DError]:
        """See `Face3DClient.reconstruct_all`."""
        data, deadline = await self._bytes(image), Deadline(self._timeout if timeout is None else timeout)
        threshold = options.get("score_threshold")
        found = await self.detect(data, score_threshold=threshold, timeout=deadline.left())

        async def one(face: DetectedFace) -> Reconstruction | Face3DError:
            try:
                return await self.reconstruct(data, timeout=deadline.left(), **with_face(options, face))
            except Face3DError as error:
                return error

        chosen = [face for face in found if face.size >= min_size]
        results = [result async for result in ordered_map_async(one, chosen, concurrency)]
        return results if return_exceptions else whole(results)

    def map(
        self,
        images: Iterable[S] | AsyncIterable[S],
        *,
        concurrency: int = 8,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> AsyncIterator[Outcome[S, Reconstruction]]:
        """See `Face3DClient.map`; `images` may be an async iterable too. Use with ``async for``."""

        async def one(numbered: tuple[int, S]) -> Outcome[S, Reconstruction]:
            index, image = numbered
            try:
                return Outcome(index, image, result=await self.reconstruct(image, timeout=timeout, **options))
            except (Face3DError, OSError) as error:
                return Outcome(index, image, error=error)

        return ordered_map_async(one, _enumerate(images), concurrency)

    # --- the server -------------------------------------------------------------------------------------------------

    async def ready(self, model: str | None = None, *, timeout: float = 5.0) -> bool:
        """See `Face3DClient.ready`."""
        try:
            deadline = Deadline(timeout)
            models = ENSEMBLES if model is None else (model,)
            return all([await self._transport.model_ready(name, deadline.left()) for name in models])
        except Face3DError as error:
            if isinstance(error, (ServerUnavailable, Timeout)) and error.status != "CANCELLED":
                return False
            raise

    async def wait_ready(self, timeout: float = 60.0) -> None:
        """See `Face3DClient.wait_ready`."""
        deadline = Deadline(timeout)
        while not await self.ready(timeout=min(5.0, deadline.left_or(0.1))):
            if deadline.over():
                raise not_ready(self.endpoint, timeout)
            await asyncio.sleep(min(0.2, deadline.left_or(0.0)))

    async def models(self, *, timeout: float | None = None) -> list[ModelStatus]:
        """See `Face3DClient.models`."""
        return await self._retrying(self._transport.models, timeout)

    async def info(self, *, timeout: float | None = None) -> ServerInfo:
        """See `Face3DClient.info`."""
        return await self._retrying(self._transport.info, timeout)

    # --- life -------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Close the connections; may be called twice."""
        if self._regions is not None:
            for name in self._regions.registered():
                with contextlib.suppress(Face3DError):  # a server that is gone has forgotten it anyway
                    await self._transport.unregister(name, 2.0)
            self._regions.close()
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncFace3DClient({str(self.endpoint)!r})"

    async def _bytes(self, image: ImageSource) -> bytes:
        if isinstance(image, bytes):  # needs only be looked at; files and arrays cost time
            return image_bytes(image)
        return await asyncio.to_thread(image_bytes, image, compress=self._regions is None)

    async def _infer(self, call: Call, timeout: float | None) -> Reply:
        if self._regions is None:
            return await self._retrying(lambda left: self._transport.infer(call, left), timeout)
        with self._regions.place(call) as (placed, region):
            return await self._retrying(lambda left: self._infer_placed(placed, region, left), timeout)

    async def _infer_placed(self, call: Call, region: Region, timeout: float) -> Reply:
        deadline = Deadline(timeout)
        for _ in range(2):
            if not region.registered:
                await self._transport.register(region, deadline.left())
                region.registered = True
            try:
                return await self._transport.infer(call, deadline.left())
            except Face3DError as error:
                if not is_unknown_region(error):
                    raise
                region.registered = False
        return await self._transport.infer(call, deadline.left())

    async def _retrying(self, send: Callable[[float], Awaitable[T]], timeout: float | None) -> T:
        deadline = Deadline(self._timeout if timeout is None else timeout)
        for attempt in itertools.count(1):
            try:
                answer = await send(deadline.left())
            except Face3DError as error:
                pause = self._budget.pause(error, attempt, deadline)
                if pause is None:
                    raise
            else:
                self._budget.succeeded()
                return answer
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")


async def _enumerate(images: Iterable[S] | AsyncIterable[S]) -> AsyncIterator[tuple[int, S]]:
    if isinstance(images, AsyncIterable):
        index = 0
        async for image in images:
            yield index, image
            index += 1
    else:
        for index, image in enumerate(images):
            yield index, image
