"""A fused picture cannot be had without a manifest that holds, whoever asks and by whatever way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from face3d_client import read_manifest
from tritonclient.utils import InferenceServerException

from server import signing
from server.control import Control
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.errors import ModelLoadFailed
from server.service import PublicOptions, Service
from tests.server.repositories import ECHO, arithmetic, ensemble, python_model
from tests.servers import serving

STATEMENT = 'The crews of "both" agreed,\nto a test.'
Pair = tuple[bytes, bytes]


@pytest.fixture(scope="module")
def photographs(portrait_bytes: bytes, portrait_jpeg: bytes) -> Pair:
    return portrait_bytes, portrait_jpeg


def fused(address: str, pair: Pair, kind: Any = triton, **parameters: Any) -> bytes:
    inputs = []
    for name, data in zip(("source", "target"), pair, strict=True):
        inputs.append(kind.InferInput(name, [1], "BYTES"))
        inputs[-1].set_data_from_numpy(np.array([data], np.object_))
    client = kind.InferenceServerClient(address)
    answer = client.infer("fuse", inputs, outputs=[kind.InferRequestedOutput("picture")], parameters=parameters)
    picture: bytes = answer.as_numpy("picture")[0]
    return picture


@pytest.mark.parametrize(
    ("way", "picture_format"), [("grpc", "png"), ("http", "jpeg"), ("bare", "jpeg")], ids=["grpc", "http", "bare"]
)
def test_every_way_gives_a_signed_picture(
    running_service: Service, server: EmbeddedServer, photographs: Pair, way: str, picture_format: str
) -> None:
    kind: Any = triton_http if way == "http" else triton
    address = {"grpc": running_service.grpc, "http": running_service.http, "bare": server.grpc}[way]
    picture = fused(address, photographs, kind, consent=STATEMENT, picture_format=picture_format)
    assert running_service.signing is not None
    found = read_manifest(picture, trust=running_service.signing / signing.ROOT)
    assert found is not None
    assert (found.state, found.failures) == ("Trusted", ())
    assert found.consent == " ".join(STATEMENT.split())
    assert found.actions == ("c2pa.opened", "c2pa.placed", "c2pa.edited")
    assert found.source_type is not None
    assert found.source_type.endswith("/compositeWithTrainedAlgorithmicMedia")
    logged = re.search(rf'"?fusion: signed {re.escape(found.label)} consent=(.*)', server.log())
    assert logged is not None
    words = json.loads(logged[1].removesuffix('"').replace('\\"', '"').replace("\\\\", "\\"))
    assert words == found.consent


@pytest.mark.parametrize("way", ["gateway", "bare"])
def test_nobody_gets_one_without_saying_who_agreed(
    running_service: Service, server: EmbeddedServer, photographs: Pair, way: str
) -> None:
    address = running_service.grpc if way == "gateway" else server.grpc
    for given in ({}, {"consent": " "}):
        with pytest.raises(InferenceServerException, match=r"\[ConsentRequired\] a fused picture needs"):
            fused(address, photographs, **given)


def test_a_certificate_that_cannot_sign_keeps_the_model_away(tmp_path: Path) -> None:
    files = signing.make_test_certificate(tmp_path / "signing")
    options = on_free_ports(
        ServerOptions(
            model_control_mode="explicit",
            load_models=("fusion",),
            fusion=True,
            fusion_certificate=files.certificate.with_name(signing.ROOT),
            fusion_key=files.key,
        )
    )
    with pytest.raises(ModelLoadFailed, match="FACE3D_FUSION_CERTIFICATE names cannot sign C2PA manifests"):
        EmbeddedServer(options).start()


def test_what_is_off_is_not_loaded_and_cannot_be(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    arithmetic(repository)
    ensemble(repository)
    python_model(repository, "blend", ECHO)
    ensemble(repository, "fuse", steps=("arithmetic", "blend"), output="y")
    options = on_free_ports(ServerOptions(repository=repository, model_control_mode="explicit", admin_key="sesame" * 3))
    with serving(options) as running:
        control = Control(running.http, "sesame" * 3)
        assert {entry.model for entry in control.index()} == {"arithmetic", "chain"}
        with pytest.raises(Exception, match="fuse"):
            control.load("fuse")
        assert not running.is_ready("fuse")


def test_the_gateway_says_how_it_is_turned_on(tmp_path: Path, photographs: Pair) -> None:
    repository = tmp_path / "models"
    arithmetic(repository)
    ensemble(repository)
    ensemble(repository, "fuse")
    with Service(on_free_ports(ServerOptions(repository=repository)), PublicOptions()) as running:
        assert running.signing is None
        for kind, address in ((triton, running.grpc), (triton_http, running.http)):
            with pytest.raises(
                InferenceServerException, match=r"\[NotServed\] `fuse` is off on this server: .*--fusion"
            ):
                fused(address, photographs, kind, consent=STATEMENT)
