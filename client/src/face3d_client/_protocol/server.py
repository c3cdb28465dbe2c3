"""Answers about the server itself: its models, its name and version."""

from __future__ import annotations

from dataclasses import dataclass

from face3d_client._text import printable

__all__ = ["ModelStatus", "ServerInfo"]


@dataclass(frozen=True)
class ModelStatus:
    """A version of a model on the server.

    Attributes:
        name: the model's name.
        version: its version; empty where none could be loaded.
        state: READY, UNAVAILABLE, LOADING or UNLOADING; empty where it was never loaded.
        reason: why it is not ready, in the server's words.

    None of them holds control characters, whatever the server wrote.
    """

    name: str
    version: str
    state: str
    reason: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "version", "state", "reason"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.state == "READY"


@dataclass(frozen=True)
class ServerInfo:
    """Who answers.

    Attributes:
        name: mostly ``triton``.
        version: Triton's version.
        extensions: the protocol extensions it speaks.

    None of them holds control characters, whatever the server wrote.
    """

    name: str
    version: str
    extensions: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))
        object.__setattr__(self, "version", printable(self.version))
        object.__setattr__(self, "extensions", tuple(printable(extension) for extension in self.extensions))
