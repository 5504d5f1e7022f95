"""slowhttptest in all its modes: others are served beside it, our limits end its connections."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import Start
from tests.honest import Honest
from tests.hostile import APP, MODES, TOO_MANY, Mode, attack, held_by_kernel, judge, measure
from tests.server import wait_for

pytestmark = [pytest.mark.wire, pytest.mark.pace]

HOSTILE = 300
# How long a connection may make no progress here.
SECONDS = 1.5


def options(mode: Mode) -> tuple[str, ...]:
    """Often enough that only a limit on the whole, or on the rate, ends what is sent."""
    return () if mode.is_short else ("-n" if mode.name == "slow read" else "-i", "1")


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.replace(" ", "-"))
def test_others_are_served_and_the_attack_ends(
    start: Start, program: Callable[[str], str], mode: Mode
) -> None:
    path = program("slowhttptest")
    limits = [f"--{name}-timeout" for name in ("read", "write", "keepalive")]
    server = start(*(word for name in limits for word in (name, str(SECONDS))), app=APP)
    with Honest(server.address, 100, 100, 5) as honest, ThreadPoolExecutor() as pool:
        running = pool.submit(attack, path, server, mode, HOSTILE, seconds=8, options=options(mode))
        if not mode.is_short:
            wait_for(lambda: held_by_kernel(server) >= HOSTILE, "the attack has begun")
            wait_for(lambda: held_by_kernel(server) <= 20, "its connections are gone", 6)
            # The attacker has not given up.
            assert not running.done() or mode.name != "slow read"
        outcome = running.result()
        found = honest.result()
    # Slow readers still read what their own kernel has, and see no end before that.
    ended = "Hit test time limit" if mode.name == "slow read" else "No open connections left"
    assert outcome.why == ended, outcome
    for kind in ("kept", "new"):
        assert found[kind]["failures"] == {}
        assert len(found[kind]["latencies"]) == 500
        assert max(found[kind]["latencies"]) < 1
    with server.client() as client:
        refused = client.get("/stats").json()["refused"]
    assert refused == (HOSTILE if mode.name in ("slow headers", "slow body") else 0)
    assert server.memory_kib() < 200 << 10


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.replace(" ", "-"))
def test_others_hardly_notice(
    start: Start,
    program: Callable[[str], str],
    descriptors: Callable[[int], None],
    measured: Callable[[str], None],
    driver: str,
    mode: Mode,
) -> None:
    """Default settings; at 200 requests a second the p99 is at most twice that without attack."""
    path = program("slowhttptest")
    descriptors(TOO_MANY)
    server = start(app=APP)
    parts = measure(path, server, mode, 60)
    for part in parts:
        measured(
            f"{driver}, {mode.name}, {part.connections:,} hostile: p99 {part.ms(99):.2f} ms of "
            f"{part.asked:,} requests, {part.memory_kib / 1024:.0f} MiB; {part.siege}"
        )
    assert judge(parts) == []
