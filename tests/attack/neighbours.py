"""Well-behaved neighbours: clients with the shipped package and its default retries, while others attack."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from face3d_client import Face3DClient, Face3DError, Retry
from numpy.typing import NDArray

# How far (px) landmarks may lie from those of the same photograph alone: batches of other sizes round otherwise.
_TOLERANCE = 0.05


@dataclass
class Neighbours:
    """What became of their requests.

    Attributes:
        seconds: of each answered request, with all its retries.
        lost: the errors of those that were not answered, or not rightly.
    """

    seconds: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def percentile(self, share: float, since: int = 0) -> float:
        """Seconds below which this share of the requests from number ``since`` on were answered."""
        taken = sorted(self.seconds[since:])
        return taken[min(len(taken) - 1, int(share * len(taken)))]

    def __str__(self) -> str:
        if not self.seconds:
            return f"neighbours: none answered, {len(self.lost)} lost"
        return (
            f"neighbours: {len(self.seconds)} answered, {len(self.lost)} lost; "
            f"median {statistics.median(self.seconds):.2f} s, longest {max(self.seconds):.2f} s"
        )


@contextlib.contextmanager
def at_work(
    http: str,
    grpc: str,
    photo: bytes,
    count: int = 4,
    least: int = 1,
    patience: float | None = None,
    pause: float = 0.0,
) -> Iterator[Neighbours]:
    """Have ``count`` clients ask, one request at a time each, half of them over HTTP.

    Args:
        http, grpc: the endpoints for clients, ``host:port``.
        photo: the bytes of a file with a face.
        least: requests that each client makes at least.
        patience: seconds for which they ask a server again that is down; None for the package's default, which outlives
            a restart on a machine that is not busy otherwise.
        pause: seconds between an answer and the next request.
    """
    found, ended = Neighbours(), threading.Event()
    # An address that has never answered is soon given up, and is no neighbour's yet.
    connected = threading.Barrier(count + 1, timeout=300)
    retry = None if patience is None else Retry(outage=patience)
    expected: list[NDArray[np.float32]] = []
    with Face3DClient(f"grpc://{grpc}", retry=retry) as client:
        expected.append(client.reconstruct(photo, outputs=["landmarks"]).landmarks)

    def work(url: str) -> None:
        with Face3DClient(url, timeout=60 + (patience or 0), retry=retry) as client:
            client.wait_ready()
            connected.wait()
            made = 0
            while made < least or not ended.is_set():
                made += 1
                ended.wait(pause)
                began = time.monotonic()
                try:
                    landmarks = client.reconstruct(photo, outputs=["landmarks"]).landmarks
                    if not np.allclose(landmarks, expected[0], atol=_TOLERANCE):
                        found.lost.append("other landmarks than alone")
                    found.seconds.append(time.monotonic() - began)
                except Face3DError as error:
                    found.lost.append(f"{type(error).__name__}: {error}")

    urls = [f"http://{http}" if index % 2 else f"grpc://{grpc}" for index in range(count)]
    threads = [threading.Thread(target=work, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    connected.wait()
    try:
        yield found
    finally:
        ended.set()
        for thread in threads:
            thread.join()
