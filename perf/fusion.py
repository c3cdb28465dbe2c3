"""`python -m perf.fusion FOLDER`: what `fuse` makes of pairs of photographs, beside a classic swap in the same run.

Pairs are drawn from the photographs of a folder by a seed; half of them have one of the most turned heads on either
side. For each: whether the embedder finds the source in the result, how far its pose and its expression are from the
target's, and whether what the mask leaves out is the target's to the bit. `--sheet` draws all of them to look at.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from face3d_client import DetectedFace, Face3DClient, Face3DError, FuseOptions, Reconstruction
from face3d_client.gallery import threshold_for
from numpy.typing import NDArray
from PIL import Image, ImageOps

from perf.classic_swap import swapped
from server.embedded import ServerOptions, on_free_ports
from server.service import PublicOptions, Service

U8 = NDArray[np.uint8]

CONSENT = "A measurement; the photographs are synthetic or in the public domain."
FALSE_ACCEPTS = 1e-3
KINDS = (".jpg", ".jpeg", ".png", ".webp")
# Pixels of a picture in the sheet, and how much of its face's box is around the face there.
TILE, AROUND = 256, 1.25
EXPRESSION, ANGLES = slice(80, 144), slice(224, 227)


@dataclass(frozen=True)
class Photo:
    """A photograph with what the service finds in it; pixels upright."""

    path: Path
    pixels: U8
    found: Reconstruction
    embedding: NDArray[np.float32]

    @property
    def yaw(self) -> float:
        """Turn of the head to the side, degrees."""
        return float(np.degrees(self.found.coefficients.values[ANGLES][1]))


@dataclass(frozen=True)
class Result:
    """Figures of one pair.

    Attributes:
        cosine, classic: of the source's embedding and that of the result, of `fuse` and of the classic swap.
        before: of the two photographs.
        pose: the largest of the differences of the three angles to the target's, degrees.
        expression: distance of the expression's coefficients to the target's, as a share of their length.
        exact: whether what the mask leaves out is the target's.
        seconds: of the request.
    """

    source: str
    target: str
    cosine: float
    classic: float
    before: float
    pose: float
    expression: float
    exact: bool
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print one JSON object a pair and one for all, and draw the sheet."""
    parser = argparse.ArgumentParser(prog="python -m perf.fusion", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="photographs, subfolders included")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--most", type=int, default=160, help="photographs that are looked at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shape", type=float, help="as the parameter; the service's own without it")
    parser.add_argument("--sheet", type=Path, help="a PNG or JPEG file: source, target, fused, classic")
    options = parser.parse_args(arguments)
    given: FuseOptions = {} if options.shape is None else {"shape": options.shape}
    running = Service(on_free_ports(ServerOptions(fusion=True)), PublicOptions(status_port=0))
    with running as service, Face3DClient(service.grpc) as client:
        photos = list(read(client, options.folder, options.most, options.seed))
        rows, tiles = [], []
        for source, target in pairs_of(photos, options.pairs, options.seed):
            result, pictures = measured(client, source, target, given)
            print(json.dumps(asdict(result)), flush=True)
            rows.append(result)
            tiles.append(pictures)
    print(json.dumps(summary(rows)))
    if options.sheet:
        Image.fromarray(sheet(tiles)).save(options.sheet, quality=88)


def read(client: Face3DClient, folders: Sequence[Path], most: int, seed: int) -> list[Photo]:
    """Read at most so many photographs with one usable face."""
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in KINDS)
    photos = []
    for index in np.random.default_rng(seed).permutation(len(files))[:most]:
        pixels = np.asarray(ImageOps.exif_transpose(Image.open(files[index])).convert("RGB"))
        try:
            found = client.reconstruct(pixels, outputs=("coefficients", "landmarks", "face"))
            photos.append(Photo(files[index], pixels, found, client.embed(pixels).vector))
        except Face3DError:
            continue
    return photos


def pairs_of(photos: Sequence[Photo], count: int, seed: int) -> list[tuple[Photo, Photo]]:
    """Draw pairs: a quarter with a turned target, a quarter with a turned source."""
    order = sorted(photos, key=lambda photo: -abs(photo.yaw))
    turned, others = order[: count // 2], order[count // 2 :]
    generator = np.random.default_rng(seed)
    pairs = []
    for index in range(count):
        first, second = (others[k] for k in generator.choice(len(others), 2, replace=False))
        if index % 2:
            special = turned[index // 2 % len(turned)]
            first, second = (special, second) if index % 4 == 1 else (first, special)
        pairs.append((first, second))
    return pairs


def measured(client: Face3DClient, source: Photo, target: Photo, options: FuseOptions) -> tuple[Result, tuple[U8, ...]]:
    """Fuse one pair and look at the result."""
    start = time.perf_counter()
    fused = client.fuse(source.pixels, target.pixels, consent=CONSENT, **options)
    seconds = time.perf_counter() - start
    pixels, mask = np.asarray(fused.picture), np.asarray(fused.mask)
    classic = swapped(source.pixels, source.found.landmarks, target.pixels, target.found.landmarks)
    drawn = client.reconstruct(pixels, outputs=("coefficients",)).coefficients.values
    wanted = target.found.coefficients.values
    result = Result(
        source.path.stem,
        target.path.stem,
        cosine=cosine(client, source, pixels),
        classic=cosine(client, source, classic),
        before=float(source.embedding @ target.embedding),
        pose=float(np.degrees(np.abs(drawn[ANGLES] - wanted[ANGLES])).max()),
        expression=float(np.linalg.norm(drawn[EXPRESSION] - wanted[EXPRESSION]) / np.linalg.norm(wanted[EXPRESSION])),
        exact=bool((pixels == target.pixels)[mask == 0].all()),
        seconds=seconds,
    )
    box = [photo.found.detection for photo in (source, target)]
    tiles = [tile(source.pixels, box[0])] + [tile(picture, box[1]) for picture in (target.pixels, pixels, classic)]
    return result, tuple(tiles)


def cosine(client: Face3DClient, source: Photo, pixels: U8) -> float:
    """Cosine of the source's embedding and that of a picture; 0 where no face is found in it."""
    try:
        return float(source.embedding @ client.embed(pixels).vector)
    except Face3DError:
        return 0.0


def summary(rows: Sequence[Result]) -> dict[str, float]:
    """Return the figures over all pairs."""
    threshold = threshold_for(FALSE_ACCEPTS)
    return {
        "pairs": len(rows),
        "threshold": threshold,
        "found": float(np.mean([row.cosine >= threshold for row in rows])),
        "found_classic": float(np.mean([row.classic >= threshold for row in rows])),
        "found_before": float(np.mean([row.before >= threshold for row in rows])),
        "cosine": float(np.median([row.cosine for row in rows])),
        "cosine_classic": float(np.median([row.classic for row in rows])),
        "pose_degrees": float(np.median([row.pose for row in rows])),
        "pose_within_2": float(np.mean([row.pose <= 2 for row in rows])),
        "expression": float(np.median([row.expression for row in rows])),
        "exact": float(np.mean([row.exact for row in rows])),
    }


def tile(pixels: U8, face: DetectedFace) -> U8:
    """Cut a square around a face."""
    x1, y1, x2, y2 = face.box
    half = max(x2 - x1, y2 - y1) * AROUND / 2
    scale = TILE / (2 * half)
    turn = np.array([[scale, 0, TILE / 2 - scale * (x1 + x2) / 2], [0, scale, TILE / 2 - scale * (y1 + y2) / 2]])
    size = (TILE, TILE)
    return np.asarray(
        cv2.warpAffine(pixels, turn, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def sheet(tiles: Sequence[tuple[U8, ...]], columns: int = 8) -> U8:
    """Lay pairs beside each other, each a column of source, target, fused, classic."""
    blank = np.full((TILE * len(tiles[0]), TILE, 3), 255, np.uint8)
    stacks = [np.vstack(pictures) for pictures in tiles] + [blank] * (-len(tiles) % columns)
    rows = [np.hstack(stacks[start : start + columns]) for start in range(0, len(stacks), columns)]
    return np.vstack([np.pad(row, ((0, 12), (0, 0), (0, 0)), constant_values=255) for row in rows])


if __name__ == "__main__":
    main()
