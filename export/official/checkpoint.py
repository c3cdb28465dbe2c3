"""Read published PyTorch checkpoints strictly, without running code in them, and with errors that name keys."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.errors import ExportError

State = dict[str, Tensor]

WRAPPERS = ("net_recon", "state_dict", "model", "network", "net")
PREFIXES = ("module.", "net_recon.")
MODELSCOPE = "pytorch_model.pt"
MAGIC = (b"PK", b"\x80")
"""First bytes of files of `torch.save`: a zip archive, before torch 1.6 a pickle."""
V1_ASSETS = ("head_model_for_maas.mat", "face_model_for_maas.mat", "template_mesh.obj")


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint file as tensors and plain containers.

    Raises:
        ExportError: the file is missing, damaged or truncated, or holds other objects (whose code is never run).
    """
    if not path.is_file():
        raise ExportError(f"There is no checkpoint {path}: give the path of the file you downloaded.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    with path.open("rb") as file:
        if not file.read(2).startswith(MAGIC):
            raise ExportError(f"{path} is not a PyTorch checkpoint: it begins like no file that torch.save writes.")
    try:
        with warnings.catch_warnings():
            # torch warns of pickle protocols before it refuses; the sentence below says what matters.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no common exception for its formats
        text = str(error)
        if "weights_only" in text or "Unsupported" in text:
            raise ExportError(
                f"{path} holds Python objects besides tensors; it is refused, because loading them would run code from "
                "the file. Take the file from its official source."
            ) from None
        # The first sentence of torch's message names the cause.
        reason = text.splitlines()[0].split(". ")[0] if text else type(error).__name__
        raise ExportError(f"{path} cannot be read as a PyTorch checkpoint ({reason}): download it again.") from None
    if isinstance(content, nn.Module) or not isinstance(content, Mapping):
        raise ExportError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors.")
    return dict(content)


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read as safetensors ({error}): download it again.") from None


def state_dict(content: Mapping[str, Any], path: Path) -> State:
    """Extract the network's tensors of a checkpoint, without wrappers, prefixes and the classifier.

    Accepted are `{net_recon: ...}`, `{state_dict: ...}`, flat dictionaries, and names with the prefix `module.` or
    `net_recon.`. Optimiser and scheduler states are ignored.

    Raises:
        ExportError: there are no tensors.
    """
    inner: Mapping[str, Any] = content
    for key in WRAPPERS:
        if isinstance(inner.get(key), Mapping):
            inner = inner[key]
            break
    state: State = {}
    for name, value in inner.items():
        if not isinstance(value, Tensor):
            continue
        short = str(name)
        while short.startswith(PREFIXES):
            short = short[short.index(".") + 1 :]
        if short.split(".")[-2:-1] != ["fc"]:
            state[short] = value.float() if value.is_floating_point() else value
    if not state:
        raise ExportError(f"{path} holds no tensors under any of the names {', '.join(WRAPPERS)}, nor by itself.")
    return state


def load_strictly(module: nn.Module, state: State, path: Path) -> None:
    """Load tensors into a module; keys and shapes must match exactly.

    Raises:
        ExportError: names the first missing and unexpected keys, the first wrong shape, or a key with NaN or infinity.
    """
    expected = module.state_dict()
    # Counters of batch normalisation: only some tools write them, and inference does not read them.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    if missing or unexpected:
        parts = [_named("missing", missing), _named("unexpected", unexpected)]
        raise ExportError(f"{path} is not a checkpoint of this network: {'; '.join(part for part in parts if part)}.")
    for key, value in expected.items():
        if key in state and state[key].shape != value.shape:
            raise ExportError(
                f"{path} is not a checkpoint of this network: {key} has shape {tuple(state[key].shape)}, "
                f"not {tuple(value.shape)}."
            )
        if key in state and not torch.isfinite(state[key].float()).all():
            raise ExportError(f"{path} is damaged: {key} holds NaN or infinity.")
    module.load_state_dict({key: state.get(key, value) for key, value in expected.items()})


def _named(kind: str, keys: list[str]) -> str:
    if not keys:
        return ""
    shown = ", ".join(keys[:5])
    return f"{len(keys)} {kind} ({shown}{', ...' if len(keys) > 5 else ''})"


def resolve(path: Path) -> Path:
    """Return the checkpoint file of a path, which may be a downloaded ModelScope folder."""
    return path / MODELSCOPE if path.is_dir() and (path / MODELSCOPE).is_file() else path


def refuse_v1(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse the first revision of the ModelScope model, whose coefficients belong to another face model.

    Raises:
        ExportError: the folder or the file is of that revision.
    """
    assets = [name for name in V1_ASSETS if (path.parent / name).is_file()]
    if assets or (path.name == MODELSCOPE and "mid_net" not in content):
        why = f"{assets[0]} stands beside it" if assets else "it has no 'mid_net'"
        raise ExportError(
            f"{path} is of the first revision of the ModelScope model ({why}), which uses another face model: "
            "download revision v2.0.0-HRN."
        )


def check_details(content: Mapping[str, Any], path: Path) -> dict[str, float]:
    """Check the tensors of HRN beside `net_recon`, and return its two scale factors for the sidecar.

    The networks for detail (`mid_net`, `high_net`) are not exported; their shapes show whether the file is complete.

    Raises:
        ExportError: `mid_net` or `high_net` has other input channels than published.
    """
    for name, channels in (("mid_net", 6), ("high_net", 9)):
        weight = content[name].get("model.1.weight") if isinstance(content.get(name), Mapping) else None
        if weight is not None and tuple(weight.shape[:2]) != (64, channels):
            raise ExportError(
                f"{path} is not an HRN checkpoint: {name}.model.1.weight has shape {tuple(weight.shape)}, "
                f"not (64, {channels}, 7, 7)."
            )
    return {name: float(content[name]) for name in ("alpha", "beta") if isinstance(content.get(name), Tensor)}


def refuse_zero_heads(heads: Iterable[nn.Module], path: Path) -> None:
    """Refuse weights whose heads are all zero, which is their initial value.

    Raises:
        ExportError: every weight and bias of every head is zero.
    """
    if all(torch.count_nonzero(value) == 0 for head in heads for value in head.parameters()):
        raise ExportError(f"{path} has heads that are all zero: these weights were never trained or never loaded.")
