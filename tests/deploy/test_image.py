"""The CPU image, built and started the way its Dockerfile says, without Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from server.control import Control
from server.probe import check
from tests.deploy.image import Builder, running, size_of
from tests.deploy.tools import program

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 1.5e9  # bytes
PORTS = {
    name: 18100 + index
    for index, name in enumerate(("HTTP", "GRPC", "METRICS", "SUPERVISOR", "TRITON_HTTP", "TRITON_GRPC"))
}

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid() != 0 or "overlay" not in Path("/proc/filesystems").read_text():
        pytest.skip("building an image here needs root and overlayfs")
    return tmp_path_factory.mktemp("image")


@pytest.fixture(scope="module")
def base(work: Path) -> Path:
    """The root file system of the base image: FACE3D_ROOTFS, or made by debootstrap."""
    if (given := os.environ.get("FACE3D_ROOTFS")) is not None:
        return Path(given)
    made = work / "base"
    command = [program("debootstrap"), "--variant=minbase", "bookworm", str(made)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"debootstrap could not make the base image: {result.stdout[-300:]}")
    return made


def test_the_image_is_built_is_small_and_serves_without_root_on_a_read_only_disk(work: Path, base: Path) -> None:
    context = work / "context"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, context / name)
    contexts = {}
    if os.environ.get("FACE3D_IMAGE_EXPORTS") != "1":
        # As `docker build --build-context models=...`: what `make export` has written takes the exporter's place, which
        # would fetch torch and export for minutes. FACE3D_IMAGE_EXPORTS=1 runs that stage too.
        repository = Path(os.environ.get("FACE3D_REPOSITORY", ROOT / "model_repository"))
        shutil.copytree(repository, work / "models" / "model_repository", ignore=shutil.ignore_patterns("__pycache__"))
        contexts["models"] = work / "models"
    lent = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "http", "https", "no_proxy"))}
    (work / "layers").mkdir()
    dockerfile = context / "deploy" / "docker" / "cpu.Dockerfile"
    builder = Builder(dockerfile, context, work / "layers", {"debian:bookworm-slim": base}, contexts, environment=lent)
    built = builder.build()

    sizes = [("base", size_of(built.layers[0])), *built.sizes]
    for step, size in sizes:
        print(f"{size / 1e6:8.1f} MB  {step}")
    total = sum(size for _, size in sizes)
    print(f"{total / 1e6:8.1f} MB  together")
    assert total < LARGEST
    assert not built.user.startswith("0")
    for tool in ("gcc", "cc", "make", "pip", "pip3", "git", "curl"):
        assert not any((layer / folder / tool).exists() for layer in built.layers for folder in ("usr/bin", "bin")), (
            tool
        )

    names = {f"FACE3D_{kind}_PORT": str(port) for kind, port in PORTS.items()}
    entry = ["python3", "-m", "deploy.docker.entrypoint"]
    with running(built, entry, work, FACE3D_ADDRESS="127.0.0.1", **names) as process:
        deadline = time.monotonic() + 120
        while not healthy():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        control = Control(f"127.0.0.1:{PORTS['HTTP']}")
        assert check(control, "face3d")["mesh"].size == 1
        request = urllib.request.Request(f"http://{control.endpoint}/v2/repository/index", b"", method="POST")
        with pytest.raises(urllib.error.HTTPError, match="404"):  # the gateway has no such thing
            urllib.request.urlopen(request, timeout=5)
        process.terminate()
        assert process.wait(60) == 0


def healthy() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORTS['SUPERVISOR']}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
