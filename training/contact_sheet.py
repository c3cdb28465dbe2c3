"""A contact sheet: every head textured and grey, from the front, three-quarter and in profile, to be looked at.

python -m training.contact_sheet FOLDER OUTPUT.jpg [--photo] [--leave-out PART ...]

Heads are finished and drawn by the service's own modules, those of `postprocess`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from export.samples import ROOT, Sample
from export.stages.topology import arrays_of
from networks.head_model import load_face_model
from networks.parser import Parser
from networks.regressor import Regressor
from networks.texture import TextureNet
from training.crops import faces_of
from training.sheets import chosen, sheet_parser, write_sheet

PANEL = 200
VIEWS = (0, 38, 85)  # degrees of yaw


def served(name: str) -> ModuleType:
    """Import a module of `postprocess`, as it is served."""
    folder = str(ROOT / "model_repository" / "postprocess" / "1")
    if folder not in sys.path:  # as in the Python stub: the module imports others of its folder
        sys.path.append(folder)
    return importlib.import_module(name)


class Reconstructor:
    """The networks, from a sample to the tensors that `postprocess` takes."""

    def __init__(self, weights: Path) -> None:
        self.model = load_face_model(weights / "face_model.npz")
        self.regressor = Regressor.load(weights / "regressor.safetensors", self.model)
        self.parser = Parser.load(weights / "parser.safetensors")
        self.texture = TextureNet.load(weights / "texture.safetensors", self.model)
        self.surface = served("surface").Surface.from_arrays(arrays_of(self.model))

    @torch.no_grad()
    def files(self, sample: Sample) -> Any:
        """Make the `Files` of a face as the service would."""
        crop, context = torch.from_numpy(sample.crop), torch.from_numpy(sample.context)
        found = dict(zip(Regressor.OUTPUTS, self.regressor(crop, context), strict=True))
        parts = self.parser(crop, found["fingerprint"])
        texture, *_ = self.texture(torch.from_numpy(sample.crop_hd), found["shapes"], context, parts)
        tensors = {name: found[name][0].numpy() for name in ("shapes", "fingerprint", "expression")}
        tensors |= {"texture": texture[0].numpy(), "crop_hd": sample.crop_hd[0], "context": sample.context[0]}
        return served("files").Files(self.surface, tensors, served("options").Options())


def panels(files: Any) -> list[npt.NDArray[np.uint8]]:
    """Draw textured views, then two grey ones, (PANEL, PANEL, 3) RGB each."""
    preview = served("preview")
    painted = files.upright.painted(files.finished)
    scene = preview.Scene(painted)
    seen = [scene.from_side(yaw, PANEL) for yaw in VIEWS]
    wall = np.full((PANEL, PANEL, 3), 255, np.uint8)
    drawn = [preview.draw(view, preview.coloured(view, painted.pictures), wall) for view in seen]
    return drawn + [preview.draw(seen[k], preview.clay(seen[k]), wall) for k in (0, 2)]


def main(arguments: argparse.Namespace) -> None:
    """Draw the sheet, two faces a row."""
    reconstruct = Reconstructor(arguments.weights)
    strips = []
    for _, sample in faces_of(arguments.folder, chosen(arguments)[: arguments.count], "contact sheet"):
        if sample is None:
            continue
        row = panels(reconstruct.files(sample))
        if arguments.photo:
            photo = cv2.resize(sample.crop[0].transpose(1, 2, 0), (PANEL, PANEL), interpolation=cv2.INTER_AREA)
            row.insert(0, np.asarray(photo, np.uint8))
        strips.append(np.hstack(row))
    write_sheet(strips, 255, arguments.output)


if __name__ == "__main__":
    parser = sheet_parser(__doc__, count=20)
    parser.add_argument(
        "--photo", action="store_true", help="the aligned photograph beside its face (not for publishing)"
    )
    main(parser.parse_args())
