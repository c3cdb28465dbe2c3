"""The asyncio client: the methods of `Face3DClient` as coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, cast, overload

from face3d_client._base_client import AllFacesOptions, BaseClient, raise_first_error
from face3d_client._detection import DetectedFace
from face3d_client._embedding import Embedding
from face3d_client._errors import BadFace, Face3DError, NoFace
from face3d_client._flows import Done, Flow, Pause, Step, advance, request
from face3d_client._frames import FrameCalls, KeyFrames, head_options, in_threads
from face3d_client._fusion import Fusion
from face3d_client._images import ImageSource, image_bytes, source_path
from face3d_client._ordered import ordered_map_async
from face3d_client._outcome import Outcome
from face3d_client._person import Person, naming_photographs, sources_of
from face3d_client._protocol.calls import Call, Reply
from face3d_client._protocol.codec import (
    build_detect,
    build_embed,
    build_person,
    build_reconstruct,
    parse_detect,
    parse_embed,
    parse_frame,
    parse_person,
    parse_reconstruct,
)
from face3d_client._protocol.fuse import FuseOptions, build_fuse, parse_fuse
from face3d_client._protocol.options import Options, PersonOptions
from face3d_client._protocol.server import ModelStatus, ServerInfo
from face3d_client._results import Reconstruction
from face3d_client._tracking import Clip, TrackedFrame
from face3d_client._transports.factory import open_async_transport
from face3d_client._transports.interface import DirectTransport
from face3d_client._video import MAX_SECONDS, open_video

__all__ = ["AsyncFace3DClient"]

S = TypeVar("S", bound=ImageSource)
T = TypeVar("T")


class AsyncFace3DClient(BaseClient):
    """`Face3DClient` for asyncio: same arguments, same methods, same results and errors.

    ::

        async with AsyncFace3DClient("localhost:8001") as client:
            face = await client.reconstruct("portrait.jpg")

    It may be used in several event loops; each has connections of its own. Cancelling a task cancels its call on the
    server too (gRPC). Files are read and arrays encoded in a thread, so that neither holds up the loop.
    """

    def _open(self) -> None:
        self._transport = open_async_transport(self.endpoint)

    # --- faces ------------------------------------------------------------------------------------------------------

    async def detect(
        self,
        image: ImageSource,
        *,
        score_threshold: float | None = None,
        min_face: float | None = None,
        timeout: float | None = None,
    ) -> list[DetectedFace]:
        """See `Face3DClient.detect`."""
        call = build_detect(await self._bytes(image), min_face)
        return parse_detect(await self._infer(call, timeout), score_threshold)

    async def embed(
        self,
        image: ImageSource,
        *,
        face: int | DetectedFace | None = None,
        score_threshold: float | None = None,
        timeout: float | None = None,
    ) -> Embedding:
        """See `Face3DClient.embed`."""
        return parse_embed(await self._infer(build_embed(await self._bytes(image), face, score_threshold), timeout))

    async def reconstruct(
        self, image: ImageSource, *, timeout: float | None = None, **options: Unpack[Options]
    ) -> Reconstruction:
        """See `Face3DClient.reconstruct`."""
        call = build_reconstruct(await self._bytes(image), options)
        return parse_reconstruct(await self._infer(call, timeout), source_path(image))

    async def reconstruct_person(
        self, images: Sequence[ImageSource], *, timeout: float | None = None, **options: Unpack[PersonOptions]
    ) -> Person:
        """See `Face3DClient.reconstruct_person`."""
        sources = sources_of(images)
        with naming_photographs(sources):
            call = build_person([await self._bytes(image) for image in images], options)
            return parse_person(await self._run(self._person_flow(call, timeout)), sources)

    async def track(
        self,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource],
        *,
        frame_rate: float = 30.0,
        smoothing: float = 1.0,
        score_threshold: float | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[TrackedFrame | None]:
        """See `Face3DClient.track`; `images` may be an async iterable too. Use with ``async for``."""
        calls = FrameCalls(frame_rate, smoothing, score_threshold)
        pictures = (await self._bytes(image) async for _, image in _enumerate(images))
        async for index, call in calls.of_async(pictures):
            try:
                reply = await self._infer(call, timeout)
            except (NoFace, BadFace):
                yield None
            else:
                calls.begun = True
                yield parse_frame(reply, index, frame_rate)

    async def reconstruct_clip(
        self,
        path: str | os.PathLike[str],
        *,
        every: int = 1,
        seconds: float = MAX_SECONDS,
        smoothing: float = 1.0,
        timeout: float | None = None,
        **options: Unpack[PersonOptions],
    ) -> Clip:
        """See `Face3DClient.reconstruct_clip`. The video is decoded in a thread."""
        keys = KeyFrames()
        with contextlib.ExitStack() as opened:
            video = await asyncio.to_thread(opened.enter_context, open_video(path, every, seconds))
            async for frame in self.track(
                in_threads(keys.through(video.frames())), frame_rate=video.rate, smoothing=smoothing,
                score_threshold=options.get("score_threshold"), timeout=timeout,
            ):  # fmt: skip
                keys.offer(frame)
        return keys.clip(await self.reconstruct_person(keys.pictures(path), timeout=timeout, **head_options(options)))

    @overload
    async def reconstruct_all(
        self, image: ImageSource, *, return_exceptions: Literal[False] = False, **options: Unpack[AllFacesOptions]
    ) -> list[Reconstruction]: ...

    @overload
    async def reconstruct_all(
        self, image: ImageSource, *, return_exceptions: Literal[True], **options: Unpack[AllFacesOptions]
    ) -> list[Reconstruction | Face3DError]: ...

    async def reconstruct_all(
        self, image: ImageSource, *, return_exceptions: bool = False, **options: Unpack[AllFacesOptions]
    ) -> list[Reconstruction] | list[Reconstruction | Face3DError]:
        """See `Face3DClient.reconstruct_all`."""
        data, selection = await self._bytes(image), self._all_faces(options)
        threshold = selection.options.get("score_threshold")
        found = await self.detect(
            data, score_threshold=threshold, min_face=selection.min_face, timeout=selection.deadline.left()
        )

        async def reconstruct(face: DetectedFace) -> Reconstruction | Face3DError:
            try:
                return await self.reconstruct(data, timeout=selection.deadline.left(), **selection.options_of(face))
            except Face3DError as error:
                return error

        faces = ordered_map_async(reconstruct, selection.select(found), selection.concurrency)
        results = [result async for result in faces]
        return results if return_exceptions else raise_first_error(results)

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

    async def fuse(
        self,
        source: ImageSource,
        target: ImageSource,
        *,
        consent: str,
        timeout: float | None = None,
        **options: Unpack[FuseOptions],
    ) -> Fusion:
        """See `Face3DClient.fuse`."""
        call = build_fuse(await self._bytes(source), await self._bytes(target), consent, options)
        return parse_fuse(await self._infer(call, timeout), (source_path(source), source_path(target)))

    def fuse_many(
        self,
        source: ImageSource,
        targets: Iterable[S] | AsyncIterable[S],
        *,
        consent: str,
        concurrency: int = 4,
        timeout: float | None = None,
        **options: Unpack[FuseOptions],
    ) -> AsyncIterator[Outcome[S, Fusion]]:
        """See `Face3DClient.fuse_many`. Use with ``async for``; the source is read for each target."""

        async def one(numbered: tuple[int, S]) -> Outcome[S, Fusion]:
            index, target = numbered
            try:
                result = await self.fuse(source, target, consent=consent, timeout=timeout, **options)
                return Outcome(index, target, result=result)
            except (Face3DError, OSError) as error:
                return Outcome(index, target, error=error)

        return ordered_map_async(one, _enumerate(targets), concurrency)

    # --- the server -------------------------------------------------------------------------------------------------

    async def ready(self, model: str | None = None, *, timeout: float = 5.0) -> bool:
        """See `Face3DClient.ready`."""
        return await self._run(self._ready_flow(model, timeout))

    async def wait_ready(self, timeout: float = 60.0) -> None:
        """See `Face3DClient.wait_ready`."""
        await self._run(self._wait_ready_flow(timeout))

    async def models(self, *, timeout: float | None = None) -> list[ModelStatus]:
        """See `Face3DClient.models`."""
        return await self._run(self._retry_flow(lambda left: request(lambda to: to.models(left)), timeout))

    async def info(self, *, timeout: float | None = None) -> ServerInfo:
        """See `Face3DClient.info`."""
        return await self._run(self._retry_flow(lambda left: request(lambda to: to.info(left)), timeout))

    # --- life -------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Close the connections; may be called twice."""
        await self._run(self._close_flow())
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _bytes(self, image: ImageSource) -> bytes:
        if isinstance(image, bytes):  # needs only be looked at; files and arrays cost time
            return image_bytes(image)
        return await asyncio.to_thread(image_bytes, image, compress=self._regions is None)

    async def _infer(self, call: Call, timeout: float | None) -> Reply:
        return await self._run(self._infer_flow(call, timeout))

    async def _run(self, flow: Flow[T]) -> T:
        """Await the steps of a flow; return what it returns."""
        self._leave_parent()
        with contextlib.closing(flow):
            step = advance(flow)
            while not isinstance(step, Done):
                try:
                    answer = await self._perform(step)
                except Face3DError as error:
                    step = advance(flow, error=error)
                else:
                    step = advance(flow, answer)
            return step.value

    async def _perform(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        # The asyncio transports have the methods of the blocking ones, as coroutines.
        return await step(cast(DirectTransport, self._transport))


async def _enumerate(images: Iterable[S] | AsyncIterable[S]) -> AsyncIterator[tuple[int, S]]:
    if isinstance(images, AsyncIterable):
        index = 0
        async for image in images:
            yield index, image
            index += 1
    else:
        for index, image in enumerate(images):
            yield index, image
