"""Floods: what they cost us against what they cost the attacker, counted; not how long they take.

CPU time is that of the worker and of the attacker's process, the kernel's part included. An
attacker in C would pay less than tests/flood.py, though not by much where each packet is a system
call.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client import Client, refusal, request
from tests.conftest import Start
from tests.flood import cpu_seconds, flood
from tests.honest import Honest
from tests.hostile import APP
from tests.server import Server, wait_for
from tests.test_steady import calls_during

pytestmark = [pytest.mark.wire, pytest.mark.pace]

# What an attacker does packet by packet, or connection by connection.
ONE_BY_ONE = {
    "connect_and_close": 2000,
    "connect_and_reset": 2000,
    "ask_and_reset": 2000,
    "head_bytewise": 20_000,
    "body_bytewise": 20_000,
    "stream_bytewise": 20_000,
    "chunks_one_by_one": 20_000,
    "streamed_chunks_one_by_one": 20_000,
}
# Connections that are told 503 at the same time.
RESERVE = 32
ALL_AT_ONCE = {
    "chunks_at_once": 200_000,
    "streamed_chunks_at_once": 200_000,
    "many_fields": 100,
    "equal_fields": 100,
    "unread_fields": 100,
}


@pytest.mark.parametrize("kind", ONE_BY_ONE)
def test_the_attacker_pays(
    start: Start, driver: str, kind: str, measured: Callable[[str], None]
) -> None:
    server = start(app=APP)
    cost = flood(server, kind, ONE_BY_ONE[kind])
    measured(f"{kind} on {driver}: {cost}")
    # A third to a half on a machine that does nothing else.
    assert cost.ratio < 1.5


@pytest.mark.parametrize(
    "kind", ["head_bytewise", "body_bytewise", "chunks_one_by_one", "streamed_chunks_one_by_one"]
)
def test_system_calls_per_packet(
    start: Start, driver: str, kind: str, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    """Of the server, when each packet has one byte, or one chunk of one byte."""
    server = start(app=APP)
    count = 5000
    cost = []
    calls, _ = calls_during(server, lambda: cost.append(flood(server, kind, count)), tmp_path / "c")
    sends = cost[-1].sends
    measured(f"system calls of {sends:,} packets of {kind} on {driver}: {dict(calls)}")
    # On poll: to see that there is something, to take it, and a look at what else there is.
    assert sum(calls.values()) <= (1 if driver == "io_uring" else 3) * sends + 200


# Costs grow with what is sent, and no faster


def test_tiny_chunks_cost_the_same_each(start: Start, measured: Callable[[str], None]) -> None:
    server = start("--max-body-size", "2000000", app=APP)
    for kind in ("chunks_at_once", "streamed_chunks_at_once"):
        few, many = (flood(server, kind, count) for count in (200_000, 800_000))
        measured(f"{kind}: {many}, {1e9 * many.server_seconds / 800_000:.1f} ns a chunk")
        assert many.server_seconds < 4 * 1.4 * few.server_seconds
        # A client pays for nothing but the bytes.
        assert many.ratio < 4


def test_a_long_head_is_not_read_again_for_each_byte(start: Start) -> None:
    server = start(app=APP)
    short, long = (flood(server, kind, 30_000) for kind in ("head_bytewise", "long_head_bytewise"))
    assert long.server_seconds / long.sends < 1.5 * short.server_seconds / short.sends


def test_a_field_that_is_repeated_costs_as_much_as_others(
    start: Start, measured: Callable[[str], None]
) -> None:
    server = start("--max-header-size", "262144", app=APP)
    fields = {}
    for kind in ("many_fields", "equal_fields", "unread_fields"):
        fields[kind] = cost = flood(server, kind, 200)
        measured(f"{kind}: {cost}")
    # There are more of them in a head, for they are shorter.
    assert fields["equal_fields"].server_seconds < 1.8 * fields["many_fields"].server_seconds


@pytest.mark.parametrize("values", [["x", "x"], ["", ""], ["a", "a", "b"], ["long one", "x", "x"]])
def test_every_value_of_a_repeated_field_is_joined(start: Start, values: list[str]) -> None:
    """Also one that is equal to the one before: a bug was found by a flood of such fields."""
    server = start()
    fields = [f"{name}: {value}" for value in values for name in ("X-Many", "Cookie")]
    headers = server.get("/request", *fields).json()["headers"]
    assert headers["x-many"] == ", ".join(values)
    assert headers["cookie"] == "; ".join(values)


# Others are served


def test_others_are_served_in_all_floods(start: Start) -> None:
    server = start(app=APP)
    kinds = ONE_BY_ONE | ALL_AT_ONCE
    with Honest(server.address, 50, 50, 10) as honest:
        for kind, count in kinds.items():
            flood(server, kind, count // 4, rests=False)
        assert honest.is_running
        found = honest.result()
    for kind in ("kept", "new"):
        assert found[kind]["failures"] == {}
        assert max(found[kind]["latencies"]) < 1


def test_requests_whose_answers_nobody_reads(start: Start) -> None:
    """The server stops reading; it holds little for them, does nothing, and ends them at last."""
    server = start("--write-timeout", "1.5", app=APP)
    (worker,) = server.workers()
    memory = server.memory_kib()
    clients = [Client(server.address, receive_buffer=4096, timeout=0.2) for _ in range(20)]
    pipeline = request("GET", "/large/10000") * 1000
    for client in clients:
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                client.send(pipeline)
            pytest.fail("the server takes all")
    with server.client() as honest:
        asked = honest.get("/stats").json()["requests"]
        cpu = cpu_seconds(worker)
        time.sleep(0.3)
        # Some timers, and no request of them.
        assert cpu_seconds(worker) - cpu < 0.02
        assert honest.get("/stats").json()["requests"] <= asked + 1 + len(clients)
        # What was read ahead of each, and what two writes hold.
        assert server.memory_kib() - memory < 20 * 400
        wait_for(
            lambda: honest.get("/stats").json()["connections"] == 1, "they are ended", seconds=6
        )
    for client in clients:
        client.close()


def test_heads_that_never_end_hold_what_they_sent(
    start: Start, descriptors: Callable[[int], None]
) -> None:
    count, size = 400, 30_000
    descriptors(count)
    server = start("--read-timeout", "4", app=APP)
    memory = server.memory_kib()
    part = request("GET", "/", headers=("X: " + "x" * size,))[:-4]
    clients = [server.client() for _ in range(count)]
    for client in clients:
        client.send(part)
    with server.client() as honest:
        assert honest.get("/stats").json()["connections"] == count + 1
    assert server.memory_kib() - memory < count * 40
    for client in clients:
        assert client.read().whole() == refusal(408)
        client.close()


def test_a_flood_of_connections_waits_and_is_then_refused(
    start: Start, descriptors: Callable[[int], None]
) -> None:
    """Beyond `max_connections` nobody is accepted for `accept_pause`; then they are told."""
    limit, beyond, accept_pause = 200, 300, 1.0
    descriptors(limit + beyond)
    options = ("--max-connections", str(limit), "--accept-pause", str(accept_pause))
    server = start(*options, app=APP)
    held = [server.client() for _ in range(limit)]
    (honest,) = held[:1]
    began = time.monotonic()
    wait_for(lambda: stats(honest)["connections"] == limit, "the server is full")
    others = [server.client() for _ in range(beyond)]
    for other in others:
        other.send(request("GET", "/"))
    (usual,) = server.descriptors().values()
    most = usual
    while time.monotonic() < began + accept_pause - 0.3:
        assert stats(honest)["overload"] == 0
        assert not any(other.has_answer() for other in others)
        (now,) = server.descriptors().values()
        most = max(most, now)
        time.sleep(0.02)
    # The one that was accepted before accepting could be stopped, if any.
    assert most <= usual + 1
    for other in others:
        answer = other.read()
        retry_after = answer.header("Retry-After") or ""
        assert retry_after.isdigit()
        assert answer.whole() == refusal(503, retry_after=retry_after)
        (now,) = server.descriptors().values()
        # A few more are closed at this moment.
        assert now <= usual + RESERVE + 4
        assert honest.get("/").body == b"hello world"
        other.close()
    for client in held[1:]:
        client.close()
    honest.close()
    wait_for(lambda: can_connect(server), "connections are accepted again")


def stats(client: Client) -> dict[str, int]:
    found: dict[str, int] = client.get("/stats").json()
    return found


def can_connect(server: Server) -> bool:
    try:
        return server.get("/").status == 200
    except OSError:
        return False
