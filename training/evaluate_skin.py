"""Measure parser and texture: what of a photograph is taken for skin, and what the texture shows of anything else.

    python -m training.evaluate_skin masks FOLDER
    python -m training.evaluate_skin background CROPS.npy LABELS.npy
    python -m training.evaluate_skin covers CROPS.npy
    python -m training.evaluate_skin hidden
    python -m training.evaluate_skin lights
    python -m training.evaluate_skin detail FOLDER ...

``masks``: intersection over union with masks drawn by hand (FASSEG's colours) in pictures NAME.jpg, NAME.png.
``background``: people cut out of crops by MediaPipe's selfie segmentation (files of `training.parser_labels`) and laid
on green and on magenta: how far the textures differ. ``covers``: drawn covers (`training.parser_covers`): how many of
the texels under them are taken from the photograph. ``hidden``: the error of texels that a pose hides, on exact
from the albedo model, beside that of mirroring and diffusion alone. ``lights``: how far textures of the same exact head
under six lamps differ, as photographed and with `texture_light` albedo. ``detail``: on photographs, how far smooth
colours under the fitted light are from the photograph, without the relief of `detail` and with it.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from tqdm import tqdm

from export.models.parser import overlap
from export.pictures import load_picture
from export.samples import Sample, sample_of, served_alignment
from networks.camera import CROP, CROP_HD
from networks.head_model import HeadModel
from networks.parser import HAIR, SKIN, Parser
from networks.regressor import Regressor
from networks.texture import TABLE, TextureNet
from networks.texture_fill import fill
from training.crops import Finder
from training.evaluate import SERVED_THRESHOLD
from training.parser import reduced
from training.parser_covers import KINDS, cover
from training.parser_labels import PERSON
from training.texture import BATCH, POSES, Heads, covers, errors
from training.texture_measures import explained, lights, pictures_in, tables

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

# FASSEG's colours, RGB: skin, eyes, mouth, nose; hair; background and clothes.
FACE_COLOURS = ((255, 255, 0), (0, 0, 255), (0, 255, 0), (0, 255, 255))
LABEL_COLOURS = (*FACE_COLOURS, (127, 0, 0), (255, 0, 0))
GREEN, MAGENTA = (0, 255, 0), (255, 0, 255)
VISIBLE = 24  # levels by which a texel must differ to be counted
COVERS = 200


class Skin:
    """The networks of the whole way from a crop to its texture."""

    def __init__(self, weights: Path) -> None:
        self.model = HeadModel.load(weights / "face_model.npz")
        self.regressor = Regressor.load(weights / "regressor.safetensors", self.model)
        self.parser = Parser.load(weights / "parser.safetensors")
        self.texture = TextureNet.load(weights / "texture.safetensors", self.model)
        ratio = CROP / CROP_HD
        self.context = torch.zeros(1, 23)
        self.context[:, 15:23] = torch.tensor([1, 1, 0, 0, ratio, ratio, ratio / 2 - 0.5, ratio / 2 - 0.5])

    @torch.no_grad()
    def textured(self, picture: U8) -> tuple[F32, U8, torch.Tensor]:
        """Texture (1024, 1024, 3), visibility (1024, 1024) and the posed head (1, N, 3) of a crop (512, 512, 3)."""
        small = reduced(picture, CROP)
        crop, crop_hd = (torch.from_numpy(np.ascontiguousarray(p.transpose(2, 0, 1)))[None] for p in (small, picture))
        found = self.regressor(crop, self.context)
        texture, seen, _ = self.texture(crop_hd, found[0], self.context, self.parser(crop, found[1]))
        return texture[0].permute(1, 2, 0).numpy().astype(np.float32), seen[0, 0].numpy(), found[0][:, 0]

    @torch.no_grad()
    def tensors(self, picture: U8, sample: Sample) -> dict[str, npt.NDArray[np.generic]]:
        """What the step of `postprocess` that writes a mesh gets of a face in a picture (h, w, 3)."""
        crop, context = torch.from_numpy(sample.crop), torch.from_numpy(sample.context)
        found = dict(zip(self.regressor.OUTPUTS, self.regressor(crop, context), strict=True))
        parts = self.parser(crop, found["fingerprint"])
        texture, _, places = self.texture(torch.from_numpy(sample.crop_hd), found["shapes"], context, parts)
        cut = served_alignment("close_up").close_up(picture, (1.0, 1.0), sample.context[0, 19:23].tolist(), 2048)
        own = {"texture": texture, "places": places, "parts": parts}
        own |= {name: found[name] for name in ("shapes", "fingerprint", "expression")}
        return {
            **{name: value[0].numpy() for name, value in own.items()},
            "context": sample.context[0],
            "crop_hd": sample.crop_hd[0],
            "close_up": cut.pixels,
            "close_up_camera": cut.camera,
        }

    @torch.no_grad()
    def shown(self, posed: torch.Tensor, mask: F32) -> tuple[F32, F32]:
        """Where the camera sees the table's texels (256, 256), and a mask (224, 224) of the crop at them."""
        sampler = self.texture.sampler
        attributes = sampler.attributes(posed)
        field = sampler.field(attributes)
        grid = (field[:, 0:2] + 0.5) * (2 / CROP) - 1
        values = F.grid_sample(torch.from_numpy(mask)[None, None], grid.permute(0, 2, 3, 1), align_corners=False)
        return sampler.visibility(field, attributes)[0, 0].numpy(), values[0, 0].numpy()


def crop_of(picture: U8, sample: Sample) -> U8:
    """Cut the 224 px crop of a sample out of a picture (h, w, 3) that shows the same scene."""
    alignment = served_alignment()
    height, width = picture.shape[:2]
    camera = alignment.fit(sample.context[0, 5:15].reshape(5, 2), height)
    cut: U8 = alignment.cut(picture, alignment.window(camera, (width, height), CROP))
    return cut


def drawn_parts(labels: U8) -> tuple[U8, U8]:
    """Split a picture of FASSEG's labels (h, w, 3) RGB into parts.

    Returns:
        (h, w, 3) uint8, 0 or 255: face with eyes and mouth, hair, labelled at all, which tells a crop of it where
        the picture ends. (h, w) uint8, 0 or 255: brows, which are labelled as hair and enclosed by the face.
    """
    distance = np.stack([np.abs(labels.astype(np.int16) - colour).sum(-1) for colour in LABEL_COLOURS])
    nearest = distance.argmin(0)
    face, hair = nearest < len(FACE_COLOURS), nearest == len(FACE_COLOURS)
    # What the face encloses: parts of the rest that do not reach the picture's border, nor what lies there.
    outside = np.pad(~face, 1, constant_values=True).astype(np.uint8)
    _, components = cv2.connectedComponents(outside, connectivity=4)
    brows = hair & (components[1:-1, 1:-1] != components[0, 0])
    parts = np.stack([face, hair, np.ones_like(face)], -1)
    return np.asarray(parts * np.uint8(255), np.uint8), np.asarray(brows * np.uint8(255), np.uint8)


def masks(skin: Skin, folder: Path) -> None:
    """Print the intersection over union of face and hair, by the first part of the files' names.

    The hand labels call brows hair; the parser calls them skin, as the texture keeps them. The face's figure counts
    them as the labels do; the second counts them as the face's.
    """
    find, found = Finder(), defaultdict(list)
    for path in tqdm(sorted(folder.glob("*.jpg")), desc="masks", mininterval=5):
        sample = sample_of(path.name, load_picture(path), find, SERVED_THRESHOLD)
        if sample is None:
            print(f"no face in {path.name}")
            continue
        drawn, brows = drawn_parts(load_picture(path.with_suffix(".png")))
        truth = crop_of(drawn, sample) > 127
        brow = crop_of(np.repeat(brows[..., None], 3, -1), sample)[..., 0] > 127
        with torch.no_grad():
            parts = skin.parser(torch.from_numpy(sample.crop), torch.zeros(1, 1, dtype=torch.int64))[0].numpy()
        wide = cv2.resize(parts.transpose(1, 2, 0), (CROP, CROP), interpolation=cv2.INTER_LINEAR).argmax(-1)
        inside = truth[..., 2]
        scores = [overlap((wide == part) & inside, truth[..., part] & inside) for part in (SKIN, HAIR)]
        scores.append(overlap((wide == SKIN) & inside, (truth[..., SKIN] | brow) & inside))
        found[path.name.split("_")[0]].append(scores)
        found["turned" if path.name.startswith("pan") else "all frontal"].append(scores)
    for name, rows in sorted(found.items()):
        face, hair, with_brows = np.mean(rows, 0)
        lowest = np.min(rows, 0)
        print(
            f"{name:12s} n {len(rows):3d}  face {face:.3f} (lowest {lowest[0]:.3f}), with its brows {with_brows:.3f} "
            f"(lowest {lowest[2]:.3f})  hair {hair:.3f}"
        )


def background(skin: Skin, crops: Path, labels: Path) -> None:
    """Print how far textures of the same person before green and before magenta differ."""
    pictures, answers = np.load(crops, mmap_mode="r"), np.load(labels, mmap_mode="r")
    shares, means = [], []
    for picture, answer in zip(tqdm(pictures, desc="background", mininterval=5), answers, strict=True):
        person = cv2.resize(answer[PERSON], (CROP_HD, CROP_HD), interpolation=cv2.INTER_LINEAR)[..., None] / 255.0
        before = [np.rint(picture * person + np.array(c) * (1 - person)).astype(np.uint8) for c in (GREEN, MAGENTA)]
        apart = np.abs(np.subtract(*(skin.textured(p)[0] for p in before)))
        shares.append(float((apart.max(-1) > VISIBLE).mean()))
        means.append(float(apart.mean()))
    print(
        f"{len(shares)} people on green and magenta: texels that differ by more than {VISIBLE} levels "
        f"{np.mean(shares):.2%} (worst {np.max(shares):.1%}), mean difference {np.mean(means):.2f} levels"
    )


def covered(skin: Skin, crops: Path) -> None:
    """Print the share of covered texels that are not taken from the photograph, by kind of cover."""
    pictures, chance = np.load(crops, mmap_mode="r"), np.random.default_rng(0)
    rows: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for index in tqdm(range(COVERS), desc="covers", mininterval=5):
        kind = list(KINDS)[index % len(KINDS)]
        picture = np.asarray(pictures[index % len(pictures)])
        patch = reduced(pictures[int(chance.integers(len(pictures)))], CROP)
        small = reduced(picture, CROP)
        drawn = cover(small, patch, chance, kind)
        wide = cv2.resize(drawn.mask, (CROP_HD, CROP_HD))[..., None]
        shown = picture * (1 - wide) + cv2.resize(drawn.picture, (CROP_HD, CROP_HD)) * wide
        _, seen, posed = skin.textured(np.rint(shown).astype(np.uint8))
        visible, under = skin.shown(posed, drawn.mask)
        hidden = (under > 0.9) & (visible > 0.5)
        taken = cv2.resize(seen, (TABLE, TABLE), interpolation=cv2.INTER_AREA) > 127
        if hidden.any():
            rows[kind].append((float((~taken[hidden]).sum()), float(hidden.sum())))
    for kind, counts in rows.items():
        left, whole = np.sum(counts, 0)
        print(f"  {kind:11s} n {len(counts):3d}  {left / whole:.1%}")
    left, whole = np.sum([pair for counts in rows.values() for pair in counts], 0)
    print(f"covered texels not taken from the photograph: {left / whole:.1%}")


@torch.no_grad()
def hidden(skin: Skin) -> None:
    """Print the errors of texels that a pose or a cover hides, by filling, with and without the U-Net."""
    heads, chance = Heads(skin.model, skin.texture, seed=1), np.random.default_rng(1)
    completion = skin.texture.completion
    flat = torch.full_like(completion.albedo, 128.0)
    totals: dict[str, dict[str, list[float]]] = {"in one light": defaultdict(list), "softer": defaultdict(list)}
    for _ in range(25):
        full, soft = heads.drawn(BATCH, chance)
        truth = torch.ones(BATCH, 1, *full.shape[2:])
        left = heads.poses[torch.from_numpy(chance.integers(POSES, size=BATCH))] * covers(BATCH, chance)
        for light, found in totals.items():
            colour = full if light == "in one light" else soft + (full - soft) * left
            mean = (colour * left).sum((2, 3), keepdim=True) / left.sum((2, 3), keepdim=True).clamp(min=1) / 128
            guess, _ = fill(colour * left, left, flat * mean, torch.zeros_like(completion.back), None)
            judged = (1 - left) * (1 - 0.75 * left.flip(3))
            found["mirroring and diffusion"].append(float(((guess - colour).abs() * judged).sum() / judged.sum()) / 765)
            found["albedo"].append(float(errors(skin.texture, None, colour, truth, left).mean()))
            found["albedo and U-Net"].append(float(errors(skin.texture, completion.unet, colour, truth, left).mean()))
    for light, found in totals.items():
        alone = float(np.mean(found["mirroring and diffusion"]))
        for name, values in found.items():
            error = float(np.mean(values))
            print(f"hidden texels of exact heads {light}, {name}: {error:.4f} ({error / alone - 1:+.0%})")


def detailed(skin: Skin, folders: Sequence[Path]) -> None:
    """Print how much of photographs' fine shading the relief explains, and the share of them in which it does."""
    find, surface, better, total = Finder(), tables(skin.model), 0, 0
    for path in tqdm(pictures_in(folders), desc="detail", mininterval=5):
        picture = load_picture(path)
        sample = sample_of(path.name, picture, find, SERVED_THRESHOLD)
        found = None if sample is None else explained(surface, skin.tensors(picture, sample))
        if found is None:
            print(f"{path.name}: no relief")
            continue
        total, better = total + 1, better + (found[1] < found[0])
        print(f"{path.name}: {found[0]:.2f} levels without, {found[1]:.2f} with ({found[1] / found[0] - 1:+.0%})")
    print(f"relief comes nearer to the photograph in {better} of {total}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("masks", "background", "covers", "hidden", "lights", "detail"))
    parser.add_argument("paths", type=Path, nargs="*")
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    options = parser.parse_args()
    networks = Skin(options.weights)
    if options.what == "hidden":
        hidden(networks)
    elif options.what == "lights":
        for name, levels in lights(networks.model, networks.texture).items():
            print(f"two textures of a head under different lamps, {name}: {levels:.1f} levels apart")
    elif options.what == "detail":
        detailed(networks, options.paths)
    elif options.what == "masks":
        masks(networks, *options.paths)
    elif options.what == "background":
        background(networks, *options.paths)
    else:
        covered(networks, *options.paths)
