"""Processes are named by their command lines, and a table of them adds up."""

from __future__ import annotations

import os

import pytest

from perf.owners import Owners, markdown, memory, owner, processor_times
from server.embedded import EmbeddedServer


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["/opt/tritonserver", "--http-port=1"], "tritonserver"),
        (["python", "-m", "server.gateway", "--http-port", "1"], "gateway"),
        (["stub", "/srv/models/align/1/model.py", "prefix"], "align"),
        (["stub", "/srv/model_repository/regressor/2/model.onnx", "prefix"], "regressor"),
        (["python", "/srv/models/preprocess/1/decode_worker.py"], "decoder"),
        (["bash"], None),
        ([], None),
    ],
)
def test_a_process_is_named_by_its_command_line(words: list[str], name: str | None) -> None:
    assert owner(words) == name


def test_every_model_of_a_server_has_a_process_with_time_and_memory(server: EmbeddedServer) -> None:
    assert server.is_running
    models = {"tritonserver", "preprocess", "detector", "align", "regressor", "parser", "texture", "postprocess"}
    assert models <= {name for name, seconds in processor_times(os.getpid()).items() if seconds > 0}
    assert models <= {name for name, megabytes in memory(os.getpid()).items() if megabytes > 5}


def test_the_table_adds_up_without_the_client() -> None:
    found = Owners(
        {"texture": 20.0, "client": 5.0, "align": 1.5},
        {"texture": 1.25},
        {"texture": [90, 100, 110], "idle": [1, 2, 3]},
        9.0,
        0,
    )
    text = markdown(found)
    assert "| together, without the client | 21.5 |  | 91, 102, 113 |" in text
    assert "| texture | 20.0 | 1.2 | 90, 100, 110 |" in text
    assert "| client | 5.0 |  |  |" in text
    assert "| idle |  |  | 1, 2, 3 |" in text
