"""The served ONNX files in one process with the service's other steps: the limit that a service can reach."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from export.models import MODEL_NAMES
from perf import folders
from perf.compare.repository_steps import Array, Reconstruction, RepositorySteps


class Sessions:
    """The networks in ONNX Runtime, with ``threads`` threads each."""

    def __init__(self, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = {
            name: ort.InferenceSession(
                Path(folders.newest(name)) / "model.onnx", options, providers=["CPUExecutionProvider"]
            )
            for name in MODEL_NAMES
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


class ParallelOnnx:
    """Give a single picture every core inside the operators, and several pictures one core each, like the service."""

    def __init__(self) -> None:
        cores = len(os.sched_getaffinity(0))
        self._steps = RepositorySteps()
        self._wide, self._narrow = Sessions(cores), Sessions(1)
        self._pool = ThreadPoolExecutor(cores)

    def run(self, data: bytes, alone: bool = True) -> Reconstruction:
        """Reconstruct the best face of a photograph's file bytes; ``alone``: nothing else runs at the same time."""
        sessions = self._wide if alone else self._narrow
        pictures = self._steps.pictures
        picture = pictures.decode(data, self._steps.limits)
        canvas, ratio = pictures.canvas_of(picture)
        geometry = pictures.geometry_of(picture, ratio)
        faces = sessions.run("detector", canvas=canvas, geometry=geometry)["faces"]
        crop, crop_hd, context = self._steps.align(picture.pixels, picture.source, faces)
        regressed = sessions.run("regressor", crop=crop, context=context)
        parts = sessions.run("parser", crop=crop, fingerprint=regressed["fingerprint"])["parts"]
        textured = sessions.run("texture", crop_hd=crop_hd, shapes=regressed["shapes"], context=context, parts=parts)
        return self._steps.reconstruction(regressed, np.asarray(textured["texture"]), crop_hd, context)

    def run_batch(self, files: list[bytes]) -> list[Reconstruction]:
        """Reconstruct photographs in parallel, one a core."""
        if len(files) == 1:
            return [self.run(files[0])]
        return list(self._pool.map(lambda data: self.run(data, alone=False), files))


class BatchedOnnx:
    """Run each network once for a whole batch, on every core; the other steps are a loop."""

    def __init__(self) -> None:
        self._steps = RepositorySteps()
        self._sessions = Sessions(len(os.sched_getaffinity(0)))

    def run(self, data: bytes) -> Reconstruction:
        """Reconstruct a batch of one."""
        return self.run_batch([data])[0]

    def run_batch(self, files: list[bytes]) -> list[Reconstruction]:
        """Reconstruct photographs with one run of each network."""
        pictures = self._steps.pictures
        decoded = [pictures.decode(data, self._steps.limits) for data in files]
        canvases = [pictures.canvas_of(picture) for picture in decoded]
        found = self._sessions.batch(
            "detector",
            [
                {"canvas": canvas, "geometry": pictures.geometry_of(picture, ratio)}
                for picture, (canvas, ratio) in zip(decoded, canvases, strict=True)
            ],
        )
        aligned = [
            self._steps.align(picture.pixels, picture.source, faces["faces"])
            for picture, faces in zip(decoded, found, strict=True)
        ]
        regressed = self._sessions.batch("regressor", [{"crop": a[0], "context": a[2]} for a in aligned])
        parsed = self._sessions.batch(
            "parser",
            [{"crop": a[0], "fingerprint": row["fingerprint"]} for a, row in zip(aligned, regressed, strict=True)],
        )
        textured = self._sessions.batch(
            "texture",
            [
                {"crop_hd": crop_hd, "shapes": row["shapes"], "context": context, "parts": found["parts"]}
                for (_, crop_hd, context), row, found in zip(aligned, regressed, parsed, strict=True)
            ],
        )
        return [
            self._steps.reconstruction(row, np.asarray(texture["texture"]), crop_hd, context)
            for row, texture, (_, crop_hd, context) in zip(regressed, textured, aligned, strict=True)
        ]
