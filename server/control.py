"""A server's own interface over HTTP: which models are up, with which configuration; loading and unloading them.

Only the standard library is needed, so that a probe in a container starts in no time. The interface is Triton's (the
KServe v2 protocol and its repository extension).
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from server.errors import ServerError
from server.triton_log import clean

# No model of a repository is called so.
_NO_MODEL = "no-such-model"


class ControlError(ServerError):
    """The server refused what it was asked to do, or could not be reached."""


class Unreachable(ControlError):
    """Nobody answers, or the answer broke off: the server is not there, or on its way out."""


@dataclass(frozen=True)
class VersionState:
    """One version of one model as the server sees it; ``state`` is READY, LOADING, UNLOADING or UNAVAILABLE."""

    model: str
    version: int
    state: str
    reason: str


class Control:
    """Talks to one server.

    Args:
        endpoint: ``host:port`` of HTTP.
        admin_key: the key of the restricted interfaces, when the server was started with one.
        timeout: seconds for one answer; loading a model takes as long as the model needs.
    """

    def __init__(self, endpoint: str, admin_key: str | None = None, timeout: float = 300) -> None:
        self.endpoint, self.admin_key = endpoint, admin_key
        self._headers = {"admin-key": admin_key} if admin_key else {}
        self._timeout = timeout
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def request(self, path: str, body: dict[str, Any] | None = None, timeout: float | None = None) -> Any:
        """GET, or POST when there is a body; the answer's JSON (None when it is empty).

        Raises:
            Unreachable: no connection, or it broke off.
            ControlError: with what the server said.
        """
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(f"http://{self.endpoint}/{path}", data, self._headers)
            with self._opener.open(request, timeout=timeout or self._timeout) as answer:
                text = answer.read()
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            with error:
                reason = error_message(error.read()) or f"the server answered {error.code} to {path}."
            if error.code == 403:
                reason = f"{reason}: set FACE3D_ADMIN_KEY to the same key here and where the server is started."
            raise ControlError(reason) from None
        except (OSError, HTTPException, ValueError, OverflowError) as error:
            # URLError, timeouts, resets, half an answer, one that is not JSON; a port that is none.
            raise Unreachable(f"the server at {self.endpoint} cannot be reached ({cause(error)}).") from None

    def is_ready(self, model: str) -> bool:
        """Return whether the model (of an ensemble: every step) takes requests, which is not yet that it answers."""
        try:
            self.request(f"v2/models/{model}/ready", timeout=5)
        except ControlError:
            return False
        return True

    def config(self, model: str) -> dict[str, Any]:
        """Return the configuration the server uses, complete, in its JSON form."""
        config: dict[str, Any] = self.request(f"v2/models/{model}/config")
        return config

    def index(self) -> list[VersionState]:
        """Return every version of every model the server knows of."""
        entries = self.request("v2/repository/index", {})
        return [
            VersionState(e["name"], int(e["version"]), e.get("state", ""), clean(e.get("reason", "")))
            for e in entries
            if e.get("version")
        ]

    def serving(self, model: str) -> list[int]:
        """Return the versions of a model that are ready, ascending."""
        return sorted(e.version for e in self.index() if e.model == model and e.state == "READY")

    def load(self, model: str, config: dict[str, Any] | None = None, timeout: float | None = None) -> None:
        """Load a model anew from the repository; returns when it is ready.

        Args:
            model: its name. Ensembles that use it are loaded again with it.
            config: used in place of the one in the repository, until that changes. Without it, Triton 2.51 does nothing
                when neither the configuration nor the version folders have changed; with it, it always starts anew.
            timeout: seconds to wait, if other than for every answer.
        """
        parameters = {} if config is None else {"parameters": {"config": json.dumps(config)}}
        self.request(f"v2/repository/models/{model}/load", parameters, timeout)

    def takes_loads(self) -> bool:
        """Find out whether the server lets models be loaded (``--model-control-mode explicit``).

        Nothing says so but trying. A model that does not exist is unloaded, which changes nothing; a load of one that
        fails would leave the server-wide ready check false for good.

        Raises:
            ControlError: it refused for another reason, the key for instance.
        """
        try:
            self.unload(_NO_MODEL)
        except Unreachable:
            raise
        except ControlError as error:
            if "not allowed" in str(error):
                return False
            raise
        return True

    def unload(self, model: str) -> None:
        """Take a model out of service."""
        self.request(f"v2/repository/models/{model}/unload", {})


def error_message(body: bytes) -> str:
    """Return what the body of an error answer says."""
    try:
        return clean(str(json.loads(body)["error"]))
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()


def cause(error: Exception) -> str:
    """Return a few words on why a connection failed."""
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)
