"""Builds an image the way its Dockerfile says, without Docker: each stage in a chroot over an overlay, a layer a step.

The base image is a folder with a root file system (``debootstrap --variant=minbase``), which is a little larger than
Debian's slim image. Needs root, overlayfs and the package registries. What a container would get at run time is given
here too: the resolver's configuration and the machine's certificates while RUN works, nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.dockerfile import Instruction, Stage, parse

_CHROOT = [shutil.which("chroot") or "/usr/sbin/chroot"]
# As `docker build` lends them to RUN: they never enter a layer.
_LENT = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")


class BuildFailed(Exception):
    """A step ended with an error."""


@dataclass
class Built:
    """A stage that was built.

    Attributes:
        layers: folders, lowest first; the base image's is the first.
        environment: as ENV set it.
        folder: WORKDIR.
        user: USER, "" for root.
        sizes: (step, bytes) of every layer above the base.
    """

    layers: list[Path]
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = ""
    sizes: list[tuple[str, int]] = field(default_factory=list)

    def copy(self) -> Built:
        """What the next stage starts from."""
        return Built([*self.layers], {**self.environment}, self.folder, self.user, [*self.sizes])


class Builder:
    """Builds the stages of one Dockerfile.

    Args:
        context: the folder that COPY reads: only what the image may see.
        work: where layers go.
        bases: name of an image -> folder with its root file system.
        contexts: name of a stage -> folder that takes its place (``--build-context``).
        arguments: values for ARG (``--build-arg``).
        environment: variables lent to RUN, for instance where pip finds its index.
    """

    def __init__(
        self,
        dockerfile: Path,
        context: Path,
        work: Path,
        bases: Mapping[str, Path],
        contexts: Mapping[str, Path] | None = None,
        arguments: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._stages = parse(dockerfile)
        self._context, self._work, self._bases = context, work, bases
        self._contexts, self._arguments, self._lent = contexts or {}, arguments or {}, environment or {}
        self._done: dict[str, Built] = {}
        self._count = 0

    def build(self) -> Built:
        """The last stage, and what it needs of the others."""
        return self._stage(self._stages[-1])

    def _named(self, name: str) -> Built:
        if name not in self._done:
            self._done[name] = self._stage(next(stage for stage in self._stages if stage.name == name))
        return self._done[name]

    def _stage(self, stage: Stage) -> Built:
        if stage.base == "scratch":
            built = Built([self._new_folder()])
        elif stage.base in self._bases:
            built = Built([self._bases[stage.base]])
        else:
            built = self._named(stage.base).copy()
        for instruction in stage.instructions:
            self._step(built, instruction)
        return built

    def _step(self, built: Built, step: Instruction) -> None:
        value = self._expanded(built, step.text)
        match step.keyword:
            case "ENV":
                built.environment |= dict(re.findall(r'(\w+)=("[^"]*"|\S+)', value))
            case "ARG":
                name, _, default = step.text.partition("=")
                built.environment.setdefault(name, self._arguments.get(name, default.strip('"')))
            case "WORKDIR":
                built.folder = os.path.join(built.folder, value)  # noqa: PTH118 - paths of the image
                self._layer(built, step, lambda root: _inside(root, built.folder).mkdir(parents=True, exist_ok=True))
            case "USER":
                built.user = value
            case "COPY":
                self._layer(built, step, lambda root: self._copy(built, step, root))
            case "RUN":
                self._layer(built, step, lambda root: self._run(built, step, root))
            case _:
                pass  # EXPOSE, HEALTHCHECK, ENTRYPOINT, STOPSIGNAL: words for whoever runs it

    def _expanded(self, built: Built, text: str) -> str:
        return re.sub(r"\$\{?(\w+)\}?", lambda m: built.environment.get(m[1], ""), text)

    def _layer(self, built: Built, step: Instruction, work: object) -> None:
        assert callable(work)
        layer = self._new_folder()
        with mounted(built.layers, layer, self._work) as root:
            work(root)
        built.layers.append(layer)
        built.sizes.append((f"{step.keyword} {step.text}"[:100], size_of(layer)))

    def _copy(self, built: Built, step: Instruction, root: Path) -> None:
        *sources, target = step.text.split()
        into = target.endswith("/") or target in (".", "./")
        destination = _inside(root, os.path.join(built.folder, target))  # noqa: PTH118
        origin = step.options.get("from")
        if origin is None:
            self._copy_all(self._context, sources, destination, into)
        elif origin in self._contexts:
            self._copy_all(self._contexts[origin], [source.lstrip("/") for source in sources], destination, into)
        else:
            with mounted(self._named(origin).layers, self._new_folder(), self._work) as other:
                self._copy_all(other, [source.lstrip("/") for source in sources], destination, into)

    @staticmethod
    def _copy_all(base: Path, sources: list[str], destination: Path, into: bool) -> None:
        for source in sources:
            path = base / source
            if path.is_dir():
                shutil.copytree(path, destination, symlinks=True, dirs_exist_ok=True)
            else:
                target = destination / path.name if into else destination
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target, follow_symlinks=False)

    def _run(self, built: Built, step: Instruction, root: Path) -> None:
        with lent(root):
            result = subprocess.run(
                [*_CHROOT, str(root), "/bin/sh", "-c", f"cd {built.folder} && {step.text}"],
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
                | {"DEBIAN_FRONTEND": "noninteractive", **built.environment, **self._lent},
                capture_output=True,
                text=True,
                check=False,
            )
        if result.returncode:
            raise BuildFailed(f"line {step.line}: {step.text[:200]}\n{result.stdout[-1500:]}\n{result.stderr[-1500:]}")

    def _new_folder(self) -> Path:
        self._count += 1
        folder = self._work / f"layer{self._count:02d}"
        folder.mkdir(parents=True)
        return folder


@contextmanager
def mounted(layers: list[Path], top: Path, work: Path) -> Iterator[Path]:
    """The layers as one tree; what changes goes into ``top``."""
    root, scratch = work / f"root-{top.name}", work / f"work-{top.name}"
    root.mkdir()
    scratch.mkdir()
    lower = ":".join(str(layer) for layer in reversed(layers))
    words = f"lowerdir={lower},upperdir={top},workdir={scratch}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", words, str(root)], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True)
        root.rmdir()
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def lent(root: Path) -> Iterator[None]:
    """What RUN is lent: /proc, /dev, the resolver and certificates of the machine."""
    mounts: list[Path] = []

    def bind(source: str, target: Path) -> None:
        subprocess.run(["mount", "--bind", source, str(target)], check=True)
        mounts.append(target)

    kept: dict[Path, bytes | None] = {}
    for name in ("proc", "dev"):
        (root / name).mkdir(exist_ok=True)
        bind(f"/{name}", root / name)
    for name in _LENT:
        if Path(name).is_file():
            target = _inside(root, name)
            kept[target] = target.read_bytes() if target.is_file() else None
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, target)
    try:
        yield
    finally:
        for target in reversed(mounts):
            subprocess.run(["umount", str(target)], check=True)
        for target, content in kept.items():
            if content is None:
                # A step may have installed its own (ca-certificates): only what was lent goes.
                if target.is_file() and target.read_bytes() == Path("/" + str(target.relative_to(root))).read_bytes():
                    target.unlink()
            else:
                target.write_bytes(content)


def _inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def size_of(folder: Path) -> int:
    """Bytes of the regular files below a folder, links counted once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for entry in folder.rglob("*"):
        if entry.is_symlink() or not entry.is_file():
            continue
        status = entry.stat()
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_size
    return total


@contextmanager
def running(built: Built, command: list[str], work: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command in the image as its user, with a read-only root and an empty /tmp, as docker-compose.yml runs it."""
    top = work / "top-run"
    top.mkdir()
    with mounted(built.layers, top, work) as root, ExitStack() as mounts:
        for name in ("proc", "dev"):
            (root / name).mkdir(exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        for words in (
            ["--bind", "/proc", "proc"],
            ["--bind", "/dev", "dev"],
            ["--bind", "/dev/shm", "dev/shm"],
            ["-t", "tmpfs", "-o", "size=64m,mode=1777", "tmpfs", "tmp"],
        ):
            target = str(root / words[-1])
            subprocess.run(["mount", *words[:-1], target], check=True)
            mounts.callback(subprocess.run, ["umount", target], check=True)
        process = subprocess.Popen(
            [*_CHROOT, f"--userspec={built.user}", str(root), "/usr/bin/env", "-C", built.folder, *command],
            env={**built.environment, "HOME": "/tmp", **environment},
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(60)
