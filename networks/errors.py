"""The base of what these modules raise for a mistake that a user can mend."""

from __future__ import annotations


class NetworkError(Exception):
    """One sentence that says what is wrong with a network's files and what to do."""
