"""How many requests and bytes are inside at the same time."""

from __future__ import annotations

import asyncio

import pytest

from server.gateway import limits
from server.gateway.admission import Admission
from server.gateway.refusal import Refused


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ROOM_TIME", 0.2)
    monkeypatch.setattr(limits, "BODY_TIME", 5.0)
    monkeypatch.setattr(limits, "HURRIED_BODY_TIME", 0.2)
    monkeypatch.setattr(limits, "MAX_READING", 2)


def test_a_place_is_refused_when_all_are_taken_and_free_again_afterwards() -> None:
    async def main() -> None:
        admission = Admission(requests=2)
        tickets = [admission.ticket() for _ in range(3)]
        tickets[0].enter()
        tickets[1].enter()
        with pytest.raises(Refused, match=r"\[Overloaded\] the server is full \(2 requests are inside\)"):
            tickets[2].enter()
        tickets[0].close()
        tickets[2].enter()
        tickets[1].close()
        tickets[2].close()
        assert admission.in_flight == 0
        await admission.drained()

    asyncio.run(main())


async def _request(admission: Admission, size: int, ended: asyncio.Event) -> None:
    ticket = admission.ticket()
    try:
        await ticket.hold(size)
        await ended.wait()
    finally:
        ticket.close()


def test_bytes_wait_for_room_and_what_fits_passes_what_does_not() -> None:
    async def main() -> None:
        admission = Admission(held=100)
        first, second, third = admission.ticket(), admission.ticket(), admission.ticket()
        await first.hold(60)
        waiting = asyncio.create_task(second.hold(50))
        await asyncio.sleep(0.02)
        await third.hold(10)
        assert not waiting.done()
        await first.hold(40)
        await waiting
        assert admission.held == 100
        for ticket in (first, second, third):
            ticket.close()
        assert admission.held == 0

    asyncio.run(main())


def test_requests_that_are_cancelled_together_give_everything_back() -> None:
    async def main() -> None:
        admission = Admission(held=100)
        tasks = [asyncio.create_task(_request(admission, 40, asyncio.Event())) for _ in range(12)]
        await asyncio.sleep(0.01)
        assert admission.held == 80
        for task in tasks:  # as when their connection ends: none of them runs in between
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert admission.held == 0

    asyncio.run(main())


def test_who_waits_behind_cancelled_requests_gets_the_room_that_they_leave() -> None:
    async def main() -> None:
        admission, ended = Admission(held=100), asyncio.Event()
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

    asyncio.run(main())


def test_bytes_without_room_for_too_long_are_refused_and_leave_nothing() -> None:
    async def main() -> None:
        admission = Admission(held=100)
        first, second = admission.ticket(), admission.ticket()
        await first.hold(100)
        with pytest.raises(Refused, match=r"\[Overloaded\]"):
            await second.hold(1)
        task = asyncio.create_task(second.hold(1))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        first.close()
        assert admission.held == 0
        await second.hold(100)

    asyncio.run(main())


def test_a_slow_sender_is_hurried_while_others_wait_and_left_in_peace_otherwise() -> None:
    async def main() -> None:
        admission = Admission()
        outcomes: list[str] = []

        async def read(name: str, seconds: float) -> None:
            try:
                async with admission.reading(in_one_piece=True):
                    await asyncio.sleep(seconds)
                outcomes.append(f"{name} read")
            except Refused as error:
                outcomes.append(f"{name} {error.tag}")

        await read("alone", 0.4)
        slow = [asyncio.create_task(read(f"slow{i}", 3)) for i in range(2)]
        await asyncio.sleep(0.02)
        await read("quick", 0.01)
        assert outcomes == ["alone read", "slow0 Timeout", "quick read"]
        await admission.drained()
        await asyncio.gather(*slow)
        assert outcomes[-1] == "slow1 Timeout"

    asyncio.run(main())


def test_drained_waits_for_what_is_inside() -> None:
    async def main() -> None:
        admission = Admission()
        ticket = admission.ticket()
        ticket.enter()
        waiting = asyncio.create_task(admission.drained())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        ticket.close()
        await waiting

    asyncio.run(main())
