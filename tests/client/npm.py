"""What comes from npm: the viewer's packages, where they can be had."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

VIEWER = Path(__file__).resolve().parents[2] / "client" / "viewer"


def packages() -> str:
    """Install what `client/viewer/package-lock.json` pins, if it is not there; the path of node.

    Skips with the reason where there is neither node nor npm, or npm reaches no registry.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        pytest.skip("node is not here")
    if not (VIEWER / "node_modules" / ".package-lock.json").is_file():
        if npm is None:
            pytest.skip("npm is not here, and its packages have not been installed (make viewer)")
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--prefix", str(VIEWER)],
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        if done.returncode:
            # A lock that does not fit is a fault; a registry that is not there is not.
            assert "EUSAGE" not in done.stderr, done.stderr
            pytest.skip(f"npm could not fetch the packages: {done.stderr.strip()[-200:]}")
    return node
