"""The command's entry: chooses what to run and turns exceptions into exit statuses."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final, NoReturn

from face3d_client._errors import Face3DError
from face3d_client.cli.arguments import Adders, build_parser
from face3d_client.cli.batch import error_sentence
from face3d_client.cli.detect import detect
from face3d_client.cli.embed import embed
from face3d_client.cli.fuse import add_fuse_options, add_manifest_options, fuse, manifest
from face3d_client.cli.gallery import add_gallery_options, gallery
from face3d_client.cli.jobs import UsageError
from face3d_client.cli.output import ALL_DONE, INTERRUPTED, NOTHING_DONE, say, status_of
from face3d_client.cli.page import ui
from face3d_client.cli.person import person
from face3d_client.cli.reconstruct import reconstruct
from face3d_client.cli.server import info, models, serve
from face3d_client.cli.video import video

__all__ = ["main"]

_RUNS: Final = {
    "reconstruct": reconstruct,
    "detect": detect,
    "embed": embed,
    "gallery": gallery,
    "fuse": fuse,
    "manifest": manifest,
    "person": person,
    "video": video,
    "models": models,
    "info": info,
    "ui": ui,
}


_OPTIONS: Final = Adders(add_gallery_options, add_fuse_options, add_manifest_options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``face3d``; return the exit status."""
    # gRPC's own log would stand between the sentences.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    parser = build_parser(_RUNS, _OPTIONS)
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["serve"]:  # what follows is for another program, --help included
        return _guarded(lambda: serve(words[1:]))
    options = parser.parse_args(words)
    if options.command is None:
        parser.print_help()
        return NOTHING_DONE
    return _guarded(lambda: int(options.run(options)))


def _guarded(run: Callable[[], int]) -> int:
    with contextlib.suppress(ValueError):  # not in the main thread: the caller handles signals
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run()
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `face3d ... | head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ALL_DONE
    except OSError as error:
        say(error_sentence(error))
        return NOTHING_DONE
    except (UsageError, ValueError) as error:
        say(str(error))
        return NOTHING_DONE
    except Face3DError as error:
        say(f"{type(error).__name__}: {error}")
        return status_of(error)


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
