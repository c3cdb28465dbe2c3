"""`python -m deploy.tensor_table`: the table for callers in client/README.md, out of the configurations and limits.

``--check`` writes nothing and exits with 1 where the page says something else.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from server.gateway import limits
from server.gateway.parameters import TABLE

_ROOT: Final = Path(__file__).resolve().parents[1]
_PAGE: Final = _ROOT / "client" / "README.md"
START: Final = "<!-- tensors: python -m deploy.tensor_table -->"
END: Final = "<!-- end of tensors -->"

_TENSOR: Final = re.compile(
    r"((?:^ *#[^\n]*\n)*)^ *\{ name: \"(\w+)\" data_type: TYPE_(\w+) dims: \[ ([-0-9, ]+) \]", re.MULTILINE
)
_ENSEMBLES: Final = ("face3d", "reconstruct", "detect", "group", "embed", "person", "track", "fuse")


def table() -> str:
    """The table, Markdown with a line break at its end."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    configs = {name: (_ROOT / "model_repository" / name / "config.pbtxt").read_text("utf-8") for name in _ENSEMBLES}
    yield "| tensor | type | shape | of | what |"
    yield "|---|---|---|---|---|"
    seen: dict[tuple[str, str, str, str], list[str]] = {}
    for model, text in configs.items():
        for direction in ("input", "output"):
            for name, kind, dims, what in _tensors(text, direction):
                shape = ", ".join("N" if dim.strip() == "-1" else dim.strip() for dim in dims.split(","))
                whole = f"[batch, {shape}]" if _batch(text) else f"[{shape}]"
                seen.setdefault((f"`{name}` ({direction[:-3]})", kind, whole, what), []).append(model)
    for (name, kind, shape, what), models in seen.items():
        yield f"| {name} | {kind} | {shape} | {', '.join(models)} | {what} |"
    yield ""
    batches = ", ".join(f"`{name}` 1 to {_batch(text)}" for name, text in configs.items() if _batch(text))
    photographs = f"its first dimension is 1 to {limits.MAX_PHOTOGRAPHS} photographs of one person"
    yield f"Rows of a batch: {batches}. `person` has none: {photographs}; `fuse` takes a pair, `group` one photograph."
    yield "Parameters of the request, each with what may be given:"
    yield ""
    given: dict[tuple[str, str], list[str]] = {}
    for model, parameters in TABLE.items():
        for parameter in parameters:
            given.setdefault((parameter.name, parameter.wanted), []).append(model)
    for (name, wanted), models in given.items():
        yield f"- `{name}` ({', '.join(models)}): {wanted}"
    yield ""
    yield (
        f"At most: {limits.MAX_MESSAGE >> 20} MiB a message, {_max_bytes() >> 20} MiB a picture file (without "
        f"a motion photo's film), {limits.MAX_JSON_HEADER >> 10} KiB of JSON before tensors, "
        f"{limits.MAX_PARAMETERS} parameters, {limits.MAX_OUTPUTS} outputs, {limits.MAX_ID} characters of an id."
    )


def _tensors(text: str, direction: str) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, dimensions and description of each tensor; a comment holds for those below it up to the next."""
    block = text.split(f"\n{direction} [\n", 1)[1].split("\n]", 1)[0]
    what = ""
    for comment, name, kind, dims in _TENSOR.findall(block):
        if comment:
            what = " ".join(line.strip().lstrip("# ") for line in comment.splitlines())
        yield name, "BYTES" if kind == "STRING" else kind, dims, what


def _batch(text: str) -> int:
    found = re.search(r"^max_batch_size: (\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def _max_bytes() -> int:
    text = (_ROOT / "model_repository" / "preprocess" / "config.pbtxt").read_text("utf-8")
    found = re.search(r'key: "max_bytes" value: \{ string_value: "(\d+)"', text)
    assert found is not None
    return int(found[1])


def main(arguments: Sequence[str]) -> int:
    """Write the table into the page; with ``--check`` only say whether it is there."""
    page = _PAGE.read_text("utf-8")
    before, _, rest = page.partition(START + "\n")
    after = rest.partition(END)[2]
    new = f"{before}{START}\n{table()}{END}{after}"
    if "--check" in arguments:
        return int(new != page)
    _PAGE.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
