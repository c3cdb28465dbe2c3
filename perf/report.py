"""`python -m perf.report`: docs/performance.md and the table of the README, from what the other commands measured.

Measures nothing. A part without a measurement is reported as missing.
"""

from __future__ import annotations

import operator
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from perf import analyzer, store
from perf.compare.__main__ import markdown
from perf.compare.names import with_current_names
from perf.cores.__main__ import markdown as cores_table
from perf.cores.__main__ import outcomes
from perf.cores.measured import Measured
from server.repository import ROOT

PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "performance"
STEPS = Path(__file__).with_name("steps.md")
README = ROOT / "README.md"
_TABLE = re.compile(r"\| measured by `python -m perf\.measure` \| \|\n.*?\n\n", re.DOTALL)

SAME_FILES = ("litserve_onnx", "litserve_onnx_parallel", "bentoml_onnx")
"""Other services with the same ONNX files."""

Row = tuple[str, str, str, str]  # quantity, target, measured, command


def _get(values: dict[str, Any] | None, *path: str) -> Any:
    for key in path:
        values = None if values is None else values.get(key)
    return values


def _comparison(name: str = "compare") -> dict[str, Any] | None:
    values = store.read(name)
    return None if values is None else with_current_names(values)


def _row(
    quantity: str, target: str, value: Any, met: Callable[[float], bool], command: str, form: str = "{:.2f}"
) -> Row:
    if value is None:
        return quantity, target, "not measured", command
    return quantity, target, f"{form.format(value)}, {'met' if met(value) else '**missed**'}", command


def _embed_targets() -> list[Row]:
    compare, command = _comparison("compare-embed"), "`python -m perf.compare --product embed`"
    by_16 = _get(compare, "ratios", "16")
    rows = [
        _row(
            f"embed over {name}, throughput, 16 clients", f">= {least:.1f}", _get(by_16, f"service/{name} rate"),
            partial(operator.le, least), command,
        )
        for name, least in (("fastapi_same", 2.0), *((other, 1.0) for other in SAME_FILES))
    ]  # fmt: skip
    rate = _get(compare, "table", "service", "16", "rate")
    return [*rows, _row("embed, faces a second, 16 clients", ">= 15", rate, lambda v: v >= 15, command, "{:.1f}")]


def targets() -> list[Row]:
    """Compare the measurements with the targets for two cores."""
    compare, flat = _comparison(), store.read("flat")
    rows: list[Row] = []

    def row(*arguments: Any) -> None:
        rows.append(_row(*arguments))

    by_16 = _get(compare, "ratios", "16")
    make = "`make compare`"
    eager = 12 if _get(compare, "machine", "vnni") else 10
    for name, least in (("eager_loop", eager), ("fastapi", 6)):
        rate = _get(by_16, f"service/{name} rate")
        row(f"service over {name}, throughput, 16 clients", f">= {least}", rate, partial(operator.le, least), make)
    for name in ("bare_onnx", *SAME_FILES):
        rate, p99 = _get(by_16, f"service/{name} rate"), _get(by_16, f"service/{name} p99")
        row(f"service over {name}, throughput, 16 clients", ">= 1.0", rate, lambda v: v >= 1.0, make)
        row(f"service over {name}, p99, 16 clients", "<= 1.1", p99, lambda v: v <= 1.1, make)
    alone = _get(compare, "ratios", "1", "service/bare_onnx rate")
    row("service over bare_onnx, one client", ">= 0.95", alone, lambda v: v >= 0.95, make)
    rows += _embed_targets()
    batching = _get(store.read("batching"), "on_over_off")
    part = "`python -m perf.breakdown {}`".format
    row("batching on over off, ensemble", ">= 1", _get(batching, "face3d"), lambda v: v >= 1, part("batching"))
    row("batching on over off, regressor", ">= 1.3", _get(batching, "regressor"), lambda v: v >= 1.3, part("batching"))
    steady_load = part("flat")
    span = f"{flat['seconds']:.0f} s" if flat else "five minutes"
    row(f"16 clients, {span}: errors", "0", _get(flat, "errors"), lambda v: v == 0, steady_load, "{:.0f}")
    row(f"16 clients, {span}: p99 over p50", "<= 2", _get(flat, "p99_over_p50"), lambda v: v <= 2, steady_load)
    growth = _get(flat, "growth")
    row("memory's growth after warm-up", "<= 3 %", growth, lambda v: v <= 0.03, steady_load, "{:.1%}")
    row("ready after", "<= 8 s", _get(flat, "ready_s"), lambda v: v <= 8, steady_load, "{:.1f} s")
    row("memory at 16 clients", "<= 900 MB", _get(flat, "peak_mb"), lambda v: v <= 900, steady_load, "{:.0f} MB")
    ratio = _get(store.read("sizes"), "ratio_24_to_1")
    row("24 MP over 1 MP, end to end", "<= 4", ratio, lambda v: v <= 4, part("sizes"))
    return rows


def _facts() -> dict[str, Any] | None:
    return next((v["machine"] for name in ("compare", "flat", "measure") if (v := store.read(name))), None)


def _processor(facts: dict[str, Any]) -> str:
    """Name a processor, and whether it multiplies bytes exactly."""
    return f"{facts['processor']} {'with' if facts['vnni'] else 'without'} VNNI"


def _machine() -> str:
    facts = _facts()
    if facts is None:
        return "Nothing has been measured."
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"{_processor(facts)}, {facts['cores']} cores, {facts['memory_gb']:g} GB, Linux {facts['kernel']}, Python "
        f"{facts['python']}, Triton {facts['triton']}; {versions}. Measured on {facts['date']} at commit "
        f"`{facts['commit']}`. A virtual machine: ratios within one run mean more than milliseconds."
    )


def _picture(name: str, text: str) -> str:
    source = store.FOLDER / f"{name}.png"
    if not source.is_file():
        return ""
    PLOTS.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, PLOTS / f"{name}.png")
    return f"![{text}](performance/{name}.png)\n"


def _compare(name: str, command: str, answer: str) -> str:
    """Return tables of a comparison; ``answer``: what its requests ask for."""
    values = _comparison(name)
    if values is None:
        return f"Not measured: `{command}`.\n"
    shares = [
        f"| {ratio} | " + " | ".join(f"{by[ratio]:.2f}" for by in values["ratios"].values()) + " |"
        for ratio in next(iter(values["ratios"].values()))
    ]
    clients = list(values["ratios"])
    head = (
        "| ratio | " + " | ".join(f"{count} clients" for count in clients) + " |\n" + "|---" * (len(clients) + 1) + "|"
    )
    return (
        f"{_measured_elsewhere(values)}{values['rounds']} rounds of {values['seconds']:g} s each, all variants taking "
        f"turns; pictures: {', '.join(values['pictures'])}. Asked for: {answer}.\n\n"
        f"{markdown(values['table'])}\n\n{head}\n" + "\n".join(shares) + f"\n{_by_size(values)}\n"
        f"{_picture(f'{name}-rate', 'throughput')}{_picture(f'{name}-p99', 'p99')}"
    )


def _by_size(values: dict[str, Any]) -> str:
    sizes = []
    for picture in values["pictures"]:
        times = {name: _get(by, "1", "p50_ms_by_picture", picture) for name, by in values["table"].items()}
        if times.get("eager_loop") and times.get("service"):
            eager, service = times["eager_loop"], times["service"]
            sizes.append(f"| {picture} | {eager:.0f} | {service:.0f} | {eager / service:.2f} |\n")
    head = "\nOne client, by picture (p50):\n\n| picture | eager_loop ms | service ms | ratio |\n|---|---|---|---|\n"
    return head + "".join(sizes) if sizes else ""


def _measured_elsewhere(values: dict[str, Any]) -> str:
    """Name the commit of a measurement that is not the one at the head of the page."""
    facts, commit = _facts(), values["machine"]["commit"]
    return "" if facts is None or facts["commit"] == commit else f"Measured at commit `{commit}`. "


def _stages() -> str:
    values = store.read("stages")
    if values is None:
        return "Not measured: `python -m perf.breakdown stages`.\n"
    columns = {**values["statistics_ms"], "1 client, trace": values["trace_ms"]}
    parts = list(dict.fromkeys(part for column in columns.values() for part in column))
    lines = ["| ms a picture | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for part in parts:
        cells = (f"{column[part]:.1f}" if part in column else "" for column in columns.values())
        lines.append(f"| {part} | " + " | ".join(cells) + " |")
    batches = values["mean_batch"].get("16 clients", {})
    mean = ", ".join(f"{model} {size:.1f}" for model, size in batches.items())
    return "\n".join(lines) + f"\n\nMean batch at 16 clients: {mean}.\n\n{_picture('stages', 'time by stage')}"


def _points(name: str, x: str, slope: str, unit: str) -> str:
    values = store.read(name)
    if values is None:
        return f"Not measured: `python -m perf.breakdown {name}`.\n"
    cells = " | ".join(f"{point:g}" for point, _ in values["points"])
    times = " | ".join(f"{ms:.0f}" for _, ms in values["points"])
    table = f"| {x} | {cells} |\n{'|---' * (len(values['points']) + 1)}|\n| ms | {times} |\n"
    return f"{table}\nSlope: {values[slope]:.1f} ms {unit}.\n\n{_picture(name, f'cost and {x}')}"


def _section(name: str, text: Callable[[dict[str, Any]], str]) -> str:
    """Return a part's text, with its commit where that is not the one at the head of the page."""
    values = store.read(name)
    if not values:
        return f"Not measured: `python -m perf.{'' if name in ('tune', 'cores') else 'breakdown '}{name}`.\n"
    elsewhere = _measured_elsewhere(values)
    return text(values) + (f"\n{elsewhere.strip()}\n" if elsewhere else "")


def _batching(values: dict[str, Any]) -> str:
    return "".join(
        f"{model}, 16 clients: {rate['on']:.1f} a second with dynamic batching, {rate['off']:.1f} without.\n"
        for model, rate in values["rates"].items()
    )


def _chained(values: dict[str, Any]) -> str:
    both = values["ms"]
    return (
        f"One picture, one client: ensemble {both['ensemble']:.0f} ms, seven chained calls {both['chained']:.0f} ms.\n"
    )


def _flat(values: dict[str, Any]) -> str:
    return (
        f"{values['requests']} requests of 16 clients in {values['seconds']:.0f} s: {values['errors']} errors, p50 "
        f"{values['p50_ms']:.0f} ms, p99 {values['p99_ms']:.0f} ms; memory from {values['memory_mb'][0][1]:.0f} to "
        f"{values['memory_mb'][-1][1]:.0f} MB, {values['growth']:.1%} after the first fifth.\n\n"
        f"{_picture('memory', 'memory over time')}"
    )


def _tune(values: dict[str, Any]) -> str:
    lines = ["| change | rate | spread of the best | one client's wait | memory MB | |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {one['change']} | {one['gain']:.2f} | {one['spread']:.0%} | {one['wait']:.2f} "
        f"| {one['memory_mb']['challenger']:.0f} | {'kept' if one['kept'] else ''} |"
        for one in values["candidates"]
    ]
    kept = "; ".join(values["kept"]) or "nothing: the configurations as committed are the best that was tried"
    return "\n".join(lines) + f"\n\nKept: {kept}.\n"


def _analyzer(values: dict[str, Any]) -> str:
    best = "; ".join(
        f"{model} {one['rate']:.1f} a second (p99 {one['p99']:.0f} ms)"
        if one["rate"]
        else f"{model} none that was tried"
        for model, one in values["highest"].items()
    )
    limit = next((one["limit"] for one in values["highest"].values()), 0)
    rates = f"Highest Poisson rate with a p99 below {limit:.0f} ms: {best}.\n" if best else ""
    failed = "".join(f"\nNot measured, {name}: {reason[-160:]}\n" for name, reason in values["failed"].items())
    return f"{analyzer.markdown(values['series'])}\n\n{rates}{failed}"


def _cores(values: dict[str, Any]) -> str:
    facts = values["machine"]
    table = cores_table(Measured(**values["measured"]), outcomes(values["simulated"]))
    return f"Measured on {_processor(facts)}, {facts['date']}. {table}"


def _gpu(values: dict[str, Any]) -> str:
    facts = values["machine"]
    about = (
        f"{facts['gpu']}, PyTorch {facts['torch']}, {facts['date']}: milliseconds of a batch, whole networks kernel "
        "by kernel, an upper bound for plans; the last two columns are a network's matrix products alone."
    )
    lines = [
        about,
        "",
        "| network | batch | float32 | TF32 | float16 | GPU memory MB | products float16 | products INT8 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, by_batch in values["networks"].items():
        for batch, one in by_batch.items():
            numbers = [one.get(key) for key in ("fp32", "tf32", "fp16", "memory_mb")]
            numbers += [one["products"][key] for key in ("fp16", "int8")]
            cells = ("" if number is None else f"{number:.3g}" for number in numbers)
            lines.append(f"| {name} | {batch} | {' | '.join(cells)} |")
    left = f"\nLeft out: {'; '.join(values['left_out'])}.\n" if values["left_out"] else ""
    return "\n".join(lines) + "\n" + left


def page() -> str:
    """Write the text of docs/performance.md."""
    rows = "\n".join(f"| {' | '.join(row)} |" for row in targets())
    return f"""# Performance

Written by `python -m perf.report` from what `make compare`, `make perf`, `make tune` and `python -m perf.breakdown`
have measured.

{_machine()}

## Targets

| quantity | target | measured | command |
|---|---|---|---|
{rows}

## Side by side

{_compare("compare", "make compare", "the mesh (GLB with its texture), coefficients, landmarks")}
The ONNX variants have the same files. They run the texture network's whole; the service's backend runs it in parts,
without what cannot be seen ([decision 26](decisions/26-texture-split.md)), which is most of the difference in processor
time.

### Recognition (`embed`)

{_compare("compare-embed", "python -m perf.compare --product embed", "embedding and quality")}
## Where the time goes

{_stages()}
## What it grows with

{_points("concurrency", "clients at once", "slope_ms_per_client", "a client")}
{_points("sizes", "megapixels", "slope_ms_per_megapixel", "a megapixel")}
{_points("faces", "faces in the picture", "slope_ms_per_face", "a face")}
## Many cores

{_section("cores", _cores)}
## On a GPU

{_gpu(values) if (values := store.read("gpu")) else "Not measured: `python -m perf.gpu.bundle`." + chr(10)}
## Batching, and the ensemble against chained calls

{_section("batching", _batching)}
{_section("chained", _chained)}
## Five minutes

{_section("flat", _flat)}
## perf_analyzer

{_section("analyzer", _analyzer) if store.read("analyzer") else "Not measured: `make perf`." + chr(10)}
## Search on this machine

{_section("tune", _tune) if store.read("tune") else "Not measured: `make tune`." + chr(10)}
{STEPS.read_text()}"""


def readme() -> None:
    """Write the last measurement of `perf.measure` into the README's table."""
    values = store.read("measure")
    if values is None:
        return
    rows = "".join(f"| {quantity} | {value} |\n" for quantity, value in values["rows"])
    table = f"| measured by `python -m perf.measure` | |\n|---|---|\n{rows}\n"
    README.write_text(_TABLE.sub(lambda _: table, README.read_text(), count=1))


if __name__ == "__main__":
    PAGE.write_text(page())
    readme()
    print(f"written: {PAGE.relative_to(ROOT)}, {README.relative_to(ROOT)}")
