"""Who may import whom: the networks know nobody, nobody imports in circles, functions stay readable."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("networks", "export", "training", "server", "perf", "deploy", "client/src/face3d_client")
# What a package may import of the others; what is not named here imports none of them.
MAY_IMPORT = {
    "networks": set(),
    "export": {"networks", "server"},  # the server's backend for CPUs runs the split texture graph
    "training": {"networks", "export", "server"},
    "server": set(),
    "deploy": {"server", "face3d_client"},
    "perf": {"networks", "export", "server", "deploy", "face3d_client"},
    "face3d_client": set(),
}
MAX_FUNCTION_LINES = 60


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[2:] if parts[0] == "client" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def files() -> dict[str, Path]:
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "typings" not in path.parts)
    return {name_of(path): path for path in found}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def modules() -> dict[str, ast.Module]:
    return {name: parse(path) for name, path in files().items()}


def is_package(name: str) -> bool:
    return files()[name].name == "__init__.py"


def imported(name: str, tree: ast.Module) -> set[str]:
    """Modules of this project that a module imports: anywhere in it, relatively too, and for type checkers alone."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = absolute(name, node)
            found |= {submodule if submodule in modules() else source for submodule in submodules(source, node)}
    return {target for target in found if target in modules() and target != name}


def absolute(name: str, node: ast.ImportFrom) -> str:
    """The full name of what a module imports from, its leading dots resolved."""
    if not node.level:
        return node.module or ""
    parts = name.split(".") if is_package(name) else name.split(".")[:-1]
    parts = parts[: len(parts) + 1 - node.level]
    return ".".join([*parts, *([node.module] if node.module else [])])


def submodules(source: str, node: ast.ImportFrom) -> list[str]:
    """Names that are modules where what is imported is one."""
    return [f"{source}.{alias.name}" for alias in node.names]


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    others = set(MAY_IMPORT) - {package} - MAY_IMPORT[package]
    wrong = {
        f"{name} imports {target}"
        for name, tree in modules().items()
        if name.split(".")[0] == package
        for target in imported(name, tree)
        if target.split(".")[0] in others
    }
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = networkx.DiGraph([(name, target) for name, tree in modules().items() for target in imported(name, tree)])
    assert [sorted(circle) for circle in networkx.strongly_connected_components(graph) if len(circle) > 1] == []


@pytest.mark.parametrize(
    ("statement", "target"),
    [
        ("from face3d_client._protocol import calls", "face3d_client._protocol.calls"),
        ("from .calls import Call", "face3d_client._protocol.calls"),
        ("from . import calls", "face3d_client._protocol.calls"),
        ("from .._errors import NoFace", "face3d_client._errors"),
        ("if TYPE_CHECKING:\n    from face3d_client._results import Reconstruction", "face3d_client._results"),
        ("def later():\n    import face3d_client._results", "face3d_client._results"),
    ],
)
def test_an_import_counts_wherever_and_however_it_is_written(statement: str, target: str) -> None:
    assert imported("face3d_client._protocol.options", ast.parse(statement)) == {target}


@pytest.mark.parametrize("folder", sorted((ROOT / "model_repository").glob("*/*/model.py")), ids=lambda f: f.parts[-3])
def test_no_modules_of_a_version_folder_import_each_other_in_a_circle(folder: Path) -> None:
    trees = {path.stem: parse(path) for path in folder.parent.glob("*.py")}
    graph = networkx.DiGraph([(name, other) for name, tree in trees.items() for other in top_names(tree) & set(trees)])
    assert networkx.is_directed_acyclic_graph(graph)


def top_names(tree: ast.Module) -> set[str]:
    """Names of the modules that a module of a version folder imports, which are found beside it."""
    nodes = list(ast.walk(tree))
    named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return named | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("folder", [*PACKAGES, "model_repository", "tests"])
def test_functions_fit_on_a_page(folder: str) -> None:
    functions = [
        (path, node)
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert functions
    lengths = {f"{path}: {node.name}": (node.end_lineno or 0) - node.lineno + 1 for path, node in functions}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}
