"""Render turned heads for the parser, whose skin and hair are known: `training.render` puts a photograph on a head, and
its labels (`training.parser_labels`) go the same way.

    python -m training.parser_renders PICTURES POINTS.npz HEADS.npz CROPS.npy PARTS.npy OUTPUT

A photograph seen from the front knows its cheeks well; turned by 60 degrees they fill the crop, which few photographs
of the training set show. Places that the photograph hardly shows, or shows as background, are marked as unknown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from networks.camera import CROP
from training.parser_labels import HAIR, LABEL_SIDE, PERSON, SKIN, UNKNOWN
from training.render import MARGIN, Mixture, Renderer, Surface

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

SHOWN = 0.15  # cosine between the photograph's view and a place from which on its label is believed
MIXTURE = Mixture(relit=0.4, own=0.3, turned=0.5)
INSIDE = slice(MARGIN, MARGIN + CROP)


def labels_of(surface: Surface, answers: U8, place: F32) -> U8:
    """Carry a photograph's labels to a render of it.

    Args:
        surface: of `Renderer.surface`.
        answers: (4, 256, 256) of the photograph's crop, of `training.parser_labels`.
        place: (4,) pixels of the photograph for one of the 224 px crop (x, y), and the crop's origin in it.

    Returns:
        (4, 256, 256): skin, hair, person, unknown, 0..255.
    """
    ratio = LABEL_SIDE / CROP
    at = (((surface.where - place[2:]) / place[:2] + 0.5) * ratio - 0.5).astype(np.float32)
    planes = np.ascontiguousarray(answers.transpose(1, 2, 0))
    seen = np.asarray(cv2.remap(planes, at[..., 0].copy(), at[..., 1].copy(), cv2.INTER_LINEAR), np.uint8)
    known = ~surface.hit | ((surface.facing > SHOWN) & (seen[..., PERSON] > 127) & (seen[..., UNKNOWN] < 128))
    labels = np.zeros((*surface.hit.shape, 4), np.uint8)
    labels[..., SKIN], labels[..., HAIR] = seen[..., SKIN], seen[..., HAIR]
    labels[~surface.hit] = 0
    labels[..., PERSON], labels[..., UNKNOWN] = 255 * surface.hit, 255 * ~known
    small = cv2.resize(labels[INSIDE, INSIDE], (LABEL_SIDE, LABEL_SIDE), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.asarray(small, np.uint8).transpose(2, 0, 1))


def render(renderer: Renderer, crops: Path, parts: Path, count: int, output: Path) -> None:
    """Write OUTPUT.npy (n, 256, 256, 3), OUTPUT.labels.npy (n, 4, 256, 256) and OUTPUT.sources.npy (n,), the rows of
    the crops whose photograph each shows.
    """
    names = crops.with_suffix(".txt").read_text().splitlines()
    places, answers = np.load(crops.with_suffix(".places.npy")), np.load(parts, mmap_mode="r")
    row_of = {name: row for row, name in enumerate(names)}
    usable = np.array([name in row_of for name in renderer.files])
    weight = np.where(usable, renderer.weight, 0)
    chosen = renderer.rng.choice(len(renderer.files), count, p=weight / weight.sum())
    rows = np.array([row_of[str(renderer.files[index])] for index in chosen])
    pictures = np.zeros((count, LABEL_SIDE, LABEL_SIDE, 3), np.uint8)
    labels = np.zeros((count, 4, LABEL_SIDE, LABEL_SIDE), np.uint8)
    for k, (index, row) in enumerate(zip(chosen, tqdm(rows, desc="heads of the parser", mininterval=5), strict=True)):
        surface = renderer.surface(int(index))
        picture = renderer.pasted(surface.colour, surface.hit)
        pictures[k] = cv2.resize(picture[INSIDE, INSIDE], (LABEL_SIDE, LABEL_SIDE), interpolation=cv2.INTER_LINEAR)
        labels[k] = labels_of(surface, np.asarray(answers[row]), places[row])
    np.save(output.with_suffix(".labels.npy"), labels)
    np.save(output.with_suffix(".sources.npy"), rows)
    np.save(output.with_suffix(".npy"), pictures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder with index.csv")
    parser.add_argument("points", type=Path, help="of training.label")
    parser.add_argument("heads", type=Path, help="ict_facekit.npz")
    parser.add_argument("crops", type=Path, help="of training.parser_labels")
    parser.add_argument("parts", type=Path, help="of training.parser_labels")
    parser.add_argument("output", type=Path, help="output stem")
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--yaw", type=float, default=35.0, help="standard deviation of the yaw, degrees")
    parser.add_argument("--seed", type=int, default=5)
    a = parser.parse_args()
    cv2.setNumThreads(1)
    drawer = Renderer(a.pictures, a.points, a.heads, a.seed, a.yaw, mixture=MIXTURE)
    render(drawer, a.crops, a.parts, a.count, a.output)
