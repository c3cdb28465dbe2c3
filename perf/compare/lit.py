"""LitServe's batching around one kind of pipeline; pictures travel as base64 in JSON, as LitServe reads them."""

# No postponed annotations here: LitServe reads those of decode_request and encode_response.
import base64
from typing import Any, cast

import litserve as lit
from fastapi import Request, Response

from perf.compare.repository_steps import Answer

BATCH, BATCH_WAIT = 8, 0.01


class Api(lit.LitAPI):  # type: ignore[misc]
    """Answers for a batch of pictures; defined at module level, as LitServe spawns its workers."""

    def __init__(self, kind: str, product: str) -> None:
        super().__init__(max_batch_size=BATCH, batch_timeout=BATCH_WAIT)
        self.kind, self.product = kind, product

    def setup(self, device: str) -> None:
        """Load the networks in the worker."""
        from perf.compare.pipelines import pipeline

        self.pipe = pipeline(self.kind, self.product)

    def decode_request(self, request: Request) -> bytes:
        """Decode the picture's file bytes; LitServe passes the request's parsed JSON."""
        return base64.b64decode(cast("dict[str, Any]", request)["image"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Return the list itself: pictures of different sizes cannot be stacked."""
        return inputs

    def predict(self, inputs: list[bytes]) -> list[Answer]:
        """Answer for the batch."""
        return self.pipe.run_batch(inputs)

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        """Return one result a request."""
        return output

    def encode_response(self, output: Answer) -> Response:
        """Encode the body as the FastAPI variant does."""
        return Response(output.pack(), media_type="application/octet-stream")


def serve(kind: str, product: str, port: int) -> None:
    """Serve ``kind`` of `perf.compare.pipelines` on loopback until the process ends."""
    server = lit.LitServer(Api(kind, product), accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False, num_api_servers=1)
