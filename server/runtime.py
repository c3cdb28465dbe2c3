"""Finds the tritonserver binary in the `nvidia-pytriton` wheel and lays out what it needs to run.

The wheel carries Triton 2.51 with the Python backend, one stub for each Python version, and the libraries it was built
against. Triton wants one folder that holds all backends, so such a folder is put together from symbolic links: the
wheel's Python backend with the stub of this Python, and this project's own backends beside it.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from server.errors import PlatformNotSupported, RuntimeMissing

OWN_BACKENDS = Path(__file__).parent / "backends"

# Each stub is one of many processes on the machine: a thread pool in each would put (instances x cores) threads on the
# cores. ONNX Runtime's threads are set by the model's own configuration and are not touched by these.
_THREAD_LIMITS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}


@dataclass(frozen=True)
class Runtime:
    """Where the parts of an installed tritonserver are."""

    binary: Path
    python_backend: Path
    stub: Path
    caches: Path
    libraries: tuple[Path, ...]
    packages: tuple[Path, ...]

    def lay_out_backends(self, folder: Path) -> Path:
        """Fill ``folder`` with links to every backend and return it, ready for ``--backend-directory``."""
        python = folder / "python"
        python.mkdir(parents=True, exist_ok=True)
        for part in (*self.python_backend.iterdir(), self.stub):
            if part.name != "__pycache__":
                _link(python / part.name, part)
        for backend in OWN_BACKENDS.iterdir():
            if (backend / "model.py").is_file():
                _link(folder / backend.name, backend)
        return folder

    def environment(self) -> dict[str, str]:
        """The environment for the server and, through it, for its stubs.

        The stubs embed this Python: they see this environment's packages and nothing of the user's, use one thread
        in each numerical library unless the caller's environment says otherwise, and write no byte code, so that a
        version folder stays as it was released.
        """
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        libraries = [str(path) for path in self.libraries]
        if old := os.environ.get("LD_LIBRARY_PATH"):
            libraries.append(old)
        return {
            **_THREAD_LIMITS,
            **inherited,
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            "PYTHONHOME": os.pathsep.join(dict.fromkeys((sys.base_prefix, sys.base_exec_prefix))),
            "PYTHONPATH": os.pathsep.join(str(path) for path in self.packages),
            "PYTHONNOUSERSITE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }


def find_runtime() -> Runtime:
    """Locate the server for this machine and this Python.

    Raises:
        PlatformNotSupported: not x86-64 Linux, no stub for this Python version, or a Python built without libpython.
        RuntimeMissing: the wheel is not installed in this environment.
    """
    machine = f"{platform.system()} on {platform.machine()}"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise PlatformNotSupported(
            f"the embedded server runs on x86-64 Linux only and this is {machine}: use the container instead "
            "(docker compose --profile cpu up)."
        )
    packages = tuple(dict.fromkeys(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")))
    for site in packages:
        triton = site / "pytriton" / "tritonserver"
        if (triton / "bin" / "tritonserver").is_file():
            break
    else:
        raise RuntimeMissing("the tritonserver binary is not installed in this Python environment: run `make setup`.")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise PlatformNotSupported(f"the tritonserver wheel has no stub for Python {version}: use Python 3.11.")
    return Runtime(
        binary=triton / "bin" / "tritonserver",
        python_backend=triton / "backends" / "python",
        stub=stub,
        caches=triton / "caches",
        libraries=(site / "nvidia_pytriton.libs", _libpython_folder()),
        packages=packages,
    )


def _libpython_folder() -> Path:
    """The folder of the libpython that the stub loads (it is linked against it by its full soname)."""
    soname = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    multiarch = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    candidates = [
        Path(str(sysconfig.get_config_var("LIBDIR"))),
        Path(sys.base_prefix) / "lib",
        Path("/usr/lib") / multiarch,
        Path("/usr/lib64"),
        Path("/usr/local/lib"),
    ]
    for folder in candidates:
        if (folder / soname).is_file():
            return folder
    raise PlatformNotSupported(
        f"the models' processes need {soname}, which this Python was built without: install it (Debian and Ubuntu: "
        f"libpython{sys.version_info.major}.{sys.version_info.minor}) or use a Python built with --enable-shared."
    )


def _link(link: Path, target: Path) -> None:
    if not link.exists():
        link.symlink_to(target.resolve())
