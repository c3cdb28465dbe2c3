"""`python -m server.demo` on the real models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from server import demo


def test_a_portrait_becomes_a_textured_face(tmp_path: Path) -> None:
    assert demo.main(["--out", str(tmp_path / "out")]) == 0
    mesh = trimesh.load(tmp_path / "out" / "face.glb", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    assert len(mesh.faces) > 5000
    for name in ("face_texture.png", "preview.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 10


def test_a_picture_without_a_face_ends_with_status_2(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (640, 480), (90, 120, 90)).save(tmp_path / "grass.png")
    assert demo.main(["--photo", str(tmp_path / "grass.png"), "--out", str(tmp_path / "out")]) == 2
    assert "face" in capfd.readouterr().err
    assert not (tmp_path / "out" / "face.glb").exists()


def test_a_photo_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--photo", str(tmp_path / "nowhere.jpg"), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"error: there is no file {tmp_path / 'nowhere.jpg'}.\n"
