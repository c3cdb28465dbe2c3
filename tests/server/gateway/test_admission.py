"""Places and bytes are given back whatever becomes of a request."""

from __future__ import annotations

import asyncio

import pytest

from server.gateway.admission import Admission
from server.gateway.refusal import Refused


async def _request(admission: Admission, size: int, ended: asyncio.Event) -> None:
    ticket = admission.ticket()
    try:
        await ticket.hold(size)
        await ended.wait()
    finally:
        ticket.close()


def test_requests_that_are_cancelled_together_give_everything_back() -> None:
    async def run() -> tuple[int, int]:
        admission = Admission(requests=20, held=100)
        tasks = [asyncio.create_task(_request(admission, 40, asyncio.Event())) for _ in range(12)]
        await asyncio.sleep(0.01)
        assert (admission.in_flight, admission.held) == (12, 80)
        for task in tasks:  # as when their connection ends: none of them runs in between
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(admission.idle(), 1)
        return admission.in_flight, admission.held

    assert asyncio.run(run()) == (0, 0)


def test_who_waits_behind_cancelled_requests_gets_the_room_that_they_leave() -> None:
    async def run() -> None:
        admission, ended = Admission(requests=20, held=100), asyncio.Event()
        before = [asyncio.create_task(_request(admission, 60, asyncio.Event())) for _ in range(5)]
        await asyncio.sleep(0.01)
        waiting = asyncio.create_task(_request(admission, 60, ended))
        await asyncio.sleep(0.01)
        for task in before:
            task.cancel()
        await asyncio.gather(*before, return_exceptions=True)
        await asyncio.sleep(0.01)
        assert admission.held == 60
        ended.set()
        await waiting
        assert admission.held == 0

    asyncio.run(run())


def test_a_place_beyond_the_bound_is_refused_and_one_given_back_is_free() -> None:
    admission = Admission(requests=1)
    ticket, late = admission.ticket(), admission.ticket()
    ticket.begin()
    for take in (admission.ticket, late.begin):
        with pytest.raises(Refused, match="the server is full"):
            take()
    ticket.close()
    late.begin()
    late.close()
    assert (admission.in_flight, admission.working) == (0, 0)


def test_requests_whose_bodies_are_on_their_way_take_no_place() -> None:
    admission = Admission(requests=1)
    waiting = [admission.ticket() for _ in range(50)]
    admission.ticket().begin()
    assert (admission.in_flight, admission.working) == (51, 1)
    for ticket in waiting:
        ticket.close()
    assert (admission.in_flight, admission.working) == (1, 1)


def test_what_fits_passes_what_does_not() -> None:
    async def run() -> None:
        admission, ended = Admission(requests=20, held=100), asyncio.Event()
        large = [asyncio.create_task(_request(admission, 90, ended)) for _ in range(2)]
        await asyncio.sleep(0.01)
        await asyncio.wait_for(admission.ticket().hold(10), 1)
        assert admission.held == 100
        ended.set()
        await asyncio.gather(*large)
        assert admission.held == 10

    asyncio.run(run())
