"""``face3d fuse`` and ``face3d manifest``: one person's face on pictures and clips, and what such pictures say."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from face3d_client._client import Face3DClient
from face3d_client._clips import CLIP_RESULTS, is_clip
from face3d_client._errors import Face3DError
from face3d_client._fuse_clip import MAX_FRAMES
from face3d_client._fusion import Fusion
from face3d_client._mesh.formats import write_whole
from face3d_client._ordered import ordered_map
from face3d_client._protocol.fuse import FuseOptions, PictureFormat
from face3d_client._provenance import read_manifest
from face3d_client.cli.arguments import open_client
from face3d_client.cli.jobs import UsageError, check_out, plan
from face3d_client.cli.output import (
    ALL_DONE,
    NOTHING_DONE,
    SOME_FAILED,
    print_json,
    print_line,
    say,
    status_of,
)

__all__ = ["add_fuse_options", "add_manifest_options", "fuse", "manifest"]

_FORMATS: Final[dict[str, PictureFormat]] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}


def add_fuse_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``face3d fuse``."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the photograph whose face it is")
    parser.add_argument("targets", nargs="+", metavar="PHOTO|FOLDER|CLIP", help="what gets it")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE|DIR",
        help="the result (.png, .jpg; of a clip .mp4, .mov, .webp), or a folder for results",
    )  # fmt: skip
    parser.add_argument(
        "--consent", required=True, metavar="TEXT",
        help="who agreed to it, and to what: goes into the result, for everybody to read, and into the server's log",
    )  # fmt: skip
    parser.add_argument("--source-face", type=int, metavar="N", help="which face, in the order of score")
    parser.add_argument("--target-face", type=int, metavar="N", help="which face, in the order of score")
    parser.add_argument("--shape", type=float, metavar="0..1", help="shape: the target's (0) to the source's (1)")
    parser.add_argument("--eyes", choices=("target", "source"), help="whose eyes are seen")
    parser.add_argument("--mouth", choices=("target", "source"), help="whose mouth is seen")
    parser.add_argument("--quality", choices=("auto", "short", "long"), help="the way it is made (default: auto)")
    parser.add_argument(
        "--mark", action=argparse.BooleanOptionalAction,
        help="a small visible label that the face was edited (default: on clips only)",
    )  # fmt: skip
    parser.add_argument(
        "--enhance", action="store_true", default=None, help="sharpen a source's face of few pixels by a network"
    )
    parser.add_argument("--format", choices=("png", "jpeg"), default="png", help="of results in a folder (png)")
    parser.add_argument("--mask", action="store_true", help="also which pixels are new: STEM-mask.png")
    parser.add_argument("--max-frames", type=int, default=MAX_FRAMES, metavar="N", help=f"of a clip ({MAX_FRAMES})")
    parser.add_argument("--sign-certificate", type=Path, metavar="FILE", help="PEM file of yours that signs a clip")
    parser.add_argument("--sign-key", type=Path, metavar="FILE", help="PEM file of the certificate's key")
    parser.add_argument("--concurrency", type=int, default=2, metavar="N", help="pictures at the same time (2)")
    parser.add_argument("--json", action="store_true", help="one JSON object for each result on stdout")


def add_manifest_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``face3d manifest``."""
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    parser.add_argument("--trust", type=Path, metavar="FILE", help="PEM file of the roots to trust")
    parser.add_argument("--json", action="store_true", help="the whole manifest store as JSON on stdout")


@dataclass(frozen=True)
class _Task:
    """A target and the file of its result."""

    target: Path
    result: Path


def fuse(options: argparse.Namespace) -> int:
    """Run ``face3d fuse``; return the exit status."""
    alone = Path(options.targets[0])
    if len(options.targets) == 1 and alone.is_file() and is_clip(alone):
        return _clip(options, alone)
    tasks = _tasks(options)
    asked = _asked(options, _FORMATS[tasks[0].result.suffix.lower()])
    with open_client(options) as client:
        if len(tasks) > 1:
            client.info(timeout=min(10.0, options.timeout))  # nobody there: one sentence instead of one a picture
        make = _maker(client, options, asked)
        statuses = [
            _show(task, found, options)
            for task, found in zip(tasks, ordered_map(make, tasks, options.concurrency), strict=True)
        ]
    if len(set(statuses)) == 1:
        return statuses[0]
    return SOME_FAILED if ALL_DONE in statuses else NOTHING_DONE


def _asked(options: argparse.Namespace, form: PictureFormat) -> FuseOptions:
    return FuseOptions(
        source_face=options.source_face,
        target_face=options.target_face,
        shape=options.shape,
        eyes=options.eyes,
        mouth=options.mouth,
        quality_mode=options.quality,
        mark=options.mark,
        enhance=options.enhance,
        picture_format=form,
    )


def _tasks(options: argparse.Namespace) -> list[_Task]:
    """List targets and results; a result is never written over a photograph of the run.

    Raises:
        UsageError: it would be, or the words stand for nothing.
    """
    out: Path = options.out
    if out.suffix.lower() in _FORMATS and not out.is_dir():
        if len(options.targets) > 1 or not Path(options.targets[0]).is_file():
            raise UsageError(f"{out} is one file, and there is more than one target: name a folder with -o.")
        check_out(out.parent)
        return [_Task(Path(options.targets[0]), out)]
    if out.suffix and not out.is_dir():
        raise UsageError(f"{out}: a picture is written as {', '.join(_FORMATS)}, a clip as {', '.join(CLIP_RESULTS)}.")
    check_out(out)
    suffix = ".jpg" if options.format == "jpeg" else ".png"
    jobs = plan(options.targets, out)
    names = {job: job.stem.with_name("fused" if job.alone else job.stem.name) for job in jobs}
    tasks = [_Task(job.source, name.with_name(name.name + suffix)) for job, name in names.items()]
    photographs = {path.resolve() for path in (options.source, *(task.target for task in tasks))}
    if hit := next((task.result for task in tasks if task.result.resolve() in photographs), None):
        raise UsageError(f"{hit} is one of the photographs: choose another -o.")
    return tasks


def _maker(
    client: Face3DClient, options: argparse.Namespace, asked: FuseOptions
) -> Callable[[_Task], Fusion | Face3DError | OSError]:
    source: Path = options.source

    def make(task: _Task) -> Fusion | Face3DError | OSError:
        try:
            result = client.fuse(source, task.target, consent=options.consent, **asked)
            result.save(task.result)
            if options.mask:
                write_whole(task.result.with_name(f"{task.result.stem}-mask.png"), result.mask_data)
        except (Face3DError, OSError) as error:
            return error
        return result

    return make


def _show(task: _Task, found: Fusion | Face3DError | OSError, options: argparse.Namespace) -> int:
    if not isinstance(found, Fusion):
        reason = "" if isinstance(found, OSError) else f"{type(found).__name__}: "
        say(f"{task.target}: {reason}{found}")
        return status_of(found) if isinstance(found, Face3DError) else NOTHING_DONE
    for warning in found.warnings:
        say(f"warning: {task.target}: {warning}")
    if options.json:
        print_json({"target": str(task.target), "file": str(task.result), "warnings": list(found.warnings)})
    else:
        print_line(str(task.result))
    return ALL_DONE


def _clip(options: argparse.Namespace, clip: Path) -> int:
    """Fuse a clip; 1 where frames are left out or as they were."""
    out: Path = options.out
    if out.suffix.lower() not in CLIP_RESULTS:
        raise UsageError(f"{clip} is a clip: name its result with -o, as {', '.join(CLIP_RESULTS)}.")
    check_out(out.parent)
    asked = _asked(options, "jpeg")
    if asked["mark"] is None:
        asked["mark"] = True
    with open_client(options) as client:
        try:
            made = client.fuse_clip(
                options.source, clip, out, consent=options.consent, concurrency=options.concurrency,
                max_frames=options.max_frames, certificate=options.sign_certificate, key=options.sign_key, **asked,
            )  # fmt: skip
        except (ModuleNotFoundError, ValueError) as error:
            raise UsageError(str(error)) from error
    if options.json:
        print_json({"target": str(clip), "file": str(out), "frames": made.frames, "fused": made.fused})
    else:
        print_line(str(out))
    if made.fused < made.frames:
        say(f"{made.frames - made.fused} of {made.frames} frames do not show the person and are as they were.")
    if not made.complete:
        say(f"what follows frame {made.frames} is left out: --max-frames.")
    return ALL_DONE if made.complete else SOME_FAILED


def manifest(options: argparse.Namespace) -> int:
    """Run ``face3d manifest``; return the exit status: 1 where a picture has no manifest that holds."""
    return max(_manifest(path, options.trust, options.json, len(options.pictures) > 1) for path in options.pictures)


def _manifest(path: Path, trust: Path | None, as_json: bool, several: bool) -> int:
    try:
        found = read_manifest(path, trust=trust)
    except ModuleNotFoundError as error:
        raise UsageError(str(error)) from error
    if found is None:
        say(f"{path} has no manifest.")
        return SOME_FAILED
    if as_json:
        print_json({"picture": str(path), **found.raw})
    else:
        print_line("\n".join(_lines(path, several, found.state, found.failures)))
        for name, value in (
            ("signed by", found.issuer), ("manifest", found.label), ("done", ", ".join(found.actions)),
            ("source type", found.source_type), ("consent", found.consent),
        ):  # fmt: skip
            if value:
                print_line(f"{name:<12}{value}")
    return SOME_FAILED if found.state == "Invalid" else ALL_DONE


def _lines(path: Path, several: bool, state: str, failures: Sequence[str]) -> list[str]:
    why = f" ({', '.join(failures)})" if failures else ""
    return [*([str(path)] if several else []), f"{'state':<12}{state}{why}"]
