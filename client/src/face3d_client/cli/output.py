"""Output and exit statuses of the command: results on stdout, sentences on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from face3d_client._errors import Face3DError, ServerUnavailable, Timeout
from face3d_client._text import printable

__all__ = [
    "ALL_DONE",
    "INTERRUPTED",
    "NOTHING_DONE",
    "NO_SERVER",
    "SOME_FAILED",
    "print_json",
    "print_line",
    "say",
    "status_of",
]

ALL_DONE: Final = 0
SOME_FAILED: Final = 1
NOTHING_DONE: Final = 2
NO_SERVER: Final = 3
INTERRUPTED: Final = 130


def status_of(error: Face3DError) -> int:
    """Choose the exit status for an error."""
    nobody = isinstance(error, ServerUnavailable) and error.status != "INTERNAL"
    return NO_SERVER if nobody or isinstance(error, Timeout) else NOTHING_DONE


def say(sentence: str) -> None:
    """Print a sentence on stderr."""
    print(f"face3d: {printable(sentence, 4000)}", file=sys.stderr)


def print_line(text: str) -> None:
    """Print a line of results; to a terminal without control characters (a file's name may hold escapes)."""
    print(printable(text, 8000) if sys.stdout.isatty() else text)


def print_json(value: dict[str, Any]) -> None:
    """Print a JSON object on one line."""
    # Names that are not valid UTF-8 come as surrogates, which only escapes can carry.
    print(json.dumps(value, ensure_ascii=True), flush=True)
