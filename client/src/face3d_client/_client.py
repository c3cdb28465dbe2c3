"""The blocking client."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, cast, overload

from PIL import Image

from face3d_client._base_client import AllFacesOptions, BaseClient, raise_first_error
from face3d_client._clip_signing import ClipSigner
from face3d_client._detection import DetectedFace
from face3d_client._embedding import Embedding
from face3d_client._errors import BadFace, Face3DError, NoFace
from face3d_client._flows import Done, Flow, Pause, Step, advance, request
from face3d_client._frames import FrameCalls, KeyFrames, head_options
from face3d_client._fuse_clip import MAX_FRAMES, ClipResult, check_statement, fuse_frames
from face3d_client._fusion import Fusion
from face3d_client._images import ImageSource, image_bytes, source_path
from face3d_client._ordered import ordered_map
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
from face3d_client._transports.factory import open_transport
from face3d_client._video import MAX_SECONDS, open_video

__all__ = ["Face3DClient"]

S = TypeVar("S", bound=ImageSource)
T = TypeVar("T")


class Face3DClient(BaseClient):
    """A connection to a Face3D server.

    ::

        with Face3DClient("localhost:8001") as client:
            face = client.reconstruct("portrait.jpg")
            face.save("face.glb")

    One client may be used by many threads at the same time, and should be: over gRPC they share one channel, over HTTP
    a pool of connections, and both are made when first needed and kept. `close` (or leaving the ``with``) may happen in
    any thread; calls in flight then end with `ServerUnavailable`. A client may be pickled, and be used in a process
    that was forked: it connects anew there.

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

    def _open(self) -> None:
        self._transport = open_transport(self.endpoint)

    # --- faces ------------------------------------------------------------------------------------------------------

    def detect(
        self,
        image: ImageSource,
        *,
        score_threshold: float | None = None,
        min_face: float | None = None,
        timeout: float | None = None,
    ) -> list[DetectedFace]:
        """Find the faces of a picture.

        Args:
            image: a path, the bytes of a picture file, or a uint8 array (H, W, 3) RGB.
            score_threshold: lowest score, 0..1. None: 0.7. The detector itself knows nothing below about 0.3.
            min_face: longer side in source pixels of the smallest faces that matter, 12..4096: the detector looks at
                as many tiles of the picture as that takes, at most 31. `reconstruct` takes such a face itself, not its
                number. None: faces from 1/36 of the picture's longer side on.
            timeout: seconds for this call.

        Returns:
            At most 64 faces, with `min_face` 512, best first; none is an empty list.

        Raises:
            BadOption: so small a `min_face` takes too many tiles of this picture; the sentence says which one may be.
            BadImage, ImageTooLarge, ServiceError, OSError.
        """
        return parse_detect(self._infer(build_detect(self._bytes(image), min_face), timeout), score_threshold)

    def embed(
        self,
        image: ImageSource,
        *,
        face: int | DetectedFace | None = None,
        score_threshold: float | None = None,
        timeout: float | None = None,
    ) -> Embedding:
        """Say who a face is, as a vector: two faces of one person have a large cosine (`Embedding.similarity`).

        Args:
            image: as for `reconstruct`.
            face: which face: a number in the order of score (0 = best), or one of `detect`. None: the main one.
            score_threshold: lowest score of a face, 0..1 (0.7).
            timeout: seconds for all of it (the client's).

        Raises:
            Face3DError: see the tree in `face3d_client`; OSError where a file cannot be read.
        """
        return parse_embed(self._infer(build_embed(self._bytes(image), face, score_threshold), timeout))

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
        call = build_reconstruct(self._bytes(image), options)
        return parse_reconstruct(self._infer(call, timeout), source_path(image))

    def reconstruct_person(
        self, images: Sequence[ImageSource], *, timeout: float | None = None, **options: Unpack[PersonOptions]
    ) -> Person:
        """Make one head of one to eight photographs of one person.

        Their identities are joined by how sure each is, one texture is made of all, and expression and pose stay each
        photograph's own.

        Args:
            images: as for `reconstruct`; each one's main face is meant.
            timeout: seconds for this call.
            **options: see `PersonOptions`.

        Raises:
            DifferentPeople: a photograph shows somebody else than the others.
            RequestError: a photograph or option will not do; the sentence names the photograph.
            ServiceError: the service will not do.
            OSError: a file cannot be read.
        """
        sources = sources_of(images)
        with naming_photographs(sources):
            call = build_person([image_bytes(image) for image in images], options)
            return parse_person(self._run(self._person_flow(call, timeout)), sources)

    def track(
        self,
        images: Iterable[ImageSource],
        *,
        frame_rate: float = 30.0,
        smoothing: float = 1.0,
        score_threshold: float | None = None,
        timeout: float | None = None,
    ) -> Iterator[TrackedFrame | None]:
        """Read expression and pose of each frame of one person's clip, or of a camera, steadied from frame to frame.

        Args:
            images: the frames in the order of time, as for `reconstruct`; may be endless.
            frame_rate: frames a second.
            smoothing: 0 (none) to 2.
            score_threshold: lowest score of a face, 0..1 (0.7).
            timeout: seconds for each frame.

        Yields:
            A frame's result as it comes; None for one in which no face was found.

        Raises:
            RequestError, ServiceError: see `reconstruct`, but for frames without a face.
        """
        calls = FrameCalls(frame_rate, smoothing, score_threshold)
        for index, call in calls.of(map(self._bytes, images)):
            try:
                reply = self._infer(call, timeout)
            except (NoFace, BadFace):
                yield None
            else:
                calls.begun = True
                yield parse_frame(reply, index, frame_rate)

    def reconstruct_clip(
        self,
        path: str | os.PathLike[str],
        *,
        every: int = 1,
        seconds: float = MAX_SECONDS,
        smoothing: float = 1.0,
        timeout: float | None = None,
        **options: Unpack[PersonOptions],
    ) -> Clip:
        """Make one moving head of a video of one person: `track` for its frames, `reconstruct_person` for the best.

        Args:
            path: of the video; needs OpenCV (``pip install face3d-client[video]``).
            every: take every n-th frame.
            seconds: the longest clip that is read (120).
            smoothing: 0 (none) to 2.
            timeout: seconds for each request.
            **options: see `PersonOptions`; the mesh is a head with ARKit's shapes.

        Raises:
            NoFace: in no frame.
            BadImage, ImageTooLarge: not a video, or more of it than is read.
            DifferentPeople: the frames show several people.
            RequestError, ServiceError, OSError: see `reconstruct`.
        """
        keys = KeyFrames()
        with open_video(path, every, seconds) as video:
            for frame in self.track(
                keys.through(video.frames()), frame_rate=video.rate, smoothing=smoothing,
                score_threshold=options.get("score_threshold"), timeout=timeout,
            ):  # fmt: skip
                keys.offer(frame)
        return keys.clip(self.reconstruct_person(keys.pictures(path), timeout=timeout, **head_options(options)))

    @overload
    def reconstruct_all(
        self, image: ImageSource, *, return_exceptions: Literal[False] = False, **options: Unpack[AllFacesOptions]
    ) -> list[Reconstruction]: ...

    @overload
    def reconstruct_all(
        self, image: ImageSource, *, return_exceptions: Literal[True], **options: Unpack[AllFacesOptions]
    ) -> list[Reconstruction | Face3DError]: ...

    def reconstruct_all(
        self, image: ImageSource, *, return_exceptions: bool = False, **options: Unpack[AllFacesOptions]
    ) -> list[Reconstruction] | list[Reconstruction | Face3DError]:
        """Make every face of a picture: `detect` once, then `reconstruct` for all of them at the same time.

        Args:
            image: as for `reconstruct`.
            return_exceptions: put the error in a face's place instead of raising the first one.
            **options: see `AllFacesOptions`: those of `Options` (but `face` and `box`), and `min_size` (source pixels:
                leave out faces whose box's longer side has fewer), `min_face` (look for faces as small as that, see
                `detect`), `concurrency` (faces in flight at the same time, 8), `timeout` (seconds for all of it).

        Returns:
            In the order of score; empty where there is no face.
        """
        data, selection = self._bytes(image), self._all_faces(options)
        threshold = selection.options.get("score_threshold")
        found = self.detect(
            data, score_threshold=threshold, min_face=selection.min_face, timeout=selection.deadline.left()
        )

        def reconstruct(face: DetectedFace) -> Reconstruction | Face3DError:
            try:
                return self.reconstruct(data, timeout=selection.deadline.left(), **selection.options_of(face))
            except Face3DError as error:
                return error

        results = list(ordered_map(reconstruct, selection.select(found), selection.concurrency))
        return results if return_exceptions else raise_first_error(results)

    def map(
        self,
        images: Iterable[S],
        *,
        concurrency: int = 8,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> Iterator[Outcome[S, Reconstruction]]:
        """Call `reconstruct` for many pictures, a bounded number at a time; outcomes come in the order of the pictures.

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

    def fuse(
        self,
        source: ImageSource,
        target: ImageSource,
        *,
        consent: str,
        timeout: float | None = None,
        **options: Unpack[FuseOptions],
    ) -> Fusion:
        """Put the face of one picture on another; a server does so only where its operator has turned it on.

        Args:
            source: whose face it is: a path, the bytes of a picture file, or a uint8 array (H, W, 3) RGB.
            target: the picture that gets it.
            consent: who agreed to this picture, and to what, in a sentence or two (500 characters). It goes into the
                result, for everybody to read, and into the server's log.
            timeout: seconds for this call.
            **options: see `FuseOptions`.

        Raises:
            ConsentRequired: the statement is empty.
            NotServed: fusion is off on this server.
            RequestError, ServiceError, OSError: as `reconstruct`.
        """
        call = build_fuse(self._bytes(source), self._bytes(target), consent, options)
        return parse_fuse(self._infer(call, timeout), (source_path(source), source_path(target)))

    def fuse_many(
        self,
        source: ImageSource,
        targets: Iterable[S],
        *,
        consent: str,
        concurrency: int = 4,
        timeout: float | None = None,
        **options: Unpack[FuseOptions],
    ) -> Iterator[Outcome[S, Fusion]]:
        """Call `fuse` for one source and many targets, as `map` calls `reconstruct`; the source is read once."""
        data, path = self._bytes(source), source_path(source)

        def one(numbered: tuple[int, S]) -> Outcome[S, Fusion]:
            index, target = numbered
            try:
                call = build_fuse(data, self._bytes(target), consent, options)
                result = parse_fuse(self._infer(call, timeout), (path, source_path(target)))
                return Outcome(index, target, result=result)
            except (Face3DError, OSError) as error:
                return Outcome(index, target, error=error)

        return ordered_map(one, enumerate(targets), concurrency)

    def fuse_clip(
        self,
        source: ImageSource,
        clip: str | os.PathLike[str],
        out: str | os.PathLike[str],
        *,
        consent: str,
        concurrency: int = 2,
        max_frames: int = MAX_FRAMES,
        timeout: float | None = None,
        on_frame: Callable[[int], Any] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        **options: Unpack[FuseOptions],
    ) -> ClipResult:
        """Put the face of a picture on one person in a clip; every frame gets the same head.

        The person is followed from frame to frame; frames that do not show them stay as they are, sound is left out.
        Frames are signed by the server one by one; the clip that is made of them here is marked visibly, says in its
        XMP how it was made, and has a manifest where a certificate is named to sign it with.

        Args:
            source: whose face it is.
            clip: a film (MP4, MOV, AVI, MKV, WebM; needs ``face3d-client[clips]``) or an animated GIF, PNG or WebP.
            out: the result, ``.mp4``, ``.mov`` or ``.webp``.
            consent: see `fuse`.
            concurrency: frames in flight at the same time.
            max_frames: frames that are taken at most.
            timeout: seconds for each frame.
            on_frame: called with the number of frames that are done.
            certificate, key: PEM files to sign the clip with, yours and not the server's; needs
                ``face3d-client[provenance]``.
            **options: see `FuseOptions`; `mark` is True here where it is left out, and `target_face` is the number in
                the first frame that shows a face.

        Raises:
            BadImage, ValueError: clip or result is none that can be read or written, or the certificate cannot sign;
                otherwise as `fuse`.
        """
        check_statement(consent)
        if (certificate is None) != (key is None):
            raise ValueError("certificate and key belong together: name both, or neither.")
        signer = None if certificate is None or key is None else ClipSigner(certificate, key)
        if Path(out).exists() and Path(clip).exists() and Path(out).samefile(clip):
            raise ValueError(f"{out} is the clip itself. Choose another name.")
        data = self._bytes(source)
        rest = cast(FuseOptions, {"mark": True, **options, "picture_format": "jpeg"})
        first = rest.pop("target_face", None)

        def fuse(frame: bytes, face: int) -> Image.Image:
            asked = cast(FuseOptions, {**rest, "target_face": face})
            return self.fuse(data, frame, consent=consent, timeout=timeout, **asked).picture

        made = fuse_frames(
            lambda frame: self.detect(frame, timeout=timeout), fuse, Path(clip), Path(out),
            target_face=first, concurrency=concurrency, max_frames=max_frames, on_frame=on_frame,
        )  # fmt: skip
        if signer is not None:
            signer.sign(made.path, consent)
        return made

    # --- the server -------------------------------------------------------------------------------------------------

    def ready(self, model: str | None = None, *, timeout: float = 5.0) -> bool:
        """Tell whether the server answers and all three ensembles are ready; False, and no error, where none answers.

        Args:
            model: ask for this one instead.
            timeout: seconds for all of it.

        Raises:
            AccessDenied, or ServerUnavailable because this client is closed.
        """
        return self._run(self._ready_flow(model, timeout))

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until `ready`.

        Raises:
            ServerUnavailable: it did not become so in time.
        """
        self._run(self._wait_ready_flow(timeout))

    def models(self, *, timeout: float | None = None) -> list[ModelStatus]:
        """List every model version in the server's repository and whether it is ready.

        Raises:
            AccessDenied: the server keeps its repository closed, and `admin_key` is not the key.
        """
        return self._run(self._retry_flow(lambda left: request(lambda to: to.models(left)), timeout))

    def info(self, *, timeout: float | None = None) -> ServerInfo:
        """Ask for the server's name, version and extensions."""
        return self._run(self._retry_flow(lambda left: request(lambda to: to.info(left)), timeout))

    # --- life -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections; may be called twice."""
        self._run(self._close_flow())
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _bytes(self, image: ImageSource) -> bytes:
        return image_bytes(image, compress=self._regions is None)

    def _infer(self, call: Call, timeout: float | None) -> Reply:
        return self._run(self._infer_flow(call, timeout))

    def _run(self, flow: Flow[T]) -> T:
        """Perform the steps of a flow; return what it returns."""
        self._leave_parent()
        with contextlib.closing(flow):
            step = advance(flow)
            while not isinstance(step, Done):
                try:
                    answer = self._perform(step)
                except Face3DError as error:
                    step = advance(flow, error=error)
                else:
                    step = advance(flow, answer)
            return step.value

    def _perform(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        return step(self._transport)
