"""`python -m deploy.simulate`: growth from 10 to 10,000 requests a second within an hour, as a table and a plot.

The service times are those of service_times.json, the autoscaler's numbers those of the manifest, except its largest
number of pods, which is lifted so that the load can be carried at all. docs/scaling.md is written by --write.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np

from deploy.simulate.autoscaler import Policy
from deploy.simulate.model import MEASURED, Outcome, Service, simulate
from deploy.simulate.queues import Floats

mpl.use("Agg")
import matplotlib.pyplot as plt

from server.arguments import whole_number

DOCS = Path(__file__).resolve().parents[2] / "docs"
HOUR, SECONDS, MOST, FIRST = 3600.0, 5400.0, 4000, 4


def load(t: Floats) -> Floats:
    """Return requests a second that grow a thousandfold in an hour, ten minutes at the top, then 1,000 and 100."""
    growing = 10.0 * 1000.0 ** (np.clip(t, 0, HOUR) / HOUR)
    later = np.where(t < HOUR + 600, 10_000.0, np.where(t < HOUR + 1200, 1000.0, 100.0))
    return np.where(t < HOUR, growing, later)


def step(t: Floats) -> Floats:
    """Return requests a second: 10, and 100 after ten minutes."""
    return np.where(t < 600, 10.0, 100.0)


def policies() -> dict[str, Policy]:
    """Return what is compared: the manifest, the target that looks natural, and another signal."""
    manifest = replace(Policy.of_manifest(), most=MOST)
    return {
        f"queue / compute, target {manifest.target:g} (the manifest)": manifest,
        "queue / compute, target 0.5": replace(manifest, target=0.5),
        "time at work, target 0.6": replace(manifest, target=0.6, signal="busy"),
    }


def minutes(outcome: Outcome, start: int, end: int) -> Floats:
    """Return the p99 of every minute in seconds."""
    return np.array([outcome.quantile(0.99, 60.0 * m, 60.0 * (m + 1)) for m in range(start, end)])


def row(name: str, outcome: Outcome, capacity: float) -> str:
    """Return a line of the table: while the load grows and stays."""
    each = minutes(outcome, 2, 70)
    used = outcome.answered / (float(outcome.replicas.sum()) * 15.0) / capacity
    cells = (
        name,
        f"{outcome.arrived:,}",
        f"{outcome.rejected:,}",
        f"{outcome.quantile(0.99, 120, 4200):.2f} s",
        f"{np.nanmax(each):.2f} s",
        f"{int((each > 1).sum())}",
        f"{int(outcome.replicas.max()):,}",
        f"{100 * used:.0f} %",
    )
    return "| " + " | ".join(cells) + " |"


def plot(outcomes: dict[str, Outcome], path: Path) -> None:
    """Load and pods, and the p99 of every minute."""
    figure, axes = plt.subplots(3, 1, figsize=(9, 9), sharex=True, layout="constrained")
    first = next(iter(outcomes.values()))
    axes[0].semilogy(first.ticks / 60, first.rate, color="black", label="requests a second")
    axes[0].set_ylabel("requests a second")
    for name, outcome in outcomes.items():
        axes[1].semilogy(outcome.ticks / 60, outcome.replicas, label=name)
        axes[2].semilogy(np.arange(90) + 0.5, minutes(outcome, 0, 90), label=name)
    axes[1].set_ylabel("pods that serve")
    axes[2].set_ylabel("p99 of a minute, seconds")
    axes[2].set_xlabel("minutes")
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, print the table, and with --write put table and plot into docs/."""
    parser = argparse.ArgumentParser(prog="python -m deploy.simulate", description="Simulate the autoscaler.")
    parser.add_argument("--seed", type=whole_number(0), default=1)
    parser.add_argument("--write", action="store_true", help="write docs/scaling.png and the table of docs/scaling.md")
    options = parser.parse_args(arguments)
    service = Service.measured()
    outcomes = {
        name: simulate(service, policy, load, SECONDS, options.seed, FIRST) for name, policy in policies().items()
    }
    head = "| signal | requests | rejected | p99 | worst minute | minutes over 1 s | most pods | used |"
    table = "\n".join([head, "|---" * 8 + "|", *(row(n, o, service.capacity) for n, o in outcomes.items())])
    jump = simulate(service, next(iter(policies().values())), step, 1800, options.seed, FIRST)
    high = [m for m in range(10, 30) if jump.quantile(0.99, 60.0 * m, 60.0 * m + 60) > 1]
    sentence = (
        f"A step from 10 to 100 requests a second: {jump.rejected:,} of {jump.arrived:,} requests rejected; the p99 of "
        f"a minute is over one second for {len(high)} minute(s), at worst {np.nanmax(minutes(jump, 10, 30)):.1f} s."
    )
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    source = (
        f"Fed with `service_times.json`: {measured['machine']}, {measured['date']}; a replica answers at most "
        f"{service.capacity:.1f} photographs a second, one alone takes {1000 * service.batch_seconds[0]:.0f} ms, a "
        f"server starts in {service.start_seconds:.1f} s. Seed {options.seed}."
    )
    text = f"{source}\n\n{table}\n\n{sentence}\n"
    print(text)
    if options.write:
        plot(outcomes, DOCS / "scaling.png")
        page = DOCS / "scaling.md"
        before, _, rest = page.read_text(encoding="utf-8").partition("<!-- table -->\n")
        _, _, after = rest.partition("<!-- end -->\n")
        page.write_text(f"{before}<!-- table -->\n{text}<!-- end -->\n{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
