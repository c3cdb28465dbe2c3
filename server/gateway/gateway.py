"""What both public endpoints share: the state, the counts, and the check of a request."""

from __future__ import annotations

import collections
import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from server.gateway import outcome
from server.gateway.admission import Admission, Ticket
from server.gateway.checks import check, find_model
from server.gateway.description import InferRequest, PublicModel
from server.gateway.parameters import is_large
from server.gateway.refusal import Refused, starting, stopping
from server.gateway.upstream import Upstream

PROTOCOLS: Final = ("grpc", "http")
EXTENSIONS: Final = ("binary_tensor_data", "parameters", "model_configuration")
"""The protocol's extensions that pass the gateway."""


class Gateway:
    """The state of the gateway.

    Attributes:
        upstream: Triton.
        admission: what is inside.
        draining: whether no new inference is taken.
        answers: (protocol, outcome) -> number of inference requests; `server.gateway.outcome` lists the outcomes.
        seconds: protocol -> seconds of all inference requests together.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.admission = Admission()
        self.draining = False
        # All of them from the start: Prometheus sees an increase only between two values that it has read.
        self.answers = collections.Counter(dict.fromkeys(itertools.product(PROTOCOLS, outcome.OUTCOMES), 0))
        self.seconds: dict[str, float] = collections.defaultdict(float)

    @property
    def ready(self) -> bool:
        """Whether inference requests are taken now."""
        return self.upstream.state.serving and not self.draining

    def state(self) -> str:
        """Return ``starting``, ``serving`` or ``draining``."""
        return "draining" if self.draining else "serving" if self.upstream.state.serving else "starting"

    @contextmanager
    def request(self, protocol: str) -> Iterator[Ticket]:
        """Count one inference request by its outcome: a context manager that gives its ticket, not entered yet.

        Raises:
            Refused: the gateway is draining, full, or Triton does not serve.
        """
        began, became, ticket = time.monotonic(), outcome.CANCELLED, self.admission.ticket()
        try:
            self.check_serving()
            self.admission.check_room()
            yield ticket
            became = ticket.outcome or outcome.OK
        except Refused as error:
            became = error.tag
            raise
        except Exception:
            became = ticket.outcome or outcome.FAULT
            raise
        finally:
            ticket.close()
            self.answers[protocol, became] += 1
            self.seconds[protocol] += time.monotonic() - began

    def check_serving(self) -> None:
        """See that Triton can be asked.

        Raises:
            Refused: ``ServerUnavailable``.
        """
        if self.draining:
            raise stopping()
        if not self.upstream.state.serving:
            raise starting()

    def find_model(self, name: str, version: str) -> PublicModel:
        """Find the public model that is meant.

        Raises:
            Refused: it, or its version, is not served.
        """
        return find_model(name, version, self.upstream.state.models, self.upstream.names)

    def check_public(self, name: str) -> None:
        """See that a model of this name is public.

        Raises:
            Refused: it is not.
        """
        if name not in self.upstream.names:
            find_model(name, "", {}, self.upstream.names)

    def check(self, request: InferRequest) -> bool:
        """See that Triton may be sent this request; return whether it is one of which few work at a time.

        Raises:
            Refused: with a sentence that names what is wrong.
        """
        check(request, self.find_model(request.model, request.version))
        return is_large(request.parameters)

    def is_model_ready(self, name: str, version: str) -> bool:
        """Return whether a public model takes requests.

        Raises:
            Refused: no such model is served.
        """
        self.check_public(name)
        return (
            self.ready
            and name in self.upstream.state.ready
            and (not version or version in self.upstream.state.models[name].versions)
        )


def log(line: str) -> None:
    """Write one line to stderr."""
    print(f"gateway: {line}", file=sys.stderr, flush=True)
