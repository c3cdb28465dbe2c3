"""`python -m deploy.configuration_page`: write docs/configuration.md from the sources it describes.

Options of the server come from its parser, the models' parameters from their configurations with the comments beside
them, and limits in code from the constants themselves; what each does is said once, here or there. ``--check`` writes
nothing and ends with status 1 when the page is not what the sources say.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.__main__ import option_parser

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"


@dataclass(frozen=True)
class Constant:
    """A limit or threshold that stands in code.

    Attributes:
        file: relative to the checkout.
        name: of the module's constant, or ``Class.attribute``.
        effect: one sentence for an operator.
    """

    file: str
    name: str
    effect: str

    def value(self) -> str:
        """Return the source of the value.

        Raises:
            LookupError: the file has no such constant.
        """
        tree = ast.parse((ROOT / self.file).read_text(encoding="utf-8"))
        body, name = tree.body, self.name
        if "." in name:
            owner, name = name.split(".")
            body = next((n.body for n in body if isinstance(n, ast.ClassDef) and n.name == owner), [])
        for node in body:
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return ast.unparse(node.value)
        raise LookupError(f"{self.file} has no constant {self.name}")


CONSTANTS: dict[str, tuple[Constant, ...]] = {
    "Pictures": (
        Constant("model_repository/preprocess/1/pictures.py", "WORKING_SIDE", "Long side of the working picture, px."),
        Constant("model_repository/preprocess/1/pictures.py", "FORMATS", "File formats that are decoded."),
        Constant("model_repository/preprocess/1/pictures.py", "CANVAS", "Side of the detector's canvas, px."),
    ),
}


def server_options() -> Iterator[str]:
    """Yield a row an option of `python -m server`."""
    yield "| option | environment | default | effect |"
    yield "|---|---|---|---|"
    for action in option_parser()._actions:  # argparse has no public list of its options
        if not action.option_strings or action.dest == "help":
            continue
        default = "" if action.default is None else f"`{_relative(action.default)}`"
        effect = re.sub(r" \(default [^)]*\)", "", action.help or "")
        environment = "" if action.dest == "load_model" else f"`FACE3D_{action.dest.upper()}`"
        yield f"| `{action.option_strings[0]}` | {environment} | {default} | {effect} |"


def _relative(value: object) -> object:
    """A path of the checkout without the place where it lies."""
    if isinstance(value, Path) and value.is_relative_to(ROOT):
        return value.relative_to(ROOT)
    return value


def model_parameters() -> Iterator[str]:
    """Yield a row a parameter of a model's configuration, with the comment above it."""
    yield "| model | parameter | value | effect |"
    yield "|---|---|---|---|"
    for path in sorted((ROOT / "model_repository").glob("*/config.pbtxt")):
        text = path.read_text(encoding="utf-8")
        block = re.search(r"^parameters \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
        comment: list[str] = []
        for line in block[1].splitlines() if block else ():
            if found := re.search(r'key: "([^"]+)" value: \{ string_value: "([^"]*)"', line):
                yield f"| {path.parent.name} | `{found[1]}` | `{found[2]}` | {' '.join(comment)} |"
                comment = []
            elif line.strip().startswith("#"):
                comment.append(line.strip("# "))


def page() -> str:
    """Return the whole page."""
    lines = [
        "# Configuration",
        "",
        "What may be set, where it stands, and what overrides it. Written by `python -m deploy.configuration_page`",
        "(`make configs`) from the sources; a test holds it to them.",
        "",
        "## The server",
        "",
        'Options of `python -m server` and `make serve ARGS="..."`; an option goes before its environment variable.',
        "",
        *server_options(),
        "",
        "## Models",
        "",
        "Parameters in `model_repository/MODEL/config.pbtxt`; a flavour (`configs/NAME.pbtxt`, `--model-config-name`)",
        "replaces the whole file. Batch sizes, instances and delays stand there too, each with its reason.",
        "",
        *model_parameters(),
        "",
        "## Limits and thresholds in code",
        "",
        "Changed in the file named; what has an option or a parameter is above.",
    ]
    for title, constants in CONSTANTS.items():
        lines += ["", f"### {title}", "", "| constant | value | effect |", "|---|---|---|"]
        lines += [f"| `{c.name}` in `{c.file}` | `{c.value()}` | {c.effect} |" for c in constants]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0: written or as it should be, 1: ``--check`` found a difference."""
    parser = argparse.ArgumentParser(prog="python -m deploy.configuration_page", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when the page is stale")
    options = parser.parse_args(arguments)
    text = page()
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if options.check:
        print("docs/configuration.md is stale: run `make configs`.")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    print("wrote docs/configuration.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
