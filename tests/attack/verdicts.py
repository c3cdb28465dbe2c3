"""What came of a hostile request, in a few words, and whether that is right."""

from __future__ import annotations

import http.client
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import grpc

from tests.server import odd_answers

_TAGGED = re.compile(r"\[[A-Z][A-Za-z]+\] \S")
# gRPC's own refusals: its codes say that the call was wrong, or that there was no room or time for it.
_TYPED = frozenset(
    {
        "OK", "NOT SENT", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "UNAVAILABLE",
    }
)  # fmt: skip


class Tally:
    """Counts answers by kind; remembers those that are wrong."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []

    def add(self, answer: str, what: str) -> None:
        """Count the answer to a request of the kind ``what``."""
        self.answers[answer.partition(":")[0]] += 1
        if not is_typed(answer):
            self.wrong.append(f"{what}: {answer[:300]}")

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.answers.items()))
        return f"{self.answers.total()} requests: {counts}"


def is_typed(answer: str) -> bool:
    """Whether an answer is a result, or a refusal that says by its kind what was wrong."""
    if answer.startswith("BARE 500: Unable to parse '"):  # what Triton's reader of JSON says of a wrong type
        return True
    if answer.startswith("HTTP "):
        return answer[5:8] != "500" and not answer.startswith("HTTP WRONG")
    return answer.partition(":")[0] in _TYPED or odd_answers.is_typed(answer)


def over_http(address: str, path: str, headers: Mapping[str, str], body: bytes, *, ours: bool = True) -> str:
    """POST a body; ``HTTP 200``, or the status with the sentence.

    Args:
        ours: whether a refusal must begin with a tag, as the gateway's and the models' do.
    """
    # A bare `postprocess` draws vertices without structure for seconds, and others wait behind it.
    connection = http.client.HTTPConnection(address, timeout=300)
    try:
        connection.request("POST", path, body, dict(headers))
        answer = connection.getresponse()
        return http_verdict(answer.status, answer.read(), ours=ours)
    except (ValueError, http.client.InvalidURL):
        return "NOT SENT"  # the library takes no such header or path
    finally:
        connection.close()


def http_verdict(status: int, body: bytes, *, ours: bool = True) -> str:
    """The verdict on an HTTP answer to an inference."""
    if status == 200:
        return "HTTP 200"
    try:
        sentence = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP WRONG: {status} without a sentence, {body[:100]!r}"
    if ours and not _TAGGED.search(sentence):
        return f"HTTP WRONG: {status} without a tag, {sentence!r}"
    return f"{'BARE' if not ours and status == 500 else 'HTTP'} {status}: {sentence}"


def over_grpc(channel: Any, data: bytes, timeout: float = 60) -> str:
    """Send bytes as the message of ModelInfer; ``OK``, or the status with the sentence."""
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    try:
        call(data, timeout=timeout)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"
