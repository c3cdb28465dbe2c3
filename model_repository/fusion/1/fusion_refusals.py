"""What a request is refused with."""

from __future__ import annotations


class Refused(Exception):
    """A request that cannot be served.

    Attributes:
        tag: the name of the client's exception.
    """

    def __init__(self, tag: str, sentence: str) -> None:
        super().__init__(sentence)
        self.tag = tag
