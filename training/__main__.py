"""All steps, one after the other: pictures and exact heads in, weights and their measures out.

    python -m training DATA WORK

DATA holds folders of pictures, each with an ``index.csv`` (file, source_repo, licence, width, height, note):
``permissive`` trains, every other one only measures; and ``ict_facekit.npz``, the exact heads. WORK takes what the
steps write. A step whose results are there is left out, and training resumes from its checkpoint: after an
interruption, the same command goes on. ``WORK/weights`` is then what the repository's ``weights/`` holds.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAINING = "permissive"
HEADS = "portraits"  # whose renders measure the shape
TEACHER = "mediapipe==0.10.21"
TEST_SEED = 99


@dataclass
class Step:
    """One command.

    Attributes:
        name: as on the command line of this program.
        says: what it does, for people.
        command: program and arguments.
        results: files that stand when it is done; none: it is run every time.
        before: done first, when the step is run.
    """

    name: str
    says: str
    command: list[str]
    results: list[Path] = field(default_factory=list)
    before: Callable[[], None] | None = None

    def is_done(self) -> bool:
        """Whether all results are there."""
        return bool(self.results) and all(path.exists() for path in self.results)


def module(name: str, *arguments: object) -> list[str]:
    """``python -m training.NAME ARGUMENTS``."""
    return [sys.executable, "-m", f"training.{name}", *map(str, arguments)]


def teacher() -> Path:
    """Python of the teacher's own environment, made on first use: mediapipe pins old versions of shared libraries."""
    folder = ROOT / ".tools" / "teacher"
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        print(f"[label] {TEACHER} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", TEACHER, "tqdm"], check=True)
        (folder / ".installed").touch()
    return python


def plan(options: argparse.Namespace) -> list[Step]:
    """The steps in their order."""
    data, work = options.data, options.work
    weights = work / "weights"
    label = [str(ROOT / ".tools" / "teacher" / "bin" / "python"), str(ROOT / "training" / "label.py")]
    folders = sorted(path.parent for path in data.glob("*/index.csv"))
    labels = {folder.name: work / f"labels-{folder.name}.npz" for folder in folders}
    heads, pictures, model = data / "ict_facekit.npz", data / TRAINING, work / "face_model.npz"
    trial, trial_labels, mapping = work / "trial-0-000", work / "labels-trial.npz", work / "teacher_map.npz"
    trained, textured = work / "regressor.safetensors", work / "texture.safetensors"
    measured = [folder for folder in folders if folder.name != TRAINING]

    def assemble() -> None:
        weights.mkdir(exist_ok=True)
        for path in (model, mapping, trained, textured):
            shutil.copy(path, weights / path.name)

    def ready_teacher() -> None:
        teacher()

    steps = [
        Step("label", f"points for {folder.name}", [*label, str(folder), str(labels[folder.name])],
             [labels[folder.name]], ready_teacher)
        for folder in folders
    ]  # fmt: skip
    drawn = (pictures, labels[TRAINING], heads)
    steps += [
        Step("face-model", "topology and statistics", module("face_model", heads, model), [model]),
        Step(
            "teacher-map",
            "renders for the teacher",
            module("render", *drawn, work / "trial", "--count", 400, "--shards", 1),
            [trial.with_suffix(".npy")],
        ),
        Step(
            "teacher-map",
            "the renders as pictures",
            module("teacher_map", "pictures", trial, work / "trial-pictures"),
            [work / "trial-pictures" / "index.csv"],
        ),
        Step(
            "teacher-map",
            "points for the renders",
            [*label, str(work / "trial-pictures"), str(trial_labels)],
            [trial_labels],
            ready_teacher,
        ),
        Step(
            "teacher-map",
            "where the teacher's points lie on the face model",
            module("teacher_map", "build", model, trial, trial_labels, mapping),
            [mapping],
        ),
    ]
    shard = 500
    for seed in range(1, 1 + -(-options.renders // (10 * shard))):
        steps.append(
            Step(
                "render",
                f"exact heads {seed}",
                module(
                    "render", *drawn, work / "shards" / "r", "--count", shard, "--shards", 10, "--seed", seed
                ),
                [work / "shards" / f"r-{seed}-009.labels.npz"],
            )
        )  # fmt: skip
    if HEADS in labels:
        steps.append(
            Step(
                "render",
                "exact heads that measure",
                module(
                    "render", data / HEADS, labels[HEADS], heads, work / "heads", "--count", 200, "--shards", 1,
                    "--seed", TEST_SEED,
                ),
                [work / f"heads-{TEST_SEED}-000.labels.npz"],
            )
        )  # fmt: skip
    steps += [
        Step(
            "regressor",
            "the regressor",
            module(
                "regressor", "--face-model", model, "--teacher-map", mapping, "--renders", work / "shards" / "r",
                "--pictures", pictures, "--labels", labels[TRAINING], "--checkpoint", work / "regressor.pt",
                "--weights", trained, "--resolution", options.resolution, "--samples", options.samples,
            ),
            [trained],
        ),
        Step(
            "texture",
            "the texture network",
            module(
                "texture", "--face-model", model, "--regressor", trained, "--pictures", pictures, "--cache",
                work / "textures", "--checkpoint", work / "texture.pt", "--weights", textured, "--steps",
                options.texture_steps,
            ),
            [textured],
        ),
        Step(
            "albedo",
            "albedo modes and light",
            module(
                "albedo", "--pictures", pictures, "--face-model", weights / model.name, "--regressor",
                weights / trained.name, "--texture", weights / textured.name,
            ),
            [weights / ".complete"],
            assemble,
        ),
    ]  # fmt: skip
    exact = work / f"heads-{TEST_SEED}-000"
    judge = ("--weights", weights, "--teacher-map", mapping, "--leave-out", *options.leave_out)
    for folder in measured:
        steps.append(
            Step(
                "evaluate", f"2D errors on {folder.name}",
                module("evaluate", "pictures", folder, labels[folder.name], *judge),
            )
        )  # fmt: skip
    if HEADS in labels:
        steps.append(
            Step("evaluate", "3D errors on exact heads", module("evaluate", "heads", exact, *judge))
        )  # fmt: skip
    return steps


def run(steps: Sequence[Step], dry: bool) -> int:
    """Run what is not done yet; the exit status of the first command that fails, else 0."""
    for number, step in enumerate(steps, 1):
        head = f"[{number}/{len(steps)}] {step.name}: {step.says}"
        if step.is_done():
            print(f"{head} - is there", flush=True)
            continue
        print(head, flush=True)
        if dry:
            print("   ", shlex.join(step.command), flush=True)
            continue
        if step.before is not None:
            step.before()
        started = time.monotonic()
        code = subprocess.run(step.command, cwd=ROOT, check=False).returncode
        if code:
            print(f"{head} failed with exit code {code}; the same command goes on from here.", file=sys.stderr)
            return code
        if step.name == "albedo":
            step.results[0].touch()
        print(f"    {time.monotonic() - started:.0f} s", flush=True)
    return 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folders of pictures, and ict_facekit.npz")
    parser.add_argument("work", type=Path, help="takes labels, renders, checkpoints and weights")
    parser.add_argument("--renders", type=int, default=25_000, help="exact heads to render, in shards of 500")
    parser.add_argument("--samples", type=int, default=400_000, help="pictures the regressor sees")
    parser.add_argument("--resolution", type=int, default=112, help="pixels at which it sees the 224 px crop")
    parser.add_argument("--texture-steps", type=int, default=2000)
    parser.add_argument(
        "--leave-out", nargs="*", default=["biden", "obama"], metavar="PART",
        help="file names of pictures that measure nothing, because training saw these people (default: %(default)s)",
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
    """Exit status: 0, or that of the command that failed."""
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    steps = plan(options)
    if options.only is not None:
        unknown = set(options.only) - {step.name for step in steps}
        if unknown:
            print(f"there is no step {', '.join(sorted(unknown))}", file=sys.stderr)
            return 2
        steps = [step for step in steps if step.name in options.only]
    return run(steps, options.dry_run)


if __name__ == "__main__":
    sys.exit(main())
