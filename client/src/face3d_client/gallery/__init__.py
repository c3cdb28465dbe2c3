"""A gallery of people: who is enrolled, who is on a photograph, and nobody where it is nobody of them.

::

    from face3d_client import Face3DClient
    from face3d_client.gallery import Gallery

    with Face3DClient() as client, Gallery.open("gallery.db") as gallery:
        gallery.add("Ada", [client.embed(path) for path in photographs], consent="signed form of 2026-03-01")
        match = gallery.identify(client.embed("visitor.jpg"))
        print(match.name if match else "nobody")

It keeps names, notes of consent and vectors, and nothing of a photograph. `Gallery.open` takes the path of a file
(SQLite with sqlite-vec, encrypted by SQLCipher where a key is given) or the address of a PostgreSQL server with
pgvector. Needs ``pip install face3d-client[gallery]``.
"""

from face3d_client.gallery._gallery import MINIMUM_QUALITY, Gallery, Match, Person
from face3d_client.gallery._thresholds import threshold_for

__all__ = ["MINIMUM_QUALITY", "Gallery", "Match", "Person", "threshold_for"]
