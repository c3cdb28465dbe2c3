"""Embedding and the command `face3d gallery` against the real service."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from face3d_client import AsyncFace3DClient, BadOption, DetectedFace, Embedding, Face3DClient, NoFace, NoSuchFace
from face3d_client._errors import BadResponse
from face3d_client._protocol.codec import build_embed, parse_embed
from PIL import Image

from server.service import Service
from tests.client.test_service import grey, pair

__all__ = ["pair"]


@pytest.fixture(scope="module")
def service(server: Service) -> Iterator[Face3DClient]:
    with Face3DClient(server.grpc) as client:
        yield client


@pytest.fixture(scope="module")
def astronaut(service: Face3DClient, portrait_bytes: bytes) -> Embedding:
    return service.embed(portrait_bytes)


def mirrored(photo: bytes) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(photo)) as image:
        image.convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file, "JPEG", quality=85)
    return file.getvalue()


def test_an_embedding_says_who_how_well_and_by_which_embedder(astronaut: Embedding, portrait_bytes: bytes) -> None:
    assert np.linalg.norm(astronaut.vector) == pytest.approx(1, abs=1e-3)
    assert not astronaut.vector.flags.writeable
    assert min(astronaut.quality) > 0.5
    assert astronaut.face.score > 0.9
    assert astronaut.similarity(astronaut) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_both_clients_and_protocols_give_the_same(
    server: Service, astronaut: Embedding, portrait_bytes: bytes, protocol: str
) -> None:
    url = server.grpc if protocol == "grpc" else server.http

    async def ask() -> Embedding:
        async with AsyncFace3DClient(url, protocol=protocol) as client:  # type: ignore[arg-type]
            return await client.embed(portrait_bytes)

    with Face3DClient(url, protocol=protocol) as client:  # type: ignore[arg-type]
        for other in (client.embed(portrait_bytes), asyncio.run(ask())):
            np.testing.assert_allclose(other.vector, astronaut.vector, atol=1e-5)
            assert other.embedder == astronaut.embedder


def test_a_face_of_a_group_is_chosen_by_number_or_as_detected(
    service: Face3DClient, astronaut: Embedding, pair: bytes
) -> None:
    found = service.detect(pair)
    by_number = [service.embed(pair, face=number) for number in range(2)]
    for face, embedding in zip(found, by_number, strict=True):
        np.testing.assert_allclose(service.embed(pair, face=face).vector, embedding.vector, atol=1e-5)
    likeness = sorted(astronaut.similarity(embedding) for embedding in by_number)
    assert likeness[1] > 0.9
    assert likeness[0] < 0.3
    with pytest.raises(NoSuchFace):
        service.embed(pair, face=7)
    with pytest.raises(NoFace):
        service.embed(grey())
    with pytest.raises(BadOption):
        service.embed(pair, score_threshold=3)


def test_a_detected_face_is_meant_by_its_box_and_found_again_by_its_score() -> None:
    row = np.array([1, 2, 3, 4, 0.4, *range(10)], np.float32)
    call = build_embed(b"x", DetectedFace(row), None)
    assert call.model == "embed"
    assert call.parameters["box"] == "1.00,2.00,3.00,4.00"
    assert float(call.parameters["score_threshold"]) == pytest.approx(0.4)
    assert build_embed(b"x", 2, 0.5).parameters == {"face": 2, "score_threshold": "0.5"}
    assert build_embed(b"x", None, None).parameters == {}


@pytest.mark.parametrize("length", [0.0, 0.5, 2.0])
def test_a_vector_of_another_length_is_no_answer(length: float) -> None:
    vector = np.zeros((1, 128), np.float32)
    vector[0, 0] = length
    reply = {
        "embedding": vector,
        "quality": np.ones((1, 4), np.float32),
        "face": np.ones((1, 15), np.float32),
        "embedder": np.array([[5]]),
        "warnings": np.array([[]], np.object_),
    }
    with pytest.raises(BadResponse):
        parse_embed(reply)


def run(server: Service, *words: str, place: Path, key: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"FACE3D_URL": server.grpc, "FACE3D_GALLERY": str(place)}
    if key is not None:
        environment["FACE3D_GALLERY_KEY"] = key
    return subprocess.run(
        [sys.executable, "-m", "face3d_client", *words],
        capture_output=True, text=True, check=False, timeout=120, env=environment,
    )  # fmt: skip


def test_the_command_prints_a_vector(server: Service, portrait_bytes: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(portrait_bytes)
    done = run(server, "embed", str(tmp_path / "a.png"), "--json", place=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert len(told["vector"]) == 128
    assert set(told["quality"]) == {"size", "sharpness", "pose", "cover"}


def test_two_people_are_enrolled_and_a_group_is_named(
    server: Service, portrait_bytes: bytes, portrait_jpeg: bytes, pair: bytes, tmp_path: Path
) -> None:
    pytest.importorskip("sqlite_vec", reason="the gallery's packages are not installed")
    pytest.importorskip("sqlcipher3", reason="the gallery's packages are not installed")
    place = tmp_path / "gallery.db"
    photos = {"a": portrait_bytes, "b": portrait_jpeg, "group": pair, "a2": mirrored(portrait_bytes), "grey": grey()}
    files = {}
    for name, data in photos.items():
        files[name] = str(tmp_path / f"{name}.png")
        Path(files[name]).write_bytes(data)

    def face3d(*words: str) -> subprocess.CompletedProcess[str]:
        return run(server, "gallery", *words, place=place, key="secret")

    nobody = face3d("identify", files["a"])
    assert nobody.returncode == 1
    assert "nobody" in nobody.stdout
    assert face3d("add", "Eileen", files["a"], files["a2"], "--consent", "public domain").returncode == 0
    assert face3d("add", "Grace", files["b"], "--consent", "public domain").returncode == 0
    for words, error in (
        (("add", "Zoe", files["a"]), "BadOption"),
        (("add", "Grace", files["a"]), "DifferentPeople"),
        (("add", "Zoe", files["grey"], "--consent", "x"), "NoFace"),
        (("verify", "Zoe", files["a"]), "BadOption"),
    ):
        done = face3d(*words)
        assert done.returncode == 2
        assert error in done.stderr
    named = face3d("identify", files["group"], "--json")
    assert named.returncode == 0
    answers = [json.loads(line) for line in named.stdout.splitlines()]
    by_place = sorted(answers, key=lambda answer: answer["box"][0])
    assert [answer["name"] for answer in by_place] == ["Eileen", "Grace"]
    assert face3d("verify", "Grace", files["b"]).returncode == 0
    assert face3d("verify", "Grace", files["a"]).returncode == 1
    assert face3d("remove", "Eileen").returncode == 0
    assert [line.partition(":")[0] for line in face3d("list").stdout.splitlines()] == ["Grace"]
    (kept,) = (json.loads(line) for line in face3d("export").stdout.splitlines())
    assert kept["name"] == "Grace"
    wrong_key = run(server, "gallery", "list", place=place)
    assert wrong_key.returncode == 2
    assert "GalleryError" in wrong_key.stderr
