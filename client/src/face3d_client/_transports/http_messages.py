"""HTTP requests of the inference protocol, and how their answers are read; the same for both transports.

An answer may be anything: no more of it is read than a true one can have, redirects are not followed (they would carry
the photograph elsewhere), and nothing is decompressed.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias, TypeVar
from urllib.parse import quote

import tritonclient.http as triton

from face3d_client._errors import BadResponse, ServerUnavailable
from face3d_client._protocol.calls import Call, Reply
from face3d_client._protocol.server import ModelStatus, ServerInfo
from face3d_client._protocol.status import error_from_http
from face3d_client._protocol.tensors import MAX_ANSWER, Tensor, read_tensors
from face3d_client._transports.endpoint import TLS
from face3d_client._transports.inputs import microseconds, pack_inputs
from face3d_client._transports.shared_memory import Region

__all__ = [
    "PLAIN",
    "Answer",
    "Request",
    "check_size",
    "infer",
    "info",
    "model_ready",
    "models",
    "register",
    "ssl_context",
    "unregister",
]

T = TypeVar("T")

PLAIN: Final = {"accept-encoding": "identity"}
"""Header of every request: what is compressed could unfold to any size."""

_HEADER_LENGTH: Final = "inference-header-content-length"
_REGIONS: Final = "/v2/systemsharedmemory/region"
# Bytes of an answer without tensors: the list of a repository with a hundred models has 10 KiB.
_MAX_TEXT: Final = 1 << 20
# Bytes of the JSON head of an inference's answer: 150 for each of at most 13 outputs, and what Triton may add.
_MAX_HEAD: Final = 64 << 10

Answer: TypeAlias = "tuple[int, Mapping[str, str], bytes]"
"""Status, headers (names in any case) and body."""


@dataclass(frozen=True)
class Request(Generic[T]):
    """One exchange of the protocol.

    Attributes:
        method: GET or POST.
        path: from the protocol's root on.
        read: makes the result of an answer; raises `Face3DError`.
        body: None where there is none.
        headers: besides those of every request.
        max_answer: bytes of the answer's body at most.
    """

    method: str
    path: str
    read: Callable[[Answer], T]
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    max_answer: int = _MAX_TEXT


def infer(call: Call, timeout: float) -> Request[Reply]:
    """Request an inference (KServe v2 with the binary tensor extension)."""
    body, json_size = triton.InferenceServerClient.generate_request_body(
        pack_inputs(call, triton.InferInput),
        outputs=[triton.InferRequestedOutput(name, binary_data=True) for name in call.outputs],
        timeout=microseconds(timeout),
        parameters=dict(call.parameters) or None,
        **call.sequence(),
    )
    headers = {"content-type": "application/octet-stream"}
    if json_size is not None:
        headers[_HEADER_LENGTH] = str(json_size)
    path = f"/v2/models/{quote(call.model)}/infer"
    return Request("POST", path, lambda answer: _read_reply(call, answer), body, headers, MAX_ANSWER)


def model_ready(model: str) -> Request[bool]:
    """Ask whether a model is ready."""
    return Request("GET", f"/v2/models/{quote(model)}/ready", _read_ready)


def models() -> Request[list[ModelStatus]]:
    """Ask for every model of the repository."""
    return Request("POST", "/v2/repository/index", _read_statuses, b"{}")


def info() -> Request[ServerInfo]:
    """Ask for the server's name, version and extensions."""
    return Request("GET", "/v2", _read_info)


def register(region: Region) -> Request[None]:
    """Make a region of shared memory known to the server."""
    body = json.dumps({"key": region.key, "offset": 0, "byte_size": region.size}).encode()
    return Request("POST", f"{_REGIONS}/{region.name}/register", _raise_for_status, body)


def unregister(name: str) -> Request[None]:
    """Let the server forget a region of shared memory."""
    return Request("POST", f"{_REGIONS}/{name}/unregister", _raise_for_status, b"")


def ssl_context(files: TLS) -> ssl.SSLContext:
    """Read the certificates for an encrypted connection."""
    context = ssl.create_default_context(cafile=files.ca)
    if files.cert is not None:
        context.load_cert_chain(files.cert, files.key)
    return context


def check_size(encoding: str | None, size: int | None, most: int) -> None:
    """Refuse an answer that is compressed, or has more bytes than any true one.

    Raises:
        BadResponse: it is so.
    """
    if encoding not in (None, "", "identity"):
        raise BadResponse(f"the answer is compressed ({encoding[:20]!r}), which was not asked for.")
    if size is not None and size > most:
        raise BadResponse(f"the answer has more than {most >> 20} MiB, and no true one has. Check the address.")


def _read_reply(call: Call, answer: Answer) -> Reply:
    """Read the tensors of an answer: a JSON head, then the bytes of each output in the head's order.

    Raises:
        BadResponse: it is anything else.
    """
    _raise_for_status(answer)
    _, headers, body = answer
    length = next((value for name, value in headers.items() if name.lower() == _HEADER_LENGTH), None)
    size = len(body) if length is None else _decimal(length)
    if size is None or size > min(len(body), _MAX_HEAD):
        raise BadResponse(
            f"the answer's head is said to have {str(length)[:20]} bytes of {len(body)}. Check the address."
        )
    outputs = _member(_parse_json(body[:size]), "outputs", list)
    place, tensors = size, []
    for output in outputs:
        count = _member(_member(output, "parameters", dict), "binary_data_size", int)
        if not 0 <= count <= len(body) - place:
            raise BadResponse(f"an output is said to have {count} bytes, and {len(body) - place} are left.")
        shape = _member(output, "shape", list)
        raw = body[place : place + count]
        tensors.append(Tensor(_member(output, "name", str), _member(output, "datatype", str), shape, raw))
        place += count
    if place != len(body):
        raise BadResponse(f"the answer has {len(body) - place} bytes too many.")
    return read_tensors(call.outputs, tensors, call.rows)


def _decimal(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _parse_json(body: bytes) -> Any:
    """Parse a JSON body.

    Raises:
        BadResponse: it is no JSON, or nested deeper than any answer.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        raise BadResponse(f"the server's answer is no JSON ({type(error).__name__}). Check the address.") from error


def _member(tree: Any, name: str, kind: type) -> Any:
    """Take a member of a JSON object, of this very type.

    Raises:
        BadResponse: it is not there, or of another type.
    """
    value = tree.get(name) if isinstance(tree, dict) else None
    if type(value) is not kind:
        raise BadResponse(f"the server's answer has no {name!r} of the right type. Check the address.")
    return value


def _raise_for_status(answer: Answer) -> None:
    """Raise the exception for any status but 200."""
    code, _, body = answer
    if code == 200:
        return
    if 100 <= code < 400:  # a redirect (which would take the photograph elsewhere), or an answer without content
        raise BadResponse(f"what answers there sends HTTP {code}, which is no answer. Check the address.")
    try:
        message = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        # A proxy's page: its words.
        message = " ".join(re.sub(r"<[^>]*>", " ", body[:500].decode(errors="replace")).split())
        known = code != 404
    else:
        known = code != 405  # Triton's port for metrics, which takes no requests
    if not known:
        sentence = f"what answers there takes no inference requests (HTTP {code}: {message}). Check the address."
        raise ServerUnavailable(sentence, status=f"HTTP {code}")
    raise error_from_http(code, message)


def _read_ready(answer: Answer) -> bool:
    code = answer[0]
    if code in (401, 403):
        _raise_for_status(answer)
    return code == 200


def _read_statuses(answer: Answer) -> list[ModelStatus]:
    _raise_for_status(answer)
    tree = _parse_json(answer[2])
    if not isinstance(tree, list):
        raise BadResponse("the server's list of models is no list. Check the address.")
    return [
        ModelStatus(
            _member(model, "name", str),
            *(_member(model, name, str) if name in model else "" for name in ("version", "state", "reason")),
        )
        for model in tree
    ]


def _read_info(answer: Answer) -> ServerInfo:
    _raise_for_status(answer)
    tree = _parse_json(answer[2])
    extensions = _member(tree, "extensions", list)
    if not all(isinstance(extension, str) for extension in extensions):
        raise BadResponse("the server's answer has no 'extensions' of the right type. Check the address.")
    return ServerInfo(_member(tree, "name", str), _member(tree, "version", str), tuple(extensions))
