"""The table of `make top`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from rich.console import Console

from deploy.exposition import parse
from deploy.top import Page, compare, drawn, main
from server.embedded import EmbeddedServer
from tests.deploy.history import History


def test_the_table_says_what_happened_between_two_pages(history: History) -> None:
    board = compare(Page.read(history.pages[0], 0.0), Page.read(history.pages[-1], 10.0))
    face3d = next(row for row in board.rows if row.model == "face3d")
    regressor = next(row for row in board.rows if row.model == "regressor")
    assert face3d.throughput == pytest.approx(history.good / 10)
    assert face3d.versions == ("1",)
    assert face3d.mean is not None
    assert 0.01 < face3d.mean < 60
    assert face3d.p50 is not None
    assert face3d.p99 is not None
    assert face3d.p50 <= face3d.p99
    assert regressor.batch == 1.0  # one request at a time was sent
    assert regressor.queue_compute is not None
    assert regressor.queue_compute >= 0
    assert board.errors["preprocess BadImage"] == pytest.approx(history.refused["BadImage"] / 10)
    assert board.errors["align NoFace"] == pytest.approx(history.refused["NoFace"] / 10)


def test_a_server_that_was_started_anew_gives_no_negative_numbers(history: History) -> None:
    board = compare(Page.read(history.pages[-1], 0.0), Page.read(history.pages[0], 1.0))
    assert all(row.throughput >= 0 for row in board.rows)
    assert all(rate >= 0 for rate in board.errors.values())


def test_an_idle_server_has_no_means(history: History) -> None:
    page = history.pages[-1]
    board = compare(Page.read(page, 0.0), Page.read(page, 1.0))
    assert all(row.mean is None and row.batch is None for row in board.rows)
    console = Console(width=200, record=True, file=None)
    with console.capture() as shown:
        console.print(drawn(board, "here"))
    assert "no errors" in shown.get()


def test_the_command_prints_one_table_for_scripts(server: EmbeddedServer) -> None:
    command = [sys.executable, "-m", "deploy.top", "--metrics", server.metrics, "--interval", "0.2"]
    shown = subprocess.run([*command, "--once"], capture_output=True, text=True, check=True, timeout=60).stdout
    for word in ("face3d", "regressor", "queue"):
        assert word in shown
    made = json.loads(subprocess.run([*command, "--json"], capture_output=True, check=True, timeout=60).stdout)
    assert {"face3d", "detect", "reconstruct", "regressor"} <= {row["model"] for row in made["rows"]}


def test_a_server_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--metrics", "127.0.0.1:9", "--once"]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_samples_keep_their_names_and_labels_their_escapes() -> None:
    (sample,) = parse('m{a="x\\"y\\\\",b="1"} 2.5 1700000000')
    assert (sample.name, sample.labels, sample.value) == ("m", {"a": 'x"y\\', "b": "1"}, 2.5)
    # Triton's counters have no "_total", and Prometheus keeps them so.
    (counter,) = parse("# HELP nv_count Requests\n# TYPE nv_count counter\nnv_count{} 3\n")
    assert (counter.name, counter.value) == ("nv_count", 3)


@pytest.mark.parametrize("line", ["?", "m", "m x", 'm{a="x} 1'])
def test_a_line_that_is_no_sample_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"metric name|float"):
        list(parse(line))
