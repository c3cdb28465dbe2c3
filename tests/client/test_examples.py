"""The examples and the README's commands run as they stand."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trimesh
from face3d_client import Reconstruction
from face3d_client._mesh.formats import UNITS

from server.embedded import EmbeddedServer
from server.service import Service
from tests.client import head_file, synthetic

CLIENT = Path(__file__).resolve().parents[2] / "client"
README = (CLIENT / "README.md").read_text(encoding="utf-8")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, CLIENT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_a_face(path: Path) -> None:
    scene: Any = trimesh.load(path, process=False)
    assert 0.1 < scene.extents[0] < 0.35  # metres
    skin = next(iter(scene.geometry.values()))
    assert skin.visual.material.baseColorTexture.size in ((512, 512), (1024, 1024))


def test_the_five_lines_of_the_readme_make_a_glb(server: Service, portrait_jpeg: bytes, tmp_path: Path) -> None:
    (tmp_path / "portrait.jpg").write_bytes(portrait_jpeg)
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    assert len([line for line in block[1].splitlines() if line]) <= 5
    for address in (server.grpc, f"http://{server.http}"):
        program = block[1].replace("localhost:8001", address)
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)
        is_a_face(tmp_path / "face.glb")
        (tmp_path / "face.glb").unlink()


def test_every_python_program_of_the_readme_runs_as_it_stands(
    server: Service, portrait_jpeg: bytes, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("portrait.jpg", "group.jpg", "photos/one.jpg", "front.jpg", "left.jpg", "right.jpg"):
        (tmp_path / name).write_bytes(portrait_jpeg)
    (tmp_path / "photos" / "two.jpg").write_bytes(b"this is no picture")
    programs = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(programs) >= 5
    said = ""
    for program in programs:
        for written, real in (
            ("localhost:8001", server.grpc), ("localhost:8000", server.http),
            ("node1:8001", server.grpc), ("node2:8001", server.grpc),
        ):  # fmt: skip
            program = program.replace(written, real)
        done = subprocess.run(
            [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", program], cwd=tmp_path, check=False,
            capture_output=True, text=True, timeout=60, env=os.environ | {"FACE3D_URL": server.grpc},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), program
        said += done.stdout
    assert re.search(r"photos/one.jpg 0\.9\d", said)
    assert "two.jpg" in said
    is_a_face(tmp_path / "face-0.glb")
    is_a_face(tmp_path / "face.glb")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_the_curl_call_of_the_readme_writes_a_glb(server: Service, portrait_jpeg: bytes, tmp_path: Path) -> None:
    (tmp_path / "portrait.jpg").write_bytes(portrait_jpeg)
    block = re.search(r"```sh\n(photo=.*?)```", README, re.DOTALL)
    assert block is not None
    script = block[1].replace("localhost:8000", server.http)
    subprocess.run(["bash", "-eu", "-c", script], cwd=tmp_path, check=True, timeout=60)
    is_a_face(tmp_path / "face.glb")
    (tmp_path / "face.glb").unlink()
    (tmp_path / "portrait.jpg").write_bytes(b"this is no picture")
    told = subprocess.run(
        ["bash", "-eu", "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60
    )
    assert "[BadImage]" in told.stdout
    assert not (tmp_path / "face.glb").exists()


def test_a_folder_in_a_batch(
    stand_in_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(5):
        (photos / f"{number}.jpg").write_bytes(f"NUMBER {number}".encode())
    (photos / "bad.jpg").write_bytes(b"ERROR INVALID_ARG [NoFace] no face was found. Look.")
    monkeypatch.setenv("FACE3D_URL", f"http://{stand_in_server.http}")
    assert load("batch_folder").main(photos, tmp_path / "meshes", stand_in_server.grpc) == 1
    assert len(list((tmp_path / "meshes").glob("*.glb"))) == 5
    assert "bad.jpg: NoFace: no face was found. Look." in capsys.readouterr().out


def test_a_web_service_answers_with_a_glb_or_a_sentence(
    stand_in_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("httpx", reason="httpx, which FastAPI's test client needs, is not installed")
    testing = pytest.importorskip("fastapi.testclient", reason="FastAPI is not installed")
    monkeypatch.setenv("FACE3D_URL", stand_in_server.grpc)
    with testing.TestClient(load("web_service").app) as web:
        answer = web.post("/face", content=b"NUMBER 1")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "model/gltf-binary"
        assert answer.content == synthetic.glb()
        bad = web.post("/face", content=b"ERROR INVALID_ARG [NoFace] no face was found. Look.")
        assert bad.status_code == 422
        assert bad.json() == {"error": "NoFace", "message": "no face was found. Look."}
        assert web.post("/face", content=b"").json()["error"] == "BadImage"
        assert web.post("/face", content=b"ERROR INTERNAL stub died").status_code == 502
        assert web.get("/health").json() == {"ready": True}


def _blender() -> list[str] | None:
    """A Blender: the program, or a Python with bpy (FACE3D_BLENDER names either)."""
    named = os.environ.get("FACE3D_BLENDER") or shutil.which("blender")
    if named:
        return (
            [named] if "python" in Path(named).name else [named, "--background", "--python-exit-code", "1", "--python"]
        )
    return [sys.executable] if importlib.util.find_spec("bpy") else None


def test_the_blender_script_compiles_and_knows_every_format_of_the_client() -> None:
    """All that can be said of it without Blender; the next test runs it where there is one."""
    tree = ast.parse((CLIENT / "examples" / "blender_import.py").read_text(encoding="utf-8"))
    compile(tree, "blender_import.py", "exec")
    (scale,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SCALE"
    )
    # Blender's unit is the metre.
    assert scale == {suffix: {"m": 1.0, "mm": 0.001}[unit] for suffix, unit in UNITS.items() if suffix != ".npz"}


ASK = """
import json, runpy, sys
from pathlib import Path
import bpy
example = runpy.run_path(sys.argv[-2], run_name="example")
told = {}
for path in sorted(Path(sys.argv[-1]).glob("me.*")):
    if path.suffix not in example["SCALE"]:
        continue
    head = example["load"](path)
    example["dress"](head)
    example["frame"](head)
    mesh = head.data
    keys = mesh.shape_keys.key_blocks if mesh.shape_keys else []
    base = [list(point.co) for point in keys[0].data] if keys else [list(vertex.co) for vertex in mesh.vertices]
    sides = {}
    for key in list(keys)[1:]:
        moved = [sum((a - b) ** 2 for a, b in zip(point.co, at)) ** 0.5 for point, at in zip(key.data, base)]
        sides[key.name] = [max(moved), sum(m * at[0] for m, at in zip(moved, base)) / max(sum(moved), 1e-9)]
    low, high = ([way(point[axis] for point in base) for axis in range(3)] for way in (min, max))
    told[path.suffix] = {
        "low": low, "high": high, "sides": sides, "quads": sum(len(face.vertices) == 4 for face in mesh.polygons),
        "materials": [slot.material.name for slot in head.material_slots],
        "pictures": sorted(Path(image.name).stem for image in bpy.data.images if image.has_data or image.size[0]),
        "weights": {key.name: key.value for key in list(keys)[1:]},
    }
Path(sys.argv[-1], "told.json").write_text(json.dumps(told))
"""


@pytest.mark.soak
def test_blender_gets_a_head_of_every_format(tmp_path: Path) -> None:
    command = _blender()
    if command is None:
        pytest.skip("no Blender here: install it, or set FACE3D_BLENDER to a Python with bpy")
    head = head_file.result(tmp_path, rig="arkit")
    suffixes = [".glb", ".obj", ".ply", ".stl"] + ([".usdz"] if importlib.util.find_spec("pxr") else [])
    for suffix in suffixes:
        head.save(tmp_path / f"me{suffix}")
    (tmp_path / "ask.py").write_text(ASK)
    words = [str(CLIENT / "examples" / "blender_import.py"), str(tmp_path)]
    separator = [] if "python" in Path(command[0]).name else ["--"]
    subprocess.run([*command, str(tmp_path / "ask.py"), *separator, *words], check=True, timeout=400)
    told = json.loads((tmp_path / "told.json").read_text())
    assert sorted(told) == sorted(suffixes)
    for suffix, seen in told.items():
        surface = head._surface_in("canonical", {} if suffix == ".glb" else None)
        surface = surface.opaque() if suffix in (".ply", ".stl") else surface
        low, high = surface.vertices.min(0) / 1000, surface.vertices.max(0) / 1000
        # x stays, y up becomes z, and the face looks toward -y, which Blender calls its front view.
        assert seen["low"] == pytest.approx([low[0], -high[2], low[1]], abs=2e-4), suffix
        assert seen["high"] == pytest.approx([high[0], -low[2], high[1]], abs=2e-4), suffix
        if suffix in (".obj", ".usdz"):
            assert seen["quads"] == sum(part.quads for part in surface.parts)
        if suffix in (".glb", ".obj", ".usdz"):
            assert {name.removeprefix("me_") for name in seen["materials"]} == set(head.parts)
    sides = told[".glb"]["sides"]
    assert set(sides) == set(head.blendshapes)
    for name, (length, middle) in sides.items():
        assert length > 1e-4, name  # metres
        if name.startswith(("brow", "cheek", "eye", "mouthSmile", "noseSneer")) and name.endswith(("Left", "Right")):
            assert (middle > 0) == name.endswith("Left"), name  # +x is the person's left, also in Blender
    assert told[".glb"]["weights"] == pytest.approx(head.blendshapes, abs=1e-6)


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply", ".stl"])
def test_blender_gets_a_life_size_upright_face(result: Reconstruction, tmp_path: Path, suffix: str) -> None:
    command = _blender()
    if command is None:
        pytest.skip("no Blender here: install it, or set FACE3D_BLENDER to a Python with bpy")
    result.save(tmp_path / f"face{suffix}")
    ask = tmp_path / "ask.py"
    ask.write_text(
        f"import json, runpy, sys\n"
        f"example = runpy.run_path({str(CLIENT / 'examples' / 'blender_import.py')!r}, run_name='example')\n"
        f"face = example['load'](__import__('pathlib').Path({str(tmp_path / f'face{suffix}')!r}))\n"
        f"example['frame'](face)\n"
        f"corners = [list(vertex.co) for vertex in face.data.vertices]\n"
        f"normals = [list(polygon.normal) for polygon in face.data.polygons]\n"
        f"layers = face.data.uv_layers\n"
        f"uv = [(loop.vertex_index, *layers[0].data[loop.index].uv) for loop in face.data.loops] if layers else []\n"
        f"open({str(tmp_path / 'told.json')!r}, 'w').write(json.dumps([corners, normals, uv]))\n"
    )
    subprocess.run([*command, str(ask)], check=True, timeout=200, capture_output=True)
    corners, normals, uv = json.loads((tmp_path / "told.json").read_text())
    spans = [max(corner[axis] for corner in corners) - min(corner[axis] for corner in corners) for axis in range(3)]
    assert spans == pytest.approx([0.16, 0.06, 0.2], abs=1e-4)  # x to the side, y in depth, z up, in metres
    assert sum(normal[1] for normal in normals) / len(normals) < -0.5  # faces the front view
    if uv:
        vertex, u, v = min(uv, key=lambda row: corners[row[0]][0] - corners[row[0]][2])
        assert (u, v) == pytest.approx((0, 1))  # top left of the face shows the top left of the texture
        assert corners[vertex][0] == pytest.approx(-0.08)
