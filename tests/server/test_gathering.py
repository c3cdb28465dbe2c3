"""How long a process pauses between runs: only while others keep the cores busy, by a clock of the test's own."""

from __future__ import annotations

import pytest

from server.backends.onnxruntime.gathering import STEP, Gathering


class Machine:
    """A clock that moves when somebody sleeps, and cores that are busy until a moment."""

    def __init__(self, busy_until: float) -> None:
        self.now, self._busy_until = 0.0, busy_until

    def busy(self) -> bool:
        return self.now < self._busy_until

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def pause(self, rows: int, seconds: float = 0.06) -> float:
        began = self.now
        Gathering(seconds, 4, self.busy, self.sleep, lambda: self.now).after(rows)
        return self.now - began


def test_nobody_waits_where_a_core_is_free() -> None:
    assert Machine(busy_until=0).pause(rows=1) == 0


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_pause_grows_with_the_rows_of_the_last_run(rows: int) -> None:
    assert Machine(busy_until=10).pause(rows) == pytest.approx(0.06 * rows, abs=STEP)


def test_it_ends_when_a_core_becomes_free() -> None:
    assert Machine(busy_until=0.02).pause(rows=2) == pytest.approx(0.02, abs=STEP)


@pytest.mark.parametrize("rows", [0, 4, 7])
def test_there_is_none_after_nothing_and_after_a_full_run(rows: int) -> None:
    assert Machine(busy_until=10).pause(rows) == 0


def test_there_is_none_where_nothing_is_configured() -> None:
    assert Machine(busy_until=10).pause(rows=1, seconds=0) == 0
