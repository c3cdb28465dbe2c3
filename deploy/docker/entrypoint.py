"""The containers' entry point: secrets from files, a server that is closed by default, and its health.

Reads the admin key from the file FACE3D_ADMIN_KEY_FILE names (a Docker or Kubernetes secret). Without one, a random key
is made that nobody knows, so that the interfaces that change the server are closed and not open. The server then takes
the place of this process, so that it gets the signals.

FACE3D_TRACE_URL turns tracing on: spans go there as OpenTelemetry (OTLP over HTTP), one request in FACE3D_TRACE_RATE
(1000 unless it says otherwise).
"""

from __future__ import annotations

import os
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

_KEY, _KEY_FILE = "FACE3D_ADMIN_KEY", "FACE3D_ADMIN_KEY_FILE"
# Commas and colons separate the words of Triton's option; short keys can be guessed.
_SHORTEST = 16


class BadSecret(Exception):
    """The key's file cannot be used."""


def admin_key(environment: Mapping[str, str]) -> str:
    """Return the key from the file, from the variable, or a random one.

    Raises:
        BadSecret: the file is missing, or what it holds is no key; the key is never in the message.
    """
    if name := environment.get(_KEY_FILE):
        try:
            key = Path(name).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise BadSecret(f"the admin key's file {name} cannot be read: {error.strerror}.") from None
    else:
        key = environment.get(_KEY) or secrets.token_urlsafe(32)
    if len(key) < _SHORTEST or not all(letter.isalnum() or letter in "-_" for letter in key):
        raise BadSecret(f"the admin key needs {_SHORTEST} or more letters, digits, '-' and '_': openssl rand -hex 32.")
    return key


def trace_arguments(environment: Mapping[str, str]) -> list[str]:
    """Return the words for tritonserver that send spans to FACE3D_TRACE_URL; none when it is not set."""
    url = environment.get("FACE3D_TRACE_URL")
    if not url:
        return []
    settings = (
        "mode=opentelemetry",
        f"opentelemetry,url={url}",
        "opentelemetry,resource=service.name=face3d",
        f"rate={int(environment.get('FACE3D_TRACE_RATE', '1000'))}",
        # The only level there is in this mode: times, no tensors.
        "level=TIMESTAMPS",
    )
    return [f"--trace-config={setting}" for setting in settings]


def healthy(environment: Mapping[str, str]) -> bool:
    """Return whether the supervisor's last probe was answered."""
    port = environment.get("FACE3D_SUPERVISOR_PORT", "8003")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/healthz", timeout=4) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def main(arguments: Sequence[str]) -> int:
    """Become the server; ``--healthy``: status 0 when it is well."""
    if list(arguments) == ["--healthy"]:
        return 0 if healthy(os.environ) else 1
    for name in [name for name, value in os.environ.items() if name.startswith("FACE3D_") and not value]:
        del os.environ[name]  # compose and Kubernetes cannot leave a variable out, only empty
    try:
        os.environ[_KEY] = admin_key(os.environ)
    except BadSecret as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    traced = trace_arguments(os.environ)
    command = [sys.executable, "-m", "server", *arguments, *(["--", *traced] if traced else [])]
    return os.execv(command[0], command)  # does not come back


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
