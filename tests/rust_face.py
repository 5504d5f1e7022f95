"""Two thousand connections on the face for Rust, half of which then reset: ``make stress``.

It starts ``examples/bench.rs`` (or what ``--binary`` names: a build under a sanitizer, say), puts
``wrk -c 2000 -t 8`` on it, and then clients that compare every answer beside as many that reset in
the middle of one. Nothing may be lost: no wrong or missing answer; and nothing kept: afterwards the
server has the descriptors that it had, and ends with status 0 when it is told to.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.client import request
from tests.load import Exchange, Plan, run
from tests.server import wait_for

HELLO = Exchange(request("GET", "/hello"), 200, b"hello world")
ROOT = Path(__file__).resolve().parent.parent


def length(size: int) -> Exchange:
    return Exchange(request("POST", "/len", b"x" * size), 200, b"%d" % size)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(binary: Path, driver: str) -> Iterator[tuple[subprocess.Popen[bytes], tuple[str, int]]]:
    address = ("127.0.0.1", free_port())
    server = subprocess.Popen([binary, str(address[1]), driver])

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(address) == 0

    try:
        wait_for(listens, "the server listens", 20)
        yield server, address
    finally:
        server.kill()
        server.wait()


def descriptors(server: subprocess.Popen[bytes]) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def resident_kib(server: subprocess.Popen[bytes]) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) if found else 0


def keep_alive(address: tuple[str, int], seconds: int) -> str:
    wrk = shutil.which("wrk")
    if wrk is None:
        return "skipped: wrk (not installed)"
    url = f"http://{address[0]}:{address[1]}/hello"
    output = subprocess.run(
        [wrk, "-c", "2000", "-t", "8", "-d", f"{seconds}s", "--timeout", "10s", url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Socket errors" not in output, output
    assert "Non-2xx" not in output, output
    rate = re.search(r"(\d+) requests in .*\nRequests/sec:\s+([\d.]+)", output)
    assert rate, output
    return f"{int(rate[1]):,} requests, {float(rate[2]):,.0f}/s, no error"


def half_reset(address: tuple[str, int], seconds: int, connections: int) -> str:
    """Rounds of honest clients, whose answers are all compared, beside as many that reset."""
    rng = random.Random(7)
    until = time.monotonic() + seconds
    answered = reset = 0
    while time.monotonic() < until:
        plans = []
        for index in range(connections):
            exchanges = [rng.choice((HELLO, HELLO, length(100), length(40_000))) for _ in range(20)]
            resets = index % 2 == 1
            reset += resets
            after = rng.randrange(1, 2000) if resets else None
            plans.append(Plan(exchanges, rng.choice((1, 4)), after))
        answered += run(address, plans, seconds=120).answered
    return f"{answered:,} answers, all right, beside {reset:,} resets"


def check(binary: Path, driver: str, seconds: int, connections: int) -> None:
    with serving(binary, driver) as (server, address):
        run(address, [Plan([HELLO] * 10)])
        before = descriptors(server)
        print(f"{driver}: keep-alive: {keep_alive(address, seconds)}", flush=True)
        size = resident_kib(server)
        print(f"{driver}: {half_reset(address, seconds, connections)}", flush=True)
        wait_for(lambda: descriptors(server) <= before, "all connections are closed", 20)
        run(address, [Plan([HELLO] * 10)])
        print(
            f"{driver}: {before} descriptors before and after; resident behind each load: "
            f"{size:,} and {resident_kib(server):,} KiB",
            flush=True,
        )
        server.send_signal(signal.SIGTERM)
        status = server.wait(40)
        assert status == 0, f"the server ended with status {status}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/examples/bench")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--connections", type=int, default=2000)
    options = parser.parse_args()
    if not options.binary.exists():
        sys.exit(f"{options.binary} is not there; build it: make stress")
    for driver in ("io_uring", "poll"):
        check(options.binary, driver, options.seconds, options.connections)


if __name__ == "__main__":
    main()
