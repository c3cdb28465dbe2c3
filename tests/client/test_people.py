"""The page's people: enrol two, name the faces of a group, against the real service."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from face3d_client import Face3DClient
from face3d_client._ui.people import People
from PIL import Image

from server.service import Service
from tests.client.test_service import grey, pair

__all__ = ["pair"]


@pytest.fixture(scope="module")
def people(server: Service) -> Iterator[People]:
    with Face3DClient(server.grpc) as client:
        yield People(client)


def test_two_people_are_added_and_a_group_is_named(
    people: People, portrait_bytes: bytes, portrait_jpeg: bytes, pair: bytes, tmp_path: Path
) -> None:
    files = {}
    for name, data in {"Eileen": portrait_bytes, "Grace": portrait_jpeg, "group": pair, "grey": grey()}.items():
        files[name] = str(tmp_path / f"{name}.png")
        Path(files[name]).write_bytes(data)
    picture, said = people.name_faces(None, files["group"])
    assert picture is None
    assert "first" in said
    known, said = people.enrol(None, "Eileen", files["Eileen"], False)
    assert (known, "agrees" in said) == ({}, True)
    known, said = people.enrol(known, "Nobody", files["grey"], True)
    assert (known, "no face" in said.lower()) == ({}, True)
    known, _ = people.enrol(known, "Eileen", files["Eileen"], True)
    _, said = people.name_faces(known, files["group"])
    assert sorted(said.rstrip(".").split("; ")) == ["Eileen", "nobody"]
    known, said = people.enrol(known, "Grace", files["Grace"], True)
    assert "Eileen" in said
    assert "Grace" in said
    picture, said = people.name_faces(known, files["group"])
    assert sorted(said.rstrip(".").split("; ")) == ["Eileen", "Grace"]
    assert picture is not None
    assert max(picture.size) <= 900
    with Image.open(io.BytesIO(pair)) as group:
        assert picture.width / picture.height == pytest.approx(group.width / group.height, abs=0.01)
    assert people.name_faces(known, files["grey"]) == (None, "No face was found.")
