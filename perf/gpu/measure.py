"""`python3 measure.py`: every network of its folder on this machine's GPU, in float32, TF32 and float16, batch 1 to 64.

Needs PyTorch and NumPy; the folder is written by `python -m perf.gpu.bundle`. Time is that of whole networks as PyTorch
runs them, kernel by kernel, measured by the GPU's own clock: plans of TensorRT should be faster, so it is an upper
bound of theirs. INT8 is measured for the matrix products of a network alone (`torch._int_mm`), beside the same
products in float16: what quantising could save at most, and nothing of what it costs. Ends by itself within
``--minutes``; what was left out then is said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
BATCHES = (1, 2, 4, 8, 16, 32, 64)
Timer = Callable[[Callable[[], object]], float]
"""Gives the milliseconds of a call."""
PRECISIONS = ("fp32", "tf32", "fp16")
INT8_ROWS, INT8_STEP = 32, 16
"""Rows of an integer product at least, and what its other sizes are multiples of, as cuBLAS wants them."""


class OutOfTimeError(Exception):
    """The minutes are over."""


def on_device(path: Path, device: torch.device, large: int) -> Any:
    """Load a traced network to a device, with random numbers for its large weights."""
    network: Any = torch.jit.load(str(path), map_location=device).eval()
    retarget(network, device)
    torch.manual_seed(0)
    for value in (*network.parameters(), *network.buffers()):
        if value.is_floating_point() and value.numel() >= large:
            value.data.normal_(0.0, 0.02)
    return network


def retarget(network: Any, device: torch.device) -> None:
    """Let tensors that a traced network makes on its way be made on a device: a trace keeps theirs as constants."""
    holder: Any = torch.jit.trace(lambda: torch.ones([]).to(device), example_inputs=[])
    (wanted,) = [node for node in holder.graph.findAllNodes("prim::Constant") if "Device" in repr(node)][-1:]
    for graph in _graphs(network):
        for node in graph.findAllNodes("prim::Constant"):
            if _device_of(node) is not None:
                node.copyAttributes(wanted)


def _device_of(node: Any) -> str | None:
    """Return the device that a constant of a graph is, as text; None for another kind of constant."""
    if "value" not in node.attributeNames() or node.kindOf("value") != "s" or "Device" not in repr(node):
        return None
    return str(node.s("value"))


def _graphs(network: Any) -> Iterator[Any]:
    """Yield the graphs of a traced network and of the modules in it that are called."""
    for module in network.modules():
        with contextlib.suppress(RuntimeError):  # one whose parameters alone are used has none
            yield module.graph


@contextlib.contextmanager
def precision_of(name: str, device: torch.device) -> Iterator[None]:
    """Compute in a precision while inside."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    if name == "fp16":
        with torch.autocast(device.type, torch.float16):
            yield
    else:
        yield


def milliseconds(run: Callable[[], object], device: torch.device, seconds: float, end: float) -> float:
    """Return the median milliseconds of a call over ``seconds``, by the GPU's clock where there is one.

    Raises:
        OutOfTimeError: it is later than ``end``, by `time.monotonic`.
    """
    if time.monotonic() > end:
        raise OutOfTimeError
    for _ in range(3):
        run()
    _wait(device)
    taken: list[float] = []
    until = time.monotonic() + seconds
    while not taken or (time.monotonic() < until and len(taken) < 200):
        taken.append(_once(run, device))
    return statistics.median(taken)


def _once(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - start)
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    run()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def whole(
    network: Any, inputs: Sequence[torch.Tensor], batch: int, device: torch.device, timer: Timer, failed: list[str]
) -> dict[str, float]:
    """Measure a network at one batch: precision -> milliseconds of a run, and GPU memory at most, MB.

    A precision that some operator of the network does not know is added to ``failed``.
    """
    rows = [tensor.expand(batch, *tensor.shape[1:]).contiguous().to(device) for tensor in inputs]
    found: dict[str, float] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    # A processor is asked for float32 alone: it is there to see that all of it runs.
    for precision in PRECISIONS if device.type == "cuda" else PRECISIONS[:1]:
        try:
            with precision_of(precision, device):
                found[precision] = timer(lambda: network(*rows))
        except RuntimeError as error:
            failed.append(f"{precision}: {_reason(error)}")
    if device.type == "cuda":
        found["memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def _reason(error: RuntimeError) -> str:
    """Return the last line of an error that says something: TorchScript puts its own words first."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)[
        :160
    ]


def products_alone(sizes: Sequence[Sequence[int]], batch: int, device: torch.device, timer: Timer) -> dict[str, float]:
    """Measure a network's matrix products one after the other: precision -> milliseconds."""
    pairs: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {"int8": [], "fp16": []}
    for rows, columns, inner in sizes:
        m, n, k = max(rows * batch, INT8_ROWS), _multiple(columns), _multiple(inner)
        left = torch.randint(-127, 127, (m, k), dtype=torch.int8, device=device)
        right = torch.randint(-127, 127, (n, k), dtype=torch.int8, device=device).t()
        pairs["int8"].append((left, right))
        pairs["fp16"].append((left.half() / 127, right.half() / 127))
    integer: Any = torch._int_mm
    return {
        "int8": timer(lambda: [integer(*pair) for pair in pairs["int8"]]),
        "fp16": timer(lambda: [torch.mm(*pair) for pair in pairs["fp16"]]),
    }


def _multiple(size: int) -> int:
    """Round up to what an integer product takes."""
    return -(-size // INT8_STEP) * INT8_STEP


def measure(folder: Path, device: torch.device, batches: Sequence[int], seconds: float, minutes: float) -> Any:
    """Measure all networks of the folder; batches in the outer loop, so that the smallest are all there."""
    end = time.monotonic() + 60 * minutes
    described = json.loads((folder / "shapes.json").read_text(encoding="utf-8"))
    names = list(described["networks"])
    networks = {name: on_device(folder / f"{name}.pt", device, described["large"]) for name in names}
    inputs = {name: torch.load(folder / f"{name}.inputs.pt", weights_only=True) for name in names}
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    left_out: list[str] = []

    def timer(run: Callable[[], object]) -> float:
        return milliseconds(run, device, seconds, end)

    with torch.inference_mode():
        for batch in batches:
            for name in names:
                failed: list[str] = []
                try:
                    one: dict[str, Any] = dict(whole(networks[name], inputs[name], batch, device, timer, failed))
                    one["products"] = products_alone(described["networks"][name]["products"], batch, device, timer)
                except OutOfTimeError:
                    failed.append("out of time")
                except RuntimeError as error:  # memory's end is one
                    failed.append(_reason(error))
                else:
                    found[name][str(batch)] = one
                    print(name, batch, json.dumps(one), flush=True)
                left_out += [f"{name} at {batch}, {what}" for what in failed]
    return {"networks": found, "left_out": left_out}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write JSON; 0: done, 2: there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE, metavar="DIR", help="of the networks (this file's)")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), metavar="FILE")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), metavar="N")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement (0.5)")
    parser.add_argument("--minutes", type=float, default=6.0, help="after which nothing new is begun (6)")
    parser.add_argument("--device", default="cuda", help="cpu to try the program without a GPU")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("error: PyTorch sees no GPU; --device cpu tries the program without one.", file=sys.stderr)
        return 2
    values = measure(options.folder, device, options.batches, options.seconds, options.minutes)
    values["machine"] = {
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    options.out.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
