"""Kubernetes' HorizontalPodAutoscaler: its policy out of the manifest, the signal it sees, and what it decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MANIFEST = Path(__file__).parents[1] / "kubernetes" / "hpa" / "hpa.yaml"
TICK = 15.0
"""Seconds: the autoscaler's period, and Prometheus' scrape interval."""


@dataclass(frozen=True)
class Policy:
    """An autoscaler. Rates of change are fractions and pods within a period in seconds, the larger counts.

    Attributes:
        target: of the signal.
        least, most: replicas.
        up_fraction, up_pods, up_period: how fast it may grow.
        down_fraction, down_period: how fast it may shrink.
        down_window: seconds over which the largest recommendation counts before it shrinks.
        node_seconds: from the decision until a pod starts: scheduling, and a machine where none is free.
        signal: "queue" for queue over compute, "busy" for the part of the time that a replica works.
    """

    target: float = 0.25
    least: int = 2
    most: int = 100
    up_fraction: float = 1.0
    up_pods: int = 4
    up_period: float = 30.0
    down_fraction: float = 0.1
    down_period: float = 60.0
    down_window: float = 600.0
    node_seconds: float = 20.0
    signal: str = "queue"

    @staticmethod
    def of_manifest(path: Path = MANIFEST) -> Policy:
        """Read the numbers that the cluster would use."""
        spec: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        up, down = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
        steps = {policy["type"]: policy for policy in up["policies"]}
        value = str(spec["metrics"][0]["external"]["target"]["value"])
        return Policy(
            target=float(value.removesuffix("m")) / 1000 if value.endswith("m") else float(value),
            least=spec["minReplicas"],
            most=spec["maxReplicas"],
            up_fraction=steps["Percent"]["value"] / 100,
            up_pods=steps["Pods"]["value"],
            up_period=steps["Percent"]["periodSeconds"],
            down_fraction=down["policies"][0]["value"] / 100,
            down_period=down["policies"][0]["periodSeconds"],
            down_window=down["stabilizationWindowSeconds"],
        )


def signal_of(seen: Sequence[tuple[float, float, float, int]], kind: str) -> float:
    """Return the signal of the last minute, up to one tick ago: Prometheus scrapes, evaluates, and is asked.

    Args:
        seen: one entry a tick: seconds waited, worked and busy so far, and how many replicas serve.
        kind: "queue" or "busy", see `Policy`.
    """
    newest = max(len(seen) - 2, 0)
    oldest = max(newest - 4, 0)
    waited, worked, busy = (seen[newest][i] - seen[oldest][i] for i in range(3))
    if kind == "busy":
        replica_seconds = sum(entry[3] for entry in seen[oldest + 1 : newest + 1]) * TICK
        return busy / replica_seconds if replica_seconds else 0.0
    return waited / worked if worked > 0 else 0.0


class Scaler:
    """The decisions of a HorizontalPodAutoscaler, one look after the other."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._recommended: list[tuple[float, int]] = []
        self._changes: list[tuple[float, int]] = []  # (when, by how many)

    def look(self, now: float, signal: float, replicas: int) -> int:
        """Return how many replicas there should be."""
        policy = self._policy
        ratio = signal / policy.target
        desired = replicas if abs(ratio - 1) <= 0.1 else math.ceil(replicas * ratio)
        desired = min(max(desired, policy.least), policy.most)
        self._recommended = [entry for entry in self._recommended if entry[0] > now - policy.down_window]
        self._recommended.append((now, desired))
        if desired < replicas:
            # Shrink to the largest recommendation of the window only.
            desired = min(replicas, max(count for _, count in self._recommended))
        if desired > replicas:
            grown = sum(by for when, by in self._changes if when > now - policy.up_period and by > 0)
            base = replicas - grown
            desired = min(desired, base + max(math.ceil(base * policy.up_fraction), policy.up_pods))
            desired = max(desired, replicas)
        elif desired < replicas:
            shrunk = -sum(by for when, by in self._changes if when > now - policy.down_period and by < 0)
            base = replicas + shrunk
            desired = max(desired, base - max(math.floor(base * policy.down_fraction), 1))
            desired = min(desired, replicas)
        if desired != replicas:
            self._changes = [entry for entry in self._changes if entry[0] > now - 600] + [(now, desired - replicas)]
        return desired
