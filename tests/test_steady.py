"""Steady state, counted and not timed: Rust allocates nothing, and system calls are few.

On io_uring a turn is one system call. On poll a request is a receive, a send and its share of a
wait.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client import request
from tests.conftest import Start
from tests.load import Exchange, Plan, run
from tests.server import Server, wait_for

pytestmark = [pytest.mark.wire, pytest.mark.pace]

REQUESTS = 100_000
# A peak that was not there before makes pools grow, by what one more connection needs at once:
# there are only so many. If requests allocate, no run is without.
RUNS_MAX = 8
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

    def spent(requests: int) -> int:
        plans = [Plan([exchange] * (requests // connections), depth) for _ in range(connections)]
        before = allocations(server)
        run(server.address, plans)
        return allocations(server) - before

    # Every pool grows to its largest: all connections ask while the worker computes.
    spin = Exchange(request("GET", "/spin/0.1"), 200, b"spun")
    everybody = [Plan([exchange] * 20, depth) for _ in range(connections)]
    run(server.address, [Plan([spin] * 3), *everybody])
    spent(REQUESTS // 2)
    counts = []
    while len(counts) < RUNS_MAX and not (counts and abs(counts[-1]) <= REQUESTS / 2 / 10_000):
        # Connections may cost a little, requests may not: what the second half adds is theirs.
        half = spent(REQUESTS // 2)
        counts.append(spent(REQUESTS) - half)
    measured(
        f"Rust allocations that {REQUESTS // 2:,} more requests over {connections} connections "
        f"make ({len(exchange.sent)} bytes each), until no pool grew: {str(counts)[1:-1]}"
    )
    assert abs(counts[-1]) <= REQUESTS / 2 / 10_000


def calls_during(
    server: Server, load: Callable[[], object], where: Path
) -> tuple[Counter[str], int]:
    """The system calls and the turns of the worker while `load` runs."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    command = [strace, "-f", "-qq", "-o", str(where), "-p", str(server.workers()[0])]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        status = Path(f"/proc/{server.workers()[0]}/status")
        wait_for(lambda: f"TracerPid:\t{tracer.pid}\n" in status.read_text(), "strace is attached")
        # Traced, the worker is slower and its batches are larger: every pool grows to that first.
        load()
        with server.client() as client:
            first_turn = client.get("/stats").json()["turns"]
            before = len(where.read_text().splitlines())
            load()
            turns = client.get("/stats").json()["turns"] - first_turn
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
    lines = where.read_text().splitlines()[before:]
    names = (
        re.match(r"\d+ +(?:<\.\.\. )?(\w+)[ (]", line) for line in lines if "resumed>" not in line
    )
    return Counter(found[1] for found in names if found), turns


@pytest.mark.parametrize("exchange", [HELLO, TYPICAL], ids=["hello", "typical"])
@pytest.mark.parametrize("connections", [1, 64])
def test_system_calls_per_request(
    start: Start,
    driver: str,
    exchange: Exchange,
    connections: int,
    tmp_path: Path,
    measured: Callable[[str], None],
) -> None:
    """No mapping and no `brk`, and nothing but what the driver has to ask of the kernel."""
    server = start()
    requests = 6400
    plans = [Plan([exchange] * (requests // connections)) for _ in range(connections)]
    run(server.address, plans)
    for _ in range(2):
        calls, turns = calls_during(server, lambda: run(server.address, plans), tmp_path / "calls")
        measured(
            f"system calls in {requests:,} requests over {connections} connections "
            f"({len(exchange.sent)} bytes each) on {driver}: {dict(calls)} in {turns} turns"
        )
        # Once in ten seconds the heap's free memory is given back, and the time of that is taken,
        # whatever the requests are: not twice within one second or two.
        if calls["clock_gettime"] == 0:
            break
    assert calls["mmap"] == calls["brk"] == calls["munmap"] == 0
    # Accepting, registering, shutting and closing a connection; its first and its last request.
    extra = 4 * (connections + 2)
    if driver == "io_uring":
        waits = calls.pop("io_uring_enter")
    else:
        waits = calls.pop("epoll_wait", 0) + calls.pop("epoll_pwait", 0)
        assert calls.pop("recvfrom") <= requests + extra
        assert calls.pop("sendto", 0) + calls.pop("sendmsg", 0) <= requests + extra
    assert sum(calls.values()) <= extra
    # A look at readiness is a system call of its own, before the wait that may follow it.
    most = 1 if driver == "io_uring" else 2
    # The two are read at moments that are a turn apart.
    assert waits <= most * turns + 2
    assert waits <= most * requests + extra
