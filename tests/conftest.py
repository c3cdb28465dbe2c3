"""Fixtures that every part shares: the real server with the real repository, and portraits that come with libraries."""

from __future__ import annotations

import importlib.util
import inspect
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.service import PublicOptions, Service
from tests.turns import turn

ROOT = Path(__file__).resolve().parent.parent

# A shell starts what runs in its background with Ctrl-C ignored, and so would every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# `make test` asks the same questions every time: what passes here passes there. `make soak` draws others.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.load_profile("same")

# What the code of a test or fixture names that starts a server, a gateway, a program or a browser.
_STARTERS = frozenset(
    {"EmbeddedServer", "serving", "Service", "GatewayProcess", "Command", "Popen", "subprocess", "launch"}
)

# Files and folders whose tests take minutes together: they train, export, decode hostile pictures or wait for peers.
_SLOW = (
    *("attack", "training", "export", "perf", "networks/detector", "server/release", "server/test_demo.py"),
    *("server/gateway/test_life.py", "client/test_hostile_servers.py", "client/test_restart.py"),
    "model_repository/test_decoding_cage.py",
)


# What a worker of pytest-xdist takes as a whole, because its tests share what is slow to make; elsewhere it takes a
# file. What takes longest is begun first, so that no worker is left alone with it at the end.
_TOGETHER = ("export",)
_FIRST = ("export", "attack", "server/gateway")


def _group(path: str) -> str:
    """The part of the tests that a file, its path relative to this folder, belongs to."""
    return next((folder for folder in _TOGETHER if path.startswith(folder)), path)


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist carries no types
    """Gives each worker one group of tests after the other (`_group`)."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid.partition("::")[0].removeprefix("tests/"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """Run `GroupScheduling` whatever ``--dist`` says."""
    config.option.loadscopereorder = False  # groups go in the order of the tests
    return GroupScheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # tryfirst: the test's timeout does not run while it waits for its turn
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that is marked so run alone."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    folder = item.config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]  # common to all workers
    with turn(folder, alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave slow files unread where they are not wanted: what they import takes seconds."""
    unwanted = "not slow" in config.option.markexpr and _is_slow(collection_path)
    return True if unwanted else None


def _is_slow(path: Path) -> bool:
    return any(path.is_relative_to(ROOT / "tests" / slow) for slow in _SLOW)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what `make test-fast` leaves out: tests that start a server, themselves or by a fixture, and slow ones."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _rank(item.path.relative_to(ROOT / "tests").as_posix()))
    for item in items:
        if _is_slow(item.path):
            item.add_marker(pytest.mark.slow)
        if isinstance(item, pytest.Function) and any(map(_starts, _functions(item))):
            item.add_marker(pytest.mark.server)


def _rank(path: str) -> int:
    """The place of a file's tests in `_FIRST`, or behind all of them."""
    return next((rank for rank, part in enumerate(_FIRST) if path.startswith(part)), len(_FIRST))


def pytest_collection_finish() -> None:
    """Have PyTorch compute on one thread.

    Several spin while they wait for one another: on cores that others use too, most of the time, so that what takes
    0.3 s alone took 12.
    """
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


def _functions(item: pytest.Function) -> Iterator[Callable[..., object]]:
    """Yield a test and all fixtures that it uses, those of fixtures among them."""
    yield item.function
    definitions = item._fixtureinfo.name2fixturedefs  # pytest has no public way to a test's fixtures
    for name in item.fixturenames:
        for definition in definitions.get(name, ()):
            yield definition.func


@cache
def _starts(function: Callable[..., object]) -> bool:
    """Whether a function names one of `_STARTERS`, or speaks of tritonserver."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and any(
        not _STARTERS.isdisjoint(part.co_names)
        or any(isinstance(word, str) and "tritonserver" in word for word in part.co_consts)
        for part in _code_of(code)
    )


def _code_of(code: CodeType) -> Iterator[CodeType]:
    """Yield a function's code and that of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_of(constant)


@pytest.fixture(scope="session")
def running_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The real service with the real models (FACE3D_REPOSITORY for others), gateway included; do not change it."""
    log = tmp_path_factory.mktemp("server") / "triton.log"
    options = on_free_ports(ServerOptions(log_file=log, fusion=True))
    with Service(options, PublicOptions(status_port=0)) as running:
        yield running


@pytest.fixture(scope="session")
def server(running_service: Service) -> EmbeddedServer:
    """The bare tritonserver behind the gateway: every model can be asked, and nothing is checked before."""
    return running_service.triton


def _package_file(package: str, *parts: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.joinpath(*parts)


@pytest.fixture(scope="session")
def portrait_bytes() -> bytes:
    """Eileen Collins (NASA, public domain) as PNG file bytes, 512 x 512, from scikit-image."""
    return _package_file("skimage", "data", "astronaut.png").read_bytes()


@pytest.fixture(scope="session")
def portrait_jpeg() -> bytes:
    """Grace Hopper (US Navy, public domain) as JPEG file bytes, 512 x 600, from matplotlib."""
    return _package_file("matplotlib", "mpl-data", "sample_data", "grace_hopper.jpg").read_bytes()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the evaluation pictures: FACE3D_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("FACE3D_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no evaluation pictures here: set FACE3D_DATA to the folder with portraits.zip")
    return folder
