"""Greenlets that are killed, thrown into, switched to or dropped at the wrong moment.

Every test has innocent requests in flight on other connections: they get their right answers, and
afterwards the server holds what it held before: descriptors, slots, waits, busy workers, greenlets.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import Answer, Client, page, refusal, request
from tests.conftest import Start
from tests.server import Server, wait_for

APP = "tests.apps.greenlets:app"
FAILED = refusal(500, close=False)
CANCELLED = "RuntimeError: the wait was cancelled: something switched to its greenlet"
KINDS = ["RuntimeError", "GreenletExit", "KeyboardInterrupt", "SystemExit"]
# Greenlets that stay, beside the core's workers: the hub's own.
OTHER_GREENLETS = 1


@pytest.fixture(scope="module")
def _faulty(driver: str) -> Iterator[list[Server]]:
    servers: list[Server] = []
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def server(_faulty: list[Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all; unchanged after each test, and a fresh one after a failure."""
    if not _faulty:
        from tests.server import command

        log_path = tmp_path_factory.mktemp("greenlets") / "log"
        _faulty.append(Server(command("run", APP, "--port", "0"), log_path))
    shared = _faulty[0]
    try:
        yield shared
        shared.assert_unchanged()
        assert int(shared.get("/greenlets").body) == OTHER_GREENLETS
        assert "Fatal" not in shared.log()
        assert "panicked" not in shared.log()
        shared.get("/seen")
    except BaseException:
        _faulty.clear()
        shared.kill()
        raise


@contextlib.contextmanager
def innocents(server: Server, count: int = 8, seconds: float = 0.06) -> Iterator[None]:
    """Requests that wait on connections of their own, and one more on each behind them."""
    clients = [server.client() for _ in range(count)]
    for number, client in enumerate(clients):
        client.send(request("GET", f"/sleep/{seconds + number / 1000}/{number}"))
        client.send(request("GET", f"/sleep/0.01/{number}-again"))
    yield
    for number, client in enumerate(clients):
        assert client.read().whole() == page(f"slept as {number}")
        assert client.read().whole() == page(f"slept as {number}-again")
        assert client.get("/").whole() == page("hello world")
        client.assert_open(0)
        client.close()


@contextlib.contextmanager
def waiting(server: Server, target: str, name: str) -> Iterator[Client]:
    """A request that waits in its handler, under a name."""
    client = server.client()
    client.send(request("GET", target))
    wait_for(lambda: server.get(f"/is-waiting/{name}").body == b"True", f"{name} waits")
    yield client
    client.assert_open(0)
    client.close()


def seen(server: Server) -> list[str]:
    found: list[str] = json.loads(server.get("/seen").body)
    return found


# Throwing into a handler that waits, and switching to it


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_thrown_into_a_waiting_handler_ends_it_alone(server: Server, kind: str) -> None:
    with innocents(server), waiting(server, "/wait/a", "a") as victim:
        assert server.get(f"/throw/a/{kind}").whole() == page("threw")
        assert victim.read().whole() == FAILED
        assert seen(server) == [f"a: {kind}: thrown by a handler"]
        assert victim.get("/").whole() == page("hello world")


def test_a_switch_to_a_waiting_handler_is_told_to_it(server: Server) -> None:
    with innocents(server), waiting(server, "/wait/a", "a") as victim:
        assert server.get("/switch/a").whole() == page("switched")
        assert victim.read().whole() == FAILED
        assert seen(server) == [f"a: {CANCELLED}"]


@pytest.mark.parametrize("how", ["switch/a", "throw/a/RuntimeError"])
@pytest.mark.parametrize("seconds", ["0.05", "0.4"])
def test_a_late_timer_does_not_end_the_next_wait(server: Server, how: str, seconds: str) -> None:
    with innocents(server), waiting(server, f"/wait-on/a/{seconds}", "a") as victim:
        assert server.get(f"/{how}").status == 200
        assert victim.read().whole() == page("told RuntimeError, then slept enough")


def test_the_thrower_may_wait_afterwards(server: Server) -> None:
    with innocents(server), waiting(server, "/wait/a", "a") as victim:
        assert server.get("/throw-and-sleep/a").whole() == page("threw and slept")
        assert victim.read().whole() == FAILED


def test_a_greenlet_of_the_handlers_own_throws(server: Server) -> None:
    with innocents(server), waiting(server, "/wait/a", "a") as victim:
        assert server.get("/throw-by-own/a").whole() == page("own greenlet went on")
        assert victim.read().whole() == FAILED


def test_throws_in_a_chain_resume_every_thrower(server: Server) -> None:
    with (
        innocents(server),
        waiting(server, "/wait-and-throw/a/b", "a") as first,
        waiting(server, "/wait-and-throw/b/c", "b") as second,
        waiting(server, "/wait/c", "c") as third,
    ):
        assert server.get("/throw/a/RuntimeError").whole() == page("threw")
        assert first.read().whole() == page("passed on by a")
        assert second.read().whole() == page("passed on by b")
        assert third.read().whole() == FAILED
        assert seen(server) == ["c: RuntimeError: thrown by a handler by a by b"]


def test_handlers_that_switch_to_each_other_both_answer(server: Server) -> None:
    with innocents(server), waiting(server, "/wait-and-switch-back/a", "a") as other:
        assert server.get("/call/a").whole() == page("got a value")
        assert other.read().whole() == page("switched back by a")


def test_another_thread_cannot_switch(server: Server) -> None:
    with innocents(server), waiting(server, "/wait/a", "a") as victim:
        assert server.get("/throw-from-thread/a").whole() == page("error error")
        victim.assert_open()
        assert server.get("/throw/a/RuntimeError").whole() == page("threw")
        assert victim.read().whole() == FAILED


def test_many_waiting_handlers_are_killed_at_random(server: Server) -> None:
    """Rounds of thirty that wait, killed in a random order and in random ways."""
    chance = random.Random(7)
    with innocents(server, seconds=0.5):
        for _ in range(3):
            names = [f"n{number}" for number in range(30)]
            clients = {name: server.client() for name in names}
            for name, client in clients.items():
                client.send(request("GET", f"/wait/{name}"))
            wait_for(lambda: server.get("/is-waiting/n29").body == b"True", "all wait")
            chance.shuffle(names)
            for name in names:
                how = chance.choice(["switch/{}", "throw/{}/GreenletExit", "throw/{}/SystemExit"])
                expected = "switched" if how.startswith("switch") else "threw"
                assert server.get("/" + how.format(name)).whole() == page(expected)
                assert clients[name].read().whole() == FAILED
            for client in clients.values():
                assert client.get("/").whole() == page("hello world")
                client.close()


# The hub's own greenlet


def test_a_switch_to_the_hub_comes_back(server: Server) -> None:
    with innocents(server):
        for _ in range(20):
            assert server.get("/hub/switch").whole() == page("went on")


def test_a_handler_that_only_switches_to_the_hub_is_told_its_timeout(start: Start) -> None:
    server = start("--handler-timeout", "0.3", app=APP)
    with innocents(server), server.client() as client:
        answer = client.get("/hub/switch-for-ever")
        assert answer.whole() == refusal(503, close=False, retry_after="1")
        assert client.get("/").whole() == page("hello world")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_thrown_into_the_hub_is_reported(server: Server, kind: str) -> None:
    with innocents(server):
        assert server.get(f"/hub/throw/{kind}").whole() == page("went on")
    server.wait_for_log("thrown into the hub")


def test_a_child_does_not_do_what_the_parent_still_has_to(server: Server) -> None:
    """Two reports stand in the hub's queue; whoever writes the first one forks."""
    with server.client() as first, server.client() as second:
        first.send(request("GET", "/hub/report/first/0.1"))
        second.send(request("GET", "/hub/report/second/0.1"))
        time.sleep(0.05)
        assert server.get("/block/0.1").whole() == page("blocked")
        assert first.read().whole() == page("went on")
        assert second.read().whole() == page("went on")
    server.wait_for_log("reports second")
    reports = [line for line in server.log().splitlines() if " reports " in line]
    worker = server.workers()[0]
    assert reports == [f"process {worker} reports {what}" for what in ("first", "second")]


def test_a_wait_on_the_hub_greenlet_is_refused(server: Server) -> None:
    with innocents(server):
        assert server.get("/hub/sleeps").whole() == page("went on")
        assert seen(server) == ["would block the hub"]


# Idle workers, and workers whose handler has returned


@pytest.mark.parametrize("how", ["switch", *KINDS])
def test_an_idle_worker_that_is_switched_to_or_killed_hurts_nobody(
    server: Server, how: str
) -> None:
    found = []
    with innocents(server, seconds=0.2), waiting(server, "/wait/a", "a") as victim:
        for number in range(8):
            # The worker that was remembered is busy, or idle, or the one that serves this request.
            with server.client() as other:
                other.send(request("GET", f"/sleep/0.02/x{number}"))
                assert server.get(f"/remember/{number}").whole() == page("remembered")
                assert other.read().whole() == page(f"slept as x{number}")
            with server.client() as busy:
                busy.send(request("GET", "/sleep/0.01/y") + request("GET", f"/idle/{number}/{how}"))
                assert busy.read().whole() == page("slept as y")
                found.append(busy.read().body.decode())
        assert server.get("/throw/a/RuntimeError").whole() == page("threw")
        assert victim.read().whole() == FAILED
    assert set(found) <= {"idle", "myself", "gone"}
    assert "idle" in found


@pytest.mark.parametrize("how", ["switch", *KINDS])
def test_a_worker_that_somebody_keeps_serves_no_other_request(server: Server, how: str) -> None:
    with innocents(server):
        with server.client() as client:
            # Pipelined: the next request in the same batch goes to another worker already.
            client.send(request("GET", "/keep-worker/a") + request("GET", f"/late/a/{how}"))
            assert client.read().whole() == page("kept")
            assert client.read().whole() == page("dead")
        assert server.get("/keep-worker/b").whole() == page("kept")
        assert server.get(f"/late/b/{how}").whole() == page("dead")


def test_one_worker_serves_quick_requests_one_after_the_other(server: Server) -> None:
    with server.client() as client:
        client.get("/")
        before = client.get("/stats").json()
        for _ in range(50):
            assert client.get("/").whole() == page("hello world")
        after = client.get("/stats").json()
    assert after["workers"] == before["workers"]


# Greenlets of the handler's own


def test_a_handler_may_use_coroutines_that_wait(server: Server) -> None:
    with innocents(server):
        assert server.get("/own/coroutine").json() == [0, 1, 2, 3, 4, "end"]


def test_a_handler_may_start_greenlets_beside_it(server: Server) -> None:
    with innocents(server):
        assert server.get("/own/beside").json() == [[], [4, 3, 2, 1, 0]]


def test_a_greenlet_that_nobody_holds_waits_on_or_is_told(server: Server) -> None:
    with innocents(server):
        assert server.get("/own/dropped").whole() == page("dropped both")
        assert seen(server) == ["told GreenletExit", "waited"]


def test_a_handler_that_is_switched_to_while_its_own_greenlet_waits(server: Server) -> None:
    with innocents(server, seconds=0.4), waiting(server, "/own/lent/a/answer", "a") as owner:
        assert server.get("/switch/a").whole() == page("switched")
        expected = "got (('a', 'value'), {'key': 1}), own is alive"
        assert owner.read().whole() == page(expected)


def test_a_greenlet_that_ends_cancels_the_wait_of_its_parent(server: Server) -> None:
    with innocents(server, seconds=0.4), waiting(server, "/own/lent/a/sleep", "a") as owner:
        assert server.get("/switch/a").whole() == page("switched")
        assert owner.read().whole() == FAILED
        assert seen(server) == [f"a: {CANCELLED}"]


def test_a_handler_that_is_killed_while_its_own_greenlet_waits(server: Server) -> None:
    with innocents(server, seconds=0.4), waiting(server, "/own/lent/a/answer", "a") as owner:
        assert server.get("/throw/a/RuntimeError").whole() == page("threw")
        assert owner.read().whole() == FAILED
        assert seen(server) == ["a: RuntimeError: thrown by a handler"]


@pytest.mark.parametrize("how", ["ends", "raises"])
def test_a_handler_whose_own_greenlet_ends_in_the_hub_goes_on(server: Server, how: str) -> None:
    with innocents(server):
        assert server.get(f"/own/away/{how}").whole() == page("came back")


def test_a_handler_that_nobody_can_come_back_to_is_collected(server: Server) -> None:
    with innocents(server):
        assert server.get("/own/away/waits-and-ends").whole() == FAILED
        assert seen(server) == ["away: GreenletExit"]


@pytest.mark.parametrize("how", ["sleeps", "is-kept"])
def test_a_handler_that_does_not_come_back_is_told_its_timeout(start: Start, how: str) -> None:
    server = start("--handler-timeout", "0.5", app=APP)
    with innocents(server, seconds=0.3), server.client() as lost:
        began = time.monotonic()
        lost.send(request("GET", f"/own/away/{how}"))
        assert lost.read().whole() == refusal(503, close=False, retry_after="1")
        assert 0.45 < time.monotonic() - began < 2
        assert seen(server) == ["away: HandlerTimeout"]
        assert lost.get("/").whole() == page("hello world")


def test_a_handler_that_is_resumed_as_its_time_ends_is_told_its_timeout(start: Start) -> None:
    """That, and its resumer's waking, come while the worker is kept: the hub sees both at once."""
    server = start("--handler-timeout", "0.6", app=APP)
    with server.client() as lost, server.client() as resumer:
        lost.send(request("GET", "/own/stray/a"))
        time.sleep(0.2)
        resumer.send(request("GET", "/resume-late/a/0.2"))
        time.sleep(0.1)
        assert server.get("/block/0.4").whole() == page("blocked")
        assert resumer.read().whole() == page("resumed")
        assert lost.read().whole() == refusal(503, close=False, retry_after="1")
        assert seen(server) == ["a: HandlerTimeout"]


# A timeout in the middle of a send


@pytest.mark.parametrize("size", [64 << 10, 4 << 20])
def test_a_handler_that_times_out_behind_a_response_on_its_way(start: Start, size: int) -> None:
    """The first response is being sent to a slow client; the second request's handler is killed."""
    server = start("--handler-timeout", "0.3", app=APP)
    with innocents(server), Client(server.address, receive_buffer=65_536) as slow:
        slow.send(
            request("GET", f"/large/{size}")
            + request("GET", "/sleep/30/late")
            + request("GET", "/")
            + request("GET", f"/large/{size}")
        )
        time.sleep(0.8)
        assert slow.read().whole() == page(
            b"0123456789abcdef" * (size // 16), "application/octet-stream"
        )
        assert slow.read().whole() == refusal(503, close=False, retry_after="1")
        assert slow.read().whole() == page("hello world")
        time.sleep(0.2)
        assert slow.read().whole() == page(
            b"0123456789abcdef" * (size // 16), "application/octet-stream"
        )
        slow.assert_open(0)


def test_the_client_goes_while_a_response_is_on_its_way_and_a_handler_waits(start: Start) -> None:
    server = start("--handler-timeout", "0.3", app=APP)
    with innocents(server):
        for _ in range(5):
            slow = Client(server.address, receive_buffer=65_536)
            slow.send(request("GET", f"/large/{4 << 20}") + request("GET", "/sleep/30/late"))
            time.sleep(0.02)
            slow.reset()
    server.assert_unchanged()


# Finalisers and sys.exit


@pytest.mark.parametrize("how", ["sleep", "stats", "exit", "kill", "hub", "write", "request"])
def test_a_finaliser_may_call_the_core(server: Server, how: str) -> None:
    with innocents(server):
        for number in range(10):
            assert server.get(f"/finaliser/{how}").whole() == page(how)
            assert server.get(f"/sleep/0.001/{number}").whole() == page(f"slept as {number}")
        assert server.get("/collect").whole() == page("collected")
        expected = {"sleep": "finaliser slept", "request": "/finaliser/request"}
        wait_for(lambda: how not in expected or expected[how] in seen(server), "it ran")


@pytest.mark.parametrize("how", ["sleep", "stats"])
def test_the_collector_may_run_a_finaliser_that_waits(server: Server, how: str) -> None:
    with innocents(server):
        for _ in range(5):
            assert server.get(f"/finaliser-in-cycle/{how}").whole() == page("made")
        assert server.get("/collect").whole() == page("collected")


def test_a_weak_references_callback_may_wait(server: Server) -> None:
    with innocents(server):
        assert server.get("/weakref-callback").whole() == page("True")
        assert seen(server) == ["finaliser slept"]


@pytest.mark.parametrize(
    "target", ["/exit-in-handler", "/exit-in-middleware/before", "/exit-in-middleware/after"]
)
def test_sys_exit_ends_its_request_only(server: Server, target: str) -> None:
    with innocents(server), server.client() as client:
        assert client.get(target).whole() == FAILED
        assert client.get("/").whole() == page("hello world")
    server.wait_for_log("SystemExit: 3")


# Signals


@pytest.mark.parametrize("how", ["sleep", "call", "raise", "exit", "hub"])
def test_a_storm_of_signals(server: Server, how: str) -> None:
    """Signal handlers that wait, call the core, or raise: in a request, or with nobody there."""
    (pid,) = server.workers()
    assert server.get(f"/on-signal/{how}").whole() == page("set")
    sent = 0
    clients = [server.client() for _ in range(4)]
    number = 0
    may_fail = how in ("raise", "exit")
    while sent < 2000:
        number += 1
        for index, client in enumerate(clients):
            client.send(
                request("GET", f"/sleep/0.002/{number}-{index}") + request("GET", "/spin/0.0005")
            )
        for _ in range(100):
            os.kill(pid, signal.SIGUSR1)
            sent += 1
        for index, client in enumerate(clients):
            for expected in (page(f"slept as {number}-{index}"), page("spun")):
                answer = client.read().whole()
                assert answer == expected or (may_fail and answer == FAILED), server.log()
    handled = int(server.get("/signals").body)
    assert 10 < handled <= sent
    for client in clients:
        assert client.get("/").whole() == page("hello world") or may_fail
        client.close()
    # With nobody there they run in a worker, too.
    time.sleep(0.05)
    os.kill(pid, signal.SIGUSR1)
    wait_for(lambda: int(server.get("/signals").body) > handled, "the signal was handled")
    assert "would block the hub" not in seen(server)


def test_a_storm_of_alarms_that_wait(server: Server) -> None:
    assert server.get("/alarms/on").whole() == page("on")
    with innocents(server, seconds=0.3):
        for number in range(60):
            assert server.get(f"/sleep/0.001/{number}").whole() == page(f"slept as {number}")
            assert server.get("/spin/0.002").whole() == page("spun")
    assert server.get("/alarms/off").whole() == page("off")


# Forks


@pytest.mark.parametrize(
    ("how", "answer"),
    [
        ("subprocess", "42"),
        ("preexec", "0"),
        ("multiprocessing", "True 0"),
        ("sys-exit", "3"),
        ("raise", "1"),
        ("sleeps", "4"),
        ("own-greenlet", "5"),
        ("hub", "0"),
        ("return", "0"),
    ],
)
def test_a_handler_may_fork(server: Server, how: str, answer: str) -> None:
    with innocents(server, seconds=0.2), server.client() as client:
        assert client.get(f"/fork/{how}").whole() == page(answer)
        client.assert_open()
        assert client.get("/").whole() == page("hello world")


def test_the_child_of_another_thread_holds_no_connection(server: Server) -> None:
    with innocents(server), server.client() as client:
        answer = client.get("/fork-in-thread")
        assert answer.whole() == page(answer.body)
        child = int(answer.body)
        assert int((Path(f"/proc/{child}/stat").read_text().split())[3]) == server.workers()[0]
        # The server closes: the client sees it at once, the child has no copy.
        last: Answer = client.get("/", "Connection: close")
        assert last.whole() == page("hello world", connection="close")
        client.assert_closed(0.5)
    sockets = [
        link
        for fd in Path(f"/proc/{child}/fd").iterdir()
        if (link := os.readlink(fd)).startswith(("socket:", "anon_inode:[io_uring]"))
    ]
    assert sockets == []
    assert server.get("/reap").whole() == page("0")
