"""``face3d reconstruct``: faces of one photograph or of many."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from face3d_client._mesh.formats import write_whole
from face3d_client._protocol.options import Options
from face3d_client.cli.arguments import open_client
from face3d_client.cli.batch import Batch, Record, Settings, failures_csv
from face3d_client.cli.jobs import Job, UsageError, check_out, plan
from face3d_client.cli.output import (
    ALL_DONE,
    INTERRUPTED,
    NO_SERVER,
    NOTHING_DONE,
    SOME_FAILED,
    print_json,
    print_line,
    say,
)

__all__ = ["reconstruct"]


def reconstruct(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    jobs = plan(options.pictures, options.out)
    check_out(options.out)
    if options.min_face is not None and not options.all_faces:
        raise UsageError("--min-face is for all faces of a picture: give --all-faces too.")
    settings = Settings(
        formats=options.format,
        all_faces=options.all_faces,
        min_size=options.min_size if options.min_size is not None else min(60.0, options.min_face or 60.0),
        preview=jobs[0].alone if options.preview is None else options.preview,
        overlay=options.overlay,
        skip_existing=options.skip_existing,
        concurrency=options.concurrency,
        outage=0.0 if jobs[0].alone else options.outage,
        options=Options(
            face=options.face,
            min_face=options.min_face,
            score_threshold=options.score_threshold,
            mesh=options.mesh,
            rig=options.rig,
            expression=options.expression,
            pose=options.pose,
            white_balance=options.white_balance,
            sharpen=options.sharpen,
            likeness=options.likeness,
            texture_size=options.texture_size,
            upscale=options.upscale,
            texture_light=options.texture_light,
            detail=options.detail,
            glasses=options.glasses,
            hair=options.hair,
        ),
    )
    if jobs[0].alone:
        with open_client(options) as client:
            return _one(Batch(client, settings).process(jobs[0]), options.json)
    with open_client(options) as client:
        client.info(timeout=min(10.0, options.timeout))  # nobody there: one sentence instead of one a picture
    # Nobody waits for a batch's next answer: rather late than listed as a failure.
    with open_client(options, attempts=8) as client:
        return _many(Batch(client, settings), jobs, options)


def _one(record: Record, as_json: bool) -> int:
    if as_json:
        print_json(record.as_json())
    elif record.status == "skipped":
        print("everything is there already")
    for path in record.files if not as_json else ():
        print_line(str(path))
    for face in record.faces:
        for warning in face["warnings"]:
            say(f"warning: {warning}")
    for reason, message in record.failures:
        say(f"{reason}: {message}")
    if record.status == "failed":
        return NO_SERVER if record.server_gone else NOTHING_DONE
    return SOME_FAILED if record.failures else ALL_DONE


def _many(batch: Batch, jobs: Sequence[Job], options: argparse.Namespace) -> int:
    from face3d_client.cli.tables import Progress, print_summary

    records: list[Record] = []
    interrupted = False
    with Progress(len(jobs)) as progress:
        try:
            for record in batch.run(jobs):
                records.append(record)
                progress.add(len(record.faces), failed=bool(record.failures))
                if options.json:
                    print_json(record.as_json())
        except KeyboardInterrupt:
            interrupted = True
    listing = options.out / "failures.csv"
    if any(record.failures for record in records):
        write_whole(listing, failures_csv(records))
    else:
        listing.unlink(missing_ok=True)  # one of an earlier run would be taken for this one's
        listing = Path()
    print_summary(records, len(jobs), progress.seconds, listing, interrupted)
    if interrupted:
        return INTERRUPTED
    if batch.server_gone:
        return NO_SERVER
    if all(record.status == "failed" for record in records):
        return NO_SERVER if all(record.server_gone for record in records) else NOTHING_DONE
    return SOME_FAILED if any(record.failures for record in records) else ALL_DONE
