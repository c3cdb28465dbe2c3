"""What both public endpoints share: the state, the counts, and the check of a request."""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from server.gateway import outcomes
from server.gateway.admission import Admission, Ticket
from server.gateway.checks import check, find_model
from server.gateway.description import InferRequest, PublicModel
from server.gateway.refusal import Refused, starting, stopping
from server.gateway.upstream import Upstream

EXTENSIONS: Final = ("binary_tensor_data", "parameters", "model_configuration")
"""The protocol's extensions that pass the gateway."""


class Gateway:
    """The state of the gateway.

    Attributes:
        upstream: Triton.
        admission: what is inside.
        draining: whether no new inference is taken.
        answers: (protocol, outcome) -> number of inference requests; an outcome is ``ok``, ``cancelled``, the tag of a
            refusal (the gateway's, a model's or Triton's), or ``Fault``.
        seconds: protocol -> seconds of all inference requests together.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.admission = Admission()
        self.draining = False
        self.answers: collections.Counter[tuple[str, str]] = collections.Counter()
        self.seconds: dict[str, float] = collections.defaultdict(float)

    @property
    def ready(self) -> bool:
        """Whether inference requests are taken now."""
        return self.upstream.seen.serving and not self.draining

    def state(self) -> str:
        """``starting``, ``serving`` or ``draining``."""
        return "draining" if self.draining else "serving" if self.upstream.seen.serving else "starting"

    @contextmanager
    def request(self, protocol: str) -> Iterator[Ticket]:
        """Around one inference request: its ticket, not entered yet; it is counted by what becomes of it.

        Raises:
            Refused: the gateway is draining, full, or Triton does not serve.
        """
        began, outcome, ticket = time.monotonic(), outcomes.CANCELLED, self.admission.ticket()
        try:
            self.open()
            self.admission.check_room()
            yield ticket
            outcome = ticket.outcome
        except Refused as error:
            outcome = error.tag
            raise
        except Exception as error:
            outcome = outcomes.of_error(error)
            raise
        finally:
            ticket.close()
            self.answers[protocol, outcome] += 1
            self.seconds[protocol] += time.monotonic() - began

    def open(self) -> None:
        """See that Triton can be asked.

        Raises:
            Refused: ``ServerUnavailable``.
        """
        if self.draining:
            raise stopping()
        if not self.upstream.seen.serving:
            raise starting()

    def model(self, name: str, version: str) -> PublicModel:
        """The public model that is meant.

        Raises:
            Refused: it, or its version, is not served.
        """
        return find_model(name, version, self.upstream.seen.models, self.upstream.names)

    def known(self, name: str) -> None:
        """See that a model of this name is public.

        Raises:
            Refused: it is not.
        """
        if name not in self.upstream.names:
            find_model(name, "", {}, self.upstream.names)

    def check(self, request: InferRequest) -> None:
        """See that Triton may be sent this request.

        Raises:
            Refused: with a sentence that names what is wrong.
        """
        check(request, self.model(request.model, request.version))

    def is_model_ready(self, name: str, version: str) -> bool:
        """Whether a public model takes requests.

        Raises:
            Refused: no such model is served.
        """
        self.known(name)
        return (
            self.ready
            and name in self.upstream.seen.ready
            and (not version or version in self.upstream.seen.models[name].versions)
        )


def log(line: str) -> None:
    """Write one line to stderr."""
    print(f"gateway: {line}", file=sys.stderr, flush=True)
