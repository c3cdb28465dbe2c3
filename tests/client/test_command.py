"""The command `face3d`: names, statuses, files, tables, interrupts and a server that goes away."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trimesh
from face3d_client._mesh.formats import safe_stem
from face3d_client.balance import BalancedFace3DClient
from face3d_client.cli import main
from face3d_client.cli.jobs import UsageError, check_out, plan

from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from tests.client import stand_in, synthetic
from tests.servers import serving

COMMAND = [sys.executable, "-m", "face3d_client"]


def face3d(*words: str | Path, url: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    environment = os.environ | {"FACE3D_URL": url, "COLUMNS": "200"}
    return subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, env=environment, timeout=120, check=False
    )


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of pictures for the stand-in: good, bad, nested, hidden, equally called, one not ASCII."""
    folder = tmp_path / "pictures"
    (folder / "deep" / "er").mkdir(parents=True)
    for name, content in {
        "a.jpg": "NUMBER 1",
        "a.png": "NUMBER 2",
        "deep/b.jpg": "NUMBER 3",
        "deep/er/J\u00f6rg \u4e09.jpg": "NUMBER 4",
        "none.jpg": "ERROR INVALID_ARG [NoFace] no face was found. Look into the camera.",
        "notes.txt": "ERROR INVALID_ARG [BadImage] this is no picture. Send one.",
        "empty.jpg": "",
        ".hidden.jpg": "NUMBER 5",
    }.items():
        (folder / name).write_text(content)
    return folder


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_folders_are_mirrored_and_shared_names_keep_their_suffix(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = plan([str(pictures)], out)
    stems = {str(job.source.relative_to(pictures)): str(job.stem.relative_to(out)) for job in jobs}
    assert stems == {
        "a.jpg": "a.jpg",
        "a.png": "a.png",
        "deep/b.jpg": "deep/b",
        "deep/er/J\u00f6rg \u4e09.jpg": "deep/er/J\u00f6rg \u4e09",
        "empty.jpg": "empty",
        "none.jpg": "none",
        "notes.txt": "notes",
    }
    assert jobs[0].mesh(".glb", None) == out / "a.jpg.glb"
    assert {job.source.name: job for job in jobs}["b.jpg"].extra("preview", 1) == out / "deep" / "b-1-preview.png"


def test_one_photograph_makes_files_with_fixed_names(pictures: Path, tmp_path: Path) -> None:
    (job,) = plan([str(pictures / "a.jpg")], tmp_path / "out")
    assert job.mesh(".glb", None) == tmp_path / "out" / "face.glb"
    assert job.extra("preview", None) == tmp_path / "out" / "preview.png"
    assert job.extra("preview", 2) == tmp_path / "out" / "face-2-preview.png"


def test_patterns_files_and_folders_mix_and_no_file_comes_twice(pictures: Path, tmp_path: Path) -> None:
    words = [str(pictures / "deep"), str(pictures / "**" / "*.jpg"), str(pictures / "a.jpg")]
    jobs = plan(words, tmp_path / "out")
    assert sorted(job.source.name for job in jobs) == [
        "J\u00f6rg \u4e09.jpg", "a.jpg", "b.jpg", "empty.jpg", "none.jpg",
    ]  # fmt: skip


def test_equal_names_of_two_folders_are_numbered(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "A.jpg").write_text("NUMBER 1")
    jobs = plan([str(tmp_path / "one"), str(tmp_path / "two")], tmp_path / "out")
    assert [job.stem.name for job in jobs] == ["A.jpg", "A.jpg-2"]


def test_results_of_an_earlier_run_are_no_pictures(pictures: Path) -> None:
    (pictures / "out").mkdir()
    (pictures / "out" / "old.png").write_text("NUMBER 9")
    (pictures / "failures.csv").write_text("file,reason,message")
    assert len(plan([str(pictures)], pictures / "out")) == 7


def test_pipes_are_left_alone_and_what_cannot_be_read_is_listed(pictures: Path, tmp_path: Path) -> None:
    os.mkfifo(pictures / "pipe.jpg")
    (pictures / "gone.jpg").symlink_to(pictures / "nowhere.jpg")
    names = [job.source.name for job in plan([str(pictures)], tmp_path / "out")]
    assert "pipe.jpg" not in names
    assert "gone.jpg" in names


def test_a_folder_that_may_not_be_entered_is_listed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def refuse(path: str) -> Any:  # the rights of a folder do not stop root, whom tests may run as
        if os.fspath(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    names = [job.source.name for job in plan([str(pictures)], tmp_path / "out")]
    assert "deep" in names
    assert "a.jpg" in names


def test_pictures_are_never_written_over(pictures: Path, tmp_path: Path) -> None:
    (pictures / "c.png").write_text("NUMBER 1")
    plan([str(pictures)], pictures)  # the texture of c.png is c_texture.png
    for name in ("c_texture.png", "c-preview.PNG", "c-3-overlay.png", "c-12_eye_left.png", "c_atlas.png"):
        (pictures / name).write_text("NUMBER 1")
        with pytest.raises(UsageError, match=rf"results of .*c\.png would be written over {name}"):
            plan([str(pictures)], pictures)
        (pictures / name).unlink()
    (pictures / "d e.jpg").write_text("NUMBER 1")
    (pictures / f"{safe_stem('d e')}_texture.png").write_text("NUMBER 1")
    with pytest.raises(UsageError, match=r"results of .*d e\.jpg would be written over"):
        plan([str(pictures)], pictures)
    for name in ("face_texture.png", "preview.png", "overlay.png"):
        (tmp_path / name).write_text("NUMBER 1")
        with pytest.raises(UsageError, match="choose another -o"):
            plan([str(tmp_path / name)], tmp_path)
        plan([str(tmp_path / name)], tmp_path / "out")


def test_a_word_that_stands_for_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file or folder '.*nothing\*', and no file matches it"):
        plan([str(tmp_path / "nothing*")], tmp_path)


# --- one photograph ---------------------------------------------------------------------------------------------------


def test_a_folder_without_pictures_and_an_out_that_is_no_folder_are_said_before_anything_is_done(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match="no file in the folder"):
        plan([str(tmp_path)], tmp_path / "out")
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="is a file"):
            check_out(out)
    check_out(tmp_path / "new" / "folder")
    check_out(Path("nowhere/yet"))
    assert not (tmp_path / "new").exists()


def test_a_photograph_becomes_face_texture_and_preview(
    pictures: Path, tmp_path: Path, stand_in_server: EmbeddedServer
) -> None:
    out = tmp_path / "out"
    done = face3d("reconstruct", pictures / "a.jpg", "-o", out, url=stand_in_server.grpc)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["face.glb", "face_texture.png", "preview.png"]
    assert (out / "face_texture.png").read_bytes() == synthetic.png()
    assert str(out / "face.glb") in done.stdout.splitlines()
    assert done.stderr == ""


def test_every_format_and_the_same_over_http(pictures: Path, tmp_path: Path, stand_in_server: EmbeddedServer) -> None:
    out = tmp_path / "out"
    words = ["--format", "glb,obj,ply,stl,npz", "--no-preview", "--protocol", "http", "--neutral"]
    done = face3d("reconstruct", pictures / "a.jpg", "-o", out, *words, url=stand_in_server.http)
    assert done.returncode == 0, done.stderr
    suffixes = {".glb", ".mtl", ".npz", ".obj", ".ply", ".stl", "_texture.png"}
    assert {path.name for path in out.iterdir()} == {f"face{suffix}" for suffix in suffixes}
    mesh: Any = trimesh.load_mesh(out / "face.obj")
    assert mesh.visual.material.image.size == (64, 64)
    assert "expression='neutral'" in done.stderr  # the stand-in warns of every parameter it was sent


def test_no_face_is_one_sentence_and_status_2(pictures: Path, tmp_path: Path, stand_in_server: EmbeddedServer) -> None:
    done = face3d("reconstruct", pictures / "none.jpg", "-o", tmp_path / "out", url=stand_in_server.grpc)
    assert done.returncode == 2
    assert done.stderr == "face3d: NoFace: no face was found. Look into the camera.\n"
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["reconstruct", "detect", "models", "info"])
def test_no_server_is_one_sentence_and_status_3(pictures: Path, tmp_path: Path, command: str) -> None:
    words: dict[str, list[str | Path]] = {
        "reconstruct": [pictures / "a.jpg", "-o", tmp_path / "out"],
        "detect": [pictures / "a.jpg"],
    }
    done = face3d(command, *words.get(command, []), url="127.0.0.1:9")
    assert done.returncode == 3
    assert done.stderr.startswith("face3d: ServerUnavailable: no server answers at grpc://127.0.0.1:9")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["reconstruct"],
        ["reconstruct", "missing.jpg", "-o", "out"],
        ["reconstruct", __file__, "-o", "out", "--format", "fbx"],
        ["reconstruct", __file__, "-o", "out", "--face", "1", "--all-faces"],
        ["reconstruct", __file__, "-o", "out", "--min-face", "24"],
        ["reconstruct", __file__, "-o", "out", "--url", "ftp://x"],
        ["detect", "missing.jpg"],
    ],
)
def test_a_command_that_makes_no_sense_has_status_2(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main(words)
    except SystemExit as stop:
        status = int(stop.code or 0)
    assert status == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_face_of_a_photograph_is_numbered(
    pictures: Path, tmp_path: Path, stand_in_server: EmbeddedServer
) -> None:
    out = tmp_path / "out"
    done = face3d("reconstruct", pictures / "a.jpg", "-o", out, "--all-faces", "--json", url=stand_in_server.grpc)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.glob("*.glb")} == {"face-0.glb", "face-1.glb"}  # the third has 40 pixels
    told = json.loads(done.stdout)
    assert [face["score"] for face in told["faces"]] == [0.99, 0.95]
    assert {"face-0-preview.png", "face-1_texture.png"} <= {Path(name).name for name in told["files"]}


# --- many -------------------------------------------------------------------------------------------------------------


def test_a_folder_is_finished_with_good_ones_written_and_bad_ones_listed(
    pictures: Path, tmp_path: Path, stand_in_server: EmbeddedServer
) -> None:
    out = tmp_path / "out"
    done = face3d("reconstruct", pictures, "-o", out, url=stand_in_server.grpc)
    assert done.returncode == 1, done.stderr
    assert {str(path.relative_to(out)) for path in out.rglob("*.glb")} == {
        "a.jpg.glb", "a.png.glb", "deep/b.glb", "deep/er/J\u00f6rg \u4e09.glb",
    }  # fmt: skip
    with (out / "failures.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "reason", "message"]
    assert {Path(row[0]).name: row[1] for row in rows[1:]} == {
        "none.jpg": "NoFace",
        "notes.txt": "BadImage",
        "empty.jpg": "BadImage",
    }
    assert "4  written (4 faces" in done.stderr
    assert "BadImage" in done.stderr
    assert "failures.csv" in done.stderr
    assert done.stdout == ""
    assert not list(out.rglob(".face3d-*"))


def test_a_second_run_skips_what_is_there(pictures: Path, tmp_path: Path, stand_in_server: EmbeddedServer) -> None:
    out = tmp_path / "out"
    for name in ("none.jpg", "notes.txt", "empty.jpg"):
        (pictures / name).unlink()
    assert face3d("reconstruct", pictures, "-o", out, url=stand_in_server.grpc).returncode == 0
    assert not (out / "failures.csv").exists()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    (out / "deep" / "b.glb").unlink()
    done = face3d("reconstruct", pictures, "-o", out, "--skip-existing", "--json", url=stand_in_server.grpc)
    assert done.returncode == 0
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {Path(line["source"]).name: line["status"] for line in told} == {
        "a.jpg": "skipped",
        "a.png": "skipped",
        "b.jpg": "written",
        "J\u00f6rg \u4e09.jpg": "skipped",
    }
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert {path.name for path in before if before[path] != after[path]} == {"b.glb", "b_texture.png"}


def test_nothing_done_among_many_is_status_2(pictures: Path, tmp_path: Path, stand_in_server: EmbeddedServer) -> None:
    words = [pictures / "none.jpg", pictures / "empty.jpg"]
    assert face3d("reconstruct", *words, "-o", tmp_path / "out", url=stand_in_server.grpc).returncode == 2


def test_names_that_are_not_even_text_are_worked_on(tmp_path: Path, stand_in_server: EmbeddedServer) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, content in ((b"caf\xe9.jpg", b"NUMBER 1"), (b"bad\xff.jpg", b"ERROR INVALID_ARG [NoFace] No. Look.")):
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(content)  # noqa: PTH118
    done = face3d("reconstruct", folder, "-o", tmp_path / "out", url=stand_in_server.grpc)
    assert done.returncode == 1, done.stderr
    assert len(list((tmp_path / "out").glob("*.glb"))) == 1
    assert "NoFace" in (tmp_path / "out" / "failures.csv").read_text(encoding="utf-8-sig")


def _wait_for(condition: object, what: str) -> None:
    assert callable(condition)
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_finished_work_whole(
    tmp_path: Path, stand_in_server: EmbeddedServer, kind: signal.Signals
) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:03}.jpg").write_text("SLEEP 0.05")
    environment = os.environ | {"FACE3D_URL": stand_in_server.grpc}
    words = ["reconstruct", str(folder), "-o", str(out), "--concurrency", "2"]
    with subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True, env=environment) as process:
        _wait_for(lambda: len(list(out.glob("*.glb"))) >= 3, "the first results")
        process.send_signal(kind)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "not done: interrupted" in told
    assert "Traceback" not in told
    meshes = list(out.glob("*.glb"))
    assert 3 <= len(meshes) < 200
    assert all(mesh.stat().st_size == len(synthetic.glb()) for mesh in meshes)
    assert not list(out.glob(".face3d-*"))


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A stand-in that a test may stop and start."""
    options = on_free_ports(ServerOptions(repository=stand_in.build(tmp_path / "repository"), exit_timeout=5))
    server = EmbeddedServer(options)
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_killed_in_mid_batch_and_started_again_loses_nothing(
    tmp_path: Path, own_server: EmbeddedServer, protocol: str
) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:03}.jpg").write_text("SLEEP 0.03")
    url = own_server.grpc if protocol == "grpc" else own_server.http
    http, grpc, metrics = (
        int(door.rpartition(":")[2]) for door in (own_server.http, own_server.grpc, own_server.metrics)
    )
    again = dataclasses.replace(own_server.options, http_port=http, grpc_port=grpc, metrics_port=metrics)
    words = ["reconstruct", str(folder), "-o", str(out), "--concurrency", "4", "--json", "--protocol", protocol]
    words += ["--outage", "120"]
    with subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"FACE3D_URL": url},
    ) as process:  # fmt: skip
        _wait_for(lambda: len(list(out.glob("*.glb"))) >= 5, "the first results")
        own_server.kill()
        own_server.stop()
        finished = {path: path.stat().st_mtime_ns for path in out.glob("*.glb")}
        with serving(again):
            told, complaints = process.communicate(timeout=120)
    assert process.returncode == 0, complaints
    assert len(finished) < 60
    assert len(list(out.glob("*.glb"))) == 60
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items()), "written twice"
    assert len(told.splitlines()) == 60
    assert not list(out.glob(".face3d-*"))


def test_a_server_that_stays_away_ends_the_batch_with_status_3(tmp_path: Path, own_server: EmbeddedServer) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:03}.jpg").write_text("SLEEP 0.05")
    words = ["reconstruct", str(folder), "-o", str(out), "--concurrency", "2", "--outage", "1"]
    environment = os.environ | {"FACE3D_URL": own_server.grpc}
    with subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True, env=environment) as process:
        _wait_for(lambda: len(list(out.glob("*.glb"))) >= 2, "the first results")
        own_server.kill()
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 3, complaints
    assert "ServerUnavailable" in complaints


# --- the other commands -----------------------------------------------------------------------------------------------


def test_detect_prints_faces_and_their_numbers(pictures: Path, stand_in_server: EmbeddedServer) -> None:
    done = face3d("detect", pictures / "a.jpg", url=stand_in_server.grpc)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "face 0 score 0.990 box 100.0 120.0 300.0 320.0"
    assert len(done.stdout.splitlines()) == 3


def test_detect_as_json_tells_of_good_and_bad(pictures: Path, stand_in_server: EmbeddedServer) -> None:
    done = face3d("detect", pictures / "a.jpg", pictures / "empty.jpg", "--json", url=stand_in_server.grpc)
    assert done.returncode == 1
    good, bad = (json.loads(line) for line in done.stdout.splitlines())
    assert len(good["faces"]) == 3
    assert len(good["faces"][0]["points"]) == 5
    assert bad["errors"][0]["reason"] == "BadImage"


def test_models_and_info_say_what_is_loaded(stand_in_server: EmbeddedServer) -> None:
    models = face3d("models", url=stand_in_server.grpc)
    assert models.returncode == 0
    assert [line.split()[:3] for line in models.stdout.splitlines()[1:]] == [
        ["detect", "1", "READY"],
        ["face3d", "1", "READY"],
        ["reconstruct", "1", "READY"],
    ]
    info = face3d("info", url=stand_in_server.grpc)
    assert info.returncode == 0
    assert f"triton 2.51.0 at grpc://{stand_in_server.grpc}" in info.stdout
    assert "service  ready" in info.stdout


def test_a_server_that_keeps_its_repository_closed_says_which_key_to_set(tmp_path: Path) -> None:
    repository = stand_in.build(tmp_path / "repository")
    options = ServerOptions(repository=repository, log_file=tmp_path / "triton.log", admin_key="sesame")
    with serving(on_free_ports(options)) as server:
        for url in (server.grpc, f"http://{server.http}"):
            assert "service  ready" in face3d("info", url=url).stdout  # needs no key
            for words in ([], ["--admin-key", "barley"]):
                closed = face3d("models", *words, url=url)
                assert closed.returncode == 2
                assert closed.stderr.startswith("face3d: AccessDenied: the server keeps this closed")
                assert "Set FACE3D_ADMIN_KEY" in closed.stderr
            assert face3d("models", "--admin-key", "sesame", url=url).returncode == 0
        with BalancedFace3DClient([server.grpc, f"http://{server.http}"], admin_key="sesame") as client:
            assert len([client.models() for _ in range(4)]) == 4


def test_serve_outside_of_a_checkout_says_where_the_server_is(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "serve"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("face3d: the server is not here: it comes with the repository")


def test_serve_in_a_checkout_is_python_m_server() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [*COMMAND, "serve", "--help"], cwd=root / "client", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert "usage: python -m server" in done.stdout
