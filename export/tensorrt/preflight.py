"""Refuse plans before Triton loads them: of another GPU or TensorRT, or damaged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.models import MODEL_NAMES
from export.tensorrt.gpu import Gpu


def check_plan(version: Path, gpu: Gpu, tensorrt: str) -> dict[str, Any]:
    """Check the plan of a version folder against the GPU and the TensorRT that will run it.

    Returns:
        The plan's sidecar.

    Raises:
        ExportError: there is no plan for this GPU, or its sidecar is missing or does not match; the message says which.
    """
    plan = version / gpu.plan
    where = f"{version.parent.name}/{version.name}/{gpu.plan}"
    if not plan.is_file():
        raise ExportError(f"There is no plan {where} for {gpu.name}: run `make plans` on this machine.")
    try:
        content: dict[str, Any] = json.loads(plan.with_name(plan.name + ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ExportError(f"The plan {where} has no readable sidecar: run `make plans` again.") from None
    for key, here, what in (
        ("tensorrt", tensorrt, "TensorRT"),
        ("compute_capability", gpu.capability, "compute capability"),
        ("gpu", gpu.name, "the GPU"),
    ):
        if content.get(key) != here:
            raise ExportError(
                f"The plan {where} was built for {what} {content.get(key)}, here it is {here}: run `make plans` here."
            )
    if content.get("plan_sha256") != hashlib.sha256(plan.read_bytes()).hexdigest():
        raise ExportError(f"The plan {where} is not the one its sidecar describes: copy or build it again.")
    return content


def check_repository(repository: Path, gpu: Gpu, tensorrt: str) -> None:
    """Check the newest version of every network, and that all were made for one face model.

    Raises:
        ExportError: a plan is missing or does not match.
    """
    fingerprints: dict[int, str] = {}
    for name in MODEL_NAMES:
        folder = repository / name
        versions = sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []
        if not versions:
            raise ExportError(f"The model '{name}' has no version in {repository}: run `make export` and `make plans`.")
        content = check_plan(folder / str(versions[-1]), gpu, tensorrt)
        if content.get("face_model"):
            fingerprints[int(content["face_model"]["fingerprint"])] = name
    if len(fingerprints) > 1:
        raise ExportError(
            f"The plans of {' and '.join(fingerprints.values())} were made for different face models: export both with "
            "the same --face-model."
        )
