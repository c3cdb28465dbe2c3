"""A checkpoint of the official layout becomes a served version, on the real server, no configuration touched."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from export.__main__ import main
from export.models import MODEL_NAMES, get_model
from export.official.face_models import main as make_face_model
from export.stages.topology import FACE_MODEL_FILES
from networks.embedder.embedder import Embedder, default_weights
from server.control import Control
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.export.official import layouts
from tests.servers import serving

ROOT = Path(__file__).resolve().parents[3]
FACE_MODEL_PRODUCTS = {f"{what}.npz" for _, what, _ in FACE_MODEL_FILES}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the repository without versions of the networks that know a face model."""
    folder = tmp_path_factory.mktemp("official") / "model_repository"

    def products(directory: str, names: list[str]) -> list[str]:
        network = Path(directory).name in MODEL_NAMES and get_model(Path(directory).name).needs_face_model
        return [n for n in names if (network and n.isdigit()) or n in {*FACE_MODEL_PRODUCTS, "__pycache__"}]

    shutil.copytree(ROOT / "model_repository", folder, ignore=products)
    return folder


@pytest.fixture(scope="module")
def served(shared_context: None, repository: Path) -> Iterator[EmbeddedServer]:
    """Start the server with a random checkpoint of HRN's layout and a random BFM."""
    downloads = repository.parent
    checkpoint = layouts.hrn(seed=2)
    recon = checkpoint["net_recon"]
    assert isinstance(recon, dict)
    for key in recon:  # a face near the mean, as a trained network gives: random ones would leave the picture
        if key.startswith("final_layers"):
            recon[key] = recon[key] * 1e-3
    torch.save(checkpoint, downloads / "pytorch_model.pt")
    layouts.save_bfm(downloads / "BFM_model_front.mat")
    face_model = str(downloads / "bfm.npz")
    common = ["--face-model", face_model, "--repository", str(repository), "--version", "2"]
    assert make_face_model(["bfm", str(downloads), "-o", face_model]) == 0
    assert main(["regressor", "--weights", str(downloads / "pytorch_model.pt"), *common, "--precision", "fp32"]) == 0
    assert main(["texture", *common]) == 0
    layouts.save_arcface(downloads / "arcface.onnx")
    own = ["--weights", str(downloads / "arcface.onnx"), "--recipe", "arcface", "--repository", str(repository)]
    assert main(["embedder", *own, "--version", "2", "--precision", "fp32"]) == 0
    options = ServerOptions(
        repository=repository, log_file=repository.parent / "triton.log", model_control_mode="explicit"
    )
    with serving(on_free_ports(options)) as running:
        yield running


def _ask(server: EmbeddedServer, picture: bytes, *outputs: str, model: str = "face3d") -> grpc.InferResult:
    client = grpc.InferenceServerClient(server.grpc)
    image = grpc.InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[picture]], np.object_))
    requested = [grpc.InferRequestedOutput(name) for name in outputs]
    return client.infer(model, [image], outputs=requested, client_timeout=120)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_ensemble_answers_with_the_vertices_and_triangles_of_bfm(
    served: EmbeddedServer, portrait_bytes: bytes
) -> None:
    result = _ask(served, portrait_bytes, "vertices", "coefficients", "mesh")
    assert result.as_numpy("vertices").shape == (1, layouts.BFM_VERTICES, 3)
    assert result.as_numpy("coefficients").shape == (1, 257)
    mesh = trimesh.load_mesh(io.BytesIO(result.as_numpy("mesh").ravel()[0]), file_type="glb")
    assert isinstance(mesh, trimesh.Trimesh)
    assert len(mesh.faces) == layouts.BFM_TRIANGLES


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_embedder_in_arcface_s_format_is_served_with_vectors_of_its_own_length(
    served: EmbeddedServer, repository: Path, portrait_bytes: bytes
) -> None:
    told = json.loads((repository / "embedder" / "2" / "export.json").read_text())
    assert told["key"]["recipe"] == "arcface"
    result = _ask(served, portrait_bytes, "embedding", "embedder", model="embed")
    vector = result.as_numpy("embedding")
    assert vector.shape == (1, layouts.ARCFACE_LENGTH)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert result.as_numpy("embedder")[0, 0] != int(Embedder.load(default_weights()).fingerprint)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_built_in_topology_under_it_is_refused_by_name(
    served: EmbeddedServer, repository: Path, portrait_bytes: bytes
) -> None:
    topology = sorted((repository / "postprocess").glob("*/topology.npz"))[-1]
    own, control = topology.read_bytes(), Control(served.http)
    with np.load(topology) as kept:
        arrays = dict(kept)
    try:
        np.savez(topology, **{**arrays, "fingerprint": arrays["fingerprint"] + 1})
        control.load("postprocess")
        with pytest.raises(InferenceServerException, match=r"\[FaceModelMismatch\]"):
            _ask(served, portrait_bytes, "mesh")
    finally:
        topology.write_bytes(own)
        control.load("postprocess")
    assert _ask(served, portrait_bytes, "mesh").as_numpy("mesh").size == 1
