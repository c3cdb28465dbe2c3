"""A contact sheet: every face textured and grey, from the front, three-quarter and in profile, to be looked at.

python -m training.contact_sheet FOLDER OUTPUT.jpg [--photo] [--leave-out PART ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from networks.face_model import FaceModel
from networks.regressor import Regressor
from networks.texture import TextureNet
from training.crops import faces_of, listed
from training.raster import interpolate, rasterise
from training.render import euler, vertex_normals

PANEL = 200
VIEWS = (0, 40, 88)  # degrees of yaw


def panel(
    shape: npt.NDArray[np.float32], model: FaceModel, texture: npt.NDArray[np.uint8] | None, yaw: float
) -> npt.NDArray[np.uint8]:
    """Draw one view (PANEL, PANEL, 3) RGB of a head-frame shape (N, 3) dm, drawn at twice the size and halved."""
    size = 2 * PANEL
    posed = shape @ euler(0.0, np.radians(yaw), 0.0).T
    place = np.stack([posed[:, 0], -posed[:, 1]], 1) * (size / 2.6) + size / 2
    place[:, 1] += size * 0.03
    tri, bary, _ = rasterise(place, posed[:, 2], model.triangles, size, size)
    normals = interpolate(tri, bary, model.triangles, vertex_normals(posed.astype(np.float64), model.triangles))
    light = 0.35 + 0.65 * np.clip(normals @ np.array([0.25, 0.35, 0.9]), 0, 1)[..., None]
    if texture is None:
        colour = np.full((size, size, 3), 190.0) * light
    else:
        uv = interpolate(tri, bary, model.triangles, model.uv)
        column, row = uv[..., 0] * 512 - 0.5, (1 - uv[..., 1]) * 512 - 0.5
        colour = cv2.remap(texture, column, row, cv2.INTER_LINEAR).astype(np.float64)
    colour[tri < 0] = 255
    drawn = np.clip(colour, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(drawn, (PANEL, PANEL), interpolation=cv2.INTER_AREA), np.uint8)


def main(arguments: argparse.Namespace) -> None:
    """Draw the sheet, two faces a row."""
    model = FaceModel.load(arguments.weights / "face_model.npz")
    regressor = Regressor.load(arguments.weights / "regressor.safetensors", model)
    texturing = TextureNet.load(arguments.weights / "texture.safetensors", model)
    strips = []
    files = [file for file in listed(arguments.folder) if not any(part in file for part in arguments.leave_out)]
    with torch.no_grad():
        for _, sample in faces_of(arguments.folder, files[: arguments.count], "contact sheet"):
            if sample is None:
                continue
            context = torch.from_numpy(sample.context)
            shapes = regressor(torch.from_numpy(sample.crop), context)[0]
            texture = texturing(torch.from_numpy(sample.crop_hd), shapes, context)[0][0].permute(1, 2, 0).numpy()
            head = shapes[0, 1].numpy()
            panels = [panel(head, model, np.ascontiguousarray(texture), yaw) for yaw in VIEWS]
            panels += [panel(head, model, None, yaw) for yaw in (VIEWS[0], VIEWS[2])]
            if arguments.photo:
                photo = cv2.resize(sample.crop[0].transpose(1, 2, 0), (PANEL, PANEL), interpolation=cv2.INTER_AREA)
                panels.insert(0, photo)
            strips.append(np.hstack(panels))
    if len(strips) % 2:
        strips.append(np.full_like(strips[0], 255))
    sheet = np.vstack([np.hstack(strips[k : k + 2]) for k in range(0, len(strips), 2)])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(arguments.output), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument(
        "--leave-out", nargs="*", default=(), help="parts of file names: people who are in the training set too"
    )
    parser.add_argument(
        "--photo", action="store_true", help="the aligned photograph beside its face (not for publishing)"
    )
    main(parser.parse_args())
