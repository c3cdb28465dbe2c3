"""A small evaluator of PromQL, so that rules and dashboards can be run on pages that the real server wrote.

The parser is promql-parser's (Prometheus' own grammar, ported); what is here evaluates instant queries over pages that
were read at known times. It covers what this project's files use and refuses the rest by name: selectors with the four
matchers, rate and increase with Prometheus' extrapolation and its handling of resets, avg/stddev/max/min/sum/count
_over_time, histogram_quantile, clamp_min, clamp_max, absent, vector, the aggregations sum, avg, min, max, count and
group, arithmetic, comparison (with and without bool), and, or, unless, on and ignoring one to one. Not covered:
offset, @, subqueries, group_left, native histograms, staleness markers.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import promql_parser as pq

from deploy.exposition import parse as parse_page

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
OverRange = Callable[[list[tuple[float, float]], float, float], float | None]  # samples, start, end
_NAME = "__name__"
_LOOKBACK = 300.0  # seconds after which a series counts as gone, Prometheus' default


class Unsupported(Exception):
    """The query uses something this evaluator does not know."""


class Database:
    """Series of (time, value), as Prometheus would keep them."""

    def __init__(self) -> None:
        self._series: dict[Labels, list[tuple[float, float]]] = {}

    def add_page(self, page: str, at: float, **target: str) -> None:
        """A page that was read at a time; ``target``: job and instance, as a scrape adds them, and `up`."""
        for sample in parse_page(page):
            self.add({_NAME: sample.name, **sample.labels, **target}, at, sample.value)
        self.add({_NAME: "up", **target}, at, 1.0)

    def add(self, labels: Mapping[str, str], at: float, value: float) -> None:
        """One number."""
        self._series.setdefault(frozenset(labels.items()), []).append((at, value))

    def record(self, name: str, vector: Vector, at: float) -> None:
        """What a recording rule gave at a time."""
        for labels, value in vector.items():
            self.add({**dict(labels), _NAME: name}, at, value)

    def ranges(self, selector: Any, at: float, seconds: float) -> dict[Labels, list[tuple[float, float]]]:
        """The samples of the selected series in (at - seconds, at]."""
        if selector.offset is not None or selector.at is not None:
            raise Unsupported("offset and @")
        found = {}
        for labels, samples in self._series.items():
            if _selected(selector, dict(labels)):
                inside = [sample for sample in samples if at - seconds < sample[0] <= at]
                if inside:
                    found[labels] = inside
        return found

    def query(self, text: str, at: float) -> Vector:
        """The answer to an instant query; a number stands under no labels."""
        value = self._value(pq.parse(text), at)
        return {frozenset(): value} if isinstance(value, float) else value

    # --- expressions ------------------------------------------------------------------------------------------------
    def _value(self, node: Any, at: float) -> Vector | float:
        handler = _HANDLERS.get(type(node).__name__)
        if handler is None:
            raise Unsupported(type(node).__name__)
        return handler(self, node, at)

    def _vector(self, node: Any, at: float) -> Vector:
        value = self._value(node, at)
        if isinstance(value, float):
            raise Unsupported("a number where a vector is expected")
        return value

    def _selector(self, node: Any, at: float) -> Vector:
        return {labels: samples[-1][1] for labels, samples in self.ranges(node, at, _LOOKBACK).items()}

    def _number(self, node: Any, _: float) -> float:
        return float(node.val)

    def _parenthesis(self, node: Any, at: float) -> Vector | float:
        return self._value(node.expr, at)

    def _minus(self, node: Any, at: float) -> Vector | float:
        value = self._value(node.expr, at)
        return -value if isinstance(value, float) else {_unnamed(labels): -number for labels, number in value.items()}

    def _call(self, node: Any, at: float) -> Vector | float:
        name, arguments = node.func.name, node.args
        if name in _OVER_RANGE:
            matrix = arguments[0]
            if type(matrix).__name__ != "MatrixSelector":
                raise Unsupported("subqueries")
            seconds = matrix.range.total_seconds()
            answer = {}
            for labels, samples in self.ranges(matrix.vector_selector, at, seconds).items():
                number = _OVER_RANGE[name](samples, at - seconds, at)
                if number is not None:
                    answer[_unnamed(labels)] = number
            return answer
        values = [self._value(argument, at) for argument in arguments]
        if name not in _FUNCTIONS:
            raise Unsupported(name)
        return _FUNCTIONS[name](*values)

    def _aggregate(self, node: Any, at: float) -> Vector:
        kind = str(node.op)
        if kind not in _AGGREGATIONS or node.param is not None:
            raise Unsupported(kind)
        groups: dict[Labels, list[float]] = {}
        for labels, number in self._vector(node.expr, at).items():
            groups.setdefault(_group(labels, node.modifier), []).append(number)
        return {labels: _AGGREGATIONS[kind](numbers) for labels, numbers in groups.items()}

    def _binary(self, node: Any, at: float) -> Vector | float:
        kind, modifier = str(node.op), node.modifier
        left, right = self._value(node.lhs, at), self._value(node.rhs, at)
        matching = modifier.matching if modifier is not None else None
        if kind in ("and", "or", "unless"):
            if isinstance(left, float) or isinstance(right, float):
                raise Unsupported(f"{kind} with a number")
            return _set_operation(kind, left, right, matching)
        if modifier is not None and "OneToOne" not in str(modifier.card):
            raise Unsupported("group_left and group_right")
        as_bool = bool(modifier is not None and modifier.return_bool)
        if isinstance(left, float) and isinstance(right, float):
            return float(_OPERATORS[kind](left, right))
        pairs: Iterable[tuple[Labels, float, float, float]]
        if isinstance(right, float):
            assert isinstance(left, dict)
            pairs = ((labels, number, number, right) for labels, number in left.items())
        elif isinstance(left, float):
            pairs = ((labels, number, left, number) for labels, number in right.items())
        else:
            pairs = _matched(left, right, matching)
        answer = {}
        for labels, kept, a, b in pairs:
            if kind in _COMPARISONS:
                holds = _COMPARISONS[kind](a, b)
                if as_bool:
                    answer[_unnamed(labels)] = float(holds)
                elif holds:
                    answer[labels] = kept
            else:
                answer[_unnamed(labels)] = float(_OPERATORS[kind](a, b))
        return answer


def _selected(selector: Any, labels: dict[str, str]) -> bool:
    if selector.name is not None and labels.get(_NAME) != selector.name:
        return False
    for matcher in selector.matchers.matchers:
        have, want, kind = labels.get(matcher.name, ""), matcher.value, str(matcher.op).rpartition(".")[2]
        holds = re.fullmatch(want, have) is not None if kind in ("Re", "NotRe") else have == want
        if holds == (kind in ("NotRe", "NotEqual")):
            return False
    return True


def _unnamed(labels: Labels) -> Labels:
    return frozenset(pair for pair in labels if pair[0] != _NAME)


def _group(labels: Labels, modifier: Any) -> Labels:
    if modifier is None:
        return frozenset()
    include = str(modifier.type).endswith("By")
    return frozenset(pair for pair in _unnamed(labels) if (pair[0] in modifier.labels) == include)


def _key(labels: Labels, matching: Any) -> Labels:
    if matching is None:
        return _unnamed(labels)
    include = str(matching.type).endswith("Include")
    return frozenset(pair for pair in _unnamed(labels) if (pair[0] in matching.labels) == include)


def _matched(left: Vector, right: Vector, matching: Any) -> Iterable[tuple[Labels, float, float, float]]:
    by_key: dict[Labels, float] = {}
    for labels, number in right.items():
        key = _key(labels, matching)
        if key in by_key:
            raise ValueError(f"many-to-many matching: several series on the right for {dict(key)}")
        by_key[key] = number
    seen: set[Labels] = set()
    for labels, number in left.items():
        key = _key(labels, matching)
        if key in by_key:
            if key in seen:
                raise ValueError(f"many-to-many matching: several series on the left for {dict(key)}")
            seen.add(key)
            yield (labels if matching is None else key), number, number, by_key[key]


def _set_operation(kind: str, left: Vector, right: Vector, matching: Any) -> Vector:
    there = {_key(labels, matching) for labels in right}
    if kind == "and":
        return {labels: number for labels, number in left.items() if _key(labels, matching) in there}
    if kind == "unless":
        return {labels: number for labels, number in left.items() if _key(labels, matching) not in there}
    here = {_key(labels, matching) for labels in left}
    return left | {labels: number for labels, number in right.items() if _key(labels, matching) not in here}


def _increase(samples: list[tuple[float, float]], start: float, end: float) -> float | None:
    """Prometheus' extrapolatedRate for a counter, without the division by the range."""
    if len(samples) < 2:
        return None
    grown, previous = 0.0, samples[0][1]
    for _, value in samples[1:]:
        grown += value if value < previous else value - previous  # a counter that fell was started anew
        previous = value
    covered = samples[-1][0] - samples[0][0]
    average = covered / (len(samples) - 1)
    before, after = samples[0][0] - start, end - samples[-1][0]
    if grown > 0 and samples[0][1] >= 0:
        before = min(before, covered * samples[0][1] / grown)  # no counter was ever below zero
    reach = covered
    for gap in (before, after):
        reach += gap if gap < average * 1.1 else average / 2
    return grown * reach / covered


def _rate(samples: list[tuple[float, float]], start: float, end: float) -> float | None:
    grown = _increase(samples, start, end)
    return None if grown is None else grown / (end - start)


def _deviation(numbers: list[float]) -> float:
    mean = math.fsum(numbers) / len(numbers)
    return math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers))


def _over(
    function: Callable[[list[float]], float],
) -> Callable[[list[tuple[float, float]], float, float], float | None]:
    return lambda samples, _start, _end: function([value for _, value in samples])


def _largest(numbers: list[float]) -> float:
    """As Prometheus has it: NaN only where there is nothing else."""
    return max((number for number in numbers if not math.isnan(number)), default=math.nan)


def _smallest(numbers: list[float]) -> float:
    return min((number for number in numbers if not math.isnan(number)), default=math.nan)


def _mean(numbers: list[float]) -> float:
    return math.fsum(numbers) / len(numbers)


def _divided(a: float, b: float) -> float:
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a)
    return a / b


def _histogram_quantile(quantile: float, buckets: Vector) -> Vector:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, number in buckets.items():
        bounds = dict(labels)
        if "le" in bounds:
            rest = frozenset(pair for pair in _unnamed(labels) if pair[0] != "le")
            groups.setdefault(rest, []).append((float(bounds["le"]), number))
    return {labels: _bucket_quantile(quantile, sorted(group)) for labels, group in groups.items()}


def _bucket_quantile(quantile: float, buckets: list[tuple[float, float]]) -> float:
    """Linear within the bucket that holds the rank, from 0 in the lowest; the highest finite bound above that."""
    if len(buckets) < 2 or buckets[-1][0] != math.inf or not buckets[-1][1] > 0:
        return math.nan
    rank = quantile * buckets[-1][1]
    index = next(i for i, (_, count) in enumerate(buckets) if count >= rank)
    if index == len(buckets) - 1:
        return buckets[-2][0]
    low, below = buckets[index - 1] if index else (0.0, 0.0)
    high, count = buckets[index]
    return low + (high - low) * _divided(rank - below, count - below)


def _absent(vector: Vector) -> Vector:
    return {} if vector else {frozenset(): 1.0}


_OVER_RANGE: dict[str, OverRange] = {
    "rate": _rate,
    "increase": _increase,
    "avg_over_time": _over(_mean),
    "stddev_over_time": _over(_deviation),
    "max_over_time": _over(_largest),
    "min_over_time": _over(_smallest),
    "sum_over_time": _over(math.fsum),
    "count_over_time": _over(lambda numbers: float(len(numbers))),
}
_FUNCTIONS: dict[str, Callable[..., Vector | float]] = {
    "histogram_quantile": _histogram_quantile,
    "clamp_min": lambda vector, low: {_unnamed(labels): max(number, low) for labels, number in vector.items()},
    "clamp_max": lambda vector, high: {_unnamed(labels): min(number, high) for labels, number in vector.items()},
    "absent": _absent,
    "vector": lambda number: {frozenset(): number},
}
_AGGREGATIONS: dict[str, Callable[[list[float]], float]] = {
    "sum": math.fsum,
    "avg": _mean,
    "max": _largest,
    "min": _smallest,
    "count": lambda numbers: float(len(numbers)),
    "group": lambda _: 1.0,
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divided,
    "^": operator.pow,
    **_COMPARISONS,
}
_HANDLERS: dict[str, Callable[[Database, Any, float], Vector | float]] = {
    "VectorSelector": Database._selector,
    "NumberLiteral": Database._number,
    "ParenExpr": Database._parenthesis,
    "UnaryExpr": Database._minus,
    "Call": Database._call,
    "AggregateExpr": Database._aggregate,
    "BinaryExpr": Database._binary,
}
