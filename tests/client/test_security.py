"""TLS, mutual TLS, tokens: against a real Triton that demands them."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from face3d_client import TLS, AccessDenied, AsyncFace3DClient, Face3DClient, Face3DError, Retry, ServerUnavailable

from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.client import stand_in
from tests.servers import serving

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the keys, is not here")

ONCE = Retry(attempts=1)


@dataclass(frozen=True)
class Keys:
    """PEM files of an authority, and of a certificate with its key for 127.0.0.1 that the authority signed."""

    ca: Path
    cert: Path
    key: Path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")

    def openssl(words: str) -> None:
        subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)

    curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    openssl(f"req -x509 {curve} -keyout ca.key -out ca.pem -days 2 -subj /CN=face3d-test-authority")
    openssl(f"req {curve} -keyout server.key -out server.csr -subj /CN=localhost")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem")
    return Keys(folder / "ca.pem", folder / "server.pem", folder / "server.key")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Iterator[EmbeddedServer]:
    """GRPC with mutual TLS; HTTP plain, its inference closed to who has no token."""
    options = ServerOptions(
        repository=stand_in.build(tmp_path_factory.mktemp("guarded") / "repository"),
        extra=(
            "--grpc-use-ssl-mutual=1",
            f"--grpc-root-cert={keys.ca}",
            f"--grpc-server-cert={keys.cert}",
            f"--grpc-server-key={keys.key}",
            "--http-restricted-api=inference:authorization=Bearer sesame",
        ),
    )
    with serving(on_free_ports(options)) as running:
        yield running


@pytest.fixture(scope="module")
def https(guarded: EmbeddedServer, keys: Keys) -> Iterator[str]:
    """The same HTTP door behind a proxy that ends TLS, which Triton leaves to others."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(keys.cert, keys.key)
    host, _, port = guarded.http.rpartition(":")
    loop = asyncio.new_event_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer), return_exceptions=True)

    proxy = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(proxy.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.1))
    loop.close()


def test_mutual_tls_lets_in_who_has_a_certificate(guarded: EmbeddedServer, keys: Keys) -> None:
    files = TLS(ca=keys.ca, cert=keys.cert, key=keys.key)
    with Face3DClient(f"grpcs://{guarded.grpc}", tls=files) as client:
        assert client.reconstruct(b"picture").score > 0.9

    async def ask() -> float:
        async with AsyncFace3DClient(guarded.grpc, tls=files) as client:
            return (await client.reconstruct(b"picture")).score

    assert asyncio.run(ask()) > 0.9


def test_mutual_tls_keeps_out_who_has_none(guarded: EmbeddedServer, keys: Keys) -> None:
    for client in (
        Face3DClient(guarded.grpc, retry=ONCE),
        Face3DClient(guarded.grpc, tls=TLS(ca=keys.ca), retry=ONCE),
        Face3DClient(guarded.grpc, tls=True, retry=ONCE),
    ):
        with client, pytest.raises(ServerUnavailable, match="no server answers"):
            client.reconstruct(b"picture", timeout=5)


def test_the_right_token_opens_and_a_wrong_one_does_not(guarded: EmbeddedServer) -> None:
    with Face3DClient(f"http://{guarded.http}", token="sesame") as client:
        assert client.reconstruct(b"picture").score > 0.9
    for token in (None, "barley"):
        with Face3DClient(f"http://{guarded.http}", token=token) as client, pytest.raises(AccessDenied):
            client.reconstruct(b"picture")


def test_https_with_a_token_works_sync_and_async(https: str, keys: Keys) -> None:
    with Face3DClient(https, tls=TLS(ca=keys.ca), token="sesame") as client:
        assert [client.reconstruct(b"picture").score > 0.9 for _ in range(3)] == [True] * 3
        with pytest.raises(Face3DError):
            client.reconstruct(b"ERROR INVALID_ARG [NoFace] None. Look.")

    async def ask() -> float:
        async with AsyncFace3DClient(https, tls=TLS(ca=keys.ca), token="sesame") as client:
            return (await client.reconstruct(b"picture")).score

    assert asyncio.run(ask()) > 0.9


def test_an_unknown_authority_is_refused_and_not_retried(https: str) -> None:
    with Face3DClient(https, token="sesame") as client, pytest.raises(ServerUnavailable, match="certificate") as caught:
        client.reconstruct(b"picture")
    assert not caught.value.retryable

    async def ask() -> None:
        async with AsyncFace3DClient(https, token="sesame") as client:
            await client.reconstruct(b"picture")

    with pytest.raises(ServerUnavailable, match=r"(?i)certificate") as caught:
        asyncio.run(ask())
    assert not caught.value.retryable
