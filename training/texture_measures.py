"""Measures of what `postprocess` does with a texture: how far its light is taken out, and what its relief explains.

Both run the version folder's own code.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from export.samples import ROOT
from export.stages.topology import arrays_of
from networks.head_model import HeadModel
from networks.texture import TABLE, TextureNet, mix
from training.render import euler, vertex_normals

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

HEADS = 4
# Lamps of a portrait, directions to them (right of the picture, up, toward the camera), and what is everywhere.
LAMPS = ((0, 0, 1), (1, 0.2, 0.5), (-1, 0.2, 0.5), (0, 1, 0.6), (0, -0.7, 0.7), (0.7, 0.7, 0.4))
AMBIENT = 0.35


def served(name: str) -> ModuleType:
    """Import a module of `postprocess`."""
    folder = str(ROOT / "model_repository" / "postprocess" / "1")
    if folder not in sys.path:  # as in the Python stub: the module imports others of its folder
        sys.path.append(folder)
    return importlib.import_module(name)


def tables(model: HeadModel) -> Any:
    """The `Surface` that `postprocess` has of a head model."""
    return served("surface").Surface.from_arrays(arrays_of(model))


@torch.no_grad()
def completed(net: TextureNet, colour: U8, facing: F32) -> tuple[U8, F32]:
    """Complete a texture uint8 [t, t, 3] of which the camera sees [t, t], 0..1: texture and what of it is seen."""
    cells = torch.from_numpy(np.ascontiguousarray(colour.transpose(2, 0, 1))).float()[None]
    seen, guess, gain = net.completion(cells, torch.from_numpy(facing)[None, None])
    whole = mix(cells, seen, guess, gain)[0].permute(1, 2, 0).numpy()
    return np.rint(whole.clip(0, 255)).astype(np.uint8), seen[0, 0].numpy()


def lights(model: HeadModel, net: TextureNet) -> dict[str, float]:
    """Compare textures of the same exact head under six lamps, with their light and without.

    Heads are drawn from the albedo model and seen from the front or turned by up to 30 degrees; skin is matt, each lamp
    is exposed for the middle of the face.

    Returns:
        mean difference of two of a head's textures in levels: ``photo`` and ``albedo``; and the same where seen.
    """
    light, chance, texels = served("light"), np.random.default_rng(3), tables(model).texels
    found: dict[str, list[float]] = {}
    for _ in tqdm(range(HEADS), desc="lights", mininterval=5):
        weights = chance.normal(0, 1, len(model.albedo)).astype(np.float32)
        albedo = texels.of(model.albedo_mean + np.tensordot(weights, model.albedo, 1)).clip(1, 255)
        turn = euler(0.0, np.radians(chance.uniform(-30, 30)), 0.0)
        posed = (model.mean @ turn.T).astype(np.float32)
        normals = texels.normals(vertex_normals(posed.astype(np.float64), model.vertex[model.triangles()]))
        attributes = net.sampler.attributes(torch.from_numpy(posed)[None])
        facing = net.sampler.visibility(net.sampler.field(attributes), attributes)[0, 0].numpy()
        textures: dict[str, list[F32]] = {"photo": [], "albedo": []}
        shown = np.ones((TABLE, TABLE), bool)
        for lamp in LAMPS:
            shade = AMBIENT + np.maximum(normals @ (np.array(lamp) / np.linalg.norm(lamp)), 0)
            linear = light.LINEAR[np.rint(albedo).astype(np.uint8)] * shade[..., None]
            linear *= 0.25 / np.average(linear @ light.LUMA, weights=facing)
            stored, seen = completed(net, _stored(linear), facing)
            shown &= seen > 0.5
            colour, plain = light.LINEAR[stored], texels.plain
            own = light.LINEAR[texels.albedo]
            fitted = light.fit_light(colour, own, normals, plain * seen)
            bare = stored.copy()
            light.divided(bare, light.gains(colour, own, normals, fitted, seen, plain))
            for name, texture in (("photo", stored), ("albedo", bare)):
                textures[name].append(texture.astype(np.float32))
        for name, several in textures.items():
            pairs = [np.abs(a - b).mean(-1) for a, b in itertools.combinations(several, 2)]
            found.setdefault(name, []).append(float(np.mean(pairs)))
            found.setdefault(f"{name}, where seen", []).append(float(np.mean([pair[shown].mean() for pair in pairs])))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _stored(linear: F32) -> U8:
    """Encode linear light, 0..1, as sRGB bytes."""
    linear = linear.clip(0, 1)
    stored = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * stored), np.uint8)


def explained(surface: Any, tensors: Mapping[str, npt.NDArray[Any]]) -> tuple[float, float] | None:
    """Compare a photograph's skin with its texture's smooth colours under the fitted light, without relief and with it.

    Args:
        surface: of `tables`.
        tensors: of one face, those of the step of `postprocess` that writes the mesh.

    Returns:
        mean absolute differences of the brightness, levels of 0..255; None where the photograph has no relief.
    """
    relief, light, photograph = served("relief"), served("light"), served("photograph")
    options = served("options").Options(detail=1.0, texture_size=2048, sharpen=0.0)
    skin = served("skin").Skin(surface, tensors, options)
    encoded = skin.relief_map("png")
    if encoded is None:
        return None
    vertices, own_normals = skin._posed
    turned, normals = turned_normals(surface, encoded, vertices, own_normals)
    side = len(turned)
    shown = photograph.Photograph.of(
        *(tensors[n] for n in ("places", "context", "crop_hd", "close_up", "close_up_camera"))
    )
    picture = shown.sampled(side, slice(0, side))
    luma = light.LINEAR[picture] @ light.LUMA
    smooth = cv2.GaussianBlur(luma, (0, 0), relief.COARSEST * side / relief.USUAL)
    shade = skin._light.on(turned) / skin._light.on(normals)
    judged = cv2.resize(surface.texels.plain * shown.places[3], (side, side), interpolation=cv2.INTER_LINEAR) > 0.5
    truth, without, with_relief = (_levels(values[judged]) for values in (luma, smooth, smooth * shade))
    return float(np.abs(truth - without).mean()), float(np.abs(truth - with_relief).mean())


def turned_normals(surface: Any, encoded: bytes, vertices: F32, normals: F32) -> tuple[F32, F32]:
    """Turn a shape's normals by a normal map, as a viewer does.

    Args:
        surface: of `tables`.
        encoded: the normal map, PNG.
        vertices, normals: (N, 3), decimetres and unit.

    Returns:
        unit normals of the texels, (side, side, 3), with the map and without.
    """
    coded = cv2.cvtColor(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    side, normal = (len(coded),) * 2, coded.astype(np.float32) / 127.5 - 1
    smooth = surface.texels.normals(normals)
    along, across, _ = served("relief").tangents(surface.texels.of(vertices), smooth)
    wide = [cv2.resize(values, side, interpolation=cv2.INTER_LINEAR) for values in (smooth, along, across)]
    turned = wide[0] * normal[..., 2:] + wide[1] * normal[..., :1] + wide[2] * normal[..., 1:2]
    turned /= np.linalg.norm(turned, axis=-1, keepdims=True) + 1e-9
    return turned, np.asarray(wide[0], np.float32)


def _levels(linear: F32) -> F32:
    return np.asarray(255 * linear.clip(0, 1) ** (1 / 2.2), np.float32)


def pictures_in(paths: Iterable[Path]) -> list[Path]:
    """The JPEG and PNG files of folders and below them."""
    return sorted(
        file for path in paths for file in path.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
