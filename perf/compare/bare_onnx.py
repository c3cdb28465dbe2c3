"""The served ONNX files in one process with the service's other steps: the limit that a service can reach."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from perf import folders
from perf.compare.repository_steps import Answer, Array, RepositorySteps

NETWORKS = {"face3d": ("detector", "regressor", "parser", "texture"), "embed": ("detector", "embedder")}
"""Product -> the networks it needs."""


class Sessions:
    """The networks of a product in ONNX Runtime, with ``threads`` threads each."""

    def __init__(self, threads: int, product: str = "face3d") -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = {
            name: ort.InferenceSession(
                Path(folders.newest(name)) / "model.onnx", options, providers=["CPUExecutionProvider"]
            )
            for name in NETWORKS[product]
        }

    def run(self, name: str, **feed: Array) -> dict[str, Any]:
        """Run one network for one picture; return all outputs, without the batch axis."""
        return self.batch(name, [feed])[0]

    def batch(self, name: str, feeds: Sequence[dict[str, Array]]) -> list[dict[str, Any]]:
        """Run one network once for several pictures; return the outputs of each, without the batch axis."""
        session = self._sessions[name]
        values = session.run(None, {key: np.stack([feed[key] for feed in feeds]) for key in feeds[0]})
        names = [output.name for output in session.get_outputs()]
        return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def reconstruct(steps: RepositorySteps, sessions: Sessions, files: Sequence[bytes]) -> list[Answer]:
    """Reconstruct the best face of each photograph with one run of each network; the other steps are a loop."""
    aligned = [steps.align(*found) for found in _find(steps, sessions, files)]
    regressed = sessions.batch("regressor", [{"crop": a[0], "context": a[2]} for a in aligned])
    parsed = sessions.batch(
        "parser",
        [{"crop": a[0], "fingerprint": row["fingerprint"]} for a, row in zip(aligned, regressed, strict=True)],
    )
    textured = sessions.batch(
        "texture",
        [
            {"crop_hd": crop_hd, "shapes": row["shapes"], "context": context, "parts": found["parts"]}
            for (_, crop_hd, context), row, found in zip(aligned, regressed, parsed, strict=True)
        ],
    )
    return [
        steps.reconstruction(row, painted, found["parts"], crop_hd, context)
        for row, painted, found, (_, crop_hd, context) in zip(regressed, textured, parsed, aligned, strict=True)
    ]


def embed(steps: RepositorySteps, sessions: Sessions, files: Sequence[bytes]) -> list[Answer]:
    """Embed the best face of each photograph with one run of each network; the other steps are a loop."""
    upright = [steps.upright(*found) for found in _find(steps, sessions, files)]
    embedded = sessions.batch("embedder", [{"aligned": aligned} for aligned, _ in upright])
    return [steps.embedding(row["embedding"], quality) for row, (_, quality) in zip(embedded, upright, strict=True)]


def _find(
    steps: RepositorySteps, sessions: Sessions, files: Sequence[bytes]
) -> list[tuple[Array, tuple[float, float], Array]]:
    """Decode photographs and find their faces: pixels, width and height, faces of each."""
    pictures = steps.pictures
    decoded = [pictures.decode(data, steps.limits) for data in files]
    feeds = []
    for picture in decoded:
        canvas, ratio = pictures.canvas_of(picture)
        feeds.append({"canvas": canvas, "geometry": pictures.geometry_of(picture, ratio)})
    found = sessions.batch("detector", feeds)
    return [(picture.pixels, picture.source, row["faces"]) for picture, row in zip(decoded, found, strict=True)]


PRODUCTS = {"face3d": reconstruct, "embed": embed}


class ParallelOnnx:
    """Give a single picture every core inside the operators, and several pictures one core each, like the service."""

    def __init__(self, product: str = "face3d") -> None:
        cores = len(os.sched_getaffinity(0))
        self._steps, self._answer = RepositorySteps(), PRODUCTS[product]
        self._wide, self._narrow = Sessions(cores, product), Sessions(1, product)
        self._pool = ThreadPoolExecutor(cores)

    def run(self, data: bytes, alone: bool = True) -> Answer:
        """Answer for the best face of a photograph's file bytes; ``alone``: nothing else runs at the same time."""
        return self._answer(self._steps, self._wide if alone else self._narrow, [data])[0]

    def run_batch(self, files: list[bytes]) -> list[Answer]:
        """Answer for photographs in parallel, one a core."""
        if len(files) == 1:
            return [self.run(files[0])]
        return list(self._pool.map(lambda data: self.run(data, alone=False), files))


class BatchedOnnx:
    """Run each network once for a whole batch, on every core; the other steps are a loop."""

    def __init__(self, product: str = "face3d") -> None:
        self._steps, self._answer = RepositorySteps(), PRODUCTS[product]
        self._sessions = Sessions(len(os.sched_getaffinity(0)), product)

    def run(self, data: bytes) -> Answer:
        """Answer for a batch of one."""
        return self.run_batch([data])[0]

    def run_batch(self, files: list[bytes]) -> list[Answer]:
        """Answer for photographs with one run of each network."""
        return self._answer(self._steps, self._sessions, files)
