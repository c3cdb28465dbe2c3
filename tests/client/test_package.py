"""The package by itself: what the wheel holds, what it needs, what it costs to import."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import face3d_client
import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "client" / "src" / "face3d_client"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel, built from a copy so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    copy = folder / "client"
    copy.mkdir()
    for path in [ROOT / "client" / "pyproject.toml", ROOT / "client" / "README.md", *SOURCES.rglob("*")]:
        if path.is_file() and "__pycache__" not in path.parts:
            target = copy / path.relative_to(ROOT / "client")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    subprocess.run([*command, "-w", folder, copy], check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_the_mark_that_it_is_typed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {f"face3d_client/{path.relative_to(SOURCES)}" for path in SOURCES.rglob("*.py")}
    assert expected | {"face3d_client/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests", "server", "examples"))]


def test_the_wheel_works_where_the_repository_is_not(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = "import face3d_client, sys; print(face3d_client.__file__, 'server' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert told.split() == [str(tmp_path / "face3d_client" / "__init__.py"), "False"]


def test_everything_imported_is_declared(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    needs = [
        line.split(";")[0].split(">=")[0].split("[")[0].strip() for line in metadata.get_all("Requires-Dist") or []
    ]
    # aiohttp comes with tritonclient[http]; Pillow is imported by another name.
    declared = {*needs, "aiohttp", "PIL", "face3d_client"}
    imported: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                imported.add(node.module.partition(".")[0])
    assert imported - set(sys.stdlib_module_names) <= declared
    assert metadata["Version"] == face3d_client.__version__


def test_importing_the_package_loads_no_network_library_and_no_mesh_library() -> None:
    program = "import face3d_client.cli, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert not {"grpc", "gevent", "aiohttp", "trimesh", "rich"} & set(loaded)


def test_the_public_names_are_what_the_package_says() -> None:
    assert sorted(face3d_client.__all__) == sorted(set(face3d_client.__all__))
    assert all(hasattr(face3d_client, name) for name in face3d_client.__all__)
