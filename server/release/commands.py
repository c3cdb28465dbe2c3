"""What the command `python -m server.release` does, as functions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server import probe
from server.control import Control, ControlError, Unreachable
from server.embedded import ServerOptions
from server.release.store import Kind, Record, Release, ReleaseError, Store, digest, size
from server.release.structure import check_structure
from server.release.switch import Change, Switch, take_back
from server.release.trial import try_candidates
from server.repository import SWITCHED, models_to_await


@dataclass
class Releases:
    """Release commands on one repository.

    Attributes:
        store: the repository.
        control: the server that serves from it; None to change only the repository.
        options: how a private server is started for a trial.
        say: takes lines of progress.
    """

    store: Store
    control: Control | None = None
    options: ServerOptions = ServerOptions()  # noqa: RUF009 - frozen
    say: Callable[[str], None] = lambda _: None

    # --- commands that change something ----------------------------------------------------------------------------
    def publish(self, candidates: Mapping[str, Path], note: str = "", trial: bool = True) -> Release:
        """Make new versions of one or more models and let them serve, all or none.

        Args:
            candidates: model -> version folder, or the one file a version needs.
            note: words for the record.
            trial: try them in a private server first; without, only their structure is checked.

        Raises:
            ReleaseError: with the reason; what served before still serves.
        """
        with self._at_work() as record:
            self._refuse_pinned(record, candidates)
            staged: dict[str, Path] = {}
            try:
                for name, source in candidates.items():
                    staged[name] = self.store.stage(name, source)
                    check_structure(self.store.model(name), staged[name])
                digests = {name: digest(folder) for name, folder in staged.items()}
                self._refuse_identical(digests)
                if trial:
                    try_candidates(self.store, staged, self.options, self.say)
                changes = {n: Change(self.store.current(n), self.store.next_version(n)) for n in staged}

                def prepare() -> None:
                    for name, folder in staged.items():
                        self.store.promote(name, folder, changes[name].new)

                self._switch(Switch(self.store, changes, prepare, lambda: None, "rejected"), changes)
                return self._record(record, "publish", changes, digests, note)
            finally:
                self.store.clean()

    def rollback(self, note: str = "") -> Release:
        """Go back to what served before the last release that is still in effect.

        Raises:
            ReleaseError: there is none, or a version of that time is no longer there.
        """
        with self._at_work() as record:
            release = self._in_effect(record)
            self._refuse_pinned(record, release.versions)
            return self._go_to(record, "rollback", release.previous, note)

    def pin(self, name: str, version: int) -> Release:
        """Let an older version of a model serve, and refuse new ones until it is unpinned."""
        with self._at_work() as record:
            self._refuse_pinned(record, {name: None})
            newer = [number for number in self.store.model(name).versions if number > version]
            record.pins[name] = newer
            return self._go_to(record, "pin", {name: version}, f"pinned to {version}")

    def unpin(self, name: str) -> Release:
        """Let the versions serve again that a pin put aside."""
        with self._at_work() as record:
            if name not in record.pins:
                raise ReleaseError(f"'{name}' is not pinned.")
            aside = [number for number in record.pins.pop(name) if self.store.aside(name).get(number) == "retired"]
            current = self.store.current(name)
            if not aside:
                return self._record(record, "unpin", {name: Change(current, current or 1)}, {}, "")
            changes = {name: Change(current, max(aside))}

            def prepare() -> None:
                for number in aside:
                    self.store.bring_back(name, number)

            self._switch(Switch(self.store, changes, prepare, lambda: None), changes)
            return self._record(record, "unpin", changes, {}, "")

    def prune(self, keep: int) -> dict[str, list[int]]:
        """Delete old versions for good.

        Args:
            keep: how many of each model stay besides the one that serves, newest first, at least 1: without one there
                is nothing to go back to. Rejected ones never stay.

        Returns:
            Model -> numbers that are gone.

        Raises:
            ReleaseError: ``keep`` is below 1.
        """
        if keep < 1:
            raise ReleaseError(f"{keep} versions to keep leave nothing to go back to: keep 1 or more.")
        gone: dict[str, list[int]] = {}
        with self._at_work(loads=False) as record:
            for name, model in self.store.models.items():
                if model.is_ensemble:
                    continue
                aside = self.store.aside(name)
                serving = {self.store.current(name), *(self.control.serving(name) if self.control else ())}
                rest = sorted({*model.versions, *aside} - serving, reverse=True)
                rejected = [number for number in rest if aside.get(number) == "rejected"]
                kept = [number for number in rest if number not in rejected][:keep]
                kept += record.pins.get(name, [])
                doomed = sorted(number for number in rest if number not in kept)
                for number in doomed:
                    self.store.remove(name, number)
                if doomed:
                    gone[name] = doomed
        return gone

    def take_back_interrupted(self) -> None:
        """Put right what a command that was killed has left, as every other command does first.

        Raises:
            ReleaseError: another command is at work, or the repository may not be written to.
        """
        if self.store.record().pending is not None:
            with self._at_work():
                pass

    # --- commands that only look -----------------------------------------------------------------------------------
    def versions(self) -> list[dict[str, Any]]:
        """List every version of every model that is no ensemble: number, state, size, whether it is as released."""
        record = self.store.record()
        released = {(n, v): d for r in record.releases for n, v in r.versions.items() if (d := r.digests.get(n))}
        rows = []
        for name, model in self.store.models.items():
            if model.is_ensemble:
                continue
            aside = self.store.aside(name)
            current = self.store.current(name)
            for number in sorted({*model.versions, *aside}):
                state: str = aside.get(number, "serves" if number == current else "older")
                folder = self.store.folder(name, number)
                if number in aside:
                    folder = folder.with_name(f".{aside[number]}-{number}")
                actual, known = digest(folder), released.get((name, number))
                rows.append(
                    {
                        "model": name,
                        "version": number,
                        "state": state + (", pinned" if number == current and name in record.pins else ""),
                        "bytes": size(folder),
                        "digest": actual,
                        "intact": known is None or known == actual,
                    }
                )
        return rows

    def status(self) -> dict[str, Any]:
        """Compare repository and server; ``healthy`` is true when every ensemble answers a real request."""
        record = self.store.record()
        report: dict[str, Any] = {
            "repository": {n: self.store.current(n) for n, m in self.store.models.items() if not m.is_ensemble},
            "pins": sorted(record.pins),
            "interrupted": record.pending is not None,
            "last_release": vars(record.releases[-1]) if record.releases else None,
        }
        if self.control is not None:
            awaited = models_to_await(self.store.models)
            targets = [name for name in awaited if name not in SWITCHED or self.control.serving(name)]
            report["server"] = {n: self.control.serving(n) for n in report["repository"]}
            report["answers"] = {name: self._probe(name) for name in targets}
            report["healthy"] = all(answer == "yes" for answer in report["answers"].values())
        return report

    def _probe(self, name: str) -> str:
        assert self.control is not None
        try:
            probe.check(self.control, name)
        except ControlError as error:
            return str(error)
        return "yes"

    # --- parts -----------------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def _at_work(self, loads: bool = True) -> Iterator[Record]:
        """Hold the lock, tidy up after commands that were interrupted, and give the record.

        Args:
            loads: whether the server will be asked to load models; if it takes no such word, say so now.
        """
        with self.store.lock():
            record = self.store.record()
            if self.control is not None:
                self.control.index()  # fail now rather than halfway
                if (loads or record.pending is not None) and not self.control.takes_loads():
                    raise ReleaseError(
                        f"the server at {self.control.endpoint} does not let its models be changed: start it with "
                        "--supervise S or --model-control-mode explicit, or change only the repository with --offline "
                        "and start the server anew."
                    )
            if record.pending is not None:
                self._recover(record)
            self.store.clean()
            yield record

    def _recover(self, record: Record) -> None:
        """Put the models that a killed command was changing back to what they were."""
        before = record.pending or {}
        self.say(f"an interrupted release of {', '.join(before)} is being taken back")
        take_back(self.store, self.control, before, "retired")
        record.pending = None
        self.store.write(record)

    def _refuse_pinned(self, record: Record, names: Mapping[str, object]) -> None:
        for name in names:
            self.store.model(name)
            if name in record.pins:
                raise ReleaseError(
                    f"'{name}' is pinned to version {self.store.current(name)}: unpin it first (unpin {name})."
                )

    def _refuse_identical(self, digests: Mapping[str, str]) -> None:
        same = [
            name
            for name, value in digests.items()
            if (current := self.store.current(name)) is not None and digest(self.store.folder(name, current)) == value
        ]
        if len(same) == len(digests):
            raise ReleaseError(f"{', '.join(same)}: the candidate is the very version that serves now.")

    def _in_effect(self, record: Record) -> Release:
        for release in reversed(record.releases):
            now = {name: self.store.current(name) for name in release.versions if name in self.store.models}
            if release.kind == "publish" and now == release.versions:
                if set(release.previous) != set(release.versions):
                    raise ReleaseError(f"release {release.number} was the first of its models: nothing to go back to.")
                return release
        raise ReleaseError("nothing that was published here is in effect: there is nothing to go back to.")

    def _go_to(self, record: Record, kind: Kind, versions: Mapping[str, int], note: str) -> Release:
        """Let older versions serve by putting aside what is newer."""
        changes: dict[str, Change] = {}
        newer: dict[str, list[int]] = {}
        for name, version in versions.items():
            if version not in self.store.model(name).versions:
                raise ReleaseError(f"version {version} of '{name}' is not in the repository any more.")
            changes[name] = Change(self.store.current(name), version)
            newer[name] = [number for number in self.store.model(name).versions if number > version]

        def settle() -> None:
            for name, numbers in newer.items():
                for number in numbers:
                    self.store.put_aside(name, number, "retired")

        moving = {name: change for name, change in changes.items() if change.old != change.new}
        if moving:
            self._switch(Switch(self.store, moving, lambda: None, settle), moving)
        return self._record(record, kind, changes, {}, note)

    def _switch(self, switch: Switch, changes: Mapping[str, Change]) -> None:
        # Pins are set only with the change itself: what is on disk until then is the record as it was.
        before = self.store.record()
        before.pending = switch.before
        self.store.write(before)
        try:
            if self.control is None:
                switch.offline()
            else:
                self.say(f"loading {', '.join(f'{name} {change.new}' for name, change in changes.items())}")
                switch.live(self.control)
        except (ReleaseError, Unreachable):
            before.pending = None
            self.store.write(before)
            raise

    def _record(
        self, record: Record, kind: Kind, changes: Mapping[str, Change], digests: dict[str, str], note: str
    ) -> Release:
        release = Release(
            number=len(record.releases) + 1,
            kind=kind,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            versions={name: change.new for name, change in changes.items()},
            previous={name: change.old for name, change in changes.items() if change.old is not None},
            digests=digests,
            note=note,
        )
        record.releases.append(release)
        record.pending = None
        self.store.write(record)
        return release
