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
def modules() -> dict[str, ast.Module]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "typings" not in path.parts]
    return {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in files}


def imported(name: str, tree: ast.Module) -> set[str]:
    """Modules of this project that a module imports when it is loaded (not inside functions or for types alone)."""
    known, found = modules(), set()
    for node in _statements(tree.body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inside & set(known)) or {node.module}
    return {target for target in found if target in known and target != name}


def _statements(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements that run at import, those under `if` and `try` among them, but not those for type checkers."""
    found: list[ast.stmt] = []
    for node in body:
        if isinstance(node, ast.If) and not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            found += _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            found += _statements(node.body)
        else:
            found.append(node)
    return found


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


def test_functions_fit_on_a_page() -> None:
    long = {
        f"{name}.{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    }
    assert not long
