"""The package by itself: what the wheel holds, what it needs, what it costs to import."""

from __future__ import annotations

import ast
import re
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


def test_the_wheel_installs_alone_into_a_clean_environment_and_is_typed_there(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "clean"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=120)
    python = environment / "bin" / "python"
    # The versions of the lock, so that a release of somebody else's package does not decide this test.
    pins = tmp_path / "constraints.txt"
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins.write_text("\n".join(re.findall(r"^[a-zA-Z0-9_.-]+==[^ \\]+", lock, re.MULTILINE)))
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    done = subprocess.run(
        [*command, "install", "-q", "--only-binary", ":all:", "-c", str(pins), str(wheel)],
        capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    if done.returncode and ("connection" in done.stderr.lower() or "Max retries" in done.stderr):
        pytest.skip("no package registry is reachable from here")
    assert done.returncode == 0, done.stderr
    program = (
        "import face3d_client, sys; from face3d_client import AsyncFace3DClient, Face3DClient\n"
        "clients = Face3DClient('localhost:1'), Face3DClient('http://localhost:1'), AsyncFace3DClient('localhost:1')\n"
        "import face3d_client._mesh.formats, face3d_client._mesh.surface, face3d_client._ui.studio, trimesh, rich\n"
        "print(face3d_client.__file__)"
    )
    told = subprocess.run([python, "-I", "-c", program], check=True, capture_output=True, text=True, timeout=60).stdout
    assert Path(told.strip()).is_relative_to(environment)
    script = environment / "bin" / "face3d"
    version = subprocess.run([script, "--version"], check=True, capture_output=True, text=True, timeout=60).stdout
    assert version.strip() == f"face3d {face3d_client.__version__}"
    without = subprocess.run(
        [script, "ui", "--url", "127.0.0.1:9"], check=False, capture_output=True, text=True, timeout=60
    )
    assert without.returncode == 3  # the page's own packages are asked for only when a server is there


def test_everything_imported_is_declared(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    needs = [
        line.split(";")[0].split(">=")[0].split("[")[0].strip() for line in metadata.get_all("Requires-Dist") or []
    ]
    # aiohttp comes with tritonclient[http]; Pillow and SQLCipher are imported by other names.
    declared = {*(need.replace("-", "_") for need in needs), "aiohttp", "PIL", "sqlcipher3", "face3d_client"}
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
