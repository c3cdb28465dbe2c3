"""Options of an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from server.backends.onnxruntime.integer_products import ANY_X86

Target = Literal["cpu", "tensorrt"]
Precision = Literal["fp32", "fp16", "int8"]

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = ROOT / "model_repository"
ONNX_DIR = ROOT / "build" / "tensorrt"
"""Folder of the ONNX files that TensorRT plans are built from."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of the command line of `python -m export`; None means the default."""

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
    """Processors on which integer products of INT8 must not saturate."""
    dry_run: bool = False
    strict: bool = True
    """Whether a precision that fails its gate is an error; otherwise the next higher one is taken."""
