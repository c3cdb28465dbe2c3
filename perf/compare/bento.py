"""BentoML around the ONNX files; pictures travel as the bytes of a file, and the answer as FastAPI's does."""

# No postponed annotations here: BentoML reads those of the endpoint.
import os
import sys
import threading
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from perf import store

PRODUCT = "FACE3D_COMPARE_PRODUCT"
"""The environment variable that tells the worker which ensemble's product it serves."""


@bentoml.service(
    workers=1,
    threads=len(os.sched_getaffinity(0)),
    traffic={"timeout": 120},
    metrics={"enabled": False},
    tracing={"sample_rate": 0.0},
    logging={"access": {"enabled": False}},
)
class Face3D:
    """One worker, which works on as many pictures at the same time as there are cores, a thread each."""

    def __init__(self) -> None:
        from perf.compare.bare_onnx import ParallelOnnx

        self.pipe = ParallelOnnx(os.environ[PRODUCT])
        self.lock, self.inside = threading.Lock(), 0

    @bentoml.api(route="/predict")  # type: ignore[untyped-decorator]
    def predict(self, picture: bytes, /) -> Annotated[bytes, ContentType("application/octet-stream")]:
        """Answer for the best face of a picture's file bytes; one alone gets every core inside the operators."""
        with self.lock:
            self.inside += 1
            alone = self.inside == 1
        try:
            return self.pipe.run(picture, alone).pack()
        finally:
            with self.lock:
                self.inside -= 1


def serve(product: str, port: int) -> None:
    """Become a server of the product on loopback."""
    home = store.FOLDER / "bentoml"
    home.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, PRODUCT: product, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", "serve", "perf.compare.bento:Face3D", "--host", "127.0.0.1"]
    os.execve(sys.executable, [*command, "--port", str(port)], environment)
