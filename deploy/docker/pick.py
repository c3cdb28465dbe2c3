"""`python -m deploy.docker.pick`: the lines of a lock file that belong to a list of packages, with versions and hashes.

Needs nothing but Python, so that a Dockerfile can call it before anything is installed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(\[[^]]*\])?==")


def normal(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def entries(lock: str) -> Iterator[tuple[str, str]]:
    """Yield the normal name and all lines of every package of a lock file with hashes."""
    for block in re.split(r"(?m)^(?=[A-Za-z0-9])", lock):
        if match := _NAME.match(block):
            yield normal(match[1]), block.rstrip() + "\n"


def wanted(text: str) -> list[str]:
    """Return the names in a list with comments."""
    return [normal(line) for raw in text.splitlines() if (line := raw.split("#")[0].strip())]


def pick(lock: str, names: Sequence[str]) -> str:
    """Return the part of a lock file that belongs to ``names``.

    Raises:
        KeyError: the lock has no such package.
    """
    found = dict(entries(lock))
    if missing := [name for name in names if name not in found]:
        raise KeyError(f"not in the lock file: {', '.join(missing)}")
    return "".join(found[name] for name in names)


def main(arguments: Sequence[str]) -> int:
    """``LOCK LIST``: print the part; 2 and a sentence when it cannot be made."""
    if len(arguments) != 2:
        print("usage: python -m deploy.docker.pick LOCK LIST", file=sys.stderr)
        return 2
    lock, names = (Path(argument).read_text(encoding="utf-8") for argument in arguments)
    try:
        sys.stdout.write(pick(lock, wanted(names)))
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
