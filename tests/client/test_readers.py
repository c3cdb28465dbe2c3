"""Files of the client in programs and libraries of others: each gets the whole head, upright, in its size, textured.

FACE3D_READERS names a Python that has some of open3d, pymeshlab, assimp-py and tinyobjloader; the rest is skipped.
Blender is in test_examples.py, three.js and the Khronos validator in test_viewer.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from face3d_client import Reconstruction

from tests.client import head_file, readers

PYTHON = os.environ.get("FACE3D_READERS", sys.executable)
# What each reads of what the client writes.
FORMATS = {
    "trimesh": [".glb", ".obj", ".ply", ".stl"],
    "open3d": [".glb", ".obj", ".ply", ".stl"],
    "meshlab": [".glb", ".obj", ".ply", ".stl"],
    "assimp": [".glb", ".obj", ".ply", ".stl"],
    "tinyobj": [".obj"],
    "usd": [".usdz"],
}
TEXTURED = {".glb", ".obj", ".usdz"}
METRES = {".glb", ".obj", ".usdz"}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Reconstruction:
    return head_file.result(tmp_path_factory.mktemp("head"))


@pytest.mark.soak
@pytest.mark.parametrize(("reader", "suffix"), [(name, suffix) for name, all_ in FORMATS.items() for suffix in all_])
def test_a_reader_gets_the_whole_head(head: Reconstruction, tmp_path: Path, reader: str, suffix: str) -> None:
    python = sys.executable if reader in ("trimesh", "usd") else PYTHON
    module, _ = readers.READERS[reader]
    found = subprocess.run(
        [python, "-c", f"import importlib.util, sys; sys.exit(importlib.util.find_spec('{module}') is None)"],
        check=False,
    )
    if found.returncode:
        pytest.skip(f"{python} has no {module}: name a Python that has it by FACE3D_READERS")
    (path,) = (path for path in head.save(tmp_path / f"my face{suffix}") if path.suffix == suffix)
    done = subprocess.run(
        [python, readers.__file__, reader, str(path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    surface = head._surface_in("canonical")
    surface = surface.opaque() if suffix in (".ply", ".stl") else surface
    scale = 0.001 if suffix in METRES else 1.0
    unit = told.get("unit", 1.0)
    assert told["low"] == pytest.approx((surface.vertices.min(0) * scale / unit).tolist(), abs=2e-4 * scale * 1000)
    assert told["high"] == pytest.approx((surface.vertices.max(0) * scale / unit).tolist(), abs=2e-4 * scale * 1000)
    # For printing the skin alone is closed.
    assert told["triangles"] == len(surface.faces) or (suffix == ".stl" and told["triangles"] > 20_000)
    if suffix in TEXTURED:
        assert told["places"]
        assert told.get("pictures", 1) >= 1
