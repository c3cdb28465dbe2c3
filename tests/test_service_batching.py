"""Many clients at once: right answers, in batches, and a queue that says no instead of growing."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.embedded import EmbeddedServer
from server.service import Service as RunningService
from tests.service import Refusal, Service, file_of, picture


@pytest.fixture(scope="module")
def service(running_service: RunningService) -> Service:
    return Service(running_service.grpc, running_service.triton.grpc)


@pytest.fixture(scope="module")
def files(portrait_bytes: bytes, portrait_jpeg: bytes) -> list[bytes]:
    """Sixteen different pictures of many sizes: both portraits, mirrored, scaled, as JPEG."""
    pictures = []
    for index in range(16):
        photo = picture(portrait_jpeg if index % 2 else portrait_bytes)
        if index % 4 >= 2:
            photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        scale = 0.8 + 0.15 * (index // 4)
        photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
        pictures.append(file_of(photo, "JPEG", quality=90))
    return pictures


ROUNDS = 4
OUTPUTS = ("face", "camera", "coefficients", "vertices", "landmarks", "mesh")


def test_sixteen_clients_at_once_get_their_own_right_answers_in_batches(service: Service, files: list[bytes]) -> None:
    alone = [service.ask(data, outputs=OUTPUTS) for data in files]
    before = service.counts()
    with ThreadPoolExecutor(16) as pool:  # several rounds: on a busy machine the sixteen of one come one by one
        together = list(pool.map(lambda data: service.ask(data, outputs=OUTPUTS), files * ROUNDS))
    after = service.counts()
    for one, other in zip(alone * ROUNDS, together, strict=True):
        np.testing.assert_allclose(other["face"], one["face"], atol=0.05)
        np.testing.assert_allclose(other["camera"], one["camera"], atol=0.05)
        # Networks may round differently in a batch.
        np.testing.assert_allclose(other["coefficients"], one["coefficients"], atol=0.05)
        np.testing.assert_allclose(other["vertices"], one["vertices"], atol=0.5)
        np.testing.assert_allclose(other["landmarks"], one["landmarks"], atol=0.5)
    for leaf in ("preprocess", "detector"):
        inferences, executions = (after[leaf][i] - before[leaf][i] for i in (0, 1))
        assert inferences == 16 * ROUNDS
        assert inferences / executions > 1, f"{leaf} ran {executions} times for {inferences} pictures"


@pytest.mark.slow
def test_a_flood_is_refused_in_part_and_the_rest_is_served(
    service: Service, server: EmbeddedServer, files: list[bytes]
) -> None:
    """Far more at once than the queues hold: every request ends, as an answer or as UNAVAILABLE.

    No queue has a bound of its own: preprocess keeps what waits behind it short.
    """
    waiting: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            page = urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10).read().decode()
            counts = re.findall(
                r'^nv_inference_pending_request_count\{model="(?:detector|texture)".*\} (\d+)', page, re.M
            )
            waiting.append(sum(map(int, counts)))

    def send(index: int) -> str:
        try:
            service.ask(files[index % 16], outputs=("coefficients",))
        except Refusal as error:
            return error.code
        return "served"

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(160) as pool:
        ends = Counter(pool.map(send, range(320)))
    over.set()
    watcher.join()
    # 64, and what preprocess decodes until it looks again.
    assert 0 < max(waiting) <= 64 + 32
    assert set(ends) <= {"served", "UNAVAILABLE"}
    assert ends["served"] >= 64
    assert service.ask(files[0], outputs=("face",))["face"][4] > 0.9


@pytest.mark.parametrize("option", [{"pose": "x"}, {"texture_size": 1}, {"face": 9}])
def test_requests_that_fail_in_the_middle_of_the_chain_do_not_bring_the_server_down(
    service: Service, files: list[bytes], option: dict[str, Any]
) -> None:
    """Steps side by side would: each sent its own error, and Triton 2.51 freed the request at the first."""

    def send(data: bytes) -> str:
        try:
            service.ask(data, **option)
        except Refusal as error:
            return error.tag
        return "served"

    with ThreadPoolExecutor(8) as pool:
        ends = Counter(pool.map(send, files))
    assert set(ends) <= {"BadOption", "NoSuchFace"}
    assert service.ask(files[0], outputs=("face",))["face"][4] > 0.9


@pytest.mark.parametrize("timeout", [0.02, 0.1, 0.25])
def test_clients_that_hang_up_leave_the_server_well(service: Service, files: list[bytes], timeout: float) -> None:
    def send(data: bytes) -> str:
        try:
            service.ask(data, timeout=timeout)
        except Refusal as error:
            return error.code
        return "served"

    with ThreadPoolExecutor(8) as pool:
        ends = Counter(pool.map(send, files))
    assert set(ends) <= {"DEADLINE_EXCEEDED", "CANCELLED", "served"}
    assert service.ask(files[0], outputs=("face",))["face"][4] > 0.9
