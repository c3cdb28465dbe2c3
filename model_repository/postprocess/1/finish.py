"""The texture's last touches: white balance, size, sharpness; and its encoding."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from options import Options

U8 = NDArray[np.uint8]
Box = tuple[tuple[float, float], tuple[float, float]]
"""First and past the last of the rows, then of the columns, as shares of a picture's side."""

# The generalised grey world of Finlayson and Trezzi ("Shades of gray and colour constancy", 2004): with the 6th power
# instead of the mean, highlights tell the colour of the light.
NORM = 6
# Skin is warm, and where it fills the crop it is taken for the light: what the estimate says of 89 portraits in white
# light (mean; red, green, blue). Where a white wall fills the crop, it says (1, 1, 1). All between the two is white.
SKIN_IN_WHITE_LIGHT = (0.70, 1.0, 1.09)
# Logarithms of the estimate scatter by 0.17 in white light, by some 0.25 in coloured: so much of a deviation is light.
TRUST = 0.65
# No light is stronger than this: a face under coloured light keeps some of it.
STRONGEST_GAIN = 1.4
# Samples that are clipped or in the dark tell nothing about the light.
DARK, CLIPPED = 8, 250
# Unsharp mask at full strength; the blur is about one pixel of a 512 texture.
SHARPEN_GAIN = 1.2
SHARPEN_SIGMA = 1.0
# Quality 92: no difference to be seen, a quarter of the PNG's size. Colours at half the resolution take two thirds of
# the time (46.6 dB for 48.1 where skin is seen); normals are no colours, and an eye's picture is small.
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR)
HALVED, FULL = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
# Level 1 takes a third of the time of the default for 5 % more bytes.
PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT)
MIME = {"png": "image/png", "jpeg": "image/jpeg"}


def finish(image: U8, crop: U8, options: Options, size: int, shown: Box | None = None) -> U8:
    """Apply the options to a texture.

    Args:
        image: uint8 [h, w, 3] RGB; row 0 is v = 1.
        crop: uint8 [3, h, w] RGB, the picture of the face, black outside; it shows the light.
        options: of the request.
        size: side of the result in texels.
        shown: rows and columns, as shares of the side, beside which everything is smooth and sharpening changes
            nothing; None: all.

    Returns:
        uint8 [size, size, 3] RGB.
    """
    if options.white_balance:
        image = _apply(image, gains(crop))
    if image.shape[:2] != (size, size):
        shrinks = size < image.shape[0]
        image = _u8(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC))
    if options.sharpen > 0:
        image = image.copy()
        part = image if shown is None else image[tuple(slice(round(a * size), round(b * size)) for a, b in shown)]
        blurred = _blurred(part, SHARPEN_SIGMA * max(1.0, size / 512))
        amount = SHARPEN_GAIN * options.sharpen
        part[:] = cv2.addWeighted(part, 1 + amount, blurred, -amount, 0)
    return image


def _blurred(image: U8, sigma: float) -> U8:
    """Blur by a Gaussian; a wide one at half the side, which takes a third of the time."""
    if sigma == 1:
        return _u8(cv2.GaussianBlur(image, (5, 5), 0))  # binomial, of this deviation: half of the time
    if sigma < 2:
        return _u8(cv2.GaussianBlur(image, (0, 0), sigma))
    rows, columns = (max(1, side // 2) for side in image.shape[:2])
    small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / 2)
    return _u8(cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR))


def gains(crop: U8) -> tuple[float, float, float]:
    """Compute the factor of each channel of linear light that turns the light of the picture white.

    ``crop`` is uint8 [3, h, w]. The green channel keeps its brightness; nothing to go by gives (1, 1, 1).
    """
    low, high = crop.min(axis=0), crop.max(axis=0)
    seen = crop[:, (low > DARK) & (high < CLIPPED)]
    if seen.shape[1] < 256:
        return 1.0, 1.0, 1.0
    power = _LINEAR**NORM
    light = [float(power[channel].mean()) ** (1 / NORM) for channel in seen]
    plain = [light[1] / value for value in light]
    factors = (sorted((1.0, p, p / usual))[1] ** TRUST for p, usual in zip(plain, SKIN_IN_WHITE_LIGHT, strict=True))
    red, green, blue = (min(max(factor, 1 / STRONGEST_GAIN), STRONGEST_GAIN) for factor in factors)
    return red, green, blue


def encode(image: U8, kind: str, chroma: int = FULL) -> bytes:
    """Encode a uint8 [h, w, 3] RGB image as a ``png`` or ``jpeg`` file; ``chroma``: resolution of a JPEG's colours."""
    extension, settings = (".png", PNG) if kind == "png" else (".jpg", (*JPEG, chroma))
    done, data = cv2.imencode(extension, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    assert done, f"OpenCV cannot write {kind}"
    return bytes(data)


def _apply(image: U8, factors: tuple[float, float, float]) -> U8:
    tables = np.stack([_encode_srgb(_LINEAR * factor) for factor in factors], axis=-1)[None]
    return _u8(cv2.LUT(image, tables))


def _decode_srgb(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert stored values 0..1 to linear light (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _encode_srgb(linear: NDArray[np.float64]) -> U8:
    linear = np.clip(linear, 0, 1)
    stored = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(stored * 255), np.uint8)


_LINEAR = _decode_srgb(np.arange(256) / 255)


def _u8(array: object) -> U8:
    """Cast: OpenCV's types say less than is known here, uint8 in, uint8 out."""
    return np.asarray(array, dtype=np.uint8)
