"""The formulas of rules, alerts and dashboard on pages that the real server wrote."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import promql_parser
import pytest
import yaml

from tests.deploy.history import (
    MONITORING,
    START,
    STEP,
    SUPERVISOR,
    History,
    add,
    alerts,
    dashboard,
    only,
    queries,
    recordings,
    rules,
)
from tests.deploy.promql import Database

ENSEMBLES = {"face3d", "reconstruct", "detect"}


@pytest.fixture(scope="module")
def database(history: History) -> Database:
    return history.database()


@pytest.mark.parametrize(("panel", "query"), [*queries()], ids=lambda value: re.sub(r"\W+", "-", value)[:60])
def test_every_query_of_the_dashboard_returns_data(
    history: History, database: Database, panel: str, query: str
) -> None:
    answer = database.query(query, history.end)
    assert answer, f"{panel}: no data"
    assert any(math.isfinite(value) for value in answer.values()), f"{panel}: not a number"


def test_the_dashboard_shows_what_operators_ask_for() -> None:
    text = " ".join(f"{title} {query}" for title, query in queries())
    for what in (
        "answers:rate",
        "mean1m",
        '"0.5"',
        '"0.95"',
        '"0.99"',
        "batch_rows",
        "queue_compute",
        "refused",
        "band",
    ):
        assert what in text
    assert "version:servers" in text


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells


def test_the_dashboards_source_is_the_one_that_is_provisioned() -> None:
    sources = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    used = {target["datasource"]["uid"] for panel in dashboard()["panels"] for target in panel["targets"]}
    assert used == {source["uid"] for source in sources}


# --- recording rules ------------------------------------------------------------------------------------------------
def test_throughput_is_what_was_sent(history: History, database: Database) -> None:
    sent = history.good / (STEP * (len(history.pages) - 1))
    assert only(database.query('face3d:answers:rate1m{model="face3d"}', history.end)) == pytest.approx(sent)


def test_refusals_are_told_apart_by_reason(history: History, database: Database) -> None:
    for reason, count in history.refused.items():
        rate = only(database.query(f'face3d:refused:rate1m{{reason="{reason}"}}', history.end))
        assert rate == pytest.approx(count / (STEP * (len(history.pages) - 1)))


def test_the_mean_latency_is_time_over_answers(history: History, database: Database) -> None:
    def total(name: str, page: str) -> float:
        return sum(float(v) for v in re.findall(rf'^{name}{{model="face3d",[^}}]*}} (\S+)$', page, re.M))

    first, last = history.pages[-4], history.pages[-1]  # what lies in the last minute
    time = total("nv_inference_request_duration_us", last) - total("nv_inference_request_duration_us", first)
    count = total("nv_inference_request_success", last) - total("nv_inference_request_success", first)
    measured = only(database.query('face3d:latency_seconds:mean1m{model="face3d"}', history.end))
    assert measured == pytest.approx(time / count / 1e6)


def test_quantiles_are_in_order_and_in_seconds(history: History, database: Database) -> None:
    p50, p95, p99 = (
        only(database.query(f'face3d:latency_seconds:quantile{{model="face3d",quantile="{q}"}}', history.end))
        for q in ("0.5", "0.95", "0.99")
    )
    assert 0 < p50 <= p95 <= p99 < 60


def test_the_band_is_two_deviations_around_the_mean_of_what_is_known(history: History, database: Database) -> None:
    # The page before the last minute has no rate yet, so the first value of the rule comes with the second page.
    times = [START + STEP * index for index in range(1, len(history.pages))]
    known = [only(database.query('face3d:latency_seconds:known1m{model="face3d"}', at)) for at in times]
    mean = sum(known) / len(known)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in known) / len(known))
    high = only(database.query('face3d:latency_seconds:band_high{model="face3d"}', history.end))
    low = only(database.query('face3d:latency_seconds:band_low{model="face3d"}', history.end))
    assert high == pytest.approx(mean + 2 * deviation)
    assert low == pytest.approx(max(mean - 2 * deviation, 0))


def test_the_autoscalers_signal_is_the_worst_leaf_and_zero_without_traffic(
    history: History, database: Database
) -> None:
    ratios = database.query("face3d:queue_compute:ratio1m", history.end)
    leaves = [v for labels, v in ratios.items() if dict(labels)["model"] not in ENSEMBLES and not math.isnan(v)]
    assert only(database.query("face3d:queue_compute:worst", history.end)) == max(leaves)
    (rule,) = (rule for rule in recordings() if rule["record"] == "face3d:queue_compute:worst")
    assert only(Database().query(rule["expr"], START)) == 0


def test_the_versions_in_use_are_counted(history: History, database: Database) -> None:
    versions = {
        (dict(labels)["model"], dict(labels)["version"]): n
        for labels, n in database.query("face3d:version:servers", history.end).items()
    }
    assert versions["regressor", "1"] == 1
    assert {model for model, _ in versions} >= ENSEMBLES


def summary(page: str, microseconds: int) -> str:
    """The page with every quantile of latency of `face3d` set."""
    line = r'^(nv_inference_request_summary_us\{model="face3d",.*\}) \S+$'
    return re.sub(line, rf"\g<1> {microseconds}", page, flags=re.M)


# --- alerts ---------------------------------------------------------------------------------------------------------
def test_no_alert_fires_on_a_healthy_server_that_refuses_bad_pictures(history: History) -> None:
    # (Two thirds of the pictures have a face.) One slow page on a busy machine is beyond any band, and pending is not
    # firing: an alert with a `for` needs the last three pages, 30 seconds as the shortest `for`.
    # Latency is set: that of a machine which does other work as well may be anything.
    database = history.changed(lambda page: summary(page, 100_000), last=len(history.pages)).database()
    firing = set()
    for rule in rules("face3d.alerts.yml"):
        times = [history.end - STEP * back for back in range(3 if "for" in rule else 1)]
        if all(database.query(rule["expr"], at) for at in times):
            firing.add(rule["alert"])
    assert firing == set()


def rejecting(page: str) -> str:
    return add(page, r'face3d_refused_total\{reason="Overloaded",step="preprocess"\}', 30)


def breaking(page: str) -> str:
    return add(page, r'nv_inference_request_failure\{model="regressor",reason="BACKEND",version="1"\}', 30)


def queueing(page: str) -> str:
    return add(page, r'nv_inference_queue_duration_us\{model="detector",version="1"\}', 60e6)


def crawling(page: str) -> str:
    return summary(page, 3_000_000)


def blind(page: str) -> str:
    return add(page, r'face3d_refused_total\{reason="NoFace",step="align"\}', 500)


def mixed(page: str) -> str:
    return page + 'nv_inference_count{model="regressor",version="2"} 5\n'


@pytest.mark.parametrize(
    ("alert", "change"),
    [
        ("Face3DRejecting", rejecting),
        ("Face3DServerErrors", breaking),
        ("Face3DQueueing", queueing),
        ("Face3DSlow", crawling),
        ("Face3DMostlyNoFace", blind),
        ("Face3DVersionsDiffer", mixed),
    ],
)
def test_an_alert_fires_on_what_it_is_for(history: History, alert: str, change: Callable[[str], str]) -> None:
    # From the third last page on: the rates of the last minute then hold the step.
    assert history.changed(change, last=2).database().query(alerts()[alert], history.end)


def test_the_anomaly_alert_fires_when_latency_leaves_its_band(history: History) -> None:
    def slower(page: str) -> str:
        return add(page, r'nv_inference_request_duration_us\{model="face3d",version="1"\}', 60e6)

    def steady(page: str) -> str:
        """The page with latencies near 100 ms that fall a little: this machine's own leave a band now and then."""
        counts = dict(re.findall(r"^nv_inference_request_success(\{[^}]*\}) (\S+)$", page, re.M))

        def near(line: re.Match[str]) -> str:
            count = float(counts[line[2]])
            return f"{line[1]} {1e5 * count + 1e5 * math.sqrt(count):.10g}"

        return re.sub(r"^(nv_inference_request_duration_us(\{[^}]*\})) \S+$", near, page, flags=re.M)

    changed = History([steady(page) for page in history.pages] * 3, [*history.supervisor * 3])
    # Twenty-one pages of which the last is slow; copies of the same pages, so counters fall in between, as at restarts.
    database = changed.changed(slower, last=1).database()
    assert database.query(alerts()["Face3DLatencyAnomalous"], changed.end)
    assert not changed.database().query(alerts()["Face3DLatencyAnomalous"], changed.end)


@pytest.mark.parametrize(
    ("alert", "samples"),
    [
        ("Face3DUnhealthy", {"face3d_healthy": (1, 0)}),
        ("Face3DModelRevived", {"face3d_revivals_total": (0, 1)}),
        ("Face3DServerRestarted", {"face3d_restarts_total": (0, 1)}),
        ("Face3DServerNotStarting", {"face3d_failed_restarts_total": (0, 3)}),
        ("Face3DGatewayRestarted", {"face3d_gateway_restarts_total": (0, 1)}),
        ("Face3DDown", {"up": (1, 0)}),
    ],
)
def test_the_supervisors_alerts_fire(alert: str, samples: dict[str, tuple[float, float]]) -> None:
    database = Database()
    for name, values in samples.items():
        for index, value in enumerate(values):
            database.add({"__name__": name, **SUPERVISOR}, START + STEP * index, value)
    assert database.query(alerts()[alert], START + STEP)
    assert not database.query(alerts()[alert], START)


@pytest.mark.parametrize(
    ("alert", "outcome"),
    [
        ("Face3DGatewayFaults", "fault"),
        ("Face3DGatewayFaults", "ServerUnavailable"),
        ("Face3DGatewayFull", "Overloaded"),
        ("Face3DMostlyRefused", "BadRequest"),
        ("Face3DMostlyRefused", "Timeout"),
    ],
)
def test_an_alert_fires_on_an_outcome_at_the_gateway(history: History, alert: str, outcome: str) -> None:
    def more(page: str) -> str:
        return add(page, rf'face3d_gateway_requests_total\{{outcome="{outcome}",protocol="grpc"\}}', 30)

    keep = len(history.supervisor) - 2
    changed = History(history.pages, [*history.supervisor[:keep], *map(more, history.supervisor[keep:])])
    firing = {
        rule["alert"]
        for rule in rules("face3d.alerts.yml")
        if "Gateway" in rule["alert"] or "Refused" in rule["alert"]
        if changed.database().query(rule["expr"], changed.end)
    }
    assert firing == {alert}


def test_answered_requests_and_refused_pictures_raise_no_alert_of_the_gateway(history: History) -> None:
    database = Database()
    for index in range(8):
        for outcome in ("ok", "BadImage", "NoFace"):
            labels = {"outcome": outcome, "protocol": "grpc", **SUPERVISOR}
            database.add({"__name__": "face3d_gateway_requests_total", **labels}, START + STEP * index, 100.0 * index)
    end = START + STEP * 7
    (rule,) = (rule for rule in recordings() if rule["record"] == "face3d:gateway:rate1m")
    database.record(rule["record"], database.query(rule["expr"], end), end)
    assert only(database.query('face3d:gateway:rate1m{outcome="ok"}', end)) > 0
    for alert, expression in alerts().items():
        if "Gateway" in alert or alert == "Face3DMostlyRefused":
            assert not database.query(expression, end), alert


def test_every_alert_has_a_test_that_makes_it_fire() -> None:
    text = (MONITORING.parents[1] / "tests" / "deploy" / "test_rules.py").read_text()
    for name in alerts():
        assert f'"{name}"' in text, f"no test makes {name} fire"


def test_every_rule_parses_and_alerts_say_what_to_do() -> None:
    for rule in (*rules("face3d.recording.yml"), *rules("face3d.alerts.yml")):
        promql_parser.parse(rule["expr"])
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert set(rule["annotations"]) == {"summary", "description"}


def test_rules_read_only_metrics_that_somebody_writes(history: History) -> None:
    written = set(re.findall(r"^([a-z]\w*?)(?:_bucket|_sum|_count)?[ {]", "\n".join(history.pages), re.M))
    written |= set(re.findall(r"^# TYPE (\S+)", "\n".join(history.supervisor), re.M))
    written |= {rule["record"] for rule in recordings()} | {"up"}
    for expr in [*(rule["expr"] for rule in recordings()), *alerts().values(), *(query for _, query in queries())]:
        for name in re.findall(r"\b(?:nv|face3d)[_:][a-z0-9_:]+", expr):
            assert name in written or re.sub("_(bucket|sum|count)$", "", name) in written, name
