"""All steps, one after the other: pictures and exact heads in, weights and their measures out.

    python -m training DATA WORK

DATA holds folders of pictures, each with an ``index.csv`` (file, source_repo, licence, width, height, note):
``permissive`` trains, every other one only measures; and ``ict_facekit.npz``, the exact heads. WORK takes what the
steps write. A step whose results are there is left out, and training resumes from its checkpoint: after an
interruption, the same command goes on. ``WORK/weights`` is then what the repository's ``weights/`` holds.

A trial of all steps, in minutes, with weights that are good for nothing:

    python -m training DATA WORK --renders 500 --samples 480 --parser-steps 10 --texture-steps 10 --scenes 60 \
        --limit 5 --parser-heads 20 --certainty-batches 3 --correction-heads 20
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from training.steps import ROOT, TEACHER, TRAINING, Plan, Step


@contextlib.contextmanager
def alone_in(work: Path) -> Iterator[int]:
    """Hold the folder's lock, as a descriptor that the steps inherit: as long as one of them lives.

    Raises:
        BlockingIOError: somebody else has it.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield handle.fileno()


def run(steps: Sequence[Step], dry: bool, work: Path, lock: int | None = None) -> int:
    """Run what is not done yet.

    Args:
        steps: in their order.
        dry: only print the commands.
        work: notes there which step is at work, so that half of its results are not taken for all of them.
        lock: a descriptor that the steps inherit.

    Returns:
        The exit status of the first command that fails, else 0.
    """
    unfinished = work / ".unfinished"
    if unfinished.exists() and not dry:
        for name in unfinished.read_text().splitlines():
            Path(name).unlink(missing_ok=True)
        unfinished.unlink()
    for number, step in enumerate(steps, 1):
        head = f"[{number}/{len(steps)}] {step.name}: {step.says}"
        if step.is_done():
            print(f"{head} - is there", flush=True)
            continue
        print(head, flush=True)
        if dry:
            print("   ", shlex.join(step.command), flush=True)
            continue
        unfinished.write_text("".join(f"{path}\n" for path in step.results))
        started = time.monotonic()
        if step.before is not None:
            step.before()
        # In a session of its own, so that Ctrl-C reaches this process alone, which then ends the step.
        code = subprocess.run(
            step.command, cwd=ROOT, check=False, start_new_session=True, pass_fds=() if lock is None else (lock,)
        ).returncode
        if code:
            print(f"{head} failed with exit code {code}; the same command goes on from here.", file=sys.stderr)
            return code if code > 0 else 128 - code
        for path in step.results:
            if path.name == ".complete":  # the step rewrites files that were there
                path.touch()
        unfinished.unlink()
        print(f"    {time.monotonic() - started:.0f} s", flush=True)
    return 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folders of pictures, and ict_facekit.npz")
    parser.add_argument("work", type=Path, help="takes labels, renders, checkpoints and weights")
    parser.add_argument("--renders", type=int, default=25_000, help="exact heads, rounded up to whole files of 500")
    parser.add_argument("--samples", type=int, default=400_000, help="pictures the regressor sees")
    parser.add_argument("--resolution", type=int, default=112, help="pixels at which it sees the 224 px crop")
    parser.add_argument(
        "--refinement-samples", type=int, default=0, help="pictures the refinement sees; 0: no refinement"
    )
    parser.add_argument("--parser-steps", type=int, default=2500)
    parser.add_argument("--parser-heads", type=int, default=1400, help="turned heads that the parser learns from")
    parser.add_argument("--certainty-batches", type=int, default=230, help="of 24 faces")
    parser.add_argument("--correction-heads", type=int, default=4200, help="heads that correct the identity")
    parser.add_argument("--texture-steps", type=int, default=2000)
    parser.add_argument("--scenes", type=int, default=8000, help="canvases that the detector's screen learns from")
    parser.add_argument("--limit", type=int, default=300, help="pictures and heads that measure, of each set")
    parser.add_argument(
        "--leave-out", nargs="*", default=["biden", "obama"], metavar="PART",
        help="file names of pictures that measure nothing, because training saw these people (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--teacher", type=Path, metavar="PYTHON",
        help=f"of an environment with {TEACHER} and tqdm; without it, one is made in .tools/teacher",
    )  # fmt: skip
    parser.add_argument("--only", nargs="*", metavar="STEP", help="label face-model teacher-map render regressor ...")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    options = parser.parse_args(arguments)
    for needed in (options.data / TRAINING / "index.csv", options.data / "ict_facekit.npz"):
        if not needed.exists():
            parser.error(f"{needed} is missing; what DATA holds is said in --help")
    options.data, options.work = options.data.resolve(), options.work.resolve()
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps; return the exit status: 0, or that of the command that failed; 130 after an interruption."""
    options = parse(arguments)
    steps = Plan(options).steps()
    if options.only is not None:
        unknown = set(options.only) - {step.name for step in steps}
        if unknown:
            print(f"there is no step {', '.join(sorted(unknown))}", file=sys.stderr)
            return 2
        steps = [step for step in steps if step.name in options.only]
    try:
        with alone_in(options.work) as lock:
            return run(steps, options.dry_run, options.work, lock)
    except BlockingIOError:
        print(
            f"another run, or a step that one has left behind, works in {options.work}. Wait for it.", file=sys.stderr
        )
        return 2
    except subprocess.CalledProcessError as error:
        print(
            f"{TEACHER} could not be installed ({error}). Name an environment that has it: --teacher", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    # As Ctrl-C: the step ends too, and what it had begun is noted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
