"""Reads a Dockerfile into its stages, so that tests can hold it against rules and run it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

KNOWN = {
    *("FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT"),
    *("CMD", "LABEL", "SHELL"),
}


@dataclass(frozen=True)
class Instruction:
    """One instruction: its keyword, ``--option=value`` words, and the rest."""

    keyword: str
    options: dict[str, str]
    text: str
    line: int


@dataclass
class Stage:
    """From one FROM to the next."""

    base: str
    name: str | None
    instructions: list[Instruction] = field(default_factory=list)

    def last(self, keyword: str) -> Instruction:
        """The last instruction of a kind: the one that counts."""
        return [instruction for instruction in self.instructions if instruction.keyword == keyword][-1]

    def command(self, keyword: str) -> list[str]:
        """The words of an ENTRYPOINT or CMD in JSON form."""
        words = json.loads(self.last(keyword).text)
        assert isinstance(words, list)
        return [str(word) for word in words]


def parse(path: Path) -> list[Stage]:
    """The stages of a Dockerfile in its order; ValueError for an instruction that is not known here."""
    stages: list[Stage] = []
    for line, logical in _logical_lines(path.read_text(encoding="utf-8")):
        keyword, _, text = logical.partition(" ")
        keyword = keyword.upper()
        if keyword not in KNOWN:
            raise ValueError(f"{path.name}:{line}: {keyword} is not known")
        options = {}
        while match := re.match(r"--([a-z-]+)=(\S+)\s+", text := text.strip() + " "):
            options[match[1]] = match[2]
            text = text[match.end() :]
        instruction = Instruction(keyword, options, text.strip(), line)
        if keyword == "FROM":
            words = instruction.text.split()
            stages.append(Stage(words[0], words[2] if len(words) == 3 and words[1].upper() == "AS" else None))
        elif stages:
            stages[-1].instructions.append(instruction)
    return stages


def _logical_lines(text: str) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []
    collected, began = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        if not raw.strip() or raw.lstrip().startswith("#"):
            continue  # comments may stand within a continued line too
        began = began if collected else number
        collected += raw.strip()
        if collected.endswith("\\"):
            collected = collected[:-1].rstrip() + " "
        else:
            lines.append((began, collected))
            collected = ""
    return lines
