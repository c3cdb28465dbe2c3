"""The consent statement of a request: by what right a face is put on another's picture, in the client's words.

Nobody here judges whether it is true. It is required, it is written into the picture for everybody to read, and into
the log, so that whoever asked has said so in writing.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any, Final

LONGEST: Final = 500
"""Characters of a statement: a few sentences. It stands in every picture and in a line of the log."""

# Categories of Unicode: control characters, halves of surrogate pairs, characters without a meaning.
_UNSHOWN: Final = frozenset({"Cc", "Cs", "Co", "Cn"})
# They turn the order of what follows around, so that a line reads other than it is.
_TURNING: Final = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))


class ConsentRefused(Exception):
    """A request whose consent statement is missing or cannot be one.

    Attributes:
        tag: the name of the client's exception: ``ConsentRequired`` or ``BadOption``.
    """

    def __init__(self, tag: str, sentence: str) -> None:
        super().__init__(sentence)
        self.tag = tag


def consent_from(parameters: str) -> str:
    """Read the parameter ``consent``, as one line.

    Args:
        parameters: the request's parameters, a JSON object.

    Raises:
        ConsentRefused: ``ConsentRequired`` where it is missing or empty; ``BadOption`` where it is no text, longer than
            `LONGEST`, or has characters that cannot be shown.
    """
    given: dict[str, Any] = json.loads(parameters or "{}")
    statement = given.get("consent", "")
    if not isinstance(statement, str):
        raise ConsentRefused("BadOption", f"`consent` is {statement!r:.40}: give a sentence.")
    statement = " ".join(statement.split())
    if not statement:
        raise ConsentRefused(
            "ConsentRequired",
            "a fused picture needs a consent statement: say in the parameter `consent` who agreed to it, and to what.",
        )
    if len(statement) > LONGEST:
        raise ConsentRefused("BadOption", f"`consent` has {len(statement)} characters: {LONGEST} are allowed.")
    if not all(map(_is_shown, statement)):
        raise ConsentRefused("BadOption", "`consent` has characters that cannot be shown: give plain text.")
    return statement


def _is_shown(character: str) -> bool:
    return unicodedata.category(character) not in _UNSHOWN and character not in _TURNING


def log_line(manifest: str, statement: str) -> str:
    """Return what the log keeps of a fused picture: one line of ASCII, which no statement can end or forge.

    Args:
        manifest: the label of the picture's C2PA manifest, by which picture and line find each other.
        statement: of `consent_from`.
    """
    return f"fusion: signed {manifest} consent={json.dumps(statement)}"
