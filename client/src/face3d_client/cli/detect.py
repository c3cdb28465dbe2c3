"""``face3d detect``: the faces in photographs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from face3d_client._detection import DetectedFace
from face3d_client._errors import Face3DError, NoFace
from face3d_client._ordered import ordered_map
from face3d_client.cli.arguments import open_client
from face3d_client.cli.jobs import Job, plan
from face3d_client.cli.output import ALL_DONE, NOTHING_DONE, SOME_FAILED, print_json, print_line, say, status_of

__all__ = ["detect"]


def detect(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    # A folder to write to that cannot exist: detect writes nothing, but the same words mean the same pictures.
    jobs = plan(options.pictures, Path(os.devnull))
    with open_client(options) as client:

        def find_faces(job: Job) -> list[DetectedFace] | Face3DError | OSError:
            try:
                found = client.detect(job.source, score_threshold=options.score_threshold, min_face=options.min_face)
            except (Face3DError, OSError) as error:
                return error
            return found or NoFace("no face was found. Use a picture with a face, or lower --score-threshold.")

        if len(jobs) > 1:
            client.info(timeout=min(10.0, options.timeout))
        worst: list[int] = []
        for job, found in zip(jobs, ordered_map(find_faces, jobs, options.concurrency), strict=True):
            worst.append(_show_faces(job, found, options.json, len(jobs) > 1))
    if all(status == ALL_DONE for status in worst):
        return ALL_DONE
    if len(set(worst)) == 1:
        return worst[0]
    return SOME_FAILED if ALL_DONE in worst else NOTHING_DONE


def _show_faces(job: Job, found: list[DetectedFace] | Face3DError | OSError, as_json: bool, many: bool) -> int:
    faces = found if isinstance(found, list) else []
    error = None if isinstance(found, list) else found
    if as_json:
        print_json(
            {
                "source": str(job.source),
                "faces": [
                    {
                        "index": face.index,
                        "score": round(face.score, 4),
                        "box": [round(float(value), 2) for value in face.box],
                        "points": [[round(float(value), 2) for value in point] for point in face.points],
                    }
                    for face in faces
                ],
                "errors": [{"reason": type(error).__name__, "message": str(error)}] if error else [],
            }
        )
    else:
        for face in faces:
            corners = " ".join(f"{value:.1f}" for value in face.box)
            print_line(f"{f'{job.name}: ' if many else ''}face {face.index} score {face.score:.3f} box {corners}")
    if error is None:
        return ALL_DONE
    reason = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    say(f"{f'{job.name}: ' if many else ''}{reason}{error}")
    return status_of(error) if isinstance(error, Face3DError) else NOTHING_DONE
