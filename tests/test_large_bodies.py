"""A body that is received as a whole costs as much for each byte when it is large."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from tests.client import request
from tests.conftest import Start
from tests.hostile import APP
from tests.server import Server, wait_for

pytestmark = [pytest.mark.wire, pytest.mark.pace]

MIB = 1 << 20
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def page_faults(server: Server) -> int:
    (worker,) = server.workers()
    fields = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7])


@pytest.mark.parametrize("mib", [1, 16, 64])
def test_page_faults_of_a_large_body(
    start: Start, driver: str, mib: int, measured: Callable[[str], None]
) -> None:
    """The memory is there from the body before, or comes in huge pages: a fault for each 4 KiB
    made a byte of 64 MiB three times as expensive as one of 1 MiB."""
    if "[never]" in HUGE_PAGES.read_text():
        pytest.skip("the kernel is told never to give huge pages")
    server = start("--max-body-size", str(64 * MIB), app="tests.apps.main:app")
    body = bytes(mib * MIB)
    with server.client() as client:

        def upload(count: int) -> None:
            for _ in range(count):
                assert client.request("POST", "/typical", body).json()["bytes"] == len(body)

        # The C library has its heap and its threshold for mapping after a few.
        upload(10)
        counts = []
        for _ in range(3):
            before = page_faults(server)
            upload(1)
            counts.append(page_faults(server) - before)
        # The heap may be given back before one of them.
        faults = median(counts) / mib
    measured(f"page faults for each MiB of a body of {mib} MiB on {driver}: {faults:.1f}")
    assert faults < 40


def test_a_large_body_of_which_little_comes_holds_little(start: Start) -> None:
    server = start("--max-body-size", str(64 * MIB), app=APP)
    memory = server.memory_kib()
    clients = [server.client() for _ in range(20)]
    for client in clients:
        client.send(request("POST", "/upload", headers=(f"Content-Length: {64 * MIB}",)))
        client.send(b"x" * 100_000)
    with server.client() as honest:
        wait_for(lambda: honest.get("/stats").json()["exchanges"] == 21, "all have begun")
        # Each has some 25 pages of its body.
        assert server.memory_kib() - memory < 20 * 400
    for client in clients:
        client.close()
