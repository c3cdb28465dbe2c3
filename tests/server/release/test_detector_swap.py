"""Two real detectors of one contract change places on a running server: YuNet with O-Net, and MTCNN."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.__main__ import main
from networks.detector.weights import default_weights
from server.control import Control
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.release.commands import Releases
from server.release.store import Store
from tests.service import Service

ROOT = Path(__file__).resolve().parents[3]
SERVED = ("preprocess", "detector", "detect")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """Serve the ensemble `detect` alone, in which models can be changed."""
    if not (ROOT / "model_repository" / "detector" / "1" / "model.onnx").is_file():
        pytest.skip("the detector is not exported: run `make export`")
    repository = tmp_path_factory.mktemp("swap") / "model_repository"
    for model in SERVED:
        shutil.copytree(ROOT / "model_repository" / model, repository / model)
    options = ServerOptions(repository=repository, model_control_mode="explicit", exit_timeout=10)
    with EmbeddedServer(on_free_ports(options)) as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(900)  # it exports a detector and tries it in a private server
def test_mtcnn_is_published_serves_and_is_taken_back(
    server: EmbeddedServer, portrait_bytes: bytes, tmp_path: Path
) -> None:
    def found() -> NDArray[np.float32]:
        (row,) = (row for row in Service(server.grpc).detect(portrait_bytes) if row[4] >= 0.7)
        return np.asarray(row)

    before = found()
    (tmp_path / "detector").mkdir()
    arguments = ["detector", "--weights", str(default_weights()), "--version", "2", "--repository", str(tmp_path)]
    assert main(arguments) == 0
    releases = Releases(Store(server.options.repository), Control(server.http))
    releases.publish({"detector": tmp_path / "detector" / "2"}, "the cascade")
    other = found()
    distance = np.linalg.norm((other - before)[5:].reshape(5, 2), axis=1).max()
    assert 0.5 < distance < 0.12 * (before[2] - before[0]), "the same face, by another network"
    releases.rollback()
    np.testing.assert_allclose(found(), before, atol=1e-3)
