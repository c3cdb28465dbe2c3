"""`python -m perf.gallery`: search of a large gallery: recall of the first, latency and memory, on either engine.

    python -m perf.gallery sqlite --people 1000000 --kind clustered
    python -m perf.gallery postgresql --address postgresql://USER@HOST/DATABASE    # an empty database

Everybody has one vector of 128 numbers. `random`: directions at random. `clustered`: 1,000 groups of people who look
alike, with a cosine of 0.4 to each other, which the default threshold of one comparison would take for the same person.
A search is for another photograph of an enrolled person, with a cosine of 0.6 to the first one.

The tables are the gallery's own; they are filled in bulk, because a million enrolments of their own, each safe on the
disk, would take most of an hour. Recall is judged against the exact nearest vector, by a product of matrices. Without
--address PostgreSQL is the one of the wheel `pgserver`, with its defaults.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

import numpy as np
from face3d_client.gallery._gallery import _NEAREST
from face3d_client.gallery._postgres import PostgresStore
from face3d_client.gallery._sqlite import SqliteStore
from face3d_client.gallery._store import Store
from numpy.typing import NDArray

from perf import machine, store

Floats = NDArray[np.float32]

DIMENSIONS: Final = 128
GROUPS: Final = 1_000
ALIKE: Final = 0.4
"""Cosine of two people of one group."""
SAME: Final = 0.6
"""Cosine of two photographs of one person: the median of SFace's on photographs of the press."""
EMBEDDER: Final = 1
CHUNK: Final = 100_000


@dataclass(frozen=True)
class Figures:
    """What a gallery does with so many people.

    Attributes:
        recall: part of the searches whose first answer is the exact nearest vector.
        p50_ms, p99_ms: of a search, one after the other.
        processor_ms: mean processor time of a search, of this process or of the server's without its parallel workers.
        fill_seconds: until the vectors are in the tables.
        disk_mb: tables and indexes.
        memory_mb: what this process (an embedded engine) or the server's processes hold more after the searches
            than before, the system's cache of files left out.
    """

    engine: str
    kind: str
    people: int
    searches: int
    recall: float
    p50_ms: float
    p99_ms: float
    processor_ms: float
    fill_seconds: float
    disk_mb: float
    memory_mb: float


def unit(vectors: Floats) -> Floats:
    """Scale vectors [n,D] to length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def people(kind: str, count: int, rng: np.random.Generator) -> Floats:
    """Return one vector a person, float32 [count,128] of length 1."""
    own = unit(rng.standard_normal((count, DIMENSIONS), np.float32))
    if kind == "random":
        return own
    groups = unit(rng.standard_normal((GROUPS, DIMENSIONS), np.float32))
    return unit(ALIKE**0.5 * groups[rng.integers(0, GROUPS, count)] + (1 - ALIKE) ** 0.5 * own)


def photographs(vectors: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Return other photographs of some of the people, float32 [count,128], with a cosine of `SAME` to the first."""
    chosen = vectors[rng.choice(len(vectors), count, replace=False)]
    noise = rng.standard_normal(chosen.shape, np.float32)
    beside = unit(noise - (noise * chosen).sum(1, keepdims=True) * chosen)
    return unit(SAME * chosen + (1 - SAME**2) ** 0.5 * beside)


def nearest(vectors: Floats, searched: Floats) -> NDArray[np.int64]:
    """Return the place of the exact nearest vector of each that is searched for, int64 [m]."""
    best = np.full(len(searched), -2, np.float32)
    place = np.zeros(len(searched), np.int64)
    for start in range(0, len(vectors), CHUNK):
        cosines = searched @ vectors[start : start + CHUNK].T
        first = cosines.argmax(1)
        value = cosines[np.arange(len(searched)), first]
        place = np.where(value > best, first + start, place)
        best = np.maximum(best, value)
    return place


@dataclass(frozen=True)
class Filled:
    """A gallery with everybody in it: its store, the process that searches, seconds, and megabytes on the disk."""

    store: Store
    process: int
    fill_seconds: float
    disk_mb: float


@contextmanager
def sqlite(vectors: Floats, folder: Path) -> Iterator[Filled]:
    """Fill a gallery file in a folder."""
    path = folder / "gallery.db"
    opened = SqliteStore(path)
    opened.add("0", "measured", EMBEDDER, [vectors[0]])
    start = time.perf_counter()
    with opened._writing():
        for first in range(1, len(vectors), CHUNK):
            part = range(first, min(first + CHUNK, len(vectors)))
            rows = [(i + 1, str(i)) for i in part]
            opened._db.executemany("INSERT INTO people (id, name, consent) VALUES (?, ?, 'measured')", rows)
            opened._db.executemany("INSERT INTO faces (id, person) VALUES (?, ?)", [(i + 1, i + 1) for i in part])
            opened._db.executemany(
                "INSERT INTO vectors (rowid, vector) VALUES (?, ?)", [(i + 1, vectors[i].tobytes()) for i in part]
            )
    seconds = time.perf_counter() - start
    opened.close()
    reopened = SqliteStore(path)
    try:
        yield Filled(reopened, os.getpid(), seconds, path.stat().st_size / 2**20)
    finally:
        reopened.close()


@contextmanager
def postgresql(vectors: Floats, address: str, process: int) -> Iterator[Filled]:
    """Fill an empty database; its gallery is dropped afterwards."""
    opened = PostgresStore(address)
    run: Callable[..., list[list[int]]] = opened._db.run
    if opened.embedder() is not None:
        opened.close()
        raise SystemExit("error: there is a gallery in this database: name an empty one.")
    try:
        opened.add("0", "measured", EMBEDDER, [vectors[0]])
        start = time.perf_counter()
        for first in range(1, len(vectors), CHUNK):
            part = range(first, min(first + CHUNK, len(vectors)))
            run("COPY face3d_people (name, consent) FROM STDIN", stream=io.BytesIO(_names(part)))
            content = _binary(np.arange(first + 1, first + 1 + len(part)), vectors[part.start : part.stop])
            run("COPY face3d_faces (person, vector) FROM STDIN (FORMAT binary)", stream=io.BytesIO(content))
        filled = time.perf_counter()
        run("VACUUM ANALYZE face3d_faces")
        tables = " + ".join(f"pg_total_relation_size('{name}')" for name in ("face3d_faces", "face3d_people"))
        ((disk,),) = run(f"SELECT {tables}")
        yield Filled(opened, process, filled - start, disk / 2**20)
    finally:
        run("DROP TABLE IF EXISTS face3d_faces, face3d_people, face3d_gallery")
        opened.close()


def _names(part: range) -> bytes:
    return ("\n".join(f"{i}\tmeasured" for i in part) + "\n").encode()


def _binary(persons: NDArray[np.int64], vectors: Floats) -> bytes:
    """Write rows (person, vector) as PostgreSQL's COPY reads them: each value behind its length, big-endian.

    A vector of pgvector's is its length and a reserved number, two bytes each, and float32.
    """
    length = vectors.shape[1]
    layout = [("columns", ">i2"), ("size", ">i4"), ("person", ">i8"), ("bytes", ">i4"), ("length", ">i2")]
    rows = np.zeros(len(vectors), np.dtype([*layout, ("reserved", ">i2"), ("vector", ">f4", length)]))
    rows["columns"], rows["size"], rows["bytes"], rows["length"] = 2, 8, 4 + 4 * length, length
    rows["person"], rows["vector"] = persons, vectors
    return b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows.tobytes() + b"\xff\xff"


def measure(filled: Filled, engine: str, kind: str, vectors: Floats, searched: Floats) -> Figures:
    """Search one photograph after the other, as the gallery does it."""
    exact = nearest(vectors, searched)
    memory, processor = machine.resident_mb(filled.process), machine.cpu_seconds(filled.process)
    right, seconds = 0, []
    for vector, place in zip(searched, exact, strict=True):
        start = time.perf_counter()
        found = filled.store.nearest(vector, _NEAREST)
        seconds.append(time.perf_counter() - start)
        right += found[0][0] == str(place)
    p50, p99 = 1000 * np.percentile(seconds, (50, 99))
    used = machine.cpu_seconds(filled.process) - processor
    return Figures(
        engine=engine,
        kind=kind,
        people=len(vectors),
        searches=len(searched),
        recall=right / len(searched),
        p50_ms=round(float(p50), 2),
        p99_ms=round(float(p99), 2),
        processor_ms=round(1000 * used / len(searched), 2),
        fill_seconds=round(filled.fill_seconds, 1),
        disk_mb=round(filled.disk_mb, 1),
        memory_mb=round(machine.resident_mb(filled.process) - memory, 1),
    )


@contextmanager
def server(address: str | None, folder: Path) -> Iterator[tuple[str, int]]:
    """Return address and process of PostgreSQL: the one named, which is measured without its processes, or our own."""
    if address is not None:
        yield address, os.getpid()
        return
    with import_module("pgserver").get_server(folder / "postgres", cleanup_mode="stop") as own:
        yield own.get_uri(), int(own.get_pid())


@contextmanager
def gallery(engine: str, address: str | None, vectors: Floats, folder: Path) -> Iterator[Filled]:
    """Fill a gallery of either engine."""
    with contextlib.ExitStack() as stack:
        if engine == "sqlite":
            yield stack.enter_context(sqlite(vectors, folder))
        else:
            place, process = stack.enter_context(server(address, folder))
            yield stack.enter_context(postgresql(vectors, place, process))


def main(words: list[str] | None = None) -> None:
    """Measure, print the figures, and keep them in build/perf."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.gallery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", choices=["sqlite", "postgresql"])
    parser.add_argument("--kind", choices=["random", "clustered"], default="clustered")
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--searches", type=int, default=1_000)
    parser.add_argument("--address", help="of an empty PostgreSQL database (default: a server of the wheel pgserver)")
    options = parser.parse_args(words)
    rng = np.random.default_rng(0)
    vectors = people(options.kind, options.people, rng)
    searched = photographs(vectors, options.searches, rng)
    with (
        tempfile.TemporaryDirectory(prefix="face3d-gallery-") as folder,
        gallery(options.engine, options.address, vectors, Path(folder)) as filled,
    ):
        figures = measure(filled, options.engine, options.kind, vectors, searched)
    store.save(f"gallery-{options.engine}-{options.kind}", **asdict(figures))
    print(json.dumps(asdict(figures), indent=1))


if __name__ == "__main__":
    main()
