"""Build a plan with Polygraphy's Python API: one profile, a timing cache, strongly typed.

Valid for TensorRT 10.12 and later, including 11, which has neither weak typing nor implicit INT8.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.tensorrt.gpu import Gpu
from export.tensorrt.profile import Shapes

MIN_TENSORRT = (10, 12)
"""First TensorRT with these calls."""


@dataclass(frozen=True)
class Plan:
    """A serialised plan, and the TensorRT and GPU it was built with."""

    data: bytes
    tensorrt: str
    gpu: Gpu


def tensorrt_version() -> str:
    """Return the version of the installed TensorRT.

    Raises:
        ExportError: TensorRT is missing or too old.
    """
    try:
        tensorrt = importlib.import_module("tensorrt")
    except ImportError:
        raise ExportError(
            "There is no TensorRT here: plans are built in the serving image, on the GPU that runs them (`make plans`)."
        ) from None
    version = str(tensorrt.__version__)
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_TENSORRT:
        raise ExportError(f"TensorRT {version} is too old: 10.12 or later is needed for strongly typed networks.")
    return version


def timing_cache(folder: Path, gpu: Gpu, version: str) -> Path:
    """Return the path of the timing cache for a GPU and TensorRT, which refuses the timings of others."""
    return folder / f"timing.{gpu.name.replace(' ', '_')}.cc{gpu.capability}.trt{version}.cache"


def build_plan(onnx_file: Path, shapes: Mapping[str, Shapes], gpu: Gpu, cache_folder: Path) -> Plan:
    """Build the plan of one ONNX file for the GPU of this machine.

    Args:
        onnx_file: its types decide the precision.
        shapes: the profile, input -> shapes.
        gpu: of `gpus()`.
        cache_folder: folder of timing caches.

    Raises:
        ExportError: TensorRT is missing or refuses the graph; the message contains its own.
    """
    version = tensorrt_version()
    from polygraphy.backend.trt import CreateConfig, EngineBytesFromNetwork, NetworkFromOnnxPath, Profile
    from polygraphy.exception import PolygraphyException

    profile = Profile()
    for name, bounds in shapes.items():
        profile.add(name, min=bounds.smallest, opt=bounds.usual, max=bounds.largest)
    cache_folder.mkdir(parents=True, exist_ok=True)
    cache = str(timing_cache(cache_folder, gpu, version))
    network = NetworkFromOnnxPath(str(onnx_file), strongly_typed=True)
    config = CreateConfig(profiles=[profile], load_timing_cache=cache)
    try:
        data: Any = EngineBytesFromNetwork(network, config, save_timing_cache=cache)()
    except PolygraphyException as error:
        raise ExportError(f"TensorRT {version} cannot build {onnx_file}: {error}") from error
    return Plan(bytes(data), version, gpu)


def sidecar(plan: Plan, onnx_file: Path, shapes: Mapping[str, Shapes], source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a plan's sidecar, by which `preflight` refuses plans of other machines."""
    return {
        "tensorrt": plan.tensorrt,
        "gpu": plan.gpu.name,
        "compute_capability": plan.gpu.capability,
        "onnx_sha256": hashlib.sha256(onnx_file.read_bytes()).hexdigest(),
        "plan_sha256": hashlib.sha256(plan.data).hexdigest(),
        "profile": {name: vars(bounds) for name, bounds in shapes.items()},
        "precision": source.get("precision"),
        "weights": source.get("weights"),
        "face_model": source.get("face_model"),
    }
