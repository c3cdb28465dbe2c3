"""D: the very ONNX files that are served, in one process with the same work around them: the limit of a service."""

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
from perf.compare.work import Answer, Array, HandWork


class Sessions:
    """The three networks with so many threads each."""

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
        """All outputs of one network for one picture, without the batch axis."""
        return self.batch(name, [feed])[0]

    def batch(self, name: str, feeds: Sequence[dict[str, Array]]) -> list[dict[str, Any]]:
        """All outputs of one run for several pictures, each without the batch axis."""
        session = self._sessions[name]
        values = session.run(None, {key: np.stack([feed[key] for feed in feeds]) for key in feeds[0]})
        names = [output.name for output in session.get_outputs()]
        return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


class Bare:
    """A picture alone gets every core inside the operators; several get one core each, as the service does it."""

    def __init__(self) -> None:
        cores = len(os.sched_getaffinity(0))
        self._work = HandWork()
        self._wide, self._narrow = Sessions(cores), Sessions(1)
        self._pool = ThreadPoolExecutor(cores)

    def one(self, data: bytes, alone: bool = True) -> Answer:
        """A photograph's bytes to its answer; ``alone``: nothing else runs at the same time."""
        sessions = self._wide if alone else self._narrow
        pictures = self._work.pictures
        picture = pictures.decode(data, self._work.limits)
        canvas, ratio = pictures.canvas_of(picture)
        geometry = pictures.geometry_of(picture, ratio)
        faces = sessions.run("detector", canvas=canvas, geometry=geometry)["faces"]
        crop, crop_hd, context = self._work.aligned(picture.pixels, picture.source, faces)
        regressed = sessions.run("regressor", crop=crop, context=context)
        textured = sessions.run("texture", crop_hd=crop_hd, shapes=regressed["shapes"], context=context)
        return self._work.answer(regressed, np.asarray(textured["texture"]), crop_hd, context)

    def many(self, files: list[bytes]) -> list[Answer]:
        """Side by side on the cores."""
        if len(files) == 1:
            return [self.one(files[0])]
        return list(self._pool.map(lambda data: self.one(data, alone=False), files))


class Batched:
    """The usual way with a batch: each network runs once for all of it, on every core; the rest is a loop."""

    def __init__(self) -> None:
        self._work = HandWork()
        self._sessions = Sessions(len(os.sched_getaffinity(0)))

    def one(self, data: bytes) -> Answer:
        """A batch of one."""
        return self.many([data])[0]

    def many(self, files: list[bytes]) -> list[Answer]:
        """One run of each network."""
        pictures = self._work.pictures
        decoded = [pictures.decode(data, self._work.limits) for data in files]
        seen = [pictures.canvas_of(picture) for picture in decoded]
        found = self._sessions.batch(
            "detector",
            [
                {"canvas": canvas, "geometry": pictures.geometry_of(picture, ratio)}
                for picture, (canvas, ratio) in zip(decoded, seen, strict=True)
            ],
        )
        aligned = [
            self._work.aligned(picture.pixels, picture.source, faces["faces"])
            for picture, faces in zip(decoded, found, strict=True)
        ]
        regressed = self._sessions.batch("regressor", [{"crop": a[0], "context": a[2]} for a in aligned])
        textured = self._sessions.batch(
            "texture",
            [
                {"crop_hd": crop_hd, "shapes": row["shapes"], "context": context}
                for (_, crop_hd, context), row in zip(aligned, regressed, strict=True)
            ],
        )
        return [
            self._work.answer(row, np.asarray(texture["texture"]), crop_hd, context)
            for row, texture, (_, crop_hd, context) in zip(regressed, textured, aligned, strict=True)
        ]
