"""The page and the viewer in a real Chromium, with the real server and the real models behind them.

FACE3D_CHROMIUM names the browser where it is not on the path; FACE3D_SCREENSHOTS a folder that gets pictures of what
was seen (those in docs/ were made so).
"""

from __future__ import annotations

import base64
import functools
import http.server
import io
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from face3d_client import Face3DClient
from face3d_client._mesh.expressions import Expressions
from PIL import Image

from server.service import Service
from tests.client import mixed
from tests.client.npm import VIEWER, packages
from tests.client.page import open_page

# Of Gradio and what it calls, in whatever version.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
ROOT = Path(__file__).resolve().parents[2]
WAIT = 45_000  # ms; software rendering on a busy machine takes its time


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = os.environ.get("FACE3D_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium here: install one, or set FACE3D_CHROMIUM")
    # Software rendering, so that 3D views work without a graphics card; no sandbox, which root cannot have.
    words = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=words)
        yield browser
        browser.close()


class Watched:
    """A tab, and everything in it that a visitor should never see."""

    def __init__(self, browser: Any, home: str) -> None:
        self.tab = browser.new_page(viewport={"width": 1400, "height": 1000})
        self.tab.set_default_timeout(WAIT)
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        self.tab.on("console", self._said)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self._asked(request.url, home))

    def _said(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def _asked(self, url: str, home: str) -> None:
        if not url.startswith((home, "data:", "blob:")):
            self.strangers.append(url)

    def sees(self, selector: str, words: str) -> None:
        """Wait until a part of the page holds these words."""
        self.tab.locator(selector).filter(has_text=words).wait_for()

    def picture(self, selector: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """What a part of the page looks like."""
        shot = self.tab.locator(selector).screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))

    def sees_a_face(self, selector: str) -> None:
        """Wait until a part of the page shows much that is no background: skin, in many shades."""
        for _ in range(100):
            pixels = self.picture(selector).reshape(-1, 3).astype(int)
            skin = (pixels[:, 0] > pixels[:, 2] + 20) & (pixels[:, 0] > 60)
            if skin.mean() > 0.05 and len(np.unique(pixels[skin], axis=0)) > 500:
                return
            self.tab.wait_for_timeout(300)
        raise AssertionError(f"no face is to be seen in {selector}")

    def keep(self, name: str) -> None:
        """Leave a picture for a person to look at."""
        if folder := os.environ.get("FACE3D_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            shot = Image.open(io.BytesIO(self.tab.screenshot(full_page=True))).convert("RGB")
            shot.save(Path(folder) / f"{name}.jpg", quality=88)


@pytest.fixture(scope="module")
def address(server: Service) -> Iterator[str]:
    """The page, as `face3d ui` makes it in a checkout."""
    expressions = Expressions.load(ROOT / "weights" / "face_model.npz")
    with Face3DClient(server.grpc) as client, open_page(client, expressions) as url:
        yield url


@pytest.fixture
def visit(chromium: Any, address: str) -> Iterator[Watched]:
    watched = Watched(chromium, address)
    watched.tab.goto(address)
    yield watched
    watched.tab.close()
    assert watched.complaints == []
    assert watched.strangers == []


def upload(watched: Watched, content: bytes, name: str) -> None:
    watched.tab.locator("#photograph input[type=file]").first.set_input_files(
        [{"name": name, "mimeType": "image/png", "buffer": content}]
    )


def test_a_portrait_shows_its_box_its_face_and_what_is_doubtful(visit: Watched, portrait_bytes: bytes) -> None:
    upload(visit, portrait_bytes, "portrait.png")
    visit.sees("#status", "One face found.")
    visit.sees("#summary", "24,359 vertices")
    visit.sees("#summary", "pixels wide")  # the face is small: a warning
    visit.tab.locator("#faces img").wait_for()
    box = visit.picture("#faces").astype(int)
    assert (np.abs(box - (255, 140, 0)).max(-1) < 40).sum() > 200, "no box is to be seen"
    visit.tab.locator("#model canvas").wait_for()
    visit.sees_a_face("#model")
    visit.keep("page")
    for tab, part in (("Preview", "#preview"), ("Move it", "#moved")):
        visit.tab.get_by_role("tab", name=tab).click()
        visit.sees_a_face(part)
    visit.tab.get_by_role("tab", name="Coefficients").click()
    visit.tab.locator("#coefficients canvas, #coefficients svg.marks").first.wait_for()
    with visit.tab.expect_download() as download:
        visit.tab.get_by_role("button", name="GLB", exact=True).click()
    assert Path(download.value.path()).read_bytes()[:4] == b"glTF"


def test_sliders_turn_light_and_move_the_face(visit: Watched, portrait_bytes: bytes) -> None:
    upload(visit, portrait_bytes, "portrait.png")
    visit.sees("#status", "One face found.")
    visit.tab.get_by_role("tab", name="Move it").click()
    visit.sees_a_face("#moved")
    for slider, value in (("#yaw", "40"), ("#strength", "0.2"), ("#mood-1", "0.9")):
        before, seen = visit.tab.locator("#moved img").get_attribute("src"), visit.picture("#moved").astype(int)
        number = visit.tab.locator(f"{slider} input[type=number]")
        number.fill(value)
        number.press("Tab")
        changed = """before => document.querySelector("#moved img")?.getAttribute("src") !== before"""
        visit.tab.wait_for_function(changed, arg=before)
        visit.tab.locator("#moved img").evaluate("image => image.decode()")
        assert np.abs(visit.picture("#moved") - seen).mean() > 1, f"{slider} changes nothing"
    visit.sees_a_face("#moved")
    visit.tab.locator("#strength input[type=number]").fill("1.1")
    visit.tab.locator("#strength input[type=number]").press("Tab")
    visit.tab.locator("#keep").click()
    visit.sees("#kept", "face-moved")
    visit.keep("page-move")


def test_a_click_chooses_the_second_face_of_a_group(
    visit: Watched, server: Service, portrait_bytes: bytes, portrait_jpeg: bytes
) -> None:
    left, right = (Image.open(io.BytesIO(data)).convert("RGB") for data in (portrait_bytes, portrait_jpeg))
    both = Image.new("RGB", (left.width + right.width, right.height), (120, 120, 120))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    buffer = io.BytesIO()
    both.save(buffer, "PNG")
    upload(visit, buffer.getvalue(), "pair.png")
    visit.sees("#status", "2 faces found")
    first = visit.tab.locator("#summary").inner_text()
    picture = visit.tab.locator("#faces img")
    picture.evaluate("image => image.decode()")  # until then it has no size
    place = picture.bounding_box()
    with Face3DClient(server.grpc) as client:
        second = client.detect(buffer.getvalue())[1]
    x, y = second.points[2] * place["width"] / both.width
    picture.click(position={"x": float(x), "y": float(y)})
    visit.sees("#status", "Face 2 of 2.")
    assert visit.tab.locator("#summary").inner_text() != first
    visit.keep("page-group")
    picture.click(position={"x": 3, "y": 3})
    visit.sees("#status", "Click inside one of the boxes.")


def test_a_landscape_has_no_face_and_the_page_says_what_to_do(visit: Watched) -> None:
    buffer = io.BytesIO()
    mixed.landscape().save(buffer, "PNG")
    upload(visit, buffer.getvalue(), "landscape.png")
    visit.sees("#status", "No face was found.")
    visit.tab.locator("#again").click()
    visit.sees("#status", "detect again")
    assert "Score" not in "".join(visit.tab.locator("#summary").all_inner_texts())
    visit.keep("page-no-face")


def test_several_photographs_of_a_person_become_one_head(visit: Watched, portrait_bytes: bytes) -> None:
    mirrored = Image.open(io.BytesIO(portrait_bytes)).convert("RGB").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    buffer = io.BytesIO()
    mirrored.save(buffer, "JPEG", quality=92)
    give_several(visit, [portrait_bytes, buffer.getvalue()])
    visit.sees("#person-status", "Photograph 2: ")
    visit.sees("#person-status", "of the shape")
    visit.tab.locator("#person-model canvas").wait_for()
    visit.sees_a_face("#person-model")
    visit.sees_a_face("#person-preview")
    visit.keep("page-several")
    with visit.tab.expect_download() as download:
        visit.tab.locator("#person-file").click()
    assert Path(download.value.path()).read_bytes()[:4] == b"glTF"


def test_photographs_of_different_people_and_none_at_all_are_refused_in_words(
    visit: Watched, portrait_bytes: bytes, portrait_jpeg: bytes
) -> None:
    give_several(visit, [])
    visit.sees("#person-status", "Give two to 8 photographs")
    visit.tab.locator("#photographs input[type=file]").set_input_files(
        files_of([portrait_bytes, portrait_jpeg, portrait_bytes])
    )
    visit.sees("#photographs", "photograph-2")
    visit.tab.locator("#make-person").click()
    visit.sees("#person-status", "photograph 2 shows somebody else than the others")


def files_of(photographs: list[bytes]) -> list[Any]:
    return [
        {"name": f"photograph-{number}.png", "mimeType": "image/png", "buffer": data}
        for number, data in enumerate(photographs)
    ]


def give_several(watched: Watched, photographs: list[bytes]) -> None:
    """Open the part of the page for several photographs, give these, and ask for the head."""
    watched.tab.get_by_text("One head of several photographs").click()
    if photographs:
        watched.tab.locator("#photographs input[type=file]").set_input_files(files_of(photographs))
        watched.sees("#photographs", f"photograph-{len(photographs) - 1}")
    watched.tab.locator("#make-person").click()


# --- the viewer -------------------------------------------------------------------------------------------------------


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, chromium: Any, server: Service, portrait_bytes: bytes
) -> Iterator[tuple[str, Path]]:
    """A plain web server with viewer.html and a face of the service beside it."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([packages(), str(VIEWER / "build.mjs"), str(folder / "viewer.html")], check=True, timeout=60)
    with Face3DClient(server.grpc) as client:
        client.reconstruct(portrait_bytes, rig="arkit").save(folder / "face.glb")
    for name in ("viewer", "examples"):
        (folder / name).symlink_to(ROOT / "client" / name)
    (folder / "bad.glb").write_bytes(b"this is no GLB")
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/", folder
        web.shutdown()


def test_the_viewer_shows_a_file_from_the_disk_without_any_network(chromium: Any, site: tuple[str, Path]) -> None:
    folder = site[1]
    home = (folder / "viewer.html").as_uri()
    viewer = Watched(chromium, home)
    viewer.tab.goto(home)
    assert viewer.tab.locator("#hint").is_visible()
    viewer.tab.locator("#file").set_input_files(folder / "face.glb")
    viewer.sees("#told", "face.glb: 47,804 triangles")
    viewer.sees_a_face("#view")
    assert not viewer.tab.locator("#hint").is_visible()
    viewer.keep("viewer")
    textured = viewer.picture("#view")
    viewer.tab.locator("#wireframe").check()
    viewer.tab.wait_for_timeout(500)
    wire = viewer.picture("#view")
    assert np.abs(wire.astype(int) - textured).mean() > 1, "the wireframe looks as the face does"
    viewer.tab.locator("#file").set_input_files(folder / "bad.glb")
    viewer.sees("#error", "bad.glb cannot be shown")
    assert (viewer.complaints, viewer.strangers) == ([], [])
    viewer.tab.close()


def test_the_viewer_takes_its_file_from_the_address_and_turns_it(chromium: Any, site: tuple[str, Path]) -> None:
    home = site[0]
    viewer = Watched(chromium, home)
    viewer.tab.goto(f"{home}viewer.html?url=face.glb&turntable")
    viewer.sees("#told", "face.glb: 47,804 triangles")
    assert viewer.tab.locator("#turntable").is_checked()
    viewer.sees_a_face("#view")
    before = viewer.picture("#view").astype(int)
    viewer.tab.wait_for_timeout(1500)
    assert np.abs(viewer.picture("#view") - before).mean() > 0.5, "it stands still"
    assert (viewer.complaints, viewer.strangers) == ([], [])
    viewer.tab.goto(f"{home}viewer.html?url=missing.glb")
    viewer.sees("#error", "missing.glb cannot be shown: its server answered 404")
    viewer.tab.close()


def test_a_file_may_be_dropped_on_the_viewer(chromium: Any, site: tuple[str, Path]) -> None:
    home, folder = site
    viewer = Watched(chromium, home)
    viewer.tab.goto(f"{home}viewer.html")
    data = base64.b64encode((folder / "face.glb").read_bytes()).decode()
    dropped = viewer.tab.evaluate_handle(
        """text => { const moved = new DataTransfer(), bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
           moved.items.add(new File([bytes], "dropped.glb")); return moved; }""",
        data,
    )
    viewer.tab.dispatch_event("body", "drop", {"dataTransfer": dropped})
    viewer.sees("#told", "dropped.glb: 47,804 triangles")
    viewer.tab.close()


def test_the_viewer_moves_shapes_by_sliders_and_plays_a_track(chromium: Any, site: tuple[str, Path]) -> None:
    home = site[0]
    viewer = Watched(chromium, home)
    viewer.tab.goto(f"{home}viewer.html?url=face.glb")
    viewer.sees("#told", "52 shapes")
    viewer.tab.locator("#shapes summary").click()
    assert viewer.tab.locator("#sliders input").count() == 52
    viewer.tab.locator("#neutral").click()
    viewer.tab.wait_for_timeout(500)
    still = viewer.picture("#view").astype(int)
    viewer.tab.locator("[data-shape=jawOpen]").fill("1")
    viewer.tab.wait_for_timeout(500)
    opened = viewer.picture("#view").astype(int)
    assert np.abs(opened - still).mean() > 0.3, "the jaw does not move"
    viewer.keep("viewer-shapes")
    viewer.tab.locator("#neutral").click()
    viewer.tab.wait_for_timeout(500)
    assert np.abs(viewer.picture("#view") - still).mean() < 0.05
    viewer.tab.locator("#track").set_input_files(ROOT / "client" / "examples" / "track.json")
    viewer.sees("#track-name", "track.json, 6.0 s")
    smile = viewer.tab.locator("[data-shape=mouthSmileLeft]")
    for _ in range(200):  # the page's policy lets no test wait for an expression in it
        if float(smile.input_value()) > 0.3:
            break
        viewer.tab.wait_for_timeout(100)
    assert float(smile.input_value()) > 0.3, "the track moves nothing"
    viewer.tab.locator("#play").click()
    assert viewer.tab.locator("#play").inner_text() == "Play"
    viewer.tab.locator("#track").set_input_files(
        [
            {
                "name": "bad.json",
                "mimeType": "application/json",
                "buffer": b'{"fps": 30, "names": ["a"], "frames": [[1], []]}',
            }
        ]
    )
    viewer.sees("#error", "bad.json is no track: a frame has not 1 numbers")
    assert (viewer.complaints, viewer.strangers) == ([], [])
    viewer.tab.close()


def test_clay_shows_the_shape_without_colours(chromium: Any, site: tuple[str, Path]) -> None:
    home = site[0]
    viewer = Watched(chromium, home)
    viewer.tab.goto(f"{home}viewer.html?url=face.glb")
    viewer.sees("#told", "52 shapes")
    viewer.tab.locator("#texture").uncheck()
    for _ in range(40):  # frames are slow without a graphics card
        viewer.tab.wait_for_timeout(500)
        clay = viewer.picture("#view")[100:800, 300:1000].reshape(-1, 3).astype(int)  # what lies under no button
        if np.ptp(clay, axis=1).max() < 60:
            break
    assert np.ptp(clay, axis=1).max() < 60, "clay has colours"
    assert np.ptp(clay[:, 0]) > 60, "clay has no shades"
    assert (viewer.complaints, viewer.strangers) == ([], [])
    viewer.tab.close()


def test_the_three_js_example_plays_its_track(chromium: Any, site: tuple[str, Path]) -> None:
    home = site[0]
    player = Watched(chromium, home)
    player.tab.goto(f"{home}examples/play_track.html?url=../face.glb")
    player.tab.wait_for_function("document.title == '6 meshes, 52 shapes'")
    seen = [player.picture("#view").astype(int) for _ in range(6) if player.tab.wait_for_timeout(700) is None]
    assert max(np.abs(later - seen[0]).mean() for later in seen[1:]) > 0.1, "it stands still"
    assert (player.complaints, player.strangers) == ([], [])
    player.tab.close()
