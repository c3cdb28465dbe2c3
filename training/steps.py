"""Which commands make the weights, in their order."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRAINING = "permissive"
HEADS = "portraits"  # whose renders measure the shape
TEACHER = "mediapipe==0.10.21"
PARSING_TEACHER = "teacher-parsing.onnx"  # knows skin from hair; in the folder of data
TEST_SEED = 99
SHARD, SHARDS = 500, 10  # renders in a file, files of one seed


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
    before: Callable[[], object] | None = None

    def is_done(self) -> bool:
        """Return whether all results are there."""
        return bool(self.results) and all(path.exists() for path in self.results)


def module(name: str, *arguments: object) -> list[str]:
    """Return the command ``python -m training.NAME ARGUMENTS``."""
    return [sys.executable, "-m", f"training.{name}", *map(str, arguments)]


def own_teacher() -> Path:
    """Return the Python of the environment that `install_teacher` makes."""
    return ROOT / ".tools" / "teacher" / "bin" / "python"


def install_teacher() -> None:
    """Make the teacher's own environment on first use: mediapipe pins old versions of shared libraries.

    Raises:
        subprocess.CalledProcessError: it could not be installed.
    """
    python = own_teacher()
    folder = python.parents[1]
    if not (folder / ".installed").exists():
        print(f"[label] {TEACHER} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", TEACHER, "onnxruntime", "tqdm"], check=True)
        (folder / ".installed").touch()


class Plan:
    """All steps of one run; a step's files lie in the folder of work.

    Args:
        options: the command line of `python -m training`.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.data, self.work = Path(options.data), Path(options.work)
        self.weights = self.work / "weights"
        self.folders = sorted(path.parent for path in self.data.glob("*/index.csv"))
        self.labels = {folder.name: self.work / f"labels-{folder.name}.npz" for folder in self.folders}
        self.heads, self.pictures = self.data / "ict_facekit.npz", self.data / TRAINING
        self.whole, self.head = self.data / "ict_facekit_full.npz", self.work / "head_model.npz"
        self.model, self.mapping = self.work / "face_model.npz", self.work / "teacher_map.npz"
        self.trained, self.textured = self.work / "regressor.safetensors", self.work / "texture.safetensors"
        self.screen, self.parser = self.work / "screen.safetensors", self.work / "parser.safetensors"
        self.crops, self.parts = self.work / "crops.npy", self.work / "parts.npy"
        self.parser_heads = self.work / "parser-heads.npy"
        self.label = [str(options.teacher or own_teacher()), str(ROOT / "training" / "label.py")]
        self.ready_teacher = None if options.teacher else install_teacher

    def steps(self) -> list[Step]:
        """Return the steps in their order."""
        return [
            *self._label(),
            *self._face_model(),
            *self._render(),
            *self._regressor(),
            *self._refinement(),
            *self._head(),
            *self._parser(),
            *self._texture_and_screen(),
            *self._albedo(),
            *self._certainty(),
            *self._identity_correction(),
            *self._evaluate(),
        ]

    def _label(self) -> list[Step]:
        return [
            Step("label", f"points for {folder.name}", [*self.label, str(folder), str(self.labels[folder.name])],
                 [self.labels[folder.name]], self.ready_teacher)
            for folder in self.folders
        ]  # fmt: skip

    def _face_model(self) -> list[Step]:
        work, trial, trial_labels = self.work, self.work / "trial-0-000", self.work / "labels-trial.npz"
        drawn = (self.pictures, self.labels[TRAINING], self.heads)
        return [
            Step("face-model", "topology and statistics", module("face_model", self.heads, self.model), [self.model]),
            Step(
                "teacher-map",
                "renders for the teacher",
                module("render", *drawn, work / "trial", "--count", 400, "--shards", 1),
                [work / f"{trial.name}.labels.npz"],
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
                [*self.label, str(work / "trial-pictures"), str(trial_labels)],
                [trial_labels],
                self.ready_teacher,
            ),
            Step(
                "teacher-map",
                "where the teacher's points lie on the face model",
                module("teacher_map", "build", self.model, trial, trial_labels, self.mapping),
                [self.mapping],
            ),
        ]

    def _render(self) -> list[Step]:
        options, work = self.options, self.work
        steps, shards = [], -(-options.renders // SHARD)
        for seed, first in enumerate(range(0, shards, SHARDS), 1):
            count = min(SHARDS, shards - first)
            steps.append(
                Step(
                    "render",
                    f"exact heads {seed}",
                    module(
                        "render", self.pictures, self.labels[TRAINING], self.heads, work / "shards" / "r", "--count",
                        min(SHARD, options.renders), "--shards", count, "--seed", seed, "--teacher-map", self.mapping,
                    ),
                    [work / "shards" / f"r-{seed}-{count - 1:03d}.labels.npz"],
                )
            )  # fmt: skip
        if HEADS in self.labels:
            steps.append(
                Step(
                    "render",
                    "exact heads that measure",
                    module(
                        "render", self.data / HEADS, self.labels[HEADS], self.heads, work / "heads", "--count", 200,
                        "--shards", 1, "--seed", TEST_SEED,
                    ),
                    [work / f"heads-{TEST_SEED}-000.labels.npz"],
                )
            )  # fmt: skip
        return steps

    def _regressor(self) -> list[Step]:
        options, work = self.options, self.work
        unfrozen, whole = work / "regressor-first.safetensors", work / "regressor.pt"
        frozen = work / "regressor-frozen.pt"
        command = (
            "regressor", "--face-model", self.model, "--teacher-map", self.mapping, "--renders", work / "shards" / "r",
            "--pictures", self.pictures, "--labels", self.labels[TRAINING], "--resolution", options.resolution,
        )  # fmt: skip
        return [
            Step(
                "regressor",
                "the regressor",
                module(*command, "--checkpoint", whole, "--weights", unfrozen, "--samples", options.samples),
                [unfrozen],
            ),
            Step(
                "regressor",
                "the regressor, normalised as it is served",
                module(
                    *command, "--checkpoint", frozen, "--weights", self.trained, "--samples", options.samples // 8,
                    "--freeze", "--restart", "--rate", 2e-4,
                ),
                [self.trained],
                lambda: None if frozen.exists() else shutil.copy(whole, frozen),
            ),
        ]  # fmt: skip

    def _refinement(self) -> list[Step]:
        options, work = self.options, self.work
        if not options.refinement_samples:
            return []
        refined = work / "refinement.safetensors"
        return [
            Step(
                "refinement",
                "a second look that corrects the regressor (a trial; nothing serves it)",
                module(
                    "refinement", "--face-model", self.model, "--teacher-map", self.mapping, "--regressor",
                    self.trained, "--renders", work / "shards" / "r", "--pictures", self.pictures, "--labels",
                    self.labels[TRAINING], "--checkpoint", work / "refinement.pt", "--weights", refined, "--samples",
                    options.refinement_samples,
                ),
                [refined],
            )
        ]  # fmt: skip

    def _head(self) -> list[Step]:
        return [
            Step(
                "head",
                "the whole head, moved by the coefficients of the face",
                module("head_model", self.whole, self.heads, self.model, self.mapping, self.head),
                [self.head],
            )
        ]

    def _parser(self) -> list[Step]:
        teach = [self.label[0], "-m", "training.parser_labels", "teach", str(self.crops)]
        return [
            Step(
                "parser",
                "the crops that the parser learns from",
                module("parser_labels", "crops", self.pictures, self.crops),
                [self.crops],
            ),
            Step(
                "parser",
                "what the teachers say of them",
                [*teach, str(self.data / PARSING_TEACHER), str(self.parts)],
                [self.parts],
                self.ready_teacher,
            ),
            Step(
                "parser",
                "turned heads whose skin and hair are known",
                module(
                    "parser_renders", self.pictures, self.labels[TRAINING], self.heads, self.crops, self.parts,
                    self.parser_heads, "--count", self.options.parser_heads,
                ),
                [self.parser_heads],
            ),
            Step(
                "parser",
                "the parser",
                module(
                    "parser", "--crops", self.crops, "--labels", self.parts, "--renders", self.parser_heads,
                    "--checkpoint", self.work / "parser.pt", "--weights", self.parser, "--steps",
                    self.options.parser_steps,
                ),
                [self.parser],
            ),
        ]  # fmt: skip

    def _texture_and_screen(self) -> list[Step]:
        options, work = self.options, self.work
        return [
            Step(
                "texture",
                "the texture network",
                module(
                    "texture", "--face-model", self.head, "--regressor", self.trained, "--crops", self.crops,
                    "--labels", self.parts, "--cache", work / "textures.npy", "--checkpoint", work / "texture.pt",
                    "--weights", self.textured, "--steps", options.texture_steps,
                ),
                [self.textured],
            ),
            Step(
                "screen",
                "what the detector's R-Net need not see",
                module("screen", self.pictures, self.screen, "--scenes", options.scenes),
                [self.screen],
            ),
        ]  # fmt: skip

    def _albedo(self) -> list[Step]:
        weights = self.weights

        def assemble() -> None:
            weights.mkdir(exist_ok=True)
            for path in (self.mapping, self.trained, self.textured, self.screen, self.parser):
                shutil.copy(path, weights / path.name)
            shutil.copy(self.head, weights / self.model.name)

        return [
            Step(
                "albedo",
                "albedo modes and light",
                module(
                    "albedo", "--pictures", self.pictures, "--face-model", weights / self.model.name, "--regressor",
                    weights / self.trained.name, "--texture", weights / self.textured.name, "--parser",
                    weights / self.parser.name,
                ),
                [weights / ".complete"],
                assemble,
            ),
        ]  # fmt: skip

    def _certainty(self) -> list[Step]:
        work, regressor = self.work, self.weights / self.trained.name
        return [
            Step(
                "certainty",
                "the regressor's features and errors",
                module(
                    "certainty", "features", "--face-model", self.model, "--teacher-map", self.mapping, "--renders",
                    work / "shards" / "r", "--pictures", self.pictures, "--labels", self.labels[TRAINING],
                    "--regressor", regressor, "--resolution", self.options.resolution, "--out", work / "features.npz",
                    "--batches", self.options.certainty_batches,
                ),
                [work / "features.npz"],
            ),
            Step(
                "certainty",
                "what the regressor says of its errors",
                module("certainty", "train", work / "features.npz", "--regressor", regressor),
                [self.weights / "certainty.safetensors"],
            ),
        ]  # fmt: skip

    def _identity_correction(self) -> list[Step]:
        regressor, found = self.weights / self.trained.name, self.work / "identity-correction.npz"
        drawn = (self.pictures, self.labels[TRAINING], self.heads, found)
        return [
            Step(
                "identity-correction",
                "exact heads from several sides, and what dlib's network sees in them",
                module(
                    "identity_correction", "heads", *drawn, "--count", self.options.correction_heads,
                    "--resolution", self.options.resolution, "--teacher-map", self.mapping,
                ),
                [found],
            ),
            Step(
                "identity-correction",
                "what it says of the identity beyond the regressor",
                module("identity_correction", "--regressor", regressor, "fit", found),
                [self.weights / "identity_correction.safetensors"],
            ),
            Step(
                "person-correction",
                "what pictures from the front and from the sides say together",
                module("person_correction", "--regressor", regressor, found),
                [self.weights / "person_correction.safetensors"],
            ),
        ]  # fmt: skip

    def _evaluate(self) -> list[Step]:
        options = self.options
        judge = (
            "--weights", self.weights, "--teacher-map", self.mapping, "--limit", options.limit, "--leave-out",
            *options.leave_out,
        )  # fmt: skip
        steps = [
            Step(
                "evaluate", f"2D errors on {folder.name}",
                module("evaluate", "pictures", folder, self.labels[folder.name], *judge),
            )
            for folder in self.folders
            if folder.name != TRAINING
        ]  # fmt: skip
        if HEADS in self.labels:
            exact = self.work / f"heads-{TEST_SEED}-000"
            steps.append(
                Step(
                    "evaluate",
                    "3D errors on exact heads",
                    module("evaluate", "heads", exact, *judge, "--heads", self.heads),
                )
            )
        return steps
