"""Triton's side of `align`: pictures and faces in, crops and cameras out; see alignment.py and faces.py."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils
from alignment import TEMPLATE, cut, fit, window
from answers import Answer, response_of
from cutouts import CROP_HD, cut_out
from face_doubts import QualityWarning, crowded
from face_options import Options, options_from
from face_rows import Refused, Row, naming_row, side_of
from faces import choose, count, is_full, validate_choice
from memory import keep_memory
from meters import Meters
from numpy.typing import NDArray
from picture_inputs import check_inputs

Tensors = dict[str, NDArray[Any]]


class TritonPythonModel:
    """Chooses the face of each picture and cuts it out, a batch side by side: cutting lets go of Python's lock."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the threshold from the ``parameters`` of the configuration."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._threshold = float(parameters["score_threshold"]["string_value"])
        cv2.setNumThreads(1)
        keep_memory()
        # Once through everything, so that the first request finds all libraries loaded.
        frontal = fit(100 * TEMPLATE[:, :2] * (1, -1) + (320, 240), 480)
        cut(np.zeros((480, 640, 3), np.uint8), window(frontal, (640, 480), CROP_HD))
        self._meters = Meters()
        batch = int(json.loads(args["model_config"])["max_batch_size"])
        self._pool = ThreadPoolExecutor(min(batch, len(os.sched_getaffinity(0))), thread_name_prefix="cut")

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request by itself: a picture without a face is an error for its own request only."""
        work = [
            ({t.name(): t.as_numpy() for t in request.inputs()}, request.parameters(), _wanted(request))
            for request in requests
        ]
        # A face alone need not wait for another thread; the rows of a request alone have them all.
        alone = len(work) == 1
        answers = [self._answer(work[0], self._pool.map)] if alone else list(self._pool.map(self._answer, work))
        for answer in answers:
            for event in answer.events:
                event(self._meters)
        return [response_of(request, answer) for request, answer in zip(requests, answers, strict=True)]

    def finalize(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _answer(self, work: tuple[Tensors, str, set[str]], mapped: Callable[..., Iterator[Answer]] = map) -> Answer:
        answer = Answer()
        try:
            tensors, parameters, names = work
            check_inputs(tensors)
            options = options_from(parameters)
            rows = len(tensors["picture"])
            side_by_side = mapped if rows > 1 else map
            # All of them, before the request is answered for one that fails: threads read its memory.
            for row in list(side_by_side(lambda index: self._row(tensors, index, options, names), range(rows))):
                answer.events += row.events
                if row.error is not None:
                    with naming_row(len(answer.rows), rows):
                        raise row.error
                answer.rows += row.rows
        except Refused as error:
            answer.error = error
            answer.note(Meters.refused, error.tag)
        except Exception as error:  # whatever it is, it concerns this request and not its neighbours
            pb_utils.Logger.log_error("align: " + traceback.format_exc())
            answer.error = error
        return answer

    def _row(self, tensors: Tensors, index: int, options: Options, names: set[str]) -> Answer:
        row = Answer()
        try:
            face, doubts = self._face(tensors, index, options.for_row(index), row)
            cutout = cut_out(tensors["picture"][index], tensors["geometry"][index], face, names, options.texture_size)
        except Exception as error:  # the request's, unless a row before has one
            row.error = error
            return row
        doubts += cutout.doubts
        row.note(Meters.aligned, side_of(face), cutout.yaw, [doubt.kind for doubt in doubts])
        row.rows.append({**cutout.tensors, "warnings": [doubt.sentence.encode() for doubt in doubts]})
        return row

    def _face(self, tensors: Tensors, index: int, options: Options, answer: Answer) -> tuple[Row, list[QualityWarning]]:
        if "choice" in tensors:
            return validate_choice(tensors["choice"][index], options), []
        if "faces" not in tensors:
            raise Refused("BadOption", "the request has neither `faces` nor `choice`: give one of them.")
        faces, source = tensors["faces"][index], tensors["geometry"][index, :2]
        answer.note(Meters.found, count(faces, options, self._threshold))
        face = choose(faces, options, self._threshold, (float(source[0]), float(source[1])))
        return face, [crowded(len(faces))] if is_full(faces, options, self._threshold) else []


def _wanted(request: pb_utils.InferenceRequest) -> set[str]:
    return set(request.requested_output_names())
