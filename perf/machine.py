"""The machine of a measurement, and the processor time and memory of a process with its descendants."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from server.repository import ROOT

# glibc's numbers for: from this size on, a piece of memory is a mapping of its own; so much may stay free at the end.
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_LARGEST_PIECE, _KEPT_HEAP = 32 << 20, 64 << 20

PACKAGES = ("nvidia-pytriton", "onnxruntime", "torch", "tritonclient", "fastapi", "litserve", "bentoml", "numpy")


def facts() -> dict[str, Any]:
    """Return processor, whether it has VNNI, cores, memory, versions, date and commit."""
    model, vnni = platform.processor() or platform.machine(), False
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
        vnni = any({"avx_vnni", "avx512_vnni"} & set(line.split()) for line in lines if line.startswith("flags"))
    versions = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "processor": model,
        "vnni": vnni,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "triton": "2.51.0",
        "versions": versions,
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _commit() -> str:
    with suppress(OSError):
        done = subprocess.run(["git", "describe", "--always"], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()
    return ""


def keep_heap() -> None:
    """Use the memory of one answer for the next in this process, as a program of clients under load may.

    glibc gives megabytes back as soon as they are free, and the kernel clears as many for the next answer: a thousand
    pages and half of the clients' processor time, which a server on the same cores does without.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_PIECE)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_HEAP)


def process_tree(pid: int) -> Iterator[psutil.Process]:
    """Iterate over a process and its running descendants."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        yield parent
        yield from parent.children(recursive=True)


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process tree so far; ended children count with their parent."""
    total = 0.0
    for process in process_tree(pid):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def resident_mb(pid: int) -> float:
    """Return the memory of a process tree in MB, shared pages counted once (PSS)."""
    return sum(proportional_mb(process.pid) for process in process_tree(pid))


def proportional_mb(pid: int) -> float:
    """Return the memory of one process in MB, its part of shared pages only (PSS); 0 where it has ended."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return 0.0
