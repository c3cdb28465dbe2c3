"""Counts the processes that run a server's models: the quickest way to see that one has died."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

_STUB = "triton_python_backend_stub"


def stubs(server_pid: int) -> dict[tuple[str, int], set[int]]:
    """Find the stubs of a server: (model, version) -> process ids.

    A stub's command line names the model's file, ``REPOSITORY/MODEL/VERSION/FILE``, and it is the server's child.
    """
    found: dict[tuple[str, int], set[int]] = defaultdict(set)
    for process in _children(server_pid):
        try:
            words = process.cmdline()  # empty for a zombie
        except psutil.Error:
            continue  # it has ended meanwhile
        if len(words) > 1 and Path(words[0]).name == _STUB:
            model, version = Path(words[1]).parts[-3:-1]
            found[model, int(version)].add(process.pid)
    return dict(found)


def stub_of(server_pid: int, instance: str) -> int | None:
    """Find the process id of the stub of one instance, ``regressor_0_0``; None if it has none."""
    for process in _children(server_pid):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue  # it has ended meanwhile
        if words and Path(words[0]).name == _STUB and instance in words[2:]:
            return int(process.pid)
    return None


def stopped_stubs(server_pid: int) -> set[int]:
    """Find the process ids of stubs that a signal has stopped; debuggers stop processes otherwise."""
    found = set()
    for process in _children(server_pid):
        try:
            if process.status() == psutil.STATUS_STOPPED and process.name().startswith(_STUB[:15]):
                found.add(process.pid)
        except psutil.Error:
            continue  # it has ended meanwhile
    return found


def dead_stubs(server_pid: int) -> set[int]:
    """Find the process ids of stubs that died without the server's doing: it does not even collect their status."""
    found = set()
    for process in _children(server_pid):
        try:
            # A zombie has no command line, and its name ends after the kernel's fifteen letters.
            if process.status() == psutil.STATUS_ZOMBIE and process.name().startswith(_STUB[:15]):
                found.add(process.pid)
        except psutil.Error:
            continue  # it has ended meanwhile
    return found


def orphans() -> dict[int, str]:
    """Return process id -> prefix of its shared memory, for stubs of this user whose server has ended.

    A stub looks after its server, but one that waits for a lock in shared memory does not notice that it has gone.
    """
    found = {}
    for process in psutil.process_iter():
        try:
            if not process.name().startswith(_STUB[:15]) or process.uids().effective != os.geteuid():
                continue
            words, parent = process.cmdline(), process.parent()
        except psutil.Error:
            continue  # it has ended meanwhile
        if len(words) > 2 and (parent is None or parent.name() != "tritonserver"):
            found[process.pid] = words[2]
    return found


def _children(parent: int) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = psutil.Process(parent).children()
    except psutil.NoSuchProcess:
        return []
    return children


def expected(config: Mapping[str, Any]) -> int:
    """Return how many processes a model of this configuration has; 0 for an ensemble."""
    if config.get("platform") == "ensemble":
        return 0
    return sum(int(group.get("count", 1)) for group in config.get("instance_group", [])) or 1
