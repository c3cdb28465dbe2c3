"""The one exception `export/` raises for something a user can mend; the command line turns it into exit code 2."""

from __future__ import annotations

from networks.errors import NetworkError


class ExportError(NetworkError):
    """One sentence that says what is wrong and what to do."""
