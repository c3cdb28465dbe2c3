"""Which GPU and which TensorRT this machine has."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError

SERVING = Path(__file__).resolve().parents[2] / "deploy" / "serving.env"


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU: its name and its compute capability, for instance ("NVIDIA L4", "8.9")."""

    name: str
    capability: str

    @property
    def plan(self) -> str:
        """File name of a plan for this kind, as the configurations list it under `cc_model_filenames`."""
        return plan_name(self.capability)


def plan_name(capability: str) -> str:
    """'8.9' -> 'model.cc89.plan'."""
    return f"model.cc{capability.replace('.', '')}.plan"


def gpus() -> list[Gpu]:
    """The kinds of GPU of this machine, by `nvidia-smi`; empty where there is none."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    kinds = {tuple(part.strip() for part in line.rsplit(",", 1)) for line in result.stdout.splitlines() if "," in line}
    return sorted((Gpu(name, capability) for name, capability in kinds), key=lambda gpu: gpu.capability)


def serving() -> dict[str, str]:
    """TRITON_TAG and TENSORRT_VERSION of the serving image, from deploy/serving.env."""
    try:
        lines = SERVING.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise ExportError(f"{SERVING} is missing: it says which image serves.") from None
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
