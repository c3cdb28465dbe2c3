"""The static viewer as it is built, and the Khronos validator's verdict on the service's files."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from face3d_client import Face3DClient, Options

from server.service import Service
from tests.client.npm import VIEWER, packages


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> str:
    """viewer.html, built here."""
    out = tmp_path_factory.mktemp("viewer") / "viewer.html"
    subprocess.run([packages(), str(VIEWER / "build.mjs"), str(out)], check=True, capture_output=True, timeout=60)
    return out.read_text(encoding="utf-8")


def test_the_viewer_is_one_file_that_loads_nothing_else(built: str) -> None:
    assert "<!--SCRIPT-->" not in built
    assert built.count("<script>") == 1
    loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?([^\"'\s>]*)", built)
    assert [address for address in loaded if not address.startswith("data:,")] == []
    assert "default-src 'none'" in built


def test_the_viewer_carries_the_licence_of_what_it_contains(built: str) -> None:
    assert re.search(r"The MIT License\s+Copyright © .* three\.js authors", built)
    assert "three.js" in (VIEWER.parents[1] / "NOTICE").read_text(encoding="utf-8")


def test_the_lock_pins_every_package_by_hash_and_names_no_registry() -> None:
    lock = json.loads((VIEWER / "package-lock.json").read_text(encoding="utf-8"))
    parts = {name: part for name, part in lock["packages"].items() if name}
    assert {"node_modules/three", "node_modules/esbuild", "node_modules/gltf-validator"} <= set(parts)
    assert all(part["integrity"].startswith("sha512-") for part in parts.values())
    assert not any("resolved" in part for part in parts.values())
    wanted = json.loads((VIEWER / "package.json").read_text(encoding="utf-8"))
    versions = {**wanted["dependencies"], **wanted["devDependencies"]}
    assert versions == {name: parts[f"node_modules/{name}"]["version"] for name in versions}


def verdicts(*files: Path) -> list[dict[str, object]]:
    done = subprocess.run(
        [packages(), str(VIEWER / "validate.mjs"), *map(str, files)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_khronos_validator_finds_nothing_in_the_files_of_the_service(
    server: Service, portrait_bytes: bytes, tmp_path: Path
) -> None:
    packages()
    ways: dict[str, Options] = {
        "head": {},
        "camera": {"pose": "camera", "mesh": "face"},
        "neutral-png": {"expression": "neutral", "texture_format": "png", "texture_size": 100},
        "rigged": {"rig": "arkit", "white_balance": True},
    }
    files = []
    with Face3DClient(server.grpc) as client:
        for name, options in ways.items():
            files += client.reconstruct(portrait_bytes, **options).save(tmp_path / f"{name}.glb")
        # Those that the client writes itself.
        result = client.reconstruct(portrait_bytes, rig="arkit")
        files += result.save(tmp_path / "own-neutral.glb", pose="neutral")
        files += result.save(tmp_path / "own-camera.glb", pose="camera")
    found = verdicts(*files)
    assert len(found) == len(files) == 6
    for verdict in found:
        assert (verdict["numErrors"], verdict["numWarnings"]) == (0, 0), verdict


def test_the_validator_would_say_so(tmp_path: Path) -> None:
    (tmp_path / "bad.glb").write_bytes(b"glTF\2\0\0\0\x14\0\0\0\0\0\0\0JSON")
    (verdict,) = verdicts(tmp_path / "bad.glb")
    assert verdict["numErrors"] != 0
