"""Every picture of a folder becomes a GLB; bad ones are told and do not stop the others.

    python batch_folder.py PHOTOS MESHES [URL]

`face3d reconstruct PHOTOS -o MESHES` does this too, with a progress bar; this shows how little there is to it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from face3d_client import Face3DClient


def main(photos: Path, meshes: Path, url: str | None = None) -> int:
    """Returns the number of pictures that failed."""
    pictures = sorted(path for path in photos.iterdir() if path.is_file())
    failed = 0
    with Face3DClient(url) as client:
        # Eight at the same time; the server puts them into batches. Outcomes come in the order of the pictures.
        for outcome in client.map(pictures, concurrency=8, outputs=["mesh", "face", "warnings"]):
            name = outcome.source.name
            if outcome.error is not None:
                failed += 1
                print(f"{name}: {type(outcome.error).__name__}: {outcome.error}")
                continue
            face = outcome.unwrap()
            face.save(meshes / f"{name}.glb")
            print(f"{name}: score {face.score:.2f}", *face.warnings)
    return failed


if __name__ == "__main__":
    sys.exit(min(1, main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:4])))
