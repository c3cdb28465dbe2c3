"""`python -m export.tensorrt`: build plans of the exported ONNX files on this GPU, or check existing ones."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.models import MODEL_NAMES
from export.tensorrt import builder, preflight
from export.tensorrt.gpu import Gpu, gpus, serving
from export.tensorrt.profile import Shapes, max_batch_size, profile
from export.tensorrt.verify import compare

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = """\
Build TensorRT plans from the ONNX files that `python -m export all --target tensorrt` wrote.
Run it inside the serving image, on the GPU that will serve (`make plans`). With --check nothing is built: the plans
that are there are held against this machine's GPU and TensorRT.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build or check the plans; return 0, or 2 with one sentence on stderr that says what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m export.tensorrt", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", choices=[*MODEL_NAMES, []], help="default: all three")
    parser.add_argument("--onnx-dir", type=Path, default=ROOT / "build" / "tensorrt", metavar="DIR")
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository", metavar="DIR")
    parser.add_argument("--check", action="store_true", help="only check the plans that are there")
    options = parser.parse_args(arguments)
    try:
        kinds = gpus()
        if not kinds:
            raise ExportError("No NVIDIA GPU is visible here (nvidia-smi): plans are built on the GPU that runs them.")
        for gpu in kinds:
            if options.check:
                preflight.check_repository(options.repository, gpu, serving()["TENSORRT_VERSION"])
                print(f"The plans fit {gpu.name} and TensorRT {serving()['TENSORRT_VERSION']}.")
                continue
            for name in options.networks or MODEL_NAMES:
                for folder in onnx_versions(options.onnx_dir, name):
                    print(make_plan(folder, options.repository, gpu))
    except ExportError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def onnx_versions(onnx_dir: Path, name: str) -> list[Path]:
    """List the folders with the ONNX files of one network, by version.

    Raises:
        ExportError: there is none.
    """
    folder = onnx_dir / name
    versions = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []
    if not versions:
        raise ExportError(
            f"There is no ONNX file for the {name} in {onnx_dir}: run `python -m export all --target tensorrt` first."
        )
    return [folder / str(version) for version in versions]


def read_source(folder: Path) -> dict[str, Any]:
    """Read the sidecar of an exported ONNX file.

    Raises:
        ExportError: it is missing or unreadable.
    """
    try:
        content: dict[str, Any] = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ExportError(f"{folder} has no readable export.json: export it again.") from None
    return content


def shapes_for(folder: Path, repository: Path) -> dict[str, Shapes]:
    """Return the profile of an exported ONNX file."""
    source = read_source(folder)
    vertices = int((source.get("face_model") or {}).get("vertices", 1))
    return profile(source["inputs"], max_batch_size(repository / folder.parent.name), vertices)


def make_plan(folder: Path, repository: Path, gpu: Gpu) -> str:
    """Build a plan into its version folder; return a line for the log.

    The model.onnx of the same version must come from the same weights. The plan is written under a temporary name and
    renamed after its sidecar, so that no plan is without one.

    Raises:
        ExportError: the version was made of other weights, or the plan cannot be built or differs from ONNX Runtime.
    """
    name, version = folder.parent.name, folder.name
    source = read_source(folder)
    target = repository / name / version
    plan_file = target / gpu.plan
    if plan_file.exists():
        return f"{name}: version {version} already has {gpu.plan}"
    sidecar = target / "export.json"
    if sidecar.is_file():
        weights = json.loads(sidecar.read_text(encoding="utf-8")).get("weights")
        if weights != source.get("weights"):
            raise ExportError(
                f"Version {version} of the model '{name}' was made of other weights than {folder}: export both with "
                "the same --weights and --version."
            )
    onnx_file = folder / "model.onnx"
    shapes = shapes_for(folder, repository)
    plan = builder.build_plan(onnx_file, shapes, gpu, folder.parent.parent)
    differences = compare(onnx_file, plan.data, repository / name / "warmup", source["inputs"])
    content = {**builder.sidecar(plan, onnx_file, shapes, source), "against_onnxruntime": differences}
    target.mkdir(parents=True, exist_ok=True)
    plan_file.with_name(plan_file.name + ".json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    temporary = target / f".{gpu.plan}"
    temporary.write_bytes(plan.data)
    temporary.rename(plan_file)
    return f"{name}: wrote {plan_file} ({len(plan.data) / 1e6:.1f} MB, {source.get('precision')})"


if __name__ == "__main__":
    sys.exit(main())
