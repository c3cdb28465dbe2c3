"""What a model repository holds: configurations, versions, ensembles, and whether the build products are there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from server.errors import ExportMissing, RepositoryInvalid

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_REPOSITORY = Path(os.environ.get("FACE3D_REPOSITORY", ROOT / "model_repository"))

# Triton keeps a version in a signed integer of 64 bits.
LARGEST_VERSION = 2**63 - 1

SWITCHED: Final = frozenset({"fuse"})
"""Ensembles that are served only where the operator has turned them on (``python -m server --fusion``)."""

ASKED: Final[Mapping[str, tuple[str, ...]]] = {"postprocess": ("enhance",), "fusion": ("enhance",)}
"""Python model -> models in no ensemble that it sends requests of its own to."""


# What Triton looks for in a version folder when the configuration names no file, by backend or platform.
_DEFAULT_FILES = {"onnxruntime": "model.onnx", "onnxruntime_onnx": "model.onnx", "tensorrt_plan": "model.plan"}
_DEFAULT_FILES |= {"tensorrt": "model.plan", "python": "model.py"}
# Build products that a Python model reads beside its code.
_EXTRA_FILES = {
    "postprocess": ("topology.npz",),
    "fusion": ("topology.npz",),
    "merge": ("chart.npz",),
    "steady": ("expressions.npz",),
}


@dataclass(frozen=True)
class Model:
    """One model of a repository, as its configuration describes it."""

    name: str
    folder: Path
    config: Any  # model_config_pb2.ModelConfig; protobuf's generated classes carry no types here

    @property
    def is_ensemble(self) -> bool:
        """Whether the model is only a wiring of other models."""
        return bool(self.config.platform == "ensemble")

    @property
    def steps(self) -> list[str]:
        """Names of the models an ensemble is made of, in the order of its configuration; empty for a leaf."""
        return [step.model_name for step in self.config.ensemble_scheduling.step]

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of the models that this one sends requests of its own to."""
        return ASKED.get(self.name, ())

    @property
    def versions(self) -> list[int]:
        """The numbers of the version folders, ascending."""
        return sorted(int(entry.name) for entry in self.folder.iterdir() if entry.is_dir() and is_version(entry.name))

    def needed_files(self) -> tuple[str, ...]:
        """Return the names of the files that a version folder must hold."""
        if self.is_ensemble:
            return ()
        if self.plan_files():
            return _EXTRA_FILES.get(self.name, ())
        named = str(self.config.default_model_filename)
        default = _DEFAULT_FILES.get(self.config.backend) or _DEFAULT_FILES.get(self.config.platform)
        main = named or default
        return (*((main,) if main else ()), *_EXTRA_FILES.get(self.name, ()))

    def plan_files(self) -> tuple[str, ...]:
        """Return the names of plans, one a kind of GPU, of which a version folder must hold at least one.

        Empty where the configuration names a default file: then that one is needed, whatever the GPU.
        """
        if self.config.default_model_filename:
            return ()
        return tuple(sorted(self.config.cc_model_filenames.values()))

    def warmup_files(self) -> set[str]:
        """Return the names of the samples that must lie in the model's ``warmup`` folder."""
        inputs = (value for sample in self.config.model_warmup for value in sample.inputs.values())
        return {value.input_data_file for value in inputs if value.input_data_file}


def is_version(name: str) -> bool:
    """Return whether Triton takes a folder of this name for a version: 1 to 2^63 - 1, without zeros in front."""
    return name.isascii() and name.isdigit() and not name.startswith("0") and int(name) <= LARGEST_VERSION


def read_config(path: Path) -> Any:
    """Parse one ``config.pbtxt``.

    Raises:
        RepositoryInvalid: it is not a model configuration; the parser's line is in the message.
    """
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise RepositoryInvalid(f"{path} is not a valid model configuration: {error}") from None


def read_repository(repository: Path, config_name: str | None = None) -> dict[str, Model]:
    """Read every model of a repository.

    Args:
        repository: the folder with one folder a model.
        config_name: the flavour, as in ``--model-config-name``: ``configs/NAME.pbtxt`` where a model has one, else its
            ``config.pbtxt``.

    Raises:
        RepositoryInvalid: no such folder, no model in it, or a configuration that cannot be read.
    """
    if not repository.is_dir():
        raise RepositoryInvalid(f"the model repository {repository} does not exist.")
    models = {}
    for folder in sorted(repository.iterdir()):
        flavour = folder / "configs" / f"{config_name}.pbtxt"
        path = flavour if config_name and flavour.is_file() else folder / "config.pbtxt"
        if path.is_file():
            config = read_config(path)
            if config.name not in ("", folder.name):
                raise RepositoryInvalid(f"{path} names the model '{config.name}' but its folder is '{folder.name}'.")
            models[folder.name] = Model(folder.name, folder, config)
    if not models:
        raise RepositoryInvalid(f"the model repository {repository} holds no model (no folder with a config.pbtxt).")
    return models


def with_steps(models: dict[str, Model], names: Iterable[str]) -> dict[str, Model]:
    """Return the named models, those that ensembles among them are made of, and those that any of these asks.

    Raises:
        RepositoryInvalid: a name is not in the repository.
    """
    chosen: dict[str, Model] = {}
    for name in names:
        if name not in models:
            raise RepositoryInvalid(f"there is no model '{name}' in the repository, only {', '.join(models)}.")
        chosen[name] = models[name]
        chosen |= with_steps(models, (*models[name].steps, *(asked for asked in models[name].asked if asked in models)))
    return chosen


def without(models: dict[str, Model], names: Iterable[str]) -> dict[str, Model]:
    """Return the models but for the named ensembles, and for the models that only these are made of."""
    left_out = set(names)
    kept = {name: model for name, model in models.items() if name not in left_out}
    used = {step for model in kept.values() for step in model.steps}
    unused = {step for name in left_out & models.keys() for step in models[name].steps} - used
    return {name: model for name, model in kept.items() if name not in unused}


def link_models(models: dict[str, Model], folder: Path) -> Path:
    """Fill a folder with links to the models' folders: a repository that holds only these."""
    folder.mkdir()
    for name, model in models.items():
        (folder / name).symlink_to(model.folder.resolve(), target_is_directory=True)
    return folder


def check_products(models: dict[str, Model]) -> None:
    """Refuse a repository whose highest versions lack a file, before Triton reports it in its own words.

    Where a configuration names a plan for each kind of GPU (`cc_model_filenames`) one of them is enough: which GPU
    there is, only the server finds out, and `python -m export.tensorrt --check` holds its plan against it.

    Raises:
        ExportMissing: naming the first file that is missing.
    """
    for model in models.values():
        versions = model.versions
        if not versions:
            raise ExportMissing(f"{_short(model.folder)} has no version folder: run `make export`.")
        needed = [model.folder / str(versions[-1]) / name for name in model.needed_files()]
        for path in (*needed, *(model.folder / "warmup" / name for name in sorted(model.warmup_files()))):
            if not path.exists():
                raise ExportMissing(f"{_short(path)} is missing: run `make export`.")
        plans = model.plan_files()
        newest = model.folder / str(versions[-1])
        if plans and not any((newest / name).exists() for name in plans):
            raise ExportMissing(
                f"{_short(newest)} has no plan for any GPU ({', '.join(plans)}): run `make plans` on the machine "
                "that serves."
            )


def models_to_await(models: dict[str, Model]) -> tuple[str, ...]:
    """Return the names whose readiness means that the service is up: the ensembles, or every model if there are none.

    An ensemble is ready only when all its steps are, and it is what clients call. The server-wide ready check is not
    used: it stays false after one failed load, whatever happens later.
    """
    ensembles = tuple(name for name, model in models.items() if model.is_ensemble)
    return ensembles or tuple(models)


def covering(steps: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Find the fewest ensembles whose steps, together, are those of all: what a probe has to ask.

    Args:
        steps: ensemble -> names of its steps.
    """
    rest = {name: set(models) for name, models in steps.items()}
    missing = set().union(*rest.values())
    chosen: list[str] = []
    while missing:
        best = max(rest, key=lambda name: len(rest[name] & missing))
        chosen.append(best)
        missing -= rest.pop(best)
    return tuple(chosen)


def _short(path: Path) -> str:
    """Return ``path`` as a user in the current folder would write it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
