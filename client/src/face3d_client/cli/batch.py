"""Processing of many pictures: requests, files, waiting for a server that is away, a record of each picture."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from face3d_client._client import Face3DClient
from face3d_client._errors import Face3DError, NoFace, ServerUnavailable
from face3d_client._mesh.formats import write_whole
from face3d_client._ordered import ordered_map
from face3d_client._protocol.options import DEFAULT_OUTPUTS, Options, Output
from face3d_client._results import Reconstruction
from face3d_client.cli.jobs import Job

__all__ = ["Batch", "Record", "Settings", "error_sentence", "face_as_json", "failures_csv"]

# A picture during whose turn the server goes away this often may well be why: it is given up, the rest goes on.
_OUTAGES_PER_PICTURE = 3


@dataclass(frozen=True)
class Settings:
    """What the command line asked for.

    Attributes:
        formats: suffixes of the mesh files, such as ``.glb``.
        all_faces: every face instead of one.
        min_size: with all faces: the longer side of a box, in source pixels, below which a face is left out.
        preview: write pictures of the face.
        overlay: write the photograph with the mesh drawn over it.
        skip_existing: leave out pictures whose results are all there.
        concurrency: pictures in work at the same time.
        outage: seconds to wait for a server that went away.
        options: what goes to the server.
    """

    formats: tuple[str, ...] = (".glb",)
    all_faces: bool = False
    min_size: float = 60.0
    preview: bool = False
    overlay: bool = False
    skip_existing: bool = False
    concurrency: int = 8
    outage: float = 60.0
    options: Options = field(default_factory=lambda: Options())

    def outputs(self) -> list[Output]:
        """List the outputs that the files need."""
        names: list[Output] = list(DEFAULT_OUTPUTS) if ".npz" in self.formats else ["mesh", "face", "warnings"]
        names.append("texture")  # the one inside the mesh is a JPEG
        if self.overlay:
            names += ["vertices", "coefficients", "landmarks", "camera"]
        if self.preview:
            names.append("preview")
        return list(dict.fromkeys(names))


@dataclass
class Record:
    """What became of one picture.

    Attributes:
        job: the picture.
        status: ``written`` also where some of several faces failed.
        files: what was written.
        faces: of each face written: index, box, score, warnings.
        failures: pairs of a reason (the exception's name) and a sentence.
    """

    job: Job
    status: Literal["written", "skipped", "failed"] = "failed"
    files: list[Path] = field(default_factory=list)
    faces: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)

    @property
    def server_gone(self) -> bool:
        """Whether it failed because nobody answered."""
        return any(reason == ServerUnavailable.__name__ for reason, _ in self.failures)

    def as_json(self) -> dict[str, Any]:
        """Make the record of ``--json``."""
        return {
            "source": str(self.job.source),
            "status": self.status,
            "files": [str(path) for path in self.files],
            "faces": self.faces,
            "errors": [{"reason": reason, "message": message} for reason, message in self.failures],
        }


def face_as_json(index: int, result: Reconstruction) -> dict[str, Any]:
    """Collect the numbers of a face that a script needs most."""
    return {
        "index": index,
        "box": [round(float(value), 2) for value in result.box],
        "score": round(result.score, 4),
        "warnings": list(result.warnings),
    }


class Batch:
    """Many pictures through one client."""

    def __init__(self, client: Face3DClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._options = settings.options.copy()
        self._options["outputs"] = settings.outputs()
        self._gone = threading.Event()

    @property
    def server_gone(self) -> bool:
        """Whether the server went away and did not come back in time: what follows was not tried."""
        return self._gone.is_set()

    def run(self, jobs: Sequence[Job]) -> Iterator[Record]:
        """Process jobs, a bounded number at the same time; records come in the order of the jobs."""
        return ordered_map(self.process, jobs, min(self._settings.concurrency, max(1, len(jobs))))

    def process(self, job: Job) -> Record:
        """Process one picture; what is wrong with it is in the record and not raised."""
        record = Record(job)
        if self._settings.skip_existing and all(path.exists() for path in self._expected(job)):
            record.status = "skipped"
            return record
        try:
            numbered = self._reconstruct_despite_outages(job)
            # Last face first: where number 0 is on disk, all of the picture is.
            for index, result in reversed(numbered):
                if isinstance(result, Face3DError):
                    record.failures.append((type(result).__name__, f"face {index}: {result}"))
                else:
                    record.files += self._write(job, index if self._settings.all_faces else None, result)
                    record.faces.insert(0, face_as_json(index, result))
        except (Face3DError, OSError) as error:
            record.failures.append((type(error).__name__, error_sentence(error)))
        record.status = "written" if record.faces else "failed"
        return record

    def _reconstruct_despite_outages(self, job: Job) -> list[tuple[int, Reconstruction | Face3DError]]:
        for outage in range(1, _OUTAGES_PER_PICTURE + 1):
            if self._gone.is_set():
                raise ServerUnavailable("not tried: the server went away.")
            try:
                return self._reconstruct(job)
            except ServerUnavailable as error:
                if not error.retryable or outage == _OUTAGES_PER_PICTURE or self._settings.outage <= 0:
                    raise
            self._wait_for_server()
        raise AssertionError("unreachable")

    def _reconstruct(self, job: Job) -> list[tuple[int, Reconstruction | Face3DError]]:
        if not self._settings.all_faces:
            return [(self._index, self._client.reconstruct(job.source, **self._options))]
        results = self._client.reconstruct_all(
            job.source, min_size=self._settings.min_size, return_exceptions=True, **self._options
        )
        if not results:
            raise NoFace(
                f"no face of at least {self._settings.min_size:g} pixels was found. "
                "Use a larger picture, or lower --min-size or --score-threshold."
            )
        for result in results:
            if isinstance(result, ServerUnavailable) and result.retryable:
                raise result  # the server went away in between: the whole picture again
        return list(enumerate(results))

    @property
    def _index(self) -> int:
        face = self._options.get("face")
        return face if isinstance(face, int) else 0

    def _wait_for_server(self) -> None:
        try:
            self._client.wait_ready(self._settings.outage)
        except ServerUnavailable:
            self._gone.set()
            raise

    def _expected(self, job: Job) -> list[Path]:
        face = 0 if self._settings.all_faces else None
        paths = [job.mesh(suffix, face) for suffix in self._settings.formats] + [job.texture(face)]
        paths += [job.extra("preview", face)] if self._settings.preview else []
        return paths + ([job.extra("overlay", face)] if self._settings.overlay else [])

    def _write(self, job: Job, face: int | None, result: Reconstruction) -> list[Path]:
        files = [write_whole(job.texture(face), result.texture_bytes)]
        if self._settings.preview:
            files.append(write_whole(job.extra("preview", face), result.preview_bytes))
        if self._settings.overlay:
            buffer = io.BytesIO()
            result.overlay(job.source).save(buffer, "PNG", compress_level=1)
            files.append(write_whole(job.extra("overlay", face), buffer.getvalue()))
        for suffix in self._settings.formats:
            files += [path for path in result.save(job.mesh(suffix, face)) if path not in files]
        return files


def error_sentence(error: Face3DError | OSError) -> str:
    """Write what went wrong, for a person."""
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    return error.message


def failures_csv(records: Sequence[Record]) -> bytes:
    """List file, reason and message of all failures, as CSV in UTF-8 with a byte order mark for spreadsheets."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file", "reason", "message"])
    for record in records:
        for reason, message in record.failures:
            writer.writerow([str(record.job.source), reason, " ".join(message.split())])
    # A name that is not valid UTF-8 came in as surrogates; it is listed with replacement characters.
    return text.getvalue().encode("utf-8-sig", errors="replace")
