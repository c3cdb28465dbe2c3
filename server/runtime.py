"""Finds the tritonserver binary in the `nvidia-pytriton` wheel and lays out what it needs to run.

The wheel carries Triton 2.51 with the Python backend, one stub for each Python version, and the libraries it was built
against. Triton wants one folder that holds all backends, so such a folder is put together: copies of the
wheel's Python backend with the stub of this Python, and this project's own backends beside it.
"""

from __future__ import annotations

import os
import platform
import shutil
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
# Each thread of tritonserver and of the models would keep a heap of its own, as large as its largest picture. On so few
# cores one heap for all is as fast, and holds 30 MB less; on more, threads would wait for it.
_FEW_CORES = 2

_SYSTEM_LIBRARIES = (Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64"), Path("/usr/local/lib"))


@dataclass(frozen=True)
class Runtime:
    """Where the parts of an installed tritonserver are."""

    binary: Path
    python_backend: Path
    stub: Path
    caches: Path
    libraries: tuple[Path, ...]
    python: Path

    def lay_out_backends(self, folder: Path) -> Path:
        """Fill ``folder`` with every backend and return it, ready for ``--backend-directory``.

        Copies (4 MB), not links: Triton refuses a library whose real path is outside of the backend folder.
        """
        without_cache = shutil.ignore_patterns("__pycache__")
        shutil.copytree(self.python_backend, folder / "python", ignore=without_cache)
        shutil.copy2(self.stub, folder / "python")
        for backend in OWN_BACKENDS.iterdir():
            if (backend / "model.py").is_file():
                shutil.copytree(backend, folder / backend.name, ignore=without_cache)
        return folder

    def environment(self) -> dict[str, str]:
        """Build the environment for the server and, through it, for its stubs.

        A stub embeds Python in isolated mode: it ignores every PYTHON* variable and finds its packages by the first
        ``python3`` on PATH, like a virtual environment does. Numerical libraries get one thread each unless the
        caller's environment says otherwise.
        """
        old = os.environ
        return {
            **_THREAD_LIMITS,
            "MALLOC_ARENA_MAX": "1" if len(os.sched_getaffinity(0)) <= _FEW_CORES else "2",
            **old,
            "PATH": _joined(self.python.parent, old.get("PATH")),
            "LD_LIBRARY_PATH": _joined(*self.libraries, old.get("LD_LIBRARY_PATH")),
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
        python=_python3(),
    )


def _libpython_folder() -> Path:
    """Find the folder of the libpython that the stub loads (it is linked against it by its full soname)."""
    soname = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    own = (Path(str(sysconfig.get_config_var("LIBDIR"))), Path(sys.base_prefix) / "lib")
    for folder in (*own, *_SYSTEM_LIBRARIES):
        if (folder / soname).is_file():
            return folder
    raise PlatformNotSupported(
        f"the models' processes need {soname}, which this Python was built without: install it (Debian and Ubuntu: "
        f"libpython{sys.version_info.major}.{sys.version_info.minor}) or use a Python built with --enable-shared."
    )


def _python3() -> Path:
    """Find this interpreter under the name ``python3``, which the stubs look for; links are not resolved."""
    python = Path(sys.executable).with_name("python3")
    if not python.exists():
        raise PlatformNotSupported(
            f"the models' processes look for a program called python3 and {python} does not exist: make the virtual "
            "environment anew (make distclean setup)."
        )
    return python


def _joined(*parts: Path | str | None) -> str:
    return os.pathsep.join(str(part) for part in parts if part)
