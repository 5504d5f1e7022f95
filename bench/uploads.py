#!/usr/bin/env python3
"""Measure what a byte of a buffered request body costs, in bodies of different sizes.

The server is pinned to core 0 and the client to core 1. Sizes take turns in each round, with the
same number of bytes in all, over one kept connection; the figure is the median of the worker's CPU
time (user and system) per byte, beside its page faults. CPU time that others used is told.

New memory does not always cost the same: a virtual machine may give free pages back to its host
within seconds (free page reporting), and to touch them again then costs 1.5 ns a byte where 0.08 is
usual. So before each measurement some bodies of the same size pass that do not count.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from load import connect, fetch, machine_seconds, process_tree, read_answer
from servers import Ports

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
SIZES_MIB = (1, 4, 16, 64)
ROUND_MIB = 512
WARM_UP_MIB = 128
LIMIT = 1.10


def worker_seconds(pids: list[int]) -> float:
    """CPU time of all threads, as exactly as the scheduler has it."""
    tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def page_faults(pids: list[int]) -> int:
    texts = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] for pid in pids]
    return sum(int(text.split()[7]) for text in texts)


def upload(port: int, size: int, count: int) -> None:
    """So many bodies, one after the other."""
    body = memoryview(bytes(size))
    head = f"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()
    with connect(port, 60) as connection:
        for _ in range(count):
            connection.sendall(head)
            connection.sendall(body)
            answer = read_answer(connection)
            if (answer.status, answer.body) != (200, str(size).encode()):
                raise RuntimeError(f"{answer.status} {answer.body[:80]!r}")


def measure(port: int, pids: list[int], mib: int) -> tuple[float, float, float]:
    """Nanoseconds a byte, page faults a MiB, and the cores that others used."""
    upload(port, mib * MIB, max(2, WARM_UP_MIB // mib))
    before = worker_seconds(pids), page_faults(pids), machine_seconds(), os.times()
    began = time.monotonic()
    upload(port, mib * MIB, ROUND_MIB // mib)
    wall = time.monotonic() - began
    cpu = worker_seconds(pids) - before[0]
    own = sum(os.times()[:2]) - sum(before[3][:2])
    foreign = max(0.0, machine_seconds() - before[2] - cpu - own) / wall
    faults = page_faults(pids) - before[1]
    return cpu * 1e9 / (ROUND_MIB * MIB), faults / ROUND_MIB, foreign


def run(driver: str, port: int, rounds: int) -> bool:
    """Measures and tells one driver; whether the largest and smallest cost the same."""
    command = [sys.executable, "-m", "theframework", "run", "framework_app:app"]
    options = ["--port", str(port), "--driver", driver, "--max-body-size", str(64 * MIB)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            ["taskset", "-c", "0", *command, *options],
            cwd=HERE / "apps",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        for attempt in range(100):
            try:
                fetch(port, "/hello")
                break
            except OSError:
                if attempt == 99:
                    raise
                time.sleep(0.1)
        pids = process_tree(process.pid)
        for mib in SIZES_MIB:
            measure(port, pids, mib)
        found = {mib: [] for mib in SIZES_MIB}
        for _ in range(rounds):
            for mib in SIZES_MIB:
                found[mib].append(measure(port, pids, mib))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    medians = {mib: statistics.median(run[0] for run in runs) for mib, runs in found.items()}
    print(f"{driver}:")
    for mib, runs in found.items():
        costs = sorted(run[0] for run in runs)
        print(
            f"  {mib:3} MiB: {medians[mib]:.4f} ns a byte ({costs[0]:.4f} to {costs[-1]:.4f}), "
            f"{medians[mib] / medians[SIZES_MIB[0]]:.3f} times that of {SIZES_MIB[0]} MiB, "
            f"{statistics.median(run[1] for run in runs):.1f} page faults a MiB, "
            f"others used {statistics.median(run[2] for run in runs):.2f} cores"
        )
    ratio = medians[SIZES_MIB[-1]] / medians[SIZES_MIB[0]]
    return max(ratio, 1 / ratio) <= LIMIT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--drivers", default="io_uring,poll")
    parser.add_argument("--port", type=int, default=22400)
    given = parser.parse_args()
    os.sched_setaffinity(0, {1})
    ports = Ports(given.port)
    fits = [run(driver, ports.take(), given.rounds) for driver in given.drivers.split(",")]
    return 0 if all(fits) else 1


if __name__ == "__main__":
    sys.exit(main())
