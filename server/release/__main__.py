"""`python -m server.release`: versions of models from the command line.

Ends with status 0 when done, 1 with one sentence when refused (and nothing has changed), 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.arguments import whole_number
from server.control import Control
from server.embedded import ServerOptions
from server.errors import ServerError
from server.release.commands import Releases
from server.release.store import Release, Store, as_json
from server.repository import DEFAULT_REPOSITORY, LARGEST_VERSION


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server.release", description="Publish, roll back and look after versions of models."
    )
    add = parser.add_argument
    add("--repository", type=Path, default=DEFAULT_REPOSITORY, metavar="DIR")
    add(
        "--server",
        default=os.environ.get("FACE3D_SERVER", "127.0.0.1:8010"),
        metavar="HOST:PORT",
        help="Triton's own HTTP endpoint, behind the gateway; it serves from the repository and was started with "
        "--model-control-mode explicit (default %(default)s; its admin key is read from FACE3D_ADMIN_KEY)",
    )
    add("--offline", action="store_true", help="there is no server: change only the repository")
    add("--model-config-name", metavar="NAME", help="flavour of the configurations, as for the server")
    add("--json", action="store_true", help="print JSON")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the versions of every model")
    commands.add_parser("status", help="what the repository holds and what the server answers; status 1 if unhealthy")
    publish = commands.add_parser("publish", help="make new versions, try them, and let them serve: all or none")
    publish.add_argument("pairs", nargs="+", metavar="MODEL PATH", help="a model, and its version folder or model file")
    publish.add_argument("--note", default="", help="words for the record")
    publish.add_argument("--no-trial", action="store_true", help="check structure only, without a private server")
    rollback = commands.add_parser("rollback", help="go back to what served before the last release")
    rollback.add_argument("--note", default="", help="words for the record")
    pin = commands.add_parser("pin", help="let an older version serve and refuse new ones")
    pin.add_argument("model")
    pin.add_argument("version", type=whole_number(1, LARGEST_VERSION))
    commands.add_parser("unpin", help="let the versions serve again that a pin put aside").add_argument("model")
    prune = commands.add_parser("prune", help="delete old versions for good")
    prune.add_argument(
        "--keep", type=whole_number(1), default=2, metavar="N", help="versions to keep besides the serving one (2)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "publish" and (
        len(options.pairs) % 2 or len(set(options.pairs[::2])) != len(options.pairs) // 2
    ):
        parser.error("publish takes pairs, each model once: publish regressor PATH texture PATH ...")
    try:
        result = _run(options)
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(as_json(result) if options.json else _text(options.command, result))
    return 1 if options.command == "status" and result.get("healthy") is False else 0


def _run(options: argparse.Namespace) -> Any:
    offline = options.offline or options.command == "list"
    releases = Releases(
        store=Store(options.repository, options.model_config_name),
        control=None if offline else Control(options.server, os.environ.get("FACE3D_ADMIN_KEY")),
        options=ServerOptions(),
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    match options.command:
        case "list":
            return releases.versions()
        case "status":
            return releases.status()
        case "publish":
            pairs = zip(options.pairs[::2], map(Path, options.pairs[1::2]), strict=True)
            return vars(releases.publish(dict(pairs), options.note, trial=not options.no_trial))
        case "rollback":
            return vars(releases.rollback(options.note))
        case "pin":
            return vars(releases.pin(options.model, options.version))
        case "unpin":
            return vars(releases.unpin(options.model))
        case _:
            return releases.prune(options.keep)


def _text(command: str, result: Any) -> str:
    if command == "list":
        lines = [f"{'model':14} {'version':>7}  {'state':16} {'size':>9}  digest"]
        for row in result:
            changed = "" if row["intact"] else "  CHANGED since its release"
            lines.append(
                f"{row['model']:14} {row['version']:>7}  {row['state']:16} {row['bytes'] / 1e6:6.1f} MB  "
                f"{row['digest'][:12]}{changed}"
            )
        return "\n".join(lines)
    if command == "status":
        return as_json(result)
    if command == "prune":
        return "\n".join(f"{name}: removed {', '.join(map(str, numbers))}" for name, numbers in result.items()) or (
            "nothing to remove"
        )
    release = Release(**result)
    served = ", ".join(f"{name} {version}" for name, version in release.versions.items())
    return f"release {release.number} ({release.kind}): {served}"


if __name__ == "__main__":
    sys.exit(main())
