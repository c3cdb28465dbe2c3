"""The page of `face3d ui`: what it says and gives, with and without the browser's side."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from face3d_client import BadImage, Face3DClient, NoFace, Options, Overloaded
from face3d_client._ui import Studio, build_page, in_plain_words
from PIL import Image

from server.embedded import EmbeddedServer


@pytest.fixture
def studio(stand_in_server: EmbeddedServer) -> Iterator[Studio]:
    with Face3DClient(stand_in_server.grpc) as client:
        made = Studio(client)
        yield made
        made.close()


@pytest.fixture
def photograph(tmp_path: Path) -> str:
    """A large photograph taken upright by a camera held sideways."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2000, 1500), (90, 90, 90)).save(tmp_path / "photo.jpg", exif=exif)
    return str(tmp_path / "photo.jpg")


def test_a_photograph_shows_upright_with_a_box_for_every_face(studio: Studio, photograph: str) -> None:
    visit, words = studio.open(photograph, 0.7)
    assert words == "3 faces found: click another one to see it."
    annotated = visit.annotated()
    assert annotated is not None
    picture, boxes = annotated
    assert picture.size == (960, 1280)
    assert boxes[0] == ((64, 76, 192, 204), "face 1 (0.99)")
    assert studio.look_again(visit, 0.9) == "2 faces found: click another one to see it."


def test_a_face_becomes_files_to_take_home(studio: Studio, photograph: str) -> None:
    visit, _ = studio.open(photograph, 0.7)
    result = studio.make(visit, 1, Options(outputs=["mesh", "texture", "face", "warnings"]))
    assert result.score == pytest.approx(0.95)
    files = studio.files(result)
    assert list(files) == ["GLB", "OBJ (zip)", "PLY", "NPZ"]
    assert all(Path(name).stat().st_size > 1000 for name in files.values())
    with zipfile.ZipFile(files["OBJ (zip)"]) as archive:
        assert sorted(archive.namelist()) == ["face.mtl", "face.obj", "face.png"]
    studio.close()
    assert not Path(files["GLB"]).exists()


def test_visitors_are_told_in_plain_words(studio: Studio, tmp_path: Path) -> None:
    assert "No face was found" in in_plain_words(NoFace("score 0.3"))
    assert "busy or away" in in_plain_words(Overloaded("Exceeds maximum queue size"))
    assert "Send a JPEG" in in_plain_words(BadImage("this is no picture. Send a JPEG."))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"ERROR INVALID_ARG [BadImage] this is no picture. Send a JPEG.")
    visit, words = studio.open(str(broken), 0.7)
    assert visit.annotated() is None
    assert visit.faces or "no picture" in words


def test_the_page_answers_like_the_studio(stand_in_server: EmbeddedServer, photograph: str) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed (extra `ui`)")
    from importlib import import_module

    with Face3DClient(stand_in_server.grpc) as client:
        page = build_page(client)
        _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, inbrowser=False)
        try:
            visitor = import_module("gradio_client").Client(address, verbose=False)
            file = import_module("gradio_client").handle_file(photograph)
            told = visitor.predict(file, 0.7, False, False, 0.3, 512, api_name="/open")
            words = [part for part in told if isinstance(part, str)]
            assert "3 faces found: click another one to see it." in words
            assert any(part.endswith("face.glb") for part in words)
        finally:
            page.close()
            page.studio.close()


def test_pictures_are_opened_once_and_kept_small(studio: Studio, photograph: str) -> None:
    visit, _ = studio.open(photograph, 0.7)
    assert visit.shown is not None
    buffer = io.BytesIO()
    visit.shown.save(buffer, "PNG")
    assert max(visit.shown.size) <= 1280
