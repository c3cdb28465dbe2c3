"""Says in a picture's XMP how it was made, for programs that read IPTC's Digital Source Type and no C2PA.

The field is `Iptc4xmpExt:DigitalSourceType` of the IPTC Photo Metadata Standard
(https://iptc.org/standards/photo-metadata/), its values are IPTC's NewsCodes
(https://cv.iptc.org/newscodes/digitalsourcetype/).
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

COMPOSITE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""A captured picture, with a part that trained networks have drawn."""

_PACKET: Final = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    f' Iptc4xmpExt:DigitalSourceType="{COMPOSITE}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
).encode()
_PNG: Final = b"\x89PNG\r\n\x1a\n"
# The signature and IHDR, which every PNG begins with: 8 bytes, and length, name, 13 bytes, checksum.
_BEHIND_IHDR: Final = len(_PNG) + 4 + 4 + 13 + 4


def with_source_type(picture: bytes) -> bytes:
    """Insert the XMP packet into a picture that has none.

    Args:
        picture: PNG or JPEG bytes, as an encoder here has just written them.

    Raises:
        ValueError: it is neither.
    """
    if picture.startswith(_PNG):
        # An uncompressed iTXt chunk: https://www.w3.org/TR/png-3/#11iTXt, and the XMP specification, part 3, on PNG.
        body = b"iTXt" + b"XML:com.adobe.xmp\0\0\0\0\0" + _PACKET
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        return picture[:_BEHIND_IHDR] + chunk + picture[_BEHIND_IHDR:]
    if picture.startswith(b"\xff\xd8\xff"):
        # An APP1 segment: the XMP specification, part 3, on JPEG. Behind APP0, which JFIF wants first.
        place = 4 + struct.unpack(">H", picture[4:6])[0] if picture[3] == 0xE0 else 2
        body = b"http://ns.adobe.com/xap/1.0/\0" + _PACKET
        return picture[:place] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + picture[place:]
    raise ValueError("only PNG and JPEG files can be marked.")
