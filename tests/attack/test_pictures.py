"""Hostile pictures of every kind at the real service, while well-behaved neighbours work."""

from __future__ import annotations

import os
import random
import time

import psutil
import pytest

from server.service import Service
from tests.attack import neighbours, pictures
from tests.attack.conftest import MIB
from tests.service import Refusal
from tests.service import Service as Client

# A dozen each time the suite runs, of other decoders each; all of them, as large as the limits allow, by `make soak`.
FEW = (
    *("png_text_bomb", "png_data_in_single_bytes", "apng_frames", "tiff_strips", "tiff_one_tile", "tiff_overlapping"),
    *("jpeg_scans", "jpeg_empty_segments", "jpeg_multi_picture", "bmp_delta", "bmp_end_of_line", "webp_frames"),
)
# Which of the kinds the soak takes, "0:40" for the first forty: where the machine is lent for minutes only.
FIRST, LAST = (int(part) if part else None for part in os.environ.get("FACE3D_SOAK_PICTURES", ":").split(":"))
# Seconds until a hostile picture has its answer. The cage takes 10 s at most (model_repository/preprocess); pictures
# behind each other wait for one another.
ANSWERED_WITHIN = 60.0
# MiB that may stay: the pools in /dev/shm through which Triton and its models exchange tensors grow to what the largest
# picture (195 MiB) needed and do not shrink, in `preprocess`, `align` and the decoders.
_KEPT = 1000


def memory(service: Service) -> int:
    """Bytes of memory that tritonserver and all its processes use; what they share counts once."""
    family = [psutil.Process(service.triton.pid), *psutil.Process(service.triton.pid).children(recursive=True)]
    total = 0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue  # it has ended meanwhile
    return total


def verdict(client: Client, data: bytes) -> str:
    """The tag of the refusal; OK where a picture was taken, else the whole error."""
    try:
        client.ask(data, outputs=("landmarks",), timeout=ANSWERED_WITHIN)
    except Refusal as error:
        return error.tag if error.code == "INVALID_ARGUMENT" and error.tag else f"{error.code}: {error}"
    return "OK"


def send(service: Service, photo: bytes, names: list[str], *, quick: bool) -> None:
    """Send a hostile picture of each kind, one after the other, with four neighbours at work."""
    client = Client(service.grpc, service.triton.grpc)
    client.ask(photo)
    before, slowest, wrong = memory(service), (0.0, ""), {}
    with neighbours.at_work(service.http, service.grpc, photo) as found:
        for name in names:
            data = pictures.KINDS[name](**(pictures.QUICK.get(name, {}) if quick else {}))
            began = time.monotonic()
            answer = verdict(client, data)
            slowest = max(slowest, (time.monotonic() - began, name))
            if answer not in ("BadImage", "ImageTooLarge", "NoFace"):
                wrong[name] = answer
    grown = (memory(service) - before) / MIB
    print(f"\n{len(names)} kinds, slowest {slowest[1]} {slowest[0]:.1f} s, {grown:.0f} MiB more than before; {found}")
    assert not wrong, wrong
    assert not found.lost, found.lost[:10]
    assert len(found.seconds) >= 4
    deadline = time.monotonic() + 30  # what was decoded last is given back when the next comes, or after a while
    while (grown := (memory(service) - before) / MIB) > _KEPT:
        assert time.monotonic() < deadline, f"{grown:.0f} MiB were not given back"
        time.sleep(0.5)


def test_a_dozen_kinds_are_refused_in_words(attacked: Service, photo: bytes) -> None:
    send(attacked, photo, list(FEW), quick=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_kind_at_full_size_is_refused_in_words(attacked: Service, photo: bytes) -> None:
    assert len(pictures.KINDS) >= 60
    names = list(pictures.KINDS)[FIRST:LAST]
    random.Random(5).shuffle(names)
    send(attacked, photo, names, quick=False)
