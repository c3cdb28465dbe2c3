"""Requests and errors: what the codec builds, how messages become exceptions, addresses, retries."""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import face3d_client
import numpy as np
import pytest
from face3d_client import (
    TLS,
    AccessDenied,
    BadImage,
    BadOption,
    BadRequest,
    DetectedFace,
    Face3DError,
    ImageTooLarge,
    NoFace,
    Options,
    Overloaded,
    RequestError,
    Retry,
    ServerUnavailable,
    Timeout,
)
from face3d_client._client import Face3DClient
from face3d_client._images import MAX_BYTES, image_bytes
from face3d_client._protocol.codec import build_detect, build_reconstruct, parse_detect
from face3d_client._protocol.options import DEFAULT_OUTPUTS
from face3d_client._protocol.status import error_from, error_from_http
from face3d_client._transports.endpoint import Endpoint
from face3d_client._transports.retry import Budget, Deadline
from PIL import Image

from tests.client import synthetic

# --- requests ---------------------------------------------------------------------------------------------------------


def test_only_what_was_asked_for_is_requested() -> None:
    call = build_reconstruct(b"picture", Options(outputs=["coefficients", "coefficients", "landmarks"]))
    assert call.model == "face3d"
    assert call.outputs == ("coefficients", "landmarks")
    assert call.inputs["image"].shape == (1, 1)
    assert call.inputs["image"][0, 0] == b"picture"
    assert call.parameters == {}
    assert build_reconstruct(b"picture", Options()).outputs == DEFAULT_OUTPUTS
    asked = build_reconstruct(b"picture", Options(outputs=["texture", "warnings"])).outputs
    assert asked == ("texture", "warnings", "texture_warnings"), "what is doubtful about a texture is a warning"
    assert build_detect(b"picture").outputs == ("faces",)


def test_small_faces_are_asked_of_the_model_that_looks_at_tiles() -> None:
    plain, close = build_detect(b"picture"), build_detect(b"picture", 24)
    assert (plain.model, plain.parameters) == ("detect", {})
    assert (close.model, close.outputs, close.parameters) == ("group", ("faces",), {"min_face": 24})


def test_only_small_faces_are_cut_out_of_the_picture_s_own_pixels() -> None:
    with Face3DClient("localhost:9") as client:
        selection = client._all_faces({"min_face": 24, "outputs": ["mesh"]})
        assert client._all_faces({}).options_of(sized(20)).keys() == {"face"}
    assert "min_face" not in selection.options
    assert selection.options_of(sized(100))["min_face"] == 24
    assert "min_face" not in selection.options_of(sized(300))


def sized(side: float) -> DetectedFace:
    return DetectedFace(np.array([10, 10, 10 + side, 10 + side, 0.9, *range(10)], np.float32))


def test_options_travel_as_parameters_and_numbers_with_a_fraction_as_text() -> None:
    options = Options(
        face=2, score_threshold=0.5, sharpen=0.1, white_balance=True, texture_size=1024, texture_format="jpeg",
        pose="neutral",
    )  # fmt: skip
    assert build_reconstruct(b"p", options).parameters == {
        "face": 2,
        "score_threshold": "0.5",
        "sharpen": "0.1",
        "white_balance": True,
        "texture_size": 1024,
        "texture_format": "jpeg",
        "pose": "neutral",
    }


def test_numbers_of_numpy_travel_as_plain_ones() -> None:
    numbers = {"face": np.int64(2), "sharpen": np.float32(0.5), "score_threshold": np.float64(0.25)}
    sent = build_reconstruct(b"p", cast(Options, {**numbers, "white_balance": np.bool_(True)})).parameters
    assert sent == {"face": 2, "sharpen": "0.5", "score_threshold": "0.25", "white_balance": True}
    assert {type(value) for value in sent.values()} == {int, str, bool}


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_outside_its_range_is_refused_and_not_taken_for_no_face(threshold: float) -> None:
    with pytest.raises(BadOption, match="from 0 to 1"):
        parse_detect({"faces": np.zeros((1, 64, 15), np.float32)}, threshold)


def test_an_option_that_is_none_is_not_sent() -> None:
    assert build_reconstruct(b"p", Options(pose=None, face=None, outputs=None)).parameters == {}


def test_a_detected_face_goes_to_reconstruct_without_detection() -> None:
    call = build_reconstruct(b"p", Options(face=DetectedFace(synthetic.FACE)))
    assert call.model == "reconstruct"
    assert call.inputs["choice"].tolist() == [synthetic.FACE.tolist()]
    assert call.inputs["choice"].dtype == np.float32


def test_a_box_is_written_with_commas() -> None:
    box = DetectedFace(synthetic.FACE).box
    assert build_reconstruct(b"p", Options(box=box)).parameters == {"box": "100.00,120.00,300.00,380.00"}
    for wrong in ([1, 2, 3], [1, 2, 3, float("nan")]):
        with pytest.raises(BadOption, match="four finite numbers"):
            build_reconstruct(b"p", Options(box=wrong))


def test_contradicting_and_unknown_options_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(BadOption, match="Give one of them"):
        build_reconstruct(b"p", Options(face=1, box=[1, 2, 3, 4]))
    with pytest.raises(BadOption, match="choose one or more of camera"):
        build_reconstruct(b"p", Options(outputs=["meshes"]))  # type: ignore[list-item]
    with pytest.raises(BadOption):
        build_reconstruct(b"p", Options(outputs=[]))
    with pytest.raises(TypeError, match="no such option: sharpness"):
        build_reconstruct(b"p", {"sharpness": 1})  # type: ignore[typeddict-unknown-key]


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_files_and_bytes_pass_untouched(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(b"anything")
    assert image_bytes(path) == image_bytes(str(path)) == image_bytes(b"anything") == b"anything"
    assert image_bytes(bytearray(b"anything")) == b"anything"


def test_arrays_become_png_without_loss() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(image_bytes(pixels[:, ::-1]))) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), pixels[:, ::-1])
    with Image.open(io.BytesIO(image_bytes(pixels[..., 0]))) as image:
        assert image.mode == "L"


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_arrays_that_are_no_picture_are_refused(array: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(BadImage, match="uint8 of shape"):
        image_bytes(array)


def test_empty_huge_and_missing_files_are_refused_without_reading_them(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(BadImage, match=r"empty\.jpg is empty"):
        image_bytes(tmp_path / "empty.jpg")
    with (tmp_path / "film.mov").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageTooLarge, match="at most 64"):
        image_bytes(tmp_path / "film.mov")
    with pytest.raises(FileNotFoundError):
        image_bytes(tmp_path / "nothing.jpg")
    with pytest.raises(TypeError, match="not int"):
        image_bytes(3)  # type: ignore[arg-type]


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["BadImage", "ImageTooLarge", "NoFace", "BadFace", "NoSuchFace", "BadOption", "FaceModelMismatch", "Overloaded"],
)
def test_a_tag_anywhere_in_the_message_chooses_the_class(name: str) -> None:
    words = f"in ensemble 'face3d', Failed to process the request(s) for model 'align_0_1', message: [{name}] What. Do."
    error = error_from("INVALID_ARGUMENT", words)
    assert type(error) is getattr(face3d_client, name)
    assert error.message == str(error) == "What. Do."
    assert error.status == "INVALID_ARGUMENT"
    assert not error.retryable


@pytest.mark.parametrize(
    ("status", "words", "kind", "retryable"),
    [
        ("NOT_FOUND", "[ServerUnavailable] `face3d` is not loaded: try again.", ServerUnavailable, True),
        ("INTERNAL", "[ServerUnavailable] broken.", ServerUnavailable, False),
        ("UNAVAILABLE", "[Overloaded] too many: send fewer.", Overloaded, True),
        ("NOT_FOUND", "[BadRequest] no model `x` is served here.", BadRequest, False),
        ("INVALID_ARGUMENT", "unexpected shape", RequestError, False),
        ("UNAVAILABLE", "Exceeds maximum queue size", Overloaded, True),
        ("UNAVAILABLE", "Request timeout expired", Timeout, True),
        ("UNAVAILABLE", "Request for unknown model: 'x' is not found", ServerUnavailable, True),
        ("RESOURCE_EXHAUSTED", "too many", Overloaded, True),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (9 vs. 4)", ImageTooLarge, False),
        ("DEADLINE_EXCEEDED", "late", Timeout, False),
        ("INTERNAL", "Stub process 'align_0_0' is not healthy.", ServerUnavailable, False),
        ("UNAUTHENTICATED", "", AccessDenied, False),
        ("NOT_FOUND", "no model", ServerUnavailable, False),
    ],
)
def test_the_tag_and_else_the_status_decides(status: str, words: str, kind: type[Face3DError], retryable: bool) -> None:
    error = error_from(status, words)
    assert type(error) is kind
    assert error.retryable is retryable
    assert error.message


def test_the_traceback_of_a_model_is_left_out() -> None:
    words = (
        "Failed to process the request(s) for model 'align_0_0', message: ValueError: no\n\nAt:\n  model.py(5): one\n"
    )
    assert str(error_from("INTERNAL", words)).endswith("ValueError: no")


def test_http_statuses_mean_the_same() -> None:
    assert type(error_from_http(400, "x [NoFace] None. Look.")) is NoFace
    assert type(error_from_http(503, "Exceeds maximum queue size")) is Overloaded
    assert type(error_from_http(413, "")) is ImageTooLarge
    assert type(error_from_http(504, "")) is Timeout
    assert not error_from_http(500, "broken").retryable
    assert error_from_http(502, "proxy").retryable


def test_every_exception_is_in_the_tree_of_the_docstring() -> None:
    for name in face3d_client.__all__:
        thing = getattr(face3d_client, name)
        if isinstance(thing, type) and issubclass(thing, Exception):
            assert issubclass(thing, Face3DError)
            assert name in (face3d_client.__doc__ or "")


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "protocol", "shown"),
    [
        ("localhost:9001", None, "grpc://localhost:9001"),
        ("localhost", "http", "http://localhost:8000"),
        ("https://faces.example/v3/", None, "https://faces.example:8000/v3"),
        ("grpcs://faces.example", None, "grpcs://faces.example:8001"),
        ("[::1]:7", None, "grpc://[::1]:7"),
        (None, None, "grpc://localhost:8001"),
    ],
)
def test_addresses_are_read(
    url: str | None, protocol: face3d_client.Protocol | None, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FACE3D_URL", raising=False)
    assert str(Endpoint.parse(url, protocol)) == shown


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACE3D_URL", "http://elsewhere:1")
    assert str(Endpoint.parse(None, None)) == "http://elsewhere:1"


@pytest.mark.parametrize("url", ["ftp://x", "localhost:port", "localhost:99999", ":8001", "grpc://x/path"])
def test_addresses_that_make_no_sense_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Endpoint.parse(url, None)


def test_contradictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="means http"):
        Endpoint.parse("http://x", "grpc")
    with pytest.raises(ValueError, match="means TLS"):
        Endpoint.parse("https://x", None, tls=False)
    with pytest.raises(ValueError, match="belong together"):
        TLS(cert=tmp_path / "cert.pem")
    with pytest.raises(FileNotFoundError, match="ca: no such file"):
        TLS(ca=tmp_path / "ca.pem")


def test_a_token_becomes_a_bearer_header() -> None:
    endpoint = Endpoint.parse("x", None, token="secret", headers={"X-Team": "blue"})
    assert endpoint.headers == {"authorization": "Bearer secret", "x-team": "blue"}
    assert "secret" not in str(endpoint)


# --- retries ----------------------------------------------------------------------------------------------------------

BUSY = Overloaded("full", status="UNAVAILABLE", retryable=True)


def test_what_may_pass_is_retried_with_growing_random_pauses() -> None:
    budget = Budget(Retry(attempts=5, base=0.1, cap=0.3, budget=100))
    for attempt, bound in ((1, 0.1), (2, 0.2), (3, 0.3), (4, 0.3)):
        pauses = [budget.pause(BUSY, attempt, Deadline(60)) for _ in range(20)]
        assert all(pause is not None and bound / 2 <= pause <= bound for pause in pauses)
        assert len(set(pauses)) > 1
    assert budget.pause(BUSY, 5, Deadline(60)) is None


def test_a_server_that_is_down_is_asked_again_whatever_attempts_and_budget_say() -> None:
    down = ServerUnavailable("starting", status="UNAVAILABLE", retryable=True)
    deadline = Deadline(60)
    assert Budget(Retry(budget=0)).pause(down, 50, deadline) is not None
    assert Budget(Retry(outage=0)).pause(down, 4, deadline) is None
    assert Budget(Retry(attempts=1)).pause(down, 1, deadline) is None
    waiting = [min(2.0, 0.1 * 2 ** (attempt - 1)) / 2 for attempt in range(1, 20)]
    assert sum(waiting) > 12  # with the shortest pauses too, attempts reach beyond a restart


def _nobody() -> ServerUnavailable:
    error = ServerUnavailable("no server answers", status="UNAVAILABLE", retryable=True)
    error.answered = False
    return error


def _waited(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds of a call's pauses, until the error is final, by a clock that only pauses move."""
    now = 1000.0
    monkeypatch.setattr("face3d_client._transports.retry.time.monotonic", lambda: now)
    deadline = Deadline(60)
    attempt = 1
    while (pause := budget.pause(_nobody(), attempt, deadline)) is not None:
        now += pause
        attempt += 1
    return now - 1000.0


def test_an_address_that_never_answered_is_asked_again_for_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _waited(Budget(Retry()), monkeypatch) == pytest.approx(2.0)
    assert _waited(Budget(Retry(outage=0.5)), monkeypatch) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "answer",
    [
        ServerUnavailable("the server is starting", status="UNAVAILABLE", retryable=True),
        Overloaded("full", status="UNAVAILABLE", retryable=True),
        NoFace("none"),
        None,
    ],
    ids=["starting", "busy", "no face", "success"],
)
def test_a_server_that_has_answered_before_is_waited_for_as_long_as_a_restart_takes(
    answer: Face3DError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = Budget(Retry())
    if answer is None:
        budget.succeeded()
    else:
        budget.pause(answer, 1, Deadline(60))
    assert _waited(budget, monkeypatch) == pytest.approx(Retry().outage)


def test_what_answers_without_being_the_service_makes_no_address_right(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(Retry())
    budget.pause(ServerUnavailable("takes no inference requests", status="HTTP 404"), 1, Deadline(60))
    assert _waited(budget, monkeypatch) == pytest.approx(2.0)


def test_what_cannot_pass_is_not_retried() -> None:
    assert Budget(Retry()).pause(NoFace("none"), 1, Deadline(60)) is None


def test_the_budget_is_shared_and_refilled_by_successes() -> None:
    budget = Budget(Retry(budget=2))
    assert [budget.pause(BUSY, 1, Deadline(60)) is None for _ in range(3)] == [False, False, True]
    budget.succeeded()
    assert budget.pause(BUSY, 1, Deadline(60)) is None
    budget.succeeded()
    assert budget.pause(BUSY, 1, Deadline(60)) is not None


def test_no_pause_passes_the_deadline() -> None:
    late = Deadline(1e-9)
    assert Budget(Retry()).pause(BUSY, 1, late) is None
    assert late.over()
    with pytest.raises(Timeout, match="Allow more time"):
        late.left()


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_timeout_is_positive_and_finite(seconds: float) -> None:
    with pytest.raises(ValueError, match="positive number of seconds"):
        Deadline(seconds)


def test_a_retry_policy_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="attempts >= 1"):
        Retry(attempts=0)
