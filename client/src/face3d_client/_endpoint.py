"""Where the server is and how to get there: URL, TLS, headers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

__all__ = ["TLS", "WHAT_TO_CHECK", "Endpoint", "Protocol"]

Protocol: TypeAlias = Literal["grpc", "http"]

_SCHEMES: Final[dict[str, tuple[Protocol, bool]]] = {
    "grpc": ("grpc", False),
    "grpcs": ("grpc", True),
    "http": ("http", False),
    "https": ("http", True),
}
# Names that `python -m server` gives to Triton, the prefix of gRPC being Triton's own.
_ADMIN_KEY: Final[dict[Protocol, str]] = {"grpc": "triton-grpc-protocol-admin-key", "http": "admin-key"}
_DEFAULT_PORT: Final[dict[Protocol, int]] = {"grpc": 8001, "http": 8000}

WHAT_TO_CHECK: Final = (
    "Start one (python -m server) or check the address (gRPC: HOST:8001, HTTP: http://HOST:8000; grpcs:// and https:// "
    "where the server has TLS)."
)
"""Ends the sentence of an error about a server that does not answer."""


@dataclass(frozen=True)
class TLS:
    """Files for an encrypted connection; None means default.

    Attributes:
        ca: PEM file of the authorities to trust. Default: the system's.
        cert: PEM file of this client's certificate chain, for mutual TLS.
        key: PEM file of this client's private key, for mutual TLS.
    """

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together: give both or neither")
        for name in ("ca", "cert", "key"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise FileNotFoundError(f"{name}: no such file: {os.fspath(path)}")


@dataclass(frozen=True)
class Endpoint:
    """A server's address with everything needed to connect to it."""

    protocol: Protocol
    host: str
    port: int
    path: str = ""
    tls: TLS | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """``host:port``, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        scheme = self.protocol + ("s" if self.tls else "")
        return f"{scheme}://{self.address}{self.path}"

    @classmethod
    def parse(
        cls,
        url: str | None,
        protocol: Protocol | None,
        tls: TLS | bool | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        admin_key: str | None = None,
    ) -> Endpoint:
        """Read ``[scheme://]host[:port][/path]``.

        Args:
            url: scheme one of grpc, grpcs, http, https. None: environment variable FACE3D_URL, else localhost.
            protocol: needed only where the URL has no scheme; None there means gRPC.
            tls: None: as the scheme says.
            token: sent as ``authorization: Bearer TOKEN``.
            headers: further HTTP headers or gRPC metadata.
            admin_key: sent as Triton wants the key of what is closed to others.

        Raises:
            ValueError: the URL cannot be read, or contradicts `protocol` or `tls`.
        """
        if protocol not in (None, "grpc", "http"):
            raise ValueError(f"protocol is 'grpc' or 'http', not {protocol!r}")
        text = url or os.environ.get("FACE3D_URL") or "localhost"
        scheme, separator, rest = text.partition("://")
        secure = False
        if separator:
            if scheme not in _SCHEMES:
                raise ValueError(f"{text!r}: the scheme is one of {', '.join(_SCHEMES)}, not {scheme!r}")
            implied, secure = _SCHEMES[scheme]
            if protocol not in (None, implied):
                raise ValueError(f"{text!r} means {implied}, but protocol={protocol!r} was asked for")
            protocol = implied
        else:
            rest = text
        if tls is False and secure:
            raise ValueError(f"{text!r} means TLS, but tls=False was asked for")
        kind: Protocol = protocol or "grpc"
        host, port, path = _split(rest, text, kind)
        if path and kind == "grpc":
            raise ValueError(f"{text!r}: a gRPC address has no path")
        files = tls if isinstance(tls, TLS) else (TLS() if tls or secure else None)
        # gRPC takes lower-case metadata keys only; HTTP does not care.
        all_headers = {name.lower(): value for name, value in (headers or {}).items()}
        if token is not None:
            all_headers["authorization"] = f"Bearer {token}"
        if admin_key is not None:
            all_headers[_ADMIN_KEY[kind]] = admin_key
        return cls(kind, host, port, path, files, all_headers)


def _split(rest: str, text: str, kind: Protocol) -> tuple[str, int, str]:
    address, slash, tail = rest.partition("/")
    path = (slash + tail).rstrip("/")
    if address.startswith("["):
        host, _, after = address[1:].partition("]")
        port_text = after.removeprefix(":")
    else:
        host, _, port_text = address.partition(":")
    if not host or (port_text and not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65536)):
        raise ValueError(f"{text!r} is not an address; expected something like 'localhost:{_DEFAULT_PORT[kind]}'")
    return host, int(port_text) if port_text else _DEFAULT_PORT[kind], path
