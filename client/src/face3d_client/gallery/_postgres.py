"""The store of many machines: PostgreSQL with pgvector, whose HNSW index finds the nearest vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from face3d_client._errors import GalleryError, GalleryMismatch
from face3d_client.gallery._store import Record, Vector

__all__ = ["PostgresStore"]

_SCHEMA: Final = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE IF NOT EXISTS face3d_gallery (
  one INTEGER PRIMARY KEY CHECK (one = 1), embedder BIGINT NOT NULL, dimensions INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS face3d_people (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name TEXT NOT NULL UNIQUE, consent TEXT NOT NULL,
  enrolled TIMESTAMPTZ NOT NULL DEFAULT now());
"""
# Of the lock that lets one process at a time make tables: any number that nothing else uses.
_LOCK: Final = 0x66616365
# Candidates that a search keeps (pgvector's default is 40): recall of the first on 1 M clustered vectors needs more.
_EF_SEARCH: Final = 200


class PostgresStore:
    """A gallery on a PostgreSQL server, from any number of clients.

    Args:
        address: ``postgresql://USER@HOST/DATABASE``, in psycopg's words; the password rather from PGPASSWORD or
            ~/.pgpass than in it.

    Raises:
        GalleryError: the packages are missing, the server does not answer, or it has not pgvector.
    """

    def __init__(self, address: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise GalleryError(
                f"the gallery needs the package {error.name}: pip install 'face3d-client[gallery]'"
            ) from error
        try:
            self._db: Any = psycopg.connect(address, autocommit=True, connect_timeout=10)
            with self._db.transaction():
                self._db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
            self._db.execute(f"SET hnsw.ef_search = {_EF_SEARCH}")
        except psycopg.Error as error:
            reason = str(error).strip().splitlines()[0]
            raise GalleryError(f"the gallery's PostgreSQL server cannot be used: {reason}") from error

    def embedder(self) -> tuple[int, int] | None:
        """See `Store.embedder`."""
        row = self._db.execute("SELECT embedder, dimensions FROM face3d_gallery").fetchone()
        return None if row is None else (int(row[0]), int(row[1]))

    def add(self, name: str, consent: str, embedder: int, vectors: Sequence[Vector]) -> None:
        """See `Store.add`."""
        self._belong(embedder, len(vectors[0]))
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO face3d_people (name, consent) VALUES (%s, %s) ON CONFLICT (name) DO NOTHING",
                (name, consent),
            )
            (person,) = self._db.execute("SELECT id FROM face3d_people WHERE name = %s FOR UPDATE", (name,)).fetchone()
            for vector in vectors:
                self._db.execute(
                    "INSERT INTO face3d_faces (person, vector) VALUES (%s, %s::vector)", (person, _text(vector))
                )

    def _belong(self, embedder: int, dimensions: int) -> None:
        known = self.embedder()
        if known is None:
            with self._db.transaction():
                self._db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
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
        self._db.execute("INSERT INTO face3d_gallery VALUES (1, %s, %s)", (embedder, dimensions))
        self._db.execute(
            "CREATE TABLE face3d_faces (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, person BIGINT NOT NULL "
            f"REFERENCES face3d_people (id) ON DELETE CASCADE, vector vector({int(dimensions)}) NOT NULL)"
        )
        self._db.execute("CREATE INDEX face3d_faces_person ON face3d_faces (person)")
        self._db.execute("CREATE INDEX face3d_faces_vector ON face3d_faces USING hnsw (vector vector_ip_ops)")

    def nearest(self, vector: Vector, count: int) -> list[tuple[str, float]]:
        """See `Store.nearest`."""
        if self.embedder() is None:
            return []
        # <#> is the negative inner product: of vectors of length 1, the negative cosine.
        rows = self._db.execute(
            "SELECT people.name, found.cosine FROM (SELECT person, -(vector <#> %s::vector) AS cosine "
            "FROM face3d_faces ORDER BY vector <#> %s::vector LIMIT %s) AS found "
            "JOIN face3d_people AS people ON people.id = found.person ORDER BY found.cosine DESC",
            (_text(vector), _text(vector), count),
        )
        return [(str(name), float(cosine)) for name, cosine in rows]

    def vectors(self, name: str) -> list[Vector]:
        """See `Store.vectors`."""
        if self.embedder() is None:
            return []
        rows = self._db.execute(
            "SELECT vector::text FROM face3d_people AS people JOIN face3d_faces AS faces ON faces.person = people.id "
            "WHERE name = %s ORDER BY faces.id",
            (name,),
        )
        return [np.array(row[0].strip("[]").split(","), np.float32) for row in rows]

    def people(self) -> Iterator[Record]:
        """See `Store.people`."""
        faces = "(SELECT count(*) FROM face3d_faces WHERE person = people.id)" if self.embedder() else "0"
        rows = self._db.execute(
            "SELECT name, consent, to_char(enrolled AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), "
            f'{faces} FROM face3d_people AS people ORDER BY name COLLATE "C"'
        )
        return (Record(str(a), str(b), str(c), int(d)) for a, b, c, d in rows)

    def count(self) -> int:
        """See `Store.count`."""
        return int(self._db.execute("SELECT count(*) FROM face3d_people").fetchone()[0])

    def remove(self, name: str) -> bool:
        """See `Store.remove`; the table is vacuumed, and the server's logs and backups are its operator's."""
        gone = self._db.execute("DELETE FROM face3d_people WHERE name = %s", (name,)).rowcount > 0
        if gone and self.embedder():
            self._db.execute("VACUUM face3d_faces")
            self._db.execute("VACUUM face3d_people")
        return bool(gone)

    def close(self) -> None:
        """See `Store.close`."""
        self._db.close()


def _text(vector: Vector) -> str:
    """A vector in pgvector's words; nine digits give every float32 back."""
    return "[" + ",".join(f"{value:.9g}" for value in vector.tolist()) + "]"
