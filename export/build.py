"""From weights to a version folder: trace, clean, convert, gate, write. One network at a time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from export import calibration, equalise, gate, parts
from export.detector.parity import load_picture, pictures_in
from export.errors import ExportError
from export.face_model import FaceModel, FaceModelError
from export.fp16 import to_fp16
from export.graph import BATCH, OPSET, shape_of
from export.graphsurgeon import gs
from export.int8 import Scheme, quantised_tensors, to_int8
from export.networks import FACE_MODEL, NETWORKS, ROOT, Network, belongs_to_built_in
from export.plans.gpu import plan_name, serving
from export.plans.profile import MOST_VERTICES, max_batch_size, profile
from export.samples import Sample, built_in_portraits, samples_of, varied_portraits
from export.saturation import saturating
from export.session import Feed, Session, stack
from export.surgery import Size
from export.versions import (
    OWN_VERSION,
    code_digest,
    free_to_write,
    read_sidecar,
    sha256,
    staged,
    up_to_date,
    write_sidecar,
)
from server.backends.onnxruntime.integer_products import ANY_X86, INTEGER_PRODUCTS, products_are_exact

Target = Literal["cpu", "tensorrt"]
Precision = Literal["fp32", "fp16", "int8"]
Say = Callable[[str], None]

REPOSITORY = ROOT / "model_repository"
ONNX_DIR = ROOT / "build" / "tensorrt"
"""Where the ONNX files that plans are built from are kept."""
MODEL_FILE = "model.onnx"
GATE_SAMPLES = 16
CALIBRATION_PHOTOGRAPHS = 512
"""At most so many of a folder: more do not move a percentile."""
FLOAT_STREAMS = {"regressor": 1}
"""Networks with residual streams -> how many of the last stay in float32 where nothing has compared them."""
CALIBRATION_SAMPLES = 48
"""Variations of the built-in portraits when ranges have to be made on the spot; about half a minute."""
TOOLS = ("torch", "onnx", "onnxruntime", "onnx-graphsurgeon", "polygraphy")


@dataclass(frozen=True)
class Order:
    """What is asked for. None means the default: see `python -m export --help`."""

    target: Target = "cpu"
    precision: Precision | None = None
    version: int | None = None
    weights: Path | None = None
    face_model: Path | None = None
    repository: Path = REPOSITORY
    onnx_dir: Path = ONNX_DIR
    pictures: Path | None = None
    recipe: str | None = None
    integer_products: Literal["any-x86", "vnni"] = ANY_X86
    """For which processors the products of INT8 on a CPU have to be right."""
    dry_run: bool = False
    strict: bool = True
    """A precision that fails its gate is an error; otherwise the next higher one is taken."""

    @property
    def scheme(self) -> Scheme:
        """How INT8 is written for the target."""
        if self.target == "tensorrt":
            return Scheme.S8S8
        return Scheme.U8S8 if self.integer_products == ANY_X86 else Scheme.U8S8_VNNI


@dataclass
class Workshop:
    """What several networks of one order share, made when it is first needed."""

    order: Order
    say: Say
    graphs: dict[tuple[str, Path | None], onnx.ModelProto] = field(default_factory=dict)
    digests: dict[tuple[str, Path | None], str] = field(default_factory=dict)
    """Of the weights, taken before they were read: who replaces a file meanwhile gets a digest that fits nothing."""
    traced: dict[str, Size] = field(default_factory=dict)

    @cached_property
    def face_model(self) -> FaceModel:
        """The face model that goes into regressor, texture and topology."""
        path = self.order.face_model or FACE_MODEL
        try:
            return FaceModel.load(path)
        except FaceModelError as error:
            raise ExportError(str(error)) from error

    @cached_property
    def find(self) -> Callable[..., Any]:
        """The default detector as a function, in float32: samples are found by it whatever is exported."""
        session = Session(self.plain("detector", None))
        return lambda canvas, geometry: session({"canvas": canvas, "geometry": geometry})["faces"]

    @cached_property
    def samples(self) -> list[Sample]:
        """What the gate looks at: the built-in portraits and variations of them."""
        return samples_of(varied_portraits(GATE_SAMPLES, seed=7), self.find)

    def plain(self, name: str, weights: Path | None) -> onnx.ModelProto:
        """The float32 graph after surgery."""
        if (name, weights) not in self.graphs:
            network = NETWORKS[name]
            face_model = self.face_model if network.needs_face_model else None
            file = weights or network.weights
            self.digests[name, weights] = sha256(file) if file.exists() else ""
            # TensorRT plans memory by sizes; on a CPU work that depends on the picture is work that is not done.
            fixed = self.order.target == "tensorrt"
            traced = network.traced(weights, face_model, self.order.recipe if weights else None, fixed)
            cleaned = network.cleaned(traced)
            before, after = Size.of(traced), Size.of(cleaned)
            self.traced[name] = before
            self.say(
                f"{name}: traced and cleaned, {before.nodes} -> {after.nodes} nodes, "
                f"{before.bytes / 1e6:.1f} -> {after.bytes / 1e6:.1f} MB"
            )
            self.graphs[name, weights] = cleaned
        return self.graphs[name, weights]

    def feeds(self, name: str, samples: Sequence[Sample]) -> list[Feed]:
        """Inputs of a network for samples.

        The texture network's shapes come from the regressor, or, where the face model is not the built-in one, are
        the mean face: the alignment puts a face of 102 pixels a decimetre about where the camera sees it.
        """
        shapes: list[Feed] = [{} for _ in samples]
        if name == "texture":
            if belongs_to_built_in(self.face_model):
                regressor = Session(self.plain("regressor", None))
                shapes = [regressor({"crop": sample.crop, "context": sample.context}) for sample in samples]
            else:
                shapes = [{"shapes": np.stack([self.face_model.mean] * 3)[None]} for _ in samples]
        return [NETWORKS[name].feed(sample, shape) for sample, shape in zip(samples, shapes, strict=True)]


@dataclass(frozen=True)
class Variant:
    """A graph that passed its gate."""

    precision: Precision
    graph: onnx.ModelProto
    verdict: gate.Verdict
    calibration: dict[str, Any] | None = None


def build(name: str, order: Order, workshop: Workshop) -> Path:
    """Make one network's version and return its folder. What is there and made of the same is left alone.

    Raises:
        ExportError: something is missing or wrong, the version exists, or the gate refused the variant.
    """
    network, say = NETWORKS[name], workshop.say
    weights = order.weights or network.weights
    place = order.repository if order.target == "cpu" else order.onnx_dir
    folder = place / name / str(order.version or OWN_VERSION)
    key = key_of(network, weights, order, workshop)
    if up_to_date(folder, MODEL_FILE, key):
        say(f"{name}: version {folder.name} is already there")
        return folder
    if order.scheme is Scheme.U8S8_VNNI and not products_are_exact():
        raise ExportError(
            "This processor has no VNNI, so that nothing made for processors with it can be judged here: leave out "
            "--integer-products, or export on one that has it."
        )
    own = order.version is None and order.weights is None and order.face_model is None
    free_to_write(folder, MODEL_FILE, own)
    if order.dry_run:
        for line in described(name, folder, key, order, workshop):
            say(f"{name}: {line}")
        return folder
    plain = workshop.plain(name, order.weights)
    feeds = workshop.feeds(name, workshop.samples)
    variant = best_variant(name, plain, feeds, order, workshop)
    cut = parts.cut(variant.graph) if order.target == "cpu" else None
    apart = parts.difference(variant.graph, cut, stack(feeds[: gate.BATCH])) if cut else None
    judged_for = ANY_X86 if not saturating(variant.graph) else order.integer_products
    if order.target == "cpu":
        onnx.helper.set_model_props(variant.graph, {INTEGER_PRODUCTS: judged_for})
    with staged(folder) as staging:
        onnx.save(variant.graph, staging / MODEL_FILE)
        if cut and apart:
            say(f"{name}: cut into parts: {apart}")
            if apart.small:
                parts.write(staging, staging / MODEL_FILE, cut)
        write_sidecar(staging, _sidecar(network, weights, key, plain, variant, workshop, apart))
    if (order.repository / name).is_dir():
        write_warmup(order.repository / name, feeds[0])
    say(f"{name}: wrote version {folder.name}, {variant.precision}, {Size.of(variant.graph).bytes / 1e6:.1f} MB")
    return folder


def key_of(network: Network, weights: Path, order: Order, workshop: Workshop) -> dict[str, Any]:
    """What a version is made of; two equal keys give the same version."""
    if not weights.exists():
        raise ExportError(f"The weights {weights} are not there: name them with --weights, or run `make setup`.")
    return {
        "weights": sha256(weights),
        "beside": [sha256(path) for path in network.beside],
        "face_model": workshop.face_model.fingerprint if network.needs_face_model else None,
        "code": code_digest(),
        "target": order.target,
        "precision": order.precision,
        "integer_products": order.integer_products,
        "recipe": order.recipe,
        "tools": {tool: installed(tool) for tool in TOOLS},
    }


def ladder(name: str, order: Order) -> list[Precision]:
    """Precisions to try, best first.

    On a CPU float16 is no faster in ONNX Runtime, so INT8 falls back to float32; on a GPU it falls back to float16.
    """
    if order.precision is not None and order.strict:
        return [order.precision]
    if order.target == "tensorrt":
        wanted: Precision = order.precision or "fp16"
        steps: list[Precision] = ["int8", "fp16", "fp32"]
        return steps[steps.index(wanted) :]
    if order.precision is not None:
        return [order.precision] if order.precision == "fp32" else [order.precision, "fp32"]
    return ["fp32"] if name == "detector" else ["int8", "fp32"]


def best_variant(name: str, plain: onnx.ModelProto, feeds: list[Feed], order: Order, workshop: Workshop) -> Variant:
    """The first precision of the ladder that passes lint and gate."""
    refusal = ""
    steps = ladder(name, order)
    if "int8" in steps[:-1] and not quantised_tensors(gs.import_onnx(plain)):
        # The texture graph of a face model other than the built-in one: it has no network in it.
        workshop.say(f"{name}: the graph has no convolutions, so that int8 would change nothing")
        steps.remove("int8")
    for precision in steps:
        variant = _variant(name, plain, feeds, precision, order, workshop)
        workshop.say(f"{name}: {precision}: {variant.verdict}")
        if variant.verdict.passed:
            return variant
        refusal = f"The {precision} variant of the {name} was refused: {variant.verdict}. Nothing was written."
        if precision != "fp32":
            workshop.say(f"{name}: {precision} is refused")
    raise ExportError(refusal)


def _variant(
    name: str, plain: onnx.ModelProto, feeds: list[Feed], precision: Precision, order: Order, workshop: Workshop
) -> Variant:
    made_from: dict[str, Any] | None = None
    # How fast a graph for TensorRT is, only a GPU can say: there the plan is compared (see export/plans).
    timed = order.target == "cpu"
    if precision == "fp32":
        graph = plain
        verdict = gate.judge_itself(graph, feeds)
    elif precision == "fp16":
        graph = to_fp16(plain)
        verdict = gate.judge(name, plain, graph, feeds, timed)
    else:
        scheme = order.scheme
        if timed and not has_ranges(name, order):
            # Calibrating takes half a minute, and how fast a graph is does not depend on its ranges: ask that first.
            any_ranges = dict.fromkeys(quantised_tensors(gs.import_onnx(plain)), (0.0, 1.0))
            trial = to_int8(plain, any_ranges, scheme, streams=FLOAT_STREAMS.get(name, 0))
            speed = gate.speed(plain, trial, feeds[0])
            if not speed.passed:
                return Variant(precision, trial, speed)
        made = ranges(name, plain, order, workshop)
        made_from = {
            "samples": made.samples,
            "source": made.source,
            "method": made.chosen,
            "scheme": scheme.value,
            "kept in float32": made.keep_float,
            "residual streams in float32": made.streams,
            "equalised": bool(made.shifts),
        }
        graph = calibration.quantised(plain, made, scheme)
        verdict = gate.judge(name, plain, graph, feeds, timed, any_x86=scheme.any_x86)
    problem = gate.lint(graph, feeds[0])
    if problem is not None:
        raise ExportError(f"polygraphy's lint refuses the {precision} graph of the {name}: {problem}")
    return Variant(precision, graph, verdict, made_from)


def has_ranges(name: str, order: Order) -> bool:
    """Whether the committed ranges belong to the weights of this order."""
    weights = order.weights or NETWORKS[name].weights
    return order.pictures is None and calibration.kept_ranges(name, sha256(weights)) is not None


def ranges(name: str, plain: onnx.ModelProto, order: Order, workshop: Workshop) -> calibration.Ranges:
    """Calibrated ranges: the committed ones if they belong to these weights, else made here and now."""
    if order.pictures is None:
        kept = calibration.kept_ranges(name, sha256(order.weights or NETWORKS[name].weights))
        if kept is not None:
            return kept
        workshop.say(f"{name}: no committed ranges belong to these weights; calibrating")
    return calibrate(name, plain, order, workshop)


def calibrate(name: str, plain: onnx.ModelProto, order: Order, workshop: Workshop) -> calibration.Ranges:
    """Ranges from the photographs of a folder, or from variations of the built-in portraits where there is none."""
    if order.pictures is not None:
        files = pictures_in(order.pictures, CALIBRATION_PHOTOGRAPHS)
        if not files:
            raise ExportError(f"There are no pictures in {order.pictures}.")
        samples = samples_of(((file.name, load_picture(file)) for file in files), workshop.find)
        source = f"photographs of the folder '{order.pictures.name}'"
    else:
        samples = samples_of(varied_portraits(CALIBRATION_SAMPLES), workshop.find)
        source = "variations of two public-domain portraits, for want of photographs (--pictures FOLDER)"
    return calibrated(name, plain, order.weights, samples, source, workshop)


def calibrated(
    name: str, plain: onnx.ModelProto, weights: Path | None, samples: Sequence[Sample], about: str, workshop: Workshop
) -> calibration.Ranges:
    """Ranges by all rules from the given faces, for the graph with its channels equalised where it has streams."""
    source = f"{len(samples)} {about}"
    workshop.say(f"{name}: calibrating with {source}")
    feeds = workshop.feeds(name, samples)
    streams = FLOAT_STREAMS.get(name, 0)
    shifts = equalise.shifts(plain, feeds) if streams else {}
    even = equalise.equalised(plain, shifts)
    bounds = calibration.calibrate(even, quantised_tensors(gs.import_onnx(even)), feeds)
    digest = workshop.digests[name, weights]
    return calibration.Ranges(digest, len(samples), source, bounds, shifts=shifts, streams=streams)


def write_warmup(model: Path, feed: Feed) -> None:
    """The raw input files that `model_warmup` of the configuration names: one real sample, without the batch axis."""
    folder = model / "warmup"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in feed.items():
        if name == "shapes":
            value = np.pad(value, ((0, 0), (0, 0), (0, MOST_VERTICES - value.shape[2]), (0, 0)))
        temporary = folder / f".{name}"
        temporary.write_bytes(np.ascontiguousarray(value[0]).tobytes())
        temporary.rename(folder / name)


def write_topology(order: Order, workshop: Workshop) -> Path | None:
    """`topology.npz` for the model `postprocess`: triangles, UV, landmarks and the fingerprint of the face model.

    The version folder of a Python model is its code. Where the newest one has no topology yet, or the checkout's own
    face model changed, the file is put there; for another face model a new version is made with a copy of the code.
    """
    model = workshop.face_model
    folder = order.repository / "postprocess"
    versions = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []
    if not versions:
        return None
    newest = folder / str(versions[-1])
    wanted = folder / str(order.version) if order.version is not None else newest
    path = wanted / "topology.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            if int(kept["fingerprint"][0]) == model.fingerprint:
                return path
        if order.version is not None or order.face_model is not None:
            raise ExportError(
                f"Version {wanted.name} of the model 'postprocess' holds the topology of another face model; a version "
                "is never overwritten: choose another number with --version."
            )
    if order.dry_run:
        workshop.say(f"topology: would write {path}")
        return path
    if wanted.is_dir():
        _save_topology(path, model)
    else:
        with staged(wanted) as staging:
            for source in newest.glob("*.py"):
                shutil.copy2(source, staging / source.name)
            _save_topology(staging / "topology.npz", model)
    workshop.say(f"topology: wrote {path} ({len(model.mean)} vertices, {len(model.triangles)} triangles)")
    return path


def _save_topology(path: Path, model: FaceModel) -> None:
    temporary = path.with_name(".topology.npz")
    np.savez_compressed(
        temporary,
        triangles=model.triangles,
        uv=model.uv,
        landmarks=model.landmarks,
        fingerprint=np.array([model.fingerprint], np.int64),
        name=np.array(model.name),
    )
    temporary.rename(path)


def described(name: str, folder: Path, key: dict[str, Any], order: Order, workshop: Workshop) -> list[str]:
    """What a dry run says of one network: everything that would decide what is written."""
    network = NETWORKS[name]
    steps = [f"int8 ({order.scheme.value})" if step == "int8" else step for step in ladder(name, order)]
    lines = [
        f"would write {folder / MODEL_FILE}",
        f"weights {order.weights or network.weights}, sha256 {key['weights'][:16]}",
        f"{' or, if its gate refuses that, '.join(steps)}; opset {OPSET}; batch free",
    ]
    vertices = 1
    if network.needs_face_model:
        model = workshop.face_model
        vertices = len(model.mean)
        lines.append(f"face model '{model.name}', {vertices} vertices, fingerprint {model.fingerprint}")
    if order.target == "tensorrt":
        image = serving()
        lines.append(
            f"plan {order.repository / name / folder.name / plan_name('X.Y')} for compute capability X.Y, strongly "
            f"typed, built in tritonserver:{image['TRITON_TAG']} by TensorRT {image['TENSORRT_VERSION']}"
        )
        module, example = network.load(
            order.weights, workshop.face_model if network.needs_face_model else None, order.recipe, True
        )
        del module
        inputs = {
            tensor: [BATCH, *(network.free_inputs.get(tensor, {}).get(i + 1, size) for i, size in enumerate(rest))]
            for tensor, rest in ((n, v.shape[1:]) for n, v in zip(network.inputs, example, strict=True))
        }
        for tensor, bounds in profile(inputs, max_batch_size(order.repository / name), vertices).items():
            lines.append(f"profile {tensor}: min {bounds.smallest}, opt {bounds.usual}, max {bounds.largest}")
    return lines


def _sidecar(
    network: Network,
    weights: Path,
    key: dict[str, Any],
    plain: onnx.ModelProto,
    variant: Variant,
    workshop: Workshop,
    apart: parts.Difference | None,
) -> dict[str, Any]:
    marks = {entry.key: entry.value for entry in variant.graph.metadata_props}
    face_model = None
    if network.needs_face_model:
        model = workshop.face_model
        face_model = {
            "name": model.name,
            "fingerprint": model.fingerprint,
            "vertices": len(model.mean),
            "licence": model.licence,
        }
    return {
        "key": key,
        "network": network.name,
        "inputs": {value.name: shape_of(value) for value in variant.graph.graph.input},
        "precision": variant.precision,
        "integer_products": marks.get(INTEGER_PRODUCTS),
        "opset": OPSET,
        "weights": {"file": weights.name, "sha256": key["weights"]},
        "face_model": face_model,
        "note": _note(network, workshop),
        "calibration": variant.calibration,
        "gate": variant.verdict.as_dict(),
        "parts against the whole": apart and {"far apart": apart.far, "mean squared error": apart.squared},
        "gate_samples": f"{len(workshop.samples)} faces: two public-domain portraits and variations of them"
        + (
            ", which calibrated as well"
            if "two public-domain portraits" in (variant.calibration or {}).get("source", "")
            else ""
        ),
        "size": {"fp32": vars(Size.of(plain)), "written": vars(Size.of(variant.graph))},
        "tools": key["tools"],
    }


def _note(network: Network, workshop: Workshop) -> str | None:
    if network.name == "texture" and not belongs_to_built_in(workshop.face_model):
        return (
            "without the texture network, which belongs to the built-in UV layout: sampling, mirrored and diffused fill"
        )
    return None


__all__ = ["Order", "Workshop", "build", "built_in_portraits", "read_sidecar", "write_topology"]
