"""Listening sockets: made once by the supervisor, inherited by the workers.

By default all workers share the sockets. With ``reuse_port`` each worker has TCP sockets of its
own; the supervisor makes and keeps these too, so that connections queued for a worker that died
are there for its successor. A unix socket is always shared, and its file is removed at the end.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from theframework.addresses import Address, TcpAddress, UnixAddress
from theframework.errors import StartError
from theframework.log import logger

_SOMAXCONN = "/proc/sys/net/core/somaxconn"
_INT_MAX = (1 << 31) - 1
_UNSENT_MAX = 128 << 10
_IPV4_ANY = "0.0.0.0"  # noqa: S104 - compared with, not bound to


@dataclass
class Listener:
    """One address with its sockets: one that all workers share, or one per worker."""

    address: Address
    sockets: list[socket.socket]
    # Device and inode of a unix socket's file: only our own is ever removed.
    file_id: tuple[int, int] | None = None

    def socket_of(self, worker: int) -> socket.socket:
        """The socket that `worker` accepts from."""
        return self.sockets[worker % len(self.sockets)]

    def close(self) -> None:
        """Close the sockets of this process; others that inherited them keep theirs."""
        for sock in self.sockets:
            sock.close()

    def remove_file(self) -> None:
        """Remove the file of a unix socket, unless another server has put its own there."""
        if not isinstance(self.address, UnixAddress) or self.file_id is None:
            return
        try:
            if _file_id(self.address.path) == self.file_id:
                os.unlink(self.address.path)
        except FileNotFoundError:
            pass
        self.file_id = None


def open_listeners(
    addresses: Sequence[Address],
    *,
    backlog: int,
    reuse_port: bool,
    workers: int,
    write_timeout: float = 0.0,
) -> list[Listener]:
    """Listen on all of `addresses`, or on none and raise `StartError`."""
    _warn_about_somaxconn(backlog)
    opened: list[Listener] = []
    try:
        for address in addresses:
            if isinstance(address, UnixAddress):
                opened.append(_open_unix(address, backlog))
            else:
                count = workers if reuse_port else 1
                only_v6 = _has_ipv4_twin(address, addresses)
                options = (reuse_port, only_v6, write_timeout)
                opened.append(_open_tcp(address, backlog, count, *options))
    except BaseException:
        for listener in opened:
            listener.close()
            listener.remove_file()
        raise
    return opened


def _limit_untaken(sock: socket.socket, write_timeout: float) -> None:
    """Limit what the kernel holds for a peer that takes little or nothing.

    Accepted sockets inherit both, at no cost. At most `_UNSENT_MAX` bytes wait in it to be sent: it
    would take four megabytes of a response, and cut them into packets as small as a hostile peer
    likes, which hold four times their bytes. And it drops what is not taken for as long as
    `write_timeout`: without that it goes on trying to deliver for minutes after our own close.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_MAX)
    if write_timeout > 0:
        milliseconds = min(max(round(write_timeout * 1000), 1), _INT_MAX)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def somaxconn() -> int | None:
    """The system's cap on backlogs, if it can be read."""
    try:
        with open(_SOMAXCONN, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _warn_about_somaxconn(backlog: int) -> None:
    cap = somaxconn()
    if cap is not None and backlog > cap:
        logger.warning(
            "backlog %d is above net.core.somaxconn, so the kernel queues at most %d connections",
            backlog,
            cap,
        )


def _has_ipv4_twin(address: TcpAddress, addresses: Sequence[Address]) -> bool:
    """Whether an IPv6 wildcard must leave IPv4 to another listener on the same port."""
    return address.host == "::" and TcpAddress(_IPV4_ANY, address.port) in addresses


def _open_tcp(
    address: TcpAddress,
    backlog: int,
    count: int,
    reuse_port: bool,
    only_v6: bool,
    write_timeout: float,
) -> Listener:
    family, resolved = _resolve(address)
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted sockets inherit it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _limit_untaken(sock, write_timeout)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
            sock.setblocking(False)
            sock.bind(resolved)
            # The first bind chose the port if it was 0; the others follow it.
            resolved = sock.getsockname()
            sock.listen(backlog)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise _refusal(address, error) from None
    return Listener(TcpAddress(address.host, resolved[1]), sockets)


def _resolve(address: TcpAddress) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Family and socket address of a host; of a name with both, the IPv4 address."""
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise StartError(f"the host {address.host!r} cannot be resolved: {error}") from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    family, _, _, _, resolved = found[0]
    return family, resolved  # type: ignore[return-value]  # IPv6 has two more fields


def _open_unix(address: UnixAddress, backlog: int) -> Listener:
    _remove_stale(address)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(address.path)
        sock.listen(backlog)
        return Listener(address, [sock], _file_id(address.path))
    except OSError as error:
        sock.close()
        raise _refusal(address, error) from None


def _remove_stale(address: UnixAddress) -> None:
    """Remove the socket file of a server that died; refuse to take over anything else."""
    try:
        mode = os.stat(address.path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refusal(address, error) from None
    if not stat.S_ISSOCK(mode):
        raise StartError(f"{address.path} exists and is not a socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A live server with a full backlog answers EAGAIN here rather than making us wait.
        probe.setblocking(False)
        answer = probe.connect_ex(address.path)
    if answer != errno.ECONNREFUSED:
        raise StartError(f"{address} is already in use by a running server")
    os.unlink(address.path)


def _refusal(address: Address, error: OSError) -> StartError:
    if error.errno == errno.EADDRINUSE:
        return StartError(
            f"{address} is already in use; stop the program that listens there or choose "
            "another address"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return StartError(f"cannot listen on {address}: this machine has no such address")
    if error.errno == errno.EACCES and isinstance(address, TcpAddress):
        return StartError(
            f"cannot listen on {address}: permission denied; ports below "
            "net.ipv4.ip_unprivileged_port_start need root or CAP_NET_BIND_SERVICE"
        )
    return StartError(f"cannot listen on {address}: {error.strerror or error}")


def _file_id(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
