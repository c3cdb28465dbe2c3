"""The store of many machines: PostgreSQL with pgvector, which compares with every vector, in parallel.

Without an index over the vectors: of a million people HNSW misses the right one in up to two searches of five.
"""

from __future__ import annotations

import getpass
import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import numpy as np

from face3d_client._errors import BadEndpoint, GalleryError, GalleryMismatch
from face3d_client.gallery._store import Record, Vector

__all__ = ["PostgresStore"]

_SCHEMA: Final = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE IF NOT EXISTS face3d_gallery (
  one INTEGER PRIMARY KEY CHECK (one = 1), embedder BIGINT NOT NULL, dimensions INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS face3d_people (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name TEXT NOT NULL UNIQUE, consent TEXT NOT NULL,
  enrolled TIMESTAMPTZ NOT NULL DEFAULT now())
"""
# Of the lock that lets one process at a time make tables: any number that nothing else uses.
_LOCK: Final = 0x66616365
_SECONDS: Final = 600  # for any answer: a vacuum of a million vectors takes minutes


class PostgresStore:
    """A gallery on a PostgreSQL server, from any number of clients.

    Args:
        address: ``postgresql://USER@HOST:PORT/DATABASE``, behind it ``?sslmode=require`` or ``verify-full``, or
            ``?host=`` and the folder of a Unix socket; the password in it or, better, in PGPASSWORD.

    Raises:
        BadEndpoint: it is no such address.
        GalleryError: the package is missing, the server does not answer, or it has not pgvector.
    """

    def __init__(self, address: str) -> None:
        try:
            from pg8000 import native
        except ImportError as error:
            raise GalleryError(
                f"the gallery needs the package {error.name}: pip install 'face3d-client[gallery]'"
            ) from error
        arguments = _arguments(address)
        try:
            self._db: Any = native.Connection(**arguments)
            with self._transaction():
                self._db.run("SELECT pg_advisory_xact_lock(:key)", key=_LOCK)
                for statement in _SCHEMA.split(";"):
                    self._db.run(statement)
        except (native.DatabaseError, native.InterfaceError, OSError) as error:
            detail = error.args[0] if error.args else ""
            reason = detail.get("M", "") if isinstance(detail, dict) else str(error)
            raise GalleryError(f"the gallery's PostgreSQL server cannot be used: {reason}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.run("START TRANSACTION")
        try:
            yield
            self._db.run("COMMIT")
        except BaseException:
            self._db.run("ROLLBACK")
            raise

    def embedder(self) -> tuple[int, int] | None:
        """See `Store.embedder`."""
        rows = self._db.run("SELECT embedder, dimensions FROM face3d_gallery")
        return (int(rows[0][0]), int(rows[0][1])) if rows else None

    def add(self, name: str, consent: str, embedder: int, vectors: Sequence[Vector]) -> None:
        """See `Store.add`."""
        self._belong(embedder, len(vectors[0]))
        with self._transaction():
            self._db.run(
                "INSERT INTO face3d_people (name, consent) VALUES (:name, :consent) ON CONFLICT (name) DO NOTHING",
                name=name,
                consent=consent,
            )
            ((person,),) = self._db.run("SELECT id FROM face3d_people WHERE name = :name FOR UPDATE", name=name)
            for vector in vectors:
                self._db.run(
                    "INSERT INTO face3d_faces (person, vector) VALUES (:person, CAST(:vector AS vector))",
                    person=person,
                    vector=_text(vector),
                )

    def _belong(self, embedder: int, dimensions: int) -> None:
        known = self.embedder()
        if known is None:
            with self._transaction():
                self._db.run("SELECT pg_advisory_xact_lock(:key)", key=_LOCK)
                known = self.embedder()
                if known is None:
                    self._begin(embedder, dimensions)
                    return
        if known != (embedder, dimensions):
            raise GalleryMismatch(
                "the gallery holds vectors of another embedder: enrol everybody anew in a new gallery, or serve the "
                "embedder that it was begun with."
            )

    def _begin(self, embedder: int, dimensions: int) -> None:
        self._db.run(
            "INSERT INTO face3d_gallery VALUES (1, :embedder, :dimensions)", embedder=embedder, dimensions=dimensions
        )
        self._db.run(
            "CREATE TABLE face3d_faces (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, person BIGINT NOT NULL "
            f"REFERENCES face3d_people (id) ON DELETE CASCADE, vector vector({int(dimensions)}) NOT NULL)"
        )
        self._db.run("CREATE INDEX face3d_faces_person ON face3d_faces (person)")

    def nearest(self, vector: Vector, count: int) -> list[tuple[str, float]]:
        """See `Store.nearest`."""
        if self.embedder() is None:
            return []
        # <#> is the negative inner product: of vectors of length 1, the negative cosine.
        rows = self._db.run(
            "SELECT people.name, found.cosine FROM (SELECT person, -(vector <#> CAST(:vector AS vector)) AS cosine "
            "FROM face3d_faces ORDER BY vector <#> CAST(:vector AS vector) LIMIT :count) AS found "
            "JOIN face3d_people AS people ON people.id = found.person ORDER BY found.cosine DESC",
            vector=_text(vector),
            count=count,
        )
        return [(str(name), float(cosine)) for name, cosine in rows]

    def vectors(self, name: str) -> list[Vector]:
        """See `Store.vectors`."""
        if self.embedder() is None:
            return []
        rows = self._db.run(
            "SELECT CAST(vector AS text) FROM face3d_people AS people JOIN face3d_faces AS faces "
            "ON faces.person = people.id WHERE name = :name ORDER BY faces.id",
            name=name,
        )
        return [np.array(row[0].strip("[]").split(","), np.float32) for row in rows]

    def people(self) -> Iterator[Record]:
        """See `Store.people`."""
        faces = "(SELECT count(*) FROM face3d_faces WHERE person = people.id)" if self.embedder() else "0"
        rows = self._db.run(
            "SELECT name, consent, to_char(enrolled AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), "
            f'{faces} FROM face3d_people AS people ORDER BY name COLLATE "C"'
        )
        return (Record(str(a), str(b), str(c), int(d)) for a, b, c, d in rows)

    def count(self) -> int:
        """See `Store.count`."""
        return int(self._db.run("SELECT count(*) FROM face3d_people")[0][0])

    def remove(self, name: str) -> bool:
        """See `Store.remove`; the table is vacuumed, and the server's logs and backups are its operator's."""
        gone = bool(self._db.run("DELETE FROM face3d_people WHERE name = :name RETURNING id", name=name))
        if gone and self.embedder():
            self._db.run("VACUUM face3d_faces")
            self._db.run("VACUUM face3d_people")
        return gone

    def close(self) -> None:
        """See `Store.close`; may be called twice."""
        if self._db is not None:
            self._db.close()
            self._db = None


def _arguments(address: str) -> dict[str, Any]:
    """The address in pg8000's words; no part of it is repeated in an error, as it may hold a password."""
    try:
        parts = urlsplit(address)
        port = parts.port or 5432
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise BadEndpoint("the gallery's address is not of the form postgresql://USER@HOST/DATABASE.") from error
    mode, folder = options.pop("sslmode", None), options.pop("host", None)
    if options or mode not in (None, "disable", "require", "verify-full"):
        raise BadEndpoint(
            "behind its `?` the gallery's address takes sslmode (disable, require, verify-full) and host."
        )
    user = unquote(parts.username or "") or os.environ.get("PGUSER") or getpass.getuser()
    arguments: dict[str, Any] = {
        "user": user,
        "password": unquote(parts.password or "") or os.environ.get("PGPASSWORD"),
        "database": unquote(parts.path.strip("/")) or user,
        "timeout": _SECONDS,
    }
    if folder:
        return arguments | {"unix_sock": f"{folder}/.s.PGSQL.{port}"}
    context: ssl.SSLContext | bool | None = {"disable": False, "verify-full": True}.get(mode or "")
    if mode == "require":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return arguments | {"host": parts.hostname or "localhost", "port": port, "ssl_context": context}


def _text(vector: Vector) -> str:
    """A vector in pgvector's words; nine digits give every float32 back."""
    return "[" + ",".join(f"{value:.9g}" for value in vector.tolist()) + "]"
