"""deploy/proxy/nginx.conf, run by nginx in front of the real server."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from face3d_client import TLS, Face3DClient
from tritonclient.grpc import service_pb2

from server.service import Service
from tests.deploy.tools import program
from tests.server.calls import counter
from tests.server.gateway import http2

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Proxy:
    """Where it answers, and the certificate to trust."""

    https: int
    grpcs: int
    plain: int
    certificate: Path
    log: Path

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        context = ssl.create_default_context(cafile=str(self.certificate))
        connection = http.client.HTTPSConnection("localhost", self.https, context=context, timeout=30)
        with closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [made.getsockname()[1] for made in sockets]
    for made in sockets:
        made.close()
    return ports


@pytest.fixture(scope="module")
def proxy(running_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    nginx, folder = program("nginx"), tmp_path_factory.mktemp("proxy")
    program("openssl")
    subprocess.run(["bash", str(ROOT / "deploy/make-secrets.sh"), str(folder / "secrets")], check=True)
    https, grpcs, plain = free_ports(3)
    text = (ROOT / "deploy/proxy/nginx.conf").read_text()
    for old, new in (
        ("/tmp/", f"{folder}/"),
        ("face3d:8000", running_service.http),
        ("face3d:8001", running_service.grpc),
        ("/run/secrets/tls_certificate", str(folder / "secrets/tls.crt")),
        ("/run/secrets/tls_key", str(folder / "secrets/tls.key")),
        ("listen 8443", f"listen 127.0.0.1:{https}"),
        ("listen 8444", f"listen 127.0.0.1:{grpcs}"),
        ("worker_processes auto", "worker_processes 1"),
        ("/dev/stdout", str(folder / "access.log")),
    ):
        assert old in text
        text = text.replace(old, new)
    # Once more without TLS, for a client that writes HTTP/2 by hand, and before bare Triton, which unpacks what the
    # gateway refuses.
    block = text[text.rindex("  server {") : text.rindex("}")]
    bare = f"grpc://{running_service.triton.grpc}"
    block = block.replace(f"{grpcs} ssl", str(plain)).replace("grpc://face3d_grpc", bare)
    (folder / "nginx.conf").write_text(text[: text.rindex("}")] + block + "}\n")
    command = [nginx, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log"), "-g", "daemon off;"]
    process = subprocess.Popen(command)
    try:
        for _ in range(100):
            assert process.poll() is None, (folder / "error.log").read_text()
            try:
                socket.create_connection(("127.0.0.1", https), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield Proxy(https, grpcs, plain, folder / "secrets/tls.crt", folder / "access.log")
    finally:
        process.terminate()
        process.wait(20)


def test_a_face_comes_through_tls_by_http_and_by_grpc(proxy: Proxy, portrait_bytes: bytes) -> None:
    for url in (f"https://localhost:{proxy.https}", f"grpcs://localhost:{proxy.grpcs}"):
        with Face3DClient(url, tls=TLS(ca=proxy.certificate)) as client:
            assert client.ready()
            assert client.reconstruct(portrait_bytes, outputs=["coefficients"]).coefficients.values.size == 257


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/regressor/unload"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("GET", "/v2/cudasharedmemory/status"),
        ("GET", "/v2/trace/setting"),
        ("GET", "/v2/models/regressor/trace/setting"),
        ("GET", "/v2/logging"),
        ("POST", "//v2//repository/index"),
        ("POST", "/v2/x/../repository/index"),
        ("POST", "/v2/%72epository/index"),
    ],
)
def test_interfaces_that_change_the_server_do_not_pass(proxy: Proxy, method: str, path: str) -> None:
    status, _ = proxy.ask(method, path, b"" if method == "POST" else None)
    assert status == 403


def test_nor_do_they_by_grpc(proxy: Proxy) -> None:
    with triton.InferenceServerClient(
        f"localhost:{proxy.grpcs}", ssl=True, root_certificates=str(proxy.certificate)
    ) as client:
        assert client.is_model_ready("face3d")
        for call in (
            client.get_model_repository_index,
            client.get_system_shared_memory_status,
            client.get_trace_settings,
            client.get_log_settings,
        ):
            with pytest.raises(triton.InferenceServerException, match=r"(?i)permission|403"):
                call()
    assert grpc.StatusCode.PERMISSION_DENIED.name == "PERMISSION_DENIED"


def test_nothing_else_is_there(proxy: Proxy) -> None:
    assert proxy.ask("GET", "/metrics")[0] == 404
    assert proxy.ask("GET", "/")[0] == 404
    status, body = proxy.ask("GET", "/v2/models/face3d")
    assert status == 200
    assert json.loads(body)["name"] == "face3d"


def test_a_body_over_the_limit_is_refused_before_it_is_read(proxy: Proxy) -> None:
    context = ssl.create_default_context(cafile=str(proxy.certificate))
    connection = http.client.HTTPSConnection("localhost", proxy.https, context=context, timeout=30)
    with closing(connection):
        connection.putrequest("POST", "/v2/models/face3d/infer")
        connection.putheader("Content-Length", str(40 << 20))
        connection.endheaders()
        with connection.getresponse() as answer:
            assert answer.status == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity, gzip"])
def test_a_compressed_body_is_refused_as_triton_would_unpack_it_without_a_limit(proxy: Proxy, encoding: str) -> None:
    bomb = {"Content-Encoding": encoding}
    assert proxy.ask("POST", "/v2/models/face3d/infer", gzip.compress(bytes(1 << 20)), **bomb)[0] == 415


def test_nor_does_it_pass_by_grpc(proxy: Proxy, portrait_bytes: bytes) -> None:
    tensor = triton.InferInput("image", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[portrait_bytes]], dtype=object))
    wanted = [triton.InferRequestedOutput("faces")]
    address = f"localhost:{proxy.grpcs}"
    with triton.InferenceServerClient(address, ssl=True, root_certificates=str(proxy.certificate)) as client:
        assert client.infer("detect", [tensor], outputs=wanted).as_numpy("faces").shape == (1, 64, 15)
        with pytest.raises(triton.InferenceServerException, match=r"415|UNKNOWN|UNIMPLEMENTED"):
            client.infer("detect", [tensor], outputs=wanted, compression_algorithm="gzip")


def test_a_second_grpc_encoding_behind_a_harmless_one_does_not_pass(
    proxy: Proxy, running_service: Service, portrait_bytes: bytes
) -> None:
    """An old nginx looks at the first of two headers, and Triton unpacks by the second."""
    image = service_pb2.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1, 1])
    payload = len(portrait_bytes).to_bytes(4, "little") + portrait_bytes
    request = service_pb2.ModelInferRequest(model_name="detect", inputs=[image], raw_input_contents=[payload])
    message = request.SerializeToString()
    identity, compressed = ("grpc-encoding", "identity"), ("grpc-encoding", "gzip")

    def answered() -> float:
        return counter(running_service.triton, "nv_inference_request_success", "detect")

    before = answered()
    for headers in ([identity, compressed], [compressed, identity]):
        http2.call(f"127.0.0.1:{proxy.plain}", headers, gzip.compress(message), flag=1)
    time.sleep(1)
    assert answered() == before, "somebody has unpacked it"
    http2.call(f"127.0.0.1:{proxy.plain}", [identity], message, flag=0)
    deadline = time.monotonic() + 30
    while answered() == before:  # Triton counts a moment after it has answered
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_access_log_holds_no_header(proxy: Proxy) -> None:
    proxy.ask("GET", "/v2/models/face3d/ready?token=query-secret", authorization="Bearer header-secret")
    time.sleep(0.2)
    log = proxy.log.read_text()
    assert "/v2/models/face3d/ready" in log
    assert "secret" not in log
