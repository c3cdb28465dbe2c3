"""Data of a training run, made of noise: everything has the right shape and nothing can be learned."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from tests.export.synthetic import face_model
from training.render import SIZE


def shard(stem: Path, number: int, count: int = 3) -> None:
    """One file of renders and its labels."""
    rng = np.random.default_rng(number)
    np.save(f"{stem}-0-{number:03d}.npy", rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8))
    np.savez(
        f"{stem}-0-{number:03d}.labels.npz",
        identity=rng.normal(0, 1, (count, 80)).astype(np.float32),
        expression=rng.random((count, 64)).astype(np.float32),
        angle=rng.normal(0, 0.2, (count, 3)).astype(np.float32),
        camera=np.tile(np.array([10, 101.5, 112, 111], np.float32), (count, 1)),
    )


def run_arguments(folder: Path) -> argparse.Namespace:
    """Arguments of a run on five pictures and a shard, written into the folder."""
    rng = np.random.default_rng(0)
    face_model().save(folder / "face_model.npz")
    scatter = np.where(np.arange(478) < 50, 1.0, 9.0).astype(np.float32)
    np.savez(folder / "map.npz", vertex=rng.integers(0, 1681, 478).astype(np.int32), scatter_mm=scatter)
    shard(folder / "r", 0)
    files = [f"{k}.png" for k in range(5)]
    for file in files:
        cv2.imwrite(str(folder / file), rng.integers(0, 256, (120, 100, 3), np.uint8))
    np.savez(folder / "labels.npz", files=np.array(files), points=rng.uniform(20, 90, (5, 478, 3)))
    return argparse.Namespace(
        face_model=folder / "face_model.npz", teacher_map=folder / "map.npz", renders=folder / "r",
        pictures=folder, labels=folder / "labels.npz", checkpoint=folder / "run.pt", resolution=112,
        samples=8, minutes=1e9, rate=1e-3, restart=False, freeze=False, larger=1, seed=0, correction=None,
        muon=False,
    )  # fmt: skip
