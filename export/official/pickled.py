"""Read arrays from pickled files without running their code.

FLAME is published as a Python 2 pickle of chumpy and scipy objects. A pickle is a program; only the few functions that
rebuild NumPy arrays are allowed here, and objects of other classes become placeholders that hold their state.
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


class Placeholder:
    """Placeholder of an object whose class is not loaded; `state` is the object's pickled state."""

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
            return Placeholder
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1", "ascii", "utf-8"):
        raise pickle.UnpicklingError(f"it names the encoding {encoding}")
    return text.encode(encoding)


def _reconstructor(kind: Any, _base: Any, _state: Any) -> Placeholder:
    if kind is not Placeholder:
        raise pickle.UnpicklingError("it rebuilds an object of a class that is not allowed")
    return Placeholder()


def load(path: Path) -> Any:
    """Load a pickle with a `Placeholder` for every object that is no array.

    Raises:
        ExportError: the file is missing or damaged, or names a function that arrays do not need.
    """
    try:
        data = path.read_bytes()
    except OSError:
        raise ExportError(f"There is no file {path}: give the path of the file you downloaded.") from None
    return load_bytes(data, path)


def load_bytes(data: bytes, path: Path) -> Any:
    """Load a pickle as `load` does, from bytes; `path` is for the message."""
    try:
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle may raise any exception
        raise ExportError(f"{path} is refused: {error}. Take the file from its official source.") from None


def array(value: Any, name: str) -> NDArray[Any]:
    """Return the array of a value: itself, or the one in a chumpy object (its state's `x`).

    Raises:
        ExportError: the value holds no array.
    """
    while isinstance(value, Placeholder):
        state = value.state if isinstance(value.state, dict) else {}
        inner = state.get("x", state.get("a"))
        if inner is None:
            raise ExportError(f"'{name}' holds an object without an array in it.")
        value = inner
    return np.asarray(value)
