"""`python -m perf.picture docs/portraits.jpg`: the picture at the head of the README, made by the running service.

Two rows for each portrait, drawn by the client from one rigged head: photograph, front, three-quarter, side, back,
clay; and below them the same head with expressions of ARKit's shapes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from face3d_client import Face3DClient, Reconstruction
from PIL import Image, ImageOps

from perf.photos import astronaut, grace_hopper
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports

SIDE: Final = 320
VIEWS: Final[tuple[dict[str, float], ...]] = ({}, {"yaw": -38}, {"yaw": -88}, {"yaw": 180}, {"yaw": -25, "clay": True})
_SIDED: Final = ("Left", "Right")
EXPRESSIONS: Final[tuple[dict[str, float], ...]] = (
    {},
    {**{f"mouthSmile{side}": 0.9 for side in _SIDED}, **{f"cheekSquint{side}": 0.5 for side in _SIDED}},
    {"jawOpen": 0.7, "browInnerUp": 0.8, **{f"eyeWide{side}": 0.6 for side in _SIDED}},
    {"eyeBlinkLeft": 1.0, "mouthSmileLeft": 0.8, "cheekSquintLeft": 0.7},
    {"mouthPucker": 0.9, "eyeLookOutLeft": 0.8, "eyeLookInRight": 0.8},
    {**{f"browDown{side}": 0.9 for side in _SIDED}, **{f"mouthFrown{side}": 0.8 for side in _SIDED}},
)


def main(output: Path) -> None:
    """Draw both public-domain portraits' heads, two rows each, into a JPEG file."""
    with EmbeddedServer(on_free_ports(ServerOptions())) as server, Face3DClient(server.grpc) as client:
        rows = [row for photo in (grace_hopper(), astronaut()) for row in _rows(client, photo)]
    sheet = Image.new("RGB", (SIDE * len(rows[0]), SIDE * len(rows)), "white")
    for down, row in enumerate(rows):
        for across, picture in enumerate(row):
            sheet.paste(picture, (across * SIDE, down * SIDE))
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(output, quality=88)


def _rows(client: Face3DClient, photo: Path) -> tuple[list[Image.Image], list[Image.Image]]:
    head = client.reconstruct(photo, rig="arkit")
    views = [head.render(side=SIDE, **view) for view in VIEWS]  # type: ignore[arg-type]
    expressions = [head.render(side=SIDE, yaw=-15, blendshapes=shapes) for shapes in EXPRESSIONS]
    return [_portrait(head, photo), *views], expressions


def _portrait(head: Reconstruction, photo: Path) -> Image.Image:
    """Cut the head out of the photograph: a square three times as wide as the face's box."""
    x1, y1, x2, y2 = (float(value) for value in head.box)
    half = 1.4 * max(x2 - x1, y2 - y1)
    middle = ((x1 + x2) / 2, (y1 + y2) / 2 - 0.1 * half)
    with Image.open(photo) as opened:
        picture = opened.convert("RGB")
        box = (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)
        inside = (max(box[0], 0), max(box[1], 0), min(box[2], picture.width), min(box[3], picture.height))
        return ImageOps.fit(picture.crop(inside), (SIDE, SIDE))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    main(parser.parse_args().output)
