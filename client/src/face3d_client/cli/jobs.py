"""Pictures and the files of their results, planned before the first request and the same every time."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from face3d_client._mesh.formats import PARTS, SUFFIXES, safe_stem

__all__ = ["Job", "UsageError", "check_out", "plan"]

# Names of results: meshes, what lies beside them, and pictures.
_ENDS: Final = "|".join(
    [re.escape(suffix) for suffix in (*SUFFIXES, ".mtl")]
    + [rf"_{part}\.png" for part in PARTS]
    + [r"-preview\.png", r"-overlay\.png"]
)
_RESULT: Final = re.compile(rf"(?P<stem>.+?)(?P<face>-\d+)?(?:{_ENDS})", re.IGNORECASE)


class UsageError(Exception):
    """The command makes no sense; the sentence says why."""


@dataclass(frozen=True)
class Job:
    """One picture.

    Attributes:
        source: the file.
        name: how it is called in tables and lists.
        stem: path of its results without their suffix.
        alone: whether it is the only one, whose results have fixed names (face.glb, preview.png).
    """

    source: Path
    name: str
    stem: Path
    alone: bool = False

    def mesh(self, suffix: str, face: int | None) -> Path:
        """Name the file of the mesh; `face` numbers it where all faces of a picture are made."""
        return self._named("" if face is None else f"-{face}", suffix)

    def texture(self, face: int | None) -> Path:
        """Name the file of the skin's texture, as the one beside an OBJ is named."""
        mesh = self.mesh(".png", face)
        return mesh.with_name(f"{safe_stem(mesh.stem)}_texture.png")

    def extra(self, what: str, face: int | None) -> Path:
        """Name the file of a picture beside the mesh: ``preview`` or ``overlay``."""
        if self.alone and face is None:
            return self.stem.with_name(f"{what}.png")
        return self._named(f"-{what}" if face is None else f"-{face}-{what}", ".png")

    def _named(self, tail: str, suffix: str) -> Path:
        return self.stem.with_name(self.stem.name + tail + suffix)


def plan(arguments: Sequence[str], out: Path) -> list[Job]:
    """Make the jobs that the arguments of a command line mean.

    A folder stands for every file below it that is not hidden, mirrored below `out`; a pattern for what it matches
    (``**`` for any depth); a file for itself. The results of ``a/b.jpg`` are called ``a/b.*``; where two pictures would
    share a name, each keeps its suffix (``b.jpg.*``), and where even those agree, later ones are numbered. One file
    alone makes ``face.*``.

    Raises:
        UsageError: a word stands for nothing, or results would be written over the pictures.
    """
    if len(arguments) == 1 and Path(arguments[0]).is_file():
        source = Path(arguments[0])
        jobs = [Job(source, str(source), out / "face", alone=True)]
    else:
        jobs = _named(list(_without_duplicates(_expand(arguments, out))), out)
    _refuse_overwriting_sources(jobs)
    return jobs


def check_out(out: Path) -> None:
    """Refuse a folder for results that cannot be one, before anything is computed for it.

    Raises:
        UsageError: it is a file, or lies in one, or may not be written to.
    """
    there = next(path for path in (out, *out.parents, Path()) if path.exists())
    if not there.is_dir():
        raise UsageError(f"-o wants a folder, and {str(there)!r} is a file. Choose another name.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{str(there)!r} may not be written to. Choose another folder with -o.")


def _expand(arguments: Sequence[str], out: Path) -> Iterator[tuple[Path, Path]]:
    """Find the pairs of a file and its place below the output folder."""
    for word in arguments:
        path = Path(word)
        if path.is_dir():
            found = [(file, file.relative_to(path)) for file in _walk(path, out.resolve())]
        elif path.exists():
            found = [(path, Path(path.name))]
        else:
            matches = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute patterns)
            found = [(Path(name), Path(Path(name).name)) for name in matches if Path(name).is_file()]
        if not found:
            raise UsageError(
                f"there is no file in the folder {word!r}. Name one with pictures."
                if path.is_dir()
                else f"there is no file or folder {word!r}, and no file matches it. Check the path."
            )
        yield from found


def _walk(folder: Path, out: Path) -> Iterator[Path]:
    unreadable: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=unreadable.append):
        # Results of an earlier run are no pictures to work on.
        folders[:] = sorted(name for name in folders if name[0] != "." and (Path(parent) / name).resolve() != out)
        for name in sorted(files):
            path = Path(parent) / name
            # Reading a pipe or a device would never end. A link to nothing stays in: it is listed as a failure.
            if name[0] != "." and name != "failures.csv" and (path.is_file() or not path.exists()):
                yield path
    # A folder that may not be entered fails like a picture that may not be read: it is listed.
    yield from (Path(error.filename) for error in unreadable if Path(error.filename) != folder)


def _without_duplicates(pairs: Iterable[tuple[Path, Path]]) -> Iterator[tuple[Path, Path]]:
    seen: set[Path] = set()
    for file, place in pairs:
        real = file.resolve()
        if real not in seen:
            seen.add(real)
            yield file, place


def _named(pairs: list[tuple[Path, Path]], out: Path) -> list[Job]:
    # Compared without case: on some systems A.glb and a.glb are one file.
    shared = Counter(str(place.with_suffix("")).casefold() for _, place in pairs)
    jobs: list[Job] = []
    taken: set[str] = set()
    for file, place in pairs:
        stem = place if shared[str(place.with_suffix("")).casefold()] > 1 else place.with_suffix("")
        number = 1
        while str(name := stem if number == 1 else stem.with_name(f"{stem.name}-{number}")).casefold() in taken:
            number += 1
        taken.add(str(name).casefold())
        jobs.append(Job(file, str(file), out / name))
    return jobs


def _refuse_overwriting_sources(jobs: Sequence[Job]) -> None:
    """Refuse results that would be written over any picture of the run, in whatever format and for whichever face.

    Raises:
        UsageError: naming both.
    """
    # Compared without case, as on some systems.
    results = {
        (job.stem.parent.resolve(), stem.casefold()): job
        for job in jobs
        for stem in (job.stem.name, safe_stem(job.stem.name))
    }
    for source in (job.source.resolve() for job in jobs):
        named = _RESULT.fullmatch(source.name)
        stems = {named["stem"], named["stem"] + (named["face"] or "")} if named else set()
        hit = [results[key] for key in ((source.parent, stem.casefold()) for stem in stems) if key in results]
        alone = jobs[0].alone and source == jobs[0].stem.parent.resolve() / source.name
        if hit or (alone and source.name in ("preview.png", "overlay.png")):
            name = (hit or jobs)[0].name
            raise UsageError(f"results of {name} would be written over {source.name}: choose another -o.")
