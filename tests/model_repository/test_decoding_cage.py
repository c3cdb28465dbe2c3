"""Decoding in worker processes: their limits, what hostile pictures get, and that nobody else notices."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.attack import pictures as hostile
from tests.model_repository.version_folder import REPOSITORY, load

structure = load("preprocess", "structure")
refusals = load("preprocess", "refusals")
pictures = load("preprocess", "pictures")
cage = load("preprocess", "cage")
lanes = load("preprocess", "lanes")
LIMITS = structure.Limits()
MEMORY = structure.MAX_MEMORY + lanes.SPARE_MEMORY
FOLDER = REPOSITORY / "preprocess" / "1"


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(side: int = 600, seed: int = 3) -> Image.Image:
    """Smooth colours with some grain."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side * 3 // 4), Image.Resampling.BICUBIC)


GOOD = file_of(photograph(), "JPEG")
# A second or more of decoding: the budgets in the tests are far below.
EXPENSIVE = hostile.progressive(6000, 6000, 190)


@pytest.fixture(scope="module")
def source() -> Iterator[Any]:
    source = cage.WorkerSource(LIMITS.max_bytes)
    yield source
    source.close()


@pytest.fixture
def worker(source: Any) -> Iterator[Any]:
    worker = cage.Worker(source, MEMORY)
    worker.start()
    yield worker
    worker.close()


def decode(worker: Any, data: bytes, budget: Any = None) -> Any:
    cost = structure.inspect(data, LIMITS)
    return worker.decode(data, LIMITS.max_pixels, budget or structure.budget(cost))


def refusal(worker: Any, data: bytes, budget: Any = None) -> tuple[str, str]:
    with pytest.raises(refusals.BadPicture) as caught:
        decode(worker, data, budget)
    return caught.value.tag, str(caught.value)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


# --- hostile pictures ----------------------------------------------------------------------------------------------


def holds(worker: Any, data: bytes) -> None:
    """Decode a hostile picture, or see it refused with a sentence; the worker goes on either way."""
    refused = None
    try:
        assert max(decode(worker, data).pixels.shape[:2]) <= 2048
    except refusals.BadPicture as error:
        refused = error
    if refused is not None:
        assert refused.tag in ("BadImage", "ImageTooLarge")
        assert str(refused).endswith(".")
    assert decode(worker, GOOD).pixels.shape == (450, 600, 3)


@pytest.mark.parametrize("kind", hostile.KINDS)
def test_a_hostile_picture_is_decoded_within_its_budget_or_refused(worker: Any, kind: str) -> None:
    holds(worker, hostile.KINDS[kind](**hostile.QUICK.get(kind, {})))


@pytest.mark.soak
@pytest.mark.parametrize("kind", hostile.QUICK)
def test_a_hostile_picture_of_the_full_size_is_decoded_within_its_budget_or_refused(worker: Any, kind: str) -> None:
    holds(worker, hostile.KINDS[kind]())


REFUSED_BY_STRUCTURE = {
    "png_empty_chunks": "chunks",
    "png_text_flood": "texts",
    "png_header_repeated": "two chunks IHDR",
    "apng_frames": "chunks",
    "png_exif_overlapping": "EXIF",
    "png_one_column": "side of 60000000 pixels",
    "tiff_strips": "strips or tiles",
    "tiff_tile_one_wide": "megapixels",
    "tiff_page_loop": "loop",
    "tiff_pages": "pages",
    "tiff_overlapping": "entries",
    "tiff_samples": "samples",
    "tiff_orientations": "numbers",
    "tiff_jpeg_of_scans": "too long",
    "jpeg_scans": "scans",
    "jpeg_empty_segments": "segments",
    "jpeg_fill_bytes": "filling",
    "jpeg_quantisation_tables": "quantisation",
    "jpeg_multi_picture": "pictures in one file",
    "jpeg_photoshop_resources": "Photoshop",
    "jpeg_twelve_bits": "12 bits",
    "jpeg_lossless": "lossless",
    "jpeg_hierarchical": "hierarchical",
    "bmp_of_jpeg": "holds a JPEG",
    "bmp_end_of_line": "side of 65000000 pixels",
    "webp_frames": "chunks",
    "webp_largest_canvas": "megapixels",
}


@pytest.mark.parametrize(("kind", "word"), REFUSED_BY_STRUCTURE.items())
def test_a_structure_beyond_its_limit_is_refused_by_name_before_any_decoder(kind: str, word: str) -> None:
    data = hostile.KINDS[kind](**hostile.QUICK.get(kind, {}))
    with pytest.raises(refusals.BadPicture, match=word) as caught:
        structure.inspect(data, LIMITS)
    assert str(caught.value).endswith(".")


def test_there_are_at_least_sixty_kinds_of_hostile_pictures() -> None:
    assert len(hostile.KINDS) >= 60
    assert set(hostile.QUICK) <= set(hostile.KINDS)


# --- what people really send ----------------------------------------------------------------------------------------


def jpeg_of_a_telephone() -> bytes:
    """EXIF with a maker's note, a colour profile, extended XMP in 40 pieces, 3 pictures, 200 Photoshop resources."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "A maker", "A model", 6
    exif.get_ifd(0x8769)[0x927C] = bytes(40_000)  # the maker's note
    profile: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = file_of(photograph(900), "JPEG", exif=exif, icc_profile=profile, progressive=True)
    xmp = [hostile.segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000)) for _ in range(40)]
    resource = b"8BIM\4\4\0\0" + (100).to_bytes(4, "big") + bytes(100)
    photoshop = hostile.segment(0xED, b"Photoshop 3.0\0" + resource * 200)
    return data[:2] + data[2:20] + b"".join(xmp) + photoshop + data[20:]


ORDINARY: dict[str, Callable[[], bytes]] = {
    "a telephone's JPEG": jpeg_of_a_telephone,
    "a progressive JPEG without subsampling": lambda: file_of(
        photograph(4000), "JPEG", progressive=True, subsampling=0, quality=98
    ),
    "pictures in one file": lambda: file_of(photograph(900), "MPO", save_all=True, append_images=[photograph(900)]),
    "a JPEG with a film behind it": lambda: GOOD + np.random.default_rng(1).bytes(20 << 20),
    "inks": lambda: file_of(photograph(900).convert("CMYK"), "JPEG"),
    "a PNG of 24 megapixels": lambda: file_of(photograph(5660), "PNG", compress_level=1),
    "a PNG in rows": lambda: hostile.png(
        3000, 4000, data=b"".join(hostile.chunk(b"IDAT", part) for part in pieces(hostile.deflated(bytes(3001), 4000)))
    ),
    "an animation": lambda: file_of(photograph(300), "PNG", save_all=True, append_images=[photograph(300, 5)] * 20),
    "an animated WebP": lambda: file_of(photograph(300), "WEBP", save_all=True, append_images=[photograph(300, 5)] * 9),
    "a lossless WebP": lambda: file_of(photograph(900), "WEBP", lossless=True),
    "a TIFF of a scanner": lambda: file_of(
        photograph(4000), "TIFF", compression="tiff_lzw", dpi=(600, 600), tiffinfo={278: 1}
    ),
    "a TIFF of many pages": lambda: file_of(
        photograph(300), "TIFF", save_all=True, append_images=[photograph(300)] * 60
    ),
    "a fax": lambda: file_of(photograph(1728).convert("1"), "TIFF", compression="group4"),
    "16 bits": lambda: file_of(Image.fromarray(np.full((3000, 4000), 40_000, np.uint16)), "PNG"),
    "a BMP of 10 megapixels": lambda: file_of(photograph(3600), "BMP"),
}


def pieces(data: bytes, count: int = 4000) -> list[bytes]:
    size = max(1, len(data) // count)
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("kind", ORDINARY)
def test_what_cameras_and_programs_write_passes(worker: Any, kind: str) -> None:
    assert decode(worker, ORDINARY[kind]()).canvas.shape == (3, 512, 512)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_worker_gives_what_the_decoder_gives(worker: Any, kind: str) -> None:
    data = file_of(photograph(2500), kind)
    picture = pictures.decode(data, LIMITS)
    canvas, ratio = pictures.canvas_of(picture)
    found = decode(worker, data)
    np.testing.assert_array_equal(found.pixels, picture.pixels)
    np.testing.assert_array_equal(found.canvas, canvas)
    np.testing.assert_array_equal(found.geometry, pictures.geometry_of(picture, ratio))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_bmp_of_run_lengths_has_the_pixels_that_it_states(worker: Any, bits: int) -> None:
    """Three rows from the bottom up: a run, single pixels, and a jump over two pixels to the last ones."""
    palette = b"\0\0\0\0" + b"\xff\0\0\0" + b"\0\xff\0\0" + b"\0\0\xff\0"  # black, blue, green, red
    rows = {
        8: b"\4\1\0\0" + b"\0\4\3\2\1\3\0\0" + b"\2\2\0\2\1\0\1\3\0\1",
        4: b"\4\x11\0\0" + b"\0\4\x32\x13\0\0" + b"\2\x22\0\2\1\0\1\x30\0\1",
    }[bits]
    data = bytearray(hostile.bmp(4, 3, {8: 1, 4: 2}[bits], rows, bits, 4))
    data[54:70] = palette
    black, blue, green, red = [0, 0, 0], [0, 0, 255], [0, 255, 0], [255, 0, 0]
    expected = [[green, green, black, red], [red, green, blue, red], [blue] * 4]
    np.testing.assert_array_equal(decode(worker, bytes(data)).pixels, expected)


@pytest.mark.parametrize(("mode", "kind"), [("I;16", "PNG"), ("F", "TIFF"), ("RGB", "PNG"), ("RGBA", "PNG")])
def test_a_picture_in_strips_is_the_same_as_whole(monkeypatch: pytest.MonkeyPatch, mode: str, kind: str) -> None:
    values: Any = np.asarray(photograph(3001).convert("RGBA" if mode == "RGBA" else "RGB")).copy()
    if mode in ("I;16", "F"):
        values = values[..., 0].astype(np.uint16 if mode == "I;16" else np.float32) * 200
    if mode == "RGBA":
        values[:, ::3, 3] = 100
    data = file_of(Image.fromarray(values), kind)
    whole = pictures.decode(data, LIMITS)
    monkeypatch.setattr(pictures, "STRIP_PIXELS", 100_000)
    np.testing.assert_array_equal(pictures.decode(data, LIMITS).pixels, whole.pixels)


# --- limits --------------------------------------------------------------------------------------------------------


def test_a_picture_beyond_its_processor_time_is_refused_and_the_next_one_decodes(worker: Any) -> None:
    tag, sentence = refusal(worker, EXPENSIVE, structure.Budget(cpu=0.1, wall=120.0))
    assert (tag, sentence) == (
        "BadImage",
        "the picture takes too long to decode: save it again as a plain JPEG.",
    )
    assert decode(worker, GOOD).pixels.shape == (450, 600, 3)


def test_a_picture_beyond_its_wall_time_is_refused_and_the_next_one_decodes(worker: Any) -> None:
    assert "too long" in refusal(worker, EXPENSIVE, structure.Budget(cpu=600.0, wall=0.2))[1]
    assert decode(worker, GOOD).pixels.shape == (450, 600, 3)


def test_an_expensive_picture_goes_on_at_low_priority_and_the_next_one_does_not(worker: Any) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, worker._pid)

    usual = os.getpriority(os.PRIO_PROCESS, 0)  # that of these tests, which a worker inherits
    assert niceness() == usual
    seen = set()
    end = threading.Event()

    def look() -> None:
        while not end.wait(0.01):
            with contextlib.suppress(OSError):
                seen.add(niceness())

    thread = threading.Thread(target=look)
    thread.start()
    decode(worker, hostile.progressive(7900, 7900, 190))
    end.set()
    thread.join()
    assert cage.LOW_PRIORITY in seen
    decode(worker, GOOD)
    assert niceness() == usual


def test_a_picture_beyond_its_memory_is_refused_and_the_next_one_decodes(source: Any) -> None:
    worker = cage.Worker(source, 112 << 20)  # the block alone is 80 MiB
    try:
        tag, sentence = refusal(worker, hostile.png(5000, 5000, colour=2))
        assert tag == "BadImage"
        assert "too much memory" in sentence
        assert decode(worker, GOOD).pixels.shape == (450, 600, 3)
    finally:
        worker.close()


def test_grey_in_sixteen_bits_of_64_megapixels_takes_less_than_320_mebibytes(source: Any) -> None:
    worker = cage.Worker(source, 320 << 20)
    try:
        assert decode(worker, hostile.png_grey_of_sixteen_bits()).pixels.shape == (2048, 2048, 3)
    finally:
        worker.close()


def test_a_worker_is_confined(worker: Any) -> None:
    decode(worker, GOOD)
    process = Path(f"/proc/{worker._pid}")
    limits = (process / "limits").read_text()
    found = {line[:26].strip(): line[26:].split()[1] for line in limits.splitlines()[1:]}
    assert found["Max core file size"] == "0"
    assert found["Max file size"] == "0"
    assert found["Max processes"] == "0"
    assert int(found["Max open files"]) <= 16
    assert int(found["Max address space"]) < 2 << 30
    assert (process / "oom_score_adj").read_text().strip() == "1000"
    assert "NoNewPrivs:\t1" in (process / "status").read_text()


def test_a_worker_knows_nothing_of_the_server_s_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACE3D_ADMIN_KEY", "a secret")
    source = cage.WorkerSource(LIMITS.max_bytes)
    worker = cage.Worker(source, MEMORY)
    worker.start()
    try:
        assert b"secret" not in Path(f"/proc/{worker._pid}/environ").read_bytes()
    finally:
        worker.close()
        source.close()


def test_the_shared_memory_cannot_be_shrunk_under_the_reader(worker: Any) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(worker._descriptor, 0)


def test_the_model_s_own_process_loads_no_decoder() -> None:
    code = "import lanes, sys; assert not {'PIL', 'cv2'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=FOLDER, check=True)


# --- faults --------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_replaced_and_its_picture_decoded(worker: Any) -> None:
    killed = worker._pid
    timer = threading.Timer(0.1, os.kill, (killed, signal.SIGKILL))
    timer.start()
    assert decode(worker, EXPENSIVE).geometry[:2].tolist() == [6000, 6000]
    timer.join()
    wait_for(lambda: not alive(killed))


def test_a_picture_that_crashes_its_worker_twice_is_refused(worker: Any) -> None:
    end = threading.Event()

    def crash() -> None:
        while not end.wait(0.05):
            if worker._pid and alive(worker._pid):
                os.kill(worker._pid, signal.SIGSEGV)

    thread = threading.Thread(target=crash)
    thread.start()
    try:
        tag, sentence = refusal(worker, EXPENSIVE)
    finally:
        end.set()
        thread.join()
    assert tag == "BadImage"
    assert "crashes the decoder" in sentence
    assert decode(worker, GOOD).pixels.shape == (450, 600, 3)


def test_the_parent_of_the_workers_is_replaced_when_it_is_killed() -> None:
    source = cage.WorkerSource(LIMITS.max_bytes)
    worker = cage.Worker(source, MEMORY)
    worker.start()
    try:
        pid = worker._pid
        os.kill(source._process.pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid))
        assert decode(worker, GOOD).pixels.shape == (450, 600, 3)
    finally:
        worker.close()
        source.close()


def test_nothing_is_left_when_the_model_s_process_is_killed() -> None:
    code = (
        "import os, signal, lanes; l = lanes.Lanes(1 << 20); [w.start() for w in l.workers]; "
        "print(l._source._process.pid, *(w._pid for w in l.workers), flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=FOLDER, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) >= 4
    assert all(alive(pid) for pid in pids)
    process.kill()
    process.wait()
    wait_for(lambda: not any(alive(pid) for pid in pids))
    assert not list(Path("/dev/shm").glob("*face3d-picture*"))


def test_replacing_workers_leaks_no_descriptor_and_no_process(source: Any, worker: Any) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    decode(worker, GOOD)
    before, seen = descriptors(), set()
    for _ in range(20):
        seen.add(worker._pid)
        refusal(worker, EXPENSIVE, structure.Budget(cpu=60.0, wall=0.01))
        decode(worker, GOOD)
    assert descriptors() <= before
    assert len(seen) == 20
    assert not any(alive(pid) for pid in seen)


# --- lanes ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both() -> Iterator[Any]:
    both = lanes.Lanes(LIMITS.max_bytes)
    yield both
    both.close()


def test_quick_pictures_do_not_wait_for_an_expensive_one(both: Any) -> None:
    release, started, quick = threading.Event(), threading.Event(), threading.Event()
    dear = structure.inspect(EXPENSIVE, LIMITS)
    cheap = structure.inspect(GOOD, LIMITS)
    assert dear.seconds > lanes.QUICK_SECONDS > cheap.seconds

    def hold(worker: Any) -> None:
        started.set()
        release.wait(30)

    try:
        assert both.submit([dear], 100, hold)
        assert started.wait(20)
        assert both.submit([cheap], 100, lambda worker: quick.set())
        assert quick.wait(20)
    finally:
        release.set()


def test_a_lane_takes_no_more_than_may_wait(both: Any) -> None:
    release = threading.Event()
    dear = structure.inspect(EXPENSIVE, LIMITS)
    wait_for(lambda: both.waiting == 0 and both.expensive_waiting == 0)
    taken = [both.submit([dear], 100, lambda worker: release.wait(30)) for _ in range(lanes.SLOW_WAITING + 5)]
    quick = both.submit([structure.inspect(GOOD, LIMITS)], 100, lambda worker: None)
    release.set()
    assert taken == [True] * lanes.SLOW_WAITING + [False] * 5
    assert quick
    wait_for(lambda: both.submit([dear], 100, lambda worker: None))


def test_what_waits_is_bounded_in_bytes_too(both: Any) -> None:
    wait_for(lambda: both.waiting == 0)
    assert not both.submit([structure.inspect(GOOD, LIMITS)], lanes.MAX_WAITING_BYTES + 1, lambda worker: None)
