"""The exception that `export/` raises for what a user can correct; command lines turn it into exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

from networks.errors import NetworkError


class ExportError(NetworkError):
    """An export cannot go on; the message is one sentence with a remedy."""


def exit_code(command: Callable[[], None]) -> int:
    """Run a command; return 0, or print a `NetworkError` to stderr and return 2."""
    try:
        command()
    except NetworkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
