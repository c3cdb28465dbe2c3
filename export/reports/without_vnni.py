"""`python -m export.reports.without_vnni COMMAND...`: run a command as on a processor without VNNI, at full speed.

On a machine with VNNI, ONNX Runtime's other kernels never run. So these instructions are hidden from the command
(`without_vnni.c`), which needs Linux on an Intel or AMD processor whose CPUID can fault (`cpuid_fault` in
/proc/cpuinfo) and a C compiler. `qemu-x86_64 -cpu Haswell` does the same elsewhere, a hundred times slower.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from export.errors import ExportError

SOURCE = Path(__file__).with_suffix(".c")
PROBE = "from server.backends.onnxruntime.integer_products import products_are_exact as p; print(p())"
ROOT = SOURCE.parents[2]


def environment(folder: Path) -> Mapping[str, str]:
    """Return environment variables that hide VNNI and AVX-512 from programs.

    Args:
        folder: for the preloaded library; it must outlive the programs.

    Raises:
        ExportError: there is no C compiler, or this machine cannot hide instructions.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise ExportError("Hiding VNNI takes a C compiler, and there is no 'cc' on PATH: install gcc.")
    library = folder / "without_vnni.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        raise ExportError(f"{SOURCE.name} does not compile on this machine: {built.stderr.strip()[-300:]}")
    hidden = {**os.environ, "LD_PRELOAD": str(library)}
    tried = subprocess.run(
        [sys.executable, "-c", PROBE], env=hidden, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tried.stdout.strip() != "False":
        raise ExportError(f"This machine cannot hide VNNI from a program: {(tried.stderr or tried.stdout).strip()}")
    return hidden


def main() -> int:
    """Run the command and return its exit code; 2 with one sentence on stderr when it cannot be run."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        try:
            return subprocess.run(sys.argv[1:], env=environment(Path(folder)), check=False).returncode
        except ExportError as error:
            print(error, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
