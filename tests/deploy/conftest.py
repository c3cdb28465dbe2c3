"""A history of the real server's pages under a little mixed traffic, made once."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest
from PIL import Image

from deploy.exposition import scrape
from server.control import Control
from server.service import Service as RunningService
from server.supervise import Supervisor, what_to_probe
from tests.deploy.history import History
from tests.service import Refusal, Service, file_of

PAGES = 7


@pytest.fixture(scope="session")
def history(running_service: RunningService, portrait_bytes: bytes) -> History:
    """Seven pages; between two of them: three photographs answered, one without a face, one that is no picture."""
    server = running_service.triton
    service = Service(server.grpc)
    control = Control(server.http)
    targets, more = what_to_probe(control), running_service.gateway_metrics
    supervisor = Supervisor(control, targets, server.pid, more_metrics=more)
    empty = file_of(Image.fromarray(np.full((300, 300, 3), 127, np.uint8)))

    def ask(image: bytes) -> None:
        with contextlib.suppress(Refusal):
            service.ask(image)

    for image in (portrait_bytes, empty, b"x"):  # every counter exists before the first page
        ask(image)
    supervisor.step()
    service.counts()  # settled
    made = History([scrape(server.metrics)], [supervisor.metrics()])
    for _ in range(PAGES - 1):
        for image in (portrait_bytes, portrait_bytes, portrait_bytes, empty, b"x"):
            ask(image)
        made.good += 3
        for reason in ("NoFace", "BadImage"):
            made.refused[reason] = made.refused.get(reason, 0) + 1
        time.sleep(0.5)  # Triton counts a request a moment after it was answered
        made.pages.append(scrape(server.metrics))
        made.supervisor.append(supervisor.metrics())
    return made
