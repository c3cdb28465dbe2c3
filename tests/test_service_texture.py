"""What a request may ask of the texture, on the real server: size, light, relief, hair, glasses, and the warnings."""

from __future__ import annotations

import json
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from server.service import Service as RunningService
from tests.service import Refusal, Service, file_of, picture


@pytest.fixture(scope="module")
def service(running_service: RunningService) -> Service:
    return Service(running_service.grpc, running_service.triton.grpc)


@pytest.fixture(scope="module")
def close(portrait_bytes: bytes) -> Image.Image:
    """Head and shoulders of Eileen Collins, enlarged, under a pattern that only the full size shows: 2400 x 2400."""
    large = picture(portrait_bytes).crop((80, 0, 380, 300)).resize((2400, 2400), Image.Resampling.LANCZOS)
    pixels = np.asarray(large).astype(np.int16)
    pixels[::4] += 14
    pixels[2::4] -= 14
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def texture_of(answer: dict[str, Any]) -> NDArray[np.uint8]:
    return np.asarray(picture(answer["texture"][0]))


def sentences(answer: dict[str, Any]) -> str:
    return " ".join(text.decode() for text in answer["texture_warnings"])


def tree_of(glb: bytes) -> dict[str, Any]:
    (size,) = struct.unpack_from("<I", glb, 12)
    tree: dict[str, Any] = json.loads(glb[20 : 20 + size])
    return tree


def pattern(texture: NDArray[np.uint8]) -> float:
    """How much of the finest detail a texture has, in its middle."""
    side = len(texture)
    middle = cv2.cvtColor(texture, cv2.COLOR_RGB2GRAY)[side // 3 : 2 * side // 3, side // 3 : 2 * side // 3]
    return float(cv2.Laplacian(middle, cv2.CV_32F).std())


def test_a_large_texture_has_the_photographs_own_pixels(service: Service, close: Image.Image) -> None:
    data, wanted = file_of(close), ("texture", "texture_warnings")
    usual = texture_of(service.ask(data, outputs=wanted, sharpen=0.0))
    large = service.ask(data, outputs=wanted, texture_size=2048, sharpen=0.0)
    assert texture_of(large).shape == (2048, 2048, 3)
    assert not sentences(large)
    enlarged = np.asarray(cv2.resize(usual, (2048, 2048), interpolation=cv2.INTER_CUBIC), np.uint8)
    assert pattern(texture_of(large)) > 3 * pattern(enlarged), "it was enlarged"
    reduced = cv2.resize(texture_of(large), (1024, 1024), interpolation=cv2.INTER_AREA)
    assert np.abs(reduced.astype(int) - usual).mean() < 2.5, "it shows something else"


def test_nothing_is_enlarged_beyond_the_photograph(service: Service, portrait_bytes: bytes) -> None:
    answer = service.ask(portrait_bytes, outputs=("texture", "texture_warnings"), texture_size=4096)
    assert texture_of(answer).shape == (512, 512, 3)
    assert "512 texels a side, not of 4096" in sentences(answer)
    assert not sentences(service.ask(portrait_bytes, outputs=("texture", "texture_warnings")))


def test_a_face_of_few_pixels_is_enhanced_on_request(service: Service, close: Image.Image) -> None:
    small = file_of(close.resize((330, 330), Image.Resampling.BOX))
    wanted = ("texture", "texture_warnings")
    plain, made = (service.ask(small, outputs=wanted, sharpen=0.0, upscale=upscale) for upscale in (False, True))
    assert texture_of(plain).shape == (512, 512, 3)
    assert texture_of(made).shape == (1024, 1024, 3)
    enlarged = np.asarray(cv2.resize(texture_of(plain), (1024, 1024), interpolation=cv2.INTER_CUBIC), np.uint8)
    assert pattern(texture_of(made)) > 1.05 * pattern(enlarged), "it was only enlarged"
    assert np.abs(texture_of(made).astype(int) - enlarged).mean() < 4, "it shows something else"
    again = service.ask(small, outputs=wanted, sharpen=0.0, upscale=True, texture_size=2048)
    assert "1024 texels a side, not of 2048" in sentences(again)


def test_a_face_with_its_own_pixels_is_not_enhanced(service: Service, close: Image.Image) -> None:
    data = file_of(close.resize((1200, 1200)))
    plain, made = (texture_of(service.ask(data, outputs=("texture",), upscale=upscale)) for upscale in (False, True))
    np.testing.assert_array_equal(plain, made)


def test_a_batch_of_a_small_and_a_large_face_has_textures_of_either_size(
    service: Service, close: Image.Image, portrait_bytes: bytes
) -> None:
    far = Image.new("RGB", (1200, 1200), (120, 120, 120))
    far.paste(picture(portrait_bytes).resize((700, 700)), (200, 200))
    answer = service.ask(file_of(far), file_of(close.resize(far.size)), outputs=("texture",))
    assert [picture(file).width for file in answer["texture"].ravel()] == [512, 1024]


def test_large_textures_are_made_one_by_one(service: Service, portrait_bytes: bytes) -> None:
    with pytest.raises(Refusal, match="batch of 1"):
        service.ask(portrait_bytes, portrait_bytes, outputs=("texture",), texture_size=2048)


def test_relief_is_a_normal_map_of_the_skin(service: Service, close: Image.Image) -> None:
    plain, relief = (
        tree_of(service.ask(file_of(close), outputs=("mesh",), detail=strength)["mesh"][0]) for strength in (0.0, 1.0)
    )
    assert not any("normalTexture" in material for material in plain["materials"])
    found = [material["name"] for material in relief["materials"] if "normalTexture" in material]
    assert found == ["skin"]
    index = relief["materials"][0]["normalTexture"]["index"]
    assert relief["images"][relief["textures"][index]["source"]]["name"] == "skin_normal"


def test_a_small_face_has_no_relief_and_is_told_so(service: Service, portrait_bytes: bytes) -> None:
    answer = service.ask(portrait_bytes, outputs=("mesh", "texture_warnings"), detail=1.0)
    assert not any("normalTexture" in material for material in tree_of(answer["mesh"][0])["materials"])
    assert "no normal map" in sentences(answer)


def test_albedo_has_less_of_a_lamp_from_the_side(service: Service, portrait_bytes: bytes) -> None:
    pixels = np.asarray(picture(portrait_bytes)).astype(np.float32)
    lamp = np.interp(np.arange(512), [170, 280], [1.25, 0.45])[None, :, None]  # across the face
    lit = file_of(Image.fromarray((pixels * lamp).clip(0, 255).astype(np.uint8)))

    def unevenness(**options: Any) -> float:
        texture = cv2.cvtColor(texture_of(service.ask(lit, outputs=("texture",), **options)), cv2.COLOR_RGB2GRAY)
        cheeks = texture[240:310, 170:230].mean(), texture[240:310, 282:342].mean()
        return abs(float(np.log(cheeks[0] / cheeks[1])))

    assert unevenness(texture_light="albedo") < 0.6 * unevenness() > 0.1


def test_glasses_are_named_and_left_out_on_request(service: Service, portrait_bytes: bytes) -> None:
    worn = picture(portrait_bytes).crop((80, 0, 380, 300)).resize((780, 780), Image.Resampling.LANCZOS)
    drawing = ImageDraw.Draw(worn)
    for x in (310, 412):
        drawing.rounded_rectangle((x, 250, x + 88, 316), 22, outline=(15, 15, 18), width=7)
    drawing.line((396, 270, 414, 270), (15, 15, 18), 7)
    wanted = ("texture", "texture_warnings")
    kept, removed = (service.ask(file_of(worn), outputs=wanted, glasses=how) for how in ("keep", "remove"))
    assert "glasses" in sentences(kept)
    assert "glasses" not in sentences(removed)
    dark = [(texture_of(answer)[150:260, 165:350].max(-1) < 60).mean() for answer in (kept, removed)]
    assert dark[1] < 0.5 * dark[0], "the frames are still there"


def test_without_a_cover_there_is_no_warning(service: Service, portrait_bytes: bytes, portrait_jpeg: bytes) -> None:
    answer = service.ask(portrait_bytes, outputs=("texture_warnings",))
    assert not sentences(answer)
    assert "glasses" in sentences(service.ask(portrait_jpeg, outputs=("texture_warnings",)))  # Grace Hopper's


def test_hair_is_painted_on_request(service: Service, portrait_bytes: bytes) -> None:
    skin, hair = (
        texture_of(service.ask(portrait_bytes, outputs=("texture",), hair=how)).astype(int) for how in ("skin", "paint")
    )
    changed = np.abs(skin - hair).max(-1) > 40
    assert changed.mean() > 0.01
    assert changed[:400].mean() > 5 * changed[500:].mean(), "it is not on the scalp"
