"""The examples in other languages run as they stand, where their toolchain is; the table of tensors is true."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.tensor_table import END, START, table
from server.service import Service
from tests.client.test_examples import CLIENT, README, is_a_face

EXAMPLES = CLIENT / "examples" / "languages"
COMMANDS = {"face.sh": "bash", "face.mjs": "node", "Face.java": "java", "grpc/face.mjs": "node"}
NEEDED = {"face.sh": "curl", "face.mjs": "node", "Face.java": "java", "grpc/face.mjs": "node"}


def run(name: str, service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an example against a service; skip where its toolchain or its packages are not here."""
    if shutil.which(NEEDED[name]) is None:
        pytest.skip(f"{NEEDED[name]} is not here")
    folder = (EXAMPLES / name).parent
    if (folder / "package.json").is_file() and not (folder / "node_modules").is_dir():
        pytest.skip(f"its packages are not here: npm ci --ignore-scripts --prefix {folder.relative_to(CLIENT.parent)}")
    address = service.grpc if folder.name == "grpc" else f"http://{service.http}"
    command = [COMMANDS[name], str(EXAMPLES / name), address, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_every_example_is_run() -> None:
    programs = {".sh", ".mjs", ".java"}
    there = {path for path in EXAMPLES.rglob("*") if path.suffix in programs and "node_modules" not in path.parts}
    assert {path.relative_to(EXAMPLES).as_posix() for path in there} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_in_another_language_makes_a_glb(
    running_service: Service, portrait_jpeg: bytes, tmp_path: Path, name: str
) -> None:
    photo, out = tmp_path / "portrait.jpg", tmp_path / "face.glb"
    photo.write_bytes(portrait_jpeg)
    done = run(name, running_service, str(photo), str(out))
    assert done.returncode == 0, done.stderr
    is_a_face(out)
    if name.endswith("face.mjs"):
        told = json.loads(done.stdout)
        assert told["score"] > 0.9
        assert told["points"] == 68
    if name == "face.sh":
        outputs = {output["name"]: output for output in json.loads(done.stdout)["outputs"]}
        assert len(outputs["face"]["data"]) == 15


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_in_another_language_prints_the_service_s_sentence(
    running_service: Service, tmp_path: Path, name: str
) -> None:
    photo, out = tmp_path / "portrait.jpg", tmp_path / "face.glb"
    photo.write_bytes(b"GIF89a" + bytes(40))
    done = run(name, running_service, str(photo), str(out))
    assert done.returncode == 1
    assert "[BadImage] this is a GIF picture" in done.stderr
    assert not out.exists()


def test_the_table_of_tensors_says_what_is_served() -> None:
    between = re.search(rf"{re.escape(START)}\n(.*?){re.escape(END)}", README, re.DOTALL)
    assert between is not None
    assert between[1] == table(), "write it anew: python -m deploy.tensor_table"
