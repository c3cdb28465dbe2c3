"""The evaluator that the other tests rely on, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from tests.deploy.promql import Database, Unsupported, Vector


@pytest.fixture
def database() -> Database:
    made = Database()
    for step in range(5):  # 0, 15, ... 60 s
        made.add({"__name__": "c", "model": "a"}, 15.0 * step, 100.0 + 30 * step)
        made.add({"__name__": "c", "model": "b"}, 15.0 * step, [10.0, 20.0, 2.0, 4.0, 6.0][step])
        made.add({"__name__": "g", "model": "a"}, 15.0 * step, [1.0, 2.0, 3.0, 4.0, 5.0][step])
    for bound, count in (("0.1", 1.0), ("0.5", 3.0), ("+Inf", 4.0)):
        made.add({"__name__": "h_bucket", "le": bound}, 60.0, count)
    return made


def plain(vector: Vector) -> dict[str, float]:
    return {",".join(f"{k}={v}" for k, v in sorted(labels)): number for labels, number in vector.items()}


def test_a_rate_is_growth_over_time_with_the_range_filled_up(database: Database) -> None:
    assert plain(database.query("rate(c[1m])", 60)) == {
        "model=a": pytest.approx(2.0),  # 90 in the 45 s covered, 15 s before them filled up
        # 6 in 45 s after the reset (+2 +2 +2): nothing before the first sample that would take it below zero.
        "model=b": pytest.approx(6.0 * 60 / 45 / 60),
    }


def test_an_increase_is_a_rate_times_its_range(database: Database) -> None:
    assert plain(database.query("increase(c{model='a'}[1m])", 60)) == {"model=a": pytest.approx(120.0)}


def test_one_sample_makes_no_rate(database: Database) -> None:
    assert database.query("rate(c[10s])", 60) == {}


def test_aggregations_keep_the_labels_they_are_told_to(database: Database) -> None:
    assert plain(database.query("sum(c)", 60)) == {"": 226.0}
    assert plain(database.query("sum by (model) (c)", 60)) == {"model=a": 220.0, "model=b": 6.0}
    assert plain(database.query("count without (model) (c)", 60)) == {"": 2.0}


def test_matchers_pick_series(database: Database) -> None:
    assert plain(database.query('c{model=~"b|x"}', 60)) == {"__name__=c,model=b": 6.0}
    assert plain(database.query('c{model!~"b|x"}', 60)) == {"__name__=c,model=a": 220.0}
    assert plain(database.query('c{model!="a"}', 60)) == {"__name__=c,model=b": 6.0}
    assert database.query('c{model="ab"}', 60) == {}


def test_vectors_meet_where_their_labels_agree(database: Database) -> None:
    assert plain(database.query("c / g", 60)) == {"model=a": 44.0}
    assert plain(database.query("c / on (model) g", 60)) == {"model=a": 44.0}
    assert plain(database.query("c unless g", 60)) == {"__name__=c,model=b": 6.0}
    assert plain(database.query("c and g", 60)) == {"__name__=c,model=a": 220.0}
    assert plain(database.query("missing or vector(0)", 60)) == {"": 0.0}


def test_a_comparison_filters_and_with_bool_answers(database: Database) -> None:
    assert plain(database.query("c > 100", 60)) == {"__name__=c,model=a": 220.0}
    assert plain(database.query("c > bool 100", 60)) == {"model=a": 1.0, "model=b": 0.0}


def test_nothing_over_nothing_is_not_a_number_and_fails_comparisons(database: Database) -> None:
    database.add({"__name__": "zero"}, 60, 0)
    assert math.isnan(plain(database.query("zero / zero", 60))[""])
    assert database.query("(zero / zero) >= 0", 60) == {}


def test_functions_over_time_look_at_the_range_only(database: Database) -> None:
    assert plain(database.query("avg_over_time(g[30s])", 60)) == {"model=a": 4.5}
    assert plain(database.query("stddev_over_time(g[1m])", 60))["model=a"] == pytest.approx(math.sqrt(1.25))
    assert plain(database.query("max_over_time(g[5m])", 60)) == {"model=a": 5.0}


def test_a_histograms_quantile_is_linear_within_its_bucket(database: Database) -> None:
    assert plain(database.query("histogram_quantile(0.5, h_bucket)", 60))[""] == pytest.approx(0.3)
    assert plain(database.query("histogram_quantile(0.99, h_bucket)", 60))[""] == 0.5


def test_a_series_is_gone_five_minutes_after_its_last_sample(database: Database) -> None:
    assert database.query("g", 60 + 299) != {}
    assert database.query("g", 60 + 301) == {}
    assert plain(database.query("absent(g)", 400)) == {"": 1.0}


@pytest.mark.parametrize("query", ["c offset 1m", "topk(1, c)", "avg_over_time(rate(c[1m])[5m:15s])", "ln(c)"])
def test_what_it_does_not_know_it_refuses(database: Database, query: str) -> None:
    with pytest.raises(Unsupported):
        database.query(query, 60)


def test_series_that_match_twice_are_refused_as_prometheus_does(database: Database) -> None:
    with pytest.raises(ValueError, match="many-to-many"):
        database.query("g / on () c", 60)
