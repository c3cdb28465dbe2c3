"""Measure every precision of every model, and the served INT8 chain."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from export.context import ExportContext
from export.criteria import Verdict
from export.errors import ExportError
from export.graph import Size
from export.models import MODEL_NAMES, get_model
from export.models.texture import similarity
from export.options import ROOT
from export.pictures import load_picture, pictures_in
from export.precision.calibration import quantised
from export.precision.fp16 import to_fp16
from export.precision.int8 import Scheme
from export.reports import without_vnni
from export.reports.page import processor, vnni
from export.reports.results import Chain, Measured, Row
from export.samples import FaceDetector, Sample, samples_from
from export.session import Feed, Session, median_seconds, stack
from export.stages.convert import get_ranges
from export.stages.gate import exactness, judge_itself
from server.backends.onnxruntime.integer_products import products_are_exact

JUDGED = 24
"""Faces that each variant is judged on; the chain is judged on all."""


def variants_of(name: str, context: ExportContext) -> dict[str, onnx.ModelProto]:
    """Return the graphs of a network, variant -> graph; the first is float32."""
    model, float32_graph = get_model(name), context.float32_graph(name, None)
    ranges = get_ranges(model, float32_graph, context)
    return {
        "fp32": float32_graph,
        "fp16": to_fp16(float32_graph),
        "int8 u8s8": quantised(float32_graph, ranges, Scheme.U8S8),
        "int8 s8s8": quantised(float32_graph, ranges, Scheme.S8S8),
    }


def rows_of(name: str, samples: Sequence[Sample], context: ExportContext, rounds: int) -> list[Row]:
    """Measure all variants of a network in turns, so that other load affects all alike."""
    model, graphs = get_model(name), variants_of(name, context)
    feeds = context.feeds(name, samples)
    # Graphs for TensorRT are judged with exact products, which a CPU's kernels may not give.
    sessions = {variant: model.served_session(graph, exact=variant == "int8 s8s8") for variant, graph in graphs.items()}
    seconds = median_seconds(sessions, feeds[0], rounds)
    feeds, answers = of_one_size(feeds, [sessions["fp32"](feed) for feed in feeds])
    batch, expected = stack(feeds), stack(answers)
    rows = []
    for variant, graph in graphs.items():
        if variant == "fp32":
            verdict = judge_itself(graph, feeds)
        else:
            actual = stack([sessions[variant](feed) for feed in feeds])
            saturation = exactness(graph, any_x86=variant != "int8 s8s8")
            verdict = Verdict((*model.compare(expected, actual, batch), saturation))
        ratio = seconds[variant] / seconds["fp32"]
        rows.append(Row(name, variant, Size.of(graph), ratio, verdict))
        context.say(f"{name}: {variant}: {ratio:.2f} of the time, {verdict}")
    return rows


def of_one_size(feeds: Sequence[Feed], answers: Sequence[Feed]) -> tuple[list[Feed], list[Feed]]:
    """Keep the most faces whose answers have one size: a texture is as large as what its photograph shows.

    Args:
        feeds, answers: of the same faces.
    """
    sizes = [tuple(sorted((name, array.shape) for name, array in answer.items())) for answer in answers]
    usual = Counter(sizes).most_common(1)[0][0]
    kept = [index for index, size in enumerate(sizes) if size == usual]
    return [feeds[index] for index in kept], [answers[index] for index in kept]


def chain_of(samples: Sequence[Sample], context: ExportContext) -> Chain:
    """Run regressor and texture in INT8 one after the other, against the same in float32.

    The parser between them is float32 in both.
    """
    chains: dict[str, list[Session]] = {"fp32": [], "int8 u8s8": []}
    for name in ("regressor", "texture"):
        model, float32_graph = get_model(name), context.float32_graph(name, None)
        ranges = get_ranges(model, float32_graph, context)
        chains["fp32"].append(Session(float32_graph))
        chains["int8 u8s8"].append(model.served_session(quantised(float32_graph, ranges, Scheme.U8S8)))
    parser = Session(context.float32_graph("parser", None))
    parts = [parser(feed)["parts"] for feed in context.feeds("parser", samples)]
    numbers: list[tuple[float, float, float, float]] = []
    for index, (sample, seen) in enumerate(zip(samples, parts, strict=True), 1):
        (shape, texture), (other_shape, other_texture) = (_through(chain, sample, seen) for chain in chains.values())
        differences = np.linalg.norm(shape["shapes"][0] - other_shape["shapes"][0], axis=-1).mean(1) * 100  # dm -> mm
        a, b = texture["texture"][0], other_texture["texture"][0]
        squared = float(np.mean(((a.astype(np.float64) - b) / 255.0) ** 2))
        numbers.append((float(differences[1]), float(differences[0]), similarity(a, b), squared))
        if index % 25 == 0:
            context.say(f"chain: {index} of {len(samples)} faces")
    return Chain(*np.array(numbers).T)


def _through(chain: Sequence[Session], sample: Sample, parts: NDArray[np.uint8]) -> tuple[Feed, Feed]:
    regressor, texture = chain
    shape = regressor({"crop": sample.crop, "context": sample.context})
    return shape, texture(get_model("texture").feed(sample, {"shapes": shape["shapes"], "parts": parts}))


def faces_in(folders: Sequence[Path], limit: int, detect_faces: FaceDetector) -> list[Sample]:
    """Return at most `limit` faces of several folders, a fixed random selection.

    Raises:
        ExportError: there are no faces.
    """
    files = [file for folder in folders for file in pictures_in(folder)]
    random.Random(0).shuffle(files)
    samples: list[Sample] = []
    for sample in samples_from(((file.name, load_picture(file)) for file in files), detect_faces):
        samples.append(sample)
        if len(samples) == limit:
            break
    if not samples:
        raise ExportError(f"There is no face beyond doubt in the pictures of {', '.join(map(str, folders))}.")
    return samples


def measured(samples: Sequence[Sample], context: ExportContext, rounds: int, only_chain: bool) -> Measured:
    """Measure all rows and the chain on this processor."""
    rows: list[Row] = []
    for name in () if only_chain else MODEL_NAMES:
        rows += rows_of(name, samples[:JUDGED], context, rounds)
    return Measured(processor(), vnni(), rows, chain_of(samples, context))


def measured_without_vnni(arguments: Sequence[str], context: ExportContext) -> list[Measured]:
    """Measure the same in a process without VNNI; empty on a machine without it or where it cannot be hidden."""
    if not products_are_exact():
        return []
    with tempfile.TemporaryDirectory() as folder:
        try:
            hidden = without_vnni.environment(Path(folder))
        except ExportError as error:
            context.say(f"only measured with VNNI. {error}")
            return []
        file = Path(folder) / "measured.json"
        command = [sys.executable, "-m", "export.reports", *arguments, "--into", str(file)]
        subprocess.run(command, cwd=ROOT, env=hidden, check=True)
        return [Measured.load(file)]
