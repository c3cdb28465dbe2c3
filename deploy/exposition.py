"""Fetches and reads metrics pages in Prometheus' text format, as Triton and the supervisor write them."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def parse(page: str) -> Iterator[Sample]:
    """Yield the samples of a page, in its order, each with ``name``, ``labels`` and ``value``.

    Raises:
        ValueError: a line is neither a comment nor a sample.
    """
    # Without the TYPE lines: the parser would add "_total" to the names of counters that lack it, as Triton's do, and
    # then they would no longer be the names that Prometheus knows.
    bare = "\n".join(line for line in page.splitlines() if not line.startswith("#"))
    for family in text_string_to_metric_families(bare):
        yield from family.samples


def scrape(address: str, timeout: float = 5.0) -> str:
    """Fetch the page of ``HOST:PORT`` or of a whole URL; OSError when nobody answers within ``timeout`` seconds."""
    url = address if "://" in address else f"http://{address}/metrics"
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{address!r} is not an address of a metrics page")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=timeout) as page:
        text: str = page.read().decode()
    return text
