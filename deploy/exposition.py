"""Reads Prometheus' text format, as Triton and the supervisor write it on their pages."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+-?\d+)?$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


@dataclass(frozen=True)
class Sample:
    """One number of a page: the metric's name, its labels, its value."""

    name: str
    labels: Mapping[str, str]
    value: float


def parse(page: str) -> Iterator[Sample]:
    """The samples of a page, in its order.

    Raises:
        ValueError: a line is neither a comment nor a sample.
    """
    for line in page.splitlines():
        if not line or line.startswith("#"):
            continue
        match = _SAMPLE.match(line.strip())
        if match is None:
            raise ValueError(f"not a line of a metrics page: {line!r}")
        labels = {
            name: re.sub(r"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), value)
            for name, value in _LABEL.findall(match["labels"] or "")
        }
        yield Sample(match["name"], labels, float(match["value"]))


def scrape(address: str, timeout: float = 5.0) -> str:
    """The page of ``HOST:PORT`` or of a whole URL; OSError when nobody answers within ``timeout`` seconds."""
    url = address if "://" in address else f"http://{address}/metrics"
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{address!r} is not an address of a metrics page")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=timeout) as page:
        text: str = page.read().decode()
    return text
