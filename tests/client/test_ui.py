"""The page of `face3d ui`: what it says and gives, by Gradio's own client (the browser's side: test_browser.py)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from face3d_client import BadImage, Face3DClient, NoFace, Options, Overloaded, Reconstruction, Timeout
from face3d_client._mesh.expressions import Expressions
from face3d_client._mesh.renderer import Light
from face3d_client._ui.handlers import Handlers
from face3d_client._ui.studio import MOODS, Studio, visitor_message
from PIL import Image

from server.embedded import EmbeddedServer
from tests.client import head_file, synthetic
from tests.client.page import open_page
from tests.client.visitor import Visitor
from tests.client.visitor import photograph as photograph_of

# Of Gradio and what it calls, in whatever version.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
OPTIONS = (False, True, False, False, False, 0.3, 512, False, False, 0.0, False, False)
MOVES = (0, 20, 30, 1, 1, *[0.0] * len(MOODS))


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


def patch_expressions() -> Expressions:
    """Of the synthetic patch: one mode that moves it 10 mm down, and one that no slider has."""
    modes = np.zeros((64, synthetic.ROWS * synthetic.COLUMNS, 3), np.float32)
    modes[0, :, 1] = -10
    return Expressions(modes, ("jawOpen", *[""] * 63), face_model=-42)


def test_a_photograph_shows_upright_with_a_box_for_every_face(studio: Studio, photograph: str) -> None:
    visit, words = studio.open(photograph, 0.7)
    assert words == "3 faces found: click another one in the photograph."
    picture = visit.annotated()
    assert picture is not None
    assert picture.size == (960, 1280)
    # Source pixels 100..300 become 64..192; the chosen face is orange, the second one (64..140.8) blue.
    assert picture.getpixel((191, 150)) == (255, 140, 0)
    assert picture.getpixel((140, 140)) == (60, 190, 255)
    assert picture.getpixel((500, 500)) == (90, 90, 90)
    assert studio.look_again(visit, 0.9) == "2 faces found: click another one in the photograph."
    assert studio.look_again(visit, 0.4).startswith("4 faces")


def test_a_click_chooses_the_smallest_box_around_it(studio: Studio, photograph: str) -> None:
    visit, _ = studio.open(photograph, 0.7)
    assert visit.face_at(180, 190) == 0
    assert visit.face_at(120, 130) == 1
    assert visit.face_at(70, 80) == 2
    assert visit.face_at(800, 800) is None


def test_a_face_becomes_files_to_take_home(studio: Studio, photograph: str) -> None:
    visit, _ = studio.open(photograph, 0.7)
    result = studio.make(visit, 1, Options(outputs=["mesh", "texture", "face", "warnings"]))
    assert result.score == pytest.approx(0.95)
    assert (visit.chosen, visit.result) == (1, result)
    files = studio.files(result)
    assert list(files) == ["GLB", "OBJ (zip)", "PLY (zip)", "STL", "NPZ"]
    assert all(Path(name).stat().st_size > 1000 for name in files.values())
    with zipfile.ZipFile(files["OBJ (zip)"]) as archive:
        assert sorted(archive.namelist()) == ["face.mtl", "face.obj", "face_texture.png"]
    assert {str(path) for path in Path(files["GLB"]).parent.iterdir()} == set(files.values())
    studio.close()
    assert not Path(files["GLB"]).exists()


def test_a_face_model_without_a_rig_is_asked_for_none(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"UNRIGGED")
    visit, _ = studio.open(str(tmp_path / "photo.jpg"), 0.7)
    result = studio.make(visit, 0, Options(rig="arkit", pose="camera", outputs=["mesh", "warnings"]))
    assert [warning for warning in result.warnings if "=" in warning] == ["pose='camera'"]
    assert visit.result is result


def test_files_of_visitors_are_deleted_when_they_are_old(studio: Studio, result: Reconstruction) -> None:
    old, new = (Path(studio.files(result)["GLB"]) for _ in range(2))
    hours_ago = time.time() - 7200
    os.utime(old.parent, (hours_ago, hours_ago))
    studio.delete_old_files()
    assert not old.exists()
    assert new.exists()


def test_sliders_move_a_face_of_the_same_face_model(stand_in_server: EmbeddedServer, result: Reconstruction) -> None:
    with Face3DClient(stand_in_server.grpc) as client:
        studio = Studio(client, patch_expressions())
        own = float(result.coefficients.expression[0])  # 80 in the synthetic answer: 800 mm down
        moved = studio.moved(result, 0.5, {"Open mouth": 2.0})
        assert moved.vertices - result.vertices_neutral == pytest.approx(
            np.broadcast_to([0, -5 * own - 20, 0], moved.vertices.shape), abs=1e-3
        )
        mesh: Any = trimesh.load(studio.moved_file(result, 0.5, {"Open mouth": 2.0}), force="mesh", process=False)
        assert mesh.vertices * 1000 == pytest.approx(moved.vertices, abs=1e-3)
        bright, dark = (studio.picture(moved, 0, Light(0, 0, strength)) for strength in (1.5, 0))
        assert np.asarray(bright).sum() > np.asarray(dark).sum()
        stranger = Studio(client, dataclasses.replace(patch_expressions(), face_model=7))
        assert np.array_equal(stranger.moved(result, 1, {"Open mouth": 1}).vertices, result._surface.vertices)
        for made in (studio, stranger):
            made.close()


def test_the_built_in_face_model_knows_every_slider(stand_in_server: EmbeddedServer) -> None:
    model = Expressions.load(Path(__file__).resolve().parents[2] / "weights" / "face_model.npz")
    assert all(model.modes_of(shape) for shapes in MOODS.values() for shape in shapes)


def test_sliders_move_a_rigged_head_without_the_face_model_s_file(studio: Studio, tmp_path: Path) -> None:
    head = head_file.result(tmp_path, rig="arkit")
    still, own, opened = (
        studio.moved(head, share, {"Open mouth": mood}).vertices for share, mood in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    )
    assert np.array_equal(still, head._surface.vertices)
    assert own == pytest.approx(head.mesh.vertices, abs=1e-3)
    assert (opened - still)[:, 1].min() < -10  # mm: the jaw goes down
    tree, _ = head_file.unpacked(Path(studio.moved_file(head, 1.0, {"Open mouth": 0.9})).read_bytes())
    mesh = tree["meshes"][0]
    weights = dict(zip(mesh["extras"]["targetNames"], mesh["weights"], strict=True))
    assert weights["jawOpen"] == 1  # 0.3 of the photograph and 0.9 are more than all
    assert weights["mouthSmileLeft"] == pytest.approx(0.6)


def test_visitors_are_told_in_plain_words(studio: Studio, tmp_path: Path) -> None:
    assert "No face was found" in visitor_message(NoFace("score 0.3"))
    assert "busy or away" in visitor_message(Overloaded("Exceeds maximum queue size"))
    assert "took too long" in visitor_message(Timeout("no answer within 60 s"))
    assert "Send a JPEG" in visitor_message(BadImage("this is no picture. Send a JPEG."))
    assert "could not be read" in visitor_message(FileNotFoundError(2, "No such file", "x"))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"this cannot be opened here")
    visit, words = studio.open(str(broken), 0.7)  # the stand-in finds faces in anything
    assert visit.annotated() is None
    assert words.startswith("3 faces")


def test_every_way_through_the_page_fills_all_of_it(studio: Studio, photograph: str) -> None:
    gradio = pytest.importorskip("gradio", reason="gradio is not installed (extra `ui`)")
    handlers = Handlers(gradio, studio, list(MOODS))
    values = (*OPTIONS, *MOVES)
    made = handlers.open(photograph, 0.7, *values)
    visit = made[0]
    hit, miss = (handlers.choose(place, visit, *values) for place in ((120, 130), (800, 800)))
    assert [ways[1] for ways in (hit, miss)] == ["Face 2 of 3.", "Click inside one of the boxes."]
    nothing = handlers.look_again(None, 0.7, *values)
    again = handlers.make_again(visit, *values)
    assert {len(ways) for ways in (made, hit, miss, nothing, again, handlers.clear())} == {len(made)}


@pytest.fixture(scope="module")
def address(stand_in_server: EmbeddedServer) -> Iterator[str]:
    """The page itself, with the stand-in behind it."""
    with Face3DClient(stand_in_server.grpc) as client, open_page(client, patch_expressions()) as url:
        yield url


@contextlib.contextmanager
def visitor(address: str) -> Iterator[Visitor]:
    came = Visitor(address)
    yield came
    came.close()


def ask(came: Visitor, file: str) -> list[Any]:
    """What the page shows after this photograph was dropped on it."""
    dropped = photograph_of(came.upload(Path(file)))
    return came.event("photograph", "input", [dropped, 0.7, *OPTIONS, *MOVES])[1:]


def files_in(answer: Any) -> list[Path]:
    """Every file named anywhere in an answer of the page."""
    if isinstance(answer, dict):
        named = [answer["path"]] if isinstance(answer.get("path"), str) else []
        return [Path(name) for name in named] or [file for part in answer.values() for file in files_in(part)]
    if isinstance(answer, list | tuple):
        return [file for part in answer for file in files_in(part)]
    return [Path(answer)] if isinstance(answer, str) and answer.startswith("/") else []


def test_the_page_answers_like_the_studio(address: str, photograph: str) -> None:
    with visitor(address) as came:
        told = ask(came, photograph)
        assert told[0] == "3 faces found: click another one in the photograph."
        assert any(isinstance(part, dict) and str(part.get("path")).endswith("face.glb") for part in told)
        again = came.event("again", "click", [None, 0.4, *OPTIONS, *MOVES])[1:]
        assert again[0].startswith("4 faces")
        assert files_in(came.event("yaw", "input", [None, *MOVES[:-1], 0.5]))
        (kept,) = files_in(came.event("keep", "click", [None, *MOVES[:-1], 0.5]))
        assert kept.suffix == ".glb"


def test_the_page_says_what_is_wrong_and_goes_on(address: str, tmp_path: Path, photograph: str) -> None:
    with visitor(address) as came:
        nothing = came.event("again", "click", [None, 0.7, *OPTIONS, *MOVES])
        assert nothing[1] == "Drop a photograph first."
        told = came.event("photograph", "input", [None, 0.7, *OPTIONS, *MOVES])
        assert told[1] == ""
        assert ask(came, photograph)[0].startswith("3 faces")


def test_a_file_that_is_no_picture_gets_the_server_s_sentence(address: str, tmp_path: Path) -> None:
    broken = tmp_path / "IMG_0001.heic"
    broken.write_bytes(b"ERROR INVALID_ARG [BadImage] this is no picture. Send a JPEG.")
    with visitor(address) as came:
        assert ask(came, str(broken))[0] == "**That did not work:** this is no picture. Send a JPEG."


def test_many_visitors_at_once_are_all_served(address: str, photograph: str) -> None:
    def visit(_: int) -> list[Any]:
        with visitor(address) as came:
            return ask(came, photograph)

    with ThreadPoolExecutor(10) as pool:  # more than the page works on at the same time
        told = list(pool.map(visit, range(10)))
    assert all(words.startswith("3 faces") for words, *_ in told)
    for name in ("faces.jpg", "moved.jpg", "preview.png", "overlay.jpg", "texture.png"):
        pictures = [file for answer in told for file in files_in(answer) if file.name == name]
        assert len(pictures) == 10
        for picture in pictures:
            with Image.open(picture) as opened:
                opened.load()  # refuses half a file


def test_visitors_with_the_same_photograph_share_no_file_that_is_written_twice(address: str, photograph: str) -> None:
    both = []
    for _ in range(2):
        with visitor(address) as came:
            both.append(files_in(ask(came, photograph)))
    first, second = both
    assert len(first) == len(second) >= 10  # five pictures and five downloads
    assert not set(first) & set(second)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_the_command_opens_the_page_and_leaves_nothing(
    stand_in_server: EmbeddedServer, tmp_path: Path, kind: signal.Signals
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "face3d_client", "ui", "--no-browser", "--port", str(port)]
    environment = os.environ | {"FACE3D_URL": stand_in_server.grpc, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
                assert page.status == 200
                break
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            time.sleep(0.1)
        process.send_signal(kind)
        told, _ = process.communicate(timeout=60)
    assert process.returncode in (0, 130), told
    assert "Traceback" not in told
    assert not list(tmp_path.rglob("face3d-ui-*"))
