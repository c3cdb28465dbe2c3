"""`python -m perf.gpu.bundle FILE.tar.gz`: what a machine with a GPU needs to measure every network, a few megabytes.

The networks are traced with the fixed sizes that TensorRT gets. Their weights stay here: a machine with a GPU makes
random ones of the same shapes, as time does not depend on their values (all zero they would draw less power and run
faster). The archive holds one TorchScript file a network, `shapes.json` and `measure.py`, which needs PyTorch and NumPy
only:

    tar xzf FILE.tar.gz && python3 face3d-gpu/measure.py --out gpu.json

`gpu.json` in build/perf is what `python -m perf.report` makes a table of.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.context import ExportContext
from export.models import MODEL_NAMES, get_model
from export.options import ExportOptions
from networks.errors import NetworkError

MEASURE = Path(__file__).with_name("measure.py")
LARGE = 4096
"""Numbers of a parameter or buffer from which on it is made anew there; smaller ones may steer the arithmetic."""


def products(module: nn.Module, inputs: Sequence[Tensor]) -> list[list[int]]:
    """List the matrix products of a network's convolutions and layers for one picture: rows, columns, inner length.

    Convolutions of one channel each (depth-wise) are none.
    """
    found: list[list[int]] = []

    def note(layer: nn.Module, _: tuple[Any, ...], output: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            found.append([output.numel() // layer.out_features, layer.out_features, layer.in_features])
        elif isinstance(layer, nn.Conv2d) and layer.groups == 1:
            inner = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
            found.append([output.numel() // layer.out_channels, layer.out_channels, inner])

    hooks = [layer.register_forward_hook(note) for layer in module.modules()]
    with torch.inference_mode():
        module(*inputs)
    for hook in hooks:
        hook.remove()
    return found


def bundle(folder: Path) -> None:
    """Write the content of the archive into a folder."""
    context = ExportContext.printing(ExportOptions())
    shapes: dict[str, Any] = {}
    for name in MODEL_NAMES:
        model = get_model(name)
        module, inputs = model.load(None, context.face_model if model.needs_face_model else None, fixed=True)
        rows = [tensor[:1] for tensor in inputs]
        shapes[name] = {"products": products(module, rows)}
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what becomes a constant: the networks are written to be traced
            # Without the second look at the trace, two fifths of the time: the same modules are traced and judged
            # value by value when they are exported.
            pair = tuple(tensor.expand(2, *tensor.shape[1:]) for tensor in rows)
            traced: Any = torch.jit.trace(module, pair, check_trace=False)
        for value in (*traced.parameters(), *traced.buffers()):
            if value.is_floating_point() and value.numel() >= LARGE:
                value.data.zero_()  # so that it takes no room in the archive
        traced.save(str(folder / f"{name}.pt"))
        torch.save(rows, folder / f"{name}.inputs.pt")
        context.say(f"{name}: {len(shapes[name]['products'])} products")
    (folder / "shapes.json").write_text(json.dumps({"large": LARGE, "networks": shapes}) + "\n", encoding="utf-8")
    shutil.copyfile(MEASURE, folder / MEASURE.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the archive; 0: done, 2: a weight is missing."""
    parser = argparse.ArgumentParser(prog="python -m perf.gpu.bundle", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("archive", type=Path, metavar="FILE.tar.gz")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "face3d-gpu"
        folder.mkdir()
        try:
            bundle(folder)
        except NetworkError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        options.archive.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(options.archive, "w:gz") as archive:
            archive.add(folder, folder.name)
    print(f"{options.archive}: {options.archive.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
