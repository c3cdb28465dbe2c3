"""`python -m perf.picture_guide`: good and bad photographs and what becomes of them, docs/guides/pictures.jpg.

Everything is made of two public-domain portraits (Eileen Collins, NASA; Grace Hopper, US Navy) and sent to a server of
its own: each photograph, the head that came back, and the service's sentence.
"""

from __future__ import annotations

import argparse
import io
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import matplotlib
import skimage
from face3d_client import Face3DClient, Reconstruction, RequestError
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from server.embedded import ServerOptions, on_free_ports
from server.service import Service

_OUT: Final = Path(__file__).resolve().parents[1] / "docs" / "guides" / "pictures.jpg"
_CELL, _TEXT, _MARGIN, _COLUMNS = 240, 74, 10, 2
_WORDS: Final = 70  # characters of a line under two pictures


def collins() -> Image.Image:
    """Eileen Collins: head and shoulders at 780 x 780, so that the face is 200 pixels wide."""
    whole = Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png").convert("RGB")
    return whole.crop((80, 0, 380, 300)).resize((780, 780), Image.Resampling.LANCZOS)


def hopper() -> Image.Image:
    """Grace Hopper, 512 x 600."""
    return Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB")


def _small() -> Image.Image:
    whole = Image.new("RGB", (480, 480), (128, 128, 128))
    whole.paste(collins().resize((110, 110), Image.Resampling.LANCZOS), (190, 240))
    return whole


def _glasses() -> Image.Image:
    image = collins()
    draw = ImageDraw.Draw(image)
    for x in (310, 412):
        draw.rounded_rectangle((x, 250, x + 88, 316), 22, (15, 15, 18))
    draw.line((396, 268, 414, 268), (15, 15, 18), 12)
    return image


def _dark() -> Image.Image:
    return ImageEnhance.Brightness(collins()).enhance(0.3)


def _turned() -> Image.Image:
    return collins().rotate(-45, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))


EXAMPLES: Final[tuple[tuple[str, Callable[[], Image.Image]], ...]] = (
    ("Good: from the front, even light, nothing before the face", collins),
    ("Usable: glasses stay in the texture", hopper),
    ("Too far away", _small),
    ("Too dark", _dark),
    ("Not sharp", lambda: collins().filter(ImageFilter.GaussianBlur(9))),
    ("Tilted", _turned),
    ("Cut by the border", lambda: collins().crop((345, 0, 780, 600))),
    ("Covered by dark glasses", _glasses),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the page's picture; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m perf.picture_guide", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=_OUT, help="the picture to write (default: docs/guides/pictures.jpg)"
    )
    options = parser.parse_args(arguments)
    with Service(on_free_ports(ServerOptions())) as server, Face3DClient(server.grpc) as client:
        sheet(client).save(options.out, quality=88)
    print(options.out)
    return 0


def sheet(client: Face3DClient) -> Image.Image:
    """All examples, in two columns of photograph and head."""
    width, height = 2 * _CELL + 3 * _MARGIN, _CELL + _TEXT + _MARGIN
    rows = -(-len(EXAMPLES) // _COLUMNS)
    page = Image.new("RGB", (width * _COLUMNS, height * rows), "white")
    for number, (title, make) in enumerate(EXAMPLES):
        row, column = divmod(number, _COLUMNS)
        page.paste(_example(client, title, make()), (column * width, row * height))
    return page


def _example(client: Face3DClient, title: str, photo: Image.Image) -> Image.Image:
    made = Image.new("RGB", (2 * _CELL + 3 * _MARGIN, _CELL + _TEXT + _MARGIN), "white")
    made.paste(_fitted(photo), (_MARGIN, _MARGIN))
    try:
        face = client.reconstruct(_png(photo), outputs=["mesh", "preview", "face", "warnings"])
        words = " ".join(face.warnings) or "No warning."
        made.paste(_fitted(_front(face)), (_CELL + 2 * _MARGIN, _MARGIN))
    except RequestError as error:
        words = f"{type(error).__name__}: {error}"
    draw = ImageDraw.Draw(made)
    draw.text((_MARGIN, _CELL + 14), title, "black", ImageFont.load_default(15))
    text = "\n".join(textwrap.wrap(words, _WORDS)[:3])
    draw.text((_MARGIN, _CELL + 34), text, (90, 90, 90), ImageFont.load_default(13))
    return made


def _front(face: Reconstruction) -> Image.Image:
    """The first of the preview's views."""
    preview = face.preview
    side = min(preview.size)
    return preview.crop((0, 0, side, side))


def _fitted(image: Image.Image) -> Image.Image:
    cell = Image.new("RGB", (_CELL, _CELL), (235, 235, 235))
    small = image.convert("RGB")
    small.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
    cell.paste(small, ((_CELL - small.width) // 2, (_CELL - small.height) // 2))
    return cell


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
