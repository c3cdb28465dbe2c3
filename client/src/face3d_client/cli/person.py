"""``face3d person``: one head of several photographs of one person."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from face3d_client._mesh.formats import SUFFIXES, write_whole
from face3d_client._person import Person
from face3d_client._protocol.options import PERSON_OUTPUTS, PersonOptions
from face3d_client.cli.arguments import open_client
from face3d_client.cli.jobs import UsageError
from face3d_client.cli.output import ALL_DONE, print_json, print_line, say

__all__ = ["person"]


def person(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    out: Path = options.out
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"-o wants a file that ends in {', '.join(SUFFIXES)}, not {str(out)!r}.")
    outputs = (*PERSON_OUTPUTS, *(("preview",) if options.preview else ()))
    with open_client(options) as client:
        found = client.reconstruct_person(
            options.pictures,
            **PersonOptions(
                outputs=outputs,
                score_threshold=options.score_threshold,
                same_person=options.same_person,
                reference=options.reference,
                mesh=options.mesh,
                rig=options.rig,
                expression=options.expression,
                pose=options.pose,
                white_balance=options.white_balance,
                sharpen=options.sharpen,
                texture_size=options.texture_size,
                likeness=options.likeness,
            ),
        )
    files = found.save(out)
    if options.preview:
        write_whole(options.preview, found.head.preview_bytes)
        files.append(options.preview)
    _show(found, options.pictures, files, options.json)
    return ALL_DONE


def _show(found: Person, pictures: list[str], files: list[Path], as_json: bool) -> None:
    if as_json:
        print_json({"files": [str(path) for path in files], "reference": found.reference, "photographs": _rows(found)})
        return
    for path in files:
        print_line(str(path))
    for name, row in zip(pictures, _rows(found), strict=True):
        for warning in row["warnings"]:
            say(f"warning: {name}: {warning}")


def _rows(found: Person) -> list[dict[str, Any]]:
    return [
        {
            "source": str(photograph.source),
            "weight": round(float(weight), 4),
            "similarity": round(float(similarity), 4),
            "box": [round(float(value), 2) for value in photograph.box],
            "angles": [round(float(value), 4) for value in photograph.coefficients.angles],
            "warnings": list(photograph.warnings),
        }
        for photograph, weight, similarity in zip(found.photographs, found.weights, found.similarity, strict=True)
    ]
