"""In steady state the Rust part allocates nothing for a request: counted, not timed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.client import request
from tests.conftest import Start
from tests.load import Exchange, Plan, run
from tests.server import Server

REQUESTS = 20_000
BROWSER_HEADERS = (
    *(f"X-Header-{number}: value {number}" for number in range(17)),
    "User-Agent: a browser",
    "Accept: */*",
    "Cookie: a=b; c=d",
)
TYPICAL = Exchange(
    request("POST", "/typical?page=7", b"x" * 300, BROWSER_HEADERS),
    200,
    b'{"agent": "a browser", "page": "7", "bytes": 300}',
)
HELLO = Exchange(request("GET", "/"), 200, b"hello world")


def allocations(server: Server) -> int:
    return int(server.get("/allocations").json()[0])


@pytest.mark.parametrize("exchange", [HELLO, TYPICAL], ids=["hello", "typical"])
@pytest.mark.parametrize("connections", [1, 64, 1000])
def test_no_allocation_per_request(
    start: Start, exchange: Exchange, connections: int, measured: Callable[[str], None]
) -> None:
    server = start()
    depth = 8 if connections == 1 else 1
    plans = [Plan([exchange] * (REQUESTS // connections), depth) for _ in range(connections)]
    run(server.address, plans)
    before = allocations(server)
    run(server.address, plans)
    count = allocations(server) - before
    measured(
        f"Rust allocations in {REQUESTS:,} requests over {connections} connections "
        f"({len(exchange.sent)} bytes each): {count}"
    )
    # Connections, and the two requests that count, may cost a little; requests may not.
    assert count < REQUESTS / 1000 + connections * 8
