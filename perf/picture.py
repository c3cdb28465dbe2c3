"""`python -m perf.picture docs/portraits.jpg`: the picture at the head of the README, made by the running service."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from face3d_client import Face3DClient
from PIL import Image

from perf.photos import grace_hopper
from server.demo import default_photo
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports


def main(output: Path) -> None:
    """Draw the previews of both public-domain portraits, one below the other, into a JPEG file."""
    with EmbeddedServer(on_free_ports(ServerOptions())) as server, Face3DClient(server.grpc) as client:
        previews = [client.reconstruct(p, outputs=["preview"]).preview for p in (default_photo(), grace_hopper())]
    pictures = [np.asarray(preview.convert("RGB")) for preview in previews]
    width = min(picture.shape[1] for picture in pictures)
    output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack([picture[:, :width] for picture in pictures])).save(output, quality=88)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    main(parser.parse_args().output)
