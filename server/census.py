"""Counts the processes that run a server's models, from /proc: the quickest way to see that one has died."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_STUB = "triton_python_backend_stub"


def stubs(server_pid: int) -> dict[tuple[str, int], set[int]]:
    """(Model, version) -> process ids of its stubs, for the server with this process id.

    A stub's command line names the model's file, ``REPOSITORY/MODEL/VERSION/FILE``, and it is the server's child.
    """
    found: dict[tuple[str, int], set[int]] = defaultdict(set)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            if int(parent) != server_pid or state == "Z":
                continue
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it has ended meanwhile
        if Path(words[0]).name == _STUB:
            model, version = Path(words[1]).parts[-3:-1]
            found[model, int(version)].add(int(entry.name))
    return dict(found)


def expected(config: Mapping[str, Any]) -> int:
    """How many processes a model of this configuration has; 0 for an ensemble."""
    if config.get("platform") == "ensemble":
        return 0
    return sum(int(group.get("count", 1)) for group in config.get("instance_group", [])) or 1
