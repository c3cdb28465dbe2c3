"""`python -m export`: turn weights into a gated, versioned model of the Triton repository."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export.errors import exit_code
from export.models import MODEL_NAMES, get_model
from export.options import ONNX_DIR, REPOSITORY, ExportOptions

DESCRIPTION = """\
Turn weights into a version of the Triton model repository: trace, clean, convert, gate, write.

Nothing enters the repository that has not passed its gate against float32. Without --version the checkout's own
version 1 is made, and made anew when what it is made of has changed; a version asked for by number is never
overwritten. Exit code 2: something is wrong, one sentence says what, and nothing was written.
"""
EXAMPLES = """\
examples:
  python -m export all                                  what `make export` does
  python -m export all --target cpu --precision int8    INT8 wherever its gate lets it pass
  python -m export regressor --weights net.pth --face-model bfm.npz --version 2
  python -m export all --target tensorrt --precision fp16 --dry-run
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python -m export",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("network", choices=[*MODEL_NAMES, "all"], help="what to export")
    result.add_argument(
        "--target", choices=["cpu", "tensorrt"], default="cpu", help="where it will run (default: cpu, ONNX Runtime)"
    )
    result.add_argument(
        "--precision",
        choices=["fp32", "fp16", "int8"],
        help="default: for a CPU the fastest that passes its gate, for TensorRT fp16",
    )
    result.add_argument("--version", type=_version, metavar="N", help="number of the version folder (default: 1)")
    result.add_argument(
        "--weights", type=Path, metavar="PATH", help="weights of the one network (default: those in weights/)"
    )
    result.add_argument(
        "--face-model", type=Path, metavar="PATH", help="face model, .npz (default: weights/face_model.npz)"
    )
    result.add_argument(
        "--onnx-dir", type=Path, metavar="DIR", help="for TensorRT: where the ONNX files go (default: build/tensorrt)"
    )
    result.add_argument("--repository", type=Path, metavar="DIR", help="default: model_repository/ of this checkout")
    result.add_argument(
        "--pictures", type=Path, metavar="DIR", help="photographs to calibrate INT8 with (default: committed ranges)"
    )
    result.add_argument(
        "--recipe",
        choices=["imagenet", "bgr-mean", "arcface", "arcface-128", "arcface-bgr", "arcface-0-255"],
        help="how a network wants its pixels: imagenet or bgr-mean for a RetinaFace checkpoint (default: by its "
        "published file name), arcface... for an embedder in ArcFace's format (docs/guides/recognise.md)",
    )
    result.add_argument(
        "--integer-products",
        choices=["any-x86", "vnni"],
        default="any-x86",
        help="processors on which INT8 for a CPU has to be right; vnni: weights in all 8 bits, and a server without it "
        "refuses the version (default: any-x86)",
    )
    result.add_argument("--dry-run", action="store_true", help="say what would be made, and stop")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 2 with one sentence on stderr that says what is wrong."""
    options = parser().parse_args(arguments)
    if options.network == "all" and options.weights is not None:
        print("--weights belongs to one network: name it instead of 'all'.", file=sys.stderr)
        return 2
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    # Imported here, because PyTorch takes seconds that `--help` must not.
    from export.context import ExportContext
    from export.pipeline import build
    from export.stages.topology import write_face_model_files

    everything = options.network == "all"
    export_options = ExportOptions(
        target=options.target,
        precision=options.precision,
        version=options.version,
        weights=options.weights,
        face_model=options.face_model,
        repository=options.repository or REPOSITORY,
        onnx_dir=options.onnx_dir or ONNX_DIR,
        pictures=options.pictures,
        recipe=options.recipe,
        integer_products=options.integer_products,
        dry_run=options.dry_run,
        strict=not everything,
    )
    context = ExportContext.printing(export_options)
    names = MODEL_NAMES if everything else (options.network,)
    for name in names:
        build(name, context)
    if export_options.target == "cpu" and any(get_model(name).needs_face_model for name in names):
        write_face_model_files(context)


def _version(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a version is a whole number of at least 1, not '{text}'")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
