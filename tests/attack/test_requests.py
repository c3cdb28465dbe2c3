"""Odd requests of every kind at the real service, while well-behaved neighbours work: each is answered in words."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from random import Random
from typing import Any

import grpc
import pytest

from server.service import Service
from tests.attack import http_bytes, json_bodies, neighbours, protobuf, requests
from tests.attack.conftest import MIB, peak_memory
from tests.attack.encode import grpc_message, http_message
from tests.attack.samples import wellformed_requests
from tests.attack.verdicts import Tally, over_grpc, over_http
from tests.server.gateway.conftest import message

# Some of each kind each time the suite runs; 20,000 and more by `make soak`, with any seed.
SOAK_REQUESTS = int(os.environ.get("FACE3D_SOAK_REQUESTS", "20000"))
SEED = int(os.environ.get("FACE3D_SOAK_SEED", "1"))
SENDERS = 8
UNBOUNDED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
FEW_AND_MANY = [
    pytest.param(120, id="few"),
    pytest.param(SOAK_REQUESTS, id="many", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
]
NO_PICTURE = b"\xff\xd8\xff no picture"
INFER = "/v2/models/face3d/infer"

Request = tuple[str, Callable[[], str]]
"""A kind's name, and what sends it and gives the verdict."""


@pytest.fixture(scope="module")
def wellformed(running_service: Service, photo: bytes) -> list[requests.Request]:
    return wellformed_requests(running_service.triton.grpc, photo)


@pytest.fixture
def public(attacked: Service) -> Iterator[Any]:
    """A channel to the gateway."""
    with grpc.insecure_channel(attacked.grpc, options=UNBOUNDED) as channel:
        yield channel


@pytest.fixture
def bare(attacked: Service) -> Iterator[Any]:
    """A channel to Triton itself."""
    with grpc.insecure_channel(attacked.triton.grpc, options=UNBOUNDED) as channel:
        yield channel


def odd(wellformed: list[requests.Request], count: int, seed: int, *, deadly: bool) -> Iterator[requests.Request]:
    """Odd requests by their tensors and parameters; ``deadly``: with those that a bare Triton 2.51 cannot bear too."""
    random = Random(seed)
    for request in requests.odd_requests(wellformed, count, seed):
        if deadly and random.random() < 0.1:
            yield requests.classification_of_an_output(request, random)
        elif deadly or not _spoils_a_batch(request):
            yield request


def _spoils_a_batch(request: requests.Request) -> bool:
    """Whether a bare Triton takes the request into a batch and then refuses the whole of it, neighbours' rows too.

    It reads 32 bits of the batch dimension (see tests/server/odd_answers.py); the gateway reads all.
    """
    return any(tensor.shape and abs(tensor.shape[0]) >= 2**31 for tensor in request.inputs)


def sends(
    service: Service, public: Any, bare: Any, wellformed: list[requests.Request], count: int
) -> Iterator[Request]:
    """``count`` requests: two fifths each as protobuf and as JSON, the quick ones; the rest as tensors and bytes."""
    ensembles = [r for r in wellformed if r.model in ("face3d", "reconstruct", "detect")]
    share = count // 20
    # What is spoilt on its way shall cost nothing where it is understood all the same.
    good = message(NO_PICTURE, model="detect", outputs=("faces",)).SerializeToString()
    streams: list[Iterable[Request]] = [
        (_grpc(public, request) for request in odd(ensembles, share, SEED, deadly=True)),
        (_http(service.http, request, ours=True) for request in odd(wellformed, share, SEED + 1, deadly=True)),
        (_grpc(bare, request) for request in odd(wellformed, share // 2, SEED + 2, deadly=False)),
        (_http(service.triton.http, r, ours=False) for r in odd(ensembles, share // 2, SEED + 3, deadly=False)),
        (_protobuf(public, *made) for made in protobuf.odd_bytes(good, 8 * share, SEED + 4)),
        (_json(service.http, *made) for made in json_bodies.odd_bodies(NO_PICTURE, 8 * share, SEED + 5)),
        (_bytes(service.http, *made) for made in http_bytes.odd_connections(NO_PICTURE, share, SEED + 6)),
    ]
    # In turn, so that every protocol is under attack the whole time.
    iterators = [iter(stream) for stream in streams]
    while iterators:
        for iterator in list(iterators):
            block = list(islice(iterator, 8))
            if not block:
                iterators.remove(iterator)
            yield from block


def _grpc(channel: Any, request: requests.Request) -> Request:
    def send() -> str:
        try:
            data = grpc_message(request).SerializeToString()
        except ValueError:
            return "NOT SENT"  # protobuf takes no such text
        return over_grpc(
            channel, data, timeout=300
        )  # a bare `postprocess` draws vertices without structure for seconds

    return "grpc " + " ".join(request.kinds), send


def _http(address: str, request: requests.Request, *, ours: bool) -> Request:
    def send() -> str:
        try:
            path, headers, body = http_message(request)
        except ValueError:
            return "NOT SENT"
        return over_http(address, path, headers, body, ours=ours)

    return "http " + " ".join(request.kinds), send


def _protobuf(channel: Any, kind: str, data: bytes) -> Request:
    return f"protobuf {kind}", lambda: over_grpc(channel, data)


def _json(address: str, kind: str, made: json_bodies.Body) -> Request:
    return f"json {kind}", lambda: over_http(address, INFER, made[1], made[0])


def _bytes(address: str, kind: str, data: bytes) -> Request:
    def send() -> str:
        found = http_bytes.statuses(http_bytes.converse(address, data))
        if not found:
            return "HTTP closed"
        worst = max(found)
        return f"HTTP {worst}" if worst != 500 else f"HTTP WRONG: {found}"

    return f"bytes {kind}", send


@pytest.mark.parametrize("count", FEW_AND_MANY)
def test_every_odd_request_is_answered_in_words_and_no_neighbour_loses_one(
    attacked: Service, public: Any, bare: Any, wellformed: list[requests.Request], photo: bytes, count: int
) -> None:
    tally, lock, stream = Tally(), threading.Lock(), sends(attacked, public, bare, wellformed, count)

    def send() -> None:
        while True:
            with lock:  # requests are made as they are sent: all at once would be gigabytes
                kind, call = next(stream, ("", None))
            if call is None:
                return
            answer = call()
            with lock:
                tally.add(answer, kind)
                if tally.answers.total() % 1000 == 0:
                    print(f"\n{tally}", flush=True)

    with (
        neighbours.at_work(attacked.http, attacked.grpc, photo, pause=0.5) as found,
        ThreadPoolExecutor(SENDERS) as pool,
    ):
        for sender in [pool.submit(send) for _ in range(SENDERS)]:
            sender.result()
    print(f"\n{tally}\n{found}")
    assert not tally.wrong, tally.wrong[:10]
    assert not found.lost, found.lost[:10]
    assert len(found.seconds) >= 4
    assert tally.answers["INVALID_ARGUMENT"] > count / 10
    assert tally.answers["HTTP 400"] > count / 10


@pytest.mark.parametrize("kind", protobuf.FLOODS)
def test_a_message_of_many_parts_takes_no_memory(attacked: Service, public: Any, kind: str) -> None:
    assert attacked.gateway is not None
    data = protobuf.FLOODS[kind](8 * MIB if kind.startswith("parameters") else 30 * MIB)
    answer = over_grpc(public, data)  # the message itself takes its size, once or twice
    before = peak_memory(attacked.gateway.pid)
    for _ in range(2):
        answer = over_grpc(public, data)
    assert answer.startswith("INVALID_ARGUMENT: [BadRequest] ")
    assert peak_memory(attacked.gateway.pid) - before < 100 * MIB


def test_kinds_are_many() -> None:
    assert len(requests.KINDS) + len(protobuf.KINDS) + len(json_bodies.KINDS) + len(http_bytes.KINDS) >= 70


@pytest.mark.parametrize("name", ["mesh", "texture", "warnings", "coefficients"])
@pytest.mark.parametrize("key", ["classification", "CLASSIFICATION"])
def test_no_form_of_a_classification_ends_triton(
    attacked: Service, public: Any, photo: bytes, name: str, key: str
) -> None:
    for value in (1, 0, -1, 2**31, "1", True, 1.5):
        one = {"name": name, "parameters": {key: value}}
        forms: list[dict[str, Any]] = [
            {"outputs": [one]},
            {"outputs": [{"name": "vertices"}, one]},
            {"outputs": [{"name": name}], "parameters": {key: value}},
            {"outputs": [{"name": name, "parameters": {"binary_data": True, key: value}}]},
        ]
        for form in forms:
            body, headers = json_bodies.body(_json_text(photo, form), photo)
            assert over_http(attacked.http, INFER, headers, body).startswith("HTTP 400: [BadOption] ")
        grpc_form = message(photo, outputs=(name,))
        parameter = grpc_form.outputs[0].parameters[key]
        setattr(
            parameter,
            {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)],
            value,
        )
        assert over_grpc(public, grpc_form.SerializeToString()).startswith("INVALID_ARGUMENT: [BadOption] ")


def _json_text(photo: bytes, changes: dict[str, Any]) -> bytes:
    import json

    return json.dumps(json_bodies.tree(photo, **changes)).encode()
