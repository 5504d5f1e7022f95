"""Many connections, mixed sizes, errors and resets: every response is checked."""

from __future__ import annotations

import random
import re
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.client import page, request
from tests.conftest import Start
from tests.load import Exchange, Plan, run
from tests.server import Server

HELLO = Exchange(request("GET", "/"), 200, b"hello world")
FAILED = Exchange(request("GET", "/nowhere"), 404, b"404 Not Found\n")


def user(number: int) -> Exchange:
    return Exchange(request("GET", f"/users/{number}"), 200, b"user %d" % number)


def echo(body: bytes) -> Exchange:
    return Exchange(request("POST", "/echo", body), 200, body)


@pytest.mark.parametrize(("connections", "depth"), [(1, 1), (50, 1), (50, 16), (1000, 1)])
def test_each_connection_gets_its_hundred_answers(
    server: Server, connections: int, depth: int, measured: Callable[[str], None]
) -> None:
    plans = [
        Plan([user(index * 1000 + number) for number in range(100)], depth)
        for index in range(connections)
    ]
    result = run(server.address, plans)
    assert result.answered == connections * 100
    measured(
        f"{connections} connections x 100 requests, {depth} in a pipeline: "
        f"{result.rate:,.0f} requests/s with a Python client"
    )


def test_small_and_large_bodies_alternate(server: Server) -> None:
    rng = random.Random(1)
    plans = []
    for _ in range(30):
        sizes = [rng.choice((0, 1, 100, 4_000, 5_000, 20_000, 100_000, 400_000)) for _ in range(12)]
        plans.append(Plan([echo(rng.randbytes(size)) for size in sizes], rng.choice((1, 3))))
    assert run(server.address, plans).answered == 30 * 12


def test_pipelines_errors_and_sleepers_mixed(server: Server) -> None:
    rng = random.Random(2)
    sleeper = Exchange(request("GET", "/sleep/0.002"), 200, b"slept")
    kinds = [HELLO, FAILED, sleeper, user(1), user(22), echo(b"small"), echo(b"x" * 30_000)]
    plans = [
        Plan([rng.choice(kinds) for _ in range(60)], rng.choice((1, 2, 7, 16))) for _ in range(64)
    ]
    assert run(server.address, plans).answered == 64 * 60


def test_clients_that_reset_in_the_middle(server: Server) -> None:
    rng = random.Random(3)
    large = Exchange(request("GET", "/large/1048576"), 200, b"0123456789abcdef" * 65_536)
    plans = []
    for index in range(200):
        exchanges = [rng.choice((HELLO, user(7), large, echo(b"y" * 50_000))) for _ in range(20)]
        reset_after = rng.randrange(1, 300_000) if index % 2 else None
        plans.append(Plan(exchanges[: 20 if reset_after else 5], 4, reset_after))
    run(server.address, plans)
    assert server.get("/").whole() == page("hello world")


def test_connections_that_come_and_go(server: Server) -> None:
    for _ in range(1000):
        with server.client() as client:
            client.send(request("GET", "/"))
    assert server.get("/").whole() == page("hello world")


def test_memory_does_not_grow_from_burst_to_burst(
    start: Start, measured: Callable[[str], None]
) -> None:
    server = start()
    sizes = []
    for _ in range(6):
        run(server.address, [Plan([echo(b"z" * 200_000)] * 3, 2) for _ in range(100)])
        run(server.address, [Plan([HELLO] * 200, 16) for _ in range(20)])
        sizes.append(server.memory_kib())
    measured(f"private memory after each burst of 100 x 200 KB: {sizes} KiB")
    # A burst brings 60 MB. How many bodies are there at once is chance, and so is the peak.
    assert sizes[-1] - sizes[1] <= 16 * 1024


def wrk(path: str, server: Server, *options: str) -> str:
    host, port = server.address
    url = f"http://{host}:{port}/"
    output = subprocess.run(
        [path, *options, url], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert "Socket errors" not in output, output
    assert "Non-2xx" not in output, output
    return output


def test_wrk_with_two_thousand_connections(
    start: Start, program: Callable[[str], str], measured: Callable[[str], None]
) -> None:
    server = start(app="examples.hello:app")
    output = wrk(program("wrk"), server, "-c", "2000", "-t", "8", "-d", "5s", "--timeout", "10s")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert rate, output
    measured(f"wrk with 2,000 connections: {float(rate[1]):,.0f} requests/s")
    assert server.get("/").whole() == page("hello world")


@pytest.mark.long
def test_what_a_burst_took_is_given_back_under_load(
    start: Start, measured: Callable[[str], None]
) -> None:
    """The worker is never idle behind the burst; each ten seconds it gives its heap back."""
    server = start("--workers", "1")
    hello = [Plan([HELLO] * 200)]
    run(server.address, hello)
    before = server.memory_kib()
    held = [Exchange(request("POST", "/echo-late", b"z" * 500_000), 200, b"500000")]
    run(server.address, [Plan(held) for _ in range(100)])
    after = server.memory_kib()
    deadline = time.monotonic() + 25
    while time.monotonic() < deadline and server.memory_kib() > before + 8 * 1024:
        run(server.address, hello)
    last = server.memory_kib()
    measured(
        f"private memory before a burst of 100 x 500 KB, behind it, and under load at last: "
        f"{before:,}, {after:,}, {last:,} KiB"
    )
    assert after - before > 32 * 1024
    assert last - before <= 8 * 1024


@pytest.mark.long
def test_ancestors_crash_is_gone(
    start: Start, program: Callable[[str], str], measured: Callable[[str], None]
) -> None:
    """Three runs of the load that crashed the ancestor; memory stays where the first left it."""
    server = start(app="examples.hello:app")
    sizes = []
    for _ in range(3):
        wrk(program("wrk"), server, "-c", "2000", "-t", "8", "-d", "30s", "--timeout", "10s")
        time.sleep(1)
        sizes.append(server.memory_kib())
        assert server.get("/").whole() == page("hello world")
    measured(f"private memory after three runs of wrk -c 2000 -t 8 -d 30s: {sizes} KiB")
    assert sizes[2] - sizes[0] <= 2048
