"""Where the teacher's points lie on the face model: found, not marked by hand.

MediaPipe is run (by `training.label`) on renders of exact heads; under every point lies a known place of the known
surface. The median place over many renders is the correspondence, the scatter says which points are fit to learn from.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from networks.face_model import FaceModel
from training.raster import interpolate, rasterise
from training.registration import MAX_SCATTER_MM
from training.render import MARGIN, SIZE, euler


def export_renders(renders: Path, folder: Path, count: int) -> None:
    """Write the first renders as pictures with an index.csv, for `training.label`."""
    crops = np.load(renders.with_suffix(".npy"), mmap_mode="r")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "index.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["file", "licence", "note"])
        for k in range(min(count, len(crops))):
            cv2.imwrite(str(folder / f"{k:05d}.png"), crops[k][..., ::-1])
            writer.writerow([f"{k:05d}.png", "", ""])


def build(model: FaceModel, renders: Path, labels: Path, output: Path, max_yaw: float = 35.0) -> None:
    """Write ``vertex`` (478,) int32, the vertex nearest to each teacher point, and ``scatter_mm`` (478,) float32.

    Args:
        model: the face model the renders' coefficients belong to.
        renders: stem of one shard of `training.render`.
        labels: what `training.label` found on its pictures.
        output: ``.npz``.
        max_yaw: degrees; renders turned further are left out, the teacher is less sure there.
    """
    data = np.load(renders.with_suffix(".labels.npz"))
    points = np.load(labels)["points"]
    places: list[npt.NDArray[np.float32]] = []
    for k in range(len(points)):
        if not np.isfinite(points[k, 0, 0]) or abs(np.degrees(data["angle"][k, 1])) > max_yaw:
            continue
        shape = model.mean + np.tensordot(data["identity"][k], model.identity, 1)
        shape = shape + np.tensordot(data["expression"][k], model.expression, 1)
        posed = shape @ euler(*data["angle"][k]).T
        distance, pixels, column, row = data["camera"][k]
        seen = posed[:, :2] / (distance - posed[:, 2:]) * distance * pixels * [1, -1] + [column, row] + MARGIN
        tri, bary, _ = rasterise(seen, posed[:, 2], model.triangles, SIZE, SIZE)
        # the place on the mean face, so that identities do not blur it
        surface = interpolate(tri, bary, model.triangles, model.mean)
        at = np.clip(np.round(points[k, :, :2]).astype(int), 0, SIZE - 1)
        place = surface[at[:, 1], at[:, 0]]
        place[tri[at[:, 1], at[:, 0]] < 0] = np.nan
        places.append(place)
    stacked = np.stack(places)
    centre = np.nanmedian(stacked, 0)
    scatter = np.nanmedian(np.linalg.norm(stacked - centre, axis=2), 0) * 100
    scatter[np.isnan(stacked[:, :, 0]).mean(0) > 0.2] = np.inf
    vertex = cKDTree(model.mean).query(np.nan_to_num(centre))[1]
    np.savez(output, vertex=vertex.astype(np.int32), scatter_mm=scatter.astype(np.float32))
    steady = int((scatter < MAX_SCATTER_MM).sum())
    print(f"{len(places)} renders; {steady} of 478 points within {MAX_SCATTER_MM} mm -> {output}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    pictures = commands.add_parser("pictures", help="write renders as pictures for the teacher")
    pictures.add_argument("renders", type=Path)
    pictures.add_argument("folder", type=Path)
    pictures.add_argument("--count", type=int, default=400)
    mapping = commands.add_parser("build", help="find the correspondences")
    for name in ("model", "renders", "labels", "output"):
        mapping.add_argument(name, type=Path)
    arguments = parser.parse_args()
    if arguments.command == "pictures":
        export_renders(arguments.renders, arguments.folder, arguments.count)
    else:
        build(FaceModel.load(arguments.model), arguments.renders, arguments.labels, arguments.output)
