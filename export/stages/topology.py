"""Write the face model's topology for the model `postprocess`, which writes meshes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from export.context import ExportContext
from export.errors import ExportError
from export.stages.write import staged
from networks.face_model import FaceModel


def write_topology(context: ExportContext) -> Path | None:
    """Write `topology.npz` for the model `postprocess`: triangles, UV, landmarks and the fingerprint of the face model.

    The version folder of a Python model is its code. Where the newest one has no topology, or the checkout's own face
    model changed, the file is written there; for another face model a new version is made with a copy of the code.

    Returns:
        the file; None without a version of `postprocess`.

    Raises:
        ExportError: the version holds the topology of another face model.
    """
    model, options = context.face_model, context.options
    folder = options.repository / "postprocess"
    versions = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []
    if not versions:
        return None
    newest = folder / str(versions[-1])
    target = folder / str(options.version) if options.version is not None else newest
    path = target / "topology.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as existing:
            if int(existing["fingerprint"][0]) == model.fingerprint:
                return path
        if options.version is not None or options.face_model is not None:
            raise ExportError(
                f"Version {target.name} of the model 'postprocess' holds the topology of another face model; a version "
                "is never overwritten: choose another number with --version."
            )
    if options.dry_run:
        context.say(f"topology: would write {path}")
        return path
    if target.is_dir():
        _save_topology(path, model)
    else:
        with staged(target) as staging:
            for source in newest.glob("*.py"):
                shutil.copy2(source, staging / source.name)
            _save_topology(staging / "topology.npz", model)
    context.say(f"topology: wrote {path} ({len(model.mean)} vertices, {len(model.triangles)} triangles)")
    return path


def _save_topology(path: Path, model: FaceModel) -> None:
    temporary = path.with_name(".topology.npz")
    np.savez_compressed(
        temporary,
        triangles=model.triangles,
        uv=model.uv,
        landmarks=model.landmarks,
        fingerprint=np.array([model.fingerprint], np.int64),
        name=np.array(model.name),
    )
    temporary.rename(path)
