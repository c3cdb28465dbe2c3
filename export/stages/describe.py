"""The lines that a dry run prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.context import ExportContext
from export.graph import BATCH, OPSET
from export.models.base import ExportedModel
from export.stages.convert import scheme_of
from export.stages.write import MODEL_FILE
from export.tensorrt.gpu import plan_name, serving
from export.tensorrt.profile import max_batch_size, profile


def described(model: ExportedModel, folder: Path, key: dict[str, Any], context: ExportContext) -> list[str]:
    """Describe the version that would be written, one property a line."""
    options = context.options
    steps = [
        f"int8 ({scheme_of(options).value})" if step == "int8" else step
        for step in model.precisions(options.target, options.precision, options.strict)
    ]
    lines = [
        f"would write {folder / MODEL_FILE}",
        f"weights {options.weights or model.weights}, sha256 {key['weights'][:16]}",
        f"{' or, if its gate refuses that, '.join(steps)}; opset {OPSET}; batch free",
    ]
    if model.needs_face_model:
        face_model = context.face_model
        lines.append(
            f"face model '{face_model.name}', {len(face_model.mean)} vertices, fingerprint {face_model.fingerprint}"
        )
    if options.target == "tensorrt":
        lines += _plan(model, folder, context)
    return lines


def _plan(model: ExportedModel, folder: Path, context: ExportContext) -> list[str]:
    """Describe the TensorRT plan that would be built, and the bounds of its inputs."""
    options, image = context.options, serving()
    face_model = context.face_model if model.needs_face_model else None
    _, example = model.load(options.weights, face_model, options.recipe, fixed=True)
    inputs = {
        tensor: [BATCH, *(model.dynamic_axes.get(tensor, {}).get(i + 1, size) for i, size in enumerate(rest))]
        for tensor, rest in ((n, v.shape[1:]) for n, v in zip(model.inputs, example, strict=True))
    }
    vertices = len(face_model.mean) if face_model else 1
    bounds = profile(inputs, max_batch_size(options.repository / model.name), vertices)
    plan = (
        f"plan {options.repository / model.name / folder.name / plan_name('X.Y')} for compute capability X.Y, strongly "
        f"typed, built in tritonserver:{image['TRITON_TAG']} by TensorRT {image['TENSORRT_VERSION']}"
    )
    return [
        plan,
        *(
            f"profile {tensor}: min {bound.smallest}, opt {bound.usual}, max {bound.largest}"
            for tensor, bound in bounds.items()
        ),
    ]
