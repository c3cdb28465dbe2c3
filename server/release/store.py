"""The repository on disk: version folders, the record of what was released, and the lock on both."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from server.errors import ServerError
from server.repository import Model, read_repository

_ASIDE = re.compile(r"^\.(retired|rejected)-([1-9]\d*)$")
# Files of a version: a dozen. A folder with more is another one, given by mistake, and would be copied for long.
_MOST_FILES = 1000
_LOCK, _RECORD = ".release.lock", "releases.json"


class ReleaseError(ServerError):
    """A release was not made; the repository is as it was."""


Kind = Literal["publish", "rollback", "pin", "unpin"]
Aside = Literal["retired", "rejected"]


@dataclass
class Release:
    """One entry of the record.

    Attributes:
        number: counts up from 1.
        kind: what was done.
        time: when, in ISO 8601, UTC.
        versions: model -> version that serves from now on.
        previous: model -> version that served before; absent if there was none.
        digests: model -> SHA-256 of the version folder's files.
        note: the user's words.
    """

    number: int
    kind: Kind
    time: str
    versions: dict[str, int]
    previous: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass
class Record:
    """What was released, what is pinned, and what is being changed now.

    Attributes:
        releases: the oldest first.
        pins: model -> versions that the pin has put aside.
        pending: model -> versions that stood in its folder when a change of it began; None when none is under way.
    """

    releases: list[Release] = field(default_factory=list)
    pins: dict[str, list[int]] = field(default_factory=dict)
    pending: dict[str, list[int]] | None = None


class Store:
    """A model repository that versions are released into.

    Args:
        repository: its folder.
        config_name: the flavour of the configurations, as for the server.
    """

    def __init__(self, repository: Path, config_name: str | None = None) -> None:
        self.repository = repository
        self.config_name = config_name
        self.models: dict[str, Model] = read_repository(repository, config_name)

    # --- what is there ---------------------------------------------------------------------------------------------
    def model(self, name: str) -> Model:
        """Find a model by name; ReleaseError if there is none."""
        if name not in self.models:
            raise ReleaseError(f"there is no model '{name}' in {self.repository}, only {', '.join(self.models)}.")
        return self.models[name]

    def current(self, name: str) -> int | None:
        """Return the version that serves: the highest number; None if the model has none."""
        return max(self.model(name).versions, default=None)

    def aside(self, name: str) -> dict[int, Aside]:
        """Find the versions that were put aside, by number."""
        found: dict[int, Aside] = {}
        for entry in self.model(name).folder.iterdir():
            if match := _ASIDE.match(entry.name):
                found[int(match[2])] = "retired" if match[1] == "retired" else "rejected"
        return found

    def next_version(self, name: str) -> int:
        """Return a version number that was never used."""
        return max([*self.model(name).versions, *self.aside(name), 0]) + 1

    def folder(self, name: str, version: int) -> Path:
        """Return the folder of a version, there or not."""
        return self.model(name).folder / str(version)

    def users(self, names: set[str]) -> list[str]:
        """Return the ensembles that use one of these models."""
        return [name for name, model in self.models.items() if model.is_ensemble and names & set(model.steps)]

    # --- changes: each is one rename -------------------------------------------------------------------------------
    def stage(self, name: str, source: Path) -> Path:
        """Copy a candidate into the model's folder under a name that Triton does not take for a version.

        Args:
            name: the model.
            source: a version folder, or the one file that a version folder of this model needs.

        Raises:
            ReleaseError: it is not there, lacks a file, or holds something that is neither file nor folder.
        """
        model = self.model(name)
        if model.is_ensemble:
            raise ReleaseError(f"'{name}' is an ensemble: it has no versions of its own.")
        staged = model.folder / f".staging-{secrets.token_hex(4)}"
        try:
            self._check_source(model, source)
            staged.mkdir()
            if source.is_file():
                shutil.copyfile(source, staged / model.needed_files()[0])
            else:
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, staged, ignore=ignored, dirs_exist_ok=True)
            _to_disk(staged)
        except BaseException as error:
            shutil.rmtree(staged, ignore_errors=True)
            if isinstance(error, OSError):  # shutil.Error is one: a full disk, a file that may not be read
                raise ReleaseError(f"{source} cannot be copied into the repository ({_cause(error)}).") from None
            raise
        return staged

    def _check_source(self, model: Model, source: Path) -> None:
        """See that a candidate can be copied: its files are there, are files, and find room."""
        needed = model.needed_files()
        if not source.exists():
            raise ReleaseError(f"there is nothing at {source}.")
        if not (source.is_file() or source.is_dir()):
            raise ReleaseError(f"{source} is neither a file nor a folder.")
        if source.is_file() and len(needed) != 1:
            raise ReleaseError(
                f"a version of '{model.name}' needs {', '.join(needed)}: give the folder that holds them."
            )
        paths = [source]
        if source.is_dir():
            for file in needed:
                if not (source / file).is_file():
                    raise ReleaseError(f"{source} lacks {file}, which a version of '{model.name}' needs.")
            if self.repository.resolve().is_relative_to(source.resolve()) or source.resolve() == model.folder.resolve():
                raise ReleaseError(f"{source} holds the repository or all of a model: give one version's folder.")
            paths = list(itertools.islice(source.rglob("*"), _MOST_FILES + 1))
            if len(paths) > _MOST_FILES:
                raise ReleaseError(f"{source} holds more than {_MOST_FILES} files: give one version's folder.")
        for path in paths:
            if (path.is_symlink() and path != source) or not (path.is_file() or path.is_dir()):
                raise ReleaseError(f"{path} is neither a file nor a folder.")
        wanted, free = sum(path.stat().st_size for path in paths), shutil.disk_usage(self.repository).free
        if wanted > free:
            raise ReleaseError(
                f"{source} cannot be copied into the repository: it has {wanted / 1e6:.0f} MB, and {free / 1e6:.0f} MB "
                "are free there."
            )

    def promote(self, name: str, staged: Path, version: int) -> None:
        """Make a staged candidate a version: the moment from which a load finds it."""
        staged.rename(self.folder(name, version))
        self.touch(name)

    def put_aside(self, name: str, version: int, why: Aside) -> None:
        """Take a version out of what Triton sees."""
        self.folder(name, version).rename(self.model(name).folder / f".{why}-{version}")
        self.touch(name)

    def bring_back(self, name: str, version: int) -> None:
        """Undo `put_aside` of a retired version."""
        (self.model(name).folder / f".retired-{version}").rename(self.folder(name, version))
        self.touch(name)

    def touch(self, name: str) -> None:
        """Give the configuration a new time: Triton reads a model anew only when a time has changed."""
        folder = self.model(name).folder
        for path in (folder / "config.pbtxt", *folder.glob("configs/*.pbtxt")):
            if path.exists():
                os.utime(path)

    def remove(self, name: str, version: int) -> None:
        """Delete a version for good, wherever it stands; renamed first, so that Triton never meets half of it."""
        folder = self.model(name).folder
        for path in (folder / str(version), folder / f".retired-{version}", folder / f".rejected-{version}"):
            if path.exists() or path.is_symlink():
                doomed = folder / f".staging-{secrets.token_hex(4)}"
                path.rename(doomed)
                _delete(doomed)

    def clean(self) -> int:
        """Remove what interrupted commands left half copied; how many there were. Only under the lock."""
        leftovers = [path for model in self.models.values() for path in model.folder.glob(".staging-*")]
        for path in leftovers:
            _delete(path)
        return len(leftovers)

    # --- the record ------------------------------------------------------------------------------------------------
    def record(self) -> Record:
        """Read the record as it stands on disk; an empty one if nothing was ever released."""
        path = self.repository / _RECORD
        if not path.is_file():
            return Record()
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            releases = [Release(**entry) for entry in data["releases"]]
            return Record(releases, data["pins"], data["pending"])
        except (ValueError, KeyError, TypeError) as error:
            raise ReleaseError(f"{path} is not a record of releases ({error}): mend it or move it away.") from None

    def write(self, record: Record) -> None:
        """Replace the record at once."""
        path = self.repository / _RECORD
        temporary = path.with_name(f".{_RECORD}.{secrets.token_hex(4)}")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(asdict(record), file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ReleaseError(f"the record of releases cannot be written ({_cause(error)}).") from None

    def _lock_file(self) -> IO[str]:
        try:
            return (self.repository / _LOCK).open("a+")
        except OSError as error:
            raise ReleaseError(f"{self.repository} cannot be changed ({_cause(error)}).") from None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other release commands away; ReleaseError if one is at work. The kernel lets go of it in any event."""
        with self._lock_file() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise ReleaseError(
                    f"another release command (process {owner}) is at work on {self.repository}: try again when it is "
                    "done."
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            # What another command did while this one was being set up counts.
            self.models = read_repository(self.repository, self.config_name)
            yield


def digest(folder: Path) -> str:
    """Compute the SHA-256 over the names and contents of a version folder's files, without Python's caches."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(str(path.relative_to(folder)).encode() + b"\0")
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def size(folder: Path) -> int:
    """Add up the bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _delete(path: Path) -> None:
    """Remove a folder, or a link to one without what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _to_disk(folder: Path) -> None:
    """Write files and folders to the disk, so that a rename that survives a power cut has something to name."""
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cause(error: OSError) -> str:
    # copytree puts (source, target, reason) of each file into one error.
    return error.strerror or str(error.args[0][0][2] if error.args and isinstance(error.args[0], list) else error)


def as_json(value: Any) -> str:
    """Write JSON for people and scripts."""
    return json.dumps(value, indent=1, sort_keys=True)
