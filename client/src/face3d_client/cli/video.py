"""``face3d video``: one moving head of a clip of one person."""

from __future__ import annotations

import argparse
from pathlib import Path

from face3d_client._protocol.options import PersonOptions
from face3d_client._tracking import Clip
from face3d_client.cli.arguments import open_client
from face3d_client.cli.jobs import UsageError
from face3d_client.cli.output import ALL_DONE, print_json, print_line, say

__all__ = ["video"]


def video(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    out: Path = options.out
    if out.suffix.lower() != ".glb":
        raise UsageError(f"-o wants a file that ends in .glb, not {str(out)!r}: only that holds an animation.")
    if out.exists() and out.resolve() == Path(options.clip).resolve():
        raise UsageError(f"the head would be written over {out}: choose another -o.")
    with open_client(options) as client:
        clip = client.reconstruct_clip(
            options.clip,
            every=options.every,
            seconds=options.seconds,
            smoothing=options.smoothing,
            **PersonOptions(
                score_threshold=options.score_threshold,
                same_person=options.same_person,
                texture_size=options.texture_size,
            ),
        )
    files = clip.save(out)
    if options.json:
        print_json({"files": [str(path) for path in files], "missed": clip.missed, "frames": _rows(clip)})
        return ALL_DONE
    for path in files:
        print_line(str(path))
    if clip.missed:
        say(f"warning: no face was found in {clip.missed} of {clip.missed + len(clip.frames)} frames")
    return ALL_DONE


def _rows(clip: Clip) -> list[dict[str, float | list[float]]]:
    return [
        {
            "seconds": round(frame.seconds, 4),
            "rotation": [round(float(value), 5) for value in frame.rotation],
            "blendshapes": [round(float(value), 4) for value in frame.blendshapes],
        }
        for frame in clip.frames
    ]
