"""C: LitServe's batching around either kind of networks; pictures travel as base64 in JSON, as it reads them."""

# No postponed annotations here: LitServe reads those of decode_request and encode_response.
import base64
from typing import Any, cast

import litserve as lit
from fastapi import Request, Response

from perf.compare.work import Answer

BATCH, BATCH_WAIT = 8, 0.01


class Api(lit.LitAPI):  # type: ignore[misc]
    """A batch of pictures to a batch of answers. At the top of a module, as its workers are spawned."""

    def __init__(self, kind: str) -> None:
        super().__init__(max_batch_size=BATCH, batch_timeout=BATCH_WAIT)
        self.kind = kind

    def setup(self, device: str) -> None:
        """Load the networks in the worker."""
        from perf.compare.pipelines import pipeline

        self.pipe = pipeline(self.kind)

    def decode_request(self, request: Request) -> bytes:
        """JSON to the picture's bytes; what is called a request here is its JSON already."""
        return base64.b64decode(cast("dict[str, Any]", request)["image"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Pictures differ in size: a batch is a list."""
        return inputs

    def predict(self, inputs: list[bytes]) -> list[Answer]:
        """All of them."""
        return self.pipe.many(inputs)

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        """One answer a request."""
        return output

    def encode_response(self, output: Answer) -> Response:
        """The same body as behind FastAPI."""
        return Response(output.packed(), media_type="application/octet-stream")


def serve(kind: str, port: int) -> None:
    """Run until the process is ended."""
    server = lit.LitServer(Api(kind), accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False, num_api_servers=1)
