"""The embedded store: SQLite with sqlite-vec, by SQLCipher's build, which encrypts the whole file where a key is given.

sqlite-vec compares with every vector: exact, with no index that would have to be built, kept in memory or repaired.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from face3d_client._errors import GalleryError, GalleryMismatch
from face3d_client.gallery._store import Record, Vector

__all__ = ["SqliteStore"]

_BUSY_MS: Final = 60_000  # how long a writer waits for the others; one enrolment takes milliseconds
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS gallery (one INTEGER PRIMARY KEY CHECK (one = 1), embedder INTEGER, dimensions INTEGER);
CREATE TABLE IF NOT EXISTS people (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, consent TEXT NOT NULL,
  enrolled TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')));
CREATE TABLE IF NOT EXISTS faces (
  id INTEGER PRIMARY KEY, person INTEGER NOT NULL REFERENCES people (id) ON DELETE CASCADE);
CREATE INDEX IF NOT EXISTS faces_person ON faces (person);
"""


class SqliteStore:
    """A gallery in one file.

    Args:
        path: of the file, which is made when missing, readable by its owner alone.
        key: passphrase by which the file is encrypted (AES-256, SQLCipher); None: it is not.

    Raises:
        GalleryError: the packages are missing, the file is none of these, or the key is another.
    """

    def __init__(self, path: Path, key: str | None = None) -> None:
        try:
            import sqlite_vec
            from sqlcipher3 import dbapi2
        except ImportError as error:
            raise GalleryError(
                f"the gallery needs the package {error.name}: pip install 'face3d-client[gallery]'"
            ) from error
        self._error: type[Exception] = dbapi2.Error
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db: Any = dbapi2.connect(str(path), isolation_level=None, timeout=_BUSY_MS / 1000)
        except OSError as error:
            raise GalleryError(f"the gallery {path} cannot be opened: {error.strerror}.") from error
        try:
            if key is not None:
                self._db.execute("PRAGMA key = '" + key.replace("'", "''") + "'")
            self._db.enable_load_extension(True)
            sqlite_vec.load(self._db)
            self._db.enable_load_extension(False)
            self._prepare()
        except dbapi2.Error as error:
            self._db.close()
            raise GalleryError(
                f"the gallery {path} cannot be read ({error}): it is no gallery, or its key is another."
            ) from error

    def _prepare(self) -> None:
        self._db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        self._enter_wal()
        # What is acknowledged survives a loss of power; what is deleted is overwritten.
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.execute("PRAGMA foreign_keys = ON")
        with self._writing():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)

    def _enter_wal(self) -> None:
        """Switch to the write-ahead log; of processes that do so at once SQLite lets one in, the others try again."""
        end = time.monotonic() + _BUSY_MS / 1000
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except self._error as error:
                # The busy timeout does not hold for this statement.
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
            time.sleep(0.01)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def embedder(self) -> tuple[int, int] | None:
        """See `Store.embedder`."""
        row = self._db.execute("SELECT embedder, dimensions FROM gallery").fetchone()
        return None if row is None else (int(row[0]), int(row[1]))

    def add(self, name: str, consent: str, embedder: int, vectors: Sequence[Vector]) -> None:
        """See `Store.add`."""
        with self._writing():
            self._belong(embedder, len(vectors[0]))
            self._db.execute(
                "INSERT INTO people (name, consent) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (name, consent)
            )
            (person,) = self._db.execute("SELECT id FROM people WHERE name = ?", (name,)).fetchone()
            for vector in vectors:
                face = self._db.execute("INSERT INTO faces (person) VALUES (?)", (person,)).lastrowid
                self._db.execute("INSERT INTO vectors (rowid, vector) VALUES (?, ?)", (face, _bytes(vector)))

    def _belong(self, embedder: int, dimensions: int) -> None:
        known = self.embedder()
        if known is None:
            self._db.execute("INSERT INTO gallery VALUES (1, ?, ?)", (embedder, dimensions))
            self._db.execute(
                "CREATE VIRTUAL TABLE vectors USING vec0 "
                f"(vector float[{int(dimensions)}] distance_metric=cosine, chunk_size=1024)"
            )
        elif known != (embedder, dimensions):
            raise GalleryMismatch(
                "the gallery holds vectors of another embedder: enrol everybody anew in a new gallery, or serve the "
                "embedder that it was begun with."
            )

    def nearest(self, vector: Vector, count: int) -> list[tuple[str, float]]:
        """See `Store.nearest`."""
        if self.embedder() is None:
            return []
        rows = self._db.execute(
            "SELECT people.name, found.distance FROM "
            "(SELECT rowid, distance FROM vectors WHERE vector MATCH ? AND k = ?) AS found "
            "JOIN faces ON faces.id = found.rowid JOIN people ON people.id = faces.person ORDER BY found.distance",
            (_bytes(vector), count),
        )
        return [(str(name), 1 - float(distance)) for name, distance in rows]

    def vectors(self, name: str) -> list[Vector]:
        """See `Store.vectors`."""
        if self.embedder() is None:
            return []
        rows = self._db.execute(
            "SELECT vectors.vector FROM people JOIN faces ON faces.person = people.id "
            "JOIN vectors ON vectors.rowid = faces.id WHERE people.name = ?",
            (name,),
        )
        return [np.frombuffer(row[0], np.float32) for row in rows]

    def people(self) -> Iterator[Record]:
        """See `Store.people`."""
        rows = self._db.execute(
            "SELECT name, consent, enrolled, (SELECT count(*) FROM faces WHERE person = people.id) FROM people "
            "ORDER BY name"
        )
        return (Record(str(a), str(b), str(c), int(d)) for a, b, c, d in rows)

    def count(self) -> int:
        """See `Store.count`."""
        return int(self._db.execute("SELECT count(*) FROM people").fetchone()[0])

    def remove(self, name: str) -> bool:
        """See `Store.remove`."""
        with self._writing():
            row = self._db.execute("SELECT id FROM people WHERE name = ?", (name,)).fetchone()
            if row is None:
                return False
            faces = self._db.execute("SELECT id FROM faces WHERE person = ?", row).fetchall()
            for face in faces:
                # sqlite-vec only marks a row of a chunk as free; zeros first.
                zeros = bytes(4 * (self.embedder() or (0, 0))[1])
                self._db.execute("UPDATE vectors SET vector = ? WHERE rowid = ?", (zeros, face[0]))
                self._db.execute("DELETE FROM vectors WHERE rowid = ?", face)
            self._db.execute("DELETE FROM people WHERE id = ?", row)
        # The log of changes still holds what was deleted; where somebody reads it, the last one to close empties it.
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return True

    def close(self) -> None:
        """See `Store.close`."""
        self._db.close()


def _bytes(vector: Vector) -> bytes:
    return np.ascontiguousarray(vector, "<f4").tobytes()
