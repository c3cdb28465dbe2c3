"""Tries candidates in a private server, together with everything that uses them, before they enter the repository."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from google.protobuf import text_format

from server import probe
from server.control import Control
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.errors import ServerError
from server.release.store import Store
from server.release.structure import CandidateRefused
from server.repository import with_steps
from server.signing import make_test_certificate


def try_candidates(
    store: Store, candidates: Mapping[str, Path], options: ServerOptions, say: Callable[[str], None]
) -> None:
    """Load the candidates with the models around them in a server of their own and make real inferences.

    That server has one process a model. It loads the candidates beside the versions that serve now, and every ensemble
    that uses a candidate answers one request: so the tensors are held against the configuration, the warm-up runs, and
    a face model whose fingerprint differs from its neighbours' is found out.

    Args:
        store: the repository.
        candidates: model -> folder with the candidate's files.
        options: how servers are started here; ports, control and repository are replaced.
        say: takes a line of progress.

    Raises:
        CandidateRefused: something failed; the server has been stopped.
    """
    ensembles = store.users(set(candidates))
    # Every ensemble comes along: a probe may need another one's answer (reconstruct: a face that detect found).
    along = [name for name, model in store.models.items() if model.is_ensemble] if ensembles else []
    names = with_steps(store.models, [*candidates, *along])
    targets = ensembles or list(candidates)
    with tempfile.TemporaryDirectory(prefix="face3d-trial-") as folder:
        signing = make_test_certificate(Path(folder) / "signing")
        repository = Path(folder) / "models"
        repository.mkdir()
        for name, model in names.items():
            (repository / name).mkdir()
            if (model.folder / "warmup").is_dir():  # the samples that model_warmup names
                (repository / name / "warmup").symlink_to((model.folder / "warmup").resolve())
            config = type(model.config)()
            config.CopyFrom(model.config)
            for group in config.instance_group:
                group.count = 1
            (repository / name / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
            version = store.next_version(name) if name in candidates else store.current(name)
            source = candidates[name] if name in candidates else store.folder(name, version or 1)
            (repository / name / str(version or 1)).symlink_to(source.resolve(), target_is_directory=True)
        private = replace(
            on_free_ports(options),
            repository=repository,
            model_control_mode="none",
            model_config_name=None,
            load_models=None,
            log_file=None,
            admin_key=None,
            fusion=True,  # a candidate has to serve there too
            fusion_certificate=signing.certificate,
            fusion_key=signing.key,
        )
        try:
            say(f"trying {', '.join(candidates)} in a private server")
            with EmbeddedServer(private) as server:
                control = Control(server.http)
                for target in targets:
                    probe.check(control, target, timeout=60)
                    say(f"  {target} answers")
        except ServerError as error:
            raise CandidateRefused(f"the candidate was refused: {error}") from None
