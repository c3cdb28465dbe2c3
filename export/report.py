"""`python -m export.report`: measure every precision of every network and write docs/export-report.md with one plot.

For each network and precision: size, nodes, time in one process as a ratio to float32, errors against float32, and the
gate's verdict. A variant that its gate refuses is reported like the others: that is what the gate is for. Then the INT8
chain as it is served, regressor and texture one after the other, against the same chain in float32. A machine with VNNI
measures all this a second time with VNNI hidden (`export/without_vnni.py`), where it can.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from export import gate, report_page, without_vnni
from export.build import Order, Workshop, ranges
from export.calibration import quantised
from export.detector.parity import load_picture, pictures_in
from export.errors import ExportError
from export.fp16 import to_fp16
from export.int8 import Scheme
from export.networks import NETWORKS, ROOT
from export.parts import as_served
from export.samples import Sample, samples_from
from export.session import Feed, Session, median_seconds, stack
from export.surgery import Size
from server.backends.onnxruntime.integer_products import products_are_exact

JUDGED = 24
"""Faces that judge each variant; the chain is judged on all."""


@dataclass(frozen=True)
class Row:
    """One variant of one network."""

    network: str
    variant: str
    size: Size
    ratio: float
    verdict: gate.Verdict

    @property
    def decision(self) -> str:
        """What the exporter does with it."""
        if self.variant == "fp32":
            return "reference"
        if not self.verdict.passed:
            return "refused (quality)"
        if self.variant == "int8 u8s8":
            return "CPU" if self.ratio <= gate.MOST_TIME else "refused (not faster)"
        return "TensorRT"


@dataclass(frozen=True)
class Chain:
    """The INT8 chain against float32, one number a face."""

    head: NDArray[np.float64]
    """Mean vertex difference in the head frame, mm."""
    camera: NDArray[np.float64]
    """The same in the camera frame."""
    similarity: NDArray[np.float64]
    """SSIM of the textures, the INT8 one sampled by the INT8 shapes."""
    squared: NDArray[np.float64]
    """Their mean squared error, 0..1."""

    def criteria(self) -> list[gate.Criterion]:
        """Means against the bounds that INT8 is held to."""
        return [
            gate.Criterion("vertices in the head frame, mean mm", float(self.head.mean()), 0.3),
            gate.Criterion("vertices in the camera frame, mean mm", float(self.camera.mean())),
            gate.Criterion("texture, mean SSIM", float(self.similarity.mean()), 0.982, "at least"),
            gate.Criterion("texture, mean squared error", float(self.squared.mean()), 0.005),
        ]


@dataclass(frozen=True)
class Measured:
    """Everything that one kind of processor says."""

    processor: str
    """Its name, and whether it has VNNI."""
    vnni: str
    """`with VNNI` or `without VNNI`."""
    rows: list[Row]
    """Of all networks; empty where only the chain was asked for."""
    chain: Chain

    def save(self, path: Path) -> None:
        """Write it as JSON, for the process that asked for it."""
        path.write_text(json.dumps(asdict(self), default=lambda array: array.tolist()), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Measured:
        """Read what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = []
        for row in content.pop("rows"):
            criteria = tuple(gate.Criterion(**criterion) for criterion in row.pop("verdict")["criteria"])
            rows.append(Row(**{**row, "size": Size(**row["size"]), "verdict": gate.Verdict(criteria)}))
        chain = Chain(**{name: np.array(values) for name, values in content.pop("chain").items()})
        return cls(**content, rows=rows, chain=chain)


def variants_of(name: str, workshop: Workshop) -> dict[str, onnx.ModelProto]:
    """All graphs of one network by the name of the variant; the first is float32."""
    plain = workshop.plain(name, None)
    made = ranges(name, plain, workshop.order, workshop)
    return {
        "fp32": plain,
        "fp16": to_fp16(plain),
        "int8 u8s8": quantised(plain, made, Scheme.U8S8),
        "int8 s8s8": quantised(plain, made, Scheme.S8S8),
    }


def rows_of(name: str, samples: Sequence[Sample], workshop: Workshop, rounds: int) -> list[Row]:
    """Measure all variants of one network, taking turns so that other load meets all alike."""
    graphs = variants_of(name, workshop)
    feeds = workshop.feeds(name, samples)
    # What is for TensorRT is judged by what its products are, not by what a CPU may make of them.
    sessions = {variant: as_served(graph, exact=variant == "int8 s8s8") for variant, graph in graphs.items()}
    seconds = median_seconds(sessions, feeds[0], rounds)
    together = stack(feeds)
    wanted = stack([sessions["fp32"](feed) for feed in feeds])
    rows = []
    for variant, graph in graphs.items():
        if variant == "fp32":
            verdict = gate.judge_itself(graph, feeds)
        else:
            given = stack([sessions[variant](feed) for feed in feeds])
            exactness = gate.exactness(graph, any_x86=variant != "int8 s8s8")
            verdict = gate.Verdict((*gate.COMPARE[name](wanted, given, together), exactness))
        ratio = seconds[variant] / seconds["fp32"]
        rows.append(Row(name, variant, Size.of(graph), ratio, verdict))
        workshop.say(f"{name}: {variant}: {ratio:.2f} of the time, {verdict}")
    return rows


def chain_of(samples: Sequence[Sample], workshop: Workshop) -> Chain:
    """Regressor and texture in INT8 one after the other, against the same in float32."""
    chains: dict[str, list[Session]] = {"fp32": [], "int8 u8s8": []}
    for name in ("regressor", "texture"):
        plain = workshop.plain(name, None)
        made = ranges(name, plain, workshop.order, workshop)
        chains["fp32"].append(Session(plain))
        chains["int8 u8s8"].append(as_served(quantised(plain, made, Scheme.U8S8)))
    numbers: list[tuple[float, float, float, float]] = []
    for index, sample in enumerate(samples, 1):
        (shape, texture), (other_shape, other_texture) = (_through(chain, sample) for chain in chains.values())
        moved = np.linalg.norm(shape["shapes"][0] - other_shape["shapes"][0], axis=-1).mean(1) * 100  # dm -> mm
        a, b = texture["texture"][0], other_texture["texture"][0]
        squared = float(np.mean(((a.astype(np.float64) - b) / 255.0) ** 2))
        numbers.append((float(moved[1]), float(moved[0]), gate.similarity(a, b), squared))
        if index % 25 == 0:
            workshop.say(f"chain: {index} of {len(samples)} faces")
    return Chain(*np.array(numbers).T)


def _through(chain: Sequence[Session], sample: Sample) -> tuple[Feed, Feed]:
    regressor, texture = chain
    shape = regressor({"crop": sample.crop, "context": sample.context})
    return shape, texture({"crop_hd": sample.crop_hd, "context": sample.context, "shapes": shape["shapes"]})


def faces_in(folders: Sequence[Path], limit: int, find: Callable[..., NDArray[np.float32]]) -> list[Sample]:
    """The faces of a fixed random choice of `limit` pictures out of several folders.

    Raises:
        ExportError: there is none.
    """
    files = [file for folder in folders for file in pictures_in(folder)]
    random.Random(0).shuffle(files)
    samples: list[Sample] = []
    for sample in samples_from(((file.name, load_picture(file)) for file in files), find):
        samples.append(sample)
        if len(samples) == limit:
            break
    if not samples:
        raise ExportError(f"There is no face beyond doubt in the pictures of {', '.join(map(str, folders))}.")
    return samples


def measured(samples: Sequence[Sample], workshop: Workshop, rounds: int, only_chain: bool) -> Measured:
    """All rows and the chain, as this processor gives them."""
    rows: list[Row] = []
    for name in () if only_chain else NETWORKS:
        rows += rows_of(name, samples[:JUDGED], workshop, rounds)
    chain = chain_of(samples, workshop)
    return Measured(report_page.processor(), report_page.vnni(), rows, chain)


def measured_without_vnni(arguments: Sequence[str], workshop: Workshop) -> list[Measured]:
    """The same from a process that sees no VNNI; none where this processor has none anyway, or cannot hide it."""
    if not products_are_exact():
        return []
    with tempfile.TemporaryDirectory() as folder:
        try:
            hidden = without_vnni.environment(Path(folder))
        except ExportError as error:
            workshop.say(f"only measured with VNNI. {error}")
            return []
        file = Path(folder) / "measured.json"
        command = [sys.executable, "-m", "export.report", *arguments, "--into", str(file)]
        subprocess.run(command, cwd=ROOT, env=hidden, check=True)
        return [Measured.load(file)]


def main(arguments: Sequence[str] | None = None) -> int:
    """0: written; 2: one sentence on stderr says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m export.report", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--pictures",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="photographs that judge (default: two built-in portraits)",
    )
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many of them (default: 100)")
    parser.add_argument("--about", default="photographs", help="what the pictures are, for the page")
    parser.add_argument("--chain", action="store_true", help="only print the INT8 chain against float32; write nothing")
    parser.add_argument("--rounds", type=int, default=11, help="runs that are timed (default: 11)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "export-report.md", metavar="FILE")
    parser.add_argument("--into", type=Path, metavar="FILE", help="only write the measurements, as JSON")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    workshop = Workshop(Order(), lambda line: print(f"[{time.monotonic() - start:5.1f} s] {line}", flush=True))
    try:
        if options.pictures is None:
            samples = workshop.samples
            source = f"{len(samples)} faces: two public-domain portraits and variations of them"
        else:
            samples = faces_in(options.pictures, options.limit, workshop.find)
            source = f"{len(samples)} {options.about}"
        here = measured(samples, workshop, options.rounds, options.chain)
        if options.into:
            here.save(options.into)
            return 0
        everywhere = [here, *measured_without_vnni(sys.argv[1:] if arguments is None else arguments, workshop)]
    except ExportError as error:
        print(error, file=sys.stderr)
        return 2
    if options.chain:
        print(f"INT8 chain against float32, {source}:")
        print("\n".join(line for kind in everywhere for line in report_page.chain_table(kind)))
        return 0
    page = report_page.markdown(everywhere, source, min(JUDGED, len(samples)), workshop.traced)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page, encoding="utf-8")
    report_page.plot(here, options.output.with_suffix(".png"))
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
