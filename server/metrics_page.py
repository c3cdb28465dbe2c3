"""Writes counters and gauges in Prometheus' text format, with Prometheus' own library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4


def counter(name: str, text: str, value: float) -> Metric:
    """Return a counter without labels; ``name`` ends with ``_total``."""
    return CounterMetricFamily(name, text, value=value)


def counters(name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]) -> Metric:
    """Return a counter with one sample for each sequence of label values, sorted by them."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in sorted(values):
        family.add_metric(key, value)
    return family


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)


def page(metrics: Iterable[Metric]) -> str:
    """Return the text of a page that shows ``metrics`` in their order."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(tuple(metrics)))
    return generate_latest(registry).decode()


class _Collected(Collector):
    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)
