"""Arguments of the command, and the client that they describe."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from face3d_client._client import Face3DClient
from face3d_client._mesh.formats import SUFFIXES
from face3d_client._transports.endpoint import TLS
from face3d_client._transports.retry import Retry
from face3d_client._version import __version__

__all__ = ["Adders", "build_parser", "open_client"]

_EPILOG: Final = """\
exit status:
  0    everything was done
  1    some pictures failed; the others were done
  2    the command makes no sense, or nothing was done (no face in the only picture, say)
  3    no server answers
  130  interrupted; what was finished is whole

environment: FACE3D_URL is the server's address, FACE3D_TOKEN the token, FACE3D_ADMIN_KEY the admin key, where no option
says otherwise.
"""


@dataclass(frozen=True)
class Adders:
    """What adds the options of a command to its parser.

    Attributes:
        gallery: its second argument has the server's options, which some of the actions take.
    """

    gallery: Callable[[argparse.ArgumentParser, argparse.ArgumentParser], None]
    fuse: Callable[[argparse.ArgumentParser], None]
    manifest: Callable[[argparse.ArgumentParser], None]


def build_parser(runs: Mapping[str, Callable[[argparse.Namespace], int]], add: Adders) -> argparse.ArgumentParser:
    """Build the parser.

    Args:
        runs: the functions of the commands by name.
        add: adds the options of commands that have modules of their own.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="face3d", description="Photographs to textured 3D faces.", epilog=_EPILOG, formatter_class=formatter
    )
    parser.add_argument("--version", action="version", version=f"face3d {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    def command(name: str, text: str, *parents: argparse.ArgumentParser, **more: Any) -> Any:
        made = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", parents=parents, epilog=_EPILOG,
            formatter_class=formatter, **more,
        )  # fmt: skip
        made.set_defaults(run=runs.get(name), command=name)
        return made

    server = _server_options()
    _reconstruct_options(command("reconstruct", "make 3D faces of photographs", server))
    _person_options(command("person", "make one 3D head of several photographs of a person", server))
    _video_options(command("video", "make one moving head of a clip of a person", server))
    detect = command("detect", "find the faces in photographs", server)
    _picture_options(detect)
    _small_faces_option(detect)
    embed = command("embed", "say who the faces of photographs are, as vectors", server)
    _picture_options(embed)
    embed.add_argument("--face", type=int, metavar="N", help="which face, in the order of score (default: 0)")
    gallery = command("gallery", "enrol people, and name the faces of photographs")
    add.gallery(gallery, server)
    add.fuse(command("fuse", "put one person's face on pictures and clips, where the server does so", server))
    add.manifest(command("manifest", "say how pictures were made and who signed that (needs c2pa-python)"))
    command("models", "list what Triton has loaded, asked at its own port (8011)", server)
    command("info", "say who answers and whether it is ready", server)
    ui = command("ui", "open a web page to try it in the browser", server)
    ui.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    ui.add_argument("--port", type=_port, default=7860, help="port to listen on (default: 7860)")
    ui.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="a name by which browsers may call the page (IP addresses, localhost and --host always may)",
    )  # fmt: skip
    ui.add_argument("--no-browser", action="store_true", help="only print the address")
    ui.add_argument(
        "--face-model", type=Path, metavar="FILE",
        help="the server's face_model.npz, to move meshes without ARKit's shapes (default: the checkout's)",
    )  # fmt: skip
    command("serve", "start the server that comes with the repository (options: as for python -m server)")
    return parser


def _server_options() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group("server")
    group.add_argument("--url", help="[grpc|grpcs|http|https://]HOST[:PORT] (default: FACE3D_URL, else localhost)")
    group.add_argument("--protocol", choices=("grpc", "http"), help="where the URL does not say (default: grpc)")
    group.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds for each picture (default: 60)"
    )
    group.add_argument("--token", default=os.environ.get("FACE3D_TOKEN"), help="sent as a bearer token")
    group.add_argument(
        "--admin-key", default=os.environ.get("FACE3D_ADMIN_KEY"), metavar="KEY",
        help="the server's FACE3D_ADMIN_KEY, which `models` needs where the server keeps them closed",
    )  # fmt: skip
    group.add_argument("--ca", type=Path, metavar="FILE", help="PEM file of the authorities to trust (TLS)")
    group.add_argument("--cert", type=Path, metavar="FILE", help="PEM file of this client's certificate (mutual TLS)")
    group.add_argument("--key", type=Path, metavar="FILE", help="PEM file of its private key")
    return parent


def _picture_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="+", metavar="PHOTO|FOLDER|PATTERN", help="what to work on")
    parser.add_argument("--score-threshold", type=float, metavar="0..1", help="lowest score of a face (default: 0.7)")
    parser.add_argument(
        "--concurrency", type=_at_least_one, default=8, metavar="N", help="pictures at the same time (default: 8)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for each picture on stdout")


def _reconstruct_options(parser: argparse.ArgumentParser) -> None:
    _picture_options(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--format",
        type=_formats,
        default=(".glb",),
        metavar="LIST",
        help="glb,obj,ply,stl,usdz,npz (default: glb; usdz needs usd-core)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--face", type=int, metavar="N", help="which face, in the order of score (default: 0)")
    which.add_argument("--all-faces", action="store_true", help="every face: STEM-0.glb, STEM-1.glb, ...")
    parser.add_argument(
        "--min-size", type=float, metavar="PX", help="with --all-faces: leave out smaller ones (default: 60)"
    )
    _small_faces_option(parser)
    _head_options(parser)
    _skin_options(parser)
    parser.add_argument(
        "--preview",
        action=argparse.BooleanOptionalAction,
        help="also a picture of the face from several sides (default: for a single photograph)",
    )
    parser.add_argument("--overlay", action="store_true", help="also the photograph with the mesh drawn over it")
    parser.add_argument("--skip-existing", action="store_true", help="leave out pictures whose results are all there")
    parser.add_argument(
        "--outage", type=float, default=60.0, metavar="S",
        help="seconds to wait for a server that goes away amid many pictures (default: 60)",
    )  # fmt: skip


def _small_faces_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min-face", type=float, metavar="PX",
        help="look at tiles of the photograph for faces as small as this; for all faces (default: no tiles)",
    )  # fmt: skip


def _person_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="+", metavar="PHOTO", help="one to eight photographs of one person")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE", help="head.glb, .obj, .ply, .stl, .usdz or .npz"
    )
    parser.add_argument("--score-threshold", type=float, metavar="0..1", help="lowest score of a face (default: 0.7)")
    parser.add_argument(
        "--same-person", type=float, metavar="COSINE",
        help="lowest mean cosine of a face with the others (default: 0.25; -1 takes everybody)",
    )  # fmt: skip
    parser.add_argument(
        "--reference",
        type=int,
        metavar="N",
        help="whose expression the head has, from 0 (default: the best frontal one)",
    )
    _head_options(parser)
    parser.add_argument("--preview", type=Path, metavar="FILE", help="also a picture of the head from several sides")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _video_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clip", metavar="VIDEO", help="a video file of one person (needs opencv-python-headless)")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="head.glb")
    parser.add_argument("--every", type=_at_least_one, default=1, metavar="N", help="every n-th frame (default: 1)")
    parser.add_argument(
        "--seconds", type=float, default=120.0, metavar="S", help="the longest clip that is read (default: 120)"
    )
    parser.add_argument("--smoothing", type=float, default=1.0, metavar="0..2", help="0: none (default: 1)")
    parser.add_argument("--score-threshold", type=float, metavar="0..1", help="lowest score of a face (default: 0.7)")
    parser.add_argument(
        "--same-person", type=float, metavar="COSINE", help="as for `person`, between the frames (default: 0.25)"
    )
    parser.add_argument("--texture-size", type=int, metavar="PX", help="64..1024 (default: 1024, small faces 512)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _head_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mesh", choices=("head", "face"), help="the whole head or the face alone (default: head)")
    parser.add_argument("--rig", choices=("none", "arkit"), help="arkit: with Apple's 52 shapes (default: none)")
    expression = parser.add_mutually_exclusive_group()
    expression.add_argument("--expression", choices=("photo", "neutral"), help="of the mesh (default: photo)")
    expression.add_argument(
        "--neutral", action="store_const", const="neutral", dest="expression", help="--expression neutral"
    )
    parser.add_argument(
        "--pose", choices=("canonical", "camera"), help="upright, or turned as photographed (default: canonical)"
    )
    parser.add_argument("--white-balance", action="store_true", default=None, help="correct the light's colour")
    parser.add_argument("--sharpen", type=float, metavar="0..1", help="sharpening of the texture (default: 0.3)")
    parser.add_argument(
        "--likeness", type=float, metavar="0..2", help="distance from the mean head: 2 is a caricature (default: 1)"
    )
    parser.add_argument(
        "--texture-size",
        type=int,
        metavar="PX",
        help="64..4096, of several photographs at most 1024 (default: 1024, small faces 512)",
    )


def _skin_options(parser: argparse.ArgumentParser) -> None:
    """Add what concerns the skin of one photograph, which a head of several has no options for."""
    parser.add_argument(
        "--upscale", action="store_true", default=None, help="enhance a face of few pixels: a texture of up to 1024"
    )
    parser.add_argument(
        "--texture-light", choices=("photo", "albedo"), help="albedo: the light is taken out (default: photo)"
    )
    parser.add_argument(
        "--detail", type=float, metavar="0..2", help="fine relief of the skin, a normal map in the mesh (default: 0)"
    )
    parser.add_argument("--glasses", choices=("keep", "remove"), help="in the texture (default: keep)")
    parser.add_argument(
        "--hair", choices=("skin", "paint"), help="paint: hair of the scalp, where it was seen (default: skin)"
    )


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port (1 to 65535)")
    return int(text)


def _formats(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(f".{word.strip().lower().removeprefix('.')}" for word in text.split(",") if word))
    if not chosen or set(chosen) - set(SUFFIXES):
        raise argparse.ArgumentTypeError(f"{text!r}: choose from {', '.join(name[1:] for name in SUFFIXES)}")
    return chosen


def open_client(options: argparse.Namespace, attempts: int = 4) -> Face3DClient:
    """Make the client that the options describe."""
    files = TLS(options.ca, options.cert, options.key) if options.ca or options.cert or options.key else None
    return Face3DClient(
        options.url,
        protocol=options.protocol,
        timeout=options.timeout,
        retry=Retry(attempts=attempts, outage=0),  # nobody there is said at once; `--outage` is for many pictures
        token=options.token,
        admin_key=options.admin_key,
        tls=files,
    )
