"""``face3d embed``: who the faces of photographs are, as vectors."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from face3d_client._embedding import Embedding
from face3d_client._errors import Face3DError
from face3d_client._ordered import ordered_map
from face3d_client.cli.arguments import open_client
from face3d_client.cli.jobs import Job, plan
from face3d_client.cli.output import ALL_DONE, NOTHING_DONE, SOME_FAILED, print_json, print_line, say, status_of

__all__ = ["embed"]


def embed(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    jobs = plan(options.pictures, Path(os.devnull))
    with open_client(options) as client:

        def one(job: Job) -> Embedding | Face3DError | OSError:
            try:
                return client.embed(job.source, face=options.face, score_threshold=options.score_threshold)
            except (Face3DError, OSError) as error:
                return error

        statuses = [
            _show(job, found, options.json)
            for job, found in zip(jobs, ordered_map(one, jobs, options.concurrency), strict=True)
        ]
    if len(set(statuses)) == 1:
        return statuses[0]
    return SOME_FAILED if ALL_DONE in statuses else NOTHING_DONE


def _show(job: Job, found: Embedding | Face3DError | OSError, as_json: bool) -> int:
    if not isinstance(found, Embedding):
        reason = "" if isinstance(found, OSError) else f"{type(found).__name__}: "
        say(f"{job.name}: {reason}{found}")
        return status_of(found) if isinstance(found, Face3DError) else NOTHING_DONE
    if as_json:
        print_json(
            {
                "source": str(job.source),
                "vector": [float(value) for value in found.vector],
                "embedder": found.embedder,
                "quality": {name: round(value, 4) for name, value in found.quality._asdict().items()},
                "box": [round(float(value), 2) for value in found.face.box],
                "warnings": list(found.warnings),
            }
        )
    else:
        quality = " ".join(f"{name} {value:.2f}" for name, value in found.quality._asdict().items())
        print_line(f"{job.name}: {len(found.vector)} numbers of embedder {found.embedder:016x}; {quality}")
    return ALL_DONE
