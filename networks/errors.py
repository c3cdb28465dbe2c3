"""Base of the errors that these modules raise for files a user can correct."""

from __future__ import annotations


class NetworkError(Exception):
    """A file of a network is missing or wrong; the message is one sentence with a remedy."""
