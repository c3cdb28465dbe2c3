"""Requests built and replies read: the one module that knows the names of models, tensors and parameters.

The blocking and the asyncio client use it alike, over gRPC and HTTP; a transport only carries a `Call` to the server
and a `Reply` back.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from face3d_client._coefficients import Coefficients
from face3d_client._detection import DetectedFace
from face3d_client._embedding import Embedding, Quality
from face3d_client._errors import BadOption, BadResponse, ImageTooLarge
from face3d_client._person import Person
from face3d_client._protocol.calls import Call, Parameter, Place, Reply
from face3d_client._protocol.options import DEFAULT_OUTPUTS, PERSON_OUTPUTS, Options, Output, PersonOptions
from face3d_client._results import Reconstruction
from face3d_client._text import printable
from face3d_client._tracking import TrackedFrame

__all__ = [
    "ENSEMBLES",
    "SCORE_THRESHOLD",
    "as_parameter",
    "build_detect",
    "build_embed",
    "build_frame",
    "build_person",
    "build_reconstruct",
    "parse_detect",
    "parse_embed",
    "parse_frame",
    "parse_person",
    "parse_reconstruct",
]

ENSEMBLES: Final = ("face3d", "reconstruct", "detect")
_EMBED_OUTPUTS: Final = ("embedding", "quality", "face", "warnings", "embedder")
SCORE_THRESHOLD: Final = 0.7
MAX_PHOTOGRAPHS: Final = 8
"""Photographs of one person that the server joins in one request."""
MAX_TOGETHER: Final = 35 << 20
"""Bytes of them together: what the server takes in one message, and room for what is around them."""
_PERSON_OUTPUTS: Final = ("similarity", "weights", "reference")
_FRAME_OUTPUTS: Final = ("blendshapes", "rotation", "coefficients", "face", "quality")
_OUTPUTS: Final[frozenset[str]] = frozenset(get_args(Output))
_TEXTURED: Final = frozenset({"mesh", "texture", "preview"})


def build_detect(image: bytes, min_face: float | None = None) -> Call:
    """Build the call that detects faces in the bytes of a picture file.

    Args:
        image: the bytes.
        min_face: longer side in source pixels of the smallest faces that matter. None: as the whole picture shows them.
    """
    model, parameters = ("detect", {}) if min_face is None else ("group", {"min_face": as_parameter(min_face)})
    return Call(model, {"image": _bytes_tensor(image)}, ("faces",), parameters)


def build_embed(image: bytes, face: int | DetectedFace | None, score_threshold: float | None) -> Call:
    """Build the call that embeds a face of the bytes of a picture file; None: the main one, the server's threshold.

    A detected face is meant by its box, so that the server finds it again.
    """
    parameters: dict[str, Parameter] = {}
    if isinstance(face, DetectedFace):
        parameters["box"] = _box(face.box)
        score_threshold = min(face.score, SCORE_THRESHOLD) if score_threshold is None else score_threshold
    elif face is not None:
        parameters["face"] = int(face)
    if score_threshold is not None:
        parameters["score_threshold"] = as_parameter(float(score_threshold))
    return Call("embed", {"image": _bytes_tensor(image)}, _EMBED_OUTPUTS, parameters)


def build_frame(image: bytes, place: Place, rate: float, smoothing: float, score_threshold: float | None) -> Call:
    """Build the call that reads expression and pose of a frame of a clip.

    Args:
        image: a picture file.
        place: of the frame in its clip.
        rate: frames a second.
        smoothing: 0 to 2.
        score_threshold: None: the server's.
    """
    parameters = {"frame_rate": as_parameter(float(rate)), "smoothing": as_parameter(float(smoothing))}
    if score_threshold is not None:
        parameters["score_threshold"] = as_parameter(float(score_threshold))
    return Call("track", {"image": _bytes_tensor(image)}, _FRAME_OUTPUTS, parameters, place=place)


def build_reconstruct(image: bytes, options: Options) -> Call:
    """Build the call that reconstructs a face from the bytes of a picture file.

    Raises:
        BadOption: an option contradicts another, or cannot be written down. Ranges are the server's business.
        TypeError: an option that does not exist.
    """
    _check_names(options, Options.__annotations__)
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    outputs = _with_texture_warnings(_outputs(given.pop("outputs", DEFAULT_OUTPUTS)))
    inputs: dict[str, NDArray[Any]] = {"image": _bytes_tensor(image)}
    face, box = given.pop("face", None), given.pop("box", None)
    if face is not None and box is not None:
        raise BadOption("face and box both choose a face. Give one of them.")
    parameters: dict[str, Parameter] = {}
    model = "face3d"
    if isinstance(face, DetectedFace):
        model = "reconstruct"
        inputs["choice"] = face.row[np.newaxis]
    elif face is not None:
        parameters["face"] = int(face)
    if box is not None:
        parameters["box"] = _box(box)
    for name, value in given.items():
        parameters[name] = as_parameter(value)
    return Call(model, inputs, outputs, parameters)


def build_person(images: Sequence[bytes], options: PersonOptions) -> Call:
    """Build the call that makes one head of the bytes of several picture files.

    Raises:
        BadOption: no photograph, or more than `MAX_PHOTOGRAPHS`; an option that cannot be written down.
        ImageTooLarge: more than `MAX_TOGETHER`.
        TypeError: an option that does not exist.
    """
    _check_names(options, PersonOptions.__annotations__)
    if not 1 <= len(images) <= MAX_PHOTOGRAPHS:
        raise BadOption(f"{len(images)} photographs were given: give 1 to {MAX_PHOTOGRAPHS} of one person.")
    if (size := sum(map(len, images))) > MAX_TOGETHER:
        raise ImageTooLarge(
            f"the photographs have {size / 2**20:.0f} MiB together: at most {MAX_TOGETHER >> 20} can be sent. Send "
            "fewer or smaller ones; more than 2048 pixels a side are not used."
        )
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    outputs = _outputs(given.pop("outputs", PERSON_OUTPUTS))
    parameters = {name: as_parameter(value) for name, value in given.items()}
    tensor = np.empty((len(images), 1), np.object_)
    tensor[:, 0] = images
    return Call("person", {"images": tensor}, (*outputs, *_PERSON_OUTPUTS), parameters)


def _check_names(options: Mapping[str, Any], existing: Mapping[str, Any]) -> None:
    """See that every option exists.

    Raises:
        TypeError: one does not.
    """
    if unknown := set(options) - set(existing):
        near = [f"{name} (did you mean {close[0]}?)" for name in sorted(unknown) if (close := _near(name, existing))]
        raise TypeError(f"no such option: {', '.join(near or sorted(unknown))}. There are: {', '.join(existing)}")


def _near(name: str, existing: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name[:40], list(existing), n=1)


def _outputs(names: Iterable[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    wrong = [name for name in chosen if name not in _OUTPUTS]
    if wrong or not chosen:
        raise BadOption(f"outputs={list(chosen)!r}: choose one or more of {', '.join(sorted(_OUTPUTS))}.")
    return chosen


def _with_texture_warnings(chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Add the warnings of the texture: to a caller they are one thing, and cost nothing beside a texture."""
    if "warnings" in chosen and _TEXTURED & set(chosen) and "texture_warnings" not in chosen:
        return (*chosen, "texture_warnings")
    return chosen


def _box(box: Sequence[float] | NDArray[np.float32]) -> str:
    corners = [float(value) for value in box]
    if len(corners) != 4 or not all(map(math.isfinite, corners)):
        raise BadOption(f"box={box!r}: four finite numbers are needed: x1, y1, x2, y2 in source pixels.")
    return ",".join(f"{value:.2f}" for value in corners)


def as_parameter(value: Any) -> Parameter:
    """Convert an option to a plain Python value: NumPy's numbers print in another way."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return repr(float(value))
    return str(value)


def _bytes_tensor(data: bytes) -> NDArray[np.object_]:
    return np.array([[data]], dtype=np.object_)


def parse_detect(reply: Reply, score_threshold: float | None = None) -> list[DetectedFace]:
    """Read the faces in the order of score, without empty slots and faces below the threshold (None: 0.7).

    Raises:
        BadOption: a threshold outside of 0..1.
    """
    lowest = SCORE_THRESHOLD if score_threshold is None else score_threshold
    if not 0 <= lowest <= 1:  # what the server says to `reconstruct`; nothing of it reaches the server here
        raise BadOption(f"score_threshold={score_threshold!r}: a number from 0 to 1 is needed.")
    rows = np.asarray(reply["faces"], np.float32)[0]
    # A row that fell below the threshold is 0; so is an empty slot, which must stay out even at threshold 0.
    kept = [row for row in rows if row[4] > 0 and row[4] >= lowest]
    return [DetectedFace(row, index) for index, row in enumerate(kept)]


def parse_embed(reply: Reply) -> Embedding:
    """Read an answer of `embed`.

    Raises:
        BadResponse: the vector has not length 1, as what was not finite or all zeros cannot have.
    """
    vector = np.asarray(reply["embedding"], np.float32)[0]
    if not abs(float(np.linalg.norm(vector)) - 1) < 0.01:
        raise BadResponse("the server sent an embedding whose length is not 1. Is it a Face3D server?")
    vector.setflags(write=False)
    return Embedding(
        vector,
        Quality(*(float(value) for value in reply["quality"][0])),
        DetectedFace(np.asarray(reply["face"], np.float32)[0]),
        int(reply["embedder"][0, 0]),
        tuple(printable(bytes(text).decode("utf-8", "replace")) for text in reply["warnings"][0] if text),
    )


def parse_frame(reply: Reply, index: int, rate: float) -> TrackedFrame:
    """Wrap an answer of `track`.

    Args:
        reply: the answer.
        index: of the frame in its clip.
        rate: frames a second.

    Raises:
        BadResponse: the rotation is none.
    """
    rotation = np.asarray(reply["rotation"], np.float32)[0]
    if not abs(float(np.linalg.norm(rotation)) - 1) < 0.01:
        raise BadResponse("the server sent a rotation that is none. Is it a Face3D server?")
    return TrackedFrame(
        index=index,
        seconds=index / rate,
        blendshapes=np.clip(np.asarray(reply["blendshapes"], np.float32)[0], 0, 1),
        rotation=rotation,
        coefficients=Coefficients(np.asarray(reply["coefficients"], np.float32)[0]),
        face=DetectedFace(np.asarray(reply["face"], np.float32)[0]),
        quality=Quality(*(float(value) for value in reply["quality"][0])),
    )


def parse_person(reply: Reply, sources: Sequence[Path | None]) -> Person:
    """Wrap an answer of `person`.

    Args:
        reply: the answer.
        sources: the photographs' files, which no result is written over.

    Raises:
        BadResponse: the reference is none of the photographs.
    """
    if not 0 <= int(reply["reference"][0]) < len(sources):
        raise BadResponse("the server named a photograph that was not sent. Is it a Face3D server?")
    return Person(dict(reply), tuple(sources))


def parse_reconstruct(reply: Reply, source: Path | None = None) -> Reconstruction:
    """Wrap an answer of `face3d` or `reconstruct`; its fields are decoded when first read.

    Args:
        reply: the answer.
        source: the photograph's file, which no result is written over.
    """
    return Reconstruction({name: array[0] for name, array in reply.items()}, source)
