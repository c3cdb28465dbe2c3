"""The page of `face3d ui` as an attacker meets it: raw requests to the running page, the stand-in server behind it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from face3d_client import Face3DClient
from face3d_client._ui.guard import PageGuard
from face3d_client._ui.studio import as_markdown
from PIL import Image

from server.embedded import EmbeddedServer
from tests.client import test_ui
from tests.client.page import open_page
from tests.client.test_ui import MOVES, OPTIONS
from tests.client.visitor import API, Visitor, photograph

# Of Gradio and what it calls, in whatever version.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
SETTINGS = [0.7, *OPTIONS, *MOVES]


@pytest.fixture(scope="module")
def address(stand_in_server: EmbeddedServer) -> Iterator[str]:
    with Face3DClient(stand_in_server.grpc) as client, open_page(client, test_ui.patch_expressions()) as url:
        yield url.rstrip("/")


@pytest.fixture
def visitor(address: str) -> Iterator[Visitor]:
    came = Visitor(address)
    yield came
    came.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A picture of the host that nobody uploaded."""
    path = tmp_path / "secret.png"
    Image.new("RGB", (40, 40), (1, 2, 3)).save(path)
    return path


@pytest.fixture
def mine(visitor: Visitor, tmp_path: Path) -> str:
    """A photograph that was uploaded."""
    path = tmp_path / "mine.jpg"
    Image.new("RGB", (400, 300), (90, 90, 90)).save(path)
    return visitor.upload(path)


# --- files of the host ------------------------------------------------------------------------------------------------


def ways_to_name(path: str) -> list[Any]:
    return [
        {"path": path},
        photograph(path),
        photograph(path, is_stream=True),
        photograph(path, url=f"/{API}/file={path}"),
        photograph(path, url="data:image/png;base64,AAAA"),
        photograph(f"file://{path}"),
        photograph(f"{path}\0.jpg"),
        {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "../../etc/passwd"},
        {"image": {"path": path}},
        [{"path": path}],
        {"path": [path]},
        {"path": {"path": path}},
    ]


@pytest.mark.parametrize("way", range(12))
def test_no_event_takes_a_file_that_nobody_uploaded(visitor: Visitor, secret: Path, way: int) -> None:
    number = visitor.number("photograph", "input")
    refused = visitor.join(number, [ways_to_name(str(secret))[way], *SETTINGS])
    assert refused.status_code == 400, refused.text
    assert "not uploaded" in refused.text
    assert str(secret) not in refused.text


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/dev/zero", "/proc/self/environ", "relative.png", "", "/", "http://127.0.0.1:9/x.png"]
)
def test_neither_devices_nor_addresses_nor_folders_are_photographs(visitor: Visitor, path: str) -> None:
    refused = visitor.join(visitor.number("photograph", "input"), [photograph(path), *SETTINGS])
    assert refused.status_code == 400


def test_a_path_out_of_the_folder_of_uploads_is_refused(visitor: Visitor, mine: str, secret: Path) -> None:
    number = visitor.number("photograph", "input")
    folder = Path(mine).parent
    link = folder / "link.png"
    link.symlink_to(secret)
    try:
        for path in (f"{folder}/../../../../../../../{secret}", str(link), str(folder)):
            assert visitor.join(number, [{"path": path}, *SETTINGS]).status_code == 400, path
    finally:
        link.unlink()


def test_every_event_refuses_files_wherever_they_are_named(visitor: Visitor, secret: Path) -> None:
    for event in visitor.events:
        data = [{"path": str(secret)} for _ in event["inputs"]] or [{"path": str(secret)}]
        assert visitor.join(event["id"], data).status_code == 400
        hidden = visitor.join(event["id"], [], event_data={"index": [{"path": str(secret)}]})
        assert hidden.status_code == 400


def test_a_photograph_that_was_uploaded_is_taken(visitor: Visitor, mine: str) -> None:
    told = visitor.event("photograph", "input", [photograph(mine), *SETTINGS])
    assert told[1].startswith("3 faces")


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/proc/self/environ", "//etc/passwd", "/../etc/passwd", "/dev/zero", "pyproject.toml",
     "http://127.0.0.1:9/", "https://127.0.0.1:9/", "/%2e%2e/etc/passwd"],
)  # fmt: skip
def test_no_file_of_the_host_is_served(address: str, path: str) -> None:
    answer = httpx.get(f"{address}/{API}/file={path}", follow_redirects=False)
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text


def test_what_visitors_upload_runs_nothing_in_another_s_browser(visitor: Visitor, tmp_path: Path) -> None:
    for name in ("x.html", "x.svg", "x.js", "x.jpg"):
        file = tmp_path / name
        file.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
        answer = visitor.http.get(f"{API}/file={visitor.upload(file)}")
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("sandbox")
        if name != "x.jpg":
            assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "name", ["../../evil.jpg", "/etc/evil.jpg", "..\\evil.jpg", "a\x1b[31m.jpg", ".hidden", "x" * 500]
)
def test_an_upload_s_name_leads_nowhere(visitor: Visitor, tmp_path: Path, name: str) -> None:
    file = tmp_path / "plain.jpg"
    Image.new("RGB", (30, 30)).save(file)
    answer = visitor.http.post(f"{API}/upload", files={"files": (name, file.read_bytes())})
    if answer.status_code == 200:
        path = Path(answer.json()[0])
        assert path.parent.parent == Path(visitor.upload(file)).parent.parent
        assert ".." not in path.parts
    assert visitor.http.get("/config").status_code == 200


def test_what_is_made_for_a_visitor_has_a_name_that_nobody_guesses(visitor: Visitor, mine: str) -> None:
    made = [visitor.event("photograph", "input", [photograph(mine), *SETTINGS]) for _ in range(2)]
    glbs = [file for told in made for file in test_ui.files_in(told) if file.name == "face.glb"]
    assert len({file.parent.name for file in glbs}) == 2
    assert all(len(file.parent.name) == 32 for file in glbs)
    folder = glbs[0].parent.parent
    for path in (folder, folder.parent):
        assert visitor.http.get(f"{API}/file={path}").status_code in (403, 404)


# --- routes -----------------------------------------------------------------------------------------------------------


def test_no_event_is_an_endpoint_of_an_api(address: str, visitor: Visitor) -> None:
    info = visitor.http.get(f"{API}/info").json()
    assert info["named_endpoints"] == {}
    assert info["unnamed_endpoints"] == {}
    assert {event["api_visibility"] for event in visitor.events} == {"private"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "run/open"), ("POST", "api/open"), ("POST", "run/predict"), ("POST", "call/open"),
        ("POST", "call/v2/open"), ("POST", "process_recording"), ("POST", "component_server"), ("POST", "vibe-edit"),
        ("GET", "vibe-code"), ("POST", "stream/x"), ("GET", "stream/a/b/c/playlist.m3u8"), ("GET", "runs"),
        ("GET", "proxy=http://127.0.0.1:9/"), ("GET", "custom_component/x/client/y/z"), ("GET", "openapi.json"),
        ("PUT", "upload"), ("DELETE", "upload"), ("GET", "dev/reload"), ("GET", "profiling/traces"),
        ("OPTIONS", "run/open"), ("GET", "../monitoring/summary"), ("GET", "../docs"), ("GET", "../openapi.json"),
        ("POST", "../login"), ("TRACE", "upload"), ("POST", "call/open/"),
    ],
)  # fmt: skip
def test_routes_that_the_page_does_not_need_are_not_there(address: str, method: str, path: str) -> None:
    url = f"{address}/{API}/{path}" if not path.startswith("../") else f"{address}/{path[3:]}"
    answer = httpx.request(
        method, url, json={"data": [{"path": "/etc/passwd"}], "fn_index": 0} if method == "POST" else None
    )
    assert answer.status_code in (403, 404, 405, 411), answer.text


def test_the_queue_takes_no_direct_call(visitor: Visitor) -> None:
    for path in ("run/predict", "api/predict"):
        answer = visitor.http.post(f"{API}/{path}", json={"data": [None, *SETTINGS], "fn_index": 0})
        assert answer.status_code == 404


# --- other sites' pages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", "[evil]", ""]
)
def test_a_name_that_leads_here_is_not_enough(address: str, host: str) -> None:
    for path in ("/", "/config", f"/{API}/queue/status"):
        assert httpx.get(address + path, headers={"host": host}).status_code in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7", "127.0.0.1", "[::1]:7860", "192.168.1.2:80"])
def test_addresses_and_localhost_are_let_in(address: str, host: str) -> None:
    assert httpx.get(f"{address}/config", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "http://localhost.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_site_s_page_cannot_use_this_one(address: str, visitor: Visitor, headers: dict[str, str]) -> None:
    file = {"files": ("x.jpg", b"x")}
    assert httpx.post(f"{address}/{API}/upload", files=file, headers=headers).status_code == 403
    body = {"data": [], "fn_index": 0, "session_hash": "a"}
    assert httpx.post(f"{address}/{API}/queue/join", json=body, headers=headers).status_code == 403


# --- sizes ------------------------------------------------------------------------------------------------------------


def raw(address: str, request: bytes) -> bytes:
    """The first line of what the page answers to these bytes."""
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as wire:
        wire.sendall(request)
        return wire.recv(4096).split(b"\r\n")[0]


def test_large_bodies_are_refused_before_they_are_read(address: str) -> None:
    for path, size in (("upload", 65 << 20), ("queue/join", 70_000), ("upload", 10**13)):
        head = f"POST /{API}/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
        assert raw(address, head.encode()).split()[1] in (b"411", b"413")
    chunked = f"POST /{API}/upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(address, chunked.encode()).split()[1] == b"411"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 60_000, b"\xff\xfe", b'{"data": 1, "fn_index": 99, "session_hash": "a"}']
)
def test_events_that_are_none_are_refused(visitor: Visitor, body: bytes) -> None:
    answer = visitor.http.post(f"{API}/queue/join", content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code <= 500
    assert visitor.http.get("/config").status_code == 200


def test_a_wrong_value_is_an_error_of_that_event_only(visitor: Visitor, mine: str) -> None:
    number = visitor.number("photograph", "input")
    for wrong in (
        [photograph(mine), 9e9, *OPTIONS, *MOVES],
        [photograph(mine), "x", *OPTIONS, *MOVES],
        [7],
        [],
    ):
        done = visitor.outcome(visitor.join(number, wrong))
        assert not done["success"]
        assert "Traceback" not in json.dumps(done)
        assert "site-packages" not in json.dumps(done)
    assert visitor.event("photograph", "input", [photograph(mine), *SETTINGS])[1].startswith("3 faces")


def test_no_more_is_taken_when_the_disk_s_share_is_used_up(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "old.jpg").write_bytes(bytes(900))
    abandoned = tmp_path / "tmpabandoned"
    abandoned.write_bytes(bytes(5000))
    hours_ago = time.time() - 7200
    os.utime(abandoned, (hours_ago, hours_ago))
    reached = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])

    def upload(most: int) -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        headers = [(b"host", b"localhost"), (b"content-length", b"3")]
        scope = {"type": "http", "method": "POST", "path": f"/{API}/upload", "headers": headers}
        asyncio.run(PageGuard(inside, str(tmp_path), max_stored=most)(scope, receive, send))
        return sent

    assert upload(901) == []
    assert reached == [f"/{API}/upload"]
    assert not abandoned.exists()
    assert upload(900)[0]["status"] == 507
    assert len(reached) == 1


# --- words ------------------------------------------------------------------------------------------------------------


def test_words_of_a_server_are_no_markup_on_the_page() -> None:
    assert as_markdown("![x](http://evil/x.png) <b> `c`") == r"\!\[x\]\(http://evil/x.png\) \<b\> \`c\`"


def test_a_picture_for_ghostscript_is_not_opened(visitor: Visitor, tmp_path: Path) -> None:
    file = tmp_path / "face.jpg"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\nshowpage\n")
    told = visitor.event("photograph", "input", [photograph(visitor.upload(file)), *SETTINGS])
    assert told[1].startswith("3 faces")  # the stand-in finds faces in anything; the service refuses it
    assert not [path for path in test_ui.files_in(told) if path.name in ("faces.jpg", "overlay.jpg")]
