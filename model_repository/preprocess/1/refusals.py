"""The errors with which `preprocess` refuses a picture: a sentence with a remedy, and the client's exception."""

from __future__ import annotations

SEND = "send a JPEG, PNG, WebP, HEIC, AVIF, BMP or TIFF file"
"""The remedy for what is not a picture that is read."""
PLAIN = "save it again as a plain JPEG"
"""The remedy for a file whose structure is unusual."""


class BadPicture(Exception):
    """A picture that is refused.

    Attributes:
        tag: ``BadImage``, ``ImageTooLarge`` or ``BadOption``, the name of the client's exception.
    """

    def __init__(self, tag: str, sentence: str) -> None:
        super().__init__(sentence)
        self.tag = tag


def damaged(what: str) -> BadPicture:
    """Make the error for a file whose structure contradicts its format: ``what`` says where."""
    return BadPicture("BadImage", f"the picture is damaged or truncated ({what}): send it again.")


def unusual(what: str) -> BadPicture:
    """Make the error for a file with far more of something than programs write: ``what``, with the limit."""
    return BadPicture("BadImage", f"the picture is built in an unusual way ({what}): {PLAIN}.")


def unsupported(what: str) -> BadPicture:
    """Make the error for a rare kind of a format that is otherwise read: ``what`` names it, with its article."""
    return BadPicture("BadImage", f"this is {what}, which the service does not read: {PLAIN}.")


def foreign(what: str, remedy: str = SEND) -> BadPicture:
    """Make the error for something that is no picture that is read: ``what`` names it, with its article."""
    return BadPicture("BadImage", f"this is {what}, which the service does not read: {remedy}.")


def raw_file(kind: str) -> BadPicture:
    """Make the error for what a camera's sensor has measured: ``kind`` is the format, empty where that is not known."""
    what = f"a camera's raw file ({kind})" if kind else "a camera's raw file"
    return foreign(what, "develop it and send it as a JPEG")


def too_slow() -> BadPicture:
    """Make the error for a picture whose decoding exceeds, or would exceed, its processor time."""
    return BadPicture("BadImage", f"the picture takes too long to decode: {PLAIN}.")


def too_much_memory() -> BadPicture:
    """Make the error for a picture whose decoding exceeds, or would exceed, its memory."""
    return BadPicture("BadImage", f"the picture takes too much memory to decode: {PLAIN}, or scale it down.")


def too_many_pixels(pixels: int, most: int) -> BadPicture:
    """Make the error for a picture of more pixels than the limit."""
    has = f"{pixels / 1e6:.0f} megapixels" if pixels else "too many pixels"
    return BadPicture("ImageTooLarge", f"the picture has {has} and the limit is {most / 1e6:.0f}: scale it down.")
