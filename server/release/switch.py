"""Changes versions on a running server: no request fails, none sees models of two releases, all change or none.

One model: the new version is renamed into place and the model loaded; Triton keeps the old version until the new one is
ready and lets its requests finish.

Several models that belong together, with the ensembles that use them (found out on Triton 2.51, and held by a test):

1. each ensemble is loaded with its steps fixed to the versions of now, while nothing else has changed on disk;
2. the new versions are put into place and each model loaded with both versions, so both serve;
3. each ensemble is loaded with its steps fixed to the new versions: the one moment at which its requests change over;
4. what is old is dropped: configurations get a new time, so that loading reads them from disk again, models then
   ensembles.

If anything fails, or the command is killed, `take_back` goes the same way backwards: what serves goes on serving until
every ensemble has moved.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from server.control import Control, ControlError, Unreachable
from server.release.store import Aside, ReleaseError, Store

# How long an ensemble may take to be ready after its steps are; it takes milliseconds.
_READY_WITHIN = 30.0


class SwitchFailed(ReleaseError):
    """The server did not take the change; it serves what it served before."""


@dataclass(frozen=True)
class Change:
    """A model's version before (None if it had none) and after."""

    old: int | None
    new: int


class Switch:
    """One change of one or more models, on disk and on a server.

    Args:
        store: the repository, locked by the caller.
        changes: model -> change.
        prepare: puts the new versions into the repository; both versions stand in it afterwards.
        settle: makes the new versions the highest, where `prepare` alone does not (going back).
        put_aside_as: what becomes of a new version when the change fails.
    """

    def __init__(
        self,
        store: Store,
        changes: Mapping[str, Change],
        prepare: Callable[[], None],
        settle: Callable[[], None],
        put_aside_as: Aside = "retired",
    ) -> None:
        self._store = store
        self._changes = dict(changes)
        self._prepare, self._settle, self._put_aside_as = prepare, settle, put_aside_as
        self.before = {name: store.model(name).versions for name in changes}

    def offline(self) -> None:
        """Change the repository only; a server sees it when it starts."""
        try:
            self._prepare()
            self._settle()
        except BaseException:
            take_back(self._store, None, self.before, self._put_aside_as)
            raise

    def live(self, control: Control) -> None:
        """Change the repository and the server.

        Raises:
            SwitchFailed: the server refused, or went away; repository and, where it answers, server are as before.
        """
        ensembles = [name for name in self._store.users(set(self._changes)) if control.serving(name)]
        alone = len(self._changes) == 1 or any(change.old is None for change in self._changes.values())
        try:
            if alone:
                self._prepare()
                self._settle()
                for name in self._changes:
                    control.load(name)
            else:
                self._together(control, ensembles)
            self._wait(control, ensembles)
        except BaseException as error:
            # The server may be gone; and the first failure is what counts.
            take_back(self._store, control, self.before, self._put_aside_as, lenient=True)
            if isinstance(error, Unreachable):
                raise SwitchFailed(f"{error} The repository is as it was.") from None
            if isinstance(error, ControlError):
                raise SwitchFailed(f"the server refused the change: {error} It serves what it served before.") from None
            raise

    def _together(self, control: Control, ensembles: list[str]) -> None:
        plain = {name: control.config(name) for name in (*ensembles, *self._changes)}
        old = {name: change.old or 0 for name, change in self._changes.items()}
        new = {name: change.new for name, change in self._changes.items()}
        for ensemble in ensembles:
            control.load(ensemble, _with_steps_at(plain[ensemble], old))
        self._prepare()
        for name in self._changes:
            both = {"specific": {"versions": sorted((old[name], new[name]))}}
            control.load(name, {**plain[name], "version_policy": both})
        for ensemble in ensembles:
            control.load(ensemble, _with_steps_at(plain[ensemble], new))
        self._settle()
        for name in (*self._changes, *ensembles):
            self._store.touch(name)
            control.load(name)

    def _wait(self, control: Control, ensembles: list[str]) -> None:
        deadline = time.monotonic() + _READY_WITHIN
        while True:
            serving = {name: control.serving(name) for name in self._changes}
            late = [name for name, change in self._changes.items() if change.new not in serving[name]]
            late += [name for name in ensembles if not control.is_ready(name)]
            if not late:
                return
            if time.monotonic() > deadline:
                raise ControlError(f"{', '.join(late)} did not become ready.")
            time.sleep(0.05)


def take_back(
    store: Store, control: Control | None, before: Mapping[str, Sequence[int]], why: Aside, *, lenient: bool = False
) -> None:
    """Return models to the versions that stood in the repository before a change that was not finished.

    Wherever the change was left: a version that the server has goes on serving until every ensemble is back.

    Args:
        store: the repository, locked by the caller.
        control: the server; None to change the repository only.
        before: model -> versions that stood in its folder.
        why: what becomes of versions that have come since.
        lenient: whether the server's refusals are passed over; the repository is put right in any event.

    Raises:
        ControlError: the server refused, or is gone, and ``lenient`` is false.
    """
    passed_over = contextlib.suppress(ControlError) if lenient else contextlib.nullcontext()
    ensembles: list[str] = []
    if control is not None:
        with passed_over:
            known = {entry.model for entry in control.index()}
            ensembles = [name for name in store.users(set(before)) if name in known]
            now = {name: store.current(name) or 0 for name in before}
            if all(control.serving(name) == [version] for name, version in now.items()):
                # Ensembles may follow the newest version here, and the next steps bring newer ones. Where folders and
                # server differ, their steps are fixed already.
                _fix_steps(control, ensembles, now)
    for name, versions in before.items():
        aside = store.aside(name)
        for number in versions:
            if aside.get(number) == "retired":
                store.bring_back(name, number)
    if control is not None:
        with passed_over:
            # Loading an ensemble also loads what lies in its models' folders: nothing that does not serve may be there.
            _put_aside_since(store, before, why, {name: set(control.serving(name)) for name in before})
            _to_old_ones(store, control, {name: max(numbers) for name, numbers in before.items() if numbers}, ensembles)
    _put_aside_since(store, before, why)
    for name in (*before, *ensembles):
        store.touch(name)
        if control is not None and before.get(name, True):  # of a model that had no version there is nothing to load
            with passed_over:
                control.load(name)


def _put_aside_since(
    store: Store, before: Mapping[str, Sequence[int]], why: Aside, but: Mapping[str, set[int]] = MappingProxyType({})
) -> None:
    """Put aside what has come into the folders, but for some versions of each model."""
    for name, versions in before.items():
        for number in set(store.model(name).versions) - set(versions) - but.get(name, set()):
            store.put_aside(name, number, why)


def _to_old_ones(store: Store, control: Control, old: Mapping[str, int], ensembles: Sequence[str]) -> None:
    """Have the old versions loaded beside what serves now, then move the ensembles over to them."""
    for name, version in old.items():
        serving = set(control.serving(name)) & set(store.model(name).versions)
        if serving - {version}:
            both = {"specific": {"versions": sorted(serving | {version})}}
            control.load(name, {**control.config(name), "version_policy": both})
    _fix_steps(control, ensembles, old)


def _fix_steps(control: Control, ensembles: Sequence[str], versions: Mapping[str, int]) -> None:
    for ensemble in ensembles:
        if control.serving(ensemble):
            control.load(ensemble, _with_steps_at(control.config(ensemble), versions))


def _with_steps_at(config: dict[str, Any], versions: Mapping[str, int]) -> dict[str, Any]:
    """Fix the steps of some models to a version in an ensemble's configuration."""
    fixed = copy.deepcopy(config)
    for step in fixed["ensemble_scheduling"]["step"]:
        if step["model_name"] in versions:
            step["model_version"] = versions[step["model_name"]]
    return fixed
