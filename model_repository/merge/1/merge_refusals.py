"""The reason why a request to `merge` cannot be served."""

from __future__ import annotations


class Refused(Exception):
    """A request that cannot be served.

    Attributes:
        tag: the name of the client's exception: ``DifferentPeople``, ``BadOption``, ``BadFace`` or
            ``FaceModelMismatch``; or ``BadTensor`` for what only callers of this model alone can send.
    """

    def __init__(self, tag: str, sentence: str) -> None:
        super().__init__(sentence)
        self.tag = tag
