"""Finding the server's binary, and what is said where it cannot run."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest

from server import runtime
from server.errors import PlatformNotSupported, RuntimeMissing


def test_finds_a_binary_and_a_stub_for_this_python() -> None:
    found = runtime.find_runtime()
    assert os.access(found.binary, os.X_OK)
    assert os.access(found.stub, os.X_OK)
    assert all(folder.is_dir() for folder in found.libraries)


def test_lays_out_the_backends_as_triton_wants_them(tmp_path: Path) -> None:
    folder = runtime.find_runtime().lay_out_backends(tmp_path / "backends")
    assert (folder / "python" / "libtriton_python.so").is_file()
    assert os.access(folder / "python" / "triton_python_backend_stub", os.X_OK)
    assert (folder / "onnxruntime" / "model.py").is_file()
    # Triton refuses a library whose real path lies elsewhere.
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_puts_this_environment_before_everything_else() -> None:
    environment = runtime.find_runtime().environment()
    assert (Path(environment["PATH"].split(os.pathsep)[0]) / "python3").exists()
    assert environment["LD_LIBRARY_PATH"].split(os.pathsep)[0].endswith("nvidia_pytriton.libs")


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64"), ("Windows", "AMD64")])
def test_says_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(PlatformNotSupported, match=f"x86-64 Linux only and this is {system} on {machine}"):
        runtime.find_runtime()


def test_says_that_the_wheel_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(RuntimeMissing, match="run `make setup`"):
        runtime.find_runtime()


def test_says_that_python_has_no_shared_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.base_prefix", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: str(tmp_path))
    monkeypatch.setattr("server.runtime._SYSTEM_LIBRARIES", ())
    with pytest.raises(PlatformNotSupported, match=r"need libpython3.11.so.1.0, which this Python was built without"):
        runtime.find_runtime()
