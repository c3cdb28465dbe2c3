"""Odd requests of every kind at the real models: each gets a result or a refusal with a name, nobody is hurt."""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.embedded import EmbeddedServer
from tests.attack.encode import grpc_message, http_message
from tests.attack.requests import KINDS, Request, array_of, array_tensor, odd_request, odd_requests
from tests.attack.samples import wellformed_requests
from tests.server.calls import every_process_stays, raw
from tests.server.odd_answers import is_typed, verdict
from tests.service import Refusal, Service


@pytest.fixture(scope="module")
def wellformed(server: EmbeddedServer, portrait_jpeg: bytes) -> list[Request]:
    return wellformed_requests(server.grpc, portrait_jpeg)


@pytest.fixture(autouse=True)
def _every_process_stays(server: EmbeddedServer) -> Iterator[None]:
    with every_process_stays(server):
        yield


def of(wellformed: list[Request], model: str, *inputs: str) -> Request:
    """The well-formed request to a model that holds these inputs."""
    return next(r for r in wellformed if r.model == model and {*inputs} <= {t.name for t in r.inputs})


def with_values(request: Request, name: str, change: Any) -> Request:
    """The request with the array of one input changed in place."""
    inputs = []
    for tensor in request.inputs:
        if tensor.name == name:
            array = array_of(tensor)
            change(array)
            tensor = array_tensor(name, array)
        inputs.append(tensor)
    return replace(request, inputs=tuple(inputs))


def test_the_same_seed_makes_the_same_requests_and_another_seed_others(wellformed: list[Request]) -> None:
    first, again, other = (list(odd_requests(wellformed, 2 * len(KINDS), seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(KINDS) >= 25
    assert {kind for request in first for kind in request.kinds} == set(KINDS)


def test_every_kind_spoils_a_request_that_it_fits(wellformed: list[Request]) -> None:
    for name in KINDS:
        made = [odd_request(request, Random(seed), [name]) for request in wellformed for seed in range(5)]
        assert any(replace(r, kinds=()) not in wellformed for r in made), name


def test_what_is_not_spoilt_is_answered_over_both_protocols(server: EmbeddedServer, wellformed: list[Request]) -> None:
    host, port = server.http.split(":")
    with raw(server) as service:
        for request in wellformed:
            assert verdict(service, grpc_message(request)) == "OK", request
            connection = http.client.HTTPConnection(host, int(port), timeout=60)
            path, headers, body = http_message(request)
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            assert answer.status == 200, (request, answer.read()[:300])
            connection.close()


@pytest.mark.parametrize(
    ("count", "seed"),
    [(4 * len(KINDS), 1), pytest.param(5000, 2, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])],
)
def test_every_kind_of_odd_request_gets_a_result_or_a_refusal_with_a_name(
    server: EmbeddedServer, wellformed: list[Request], count: int, seed: int
) -> None:
    counts: Counter[str] = Counter()
    with raw(server) as service:
        for request in odd_requests(wellformed, count, seed):
            answer = verdict(service, grpc_message(request))
            assert is_typed(answer), (answer, request)
            counts[answer.partition(":")[0]] += 1
    assert min(counts["OK"], counts["INVALID_ARGUMENT"]) > count / 10


ROWS: dict[str, Any] = {
    **{f"all {value}": value for value in (np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38, 1e-45, 1.0, 300.0, -5.0)},
    "points equal": lambda row: row.__setitem__(slice(5, None), 200),
    "points far apart": lambda row: row.__setitem__(slice(5, None), (row[5:] - 200) * np.float32(1e30)),
    "points within an atom": lambda row: row.__setitem__(slice(5, None), row[5:] * np.float32(1e-40)),
    "elsewhere": lambda row: row.__iadd__(np.float32(1e6)),
    "mirrored": lambda row: row.__setitem__(slice(5, None), -row[5:]),
    "in a huge box": lambda row: row.__setitem__(slice(0, 4), (-1e30, -1e30, 1e30, 1e30)),
    "in an empty box": lambda row: row.__setitem__(slice(0, 4), 0),
    "in a box elsewhere": lambda row: row.__setitem__(slice(0, 4), (5000, 5000, 6000, 6000)),
    "in an inverted box": lambda row: row.__setitem__(slice(0, 4), row[[2, 3, 0, 1]]),
    "score above 1": lambda row: row.__setitem__(4, 1e30),
    "score below 0": lambda row: row.__setitem__(4, -1),
}


@pytest.mark.parametrize("name", ROWS)
def test_an_extreme_choice_is_a_bad_face(server: EmbeddedServer, portrait_jpeg: bytes, name: str) -> None:
    service = Service(server.grpc)
    row = service.detect(portrait_jpeg)[0].copy()
    change = ROWS[name]
    with np.errstate(all="ignore"):
        if callable(change):
            change(row)
        else:
            row.fill(change)
    with pytest.raises(Refusal) as caught:
        service.ask(portrait_jpeg, model="reconstruct", choice=row, outputs=("face", "mesh"))
    assert (caught.value.code, caught.value.tag) == ("INVALID_ARGUMENT", "BadFace")
    assert caught.value.sentence.endswith(".")


def fill(value: float) -> Any:
    return lambda array: array.fill(value)


def enlarge(geometry: NDArray[np.float32]) -> None:
    geometry[:, :2] = 1e7


@pytest.mark.parametrize(
    ("model", "inputs", "name", "change", "says"),
    [
        ("detector", (), "geometry", fill(np.nan), "[BadTensor] input 'geometry' holds nan at place 0"),
        ("detector", (), "geometry", fill(1e30), "[BadTensor] input 'geometry' holds 1e+30"),
        ("detector", (), "geometry", fill(0), "[BadTensor] input 'geometry' holds 0 at place 0"),
        ("regressor", (), "context", fill(np.inf), "[BadTensor] input 'context' holds inf at place 0"),
        ("regressor", (), "context", fill(0), "[BadTensor] input 'context' holds 0 at place 15"),
        ("texture", (), "shapes", fill(np.nan), "[BadTensor] input 'shapes' holds nan, where"),
        ("texture", (), "shapes", fill(1e30), "[BadTensor] input 'shapes' holds 1e+30, where"),
        ("texture", (), "context", fill(-1), "[BadTensor] input 'context' holds -1 at place 4"),
        ("align", ("choice",), "geometry", fill(np.nan), "[BadTensor] `geometry` is that of no picture"),
        ("align", ("choice",), "geometry", fill(0), "[BadTensor] `geometry` is that of no picture"),
        ("align", ("choice",), "geometry", enlarge, "[BadTensor] by `geometry` the picture has"),
        ("align", ("faces",), "faces", fill(np.nan), "[NoFace] no face was found"),
        ("align", ("faces",), "faces", fill(1e30), "[BadFace] the face is too small"),
        ("postprocess", ("shapes",), "shapes", fill(np.nan), "[BadFace] the networks found no shape"),
        ("postprocess", ("shapes",), "shapes", fill(1e30), "[BadFace] the networks found no shape"),
        ("postprocess", ("shapes",), "context", fill(np.nan), "[BadTensor] `context` is that of no face"),
        ("postprocess", ("shapes",), "context", fill(0), "[BadTensor] `context` is that of no face"),
        ("postprocess", ("shapes",), "fingerprint", fill(7), "[FaceModelMismatch]"),
    ],
)
def test_values_that_no_step_gives_are_refused_by_the_name_of_the_tensor(
    server: EmbeddedServer,
    wellformed: list[Request],
    model: str,
    inputs: tuple[str, ...],
    name: str,
    change: Any,
    says: str,
) -> None:
    with raw(server) as service:
        answer = verdict(service, grpc_message(with_values(of(wellformed, model, *inputs), name, change)))
    assert answer.startswith(f"INVALID_ARGUMENT: {says}"), answer


@pytest.mark.parametrize("kept", [(), ("picture",), ("geometry",), ("picture", "geometry"), ("choice",)])
def test_a_request_to_align_that_lacks_tensors_is_told_which(
    server: EmbeddedServer, wellformed: list[Request], kept: tuple[str, ...]
) -> None:
    request = of(wellformed, "align", "choice")
    with raw(server) as service:
        spoilt = replace(request, inputs=tuple(tensor for tensor in request.inputs if tensor.name in kept))
        assert verdict(service, grpc_message(spoilt)).startswith("INVALID_ARGUMENT: ")


@pytest.mark.parametrize("vertices", [0, 1, 100])
def test_a_shape_with_too_few_vertices_is_refused(
    server: EmbeddedServer, wellformed: list[Request], vertices: int
) -> None:
    shapes = array_tensor("shapes", np.zeros((1, 3, vertices, 3), np.float32))
    with raw(server) as service:
        for model in ("texture", "postprocess"):
            request = of(wellformed, model, "shapes")
            inputs = tuple(shapes if tensor.name == "shapes" else tensor for tensor in request.inputs)
            answer = verdict(service, grpc_message(replace(request, inputs=inputs)))
            assert answer.startswith("INVALID_ARGUMENT: "), answer


def outputs_of(answer: Any) -> dict[str, bytes]:
    return {o.name: bytes(part) for o, part in zip(answer.outputs, answer.raw_output_contents, strict=True)}


@pytest.mark.parametrize(
    ("model", "name", "change"),
    [
        ("detector", "geometry", fill(np.nan)),
        ("regressor", "context", fill(np.nan)),
        ("texture", "shapes", fill(np.inf)),
        ("align", "geometry", fill(0)),
        ("postprocess", "shapes", fill(np.nan)),
    ],
)
def test_neighbours_of_what_is_refused_get_what_they_get_alone(
    server: EmbeddedServer, wellformed: list[Request], model: str, name: str, change: Any
) -> None:
    request = of(wellformed, model, name)
    good, bad = grpc_message(request), grpc_message(with_values(request, name, change))
    with raw(server) as service:
        alone = outputs_of(service.ModelInfer(good, timeout=60))
        calls = [bad if index % 3 == 1 else good for index in range(12)]

        def send(message: Any) -> Any:
            return outputs_of(service.ModelInfer(message, timeout=60)) if message is good else verdict(service, message)

        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(send, calls))
    for message, answer in zip(calls, answers, strict=True):
        if message is bad:
            assert str(answer).startswith("INVALID_ARGUMENT: [Bad"), answer
        else:
            assert set(answer) == set(alone)
            for key, part in alone.items():
                if key in ("crop", "crop_hd", "face", "faces", "mesh", "texture_image", "camera"):
                    assert answer[key] == part, key
                elif key in ("coefficients", "vertices", "landmarks"):
                    np.testing.assert_allclose(floats(answer[key]), floats(part), atol=0.05)


def floats(part: bytes) -> NDArray[np.float32]:
    return np.frombuffer(part, np.float32)


@pytest.mark.parametrize(
    "value", [np.inf, -np.inf, np.nan, 1e308, 2.0**63, "9" * 5000, "1e400", "\uff12\u00b2", True, ""]
)
@pytest.mark.parametrize(
    "option",
    ["score_threshold", "face", "box", "texture_size", "texture_format", "sharpen", "white_balance", "pose"],
)
def test_an_option_of_any_value_is_taken_or_refused_by_name(
    server: EmbeddedServer, wellformed: list[Request], option: str, value: Any
) -> None:
    align = of(wellformed, "align", "faces")
    with raw(server) as service:
        for request in (align, of(wellformed, "postprocess", "shapes")):
            answer = verdict(service, grpc_message(replace(request, parameters={option: value})))
            assert answer == "OK" or answer.startswith(
                (f"INVALID_ARGUMENT: [BadOption] `{option}` is ", "INVALID_ARGUMENT: [NoSuchFace] ")
            ), answer
