"""The gallery on its real engines: SQLite with sqlite-vec, plain and encrypted, and PostgreSQL with pgvector."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from face3d_client import (
    BadEndpoint,
    BadOption,
    DetectedFace,
    DifferentPeople,
    Embedding,
    GalleryError,
    GalleryMismatch,
    PoorQuality,
    Quality,
)
from face3d_client.gallery import Gallery, threshold_for
from face3d_client.gallery._postgres import PostgresStore

pytest.importorskip("sqlite_vec", reason="the gallery's packages are not installed")
pytest.importorskip("sqlcipher3", reason="the gallery's packages are not installed")

GOOD = Quality(1.0, 1.0, 1.0, 1.0)
EMBEDDER = 2**62 + 12345


def embedding(vector: Any, quality: Quality = GOOD, embedder: int = EMBEDDER) -> Embedding:
    unit = np.asarray(vector, np.float32)
    unit = unit / np.linalg.norm(unit)
    return Embedding(unit, quality, DetectedFace(np.ones(15, np.float32)), embedder)


def somebody(seed: int, photographs: int = 1, spread: float = 0.03) -> list[Embedding]:
    """Photographs of one person: a direction, and others some 20 degrees beside it."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=128)
    centre /= np.linalg.norm(centre)
    return [embedding(centre + rng.normal(0, spread, 128)) for _ in range(photographs)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    pgserver = pytest.importorskip("pgserver", reason="there is no PostgreSQL to test with")
    pytest.importorskip("pg8000", reason="the gallery's packages are not installed")
    # Not in pytest's own folder: started by root, PostgreSQL runs as another user, from whom the next run of pytest on
    # this machine would take that folder away.
    with tempfile.TemporaryDirectory() as folder, started(pgserver, folder) as server:
        yield server.get_uri()


def started(pgserver: ModuleType, folder: str) -> Any:
    """Start PostgreSQL, however long it takes: pgserver gives up after ten seconds, and finds it when asked again."""
    deadline = time.monotonic() + 240
    while True:
        try:
            return pgserver.get_server(folder, cleanup_mode="stop")
        except (subprocess.SubprocessError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def emptied(address: str) -> None:
    """Delete the gallery's tables."""
    store = PostgresStore(address)
    store._db.run("DROP TABLE IF EXISTS face3d_faces, face3d_people, face3d_gallery")
    store.close()


Open = Callable[[], Gallery]


@pytest.fixture(params=["sqlite", "encrypted", "postgres"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the same empty gallery as often as one likes."""
    opened: list[Gallery] = []
    if request.param == "postgres":
        address: str = request.getfixturevalue("postgres")
        emptied(address)

    def opening() -> Gallery:
        if request.param == "postgres":
            opened.append(Gallery.open(address))
        else:
            opened.append(Gallery.open(tmp_path / "gallery.db", "a 'key'" if request.param == "encrypted" else None))
        return opened[-1]

    yield opening
    for gallery in opened:
        gallery.close()


def test_who_is_enrolled_is_found_and_who_is_not_is_nobody(reopen: Open) -> None:
    gallery = reopen()
    assert gallery.identify(somebody(1)[0]) is None
    for seed in range(1, 6):
        gallery.add(f"person {seed}", somebody(seed, 4)[:3], consent="form of 2026-03-01")
    for seed in range(1, 6):
        match = gallery.identify(somebody(seed, 4)[3])
        assert match is not None
        assert match.name == f"person {seed}"
        assert match.similarity > match.threshold
    assert gallery.identify(somebody(77)[0]) is None
    nearest = gallery.nearest(somebody(77)[0])
    assert nearest is not None
    assert not nearest.accepted


def test_a_gallery_is_the_same_when_opened_again(reopen: Open) -> None:
    faces = somebody(1, 2)
    reopen().add("Ada", faces, consent="form")
    again = reopen()
    (person,) = again.people()
    assert (person.name, person.consent, person.faces) == ("Ada", "form", 2)
    (kept,) = again.export("Ada")
    np.testing.assert_allclose(kept["vectors"], [face.vector for face in faces], rtol=1e-6)
    assert kept["embedder"] == EMBEDDER
    assert set(kept) == {"name", "consent", "enrolled", "embedder", "vectors"}


def test_similarities_are_cosines(reopen: Open) -> None:
    gallery = reopen()
    (face,), (other,) = somebody(1), somebody(2)
    gallery.add("Ada", [face], consent="form")
    match = gallery.nearest(other)
    assert match is not None
    assert match.similarity == pytest.approx(float(face.vector @ other.vector), abs=1e-5)


def test_verify_compares_with_that_person_alone(reopen: Open) -> None:
    gallery = reopen()
    gallery.add("Ada", somebody(1, 3)[:2], consent="form")
    gallery.add("Ben", somebody(2, 3)[:2], consent="form")
    assert gallery.verify("Ada", somebody(1, 3)[2]).accepted
    assert not gallery.verify("Ada", somebody(2, 3)[2]).accepted
    with pytest.raises(BadOption, match="Zoe"):
        gallery.verify("Zoe", somebody(1)[0])


def test_who_is_removed_is_nobody(reopen: Open) -> None:
    gallery = reopen()
    gallery.add("Ada", somebody(1, 2), consent="form")
    gallery.add("Ben", somebody(2, 2), consent="form")
    assert gallery.remove("Ada")
    assert not gallery.remove("Ada")
    assert gallery.identify(somebody(1)[0]) is None
    assert [person.name for person in gallery.people()] == ["Ben"]
    assert list(gallery.export("Ada")) == []


@pytest.mark.parametrize("number", range(4))
def test_a_poor_photograph_enrols_nobody(reopen: Open, number: int) -> None:
    gallery = reopen()
    quality = GOOD._replace(**{Quality._fields[number]: 0.05})
    with pytest.raises(PoorQuality, match="photograph 2"):
        gallery.add("Ada", [somebody(1)[0], embedding(somebody(1)[0].vector, quality)], consent="form")
    assert gallery.people() == []


def test_photographs_of_different_people_enrol_nobody(reopen: Open) -> None:
    gallery = reopen()
    with pytest.raises(DifferentPeople, match="photograph 3"):
        gallery.add("Ada", [*somebody(1, 2), *somebody(2)], consent="form")
    assert gallery.people() == []
    gallery.add("Ada", somebody(1, 2), consent="form")
    with pytest.raises(DifferentPeople):
        gallery.add("Ada", somebody(2))


def test_vectors_of_another_embedder_are_refused(reopen: Open) -> None:
    gallery = reopen()
    gallery.add("Ada", somebody(1), consent="form")
    other = embedding(somebody(1)[0].vector, embedder=7)
    with pytest.raises(GalleryMismatch):
        gallery.identify(other)
    with pytest.raises(GalleryMismatch):
        gallery.verify("Ada", other)
    with pytest.raises(GalleryMismatch):
        gallery.add("Ben", [other], consent="form")
    with pytest.raises(GalleryMismatch):
        somebody(1)[0].similarity(other)


def test_consent_is_asked_for_and_names_are_bounded(reopen: Open) -> None:
    gallery = reopen()
    for name, consent in (("Ada", ""), ("Ada", "  "), ("", "form"), ("A" * 300, "form"), ("A\x1b[31m", "form")):
        with pytest.raises(BadOption):
            gallery.add(name, somebody(1), consent=consent)
    gallery.add("O'Hara; DROP TABLE people", somebody(1), consent="'); --")
    assert gallery.verify("O'Hara; DROP TABLE people", somebody(1)[0]).accepted


ENROL = """
import sys, numpy as np
from tests.client.test_gallery import embedding
from face3d_client.gallery import Gallery
place, key, name, count = sys.argv[1:]
gallery = Gallery.open(place, key or None)
for number in range(int(count)):
    vector = np.random.default_rng([ord(name), number]).normal(size=128)
    gallery.add(f"{name}{number}", [embedding(vector)], consent="form")
    print(f"{name}{number}", flush=True)
"""


def enrolling(place: str, name: str, count: int, key: str = "") -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    command = [sys.executable, "-c", ENROL, place, key, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("key", ["", "secret"])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, key: str) -> None:
    place = str(tmp_path / "gallery.db")
    acknowledged: list[str] = []
    with enrolling(place, "a", 10_000, key) as process:
        assert process.stdout is not None
        for line in process.stdout:
            acknowledged.append(line.strip())
            if len(acknowledged) == 500:
                process.send_signal(signal.SIGKILL)
    with Gallery.open(place, key or None) as gallery:
        enrolled = {person.name: person.faces for person in gallery.people()}
        assert set(acknowledged) <= set(enrolled)
        assert set(enrolled.values()) == {1}
        assert len(enrolled) <= len(acknowledged) + 1
        for name in acknowledged[::50]:
            vector = np.random.default_rng([ord("a"), int(name[1:])]).normal(size=128)
            match = gallery.identify(embedding(vector))
            assert match is not None
            assert match.name == name


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_two_processes_enrol_at_once(tmp_path: Path, engine: str, request: pytest.FixtureRequest) -> None:
    place = str(tmp_path / "gallery.db")
    if engine == "postgres":
        place = request.getfixturevalue("postgres")
        emptied(place)
    processes = [enrolling(place, name, 100) for name in "ab"]
    for process in processes:
        with process:
            process.communicate()
        assert process.returncode == 0
    with Gallery.open(place) as gallery:
        assert len(gallery.people()) == 200


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_deletion_leaves_no_byte_of_a_vector_or_name(tmp_path: Path) -> None:
    with Gallery.open(tmp_path / "gallery.db") as gallery:
        ada, ben = somebody(1, 2), somebody(2, 2)
        gallery.add("Ada Lovelace", ada, consent="form of Ada")
        gallery.add("Ben", ben, consent="form")
        before = contents(tmp_path)
        assert ada[0].vector.tobytes() in before
        assert b"Ada Lovelace" in before
        gallery.remove("Ada Lovelace")
        after = contents(tmp_path)
        assert ben[0].vector.tobytes() in after
        for piece in (ada[0].vector.tobytes()[:32], ada[1].vector.tobytes()[-32:], b"Ada Lovelace", b"form of Ada"):
            assert piece not in after


def test_an_encrypted_gallery_shows_nothing_and_opens_by_its_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "gallery.db"
    face = somebody(1)[0]
    with Gallery.open(path, "secret") as gallery:
        gallery.add("Ada Lovelace", [face], consent="form")
        for piece in (face.vector.tobytes()[:16], b"Ada Lovelace", b"SQLite format"):
            assert piece not in contents(tmp_path)
    for key in (None, "other"):
        with pytest.raises(GalleryError, match="key"):
            Gallery.open(path, key)
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [b"no gallery " * 1000, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_file_that_is_no_gallery_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "gallery.db"
    path.write_bytes(content)
    with pytest.raises(GalleryError):
        Gallery.open(path)
    with pytest.raises(GalleryError):
        Gallery.open(tmp_path / "nowhere" / "gallery.db")


def test_a_server_that_does_not_answer_is_an_error_without_its_password() -> None:
    pytest.importorskip("pg8000")
    with pytest.raises(GalleryError) as error:
        Gallery.open("postgresql://ada:secret@127.0.0.1:1/gallery")
    assert "secret" not in str(error.value)
    with pytest.raises(GalleryError, match="volume"):
        Gallery.open("postgresql://127.0.0.1/gallery", "key")


@pytest.mark.parametrize(
    "address",
    ["postgresql://a:secret@host:port/x", "postgresql://a:secret@h/x?sslmode=maybe", "postgresql://h/x?secret"],
)
def test_an_address_that_is_none_is_refused_without_repeating_it(address: str) -> None:
    pytest.importorskip("pg8000")
    with pytest.raises(BadEndpoint) as error:
        Gallery.open(address)
    assert "secret" not in str(error.value)


def test_thresholds_rise_as_fewer_mistakes_are_allowed() -> None:
    rates = [1e-1, 1e-2, 3e-3, 1e-3, 1e-4, 1e-6]
    thresholds = [threshold_for(rate) for rate in rates]
    assert thresholds == sorted(thresholds)
    assert threshold_for(1e-2, people=10) == pytest.approx(threshold_for(1e-3))
    for wrong in (0, -1, 0.5, float("nan")):
        with pytest.raises(BadOption):
            threshold_for(wrong)
