"""Reads Triton's log: which models are up, and what went wrong in the words of whoever knew it."""

from __future__ import annotations

import re

_LOADED = re.compile(r"successfully loaded '([^']+)'")
_FAILED = re.compile(r"failed to load '([^']+)' version (\d+): (.*)")
_POLL = re.compile(r"(?:Poll failed for model directory|failed to load model) '([^']+)': (.*)")
_INVALID = re.compile(r"Invalid argument: (.*)")
_IN_USE = re.compile(r"already in use|Address already in use")
# What is put before the reason on its way up: "Internal: ", "Invalid argument: ", "TritonModelException: ", a
# traceback's "At: /path(12): initialize".
_CODE = re.compile(r"^(?:Internal|Invalid argument|Unavailable|Unsupported|Not found|Unknown)\s*(?:-|:)\s*")
_LOAD = re.compile(r"^load failed for model '[^']+': (?:version \d+ is at UNAVAILABLE state: )?")
_CLASS = re.compile(r"^(?:[A-Za-z_.]*(?:Exception|Error)):\s*")
_TRACE = re.compile(r"\s*(?:\\n|\n)*\s*At:(?:\\n|\s).*$", re.DOTALL)
# Said at every start, and at every load of an ensemble, on a machine without a GPU.
_NO_GPU = re.compile(
    r"CUDA driver version is insufficient|CudaDriverHelper has not been initialized|no pinned memory pool"
)
_CONSENT = re.compile(r"^I\d{4} [\d:.]+ \d+ [\w./-]+:\d+\] \"?fusion: signed ")
_PREFIX = re.compile(r"^[IWE]\d{4} [\d:.]+ \d+ [\w./-]+:\d+\] ")


def loaded_models(log: str) -> set[str]:
    """Find the names of the models that Triton says it has loaded."""
    return set(_LOADED.findall(log))


def port_in_use(log: str) -> bool:
    """Return whether the server ended because an address was taken."""
    return bool(_IN_USE.search(log))


def failures(log: str) -> dict[str, str]:
    """Find why models did not load, by name, cleaned of codes, exception classes and tracebacks."""
    found: dict[str, str] = {}
    lines = log.splitlines()
    for index, line in enumerate(lines):
        match = _FAILED.search(line)
        name, reason = (match[1], match[3]) if match else ("", "")
        if not match and (match := _POLL.search(line)):
            name, reason = match[1], match[2]
        if name:
            rest = []
            for following in lines[index + 1 :]:
                if _PREFIX.match(following):
                    break
                rest.append(following)
            found.setdefault(name, clean("\n".join([reason, *rest])))
    return found


def clean(reason: str) -> str:
    """Extract the line of reason out of what Triton wraps around it."""
    text = _TRACE.sub("", reason.strip()).strip().strip('"')
    previous = None
    while previous != text:
        previous = text
        text = _CLASS.sub("", _CODE.sub("", _LOAD.sub("", text)))
    return " ".join(text.split()).removesuffix(" ;").removesuffix(";").strip()


def is_trouble(line: str) -> bool:
    """Return whether a line is a warning or an error that means something on a machine without a GPU."""
    return bool(re.match(r"^[WE]\d{4} ", line)) and not _NO_GPU.search(line)


def is_consent(line: str) -> bool:
    """Return whether a line says by whose word a fused picture was made, as the model `fusion` writes it."""
    return _CONSENT.match(line) is not None


def last_error(log: str) -> str:
    """Find the last error line of the log without its prefix, or the last line that says anything, or ''.

    A command line that Triton does not understand is answered with several pages of help, with the complaint before or
    after them.
    """
    lines = [line for line in log.splitlines() if line.strip()]
    if "Usage: tritonserver [options]" in lines:
        complaints = [
            line for line in (lines[0], lines[-1]) if line.startswith(("tritonserver", "/", "Bad", "Invalid"))
        ]
        return f"it does not understand its options: {complaints[0].split('tritonserver: ')[-1] if complaints else '?'}"
    errors = [line for line in lines if is_trouble(line) and line.startswith("E")]
    line = (errors or lines or [""])[-1]
    return clean(_PREFIX.sub("", line))
