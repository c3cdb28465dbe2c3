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
MAX_VALUE = 60
"""Longer values are tables, which nobody sets."""


SOURCES: dict[str, tuple[str, ...]] = {
    "What the gateway lets in": ("server/gateway/limits.py",),
    "Pictures": tuple(
        f"model_repository/preprocess/1/{name}.py"
        for name in (
            *("structure", "pictures", "cage", "lanes", "exif", "jpeg_structure", "png_structure", "tiff_structure"),
            *("webp_structure", "tiles"),
        )
    ),
    "Which face, and what is warned of": ("model_repository/align/1/faces.py",),
    "Recognition": (
        "model_repository/align/1/embedding_crop.py",
        "client/src/face3d_client/gallery/_thresholds.py",
        "client/src/face3d_client/gallery/_gallery.py",
    ),
    "Many small faces": ("model_repository/merge/1/tile_faces.py",),
    "Several photographs of one person": (
        "model_repository/merge/1/photo_tensors.py",
        "model_repository/merge/1/textures.py",
        "client/src/face3d_client/_protocol/codec.py",
    ),
    "A clip": (
        "model_repository/steady/1/tracks.py",
        "model_repository/steady/1/lips.py",
        "model_repository/steady/1/steady_options.py",
        "client/src/face3d_client/_video.py",
    ),
    "Textures and meshes": (
        "model_repository/align/1/close_up.py",
        *(f"model_repository/postprocess/1/{name}.py" for name in ("finish", "light", "relief", "covers", "glasses")),
        "model_repository/postprocess/1/photograph.py",
        "model_repository/fusion/1/enhancement.py",
    ),
    "Export": ("export/stages/gate.py", "export/models/detector.py", "export/models/texture_split.py"),
}
"""Title -> files whose public constants are limits and thresholds; each says beside itself what it is for."""


@dataclass(frozen=True)
class Constant:
    """A limit or threshold that stands in code: where, its value as written there, and what is said of it beside it."""

    name: str
    value: str
    effect: str


def constants(file: str) -> Iterator[Constant]:
    """Yield the public constants of a module, with the string below or the comment above each."""
    text = (ROOT / file).read_text(encoding="utf-8")
    lines, body = text.splitlines(), ast.parse(text).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None or not isinstance(target, ast.Name):
            continue
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", target.id) or len(ast.unparse(node.value)) > MAX_VALUE:
            continue
        below = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        effect = " ".join(str(below or _above(lines, node.lineno)).split())
        yield Constant(target.id, ast.unparse(node.value), effect)


def _above(lines: Sequence[str], number: int) -> str:
    """Return the comment on the line itself, or on the lines above line ``number`` (from 1)."""
    if "  # " in lines[number - 1]:
        return lines[number - 1].split("  # ", 1)[1]
    last = number - 1
    while last > 0 and re.match(r"[A-Z][A-Z0-9_]* = [^(\[{]*$", lines[last - 1]):
        last -= 1  # one comment may stand above several constants
    first = last
    while first > 0 and lines[first - 1].startswith("# "):
        first -= 1
    return " ".join(line[2:] for line in lines[first:last])


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
    """Return a path of the checkout without the place where it lies."""
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
        for line in block[1].replace("string_value:\n    ", "string_value: ").splitlines() if block else ():
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
    for title, files in SOURCES.items():
        lines += ["", f"### {title}"]
        for file in files:
            found = [constant for constant in constants(file) if constant.effect]
            lines += ["", f"`{file}`", "", "| constant | value | effect |", "|---|---|---|"]
            lines += [f"| `{c.name}` | `{c.value}` | {c.effect.replace('|', '/')} |" for c in found]
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
