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
    for pid, state in _children(server_pid).items():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it has ended meanwhile
        if state != "Z" and Path(words[0]).name == _STUB:
            model, version = Path(words[1]).parts[-3:-1]
            found[model, int(version)].add(pid)
    return dict(found)


def dead_stubs(server_pid: int) -> set[int]:
    """Process ids of stubs that have died without the server's doing: it does not even collect their status."""
    return {pid for pid, state in _children(server_pid, _STUB[:15]).items() if state == "Z"}


def _children(parent: int, name: str = "") -> dict[int, str]:
    """Process id -> state of the processes started by ``parent``, of the given short name if there is one."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                head, tail = (entry / "stat").read_text().rsplit(")", 1)
            except OSError:
                continue  # it has ended meanwhile
            state, started_by = tail.split()[:2]
            if int(started_by) == parent and head.split("(", 1)[1].startswith(name):
                found[int(entry.name)] = state
    return found


def expected(config: Mapping[str, Any]) -> int:
    """How many processes a model of this configuration has; 0 for an ensemble."""
    if config.get("platform") == "ensemble":
        return 0
    return sum(int(group.get("count", 1)) for group in config.get("instance_group", [])) or 1
