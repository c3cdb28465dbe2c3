"""The simulated pipeline obeys what is known of queues, and its page says that it is simulated."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from perf.cores.__main__ import markdown, outcomes, variants
from perf.cores.measured import Measured, lock_share
from perf.cores.pipeline import Layout, simulate

MEASURED = Measured(
    milliseconds={
        "gateway": 2.0,
        "tritonserver": 6.0,
        "preprocess": 2.0,
        "decoder": 4.0,
        "detector": 7.0,
        "align": 5.0,
        "regressor": 8.0,
        "parser": 2.0,
        "texture": 14.0,
        "postprocess": 10.0,
    },
    locked={"gateway": 1.0, "preprocess": 1.0, "align": 0.2, "texture": 0.1, "postprocess": 0.5},
    serial=0.2,
    rate=30.0,
    cores=2,
)
WHOLE = sum(MEASURED.milliseconds.values()) / 1000


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_many_clients_keep_few_cores_busy_and_no_more_is_answered_than_they_can(cores: int) -> None:
    found = simulate(MEASURED, Layout(cores), 8 * cores, seconds=6)
    assert 0.93 * cores / WHOLE < found.rate <= 1.03 * cores / WHOLE
    assert found.busy["cores"] > 0.95


def test_one_client_waits_for_nobody() -> None:
    found = simulate(MEASURED, Layout(4), 1, seconds=6)
    assert found.rate * found.p50 == pytest.approx(1.0, rel=0.05)
    assert 0.8 * WHOLE < found.p50 <= 1.05 * WHOLE  # the regressor's threads shorten it


def test_a_lock_bounds_the_rate_and_a_second_process_doubles_it() -> None:
    locked = replace(MEASURED, milliseconds={"postprocess": 20.0}, locked={"postprocess": 1.0})
    alone = simulate(locked, Layout(16), 64, seconds=6)
    assert alone.rate == pytest.approx(50.0, rel=0.05)
    assert alone.tightest == "lock of postprocess"
    two = simulate(locked, Layout(16, {"postprocess": 2}), 64, seconds=6)
    assert two.rate == pytest.approx(100.0, rel=0.05)


def test_lanes_bound_the_rate_of_a_network() -> None:
    one = replace(MEASURED, milliseconds={"texture": 40.0}, locked={})
    rates = [simulate(one, Layout(32, most_threads=lanes), 256, seconds=6).rate for lanes in (4, 8)]
    assert rates[1] <= 8 / 0.040
    assert rates[0] <= 4 / 0.040
    assert rates[1] > 1.4 * rates[0]


def test_what_is_serial_in_the_regressor_bounds_it() -> None:
    one = replace(MEASURED, milliseconds={"regressor": 10.0}, locked={}, serial=0.5)
    found = simulate(one, Layout(8), 64, seconds=6)
    assert found.rate == pytest.approx(1 / (0.010 * (0.5 + 0.5 / 8)), rel=0.05)


def test_the_same_seed_gives_the_same_outcome() -> None:
    assert simulate(MEASURED, Layout(4), 16, 6.0, seed=3) == simulate(MEASURED, Layout(4), 16, 6.0, seed=3)


def test_the_page_says_that_it_is_simulated_and_reads_what_was_saved() -> None:
    found = variants(MEASURED, [2, 4], 3.0)
    saved = {name: {cores: one.__dict__ for cores, one in by.items()} for name, by in found.items()}
    assert outcomes(saved) == found
    text = markdown(MEASURED, found)
    assert text.startswith("Simulated, not measured: nothing here ran on more than 2 cores.")
    assert "| 4 |" in text


def test_who_holds_the_lock_is_told_from_who_sleeps() -> None:
    def hold() -> None:
        sum(range(20_000))

    # Others on a busy machine delay both: the best of some tries of each tells them apart.
    asleep = min(lock_share(lambda: time.sleep(0.01), 0.3) for _ in range(4))
    assert max(lock_share(hold, 0.3) for _ in range(4)) > asleep
