"""The exception that `export/` raises for what a user can correct; command lines turn it into exit code 2."""

from __future__ import annotations

from networks.errors import NetworkError


class ExportError(NetworkError):
    """An export cannot go on; the message is one sentence with a remedy."""
