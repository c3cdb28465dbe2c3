"""`fusion`: what a signed picture carries, and what keeps an unsigned one from leaving."""

from __future__ import annotations

import io
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from numpy.typing import NDArray
from PIL import Image

from server import signing
from tests.model_repository.version_folder import load

provenance = load("fusion", "provenance")
consent = load("fusion", "consent")
visible_mark = load("fusion", "visible_mark")

STATEMENT = (
    "Ana Núñez agreed on 3 May to being shown as a \N{CJK UNIFIED IDEOGRAPH-89D2}\N{CJK UNIFIED IDEOGRAPH-8272}."
)
AUTHORITY = """
[usage]
extendedKeyUsage = critical, timeStamping
keyUsage = critical, digitalSignature
[stamps]
dir = .
serial = serial
signer_digest = sha256
digests = sha256, sha384, sha512
default_policy = 1.2.3.4.1
ess_cert_id_alg = sha256
"""
TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> signing.SigningFiles:
    return signing.make_test_certificate(tmp_path_factory.mktemp("signing"))


@pytest.fixture(scope="module")
def signer(files: signing.SigningFiles) -> Any:
    return provenance.Signer(credentials(files.certificate, files.key))


def credentials(certificate: Path, key: Path) -> Any:
    names = {provenance.CERTIFICATE: str(certificate), provenance.KEY: str(key)}
    return provenance.Credentials.from_environment(names)


def pixels() -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:90, 0:120]
    made: NDArray[np.uint8] = np.stack([rows * 2, columns * 2, rows + columns], axis=-1).astype(np.uint8)
    return made


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels()).save(out, kind)
    return out.getvalue()


def read(picture: bytes, kind: str, root: Path | None = None) -> dict[str, Any]:
    settings = {"trust": {"trust_anchors": root.read_text()}} if root else {}
    with c2pa.Reader(TYPES[kind], io.BytesIO(picture), context=c2pa.Context.from_dict(settings)) as reader:
        store: dict[str, Any] = json.loads(reader.json())
    return store


def failures(store: dict[str, Any]) -> list[str]:
    return [entry["code"] for entry in store["validation_results"]["activeManifest"]["failure"]]


@pytest.mark.parametrize("kind", TYPES)
class TestASignedPicture:
    def test_is_trusted_by_who_trusts_the_root_and_valid_for_everybody(
        self, signer: Any, files: signing.SigningFiles, kind: str
    ) -> None:
        signed = signer.sign(encoded(kind), TYPES[kind], STATEMENT).picture
        trusted = read(signed, kind, files.certificate.with_name(signing.ROOT))
        assert (trusted["validation_state"], failures(trusted)) == ("Trusted", [])
        stranger = read(signed, kind)
        assert (stranger["validation_state"], failures(stranger)) == ("Valid", ["signingCredential.untrusted"])

    def test_says_how_it_was_made_and_who_consented(self, signer: Any, kind: str) -> None:
        signed = signer.sign(encoded(kind), TYPES[kind], STATEMENT)
        store = read(signed.picture, kind)
        assert store["active_manifest"] == signed.manifest
        manifest = store["manifests"][signed.manifest]
        data = {entry["label"]: entry["data"] for entry in manifest["assertions"]}
        assert data[provenance.CONSENT] == {"statement": STATEMENT}
        actions = {action["action"]: action for action in data["c2pa.actions.v2"]["actions"]}
        assert list(actions) == ["c2pa.opened", "c2pa.placed", "c2pa.edited"]
        assert actions["c2pa.edited"]["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
        relations = {entry["title"]: entry["relationship"] for entry in manifest["ingredients"]}
        assert relations == {"target photograph": "parentOf", "source photograph": "componentOf"}
        assert "TEST" in manifest["signature_info"]["issuer"]

    def test_tells_its_source_type_to_who_reads_only_xmp(self, signer: Any, kind: str) -> None:
        signed = signer.sign(encoded(kind), TYPES[kind], STATEMENT).picture
        description = Image.open(io.BytesIO(signed)).getxmp()["xmpmeta"]["RDF"]["Description"]
        assert description["DigitalSourceType"] == (
            "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
        )

    def test_has_the_same_pixels(self, signer: Any, kind: str) -> None:
        before = encoded(kind)
        after = signer.sign(before, TYPES[kind], STATEMENT).picture
        was, now = (np.asarray(Image.open(io.BytesIO(data))) for data in (before, after))
        assert np.array_equal(was, now)

    def test_does_not_survive_a_change(self, signer: Any, kind: str) -> None:
        signed = bytearray(signer.sign(encoded(kind), TYPES[kind], STATEMENT).picture)
        signed[-40] ^= 1
        store = read(bytes(signed), kind)
        assert store["validation_state"] == "Invalid"
        assert "assertion.dataHash.mismatch" in failures(store)


def test_many_threads_sign_at_the_same_time(signer: Any) -> None:
    pictures = [encoded("JPEG"), encoded("PNG")] * 16
    with ThreadPoolExecutor(8) as pool:
        signed = list(
            pool.map(lambda data: signer.sign(data, TYPES["PNG" if data[0] == 0x89 else "JPEG"], STATEMENT), pictures)
        )
    assert len({one.manifest for one in signed}) == len(pictures)
    assert {read(one.picture, "JPEG" if one.picture[0] == 0xFF else "PNG")["validation_state"] for one in signed} == {
        "Valid"
    }


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A time-stamp authority on a port of this machine, by OpenSSL."""
    if shutil.which("openssl") is None:
        pytest.skip("OpenSSL's command is not installed")
    folder = tmp_path_factory.mktemp("authority")
    (folder / "serial").write_text("01")
    (folder / "authority.cnf").write_text(AUTHORITY)

    def openssl(words: str) -> None:
        subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)

    openssl("req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -subj /O=Test/CN=root -days 9")
    openssl("req -newkey rsa:2048 -nodes -keyout stamps.key -out stamps.csr -subj /O=Test/CN=stamps")
    openssl(
        "x509 -req -in stamps.csr -CA root.pem -CAkey root.key -CAcreateserial -out stamps.pem -days 8 "
        "-extfile authority.cnf -extensions usage"
    )

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (folder / "query").write_bytes(self.rfile.read(int(self.headers["content-length"])))
            openssl(
                "ts -reply -config authority.cnf -section stamps -queryfile query -signer stamps.pem "
                "-inkey stamps.key -chain root.pem -out reply"
            )
            self.send_response(200)
            self.send_header("content-type", "application/timestamp-reply")
            self.end_headers()
            self.wfile.write((folder / "reply").read_bytes())

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class TestATimeStamp:
    def test_of_an_authority_is_in_the_manifest_and_without_one_there_is_none(
        self, files: signing.SigningFiles, signer: Any, authority: str
    ) -> None:
        stamped = provenance.Signer(replace(credentials(files.certificate, files.key), authority=authority))
        codes = []
        for one in (stamped, signer):
            store = read(one.sign(encoded("PNG"), "image/png", STATEMENT).picture, "PNG")
            codes.append({found["code"] for found in store["validation_results"]["activeManifest"]["success"]})
        assert "timeStamp.validated" in codes[0]
        assert "timeStamp.validated" not in codes[1]

    def test_that_cannot_be_had_is_told_at_the_start(self, files: signing.SigningFiles) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            address = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        names = {
            provenance.CERTIFICATE: str(files.certificate),
            provenance.KEY: str(files.key),
            provenance.TIMESTAMPS: address,
        }
        with pytest.raises(provenance.BadCredentials, match="gave no time stamp"):
            provenance.Signer(provenance.Credentials.from_environment(names))


class TestWhatCannotSign:
    def test_is_refused_at_the_start_with_its_reason(self, files: signing.SigningFiles, tmp_path: Path) -> None:
        with pytest.raises(provenance.BadCredentials, match="FACE3D_FUSION_CERTIFICATE names no file"):
            provenance.Credentials.from_environment({})
        with pytest.raises(provenance.BadCredentials, match="cannot be read: No such file"):
            credentials(tmp_path / "none.pem", files.key)
        with pytest.raises(provenance.BadCredentials, match="no private key"):
            provenance.Signer(credentials(files.certificate, files.certificate))

    def test_a_root_does_not_sign_itself(self, files: signing.SigningFiles) -> None:
        with pytest.raises(provenance.BadCredentials, match="cannot sign"):
            provenance.Signer(credentials(files.certificate.with_name(signing.ROOT), files.key))

    def test_another_ones_key_does_not_sign(self, files: signing.SigningFiles, tmp_path: Path) -> None:
        other = signing.make_test_certificate(tmp_path / "other")
        with pytest.raises(provenance.BadCredentials, match="cannot sign"):
            provenance.Signer(credentials(files.certificate, other.key))

    def test_an_expired_certificate_does_not_sign(self, files: signing.SigningFiles, tmp_path: Path) -> None:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        past = datetime.now(UTC) - timedelta(days=1)
        key = load_pem_private_key(files.key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        builder = x509.CertificateBuilder(
            certificate.issuer, certificate.subject, key.public_key(), 7, past - timedelta(days=1), past
        )
        for extension in certificate.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        (tmp_path / "old.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
        with pytest.raises(provenance.BadCredentials, match="cannot sign"):
            provenance.Signer(credentials(tmp_path / "old.pem", files.key))

    def test_what_is_no_picture_is_not_signed(self, signer: Any) -> None:
        with pytest.raises(provenance.NotSigned):
            signer.sign(b"GIF89a" + bytes(40), "image/gif", STATEMENT)


class TestTheTestCertificate:
    def test_is_called_one_and_its_key_is_its_owners_alone(self, files: signing.SigningFiles) -> None:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        assert "TEST" in certificate.subject.rfc4514_string()
        assert files.key.stat().st_mode & 0o077 == 0

    def test_is_made_by_a_command_and_never_overwritten(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert signing.main([str(tmp_path / "here")]) == 0
        assert "--fusion-certificate" in capsys.readouterr().out
        key = (tmp_path / "here" / signing.KEY).read_bytes()
        assert signing.main([str(tmp_path / "here")]) == 2
        assert "is there already" in capsys.readouterr().err
        assert (tmp_path / "here" / signing.KEY).read_bytes() == key


class TestConsent:
    @pytest.mark.parametrize("given", ["", "{}", '{"consent": ""}', '{"consent": " \\n\\t"}'])
    def test_is_required(self, given: str) -> None:
        with pytest.raises(consent.ConsentRefused, match="needs a consent statement") as caught:
            consent.consent_from(given)
        assert caught.value.tag == "ConsentRequired"

    @pytest.mark.parametrize("given", ["x" * 501, "a\0b", "a\x1bb", "a\N{RIGHT-TO-LEFT OVERRIDE}b", 7, True])
    def test_is_text_that_can_be_shown(self, given: object) -> None:
        with pytest.raises(consent.ConsentRefused) as caught:
            consent.consent_from(json.dumps({"consent": given}))
        assert caught.value.tag == "BadOption"

    def test_is_kept_as_one_line_in_any_script(self) -> None:
        assert consent.consent_from(json.dumps({"consent": f"  {STATEMENT}\n Signed. "})) == f"{STATEMENT} Signed."

    def test_cannot_forge_a_line_of_the_log(self) -> None:
        line = consent.log_line("urn:c2pa:1", 'yes" \N{LINE SEPARATOR}fusion: signed urn:c2pa:2 consent="no')
        assert line.isascii()
        assert line.isprintable()
        assert json.loads(line.split("consent=", 1)[1]).startswith('yes" ')
        assert re.match(r"fusion: signed urn:c2pa:1 consent=", line)


class TestTheVisibleMark:
    @pytest.mark.parametrize("size", [(512, 512), (1500, 900), (60, 40), (1, 1), (2048, 2048)])
    def test_lies_in_the_corner_and_leaves_the_rest(self, size: tuple[int, int]) -> None:
        height, width = size
        picture = np.full((height, width, 3), 120, np.uint8)
        marked = visible_mark.draw_mark(picture)
        assert marked.shape == picture.shape
        assert marked.dtype == np.uint8
        changed = (marked != picture).any(axis=-1)
        if min(size) > 30:
            assert changed[height // 2 :, :].any()
            assert not changed[: height // 2, :].any()
            assert changed.mean() < 0.2
