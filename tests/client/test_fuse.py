"""Fused pictures and clips: the client, the command and the page, against the real service and on made frames."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from face3d_client import (
    AsyncFace3DClient,
    BadImage,
    BadOption,
    BadResponse,
    ConsentRequired,
    DetectedFace,
    Face3DClient,
    Fusion,
    NoFace,
    read_manifest,
)
from face3d_client._clip_signing import ClipSigner
from face3d_client._clips import is_clip, open_clip, write_clip
from face3d_client._fuse_clip import Tracker
from face3d_client._protocol.fuse import build_fuse, parse_fuse
from face3d_client._ui.fuse import Fuser
from face3d_client._ui.studio import Studio
from face3d_client.cli.command import main
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from server import signing
from server.service import Service
from tests.client.test_service import grey

STATEMENT = "Made for a test; both works are in the public domain."


@pytest.fixture(scope="module")
def service(server: Service) -> Iterator[Face3DClient]:
    with Face3DClient(server.grpc) as client:
        yield client


@pytest.fixture(scope="module")
def made(service: Face3DClient, portrait_bytes: bytes, portrait_jpeg: bytes) -> Fusion:
    return service.fuse(portrait_bytes, portrait_jpeg, consent=STATEMENT)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, portrait_bytes: bytes, portrait_jpeg: bytes) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("photographs")
    found = {}
    for name, data in {"source.png": portrait_bytes, "target.jpg": portrait_jpeg, "grey.png": grey()}.items():
        found[name.split(".")[0]] = folder / name
        (folder / name).write_bytes(data)
    return found


class TestTheClient:
    def test_gives_the_target_with_nothing_changed_outside_of_the_mask(
        self, made: Fusion, portrait_jpeg: bytes
    ) -> None:
        with Image.open(io.BytesIO(portrait_jpeg)) as opened:
            target = np.asarray(opened.convert("RGB"))
        picture = np.asarray(made.picture)
        assert picture.shape == target.shape
        assert made.mask.shape == target.shape[:2]
        changed = (picture != target).any(axis=-1)
        assert changed.mean() > 0.02, "a face is there"
        assert not changed[made.mask == 0].any()

    def test_gives_a_file_that_stays_signed(self, made: Fusion, tmp_path: Path) -> None:
        assert (made.manifest.state, made.manifest.consent) == ("Valid", STATEMENT)
        assert made.manifest.failures == ("signingCredential.untrusted",)
        assert made.save(tmp_path / "new" / "fused.png").read_bytes() == made.data
        with pytest.raises(ValueError, match="signed as a PNG file"):
            made.save(tmp_path / "fused.jpg")

    def test_asks_for_a_statement_before_it_asks_the_server(self, portrait_bytes: bytes) -> None:
        with Face3DClient("localhost:1") as nobody, pytest.raises(ConsentRequired):
            nobody.fuse(portrait_bytes, portrait_bytes, consent=" ")

    def test_says_what_is_wrong_with_a_photograph_or_an_option(
        self, service: Face3DClient, files: dict[str, Path]
    ) -> None:
        with pytest.raises(NoFace):
            service.fuse(files["source"], files["grey"], consent=STATEMENT)
        with pytest.raises(BadOption, match="`shape` is"):
            service.fuse(files["source"], files["target"], consent=STATEMENT, shape=2)

    def test_takes_many_targets_and_lets_one_fail_alone(self, service: Face3DClient, files: dict[str, Path]) -> None:
        outcomes = list(
            service.fuse_many(files["source"], [files["grey"], files["target"]], consent=STATEMENT, mark=True)
        )
        assert [type(outcome.error) for outcome in outcomes] == [NoFace, type(None)]
        assert outcomes[1].unwrap().sources == (files["source"], files["target"])
        with pytest.raises(ValueError, match="signed as a PNG file"):
            outcomes[1].unwrap().save(files["target"])

    def test_has_a_twin_for_asyncio_over_http(
        self, server: Service, portrait_bytes: bytes, portrait_jpeg: bytes
    ) -> None:
        async def ask() -> Fusion:
            async with AsyncFace3DClient(server.http, protocol="http") as client:
                return await client.fuse(
                    portrait_jpeg, portrait_bytes, consent=STATEMENT, picture_format="jpeg", mark=True
                )

        found = asyncio.run(ask())
        assert (found.format, found.picture.size, found.manifest.consent) == ("jpeg", (512, 512), STATEMENT)


class TestAnswersAndRequests:
    def test_carry_the_statement_as_one_line_and_only_what_was_given(self) -> None:
        call = build_fuse(b"a", b"b", " Ana\nagreed ", {"shape": 0.5, "mark": True, "eyes": None})
        assert call.parameters == {"consent": "Ana agreed", "shape": "0.5", "mark": True}
        assert {name: list(array) for name, array in call.inputs.items()} == {"source": [b"a"], "target": [b"b"]}
        with pytest.raises(TypeError, match="no such option: shpae"):
            build_fuse(b"a", b"b", "x", {"shpae": 1})  # type: ignore[typeddict-unknown-key]
        with pytest.raises(BadOption, match="501 characters"):
            build_fuse(b"a", b"b", "x" * 501, {})

    def test_are_refused_where_they_are_no_pictures_or_unsigned(self, made: Fusion) -> None:
        texts = np.array([], np.object_)
        with pytest.raises(BadResponse):
            parse_fuse({"picture": np.array([b"GIF89a"], np.object_), "mask": texts, "warnings": texts})
        bare = io.BytesIO()
        Image.new("RGB", (8, 8)).save(bare, "PNG")
        unsigned = Fusion(bare.getvalue(), bare.getvalue())
        with pytest.raises(BadResponse, match="without a valid manifest"):
            _ = unsigned.manifest
        changed = bytearray(made.data)
        changed[-40] ^= 1
        with pytest.raises(BadResponse, match="without a valid manifest"):
            _ = Fusion(bytes(changed), made.mask_data).manifest


def frames(count: int, size: tuple[int, int] = (48, 64)) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 40, (*size, 3)).astype(np.uint8) + np.uint8(30 * number) for number in range(count)]


class TestClips:
    @pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webp"])
    def test_are_read_as_they_were_written(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"clip{suffix}"
        assert write_clip(path, 12.5, iter(frames(5))) == 5
        assert is_clip(path)
        assert b"compositeWithTrainedAlgorithmicMedia" in path.read_bytes()
        with open_clip(path) as clip:
            assert clip.rate == pytest.approx(12.5)
            for before, after in zip(frames(5), clip.frames, strict=True):
                assert abs(before.astype(int) - after).mean() < 12, "the same, but for the loss of the format"
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]

    def test_that_are_none_are_refused_and_leave_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "film.mp4").write_bytes(b"no film" * 40)
        with pytest.raises(BadImage, match="cannot be read as a film"), open_clip(tmp_path / "film.mp4"):
            pass
        with pytest.raises(OSError, match="No such file"), open_clip(tmp_path / "none.mp4"):
            pass
        with pytest.raises(ValueError, match=r"written as \.mp4"):
            write_clip(tmp_path / "clip.gif", 10, iter(frames(1)))
        with pytest.raises(BadImage, match="no frame"):
            write_clip(tmp_path / "empty.mp4", 10, iter([]))

        def broken() -> Iterator[NDArray[np.uint8]]:
            yield frames(1)[0]
            raise NoFace("none")

        with pytest.raises(NoFace):
            write_clip(tmp_path / "broken.webp", 10, broken())
        assert [entry.name for entry in tmp_path.iterdir()] == ["film.mp4"]

    def test_a_still_picture_is_no_clip(self, files: dict[str, Path]) -> None:
        assert not any(is_clip(path) for path in files.values())

    def test_keep_to_one_person(self) -> None:
        def face(index: int, x: float, size: float = 40) -> DetectedFace:
            return DetectedFace(np.array([x, 0, x + size, size, 0.9, *[0] * 10], np.float32), index)

        tracker = Tracker()
        assert tracker.choose([]) is None
        assert tracker.choose([face(0, 300), face(1, 10, 60)]) == 1, "the largest"
        assert tracker.choose([face(0, 300), face(1, 30)]) == 1, "where it was, however small"
        assert tracker.choose([face(0, 300)]) is None, "another person"
        assert tracker.choose([face(0, 45), face(1, 300)]) == 0, "back again"
        assert Tracker(1).choose([face(0, 300), face(1, 10)]) == 1
        with pytest.raises(NoFace, match="none of number 2"):
            Tracker(2).choose([face(0, 300)])

    def test_get_the_face_on_the_frames_that_show_the_person(
        self, service: Face3DClient, files: dict[str, Path], tmp_path: Path
    ) -> None:
        with Image.open(files["target"]) as opened:
            target = np.asarray(opened.convert("RGB"))
        blank = np.full_like(target, 90)
        write_clip(tmp_path / "in.webp", 10, iter([target, blank, target]))
        done: list[int] = []
        made = service.fuse_clip(
            files["source"], tmp_path / "in.webp", tmp_path / "out.webp", consent=STATEMENT, on_frame=done.append
        )
        assert (made.frames, made.fused, made.complete, done) == (3, 2, True, [1, 2, 3])
        with Image.open(made.path) as clip:
            seen = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(clip)]
        assert abs(seen[0] - seen[2]).mean() < 2, "one head, the same on every frame"
        assert abs(seen[1] - 90).max() < 4
        corner = abs(seen[0] - target)[-60:, -200:]
        assert corner.max() > 60, "the visible mark"
        with pytest.raises(NoFace):
            service.fuse_clip(files["grey"], tmp_path / "in.webp", tmp_path / "none.webp", consent=STATEMENT)
        assert not (tmp_path / "none.webp").exists()

    @pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webp"])
    def test_are_signed_by_the_caller_s_certificate(self, tmp_path: Path, suffix: str) -> None:
        keys = signing.make_test_certificate(tmp_path / "keys")
        path = tmp_path / f"clip{suffix}"
        write_clip(path, 12.5, iter(frames(4)))
        assert read_manifest(path) is None
        ClipSigner(keys.certificate, keys.key).sign(path, STATEMENT)
        found = read_manifest(path, trust=keys.certificate.with_name(signing.ROOT))
        assert found is not None
        assert (found.state, found.consent) == ("Trusted", STATEMENT)
        assert found.actions == ("c2pa.opened", "c2pa.placed", "c2pa.edited")
        with open_clip(path) as clip:
            assert len(list(clip.frames)) == 4
        assert b"compositeWithTrainedAlgorithmicMedia" in path.read_bytes()
        whole = bytearray(path.read_bytes())
        whole[whole.rindex(b"mdat" if suffix != ".webp" else b"ANMF") + 40] ^= 1
        path.write_bytes(whole)
        changed = read_manifest(path)
        assert changed is not None
        assert changed.state == "Invalid"
        assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, "keys"]

    def test_are_refused_by_a_certificate_that_cannot_sign_before_a_frame_is_asked_for(self, tmp_path: Path) -> None:
        keys = signing.make_test_certificate(tmp_path / "keys")
        write_clip(tmp_path / "in.webp", 10, iter(frames(2)))
        with Face3DClient("localhost:1") as nobody:
            with pytest.raises(ValueError, match="belong together"):
                nobody.fuse_clip(b"x", tmp_path / "in.webp", tmp_path / "out.webp", consent=STATEMENT, key=keys.key)
            with pytest.raises(ValueError, match="no private key"):
                nobody.fuse_clip(
                    b"x", tmp_path / "in.webp", tmp_path / "out.webp", consent=STATEMENT,
                    certificate=keys.certificate, key=keys.certificate,
                )  # fmt: skip


class TestTheCommand:
    def test_writes_a_signed_picture_and_tells_what_it_says(
        self, server: Service, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "fused.jpg"
        words = ["fuse", str(files["source"]), str(files["target"]), "-o", str(out), "--consent", STATEMENT, "--mask"]
        assert main([*words, "--url", server.grpc]) == 0
        assert capsys.readouterr().out.strip() == str(out)
        with Image.open(tmp_path / "fused-mask.png") as mask:
            assert mask.mode == "L"
        assert server.signing is not None
        assert main(["manifest", str(out), "--trust", str(server.signing / signing.ROOT)]) == 0
        told = capsys.readouterr().out
        for words_told in ("Trusted", "TEST certificate", STATEMENT, "c2pa.edited", "compositeWithTrained"):
            assert words_told in told
        assert main(["manifest", str(files["target"])]) == 1
        assert "no manifest" in capsys.readouterr().err

    def test_takes_a_folder_and_tells_what_failed(
        self, server: Service, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder, out = files["target"].parent, tmp_path / "out"
        words = ["fuse", str(files["source"]), str(folder), "-o", str(out), "--consent", STATEMENT, "--format", "jpeg"]
        assert main([*words, "--url", server.grpc]) == 1
        assert sorted(path.name for path in out.iterdir()) == ["source.jpg", "target.jpg"]
        assert "grey.png: NoFace" in capsys.readouterr().err
        found = read_manifest(out / "target.jpg")
        assert found is not None
        assert found.consent == STATEMENT

    @pytest.mark.parametrize(
        ("out", "why"), [("out.gif", "written as"), ("target.png", "one of the photographs")], ids=["format", "itself"]
    )
    def test_refuses_results_that_make_no_sense(
        self, files: dict[str, Path], capsys: pytest.CaptureFixture[str], out: str, why: str
    ) -> None:
        folder = files["source"].parent
        place = folder / out if why == "written as" else folder
        words = ["fuse", str(files["source"]), str(files["source"]), "-o", str(place), "--consent", "x"]
        if why != "written as":
            words[2:3] = [str(folder / "source.png"), str(folder / "grey.png")]
        assert main([*words, "--url", "localhost:1"]) == 2
        assert why in capsys.readouterr().err


class TestThePage:
    def test_fuses_with_a_statement_and_gives_the_signed_file(
        self, service: Face3DClient, files: dict[str, Path], tmp_path: Path
    ) -> None:
        studio = Studio(service, parent=tmp_path)
        fuser = Fuser(service, studio)
        photographs = (str(files["source"]), str(files["target"]))
        file, words = fuser.fuse(*photographs, " ", 0.5, False, False, False, True)
        assert (file, "who agreed" in words) == (None, True)
        file, words = fuser.fuse(photographs[0], str(files["grey"]), STATEMENT, 0.5, False, False, False, True)
        assert (file, "No face" in words) == (None, True)
        file, _ = fuser.fuse(*photographs, STATEMENT, 0.5, True, False, False, True)
        assert file is not None
        found = read_manifest(file)
        assert found is not None
        assert (found.state, found.consent) == ("Valid", STATEMENT)
        studio.close()
