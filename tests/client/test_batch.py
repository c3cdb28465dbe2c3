"""Folders on the real service: mixed files, a server that is killed in the middle, every face of a group."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trimesh
from face3d_client import Face3DClient
from PIL import Image, ImageOps

from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.service import Service
from tests.client import mixed
from tests.servers import serving

COMMAND = [sys.executable, "-m", "face3d_client", "reconstruct"]


# Beside an OBJ of a head.
PICTURES = ("texture", "eye_left", "eye_right", "teeth", "mouth", "lashes")


def finish(server: Service, folder: Path, out: Path, good: set[str], bad: dict[str, str]) -> None:
    """Run the command on a folder and hold every promise against what it left."""
    done = subprocess.run(
        [*COMMAND, str(folder), "-o", str(out), "--json"],
        env=os.environ | {"FACE3D_URL": server.grpc, "COLUMNS": "200"},
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    meshes = {str(path.relative_to(out).with_suffix("")) for path in out.rglob("*.glb")}
    assert meshes == {str(Path(name).with_suffix("")) for name in good}
    for path in out.rglob("*.glb"):
        data = path.read_bytes()
        assert int.from_bytes(data[8:12], "little") == len(data), f"{path} is cut"
    with (out / "failures.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {str(Path(row["file"]).relative_to(folder)): row["reason"] for row in rows} == bad
    assert all(len(row["message"].split()) > 3 for row in rows), "a reason is a sentence"
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(good) + len(bad)
    assert f"{len(good)}  written ({len(good)} faces" in done.stderr
    assert f"{len(bad)}  failed" in done.stderr
    assert not list(out.rglob(".face3d-*"))


def test_a_folder_of_mixed_files_is_finished(
    server: Service, portrait_bytes: bytes, portrait_jpeg: bytes, tmp_path: Path
) -> None:
    good, bad = mixed.build(tmp_path / "photos", [portrait_bytes, portrait_jpeg], 30)
    assert set(bad.values()) == {"BadImage", "NoFace", "ImageTooLarge"}
    finish(server, tmp_path / "photos", tmp_path / "out", good, bad)


@pytest.mark.soak
def test_a_folder_of_two_hundred_mixed_files_is_finished(
    server: Service, portrait_bytes: bytes, portrait_jpeg: bytes, tmp_path: Path
) -> None:
    good, bad = mixed.build(tmp_path / "photos", [portrait_bytes, portrait_jpeg], 199)
    assert len(good) + len(bad) == 200
    assert len(bad) >= 58
    finish(server, tmp_path / "photos", tmp_path / "out", good, bad)


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


def test_the_real_server_killed_in_mid_batch_and_started_again_loses_nothing(
    portrait_jpeg: bytes, tmp_path: Path
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02}.jpg").write_bytes(portrait_jpeg)
    options = on_free_ports(ServerOptions(exit_timeout=5, log_file=tmp_path / "triton.log"))
    first = EmbeddedServer(options)
    first.start()
    try:
        doors = (first.http, first.grpc, first.metrics)
        words = [str(folder), "-o", str(out), "--format", "glb,obj", "--json", "--concurrency", "4", "--outage", "120"]
        with subprocess.Popen(
            [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"FACE3D_URL": first.grpc},
        ) as process:  # fmt: skip
            _wait_for(lambda: len(list(out.glob("*.obj"))) >= 4, "the first results")
            first.kill()
            first.stop()
            finished = {path: path.stat().st_mtime_ns for path in out.glob("*.obj")}
            http, grpc, metrics = (int(door.rpartition(":")[2]) for door in doors)
            with serving(dataclasses.replace(options, http_port=http, grpc_port=grpc, metrics_port=metrics)):
                told, complaints = process.communicate(timeout=200)
    finally:
        first.stop()
    assert process.returncode == 0, complaints
    assert len(finished) < 30, "the server was killed too late to show anything"
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{number:02}{end}"
        for number in range(30)
        for end in (".glb", ".obj", ".mtl", *(f"_{part}.png" for part in PICTURES))
    )
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items()), "written twice"
    assert [json.loads(line)["status"] for line in told.splitlines()] == ["written"] * 30
    for path in out.glob("*.glb"):
        data = path.read_bytes()
        assert int.from_bytes(data[8:12], "little") == len(data)
    sizes = {suffix: {path.stat().st_size for path in out.glob(f"*.{suffix}")} for suffix in ("obj", "png", "mtl")}
    assert len(sizes["mtl"]) <= 1 or max(sizes["mtl"]) - min(sizes["mtl"]) < 10
    # The same photograph thirty times: batches of other sizes move a vertex by less than a digit or two.
    assert min(sizes["obj"]) > 0.99 * max(sizes["obj"])


def group(portraits: list[bytes]) -> tuple[bytes, int]:
    """Six people in two rows at three sizes, one of them too small to count; the picture and how many count."""
    faces = [Image.open(io.BytesIO(data)).convert("RGB") for data in portraits]
    photograph = mixed.landscape(1500, 1150)
    # Heads are about a sixth (astronaut) and a fourth (admiral) of the portraits' widths.
    places = [(0, 480, 20), (1, 420, 520), (0, 600, 900), (1, 300, 60), (0, 420, 460), (1, 520, 950)]
    for number, (which, side, left) in enumerate(places):
        picture = ImageOps.contain(faces[which], (side, side))
        photograph.paste(ImageOps.mirror(picture) if number % 2 else picture, (left, 20 if number < 3 else 600))
    tiny = ImageOps.contain(faces[1], (120, 120))
    photograph.paste(tiny, (720, 1000))
    buffer = io.BytesIO()
    photograph.save(buffer, "JPEG", quality=92)
    return buffer.getvalue(), len(places)


def test_a_group_photograph_gives_one_mesh_for_every_face_that_is_large_enough(
    server: Service, portrait_bytes: bytes, portrait_jpeg: bytes, tmp_path: Path
) -> None:
    photograph, people = group([portrait_bytes, portrait_jpeg])
    (tmp_path / "group.jpg").write_bytes(photograph)
    with Face3DClient(server.grpc) as client:
        found = client.detect(photograph)
    large = [face for face in found if face.size >= 60]
    assert len(large) == people
    assert len(found) > people, "the one that is too small was to be seen as well"
    done = subprocess.run(
        [*COMMAND, str(tmp_path / "group.jpg"), "-o", str(tmp_path / "out"), "--all-faces", "--json", "--no-preview"],
        env=os.environ | {"FACE3D_URL": server.grpc}, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    told = json.loads(done.stdout)["faces"]
    assert [face["box"] for face in told] == [pytest.approx(face.box.tolist(), abs=1) for face in large]
    meshes: list[Any] = [trimesh.load(tmp_path / "out" / f"face-{n}.glb", force="mesh") for n in range(people)]
    assert all(0.2 < mesh.extents[0] < 0.4 for mesh in meshes)
    assert not (tmp_path / "out" / f"face-{people}.glb").exists()
