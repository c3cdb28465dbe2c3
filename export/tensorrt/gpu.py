"""The GPUs of this machine, and the TensorRT of the serving image."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError

SERVING = Path(__file__).resolve().parents[2] / "deploy" / "serving.env"


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: name and compute capability, for instance ("NVIDIA L4", "8.9")."""

    name: str
    capability: str

    @property
    def plan(self) -> str:
        """Return the file name of a plan for this kind, as in `cc_model_filenames` of the configurations."""
        return plan_name(self.capability)


def plan_name(capability: str) -> str:
    """Return the file name of a plan: '8.9' -> 'model.cc89.plan'."""
    return f"model.cc{capability.replace('.', '')}.plan"


def gpus() -> list[Gpu]:
    """List the kinds of GPU of this machine by `nvidia-smi`; empty without a GPU."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    kinds = {tuple(part.strip() for part in line.rsplit(",", 1)) for line in result.stdout.splitlines() if "," in line}
    return sorted((Gpu(name, capability) for name, capability in kinds), key=lambda gpu: gpu.capability)


def serving() -> dict[str, str]:
    """Read TRITON_TAG and TENSORRT_VERSION of the serving image from deploy/serving.env.

    Raises:
        ExportError: the file is missing.
    """
    try:
        lines = SERVING.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise ExportError(f"{SERVING} is missing: it says which image serves.") from None
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
