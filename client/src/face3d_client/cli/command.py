"""Words in, exit status out."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from face3d_client._client import Face3DClient
from face3d_client._detection import DetectedFace
from face3d_client._errors import Face3DError, NoFace, ServerUnavailable, Timeout
from face3d_client._mesh.formats import SUFFIXES, write_whole
from face3d_client._protocol.codec import ENSEMBLES
from face3d_client._protocol.options import Options
from face3d_client._text import printable
from face3d_client._transports.endpoint import TLS
from face3d_client._transports.retry import Retry
from face3d_client._version import __version__
from face3d_client.cli.batch import Batch, Record, Settings, failures_csv, sentence
from face3d_client.cli.jobs import Job, UsageError, check_out, plan

__all__ = ["main"]

ALL_DONE: Final = 0
SOME_FAILED: Final = 1
NOTHING_DONE: Final = 2
NO_SERVER: Final = 3
INTERRUPTED: Final = 130

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``face3d``; the exit status."""
    # gRPC's own log would stand between the sentences.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    parser = _parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["serve"]:  # what follows is for another program, --help included
        return _guarded(lambda: _serve(words[1:]))
    options = parser.parse_args(words)
    if options.command is None:
        parser.print_help()
        return NOTHING_DONE
    return _guarded(lambda: int(options.run(options)))


def _guarded(run: Callable[[], int]) -> int:
    with contextlib.suppress(ValueError):  # not in the main thread: whoever called has signals of their own
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run()
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `face3d ... | head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ALL_DONE
    except OSError as error:
        _say(sentence(error))
        return NOTHING_DONE
    except (UsageError, ValueError) as error:
        _say(str(error))
        return NOTHING_DONE
    except Face3DError as error:
        _say(f"{type(error).__name__}: {error}")
        return _status_of(error)


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _status_of(error: Face3DError) -> int:
    nobody = isinstance(error, ServerUnavailable) and error.status != "INTERNAL"
    return NO_SERVER if nobody or isinstance(error, Timeout) else NOTHING_DONE


def _say(sentence: str) -> None:
    print(f"face3d: {printable(sentence, 4000)}", file=sys.stderr)


def _print(text: str) -> None:
    """A line of results: to a terminal without what it would obey (a file's name may hold escapes), else as it is."""
    print(printable(text, 8000) if sys.stdout.isatty() else text)


# --- options ----------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="face3d", description="Photographs to textured 3D faces.", epilog=_EPILOG, formatter_class=formatter
    )
    parser.add_argument("--version", action="version", version=f"face3d {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    def command(name: str, run: Any, text: str, *parents: argparse.ArgumentParser, **more: Any) -> Any:
        made = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", parents=parents, epilog=_EPILOG,
            formatter_class=formatter, **more,
        )  # fmt: skip
        made.set_defaults(run=run, command=name)
        return made

    server = _server_options()
    _reconstruct_options(command("reconstruct", _reconstruct, "make 3D faces of photographs", server))
    detect = command("detect", _detect, "find the faces in photographs", server)
    _picture_options(detect)
    command("models", _models, "list what the server has loaded", server)
    command("info", _info, "say who answers and whether it is ready", server)
    ui = command("ui", _ui, "open a web page to try it in the browser", server)
    ui.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    ui.add_argument("--port", type=_port, default=7860, help="port to listen on (default: 7860)")
    ui.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="a name by which browsers may call the page (IP addresses, localhost and --host always may)",
    )  # fmt: skip
    ui.add_argument("--no-browser", action="store_true", help="only print the address")
    ui.add_argument(
        "--face-model", type=Path, metavar="FILE",
        help="the server's face_model.npz, for the sliders of the expression (default: that of the checkout, if any)",
    )  # fmt: skip
    command("serve", None, "start the server that comes with the repository (options: as for python -m server)")
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
        "--format", type=_formats, default=(".glb",), metavar="LIST", help="glb,obj,ply,stl,npz (default: glb)"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--face", type=int, metavar="N", help="which face, in the order of score (default: 0)")
    which.add_argument("--all-faces", action="store_true", help="every face: STEM-0.glb, STEM-1.glb, ...")
    parser.add_argument(
        "--min-size",
        type=float,
        default=60.0,
        metavar="PX",
        help="with --all-faces: leave out smaller ones (default: 60)",
    )
    parser.add_argument("--neutral", action="store_true", help="without the expression")
    parser.add_argument(
        "--preview",
        action=argparse.BooleanOptionalAction,
        help="also a picture of the face from several sides (default: for a single photograph)",
    )
    parser.add_argument("--overlay", action="store_true", help="also the photograph with the mesh drawn over it")
    parser.add_argument("--white-balance", action="store_true", default=None, help="correct the light's colour")
    parser.add_argument("--sharpen", type=float, metavar="0..1", help="sharpening of the texture (default: 0.3)")
    parser.add_argument("--texture-size", type=int, metavar="PX", help="64..2048 (default: 512)")
    parser.add_argument("--skip-existing", action="store_true", help="leave out pictures whose results are all there")
    parser.add_argument(
        "--outage", type=float, default=60.0, metavar="S",
        help="seconds to wait for a server that goes away amid many pictures (default: 60)",
    )  # fmt: skip


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


def _client(options: argparse.Namespace, attempts: int = 4) -> Face3DClient:
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


# --- reconstruct ------------------------------------------------------------------------------------------------------


def _reconstruct(options: argparse.Namespace) -> int:
    jobs = plan(options.pictures, options.out)
    check_out(options.out)
    settings = Settings(
        formats=options.format,
        all_faces=options.all_faces,
        min_size=options.min_size,
        preview=jobs[0].alone if options.preview is None else options.preview,
        overlay=options.overlay,
        skip_existing=options.skip_existing,
        concurrency=options.concurrency,
        outage=0.0 if jobs[0].alone else options.outage,
        options=Options(
            face=options.face,
            score_threshold=options.score_threshold,
            pose="neutral" if options.neutral else None,
            white_balance=options.white_balance,
            sharpen=options.sharpen,
            texture_size=options.texture_size,
        ),
    )
    if jobs[0].alone:
        with _client(options) as client:
            return _one(Batch(client, settings).do(jobs[0]), options.json)
    with _client(options) as client:
        client.info(timeout=min(10.0, options.timeout))  # nobody there: one sentence instead of one a picture
    # Nobody waits for a batch's next answer: rather late than listed as a failure.
    with _client(options, attempts=8) as client:
        return _many(Batch(client, settings), jobs, options)


def _one(record: Record, as_json: bool) -> int:
    if as_json:
        _print_json(record.as_json())
    elif record.status == "skipped":
        print("everything is there already")
    for path in record.files if not as_json else ():
        _print(str(path))
    for face in record.faces:
        for warning in face["warnings"]:
            _say(f"warning: {warning}")
    for reason, message in record.failures:
        _say(f"{reason}: {message}")
    if record.status == "failed":
        return NO_SERVER if record.server_gone else NOTHING_DONE
    return SOME_FAILED if record.failures else ALL_DONE


def _many(batch: Batch, jobs: Sequence[Job], options: argparse.Namespace) -> int:
    from face3d_client.cli.tables import Progress, print_summary

    records: list[Record] = []
    interrupted = False
    with Progress(len(jobs)) as progress:
        try:
            for record in batch.run(jobs):
                records.append(record)
                progress.add(len(record.faces), failed=bool(record.failures))
                if options.json:
                    _print_json(record.as_json())
        except KeyboardInterrupt:
            interrupted = True
    listing = options.out / "failures.csv"
    if any(record.failures for record in records):
        write_whole(listing, failures_csv(records))
    else:
        listing.unlink(missing_ok=True)  # one of an earlier run would be taken for this one's
        listing = Path()
    print_summary(records, len(jobs), progress.seconds, listing, interrupted)
    if interrupted:
        return INTERRUPTED
    if batch.server_gone:
        return NO_SERVER
    if all(record.status == "failed" for record in records):
        return NO_SERVER if all(record.server_gone for record in records) else NOTHING_DONE
    return SOME_FAILED if any(record.failures for record in records) else ALL_DONE


def _print_json(value: dict[str, Any]) -> None:
    # Names that are not valid UTF-8 come as surrogates, which only escapes can carry.
    print(json.dumps(value, ensure_ascii=True), flush=True)


# --- detect -----------------------------------------------------------------------------------------------------------


def _detect(options: argparse.Namespace) -> int:
    from face3d_client._ordered import ordered_map

    # A folder to write to that cannot exist: detect writes nothing, but the same words mean the same pictures.
    jobs = plan(options.pictures, Path(os.devnull))
    with _client(options) as client:

        def look(job: Job) -> list[DetectedFace] | Face3DError | OSError:
            try:
                found = client.detect(job.source, score_threshold=options.score_threshold)
            except (Face3DError, OSError) as error:
                return error
            return found or NoFace("no face was found. Use a picture with a face, or lower --score-threshold.")

        if len(jobs) > 1:
            client.info(timeout=min(10.0, options.timeout))
        worst: list[int] = []
        for job, found in zip(jobs, ordered_map(look, jobs, options.concurrency), strict=True):
            worst.append(_show_faces(job, found, options.json, len(jobs) > 1))
    if all(status == ALL_DONE for status in worst):
        return ALL_DONE
    if len(set(worst)) == 1:
        return worst[0]
    return SOME_FAILED if ALL_DONE in worst else NOTHING_DONE


def _show_faces(job: Job, found: list[DetectedFace] | Face3DError | OSError, as_json: bool, many: bool) -> int:
    faces = found if isinstance(found, list) else []
    error = None if isinstance(found, list) else found
    if as_json:
        _print_json(
            {
                "source": str(job.source),
                "faces": [
                    {
                        "index": face.index,
                        "score": round(face.score, 4),
                        "box": [round(float(value), 2) for value in face.box],
                        "points": [[round(float(value), 2) for value in point] for point in face.points],
                    }
                    for face in faces
                ],
                "errors": [{"reason": type(error).__name__, "message": str(error)}] if error else [],
            }
        )
    else:
        for face in faces:
            corners = " ".join(f"{value:.1f}" for value in face.box)
            _print(f"{f'{job.name}: ' if many else ''}face {face.index} score {face.score:.3f} box {corners}")
    if error is None:
        return ALL_DONE
    reason = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    _say(f"{f'{job.name}: ' if many else ''}{reason}{error}")
    return _status_of(error) if isinstance(error, Face3DError) else NOTHING_DONE


# --- the server -------------------------------------------------------------------------------------------------------


def _models(options: argparse.Namespace) -> int:
    from face3d_client.cli.tables import print_models

    with _client(options) as client:
        models = client.models()
    print_models(models)
    ready = {model.name for model in models if model.ready}
    return ALL_DONE if ready.issuperset(ENSEMBLES) else SOME_FAILED


def _info(options: argparse.Namespace) -> int:
    with _client(options) as client:
        server = client.info()
        missing = [name for name in ENSEMBLES if not client.ready(name)]
    print(f"client   face3d {__version__}")
    print(f"server   {server.name} {server.version} at {client.endpoint}")
    print(f"service  {'not ready: ' + ', '.join(missing) if missing else 'ready'}")
    return SOME_FAILED if missing else ALL_DONE


def _ui(options: argparse.Namespace) -> int:
    from face3d_client._mesh.expressions import Expressions
    from face3d_client._ui.page import build_page, launch_options

    model = options.face_model or _checkout_face_model()
    expressions = None if model is None else Expressions.load(model)
    # A folder of its own: no other program's files lie where the page serves from, and all of it can be deleted.
    with _client(options) as client, tempfile.TemporaryDirectory(prefix="face3d-ui-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        client.info(timeout=min(10.0, options.timeout))
        try:
            page = build_page(client, expressions)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"the page needs {error.name}, which is not installed: pip install 'face3d-client[ui]'."
            ) from error
        hosts = (options.host, socket.gethostname(), *options.allow_host)
        try:
            page.launch(
                server_name=options.host, server_port=options.port, inbrowser=not options.no_browser,
                **launch_options(page, hosts),
            )  # fmt: skip
        except OSError as error:  # Gradio's words speak of its own options
            raise UsageError(
                f"the page cannot listen on {options.host}:{options.port}. Is the port taken? Choose another --port."
            ) from error
        finally:
            page.studio.close()
    return ALL_DONE


def _serve(words: Sequence[str]) -> int:
    root = _repository_root()
    if root is None:
        raise UsageError(
            "the server is not here: it comes with the repository, not with this package. Run this in a checkout of "
            "Face3D on Triton (after `make setup export`), or start its container."
        )
    os.chdir(root)
    os.execv(sys.executable, [sys.executable, "-m", "server", *words])


def _checkout_face_model() -> Path | None:
    root = _repository_root()
    path = None if root is None else root / "weights" / "face_model.npz"
    return path if path is not None and path.is_file() else None


def _repository_root() -> Path | None:
    """The checkout that this was started in, or that is on the import path."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if _is_repository(folder):
            return folder
    spec = importlib.util.find_spec("server")
    if spec is not None and spec.origin is not None and _is_repository(root := Path(spec.origin).parent.parent):
        return root
    return None


def _is_repository(folder: Path) -> bool:
    # The name `server` is common; the model repository beside it is not.
    return (folder / "server" / "__main__.py").is_file() and (folder / "model_repository").is_dir()
