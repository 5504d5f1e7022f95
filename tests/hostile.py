"""slowhttptest against a server with default settings, honest clients beside it, as a measurement.

    python -m tests.hostile --page docs/hostile-clients.md
    python -m tests.hostile --drivers poll --modes 'slow read' --seconds 10

In each mode: honest clients alone, then with 1,000 hostile connections, then with more of them
than `max_connections` allows. Honest clients ask at a fixed rate, and a latency counts from the
moment at which its request was due (tests/honest.py). slowhttptest starts anew when the server has
ended its last connection, until the honest clients are done.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.honest import Honest
from tests.load import percentile
from tests.server import Server, command, wait_for

APP = "tests.apps.clients:app"
CONNECTIONS = 1000
# More than max_connections, by more than the reserve for refusals.
TOO_MANY = 6000
MAX_CONNECTIONS = 4096
# Of the p99 under attack to the one without.
RATIO_MAX = 2.0
# Of the worker; the responses that slow readers do not take are a quarter of a MiB each.
MEMORY_KIB_MAX = 2 << 20
KEPT_RATE = NEW_RATE = 100.0
# While the server is full, clients that are connected are served; a few more try to be.
KEPT_RATE_FULL, NEW_RATE_FULL = 200.0, 5.0


@dataclass(frozen=True)
class Mode:
    """One of slowhttptest's attacks."""

    name: str
    target: str
    options: tuple[str, ...]
    # The connection ends by itself after one request.
    is_short: bool = False
    # How long a run may take. Slow readers read what their own kernel has for hours, and do not see
    # that the server has dropped them: they begin anew.
    seconds: int = 3600


MODES = (
    Mode("slow headers", "/", ("-H", "-i", "5")),
    Mode("slow body", "/upload", ("-B", "-i", "5", "-s", "8192")),
    Mode(
        "slow read", "/large/262144", ("-X", "-n", "5", "-z", "5", "-w", "1", "-y", "1"), seconds=30
    ),
    Mode("range", "/file/performance.svg", ("-R", "-a", "5", "-b", "3000"), is_short=True),
)


@dataclass
class Outcome:
    """What slowhttptest says of one run."""

    why: str
    seconds: int
    most_connected: int

    def __str__(self) -> str:
        return f"{self.why} after {self.seconds} s, at most {self.most_connected:,} at a time"


def held_by_kernel(server: Server) -> int:
    """Connections that take memory of the kernel, whether the server has closed them or not."""
    listening, time_wait = "0A", "06"
    port = f":{server.address[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] not in (listening, time_wait) for row in rows)


def attack(
    program: str,
    server: Server,
    mode: Mode,
    connections: int,
    *,
    rate: int = 600,
    seconds: int = 60,
    options: tuple[str, ...] = (),
) -> Outcome:
    """Run slowhttptest once; it ends after `seconds`, or when it has no connection left."""
    host, port = server.address
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        url = f"http://{host}:{port}{mode.target}"
        done = subprocess.run(
            [
                *(program, *mode.options, *options, "-u", url),
                *("-c", str(connections), "-r", str(rate), "-l", str(seconds)),
                *("-p", "5", "-g", "-o", str(report)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds + 60,
            check=False,
        )
        text = re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", done.stdout).decode(errors="replace")
        ended = re.search(r"Exit status: *(.+)", text)
        assert ended, text
        lines = report.with_suffix(".csv").read_text().splitlines()[1:]
    rows = [[int(word) for word in line.split(",")] for line in lines]
    return Outcome(
        why=ended[1].strip(),
        seconds=rows[-1][0],
        most_connected=max(row[3] for row in rows),
    )


class Siege(threading.Thread):
    """Attacks again and again until its time is over."""

    def __init__(
        self, program: str, server: Server, mode: Mode, connections: int, seconds: float
    ) -> None:
        super().__init__(daemon=True)
        self.outcomes: list[Outcome] = []
        self._arguments = (program, server, mode, connections)
        self._over_at = time.monotonic() + seconds

    def run(self) -> None:
        program, server, mode, connections = self._arguments
        while (left := self._over_at - time.monotonic()) > 1:
            rate = 200 if connections <= CONNECTIONS else 1000
            if mode.is_short:
                rate = 200 if connections <= CONNECTIONS else 600
                connections = min(int(rate * left), 15_000)
            seconds = int(min(left, mode.seconds))
            outcome = attack(program, server, mode, connections, rate=rate, seconds=seconds)
            self.outcomes.append(outcome)

    def __str__(self) -> str:
        return "; ".join(str(outcome) for outcome in self.outcomes)


@dataclass
class Part:
    """What came of the honest clients, alone or under attack."""

    connections: int
    is_short: bool
    asked: int
    latencies: list[float]
    failures: list[str]
    # What came of those that are not connected yet while the server is full.
    outside: str
    memory_kib: int
    siege: Siege | None

    def ms(self, percent: float) -> float:
        return 1000 * percentile(self.latencies, percent)


def run_part(program: str, server: Server, mode: Mode, connections: int, seconds: float) -> Part:
    """One attack of so many connections (0: none) and the honest clients beside it."""
    is_full = connections > MAX_CONNECTIONS
    rates = (KEPT_RATE_FULL, NEW_RATE_FULL) if is_full else (KEPT_RATE, NEW_RATE)
    memory_kib = 0
    siege = None
    with Honest(server.address, *rates, seconds) as honest:
        # They have connected before the attack begins.
        time.sleep(2.0)
        if connections:
            siege = Siege(program, server, mode, connections, seconds - 1)
            siege.start()
        while honest.is_running:
            memory_kib = max(memory_kib, server.memory_kib())
            time.sleep(0.5)
        found = honest.result()
    if siege is not None:
        siege.join()
    counted = [found["kept"]] if is_full else [found["kept"], found["new"]]
    outside = found["new"]
    words = [f"{len(outside['latencies'])} of {outside['asked']} served"]
    words += [f"{count} {why}" for why, count in outside["failures"].items()]
    return Part(
        connections=connections,
        is_short=mode.is_short,
        asked=sum(kind["asked"] for kind in counted),
        latencies=[latency for kind in counted for latency in kind["latencies"]],
        failures=[f"{count} {why}" for kind in counted for why, count in kind["failures"].items()],
        outside=", ".join(words) if is_full else "",
        memory_kib=memory_kib,
        siege=siege,
    )


def measure(program: str, server: Server, mode: Mode, seconds: float) -> list[Part]:
    """Honest clients without an attack, with one, and with one that fills the server."""
    parts = []
    for connections, part_seconds in (
        (0, seconds),
        (CONNECTIONS, seconds),
        (TOO_MANY, seconds / 2),
    ):
        parts.append(run_part(program, server, mode, connections, part_seconds))
        wait_for(lambda: held_by_kernel(server) == 0, "the connections of the attack are gone", 120)
    return parts


def report(results: dict[tuple[str, str], list[Part]], seconds: float) -> str:
    """The page."""
    lines = [
        "# Hostile clients",
        "",
        f"Written by `python -m tests.hostile --seconds {seconds:g}` on Linux "
        f"{platform.release()}, {os.cpu_count()} cores",
        "for server, attackers and clients together. slowhttptest attacks one worker with default",
        "settings. Honest clients ask beside it in an open loop, "
        f"{KEPT_RATE + NEW_RATE:g} requests a second: half of them",
        "over kept connections, half over a new one each. A latency counts from the moment at",
        "which its request was due. Latencies are p50, p99 and the longest, in milliseconds.",
        "",
        f"Load average of the last 15 minutes: {os.getloadavg()[2]:.1f}. What else runs shows in",
        "the ratios, most of all above the number of cores.",
        "",
        f"## {CONNECTIONS:,} hostile connections",
        "",
        "| driver | attack | alone | under attack | ratio of p99 | failed | memory of the worker |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (driver, name), (alone, beside, _) in results.items():
        lines.append(
            f"| {driver} | {name} | {_latencies(alone)} | {_latencies(beside)} | "
            f"{ratio([alone, beside]):.2f} | "
            f"{', '.join(alone.failures + beside.failures) or 'none'} | "
            f"{beside.memory_kib / 1024:.0f} MiB |"
        )
    lines += [
        "",
        "What slowhttptest reports:",
        "",
        *(
            f"- {driver}, {name}, {beside.connections:,} connections: {beside.siege}"
            for (driver, name), (_, beside, _) in results.items()
        ),
        "",
        "## More than `max_connections`",
        "",
        f"{TOO_MANY:,} where {MAX_CONNECTIONS:,} are allowed, for half of the time. Honest clients "
        f"that are connected ask {KEPT_RATE_FULL:g}",
        f"times a second; {NEW_RATE_FULL:g} more a second try to connect. (An attack by ranges is",
        "requests, here 600 a second: none of its connections stays.)",
        "",
        "| driver | attack | connected | failed | not connected yet | memory of the worker |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {driver} | {name} | {_latencies(full)} | {', '.join(full.failures) or 'none'} | "
            f"{full.outside} | {full.memory_kib / 1024:.0f} MiB |"
            for (driver, name), (_, _, full) in results.items()
        ),
        "",
    ]
    return "\n".join(lines)


def _latencies(part: Part) -> str:
    return ", ".join(f"{part.ms(percent):.2f}" for percent in (50, 99, 100))


@contextlib.contextmanager
def default_server(driver: str) -> Iterator[Server]:
    """As a user would start it."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = command("run", APP, "--port", "0", "--driver", driver)
        server = Server(arguments, Path(folder, "log"))
        try:
            yield server
        finally:
            server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description="slowhttptest, and honest clients beside it")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--drivers", default="io_uring,poll")
    parser.add_argument("--modes", default=",".join(mode.name for mode in MODES))
    parser.add_argument("--page", type=Path, help="write the report there")
    given = parser.parse_args()
    program = shutil.which("slowhttptest")
    if program is None:
        print("hostile: slowhttptest is not installed", file=sys.stderr)
        return 2
    results = {}
    problems = []
    for driver in given.drivers.split(","):
        for mode in MODES:
            if mode.name not in given.modes.split(","):
                continue
            with default_server(driver) as server:
                parts = measure(program, server, mode, given.seconds)
            results[driver, mode.name] = parts
            print(f"{driver}, {mode.name}: p99 {ratio(parts):.2f} times that alone", flush=True)
            problems += [f"{driver}, {mode.name}: {problem}" for problem in judge(parts)]
    page = report(results, given.seconds)
    print(page)
    if given.page is not None:
        given.page.write_text(page)
    for problem in problems:
        print(f"hostile: {problem}", file=sys.stderr)
    return 1 if problems else 0


def ratio(parts: list[Part]) -> float:
    """Of the p99 beside an attack to that without one."""
    alone, beside, *_ = parts
    return beside.ms(99) / alone.ms(99)


def judge(parts: list[Part]) -> list[str]:
    """What is not as it must be."""
    alone, beside, full = parts
    problems = [
        f"failed with {part.connections} hostile: {part.failures}"
        for part in parts
        if part.failures
    ]
    for part in (beside, full):
        outcomes = part.siege.outcomes if part.siege else []
        most = max((outcome.most_connected for outcome in outcomes), default=0)
        if not outcomes or (not part.is_short and most < min(part.connections, MAX_CONNECTIONS)):
            problems.append(f"only {most:,} of {part.connections:,} connections attacked")
    if ratio(parts) > RATIO_MAX:
        problems.append(f"p99 {alone.ms(99):.2f} ms alone, {beside.ms(99):.2f} ms under attack")
    for part in (beside, full):
        if part.memory_kib > MEMORY_KIB_MAX:
            problems.append(
                f"{part.memory_kib:,} KiB with {part.connections:,} hostile connections"
            )
    return problems


if __name__ == "__main__":
    sys.exit(main())
