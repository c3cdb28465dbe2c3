"""`track` on the real server: frames of a clip as a sequence, and a moving head of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from face3d_client import (
    AsyncFace3DClient,
    BadImage,
    BadOption,
    Clip,
    Face3DClient,
    ImageTooLarge,
    NoFace,
    TrackedFrame,
)
from face3d_client._mesh.glb_file import read_glb
from face3d_client.cli import main
from numpy.typing import NDArray

from server.service import Service as RunningService
from tests.service import Refusal, Service, picture

RATE = 12.0
Frames = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def frames(portrait_bytes: bytes) -> Frames:
    """A second of a head that leans to the side and back, and is away for one frame."""
    portrait = np.asarray(picture(portrait_bytes), np.uint8)
    made = []
    for k in range(12):
        turn = cv2.getRotationMatrix2D((225, 130), 14 * np.sin(k * np.pi / 11), 1.0)
        made.append(np.asarray(cv2.warpAffine(portrait, turn, (512, 512), borderMode=cv2.BORDER_REFLECT), np.uint8))
    made[5] = np.full_like(made[5], 90)
    return made


@pytest.fixture(scope="module")
def clip(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (512, 512))
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
    return path


@pytest.fixture(scope="module")
def client(running_service: RunningService) -> Iterator[Face3DClient]:
    with Face3DClient(running_service.grpc) as made:
        yield made


def test_frames_are_steadied_and_one_without_a_face_leaves_the_clip_going(client: Face3DClient, frames: Frames) -> None:
    tracked = list(client.track(frames, frame_rate=RATE))
    assert [frame is None for frame in tracked] == [k == 5 for k in range(12)]
    found = [frame for frame in tracked if frame is not None]
    assert [frame.index for frame in found] == [k for k in range(12) if k != 5]
    assert found[-1].seconds == pytest.approx(11 / RATE)
    rolls = [float(frame.coefficients.angles[2]) for frame in found]
    assert max(map(abs, rolls)) > 0.1
    plain = [frame for frame in client.track(frames, frame_rate=RATE, smoothing=0) if frame is not None]
    np.testing.assert_allclose(found[0].rotation, plain[0].rotation, atol=1e-4)  # the first frame passes as it is
    jumps, steadied = (
        sum(np.abs(np.diff([frame.blendshapes for frame in one], axis=0)).sum(1)) for one in (plain, found)
    )
    assert steadied < 0.9 * jumps


def test_clips_at_the_same_time_do_not_mix(client: Face3DClient, frames: Frames, portrait_jpeg: bytes) -> None:
    """Frames of another person in between change nothing."""
    other = [np.asarray(picture(portrait_jpeg), np.uint8)] * 6

    def angles(one: Frames) -> NDArray[np.float32]:
        return np.stack([frame.rotation for frame in client.track(one, frame_rate=RATE) if frame is not None])

    alone = angles(frames[:5])
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(angles, [frames[:5], other, frames[:5]]))
    np.testing.assert_allclose(together[0], alone, atol=0.01)
    np.testing.assert_allclose(together[2], alone, atol=0.01)


def test_over_http_a_clip_is_the_same(running_service: RunningService, client: Face3DClient, frames: Frames) -> None:
    with Face3DClient(f"http://{running_service.http}") as other:
        (over_http, *_), (over_grpc, *_) = (list(one.track(frames[:2], frame_rate=RATE)) for one in (other, client))
    assert over_http is not None
    assert over_grpc is not None
    np.testing.assert_allclose(over_http.rotation, over_grpc.rotation, atol=1e-3)


def test_a_frame_without_a_sequence_is_refused(running_service: RunningService, portrait_bytes: bytes) -> None:
    service = Service(running_service.grpc, running_service.triton.grpc)
    with pytest.raises(Refusal, match="give `sequence_id`") as refusal:
        service.ask(portrait_bytes, outputs=("rotation",), model="track")
    assert refusal.value.tag == "BadOption"
    with pytest.raises(Refusal, match="`frame_rate` is") as refusal:
        service.ask(portrait_bytes, outputs=("rotation",), model="track", frame_rate="0")
    assert refusal.value.tag == "BadOption"


def test_a_clip_becomes_a_head_with_an_animation(client: Face3DClient, clip: Path, tmp_path: Path) -> None:
    made = client.reconstruct_clip(clip)
    assert (len(made.frames), made.missed) == (11, 1)
    (path,) = made.save(tmp_path / "head.glb")
    file = read_glb(path.read_bytes())
    (animation,) = file.tree["animations"]
    channels = {channel["target"]["path"]: channel for channel in animation["channels"]}
    assert set(channels) == {"rotation", "weights"}
    for kind, width, count in (("rotation", 4, 11), ("weights", 1, 11 * 52)):
        sampler = animation["samplers"][channels[kind]["sampler"]]
        values = file.array(sampler["output"], width)
        assert len(values) == count
        times = file.array(sampler["input"], 1)[:, 0]
        np.testing.assert_allclose(times, [frame.seconds for frame in made.frames], atol=1e-6)
    turns = file.array(animation["samplers"][0]["output"], 4)
    np.testing.assert_allclose(np.linalg.norm(turns, axis=1), 1, atol=1e-5)
    assert ((turns[1:] * turns[:-1]).sum(1) > 0).all()
    with pytest.raises(ValueError, match=r"written as \.glb"):
        made.save(tmp_path / "head.obj")


def test_asyncio_makes_the_same_of_a_clip_and_holds_up_no_loop(
    running_service: RunningService, client: Face3DClient, clip: Path, frames: Frames
) -> None:
    async def run() -> tuple[Clip, list[TrackedFrame | None], int]:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        async with AsyncFace3DClient(running_service.grpc) as other:
            beside = asyncio.create_task(turn())
            made = await other.reconstruct_clip(clip, outputs=["mesh"])
            beside.cancel()
            return made, [frame async for frame in other.track(frames[4:7], frame_rate=RATE)], turns

    made, tracked, turns = asyncio.run(run())
    blocking = client.reconstruct_clip(clip, outputs=["mesh"])
    assert (len(made.frames), made.missed) == (11, 1)
    assert made.glb == blocking.glb
    assert [frame is None for frame in tracked] == [False, True, False]
    assert turns > 20


def test_a_cancelled_clip_ends_and_leaves_the_client_working(
    running_service: RunningService, clip: Path, portrait_bytes: bytes
) -> None:
    async def run() -> float:
        async with AsyncFace3DClient(running_service.grpc) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.reconstruct_clip(clip)
            return (await client.reconstruct(portrait_bytes, outputs=["face"])).score

    assert asyncio.run(run()) > 0.7


def test_what_is_no_clip_is_refused(client: Face3DClient, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(BadImage, match="no video that can be read"):
        client.reconstruct_clip(tmp_path / "text.mp4")
    with pytest.raises(FileNotFoundError):
        client.reconstruct_clip("https://example.org/clip.mp4")
    with pytest.raises(ImageTooLarge, match="longer than is read"):
        client.reconstruct_clip(clip, seconds=0.3)
    with pytest.raises(BadOption, match="frame_rate"):
        list(client.track([], frame_rate=0))
    empty = cv2.VideoWriter(str(tmp_path / "grey.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (320, 240))
    for _ in range(3):
        empty.write(np.full((240, 320, 3), 90, np.uint8))
    empty.release()
    with pytest.raises(NoFace, match="no frame of"):
        client.reconstruct_clip(tmp_path / "grey.mp4")


def test_the_command_writes_the_moving_head(
    running_service: RunningService, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, server = tmp_path / "head.glb", ["--url", running_service.grpc]
    assert main(["video", str(clip), "-o", str(out), "--every", "2", "--json", *server]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == [str(out)]
    assert len(said["frames"]) + said["missed"] == 6
    assert len(said["frames"][0]["blendshapes"]) == 52
    assert main(["video", str(clip), "-o", str(tmp_path / "head.obj"), *server]) == 2
    assert "only that holds an animation" in capsys.readouterr().err
