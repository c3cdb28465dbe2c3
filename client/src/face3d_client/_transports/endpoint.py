"""A server's address: URL, TLS files, headers."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from face3d_client._errors import BadEndpoint
from face3d_client._text import printable

__all__ = ["TLS", "Endpoint", "Protocol"]

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
_LONGEST_ADDRESS: Final = 2000  # characters; a host name has 253 at most
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?")
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")  # RFC 3986, 3.3
# Of RFC 9110, 5.1 and 5.5, what gRPC metadata may hold too; a line break here would write headers of its own.
_HEADER_NAME: Final = re.compile(r"[a-z0-9_.-]{1,200}")
_HEADER_VALUE: Final = re.compile(r"[ -~]{0,8000}")


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
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # tokens and keys are among them

    @property
    def address(self) -> str:
        """``host:port``, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine, by its name or address."""
        if self.host.lower().rstrip(".") == "localhost" or self.host.lower().endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

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
        """Read ``[scheme://]host[:port][/path]``. No message repeats a password, token or key.

        Args:
            url: scheme one of grpc, grpcs, http, https. None: environment variable FACE3D_URL, else localhost.
            protocol: needed only where the URL has no scheme; None there means gRPC.
            tls: None: as the scheme says.
            token: sent as ``authorization: Bearer TOKEN``.
            headers: further HTTP headers or gRPC metadata.
            admin_key: sent as Triton wants the key of what is closed to others.

        Raises:
            BadEndpoint (a ValueError): the URL cannot be read, or contradicts `protocol` or `tls`; the token or a
                header has characters that cannot be sent.
        """
        if protocol not in (None, "grpc", "http"):
            raise BadEndpoint(f"protocol is 'grpc' or 'http', not {protocol!r}")
        full = url or os.environ.get("FACE3D_URL") or "localhost"
        if not isinstance(full, str):
            raise BadEndpoint(f"an address is a text such as 'localhost:8001', not {type(full).__name__}")
        text = _without_secrets(full)
        scheme, separator, rest = full.partition("://")
        secure = False
        if separator:
            if scheme not in _SCHEMES:
                raise BadEndpoint(f"{text!r}: the scheme is one of {', '.join(_SCHEMES)}")
            implied, secure = _SCHEMES[scheme]
            if protocol not in (None, implied):
                raise BadEndpoint(f"{text!r} means {implied}, but protocol={protocol!r} was asked for")
            protocol = implied
        else:
            rest = full
        if tls is False and secure:
            raise BadEndpoint(f"{text!r} means TLS, but tls=False was asked for")
        kind: Protocol = protocol or "grpc"
        host, port, path = _split(rest, text, kind)
        if path and kind == "grpc":
            raise BadEndpoint(f"{text!r}: a gRPC address has no path")
        files = tls if isinstance(tls, TLS) else (TLS() if tls or secure else None)
        return cls(kind, host, port, path, files, _headers(kind, token, headers, admin_key))


def _headers(
    kind: Protocol, token: str | None, headers: Mapping[str, str] | None, admin_key: str | None
) -> dict[str, str]:
    """Collect and check the headers of every call."""
    # gRPC takes lower-case metadata keys only; HTTP does not care.
    every: dict[str, Any] = {str(name).lower(): value for name, value in (headers or {}).items()}
    if token is not None:
        every["authorization"] = f"Bearer {token}"
    if admin_key is not None:
        every[_ADMIN_KEY[kind]] = admin_key
    for name, value in every.items():
        if not _HEADER_NAME.fullmatch(name):
            raise BadEndpoint(f"{printable(name, 60)!r} cannot be the name of a header: use letters, digits and '-'.")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            what = "the token" if name == "authorization" and token is not None else f"the value of header {name!r}"
            raise BadEndpoint(f"{what} holds characters that cannot be sent (a line break?). Use one line of ASCII.")
    return every


def _without_secrets(full: str) -> str:
    """Write the address as messages show it, without what may be a user's name, a password or a key."""
    start = full[:_LONGEST_ADDRESS]
    scheme, separator, rest = start.partition("://")
    if not separator:
        scheme, rest = "", start
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    if "@" in rest:
        rest = "***@" + rest.rpartition("@")[2]
    return printable(scheme + separator + rest, 200)


def _split(rest: str, text: str, kind: Protocol) -> tuple[str, int, str]:
    """Split what follows the scheme into host, port and path; `text` is the whole address for messages."""
    if len(rest) > _LONGEST_ADDRESS:
        raise BadEndpoint(f"{text!r}: an address has at most {_LONGEST_ADDRESS} characters")
    if "@" in rest:
        raise BadEndpoint(f"{text!r}: an address holds no user name or password. Give a token instead (token=...)")
    if "?" in rest or "#" in rest:
        raise BadEndpoint(f"{text!r}: an address ends with its path. Leave out what follows '?' or '#'")
    address, slash, tail = rest.partition("/")
    path = (slash + tail).rstrip("/")
    if address.startswith("["):
        host, bracket, after = address[1:].partition("]")
        port_text = after.removeprefix(":")
        good = bracket == "]" and after in ("", f":{port_text}") and _is_ipv6(host)
    else:
        host, _, port_text = address.partition(":")
        host = _ascii(host)
        good = _HOST.fullmatch(host) is not None
    if port_text:
        good = good and re.fullmatch(r"[0-9]{1,5}", port_text) is not None and 0 < int(port_text) < 65536
    if not good or not _PATH.fullmatch(path):
        raise BadEndpoint(f"{text!r} is not an address; expected something like 'localhost:{_DEFAULT_PORT[kind]}'")
    return host, int(port_text) if port_text else _DEFAULT_PORT[kind], path


def _ascii(host: str) -> str:
    """Encode a name with letters beyond ASCII by IDNA; return it as it is where that cannot be."""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
