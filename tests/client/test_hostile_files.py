"""Files that are none, never end, or say that they are larger than they are: given as pictures and as face models."""

from __future__ import annotations

import io
import os
import pty
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from face3d_client import BadImage, Face3DError, ImageTooLarge
from face3d_client._images import FORMATS, MAX_BYTES, decode_upright, image_bytes, open_upright, read_file
from face3d_client._mesh.expressions import Expressions
from face3d_client._text import printable
from PIL import Image

from server.embedded import EmbeddedServer
from tests.model_repository.version_folder import load

# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/urandom", "/dev/null", "/dev/tty0"])
def test_devices_are_no_pictures_and_are_not_read(path: str) -> None:
    if not os.access(path, os.R_OK):
        pytest.skip(f"no {path} here")
    with pytest.raises(BadImage, match="device"):
        image_bytes(path)


def test_pipes_and_sockets_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket.jpg"))
        for name in ("pipe.jpg", "socket.jpg"):
            with pytest.raises(BadImage, match="pipe or a socket"):
                image_bytes(tmp_path / name)


def test_folders_and_names_that_cannot_be_are_errors(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        image_bytes(tmp_path)
    with pytest.raises(BadImage, match="NUL"):
        image_bytes("a\0b")
    with pytest.raises(OSError, match="too long"):
        image_bytes("x" * 5000)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="symbolic links"):
        image_bytes(tmp_path / "loop")


def test_a_file_that_has_no_size_is_read_up_to_the_limit() -> None:
    assert read_file("/proc/self/maps")  # says that it has 0 bytes
    with pytest.raises(ImageTooLarge):
        read_file("/proc/self/maps", most=10)


def test_what_is_piped_into_the_program_is_a_picture_up_to_the_limit() -> None:
    read, write = os.pipe()
    os.write(write, b"a picture")
    os.close(write)
    assert image_bytes(f"/dev/fd/{read}") == b"a picture"
    os.close(read)
    words = "from face3d_client._images import image_bytes; image_bytes('/dev/stdin')"
    with open("/dev/zero", "rb") as zeros:  # noqa: PTH123
        feed = subprocess.Popen(["head", "-c", str(MAX_BYTES + 2)], stdin=zeros, stdout=subprocess.PIPE)
        done = subprocess.run(
            [sys.executable, "-c", words], stdin=feed.stdout, capture_output=True, text=True, check=False
        )
        assert feed.stdout is not None
        feed.stdout.close()
        feed.wait()
    assert "ImageTooLarge" in done.stderr


def test_a_heic_is_decoded_where_its_package_is(tmp_path: Path) -> None:
    pytest.importorskip("pi_heif", reason="pi-heif is not installed")
    (tmp_path / "x.heic").write_bytes(load("preprocess", "pictures").sample("HEIF"))
    assert open_upright(tmp_path / "x.heic").size == (640, 480)


def test_only_the_service_s_formats_are_decoded(tmp_path: Path) -> None:
    assert FORMATS == ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF")
    picture = Image.new("RGB", (20, 10))
    for kind in ("EPS", "GIF", "ICO", "PPM", "TGA", "PDF"):
        (tmp_path / "x.jpg").unlink(missing_ok=True)
        picture.save(tmp_path / "x.jpg", kind)
        with pytest.raises(BadImage, match="cannot be decoded"):
            open_upright(tmp_path / "x.jpg")


def test_pixels_are_counted_by_the_header() -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 4_000)).save(buffer, "PNG")
    with pytest.raises(ImageTooLarge, match="80 megapixels"):
        decode_upright(buffer.getvalue())


def test_a_picture_is_decoded_no_larger_than_it_is_shown() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 3000), (200, 10, 10)).save(buffer, "JPEG", exif=exif)
    picture, scale = decode_upright(buffer.getvalue(), 1000)
    assert (picture.size, scale) == ((750, 1000), 0.25)
    assert decode_upright(buffer.getvalue())[0].size == (3000, 4000)


# --- face models ------------------------------------------------------------------------------------------------------


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array))
    return buffer.getvalue()


def npy_said(shape: str, descr: str = "<f4") -> bytes:
    """An array's file that says it has this shape, and has sixteen bytes."""
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(16)


GOOD = {
    "mean": npy(np.zeros((9, 3), np.float32)), "triangles": npy(np.zeros((4, 3), np.int32)),
    "uv": npy(np.zeros((9, 2), np.float32)), "expression": npy(np.zeros((64, 9, 3), np.float32)),
    "expression_names": npy(np.array(["jawOpen"] + [""] * 63)),
}  # fmt: skip
MODELS = {
    "nothing": b"",
    "no archive": b"PK\3\4 no",
    "one array": npy(np.zeros(3)),
    "objects": npz(**GOOD | {"mean": npy(np.array([{"a": 1}], object))}),
    "2^40 vertices": npz(**GOOD | {"mean": npy_said(f"({2**40}, 3)")}),
    "negative vertices": npz(**GOOD | {"mean": npy_said("(-1, 3)")}),
    "a shape of code": npz(**GOOD | {"mean": npy_said("__import__('os').getpid()")}),
    "an odd type": npz(**GOOD | {"mean": npy_said("(1,)", "|O")}),
    "not finite": npz(**GOOD | {"expression": npy(np.full((64, 9, 3), np.nan, np.float32))}),
    "nothing in it": npz(),
    "text in it": npz(**GOOD | {"uv": b"hello"}),
    "a bomb": npz(**GOOD | {"more": npy(np.zeros((520, 1 << 20), np.uint8))}),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_file_that_is_no_face_model_is_one_error(kind: str, tmp_path: Path) -> None:
    (tmp_path / "model.npz").write_bytes(MODELS[kind])
    with pytest.raises(ValueError, match="is no face model"):
        Expressions.load(tmp_path / "model.npz")


def test_a_face_model_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "good.npz").write_bytes(npz(**GOOD))
    assert Expressions.load(tmp_path / "good.npz").names[0] == "jawOpen"
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (Path("/dev/zero"), tmp_path / "pipe.npz"):
        with pytest.raises(Face3DError):
            Expressions.load(path)


# --- the command ------------------------------------------------------------------------------------------------------


def on_a_terminal(words: list[str], environment: dict[str, str]) -> str:
    """What a command writes where both its outputs are a terminal."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "face3d_client", *words], stdout=its, stderr=its, env=os.environ | environment
    )
    os.close(its)
    told = b""
    try:
        while chunk := os.read(ours, 65536):
            told += chunk
    except OSError:  # the other end is closed
        pass
    process.wait()
    os.close(ours)
    return told.decode()


def test_the_command_refuses_a_device_in_a_sentence(stand_in_server: EmbeddedServer) -> None:
    told = on_a_terminal(["detect", "/dev/zero"], {"FACE3D_URL": stand_in_server.grpc})
    assert told.startswith("face3d: BadImage: /dev/zero is a device")


def test_no_name_or_answer_moves_the_terminal(stand_in_server: EmbeddedServer, tmp_path: Path) -> None:
    environment = {"FACE3D_URL": stand_in_server.grpc, "NO_COLOR": "1", "TERM": "dumb"}
    evil = tmp_path / "a\x1b[31m\x07b.jpg"
    evil.write_bytes(b"ERROR INVALID_ARG [BadImage] \x1b[2Jred\x9b1m.")
    (tmp_path / "good\x1b]0;title\x07.jpg").write_bytes(b"picture")
    for words in (
        ["detect", str(evil)],
        ["detect", str(tmp_path)],
        ["reconstruct", str(evil), "-o", str(tmp_path / "out")],
        ["reconstruct", str(tmp_path), "-o", str(tmp_path / "\x1b[32mout")],
        ["models"],
        ["info", "--url", "http://user:pa55@\x1b[31m"],
    ):
        told = on_a_terminal(words, environment)
        assert told
        assert not {"\x1b", "\x07", "\x9b"} & set(told), ascii(told)
        assert "pa55" not in told


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", "a\N{REPLACEMENT CHARACTER}[31mb"),
        ("two\r\n\tlines", "two lines"),
        ("\u202eabc\ud800", "\N{REPLACEMENT CHARACTER}abc\N{REPLACEMENT CHARACTER}"),
        ("größer 大 🙂", "größer 大 🙂"),
        ("x" * 2000, "x" * 999 + "\N{HORIZONTAL ELLIPSIS}"),
    ],
)
def test_text_from_elsewhere_is_one_line_that_a_terminal_only_shows(text: str, shown: str) -> None:
    assert printable(text) == shown
