"""The screen between P- and R-Net, taught by what the cascade makes of P-Net's candidates.

    python -m training.screen PICTURES weights/screen.safetensors --scenes 8000

No labels: photographs, changed at random, alone, in pieces, in mosaics and strewn over one another, go through the
whole cascade, which says what became of each candidate. The screen learns which ones R-Net takes. Those that became
faces weigh most; that one of many windows around a face is lost matters little. At the end its bar is put where so
many of the faces' own candidates stay in held-out scenes (KEPT): where one is lost, another window finds nearly every
such face. Judge it by `python -m export.reports.parity` on photographs of others.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from export.pictures import load_picture, pictures_in
from export.stages.write import sha256
from networks.detector import pyramid
from networks.detector.cascade import RNET_THRESHOLD, Detector
from networks.detector.contract import CANVAS, GREY
from networks.detector.screen import EXTRA_FEATURES, FEATURES, PNET_OUTPUTS, Screen
from networks.detector.weights import default_weights

Picture = NDArray[np.uint8]
BATCH = 1024
RATE = 4e-3
HELD_OUT = 10  # one scene in ten sets the threshold
KEPT = 0.985  # part of the candidates of faces that stay, in these; at 0.995 R-Net sees half as many again
# A candidate that R-Net refuses weighs 1; one that it takes, by what became of it.
TAKEN, OUTLIVED, FACE = 0.3, 4.0, 20.0
SOURCES = "SFHQ (MIT), official portraits of the US Congress (public domain), us18f (CC0); MTCNN as the teacher (MIT)"


class Cases(NamedTuple):
    """Candidates of many scenes: what P-Net's heads read around each, of which level, and what became of it."""

    around: NDArray[np.float16]
    """[n,FEATURES + PNET_OUTPUTS,25]"""
    level: NDArray[np.int64]
    taken: NDArray[np.bool_]
    weight: NDArray[np.float32]
    scene: NDArray[np.int64]


class _Witness(Screen):
    """Lets everybody pass, and keeps what a screen could have seen."""

    def __init__(self, levels: int) -> None:
        super().__init__(levels)
        self.look = nn.Conv2d(FEATURES, FEATURES, 1)
        assert self.look.bias is not None
        nn.init.dirac_(self.look.weight)
        nn.init.zeros_(self.look.bias)
        self.around, self.levels = torch.empty(0), torch.empty(0)

    def forward(self, around: Tensor, level: Tensor) -> Tensor:
        self.around, self.levels = around[0], level[0]
        return torch.ones(level.shape)


class Scenes:
    """Canvases made of pictures, changed at random."""

    def __init__(self, files: Sequence[Path], seed: int) -> None:
        self.pictures = [load_picture(file) for file in files]
        self.chance = random.Random(seed)
        self.noise = np.random.default_rng(seed)

    def one(self) -> tuple[Picture, Tensor]:
        """Draw a canvas [512,512,3] and its geometry [1,6]."""
        kind, side = self.chance.random(), CANVAS
        canvas = np.full((side, side, 3), int(GREY), np.uint8)
        width = height = side
        if kind < 0.45:
            picture = self._changed()
            height, width = picture.shape[:2]
            if kind > 0.3:
                down, across = int(height * self.chance.uniform(0.3, 0.9)), int(width * self.chance.uniform(0.3, 0.9))
                top, left = self.chance.randint(0, height - down), self.chance.randint(0, width - across)
                picture = picture[top : top + down, left : left + across]
            picture = _fitted(picture, side)
            height, width = picture.shape[:2]
            canvas[:height, :width] = picture
        elif kind < 0.7:
            cells = self.chance.randint(2, 5)
            step = side // cells
            part = int(step * self.chance.uniform(0.5, 1))
            for cell in range(cells * cells):
                _paste(canvas, _fitted(self._changed(), part), cell // cells * step, cell % cells * step)
        else:
            ground = self._changed()
            ground = ground[: max(20, len(ground) // self.chance.choice([1, 3, 4, 6]))]
            canvas = cv2.resize(ground, (side, side)).astype(np.uint8)
            for _ in range(self.chance.randint(1, 12)):
                picture = _fitted(self._changed(), int(np.exp(self.chance.uniform(np.log(40), np.log(400)))))
                _paste(canvas, picture, self.chance.randrange(side - 20), self.chance.randrange(side))
        return canvas, torch.tensor([[width, height, 1, 1, 1, 1]], dtype=torch.float32)

    def _changed(self) -> Picture:
        """Vary a picture: mirrored, turned, grey, darker or lighter, blurred, compressed, or partly covered."""
        chance = self.chance
        picture = chance.choice(self.pictures)[:, :: chance.choice([1, -1])].copy()
        height, width = picture.shape[:2]
        if chance.random() < 0.5:
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), chance.gauss(0, 15), 1)
            border = chance.choice([cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT, cv2.BORDER_REPLICATE])
            picture = cv2.warpAffine(picture, turn, (width, height), borderMode=border).astype(np.uint8)
        if chance.random() < 0.3:
            picture = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, 2).astype(np.uint8)
        if chance.random() < 0.5:
            light = picture * chance.uniform(0.4, 1.5) + chance.uniform(-40, 40)
            picture = np.clip(light, 0, 255).astype(np.uint8)
        if chance.random() < 0.2:
            picture = cv2.GaussianBlur(picture, (0, 0), chance.uniform(0.5, 2.5)).astype(np.uint8)
        if chance.random() < 0.3:
            _, file = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, chance.randint(15, 60)])
            picture = cv2.imdecode(file, cv2.IMREAD_COLOR).astype(np.uint8)
        if chance.random() < 0.2:
            top, left = chance.randrange(height), chance.randrange(width)
            down, across = chance.randint(5, height // 2), chance.randint(5, width // 2)
            picture[top : top + down, left : left + across] = self.noise.integers(0, 256, 3)
        return picture


def _fitted(picture: Picture, side: int) -> Picture:
    """Scale a picture so that its long side is `side`."""
    scale = side / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(picture), size, interpolation=how).astype(np.uint8)


def _paste(canvas: Picture, picture: Picture, top: int, left: int) -> None:
    place = canvas[top : top + len(picture), left : left + picture.shape[1]]
    place[:] = picture[: place.shape[0], : place.shape[1]]


@torch.no_grad()
def cases_of(detector: Detector, canvas: Picture, geometry: Tensor, scene: int) -> Cases:
    """Observe what becomes of the candidates of one canvas; `detector` has a `_Witness`."""
    witness = detector.screen
    assert isinstance(witness, _Witness)
    table = pyramid.summed_area_table(torch.from_numpy(canvas).permute(2, 0, 1)[None])
    content = geometry[:, None, :2]
    boxes, scores = detector.run_pnet(table, content)
    probability, offsets = detector.run_rnet(table, boxes, scores, content)
    boxes, scores, came = detector.select_rnet(boxes, probability, offsets, content)
    faces, of_boxes = detector.run_onet(table, boxes, scores, content)
    taken = probability[0] > RNET_THRESHOLD
    weight = torch.where(taken, TAKEN, 1.0)
    weight[came[0][scores[0] > 0]] = OUTLIVED
    weight[came[0][of_boxes[0][faces[0, :, 0] > 0]]] = FACE
    count = len(taken)
    return Cases(
        witness.around[:count].half().numpy(),
        witness.levels[:count].numpy(),
        taken.numpy(),
        weight.numpy(),
        np.full(count, scene, np.int64),
    )


def collect(files: Sequence[Path], scenes: range) -> Cases:
    """Collect the candidates of scenes with these numbers, made of these pictures."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    detector = Detector.load(default_weights(), screened=False)
    detector.screen = _Witness(len(pyramid.level_scales()))
    made = Scenes(files, scenes.start)
    return _joined([cases_of(detector, *made.one(), scene) for scene in scenes])


def _joined(parts: Sequence[Cases]) -> Cases:
    return Cases(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def rescaled(screen: Screen, cases: Cases) -> None:
    """Begin with looks at what P-Net's heads read as if its mean were 0 and its deviation 1."""
    features = torch.from_numpy(cases.around[:20_000, PNET_OUTPUTS:]).float().transpose(0, 1).flatten(1)
    mean, deviation = features.mean(1), features.std(1) + 1e-2
    assert screen.look.bias is not None
    with torch.no_grad():
        screen.look.weight /= deviation[:, None, None]
        screen.look.bias -= screen.look.weight[:, :, 0, 0] @ mean


def judged(screen: Screen, cases: Cases, chosen: NDArray[np.intp]) -> Tensor:
    """Compute the screen's logits [n] for some of the candidates."""
    around = torch.from_numpy(cases.around[chosen]).float()
    looks = F.conv1d(around[:, PNET_OUTPUTS:], screen.look.weight[..., 0], screen.look.bias)
    level = torch.from_numpy(cases.level[chosen])
    logits: Tensor = screen(torch.cat([around[:, :PNET_OUTPUTS], looks], 1)[None], level[None])[0]
    return logits


def train(cases: Cases, epochs: int, seed: int) -> Screen:
    """Train a screen on these candidates and set its threshold."""
    torch.manual_seed(seed)
    chance = np.random.default_rng(seed)
    screen = Screen(len(pyramid.level_scales()))
    rescaled(screen, cases)
    learning = np.flatnonzero(cases.scene % HELD_OUT != 0)
    batches = max(1, len(learning) // BATCH)
    optimiser = torch.optim.AdamW(screen.parameters(), RATE, weight_decay=1e-2)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, epochs * batches + 1)
    for _ in tqdm(range(epochs), desc="epochs"):
        for chosen in np.array_split(chance.permutation(learning), batches):
            wanted, weight = torch.from_numpy(cases.taken[chosen]).float(), torch.from_numpy(cases.weight[chosen])
            loss = F.binary_cross_entropy_with_logits(judged(screen, cases, chosen), wanted, weight)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            pace.step()
    set_bar(screen, cases)
    return screen


@torch.no_grad()
def set_bar(screen: Screen, cases: Cases) -> None:
    """Move the logits so that KEPT of the faces' candidates of held-out scenes are above 0, and say what that costs."""
    held_out = np.flatnonzero(cases.scene % HELD_OUT == 0)
    logits = torch.cat([judged(screen, cases, part) for part in np.array_split(held_out, len(held_out) // BATCH + 1)])
    faces = torch.from_numpy(cases.weight[held_out] == FACE)
    refused = torch.from_numpy(~cases.taken[held_out])
    bar = torch.quantile(logits[faces], 1 - KEPT)
    screen.dense3.bias.sub_(bar)
    stay = (logits >= bar).float()
    print(
        f"held-out scenes: of {int(faces.sum())} candidates that became faces {KEPT:.1%} stay, of {int(refused.sum())} "
        f"that R-Net refuses {float(stay[refused].mean()):.1%}, of all {float(stay.mean()):.1%}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="photographs that may train, in subfolders too")
    parser.add_argument("weights", type=Path, help="output, safetensors")
    parser.add_argument("--scenes", type=int, default=8000, help="a thousand take two minutes on one core")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    files = pictures_in(options.pictures)
    if not files:
        parser.error(f"there are no pictures in {options.pictures}")
    # As many pictures in memory as a worker needs; parts are small, so that there is progress to see.
    size = max(1, min(250, options.scenes // 4))
    parts = [range(first, min(first + size, options.scenes)) for first in range(0, options.scenes, size)]
    shares = [random.Random(part.start + options.seed).sample(files, min(400, len(files))) for part in parts]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=spawn) as pool:
        found = list(tqdm(pool.map(collect, shares, parts), total=len(parts), desc=f"scenes, {size} a step"))
    screen = train(_joined(found), options.epochs, options.seed)
    metadata = {
        "p_net": sha256(default_weights() / "pnet.pt"),
        "scenes": str(options.scenes),
        "looks": str(EXTRA_FEATURES),
        "sources": SOURCES,
        "licence": "Apache-2.0",
    }
    save_file({name: value.contiguous() for name, value in screen.state_dict().items()}, options.weights, metadata)
    print(f"written: {options.weights}")


if __name__ == "__main__":
    main()
