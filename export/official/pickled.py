"""Read arrays out of pickled files without running what is in them.

FLAME is published as a Python 2 pickle of chumpy and scipy objects. A pickle is a program; here only the few
instructions that rebuild NumPy arrays are let through, every other class becomes an inert box that keeps its state.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError

_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy._core.multiarray", "_reconstruct"): np.core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy.core.multiarray", "scalar"): np.core.multiarray.scalar,  # type: ignore[attr-defined]
    ("numpy._core.multiarray", "scalar"): np.core.multiarray.scalar,  # type: ignore[attr-defined]
}


class Box:
    """Stands for an object of a class that is not loaded; `state` is what the pickle would have given it."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if (module, name) in {("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")}:
            return _reconstructor
        if module.split(".")[0] in ("chumpy", "scipy") or (module, name) in {
            ("__builtin__", "object"),
            ("builtins", "object"),
        }:
            return Box
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1", "ascii", "utf-8"):
        raise pickle.UnpicklingError(f"it names the encoding {encoding}")
    return text.encode(encoding)


def _reconstructor(kind: Any, _base: Any, _state: Any) -> Box:
    if kind is not Box:
        raise pickle.UnpicklingError("it rebuilds an object of a class that is not allowed")
    return Box()


def load(path: Path) -> Any:
    """The content of a pickle with every foreign object as a `Box`.

    Raises:
        ExportError: no such file, damaged, or it names something that arrays do not need.
    """
    try:
        data = path.read_bytes()
    except OSError:
        raise ExportError(f"There is no file {path}: give the path of the file you downloaded.") from None
    return load_bytes(data, path)


def load_bytes(data: bytes, path: Path) -> Any:
    """As `load`, for a pickle inside another file; `path` is for the message."""
    try:
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises whatever its last instruction does
        raise ExportError(f"{path} is refused: {error}. Take the file from its official source.") from None


def array(value: Any, name: str) -> NDArray[Any]:
    """The array inside a value: itself, or what a chumpy object wraps (its state's `x`).

    Raises:
        ExportError: there is none.
    """
    while isinstance(value, Box):
        state = value.state if isinstance(value.state, dict) else {}
        inner = state.get("x", state.get("a"))
        if inner is None:
            raise ExportError(f"'{name}' holds an object without an array in it.")
        value = inner
    return np.asarray(value)
