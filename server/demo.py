"""`python -m server.demo`: one photograph through the whole service, on a server of its own.

Starts the server on free ports, runs the client's command as any user would, and stops the server again. Leaves
``face.glb``, ``face_texture.png`` and ``preview.png`` in the output folder. Ends with the client's exit status: 2
when there is no face in the picture.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from server.embedded import ServerOptions, on_free_ports
from server.errors import ServerError
from server.service import Service

# What the demonstration promises, with a word on each.
_RESULTS = {"face.glb": "the textured face", "face_texture.png": "its texture", "preview.png": "pictures of it"}


def default_photo() -> Path:
    """Find the portrait of Grace Hopper (public domain) that comes with matplotlib: a large face, from the front."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ServerError("matplotlib, which brings the default portrait, is not installed: run `make setup`.")
    return Path(spec.origin).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m server.demo", description="A photograph becomes a 3D face.")
    parser.add_argument("--photo", type=Path, help="the picture; default: a portrait that comes with matplotlib")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where to put the results (default: out)")
    options = parser.parse_args(arguments)
    try:
        photo = options.photo or default_photo()
        if not photo.is_file():
            raise ServerError(f"there is no file {photo}.")
        options.out.mkdir(parents=True, exist_ok=True)
        for name in _RESULTS:  # so that what is found afterwards is of this run
            (options.out / name).unlink(missing_ok=True)
        return _run(photo, options.out)
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; the server has been stopped", file=sys.stderr)
    return 1


def _run(photo: Path, out: Path) -> int:
    client = Path(sys.executable).with_name("face3d")
    if not client.exists():
        raise ServerError("the command face3d is not installed: run `make setup`.")
    began = time.monotonic()
    print("starting the server", flush=True)
    with Service(on_free_ports(ServerOptions()), progress=lambda line: print(f"  {line}", flush=True)) as server:
        print(f"server ready after {time.monotonic() - began:.1f} s; reconstructing {photo}", flush=True)
        command = [str(client), "reconstruct", str(photo), "-o", str(out), "--url", server.grpc]
        status = subprocess.run(command, check=False).returncode
    if status:
        return status
    for name, what in _RESULTS.items():
        path = out / name
        if not path.is_file():
            raise ServerError(f"face3d reconstruct ended well but left no {path}.")
        print(f"{path}: {what} ({path.stat().st_size / 1024:.0f} KB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
