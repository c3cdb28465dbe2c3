"""The simulation: what must hold whatever the numbers are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deploy.simulate.autoscaler import Policy, Scaler
from deploy.simulate.model import Service, arrivals, simulate
from deploy.simulate.queues import Floats

SERVICE = Service(batch_seconds=(0.1, 0.15, 0.2, 0.25), spread=(0.8, 1.0, 1.2), start_seconds=5.0)


def steady(rate: float) -> object:
    return lambda t: np.full_like(t, rate)


def rising(t: Floats) -> Floats:
    return 5.0 * 40.0 ** (t / 900)


@pytest.mark.parametrize("rate", [2.0, 30.0, 300.0])
def test_every_request_is_answered_rejected_or_still_there(rate: float) -> None:
    outcome = simulate(SERVICE, Policy(most=50), steady(rate), 300, seed=3)  # type: ignore[arg-type]
    assert outcome.arrived == outcome.answered + outcome.rejected + outcome.left
    assert len(outcome.latency) == outcome.answered
    assert len(np.unique(outcome.arrival)) == outcome.answered


def test_the_same_seed_gives_the_same_outcome_and_another_another() -> None:
    first, again = (simulate(SERVICE, Policy(), rising, 600, seed=5) for _ in range(2))
    other = simulate(SERVICE, Policy(), rising, 600, seed=6)
    assert np.array_equal(first.latency, again.latency)
    assert np.array_equal(first.replicas, again.replicas)
    assert not np.array_equal(first.latency, other.latency)


def test_no_answer_comes_sooner_than_the_quickest_work() -> None:
    outcome = simulate(SERVICE, Policy(), rising, 600, seed=1)
    assert outcome.latency.min() >= 0.1 * 0.8 - 1e-9


def test_more_replicas_are_never_worse() -> None:
    p99 = [
        simulate(SERVICE, Policy(), steady(60.0), 300, seed=2, replicas=count, scaling=False).quantile(0.99)  # type: ignore[arg-type]
        for count in (4, 6, 8, 16, 32)
    ]
    assert p99 == sorted(p99, reverse=True)


def test_a_single_server_waits_as_queueing_theory_says() -> None:
    # M/D/1: mean wait = rho / (2 (1 - rho)) services.
    service = Service(batch_seconds=(0.1,), spread=(1.0,), start_seconds=1.0)
    outcome = simulate(service, Policy(least=1), steady(6.0), 40_000, seed=4, replicas=1, scaling=False)  # type: ignore[arg-type]
    assert outcome.latency.mean() - 0.1 == pytest.approx(0.1 * 0.6 / (2 * 0.4), rel=0.05)


def test_arrivals_come_at_the_rate_that_was_asked_for() -> None:
    times = arrivals(lambda t: np.where(t < 500, 10.0, 100.0), 1000, np.random.default_rng(0))
    assert np.all(np.diff(times) >= 0)
    assert np.sum(times < 500) == pytest.approx(5000, rel=0.05)
    assert np.sum(times >= 500) == pytest.approx(50_000, rel=0.02)


def test_a_full_queue_rejects_and_the_rest_is_served() -> None:
    outcome = simulate(SERVICE, Policy(), steady(100.0), 120, seed=1, replicas=2, scaling=False)  # type: ignore[arg-type]
    assert outcome.rejected > 0
    assert outcome.answered / 120 == pytest.approx(2 * SERVICE.capacity, rel=0.05)


def test_the_number_of_replicas_stays_within_its_bounds() -> None:
    policy = Policy(least=3, most=12)
    outcome = simulate(SERVICE, policy, rising, 1800, seed=1)
    assert outcome.replicas.min() >= 3
    assert outcome.replicas.max() == 12


# --- the autoscaler's rules -----------------------------------------------------------------------------------------
def test_it_grows_in_proportion_but_no_faster_than_the_policies() -> None:
    scaler = Scaler(Policy(target=0.5, most=1000))
    assert scaler.look(15, 0.75, 10) == 15  # ceil(10 * 1.5)
    assert Scaler(Policy(target=0.5, most=1000)).look(15, 50.0, 10) == 20  # 100 % within 30 s
    assert Scaler(Policy(target=0.5, most=1000)).look(15, 50.0, 2) == 6  # or four pods, whichever is more


def test_what_it_has_grown_within_the_period_counts() -> None:
    scaler = Scaler(Policy(target=0.5, most=1000))
    assert scaler.look(15, 50.0, 10) == 20
    assert scaler.look(30, 50.0, 20) == 20  # the doubling of these 30 s is used up
    assert scaler.look(60, 50.0, 20) == 40


def test_within_a_tenth_of_the_target_nothing_changes() -> None:
    scaler = Scaler(Policy(target=0.5))
    assert scaler.look(15, 0.54, 10) == 10
    assert scaler.look(30, 0.46, 10) == 10


def test_it_shrinks_slowly_and_only_after_its_window() -> None:
    scaler = Scaler(Policy(target=0.5, down_window=600))
    assert scaler.look(0, 0.5, 50) == 50
    assert [scaler.look(15.0 * tick, 0.0, 50) for tick in range(1, 40)] == [50] * 39
    assert scaler.look(615, 0.0, 50) == 45
    assert scaler.look(630, 0.0, 45) == 45
    assert scaler.look(690, 0.0, 45) == 41


def test_the_manifests_numbers_are_the_simulations() -> None:
    policy = Policy.of_manifest()
    assert policy == Policy()
    assert replace(policy, most=4000).most == 4000


def test_measured_batches_never_get_quicker_with_size() -> None:
    service = Service.measured()
    assert all(np.diff(service.batch_seconds) >= 0)
    assert np.mean(service.spread) == pytest.approx(1.0)
    assert service.start_seconds > 0
