"""`python -m export.official.face_models`: make a face-model file of BFM or FLAME."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export.errors import ExportError
from export.official import bfm, flame
from networks.face_model import FaceModelError


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the face-model file; return 0, or 2 with one sentence on stderr that says what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m export.official.face_models",
        description="Make a face-model file (.npz) from files that you fetched under their own licence.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    basel = kinds.add_parser("bfm", help="Basel Face Model 2009")
    basel.add_argument("path", type=Path, help="BFM_model_front.mat, or the folder with it or with the original files")
    basel.add_argument("--uv", type=Path, metavar="NPY", help="bfm_uvs2.npy (default: unrolled on a cylinder)")
    head = kinds.add_parser("flame", help="FLAME")
    head.add_argument("path", type=Path, help="generic_model.pkl, or an npz of its arrays")
    head.add_argument("--landmarks", type=Path, required=True, metavar="NPY", help="landmark_embedding.npy")
    for kind in (basel, head):
        kind.add_argument("-o", "--output", type=Path, required=True, metavar="NPZ")
    options = parser.parse_args(arguments)
    try:
        if options.output.exists():
            raise ExportError(f"{options.output} exists: choose another name, a face model is never overwritten.")
        if options.kind == "bfm":
            model = bfm.load(options.path, options.uv)
        else:
            model = flame.load(options.path, options.landmarks)
        temporary = options.output.with_name(f".{options.output.stem}.npz")
        model.save(temporary)
        temporary.rename(options.output)
    except (ExportError, FaceModelError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.output}: {len(model.mean)} vertices, {len(model.triangles)} triangles, {model.fingerprint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
