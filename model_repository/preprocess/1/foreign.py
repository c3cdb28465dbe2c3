"""What came in place of a picture, in one sentence: text, containers, films, pictures of other formats.

What people send by mistake (a path, an address, base64, a form) is recognised here; magic numbers of everything else
are those of the package puremagic.
"""

from __future__ import annotations

import re
from typing import Final

import puremagic
from refusals import SEND, BadPicture, damaged, foreign, raw_file

# Bytes at the beginning that are looked at: magic numbers stand before them, and of a text they are enough.
LOOKED_AT: Final = 4096
# Length of a magic number from which on it is believed, as puremagic's confidence: a tenth for each byte.
_SURE: Final = 0.4

BYTES: Final = "send the bytes of the file itself"
_DECODE: Final = f"decode it, and {BYTES}"
_READ_FILE: Final = f"read the file, and {BYTES}"
_UNPACK: Final = "unpack it, and send each picture by itself"
_UNPACK_ONE: Final = f"unpack it, and {SEND}"
_ONE_PICTURE: Final = "send one picture of it"
_ENCODE: Final = "encode it as a PNG or JPEG, or use the package face3d-client, which takes arrays"
_ENDINGS: Final = rb"jpe?g|jfif|png|webp|bmp|tiff?|hei[cf]|avif|gif|dng|raw|cr[23]|nef|arw"

_TEXTS: Final[tuple[tuple[re.Pattern[bytes], str, str], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), what, remedy)
    for pattern, what, remedy in (
        (rb"data:[a-z]+/[^,]{0,80};base64,", "a picture as base64 text (a data URL)", _DECODE),
        (rb"data:", "a data URL", BYTES),
        (rb"(?:https?|ftp|s3|gs|blob|content|ipfs)://", "an address", "fetch what is there, and " + BYTES),
        (rb"file://", "the address of a file", _READ_FILE),
        (rb"b(['\"])(?:\\x|\\n|[^\\])", "bytes as Python prints them", f"{BYTES}, not str() of them"),
        (rb"<!doctype html|<html|<head|<body", "a page (HTML)", "the download has probably failed: look at the page"),
        (rb"(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!doctype svg[^>]{0,300}>\s*)?<svg", "an SVG drawing, a text", SEND),
        (rb"<\?xml|<[a-z]", "a text document (XML)", SEND),
        (rb"version https://git-lfs", "a pointer of Git LFS", "fetch the file (git lfs pull), and " + BYTES),
        (rb"--[-a-z0-9'()+_,./:=?]{1,70}\r?\n", "a form (multipart/form-data)", "send the file alone as the body"),
        (rb"[{\[]\s*(?:[\"\[{\]}0-9-]|null|true|false)", "a text in JSON", f"{BYTES}, not JSON"),
        (rb"[a-z_][a-z0-9_.-]{0,60}=[^\s]", "a form (x-www-form-urlencoded)", "send the file alone as the body"),
        (rb"(?:[a-z]:)?[^\0\r\n]{1,1000}\.(?:" + _ENDINGS + rb")\s*$", "the name of a file", _READ_FILE),
        (rb"(?:[a-z]:[\\/]|~/|/(?:home|users|tmp|mnt|var)/)[^\0\r\n]{1,1000}\s*$", "the name of a file", _READ_FILE),
    )
)  # fmt: skip
# The beginnings of picture files as base64, which hold for any such file: JPEG, PNG, GIF, WebP, TIFF, BMP, HEIC.
_BASE64: Final = re.compile(rb"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK|Qk[0-3]|AAAA[A-Za-z0-9+/]{2}Z0eX)")
_BASE64_TEXT: Final = re.compile(rb"[A-Za-z0-9+/_\-\r\n]{64,}={0,2}\s*$")
_HEX: Final = re.compile(rb"(?:0x|\\x)?(?:ff\s?d8\s?ff|89\s?50\s?4e\s?47)[0-9a-f\s]{16,}", re.IGNORECASE)

_MAGICS: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"\xff\x0a", "a JPEG XL picture", SEND),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture", SEND),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", SEND),
    (b"\0\0\0\x0cjP\x1a\x1a", "a JPEG 2000 picture", SEND),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture", SEND),
    (b"8BPS", "a Photoshop document (PSD)", "export it as a JPEG or PNG"),
    (b"gimp xcf", "a GIMP document (XCF)", "export it as a JPEG or PNG"),
    (b"\0\0\1\0", "an icon (ICO)", SEND),
    (b"\0\0\2\0", "a cursor or a Targa picture", SEND),
    (b"GIF8", "a GIF picture", SEND),
    (b"%PDF", "a PDF document", "take the picture out of it, and " + SEND),
    (b"%!PS", "a PostScript document", SEND),
    (b"\x93NUMPY", "an array of NumPy (.npy)", _ENCODE),
    (b"PK\3\4", "an archive (ZIP, or a document of an office)", _UNPACK),
    (b"PK\5\6", "an empty archive (ZIP)", SEND),
    (b"Rar!", "an archive (RAR)", _UNPACK),
    (b"7z\xbc\xaf", "an archive (7-Zip)", _UNPACK),
    (b"\x1f\x8b", "compressed data (gzip)", _UNPACK_ONE),
    (b"BZh", "compressed data (bzip2)", _UNPACK_ONE),
    (b"\xfd7zXZ", "compressed data (xz)", _UNPACK_ONE),
    (b"\x28\xb5\x2f\xfd", "compressed data (Zstandard)", _UNPACK_ONE),
    (b"\x1a\x45\xdf\xa3", "a film (Matroska or WebM)", _ONE_PICTURE),
    (b"\0\0\1\xba", "a film (MPEG)", _ONE_PICTURE),
    (b"\0\0\1\xb3", "a film (MPEG)", _ONE_PICTURE),
    (b"FLV\1", "a film (Flash)", _ONE_PICTURE),
    (b"II\xbc", "a JPEG XR picture", SEND),
    (b"v/1\1", "an OpenEXR picture", SEND),
    (b"#?R", "a Radiance picture (HDR)", SEND),
    (b"qoif", "a QOI picture", SEND),
    (b"DDS ", "a DirectDraw texture (DDS)", SEND),
    (b"BPG\xfb", "a BPG picture", SEND),
    (b"FLIF", "a FLIF picture", SEND),
    (b"glTF", "a 3D model (GLB)", "send a photograph of a face, " + SEND),
    (b"ply\n", "a 3D model (PLY)", "send a photograph of a face, " + SEND),
    (b"\x89HDF", "data of HDF5", SEND),
    (b"SIMPLE  =", "a FITS picture", SEND),
)  # fmt: skip
_RAW: Final = ((b"FUJIFILMCCD-RAW", "RAF"), (b"IIRO", "ORF"), (b"IIRS", "ORF"), (b"MMOR", "ORF"), (b"IIU\0", "RW2"),
               (b"FOVb", "X3F"), (b"\0MRM", "MRW"))  # fmt: skip
_RIFF: Final = {b"AVI ": "a film (AVI)", b"WAVE": "a sound (WAV)", b"CDXA": "a film (Video CD)", b"ACON": "a cursor"}
_PNM: Final = re.compile(rb"P[1-7F]\s")
# The beginnings of the formats that are read; a file that has one and is not read is damaged.
_READ: Final = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# The first bytes of a JPEG and a PNG as a program writes them that takes them for text: each byte above 0x7F became
# two of UTF-8, or the three that stand for what cannot be read.
_AS_TEXT: Final = (
    b"\xc3\xbf\xc3\x98\xc3\xbf",
    b"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",
    b"\xc2\x89PNG",
    b"\xef\xbf\xbdPNG",
)
# A PNG's second line after a translation of line ends, for which its signature is made.
_PNG_LINES: Final = (b"\x89PNG\n\x1a\n", b"\x89PNG\r\r\n", b"\x89PNG\r\n\x1a\r\n", b"\x89PNG\r\x1a\r")


def named(data: bytes) -> BadPicture:
    """Make the refusal of a file that no decoder takes: what it is, and how to send it right."""
    head = data[:LOOKED_AT]
    return _mangled(head) or _known(head) or _other(head)


def _translated() -> BadPicture:
    return damaged_by("its line ends were translated, as of a text", "read, copy and upload it as binary")


def damaged_by(what: str, remedy: str) -> BadPicture:
    """Recognise a file that something on its way has changed."""
    return BadPicture("BadImage", f"the picture is damaged ({what}): {remedy}.")


def _mangled(head: bytes) -> BadPicture | None:
    """Recognise a picture file that is behind or inside something, or was taken for text."""
    if head.startswith(_PNG_LINES):
        return _translated()
    if head.startswith(_AS_TEXT):
        return damaged_by("its bytes were encoded as text", "open the file as binary, and " + BYTES)
    if head[4:].startswith((b"\xff\xd8\xff", b"\x89PNG")) and int.from_bytes(head[:4], "little") > 8:
        return damaged_by("a length stands before it", "leave the four bytes of the length out, or write them once")
    for magic in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"):
        if 0 < head.find(magic) <= 64 and not head.strip(b"\r\n\t \xef\xbb\xbf").startswith(_READ[:2]):
            continue
        if 0 < head.find(magic) <= 64:
            return damaged_by("blank characters stand before it", BYTES + " from its first byte on")
    if head and not head.strip(b"\0"):
        return BadPicture("BadImage", f"these bytes are not a picture but zeros, as of a copy that failed: {SEND}.")
    return None


def _known(head: bytes) -> BadPicture | None:
    """Recognise a file by its first bytes, or as a text."""
    if head[4:8] == b"ftyp":
        return _film(head[8:12])
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return foreign(_RIFF[head[8:12]], SEND)
    for magic, kind in _RAW:
        if head.startswith(magic):
            return raw_file(kind)
    if head[128:132] == b"DICM":
        return foreign("a DICOM file", "export the picture, and " + SEND)
    if head[257:262] == b"ustar":
        return foreign("an archive (tar)", _UNPACK)
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return foreign("a serialised object of Python", BYTES)
    if _PNM.match(head):
        return foreign("a Netpbm picture (PBM, PGM, PPM)", SEND)
    for magic, what, remedy in _MAGICS:
        if head.startswith(magic):
            return foreign(what, remedy)
    return _text(head)


def _film(brand: bytes) -> BadPicture:
    if brand == b"crx ":
        return raw_file("CR3")
    if brand.startswith((b"M4A", b"M4B")):
        return foreign("a sound (M4A)", SEND)
    return foreign("a film (MP4 or QuickTime)", "send one picture of it, as a telephone's live photo has one beside it")


def _text(head: bytes) -> BadPicture | None:
    text = head.removeprefix(b"\xef\xbb\xbf").strip()
    # Letters and zeros by turns, as of Latin text.
    zeros, letters = text[1::2].count(b"\0"), text[::2]
    turns = len(text) >= 16 and zeros > len(letters) * 0.8 and letters.isascii() and b"\0" not in letters[:-1]
    wide = text.startswith((b"\xff\xfe", b"\xfe\xff")) or turns
    if wide and not head.startswith(_READ):
        return foreign("a text (UTF-16)", SEND)
    quoted = text.strip(b"\"'")
    if _BASE64.match(quoted) or (_BASE64_TEXT.match(quoted) and len(set(quoted)) > 16):
        return foreign("a picture as base64 text", _DECODE)
    if _HEX.match(quoted):
        return foreign("a picture as hexadecimal text", _DECODE)
    for pattern, what, remedy in _TEXTS:
        if pattern.match(quoted):
            return foreign(what, remedy)
    return None


def _other(head: bytes) -> BadPicture:
    if head.startswith(_READ):
        return damaged("its header cannot be read")
    try:
        matches = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError):
        matches = []
    for match in matches:
        if match.confidence >= _SURE and match.name and match.mime_type:
            return foreign(f'a file of the kind "{match.name[:60]}"', SEND)
    if head and all(byte >= 32 or byte in b"\t\r\n" for byte in head[:512]):
        return BadPicture("BadImage", f"these bytes are a text and not a picture: {SEND}.")
    return BadPicture("BadImage", f"these bytes are not a picture that the service can read: {SEND}.")
