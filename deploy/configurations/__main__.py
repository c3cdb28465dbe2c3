"""`python -m deploy.configurations`: write the configurations and the copies of shared modules."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.configurations.ensembles import ENSEMBLES, ensemble_config
from deploy.configurations.networks import NETWORKS, cpu_config, tensorrt_config

SHARED = {
    "memory.py": ("align/1", "fusion/1"),
    "series.py": ("preprocess/1", "align/1", "merge/1", "steady/1", "postprocess/1", "fusion/1"),
    "arkit_names.py": ("steady/1", "postprocess/1"),
    "tensor_shapes.py": ("align/1", "postprocess/1"),
    "enhancing.py": ("postprocess/1", "fusion/1"),
    "enhance_call.py": ("postprocess/1", "fusion/1"),
}
"""Modules of `shared/` -> version folders that hold a copy."""
REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"


def configurations() -> dict[str, str]:
    """Return what is generated: path in the model repository -> text."""
    files = {f"{ensemble.name}/config.pbtxt": ensemble_config(ensemble) for ensemble in ENSEMBLES}
    for network in NETWORKS:
        files[f"{network.name}/config.pbtxt"] = cpu_config(network)
        files[f"{network.name}/configs/tensorrt.pbtxt"] = tensorrt_config(network)
    for module, folders in SHARED.items():
        text = (Path(__file__).parent / "shared" / module).read_text(encoding="utf-8")
        files |= {f"{folder}/{module}": text for folder in folders}
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0: written or as described, 1: ``--check`` found a difference."""
    parser = argparse.ArgumentParser(prog="python -m deploy.configurations", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 when a file differs")
    parser.add_argument("--repository", type=Path, default=REPOSITORY, metavar="DIR")
    options = parser.parse_args(arguments)
    differing = []
    for name, text in configurations().items():
        path = options.repository / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        differing.append(name)
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for name in differing:
        print(f"{name} differs from its description: run `make configs`." if options.check else f"wrote {name}")
    return 1 if options.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
