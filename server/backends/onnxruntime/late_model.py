"""A model whose graph, and ONNX Runtime with it, is loaded when somebody first asks.

For networks that most servers never use. Its process then holds what Python, NumPy and Triton's stub take. That the
graph would load is seen in a process of its own, `check_graph.py`, which takes with it what that took.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx_session import Answer, Array, Config, ConfigError, OnnxModel

PROGRAM = Path(__file__).with_name("check_graph.py")
# Reading the largest graph from a cold disk; Triton itself gives a model no more to start.
_LONGEST_CHECK = 120.0  # seconds


class LateModel:
    """Runs batches of requests as an `OnnxModel` does, which it opens for the first of them.

    For one thread at a time, as a stub has it: there is no lock.

    Args:
        open_model: opens it; its ConfigError is the answer to those who wait, and the next call tries again.
    """

    def __init__(self, open_model: Callable[[], OnnxModel]) -> None:
        self._open_model = open_model
        self._model: OnnxModel | None = None

    def run(
        self, requests: Sequence[Mapping[str, Array]], wanted: Sequence[Sequence[str]]
    ) -> Iterator[tuple[int, Answer]]:
        """Run requests together: see `OnnxModel.run`."""
        if self._model is None and requests:
            try:
                self._model = self._open_model()
            except ConfigError as error:
                yield from ((index, error) for index in range(len(requests)))
                return
        if self._model is not None:
            yield from self._model.run(requests, wanted)


def check_apart(path: Path, config: Config) -> None:
    """See in another process that a graph loads here and is what its configuration says.

    Args:
        path: the ``model.onnx`` file.
        config: the model configuration in Triton's JSON form.

    Raises:
        ConfigError: with one sentence that names what does not fit, or that the check itself failed.
    """
    words = [_python(), str(PROGRAM), str(path)]
    try:
        done = subprocess.run(
            words, input=json.dumps(config), capture_output=True, text=True, timeout=_LONGEST_CHECK, check=False
        )
        found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"refused": None}
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{path} could not be checked: {error}") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ConfigError(f"{path} could not be checked: the check ended with {done.returncode} ({last})")
    if found["refused"] is not None:
        raise ConfigError(str(found["refused"]))


def _python() -> str:
    """Find the interpreter: a stub embeds Python and finds its packages by the first ``python3`` on PATH."""
    if Path(sys.executable or "").name.startswith("python"):
        return sys.executable
    found = shutil.which("python3")
    if found is None:
        raise ConfigError("there is no program called python3 on PATH, which graphs are checked in.")
    return found
