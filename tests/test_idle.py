"""Ten thousand idle connections: what they cost, and that each of them is still served."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pytest

from tests.client import request
from tests.conftest import Start
from tests.server import Server

pytestmark = [pytest.mark.wire, pytest.mark.pace]

CONNECTIONS = 10_000
# DESIGN: user memory of an idle connection under the Python face, and resident memory with it.
LIVE_BYTES_MAX = 400
RESIDENT_BYTES_MAX = 512
ASKED = request("GET", "/", headers=("User-Agent: somebody",))


def live_bytes(server: Server) -> int:
    """Live bytes by the core's counting allocator."""
    return int(server.get("/allocations").json()[2])


def ask(connection: socket.socket) -> None:
    connection.sendall(ASKED)
    answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    assert answer.endswith(b"\r\n\r\nhello world"), answer


def test_idle_connections_cost_next_to_nothing(
    start: Start, descriptors: Callable[[int], None], measured: Callable[[str], None]
) -> None:
    descriptors(CONNECTIONS)
    small = start("--max-connections", "64")
    ask_once(small)
    at_rest, resident_at_rest = live_bytes(small), small.memory_kib() * 1024
    server = start("--max-connections", str(CONNECTIONS + 100))
    ask_once(server)
    before, resident_before = live_bytes(server), server.memory_kib() * 1024
    assert isinstance(server.address, tuple)
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(socket.create_connection(server.address, 10))
            ask(connection)
            connections.append(connection)
        live, resident = live_bytes(server), server.memory_kib() * 1024
        assert server.get("/stats").json()["connections"] == CONNECTIONS + 1
        for connection in connections:
            ask(connection)
    grown = max(live - before, live - at_rest) / CONNECTIONS
    resident_grown = max(resident - resident_before, resident - resident_at_rest) / CONNECTIONS
    measured(
        f"{CONNECTIONS:,} idle connections: {grown:.0f} live bytes each "
        f"({(live - before) / CONNECTIONS:.0f} as growth), {resident_grown:.0f} bytes resident"
    )
    assert grown <= LIVE_BYTES_MAX
    assert resident_grown <= RESIDENT_BYTES_MAX


def ask_once(server: Server) -> None:
    """Whatever is made at the first request is made."""
    assert server.get("/").body == b"hello world"
