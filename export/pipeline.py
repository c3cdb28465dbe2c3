"""Turn weights into a version folder: trace, clean, convert, gate, write. One model at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from export.context import ExportContext
from export.errors import ExportError
from export.graph import OPSET, Size, shape_of
from export.models import get_model
from export.models.base import ExportedModel
from export.models.texture_split import SplitError, SplitGraph, split_error
from export.models.texture_split import write as write_split
from export.precision.saturation import saturating
from export.session import Feed, stack
from export.stages import gate
from export.stages.convert import Variant, best_variant
from export.stages.describe import described
from export.stages.write import (
    MODEL_FILE,
    OWN_VERSION,
    free_to_write,
    graph_sources_digest,
    sha256,
    staged,
    tool_versions,
    up_to_date,
    write_sidecar,
    write_warmup,
)
from server.backends.onnxruntime.integer_products import ANY_X86, INTEGER_PRODUCTS, products_are_exact


def build(name: str, context: ExportContext) -> Path:
    """Make one model's version and return its folder; an up-to-date version is left alone.

    Raises:
        ExportError: a file is missing or wrong, the version exists, or the gate refused the variant.
    """
    model, options = get_model(name), context.options
    folder, key = destination(model, context), key_of(model, context)
    if up_to_date(folder, MODEL_FILE, key):
        context.say(f"{name}: version {folder.name} is already there")
        return folder
    _check_processor(context)
    free_to_write(folder, MODEL_FILE, own=(options.version, options.weights, options.face_model) == (None, None, None))
    if options.dry_run:
        for line in described(model, folder, key, context):
            context.say(f"{name}: {line}")
        return folder
    float32_graph = context.float32_graph(name, options.weights)
    feeds = context.feeds(name, context.samples)
    variant = best_variant(model, float32_graph, feeds, context)
    write(model, folder, key, float32_graph, variant, feeds, context)
    return folder


def _check_processor(context: ExportContext) -> None:
    """Raise ExportError when this processor cannot judge the requested graph."""
    if context.options.target == "cpu" and context.options.integer_products != ANY_X86 and not products_are_exact():
        raise ExportError(
            "This processor has no VNNI, so that nothing made for processors with it can be judged here: leave out "
            "--integer-products, or export on one that has it."
        )


def destination(model: ExportedModel, context: ExportContext) -> Path:
    """Return the version folder to write: of the repository, or for TensorRT of the folder of its ONNX files."""
    options = context.options
    root = options.repository if options.target == "cpu" else options.onnx_dir
    return root / model.name / str(options.version or OWN_VERSION)


def key_of(model: ExportedModel, context: ExportContext) -> dict[str, Any]:
    """Return the digests and options that a version depends on; equal keys give equal versions.

    Raises:
        ExportError: the weights are missing.
    """
    options = context.options
    weights = options.weights or model.weights
    if not weights.exists():
        raise ExportError(f"The weights {weights} are not there: name them with --weights, or run `make setup`.")
    return {
        "weights": sha256(weights),
        "beside": [sha256(path) for path in model.companion_files],
        "face_model": context.face_model.fingerprint if model.needs_face_model else None,
        "code": graph_sources_digest(),
        "target": options.target,
        "precision": options.precision,
        "integer_products": options.integer_products,
        "recipe": options.recipe,
        "tools": tool_versions(),
    }


def write(
    model: ExportedModel,
    folder: Path,
    key: dict[str, Any],
    float32_graph: onnx.ModelProto,
    variant: Variant,
    feeds: list[Feed],
    context: ExportContext,
) -> None:
    """Write the version folder, and the inputs that the model is warmed up with."""
    parts = model.split(variant.graph) if context.options.target == "cpu" else None
    error = split_error(variant.graph, parts, stack(feeds[: gate.BATCH])) if parts else None
    if context.options.target == "cpu":
        judged_for = context.options.integer_products if saturating(variant.graph) else ANY_X86
        onnx.helper.set_model_props(variant.graph, {INTEGER_PRODUCTS: judged_for})
    with staged(folder) as staging:
        onnx.save(variant.graph, staging / MODEL_FILE)
        if parts and error:
            _write_split(model, staging, parts, error, context)
        write_sidecar(staging, _sidecar(model, key, float32_graph, variant, context, error))
    if (context.options.repository / model.name).is_dir():
        write_warmup(context.options.repository / model.name, feeds[0], model.dynamic_axes)
    size = Size.of(variant.graph).bytes / 1e6
    context.say(f"{model.name}: wrote version {folder.name}, {variant.precision}, {size:.1f} MB")


def _write_split(
    model: ExportedModel, staging: Path, parts: SplitGraph, error: SplitError, context: ExportContext
) -> None:
    context.say(f"{model.name}: split: {error}")
    if error.acceptable:
        write_split(staging, staging / MODEL_FILE, parts)


def _sidecar(
    model: ExportedModel,
    key: dict[str, Any],
    float32_graph: onnx.ModelProto,
    variant: Variant,
    context: ExportContext,
    error: SplitError | None,
) -> dict[str, Any]:
    face_model = None
    if model.needs_face_model:
        face_model = {
            "name": context.face_model.name,
            "fingerprint": context.face_model.fingerprint,
            "vertices": len(context.face_model.mean),
            "licence": context.face_model.licence,
        }
    metadata = {entry.key: entry.value for entry in variant.graph.metadata_props}
    calibrated_here = "two public-domain portraits" in (variant.calibration or {}).get("source", "")
    return {
        "key": key,
        "network": model.name,
        "inputs": {value.name: shape_of(value) for value in variant.graph.graph.input},
        "precision": variant.precision,
        "integer_products": metadata.get(INTEGER_PRODUCTS),
        "opset": OPSET,
        "weights": {"file": (context.options.weights or model.weights).name, "sha256": key["weights"]},
        "face_model": face_model,
        "note": model.note(context.face_model) if model.needs_face_model else None,
        "calibration": variant.calibration,
        "gate": variant.verdict.as_dict(),
        "parts against the whole": error and {"far apart": error.outliers, "mean squared error": error.squared},
        "gate_samples": f"{len(context.samples)} faces: two public-domain portraits and variations of them"
        + (", which calibrated as well" if calibrated_here else ""),
        "size": {"fp32": vars(Size.of(float32_graph)), "written": vars(Size.of(variant.graph))},
        "tools": key["tools"],
    }
