"""Handlers that wait cost others nothing: no receive buffer, no turn, no latency, no processor."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client import request
from tests.conftest import Start
from tests.load import Exchange, Plan, percentile, run
from tests.server import Server

pytestmark = pytest.mark.pace

PARKED = 5000
SLEPT = Exchange(request("GET", "/sleep/4"), 200, b"slept")


def cpu_seconds(server: Server) -> float:
    """Processor time that the one worker has used."""
    fields = Path(f"/proc/{server.workers()[0]}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_five_thousand_parked_handlers_end_in_time(
    start: Start, descriptors: Callable[[int], None], measured: Callable[[str], None]
) -> None:
    """In a prototype they held every receive buffer, and nobody else was served."""
    descriptors(PARKED)
    server = start("--receive-buffers", "1024", "--max-connections", "6000")
    spent = {}

    def watch() -> None:
        time.sleep(2.5)
        before = cpu_seconds(server)
        began = time.monotonic()
        spent["answer"] = server.get("/").body
        spent["latency"] = time.monotonic() - began
        time.sleep(1)
        spent["cpu"] = cpu_seconds(server) - before

    watcher = threading.Thread(target=watch)
    before = cpu_seconds(server)
    watcher.start()
    result = run(server.address, [Plan([SLEPT]) for _ in range(PARKED)])
    watcher.join()
    cpu = cpu_seconds(server) - before
    slowest = max(result.latencies)
    measured(
        f"{PARKED} handlers parked 4 s: the last was answered {slowest:.2f} s after it asked; "
        f"{cpu:.2f} s of processor in all, {spent['cpu']:.2f} s in a second of waiting; another "
        f"client was answered in {spent['latency'] * 1000:.1f} ms"
    )
    assert result.answered == PARKED
    assert spent["answer"] == b"hello world"
    assert slowest <= 5.0
    assert spent["cpu"] <= 0.2
    assert cpu <= 3.0


def test_one_client_with_many_sleepers_does_not_slow_down_another(
    start: Start, measured: Callable[[str], None]
) -> None:
    server = start()
    sleepers = request("GET", "/sleep/0.005") * 1100
    assert isinstance(server.address, tuple)
    latencies = []
    with socket.create_connection(server.address) as greedy, server.client() as polite:
        sender = threading.Thread(target=lambda: _send_all(greedy, sleepers))
        sender.start()
        began = time.monotonic()
        before = cpu_seconds(server)
        while time.monotonic() - began < 3:
            asked = time.monotonic()
            assert polite.get("/").body == b"hello world"
            latencies.append(time.monotonic() - asked)
            time.sleep(0.003)
        cpu = cpu_seconds(server) - before
        greedy.shutdown(socket.SHUT_RDWR)
        sender.join()
    slow = percentile(latencies, 99)
    measured(
        f"beside 1,100 pipelined sleepers of one client: p50 "
        f"{percentile(latencies, 50) * 1000:.1f} "
        f"ms, p99 {slow * 1000:.1f} ms for another, {cpu:.2f} s of processor in 3 s"
    )
    assert slow <= 0.010
    assert cpu <= 1.0


def _send_all(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(data)
