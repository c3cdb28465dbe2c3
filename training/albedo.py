"""Step 6, albedo and light: 80 albedo modes for the face model, the regressor's heads for albedo (80) and light (27).

Colours are read from completed UV textures at the vertices, so no rasteriser is needed. Shading is spherical harmonics
of the posed normals (`harmonics` below, the family's formula). A picture cannot tell dark skin from dim light: the
convention here is that a face's mean shading is 1, so tone goes to the albedo. The backbone stays as it is; the two
heads are linear, hence fitted in closed form (ridge regression on its features). With ``--like`` the face model stays
as it is, and the heads of a backbone that was trained further learn to answer what those of other weights answer.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from networks.chart import Chart
from networks.face_model import ALBEDO, COEFFICIENTS, FaceModel
from networks.head_model import AnyFaceModel, load_face_model
from networks.identity_correction import FILE
from networks.parser import Parser
from networks.regressor import ReconstructionNet, Regressor
from networks.texture import TABLE, TextureNet
from training.corrected import assign
from training.crops import faces_of, listed

Float = npt.NDArray[np.float64]
GRAZING = 0.15  # visibility (0..1) below which a vertex does not judge the light
ROUNDS = 3


def harmonics(normals: Float) -> Float:
    """Compute spherical harmonics (N, 9) of unit normals (N, 3); constants of Deep3DFaceRecon (`compute_color`)."""
    x, y, z = normals.T
    a0, a1, a2, k = 0.8862269, 1.7724539, 2.4270324, 0.7006239
    terms = [
        np.full_like(x, a0), -a1 * y, a1 * z, -a1 * x, a2 * x * y, -a2 * y * z, k * (3 * z * z - 1), -a2 * x * z,
        a2 / 2 * (x * x - y * y),
    ]  # fmt: skip
    return np.stack(terms, 1)


# The family adds 0.8 to the constant term, so that zero coefficients mean a plain ambient light.
AMBIENT = np.array([0.8, 0, 0, 0, 0, 0, 0, 0, 0])


def fit_light(colour: Float, albedo: Float, basis: Float, weight: Float) -> Float:
    """Fit ``colour ~ albedo * (basis @ (light + AMBIENT))`` by ridge regression, each channel by itself.

    Args:
        colour: (N, 3) 0..255, what the picture shows at each vertex.
        albedo: (N, 3) 0..255.
        basis: (N, 9), `harmonics` of the vertex normals.
        weight: (N,), trust in each vertex.

    Returns:
        (3, 9), rows R, G, B.
    """
    out = np.zeros((3, 9))
    for channel in range(3):
        system = basis * albedo[:, channel : channel + 1] * weight[:, None]
        target = colour[:, channel] * weight - system @ AMBIENT
        scale = (system**2).sum() / 9
        out[channel] = np.linalg.solve(system.T @ system + 0.02 * scale * np.eye(9), system.T @ target)
    return out


def chosen(a: argparse.Namespace) -> list[str]:
    """Draw the names of ``a.count`` pictures."""
    files = listed(a.pictures)
    return [files[k] for k in np.random.default_rng(a.seed).permutation(len(files))[: a.count]]


@torch.no_grad()
def collect(a: argparse.Namespace, model: AnyFaceModel) -> tuple[Float, Float, Float, list[torch.Tensor]]:
    """Collect colours (n, S, 3) 0..255, visibility (n, S), normals (n, S, 3) of the skin's S vertices, and crops."""
    regressor = Regressor.load(a.regressor, model)
    texturing = TextureNet.load(a.texture, model)
    parser = Parser.load(a.parser)
    uv = model.uv[places_of(model)[Chart.of(model, TABLE).skin]]
    grid = torch.from_numpy(np.stack([uv[:, 0] * 2 - 1, 1 - uv[:, 1] * 2], -1))[None, None].float()
    colours, seen, normals, crops = [], [], [], []
    for _, sample in faces_of(a.pictures, chosen(a), "vertex colours"):
        if sample is None:
            continue
        context = torch.from_numpy(sample.context)
        crop = torch.from_numpy(sample.crop)
        shapes, parts = regressor(crop, context)[0], parser(crop, regressor.fingerprint)
        texture, visible, _ = texturing(torch.from_numpy(sample.crop_hd), shapes, context, parts)
        colours.append(F.grid_sample(texture.float(), grid, align_corners=False)[0, :, 0].T.numpy())
        seen.append(F.grid_sample(visible.float() / 255, grid, align_corners=False)[0, 0, 0].numpy())
        sampler = texturing.sampler
        normals.append(sampler.normals(shapes[:, 0, sampler.rows[: sampler.count]])[0].numpy())
        crops.append(crop)
    return _stack(colours), _stack(seen), _stack(normals), crops


def places_of(model: AnyFaceModel) -> npt.NDArray[np.int64]:
    """The place of each vertex (N,), the first one of those on a seam."""
    if isinstance(model, FaceModel):
        return np.arange(len(model.mean))
    return np.unique(model.vertex, return_index=True)[1]


def _stack(arrays: list[npt.NDArray[np.float32]]) -> Float:
    return np.stack(arrays).astype(np.float64)


def separate(colours: Float, seen: Float, normals: Float) -> tuple[Float, Float, Float, Float]:
    """Alternate light and albedo over n faces.

    Args:
        colours: (n, N, 3) 0..255, vertex colours.
        seen: (n, N) 0..1, how well the picture shows each vertex.
        normals: (n, N, 3), posed unit normals.

    Returns:
        albedo mean (N, 3) 0..255, modes (80, N, 3) per sigma, coefficients (n, 80), light (n, 27) channel-major.
    """
    mean = colours.mean(0)
    for _ in range(ROUNDS):
        albedos, lights = [], []
        for colour, visible, normal in zip(colours, seen, normals, strict=True):
            basis = harmonics(normal)
            weight = np.where(visible > GRAZING, visible, 0.02)
            light = fit_light(colour, mean, basis, weight)
            shade = basis @ (light + AMBIENT).T
            tone = (shade * weight[:, None]).sum(0) / weight.sum()
            light = (light + AMBIENT) / tone[:, None] - AMBIENT  # mean shading 1: tone belongs to the albedo
            shade = np.clip(basis @ (light + AMBIENT).T, 0.35, 2.5)
            albedos.append(np.clip(colour / shade, 0, 255))
            lights.append(light.ravel())
        stacked = np.stack(albedos)
        mean = np.median(stacked, 0)
    centred = (stacked - stacked.mean(0)).reshape(len(stacked), -1)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    kept = min(ALBEDO, len(s))  # fewer faces than modes leave the last modes empty
    modes, coefficients = np.zeros((ALBEDO, *mean.shape)), np.zeros((len(stacked), ALBEDO))
    modes[:kept] = (s[:kept, None] / np.sqrt(len(stacked)) * vt[:kept]).reshape(kept, -1, 3)
    coefficients[:, :kept] = u[:, :kept] * np.sqrt(len(stacked))
    print(f"{ALBEDO} albedo modes keep {(s[:ALBEDO] ** 2).sum() / (s**2).sum():.1%} of the variance")
    return stacked.mean(0), modes, coefficients, np.stack(lights)


@torch.no_grad()
def fit_heads(a: argparse.Namespace, model: AnyFaceModel, crops: list[torch.Tensor], targets: Float) -> None:
    """Fit the heads of albedo and light to the backbone's features of each crop and a blurred copy (ridge regression).

    Rewrites the two heads in the regressor's weights file.

    Args:
        a: the step's arguments.
        model: face model with albedo.
        crops: n tensors (1, 3, 224, 224) uint8.
        targets: (n, 80 + 27).
    """
    regressor = Regressor.load(a.regressor, model)
    net = regressor.net
    assert isinstance(net, ReconstructionNet)
    torch.manual_seed(a.seed)
    features, wanted = [], []
    for k in range(0, len(crops), 16):
        batch = regressor.picture(torch.cat(crops[k : k + 16]))
        blurred = F.interpolate(F.avg_pool2d(batch, 2), scale_factor=2, mode="bilinear")
        for pictures in (batch, blurred + torch.randn_like(blurred) * 0.01):
            features.append(net.backbone(pictures).flatten(1).double().numpy())
            wanted.append(targets[k : k + 16])
    x, y = np.concatenate(features), np.concatenate(wanted)
    mx, my = x.mean(0), y.mean(0)
    centred = x - mx
    gram = centred.T @ centred
    weight = np.linalg.solve(gram + 0.05 * np.trace(gram) / len(gram) * np.eye(len(gram)), centred.T @ (y - my))
    explained = 1 - ((centred @ weight - (y - my)) ** 2).sum() / ((y - my) ** 2).sum()
    print(f"heads explain {explained:.1%} of albedo and light coefficients on their own pictures")
    with safe_open(a.regressor, "pt") as file:
        metadata = file.metadata()
    state = load_file(a.regressor)
    bias = my - mx @ weight

    def spread(columns: Float) -> torch.Tensor:
        """Repeat averaged features (2048, n) over the window: (n, 2048, window, window)."""
        head = torch.from_numpy(columns.T.copy())[:, :, None, None] / net.window**2
        return head.expand(-1, -1, net.window, net.window).half()

    for layer, part in ((2, slice(0, ALBEDO)), (4, slice(ALBEDO, ALBEDO + 27))):
        state[f"final_layers.{layer}.weight"] = spread(weight[:, part])
        state[f"final_layers.{layer}.bias"] = torch.from_numpy(bias[part].copy()).half()
    save_file({k: v.contiguous() for k, v in state.items()}, a.regressor, metadata)


@torch.no_grad()
def fit_like(a: argparse.Namespace, model: AnyFaceModel) -> None:
    """Fit the two heads to what the weights ``a.like`` answer; the regressor's weights are rewritten in place.

    A correction of the identity beside them goes on belonging to them.
    """
    other = Regressor.load(a.like, model)
    found = (sample for _, sample in faces_of(a.pictures, chosen(a), "faces"))
    crops = [torch.from_numpy(sample.crop) for sample in found if sample is not None]
    answers = torch.cat([other.regress(other.picture(crop))[0] for crop in crops]).double()
    wanted = torch.cat([answers[:, COEFFICIENTS["albedo"]], answers[:, COEFFICIENTS["light"]]], 1)
    fit_heads(a, model, crops, wanted.numpy())
    if (beside := a.regressor.with_name(FILE)).is_file():
        assign(beside, a.regressor)


def main(a: argparse.Namespace) -> None:
    """Run the step; the face model (not with ``--like``) and the regressor's weights are rewritten in place."""
    model = load_face_model(a.face_model)
    if a.like is not None:
        fit_like(a, model)
        return
    colours, seen, normals, crops = collect(a, model)
    mean, modes, coefficients, lights = separate(colours, seen, normals)
    skin = Chart.of(model, TABLE).skin
    albedo_mean, albedo = model.albedo_mean.copy(), np.zeros_like(model.albedo)  # what is no skin keeps its colour
    albedo_mean[skin], albedo[:, skin] = mean, modes
    complete = replace(model, albedo_mean=albedo_mean, albedo=albedo)
    complete.save(a.face_model)
    fit_heads(a, complete, crops, np.concatenate([coefficients, lights], 1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--face-model", type=Path, required=True)
    parser.add_argument("--regressor", type=Path, required=True)
    parser.add_argument("--texture", type=Path, help="not with --like")
    parser.add_argument("--parser", type=Path, help="not with --like")
    parser.add_argument("--like", type=Path, help="weights whose answers the heads learn")
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.like is None and None in (options.texture, options.parser):
        parser.error("give --texture and --parser, or --like")
    main(options)
