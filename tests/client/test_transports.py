"""Four transports, one behaviour: sync and async, gRPC and HTTP, against a real Triton."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import face3d_client
import numpy as np
import pytest
from face3d_client import (
    AsyncFace3DClient,
    Face3DClient,
    Face3DError,
    NoFace,
    NotRequested,
    Overloaded,
    Protocol,
    Retry,
    ServerUnavailable,
    Timeout,
)

from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.client import stand_in, synthetic
from tests.client.conftest import url_of
from tests.servers import serving

PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")
both = pytest.mark.parametrize("protocol", PROTOCOLS)


def test_a_picture_comes_back_as_a_face(client: Face3DClient) -> None:
    result = client.reconstruct(b"picture")
    expected = synthetic.reply()
    assert result.glb == expected["mesh"][0, 0]
    assert np.array_equal(result.vertices, expected["vertices"][0])
    assert np.array_equal(result.coefficients.values, np.arange(257))
    assert result.camera.numbers.tolist() == pytest.approx(synthetic.CAMERA.tolist())
    assert result.face_model == -42
    assert result.warnings == ()
    with pytest.raises(NotRequested):
        _ = result.preview


def test_only_the_outputs_asked_for_are_sent(client: Face3DClient) -> None:
    assert list(client.reconstruct(b"picture", outputs=["landmarks", "preview"]).raw) == ["landmarks", "preview"]


def test_options_arrive_as_request_parameters(client: Face3DClient) -> None:
    told = client.reconstruct(b"p", pose="neutral", sharpen=0.25, white_balance=True, texture_size=256).warnings
    assert told == ("pose='neutral'", "sharpen='0.25'", "texture_size=256", "white_balance=True")


def test_paths_bytes_and_arrays_are_pictures(client: Face3DClient, tmp_path: Path) -> None:
    path = tmp_path / "n\u00famero.jpg"
    path.write_bytes(b"NUMBER 7")
    for source in (path, str(path), b"NUMBER 7"):
        assert client.reconstruct(source, outputs=["coefficients"]).coefficients.values[0] == 7
    assert client.reconstruct(np.zeros((4, 5, 3), np.uint8)).score > 0.9


def test_detect_gives_faces_in_the_order_of_score(client: Face3DClient) -> None:
    found = client.detect(b"picture")
    assert [round(face.score, 2) for face in found] == [0.99, 0.95, 0.8]
    assert len(client.detect(b"picture", score_threshold=0.4)) == 4


def test_every_face_is_reconstructed_with_one_detection(client: Face3DClient) -> None:
    results = client.reconstruct_all(b"picture", outputs=["face", "warnings"])
    assert [result.warnings[-1] for result in results] == ["face 0.99", "face 0.95", "face 0.80"]
    assert [round(result.score, 2) for result in results] == [0.99, 0.95, 0.8]
    assert len(client.reconstruct_all(b"picture", min_size=60)) == 2
    assert len(client.reconstruct_all(b"picture", score_threshold=0.4, min_size=250)) == 1


@pytest.mark.parametrize(
    "tag", ["BadImage", "ImageTooLarge", "NoFace", "BadFace", "NoSuchFace", "BadOption", "FaceModelMismatch"]
)
def test_the_servers_tags_arrive_as_exceptions(client: Face3DClient, tag: str) -> None:
    with pytest.raises(Face3DError, match=r"^What is wrong\. What to do\.$") as caught:
        client.reconstruct(f"ERROR INVALID_ARG [{tag}] What is wrong. What to do.".encode())
    assert type(caught.value) is getattr(face3d_client, tag)
    assert caught.value.status == "INVALID_ARGUMENT"


def test_internal_errors_say_that_the_service_is_down_and_are_not_retried(client: Face3DClient) -> None:
    with pytest.raises(ServerUnavailable, match="stub died") as caught:
        client.reconstruct(b"ERROR INTERNAL stub died")
    assert caught.value.status == "INTERNAL"


def test_a_call_ends_at_its_deadline(client: Face3DClient) -> None:
    with pytest.raises(Timeout, match="Allow more time"):
        client.reconstruct(b"SLEEP 1", timeout=0.3)
    assert client.reconstruct(b"picture").score > 0.9  # the connection is still good


def test_map_keeps_the_order_and_gives_each_error_to_its_picture(client: Face3DClient, tmp_path: Path) -> None:
    pictures: list[bytes | str] = [f"NUMBER {number}".encode() for number in range(9)]
    pictures[3] = b"ERROR INVALID_ARG [NoFace] None. Look."
    pictures[5] = str(tmp_path / "missing.jpg")
    pictures[6] = b""
    outcomes = list(client.map(pictures, concurrency=4, outputs=["coefficients"]))
    assert [outcome.index for outcome in outcomes] == list(range(9))
    assert [outcome.source for outcome in outcomes] == pictures
    assert [type(outcome.error).__name__ for outcome in outcomes if not outcome.ok] == [
        "NoFace",
        "FileNotFoundError",
        "BadImage",
    ]
    assert [outcome.unwrap().coefficients.values[0] for outcome in outcomes if outcome.ok] == [0, 1, 2, 4, 7, 8]
    with pytest.raises(NoFace):
        outcomes[3].unwrap()


def test_the_server_tells_who_it_is_and_what_is_loaded(client: Face3DClient) -> None:
    assert client.info().name == "triton"
    assert client.info().version == "2.51.0"
    assert [(model.name, model.version, model.ready) for model in client.models()] == [
        ("detect", "1", True),
        ("face3d", "1", True),
        ("reconstruct", "1", True),
    ]
    assert client.ready()
    client.wait_ready(5)


@both
def test_a_server_without_the_service_is_not_ready(tmp_path: Path, protocol: Protocol) -> None:
    repository = stand_in.build(tmp_path / "repository")
    shutil.rmtree(repository / "reconstruct")
    with (
        serving(on_free_ports(ServerOptions(repository=repository))) as server,
        Face3DClient(url_of(server, protocol), protocol=protocol, retry=Retry(attempts=1)) as client,
    ):
        assert not client.ready()
        with pytest.raises(ServerUnavailable, match="reconstruct"):
            client.reconstruct_all(b"picture")
        assert client.reconstruct(b"picture").score > 0.9


def test_a_closed_client_says_so(stand_in_server: EmbeddedServer) -> None:
    for protocol in PROTOCOLS:
        client = Face3DClient(url_of(stand_in_server, protocol), protocol=protocol)
        client.reconstruct(b"picture")
        client.close()
        client.close()
        with pytest.raises(ServerUnavailable, match="closed"):
            client.reconstruct(b"picture")


async def _use_closed(client: AsyncFace3DClient) -> None:
    async with client:
        await client.reconstruct(b"picture")
    with pytest.raises(ServerUnavailable, match="closed"):
        await client.reconstruct(b"picture")


@both
def test_a_closed_async_client_says_so(stand_in_server: EmbeddedServer, protocol: Protocol) -> None:
    asyncio.run(_use_closed(AsyncFace3DClient(url_of(stand_in_server, protocol), protocol=protocol)))


@both
def test_nobody_there_is_said_in_one_sentence(protocol: Protocol) -> None:
    with (
        Face3DClient("127.0.0.1:9", protocol=protocol, retry=Retry(attempts=2, base=0.01, outage=0)) as client,
        pytest.raises(ServerUnavailable, match=r"no server answers at (grpc|http)://127\.0\.0\.1:9") as caught,
    ):
        client.reconstruct(b"picture")
    assert caught.value.retryable


@pytest.mark.parametrize("door", ["grpc", "metrics"])
def test_http_at_the_wrong_port_says_what_is_wrong_in_words(stand_in_server: EmbeddedServer, door: str) -> None:
    address = getattr(stand_in_server, door)
    says = {"grpc": "does not speak HTTP", "metrics": "takes no inference requests"}[door]

    async def ask() -> None:
        async with AsyncFace3DClient(f"http://{address}", retry=Retry(attempts=1)) as client:
            await client.detect(b"picture")

    with Face3DClient(f"http://{address}", retry=Retry(attempts=1)) as client:
        for call in (lambda: client.detect(b"picture"), lambda: asyncio.run(ask())):
            with pytest.raises(ServerUnavailable, match=says) as caught:
                call()
            assert caught.value.message.isprintable()


def test_a_name_that_does_not_resolve_is_a_server_that_does_not_answer() -> None:
    with (
        Face3DClient("nowhere.invalid", retry=Retry(attempts=1)) as client,
        pytest.raises(ServerUnavailable, match=r"no server answers at grpc://nowhere\.invalid:8001"),
    ):
        client.detect(b"picture")


@both
def test_nobody_there_is_not_ready_and_raises_nothing(protocol: Protocol) -> None:
    with Face3DClient("127.0.0.1:9", protocol=protocol) as client:
        assert not client.ready()
        with pytest.raises(ServerUnavailable, match=r"was not ready within 0\.3 s"):
            client.wait_ready(0.3)


@both
def test_many_threads_share_one_client_and_get_their_own_answers(
    stand_in_server: EmbeddedServer, protocol: Protocol
) -> None:
    with Face3DClient(url_of(stand_in_server, protocol), protocol=protocol) as client:

        def ask(number: int) -> float:
            picture = f"NUMBER {number}".encode()
            return float(client.reconstruct(picture, outputs=["coefficients", "mesh"]).coefficients.values[0])

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(200))) == list(range(200))


@both
def test_a_full_queue_is_overloaded_and_retried_until_it_has_room(
    stand_in_server: EmbeddedServer, protocol: Protocol
) -> None:
    url = url_of(stand_in_server, protocol)
    crowd = 2 * stand_in.QUEUE
    with Face3DClient(url, protocol=protocol, retry=Retry(attempts=1)) as impatient:
        outcomes = list(impatient.map([b"SLEEP 0.2"] * crowd, concurrency=crowd, outputs=["face"]))
    refused = [outcome.error for outcome in outcomes if outcome.error is not None]
    assert refused
    assert all(isinstance(error, Overloaded) for error in refused)
    patient_retry = Retry(attempts=50, base=0.1, cap=0.3, budget=1000)
    with Face3DClient(url, protocol=protocol, retry=patient_retry) as patient:
        outcomes = list(patient.map([b"SLEEP 0.05"] * crowd, concurrency=crowd, outputs=["face"]))
    assert all(outcome.ok for outcome in outcomes)


@both
def test_closing_from_another_thread_ends_a_call_in_flight(stand_in_server: EmbeddedServer, protocol: Protocol) -> None:
    client = Face3DClient(url_of(stand_in_server, protocol), protocol=protocol)
    client.reconstruct(b"picture", outputs=["face"])
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            client.reconstruct(b"SLEEP 2")
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.5)
    client.close()
    thread.join(2)
    assert not thread.is_alive()
    assert isinstance(caught[0], ServerUnavailable)


@both
def test_leaving_a_map_early_sends_no_more(stand_in_server: EmbeddedServer, protocol: Protocol) -> None:
    taken: list[int] = []

    def pictures() -> Iterator[bytes]:
        for number in range(1000):
            taken.append(number)
            yield b"NUMBER 1"

    with Face3DClient(url_of(stand_in_server, protocol), protocol=protocol) as client:
        for outcome in client.map(pictures(), concurrency=2, outputs=["face"]):
            if outcome.index == 3:
                break
    assert len(taken) < 20
