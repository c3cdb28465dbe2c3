"""Changes versions on a running server: no request fails, none sees models of two releases, all change or none.

One model: the new version is renamed into place and the model loaded; Triton keeps the old version until the new one is
ready and lets its requests finish.

Several models that belong together, with the ensembles that use them (found out on Triton 2.51, and held by a test):

1. each ensemble is loaded with its steps fixed to the versions of now, while nothing else has changed on disk;
2. the new versions are put into place and each model loaded with both versions, so both serve;
3. each ensemble is loaded with its steps fixed to the new versions: the one moment at which its requests change over;
4. what is old is dropped: configurations get a new time, so that loading reads them from disk again, models then
   ensembles.

If anything fails before 3 is complete, 2 is taken back, and the ensembles return to what they were.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from server.control import Control, ControlError, Unreachable
from server.release.store import ReleaseError, Store

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
        undo: takes back `prepare` and `settle`, as far as they have happened.
    """

    def __init__(
        self,
        store: Store,
        changes: Mapping[str, Change],
        prepare: Callable[[], None],
        settle: Callable[[], None],
        undo: Callable[[], None],
    ) -> None:
        self._store = store
        self._changes = dict(changes)
        self._prepare, self._settle, self._undo = prepare, settle, undo

    def offline(self) -> None:
        """Change the repository only; a server sees it when it starts."""
        try:
            self._prepare()
            self._settle()
        except BaseException:
            self._undo()
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
            self._go_back(control, ensembles)
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

    def _go_back(self, control: Control, ensembles: list[str]) -> None:
        self._undo()
        for name in (*self._changes, *ensembles):
            self._store.touch(name)
            with contextlib.suppress(ControlError):  # it may be gone; and the first failure is what counts
                control.load(name)


def _with_steps_at(config: dict[str, Any], versions: Mapping[str, int]) -> dict[str, Any]:
    """An ensemble's configuration with the steps of some models fixed to a version."""
    fixed = copy.deepcopy(config)
    for step in fixed["ensemble_scheduling"]["step"]:
        if step["model_name"] in versions:
            step["model_version"] = versions[step["model_name"]]
    return fixed
