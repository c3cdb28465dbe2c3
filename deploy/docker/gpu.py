"""The GPU image's entry point: ``plans`` builds what is missing, ``serve`` starts tritonserver on it and the gateway.

``fetch FOLDER`` waits for the plans of FACE3D_COMPUTE_CAPABILITY and copies models and plans from the volume, for a
cluster's init container; ``supervise`` and ``healthy`` are for the container beside it and for health checks.

Plans belong to one GPU, one TensorRT and one set of graphs. So the models go into a folder of the volume that is named
after everything they are made of; when the image changes, a new folder is filled and the old one is removed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.docker import beside
from deploy.docker.entrypoint import BadSecret, admin_key, trace_arguments
from server.gateway.process import GatewayOptions
from server.repository import SWITCHED, link_models, models_to_await, read_repository, without
from server.signing import make_test_certificate

HOME = Path("/opt/face3d")
PLANS = Path(os.environ.get("FACE3D_PLANS", "/plans"))
COMMANDS = ("plans", "fetch", "serve", "supervise", "healthy")
NETWORKS = ("detector", "regressor", "parser", "texture", "embedder", "enhance")
# Triton's own, which `server.supervise` and `server.release` use too.
TRITON_PORTS = {"http": 8010, "grpc": 8011}


def digest(*folders: Path) -> str:
    """Hash names and contents of every file below the folders; return sixteen hexadecimal digits."""
    sums = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            sums.update(str(path.relative_to(folder)).encode() + b"\0")
            with path.open("rb") as stream:
                sums.update(hashlib.file_digest(stream, "sha256").digest())
    return sums.hexdigest()[:16]


def lay_out(home: Path, plans: Path) -> Path:
    """Fill the folder of the volume that belongs to this image, when it is new; return it.

    A folder is filled under another name and renamed: what is half there is never served.
    """
    wanted = plans / digest(home / "model_repository", home / "build" / "tensorrt")
    if not wanted.is_dir():
        for old in plans.iterdir():
            if old.is_dir() and old.name not in ("lost+found",):
                shutil.rmtree(old)
        staging = plans / f".{wanted.name}"
        shutil.copytree(home / "model_repository", staging)
        staging.rename(wanted)
    return wanted


def has_plans(repository: Path, capability: str) -> bool:
    """Return whether every network has its plan for this compute capability ("8.9")."""
    name = f"model.cc{capability.replace('.', '')}.plan"
    return all(any((repository / network).glob(f"[0-9]*/{name}")) for network in NETWORKS)


def fetch(plans: Path, wanted: str, target: Path, capability: str, pause: float = 5.0) -> None:
    """Copy the repository ``wanted`` from the volume, once its plans are there."""
    source = plans / wanted
    while not has_plans(source, capability):
        print(f"waiting for the plans of compute capability {capability} in {source}", flush=True)
        time.sleep(pause)
    shutil.copytree(source, target, dirs_exist_ok=True)


def serve_command(repository: Path, key: str) -> list[str]:
    """Build tritonserver's command line: the TensorRT flavour, closed interfaces, no guessing of configurations."""
    closed = f"model-repository,shared-memory,trace,logging:admin-key={key}"
    # The supervisor beside it brings dead models back by loading them; in a cluster the pod is replaced.
    explicit = os.environ.get("FACE3D_CONTROL", "explicit") == "explicit"
    control = ["--model-control-mode=explicit", "--load-model=*"] if explicit else ["--model-control-mode=none"]
    return [
        "tritonserver",
        f"--model-repository={repository}",
        # Only the gateway reaches it; Prometheus reads the metrics from outside.
        *(f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc")),
        *(f"--{kind}-port={port}" for kind, port in TRITON_PORTS.items()),
        "--model-config-name=tensorrt",
        *control,
        "--disable-auto-complete-config",
        "--strict-readiness=true",
        f"--exit-timeout-secs={os.environ.get('FACE3D_EXIT_TIMEOUT', '30')}",
        "--metrics-config=summary_latencies=true",
        "--metrics-config=summary_quantiles=0.5:0.05,0.95:0.01,0.99:0.001",
        f"--http-restricted-api={closed}",
        f"--grpc-restricted-protocol={closed}",
        *trace_arguments(os.environ),
        *os.environ.get("FACE3D_TRITON_ARGS", "").split(),
    ]


def signing_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return where the certificate lies by which fused pictures are signed: the operator's, else a test one."""
    if environment.get("FACE3D_FUSION_CERTIFICATE"):
        return {}
    files = make_test_certificate(Path(tempfile.mkdtemp(prefix="face3d-signing-")))
    print("warning: fused pictures are signed by a test certificate that ends with this container", file=sys.stderr)
    return {"FACE3D_FUSION_CERTIFICATE": str(files.certificate), "FACE3D_FUSION_KEY": str(files.key)}


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands; return the exit status."""
    command, *more = arguments or ["serve"]
    if command not in COMMANDS:
        print(f"error: the commands are {', '.join(COMMANDS)}, not '{command}'.", file=sys.stderr)
        return 2
    if command == "healthy":
        from deploy.docker import probe

        return probe.main()
    if command == "fetch":
        fetch(PLANS, digest_here(), Path(more[0]), os.environ["FACE3D_COMPUTE_CAPABILITY"])
        return 0
    try:
        key = admin_key(os.environ)
    except BadSecret as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if command == "supervise":
        os.environ["FACE3D_ADMIN_KEY"] = key
        return os.execvp(sys.executable, [sys.executable, "-m", "server.supervise", *more])
    if command == "plans":
        repository = lay_out(HOME, PLANS)
    else:
        repository = Path(os.environ.get("FACE3D_REPOSITORY", PLANS / digest_here()))
    build = [sys.executable, "-m", "export.tensorrt", "--repository", str(repository)]
    if command == "plans":
        return subprocess.run([*build, "--onnx-dir", str(HOME / "build" / "tensorrt")], check=False).returncode
    if subprocess.run([*build, "--check"], check=False).returncode:
        return 1
    served = read_repository(repository, "tensorrt")
    if os.environ.get("FACE3D_FUSION", "0") in ("1", "yes", "true"):
        os.environ |= signing_environment(os.environ)
    else:
        served = without(served, SWITCHED)
        repository = link_models(served, Path(tempfile.mkdtemp(prefix="face3d-")) / "models")
    gateway = GatewayOptions(
        triton_http=f"127.0.0.1:{TRITON_PORTS['http']}",
        triton_grpc=f"127.0.0.1:{TRITON_PORTS['grpc']}",
        address="0.0.0.0",
        http_port=8000,
        grpc_port=8001,
        repository=repository,
        models=models_to_await(served),
        exit_timeout=float(os.environ.get("FACE3D_EXIT_TIMEOUT", "30")),
    )
    return beside.serve([*serve_command(repository, key), *more], gateway)


def digest_here() -> str:
    """Return the name of this image's folder."""
    return digest(HOME / "model_repository", HOME / "build" / "tensorrt")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
