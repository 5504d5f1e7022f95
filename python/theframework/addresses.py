"""Addresses to listen on, as text and as values. No sockets are made here.

The forms of a ``bind`` are ``HOST:PORT``, ``:PORT`` (every IPv4 interface), ``[IPV6]:PORT`` and
``unix:PATH``. Port 0 asks the kernel for a free port.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

PORT_MAX = 65_535
# sockaddr_un.sun_path holds 108 bytes, the closing NUL among them.
UNIX_PATH_BYTES_MAX = 107


@dataclass(frozen=True)
class TcpAddress:
    """A host name or literal address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """What a person opens in a browser."""
        return f"http://{self}/"


@dataclass(frozen=True)
class UnixAddress:
    """The path of a unix stream socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"

    @property
    def url(self) -> str:
        """Unix sockets have no URL of their own: the same text as in the setting."""
        return str(self)


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """Turn one ``bind`` into an address. Raises `ValueError` with what is wrong with it."""
    if text.startswith("unix:"):
        return UnixAddress(_checked_path(text.removeprefix("unix:")))
    host, separator, port_text = text.rpartition(":")
    if not separator:
        raise ValueError(f"{text!r} has no port; write HOST:PORT, [IPV6]:PORT or unix:PATH")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r} is not clear; write an IPv6 address in brackets: [::1]:8000")
    if not (port_text.isascii() and port_text.isdigit() and int(port_text) <= PORT_MAX):
        raise ValueError(f"{port_text!r} is not a port from 0 to {PORT_MAX}")
    return TcpAddress(host or "0.0.0.0", int(port_text))  # noqa: S104 - asked for by ":PORT"


def _checked_path(path: str) -> str:
    if not path:
        raise ValueError("'unix:' needs a path: unix:/run/app.sock")
    if "\0" in path:
        raise ValueError("a socket path cannot hold a NUL")
    if len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
        raise ValueError(f"the socket path is longer than {UNIX_PATH_BYTES_MAX} bytes")
    return path
