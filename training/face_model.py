"""Step 2, face model: the exact heads' statistics on the project's own topology.

80 identity modes are the principal components of ICT-FaceKit light's 100 (coefficients ~ N(0, 1)), 57 of the 64
expression modes are its named shapes (ARKit style); the last seven are empty. Every vertex is a fixed combination of
source vertices (`training.topology`), so nothing is lost to a registration by fitting.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from networks.face_model import ALBEDO, EXPRESSION, IDENTITY, FaceModel
from training import topology

# The origin of the head frame in the source's frame, cm: where HRN's five-point template has its own (between the nose
# tip and the ears), so that angles and translations mean the same for both.
ORIGIN_CM = np.array([0.0, 0.55, 7.5])
SOURCE = "ICT-FaceKit light, MIT (c) 2020 USC Institute for Creative Technologies"


def build(heads: Path) -> tuple[FaceModel, topology.Topology]:
    """Build the face model (albedo still empty) from ``ict_facekit.npz``.

    The topology comes with it: it transfers other shapes of the source exactly.
    """
    with np.load(heads, allow_pickle=False) as data:
        neutral = data["neutral"].astype(np.float64)
        face = int(data["n_face"])
        triangles = data["faces_tri"].astype(np.int64)
        landmarks = data["landmarks68"].astype(np.int64)
        identity = data["identity"].astype(np.float64)
        expression = data["expression"].astype(np.float64)
        names = [str(x) for x in data["expression_names"]]
    mesh = topology.build(neutral, triangles[(triangles < face).all(1)], landmarks)
    n = len(mesh.uv)
    mean = (mesh.weights @ neutral + mesh.offset - ORIGIN_CM) / 10
    modes = np.stack([(mesh.weights @ mode).ravel() for mode in identity]) / 10
    # coefficients ~ N(0, 1): covariance = modes' modes; its principal directions scaled by sigma are the new modes.
    _, sigma, directions = np.linalg.svd(modes, full_matrices=False)
    principal = (sigma[:IDENTITY, None] * directions[:IDENTITY]).reshape(IDENTITY, n, 3)
    shapes = np.zeros((EXPRESSION, n, 3))
    for k, mode in enumerate(expression):
        shapes[k] = mesh.weights @ mode / 10
    kept = float((sigma[:IDENTITY] ** 2).sum() / (sigma**2).sum())
    print(f"{n} vertices, {len(mesh.triangles)} triangles; {IDENTITY} identity modes keep {kept:.4%} of the variance")
    model = FaceModel(
        mean=mean.astype(np.float32),
        identity=principal.astype(np.float16).astype(np.float32),
        expression=shapes.astype(np.float16).astype(np.float32),
        albedo_mean=np.full((n, 3), 128, np.float32),
        albedo=np.zeros((ALBEDO, n, 3), np.float32),
        triangles=mesh.triangles.astype(np.int32),
        uv=mesh.uv.astype(np.float32),
        landmarks=mesh.landmarks.astype(np.int32),
        expression_names=tuple(names) + ("",) * (EXPRESSION - len(names)),
        name="face3d-1",
        licence="Apache-2.0; derived from MIT-licensed statistics, see NOTICE",
        source=SOURCE,
    )
    return model, mesh


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", type=Path, help="ict_facekit.npz")
    parser.add_argument("output", type=Path, help="face model, .npz")
    arguments = parser.parse_args()
    built, _ = build(arguments.heads)
    built.save(arguments.output)
    print(f"fingerprint {built.fingerprint} -> {arguments.output}")
