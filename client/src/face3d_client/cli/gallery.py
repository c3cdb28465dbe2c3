"""``face3d gallery``: enrol people, and say who is on a photograph."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from face3d_client._detection import DetectedFace
from face3d_client._errors import NoFace
from face3d_client.cli.arguments import open_client
from face3d_client.cli.jobs import UsageError
from face3d_client.cli.output import ALL_DONE, SOME_FAILED, print_json, print_line, say
from face3d_client.gallery import Gallery, Match, threshold_for

__all__ = ["add_gallery_options", "gallery"]

PLACE: Final = "FACE3D_GALLERY"
KEY: Final = "FACE3D_GALLERY_KEY"


def gallery(options: argparse.Namespace) -> int:
    """Run the command; return the exit status: 1 where `identify` or `verify` says no."""
    if options.action is None:
        raise UsageError("face3d gallery needs one of: add, identify, verify, remove, list, export.")
    run: Callable[[argparse.Namespace, Gallery], int] = _RUNS[options.action]
    place = options.gallery or os.environ.get(PLACE) or "gallery.db"
    with Gallery.open(place, os.environ.get(KEY)) as opened:
        return run(options, opened)


def add_gallery_options(parser: argparse.ArgumentParser, server: argparse.ArgumentParser) -> None:
    """Add the actions to the command's parser; ``server`` has the options of how to reach one."""
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--gallery", metavar="FILE|URL",
        help=f"a file, or postgresql://USER@HOST/DATABASE (default: {PLACE}, else gallery.db); {KEY} encrypts the file",
    )  # fmt: skip
    where.add_argument("--json", action="store_true", help="JSON objects on stdout")
    parser.set_defaults(action=None)
    actions = parser.add_subparsers(metavar="ACTION", title="actions")

    def action(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = actions.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", parents=[where, *parents]
        )
        made.set_defaults(action=name)
        return made

    add = action("add", "enrol a person by photographs of one face each, or add photographs to one", server)
    add.add_argument("name", metavar="NAME")
    add.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    add.add_argument("--consent", default="", metavar="TEXT", help="by what they agreed; needed for a new person")
    identify = action("identify", "name the faces of photographs", server)
    identify.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    verify = action("verify", "say whether a photograph shows a person", server)
    verify.add_argument("name", metavar="NAME")
    verify.add_argument("photos", nargs=1, type=Path, metavar="PHOTO")
    for made in (identify, verify):
        made.add_argument(
            "--false-accepts", type=float, default=1e-3, metavar="RATE",
            help="part of the people who are not enrolled that may be taken for somebody (default: 0.001)",
        )  # fmt: skip
    action("remove", "delete a person and everything about them").add_argument("name", metavar="NAME")
    action("list", "list who is enrolled")
    action("export", "print all that is kept, as JSON").add_argument("name", nargs="?", metavar="NAME")


def _add(options: argparse.Namespace, opened: Gallery) -> int:
    with open_client(options) as client:
        faces = [client.embed(photo) for photo in options.photos]
    opened.add(options.name, faces, consent=options.consent)
    print_line(f"{options.name}: enrolled {len(faces)} {'photograph' if len(faces) == 1 else 'photographs'}")
    return ALL_DONE


def _identify(options: argparse.Namespace, opened: Gallery) -> int:
    threshold_for(options.false_accepts)  # a wrong rate is said before anything is sent
    named = faces = 0
    with open_client(options) as client:
        for photo in options.photos:
            found = client.detect(photo)
            if not found:
                raise NoFace(f"{photo}: no face was found. Use a picture with a face.")
            for face in found:
                match = opened.nearest(client.embed(photo, face=face), false_accepts=options.false_accepts)
                _show(options, photo, face, match)
                named += bool(match and match.accepted)
                faces += 1
    return ALL_DONE if named == faces else SOME_FAILED


def _verify(options: argparse.Namespace, opened: Gallery) -> int:
    with open_client(options) as client:
        face = client.embed(options.photos[0])
    match = opened.verify(options.name, face, false_accepts=options.false_accepts)
    _show(options, options.photos[0], face.face, match)
    return ALL_DONE if match.accepted else SOME_FAILED


def _show(options: argparse.Namespace, photo: Path, face: DetectedFace, match: Match | None) -> None:
    name = match.name if match is not None and match.accepted else None
    if options.json:
        answer: dict[str, Any] = {"source": str(photo), "box": [round(float(v), 1) for v in face.box], "name": name}
        if match is not None:
            answer |= {"similarity": round(match.similarity, 4), "threshold": round(match.threshold, 4)}
        print_json(answer)
        return
    said = "" if match is None else f" (similarity {match.similarity:.2f}, needed {match.threshold:.2f})"
    corners = " ".join(f"{value:.0f}" for value in face.box)
    print_line(f"{photo}: {corners}: {name or 'nobody'}{said}")


def _remove(options: argparse.Namespace, opened: Gallery) -> int:
    if not opened.remove(options.name):
        say(f"nobody is enrolled as {options.name!r}")
        return SOME_FAILED
    print_line(f"{options.name}: removed")
    return ALL_DONE


def _list(options: argparse.Namespace, opened: Gallery) -> int:
    for person in opened.people():
        if options.json:
            print_json(vars(person))
        else:
            vectors = f"{person.faces} vector{'' if person.faces == 1 else 's'}"
            print_line(f"{person.name}: {vectors}, enrolled {person.enrolled}, consent: {person.consent}")
    return ALL_DONE


def _export(options: argparse.Namespace, opened: Gallery) -> int:
    for entry in opened.export(options.name):
        print_json(entry)
    return ALL_DONE


_RUNS: Final = {
    "add": _add,
    "identify": _identify,
    "verify": _verify,
    "remove": _remove,
    "list": _list,
    "export": _export,
}
