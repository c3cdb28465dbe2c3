"""The example's track: what the program writes is what lies beside it, and every name is one of Apple's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.model_repository.version_folder import load

EXAMPLES = Path(__file__).resolve().parents[2] / "client" / "examples"


def test_the_track_beside_the_program_is_what_it_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(EXAMPLES / "make_track.py"), str(tmp_path / "track.json")], check=True)
    assert (tmp_path / "track.json").read_bytes() == (EXAMPLES / "track.json").read_bytes()


def test_the_track_moves_shapes_of_the_rig() -> None:
    track = json.loads((EXAMPLES / "track.json").read_text())
    assert set(track["names"]) <= set(load("postprocess", "arkit").NAMES)
    assert all(len(frame) == len(track["names"]) for frame in track["frames"])
    assert all(0 <= weight <= 1 for frame in track["frames"] for weight in frame)
    assert all(max(column) > 0.2 for column in zip(*track["frames"], strict=True))
    assert track["frames"][0] == track["frames"][-1]  # it can be played in a loop
