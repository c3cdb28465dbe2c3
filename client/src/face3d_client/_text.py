"""Text of other origin (a server, a file's name) made safe for a terminal, a log and a page."""

from __future__ import annotations

from typing import Final
from unicodedata import category

__all__ = ["MAX_MESSAGE", "printable"]

MAX_MESSAGE: Final = 1000
"""Characters of a message that are kept: the longest sentence of the service has about 300."""

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
# Control and format characters (ANSI escapes begin with one; some turn the direction of writing), lone surrogates,
# characters without a meaning.
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def printable(text: str, longest: int = MAX_MESSAGE) -> str:
    """Make a text one line without control characters.

    White space becomes single spaces, any other character that cannot be seen U+FFFD; a text longer than `longest` ends
    in an ellipsis.
    """
    kept = text[: 4 * longest]  # the rest of a message of megabytes is not even looked at
    shown = "".join(" " if mark.isspace() else _REPLACEMENT if category(mark) in _INVISIBLE else mark for mark in kept)
    line = " ".join(shown.split())
    return line if len(line) <= longest and len(kept) == len(text) else line[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
