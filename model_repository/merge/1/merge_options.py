"""What a request may say about joining photographs, read from its parameters and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from merge_refusals import Refused


@dataclass(frozen=True)
class Options:
    """The options of a request.

    Attributes:
        same_person: lowest mean cosine with the others, -1..1; -1 takes everybody. None for the service's own.
        reference: the photograph whose expression and pose the head has, from 0 on; None for the best frontal one.
    """

    same_person: float | None = None
    reference: int | None = None


def options_from(parameters: str) -> Options:
    """Read the options out of a request's parameters, a JSON object; others' options are left alone.

    Raises:
        Refused: ``BadOption``.
    """
    given: dict[str, Any] = json.loads(parameters or "{}")
    same_person, reference = given.get("same_person"), given.get("reference")
    return Options(
        None if same_person is None else _cosine(same_person),
        None if reference is None else _index(reference),
    )


def _cosine(value: Any) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not -1 <= number <= 1:
        raise Refused("BadOption", f"`same_person` is {value!r:.40}: give a number from -1 to 1.")
    return number


def _index(value: Any) -> int:
    try:
        number = -1 if isinstance(value, (bool, float)) else int(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise Refused("BadOption", f"`reference` is {value!r:.40}: give the index of a photograph, 0 for the first.")
    return number
