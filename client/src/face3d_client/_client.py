"""The blocking client."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Literal, Self, TypedDict, TypeVar, Unpack, cast, overload

from face3d_client._detection import DetectedFace
from face3d_client._errors import Face3DError, ServerUnavailable, Timeout
from face3d_client._images import ImageSource, image_bytes
from face3d_client._ordered import ordered_map
from face3d_client._outcome import Outcome
from face3d_client._protocol.calls import Call, Reply
from face3d_client._protocol.codec import ENSEMBLES, build_detect, build_reconstruct, parse_detect, parse_reconstruct
from face3d_client._protocol.options import Options, with_face
from face3d_client._protocol.server import ModelStatus, ServerInfo
from face3d_client._results import Reconstruction
from face3d_client._transports.endpoint import TLS, Endpoint, Protocol
from face3d_client._transports.factory import open_transport
from face3d_client._transports.interface import Transport
from face3d_client._transports.retry import Budget, Deadline, Retry
from face3d_client._transports.shared_memory import Region, Regions, is_unknown_region

__all__ = ["Connection", "Face3DClient"]

S = TypeVar("S", bound=ImageSource)
T = TypeVar("T")


class Connection(TypedDict, total=False):
    """How to reach a server; each is described at `Face3DClient`."""

    protocol: Protocol | None
    timeout: float
    retry: Retry | None
    tls: TLS | bool | None
    token: str | None
    headers: Mapping[str, str] | None
    admin_key: str | None


class Face3DClient:
    """A connection to a Face3D server.

    ::

        with Face3DClient("localhost:8001") as client:
            face = client.reconstruct("portrait.jpg")
            face.save("face.glb")

    One client may be used by many threads at the same time, and should be: over gRPC they share one channel, over HTTP
    a pool of connections, and both are made when first needed and kept. `close` (or leaving the ``with``) may happen in
    any thread; calls in flight then end with `ServerUnavailable`. A client must not be carried across a fork.

    Args:
        url: ``[grpc|grpcs|http|https://]host[:port]``. None: environment variable FACE3D_URL, else localhost. Default
            ports: 8001 for gRPC, 8000 for HTTP.
        protocol: "grpc" or "http", where the URL does not say. None: gRPC.
        timeout: seconds that a call may take in all, retries included; every method can override it.
        retry: how often and how patiently to send again. None: `Retry()`.
        tls: True, or a `TLS` with files of certificates. None: as the URL's scheme says.
        token: sent with every call as ``authorization: Bearer TOKEN``. Over an unencrypted connection anyone on the way
            can read it.
        headers: further headers (HTTP) or metadata (gRPC) for every call.
        admin_key: the server's FACE3D_ADMIN_KEY, which `models` and shared memory need where it keeps them closed; sent
            with every call, as `token` is.
        shared_memory: send pictures through system shared memory instead of the connection; for a server on this
            machine that allows it (Triton from 2.68 on: ``--allow-client-shm=true``). Worth it for arrays, which then
            go uncompressed; a JPEG is sent as fast without.

    Raises:
        ValueError: the arguments contradict each other. Nothing is connected yet, so a server that is not there shows
            only in the first call.
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
        self._direct = open_transport(self.endpoint)
        self._transport: Transport = self._direct

    # --- faces ------------------------------------------------------------------------------------------------------

    def detect(
        self, image: ImageSource, *, score_threshold: float | None = None, timeout: float | None = None
    ) -> list[DetectedFace]:
        """Find the faces of a picture.

        Args:
            image: a path, the bytes of a picture file, or a uint8 array (H, W, 3) RGB.
            score_threshold: lowest score, 0..1. None: 0.7. The detector itself knows nothing below about 0.3.
            timeout: seconds for this call.

        Returns:
            At most 16 faces, best first; none is an empty list.

        Raises:
            BadImage, ImageTooLarge, ServiceError, OSError.
        """
        return parse_detect(self._infer(build_detect(self._bytes(image)), timeout), score_threshold)

    def reconstruct(
        self, image: ImageSource, *, timeout: float | None = None, **options: Unpack[Options]
    ) -> Reconstruction:
        """Make a face of a picture: the best one, or the one that `face` or `box` chooses.

        Args:
            image: a path, the bytes of a picture file, or a uint8 array (H, W, 3) RGB.
            timeout: seconds for this call.
            **options: see `Options`.

        Raises:
            RequestError: this picture or option will not do (BadImage, NoFace, ...); see the tree in `face3d_client`.
            ServiceError: the service will not do.
            OSError: the file cannot be read.
        """
        return parse_reconstruct(self._infer(build_reconstruct(self._bytes(image), options), timeout))

    @overload
    def reconstruct_all(
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
    def reconstruct_all(
        self,
        image: ImageSource,
        *,
        min_size: float = 0,
        concurrency: int = 8,
        return_exceptions: Literal[True],
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> list[Reconstruction | Face3DError]: ...

    def reconstruct_all(
        self,
        image: ImageSource,
        *,
        min_size: float = 0,
        concurrency: int = 8,
        return_exceptions: bool = False,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> list[Reconstruction] | list[Reconstruction | Face3DError]:
        """Make every face of a picture: `detect` once, then `reconstruct` for all of them at the same time.

        Args:
            image: as for `reconstruct`.
            min_size: leave out faces whose box's longer side has fewer source pixels.
            concurrency: faces in flight at the same time.
            return_exceptions: put the error in a face's place instead of raising the first one.
            timeout: seconds for all of it.
            **options: see `Options`; `face` and `box` make no sense here.

        Returns:
            In the order of score; empty where there is no face.
        """
        data, deadline = self._bytes(image), Deadline(self._timeout if timeout is None else timeout)
        threshold = options.get("score_threshold")
        found = self.detect(data, score_threshold=threshold, timeout=deadline.left())

        def one(face: DetectedFace) -> Reconstruction | Face3DError:
            try:
                return self.reconstruct(data, timeout=deadline.left(), **with_face(options, face))
            except Face3DError as error:
                return error

        results = list(ordered_map(one, (face for face in found if face.size >= min_size), concurrency))
        return results if return_exceptions else whole(results)

    def map(
        self,
        images: Iterable[S],
        *,
        concurrency: int = 8,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> Iterator[Outcome[S, Reconstruction]]:
        """`reconstruct` for many pictures, a bounded number at the same time, outcomes in the order of the pictures.

        An error belongs to its picture and stops no other. `images` may be endless: at most twice `concurrency` are
        read ahead. Leaving the loop early drops what has not begun.

        Args:
            images: as for `reconstruct`, any number.
            concurrency: pictures in flight at the same time.
            timeout: seconds for each picture.
            **options: see `Options`.
        """

        def one(numbered: tuple[int, S]) -> Outcome[S, Reconstruction]:
            index, image = numbered
            try:
                return Outcome(index, image, result=self.reconstruct(image, timeout=timeout, **options))
            except (Face3DError, OSError) as error:
                return Outcome(index, image, error=error)

        return ordered_map(one, enumerate(images), concurrency)

    # --- the server -------------------------------------------------------------------------------------------------

    def ready(self, model: str | None = None, *, timeout: float = 5.0) -> bool:
        """Whether the server answers and all three ensembles are ready; nobody there is False, no error.

        Args:
            model: ask for this one instead.
            timeout: seconds for all of it.

        Raises:
            AccessDenied, or ServerUnavailable because this client is closed.
        """
        try:
            deadline = Deadline(timeout)
            models = ENSEMBLES if model is None else (model,)
            return all(self._transport.model_ready(name, deadline.left()) for name in models)
        except Face3DError as error:
            if isinstance(error, (ServerUnavailable, Timeout)) and error.status != "CANCELLED":
                return False
            raise

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until `ready`.

        Raises:
            ServerUnavailable: it did not become so in time.
        """
        deadline = Deadline(timeout)
        while not self.ready(timeout=min(5.0, deadline.left_or(0.1))):
            if deadline.over():
                raise not_ready(self.endpoint, timeout)
            time.sleep(min(0.2, deadline.left_or(0.0)))

    def models(self, *, timeout: float | None = None) -> list[ModelStatus]:
        """Every model version in the server's repository and whether it is ready.

        Raises:
            AccessDenied: the server keeps its repository closed, and `admin_key` is not the key.
        """
        return self._retrying(self._transport.models, timeout)

    def info(self, *, timeout: float | None = None) -> ServerInfo:
        """The server's name, version and extensions."""
        return self._retrying(self._transport.info, timeout)

    # --- life -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections; may be called twice."""
        if self._regions is not None:
            for name in self._regions.registered():
                with contextlib.suppress(Face3DError):  # a server that is gone has forgotten it anyway
                    self._direct.unregister(name, 2.0)
            self._regions.close()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Face3DClient({str(self.endpoint)!r})"

    def _bytes(self, image: ImageSource) -> bytes:
        return image_bytes(image, compress=self._regions is None)

    def _infer(self, call: Call, timeout: float | None) -> Reply:
        if self._regions is None:
            return self._retrying(lambda left: self._transport.infer(call, left), timeout)
        with self._regions.place(call) as (placed, region):
            return self._retrying(lambda left: self._infer_placed(placed, region, left), timeout)

    def _infer_placed(self, call: Call, region: Region, timeout: float) -> Reply:
        deadline = Deadline(timeout)
        for _ in range(2):
            if not region.registered:
                self._direct.register(region, deadline.left())
                region.registered = True
            try:
                return self._transport.infer(call, deadline.left())
            except Face3DError as error:
                if not is_unknown_region(error):
                    raise
                region.registered = False
        return self._transport.infer(call, deadline.left())

    def _retrying(self, send: Callable[[float], T], timeout: float | None) -> T:
        deadline = Deadline(self._timeout if timeout is None else timeout)
        for attempt in itertools.count(1):
            try:
                answer = send(deadline.left())
            except Face3DError as error:
                pause = self._budget.pause(error, attempt, deadline)
                if pause is None:
                    raise
            else:
                self._budget.succeeded()
                return answer
            time.sleep(pause)
        raise AssertionError("unreachable")


def whole(results: list[Reconstruction | Face3DError]) -> list[Reconstruction]:
    """The results, if all of them are; else raises the first error."""
    for result in results:
        if isinstance(result, Face3DError):
            raise result
    return cast(list[Reconstruction], results)


def not_ready(endpoint: Endpoint, seconds: float) -> ServerUnavailable:
    """What `wait_ready` raises."""
    return ServerUnavailable(
        f"the server at {endpoint} was not ready within {seconds:g} s. Is it started, and are its models loaded "
        "(face3d models)?",
        status="UNAVAILABLE",
    )
