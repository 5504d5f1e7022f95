"""Bugs that were found once: each test is what made one of them show."""

from __future__ import annotations

import hashlib
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.client import Client, chunked, page, refusal, request
from tests.conftest import Start
from tests.server import Server, wait_for

HELLO = page("hello world")
BINARY = "application/octet-stream"
MIB = 1 << 20


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Do `work(number)` in so many threads at once; the first failure is the test's."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def large_body(size: int) -> bytes:
    return b"0123456789abcdef" * (size // 16)


def read_slowly(connection: socket.socket, rate: int) -> Iterator[bytes]:
    """What comes until the close, at no more than `rate` bytes a second."""
    began = time.monotonic()
    received = 0
    while data := connection.recv(65_536):
        received += len(data)
        yield data
        time.sleep(max(0.0, began + received / rate - time.monotonic()))


class SlowClient(Client):
    """A client with small buffers that reads so many bytes a second and no more."""

    def __init__(self, server: Server, rate: int) -> None:
        super().__init__(server.address, receive_buffer=65_536)
        self._pieces = read_slowly(self.socket, rate)

    def __enter__(self) -> SlowClient:
        return self

    def read_first(self) -> bytes:
        """What comes first: at least a byte."""
        return next(self._pieces)

    def read_rest(self) -> bytes:
        return b"".join(self._pieces)


def split_responses(data: bytes) -> list[tuple[bytes, bytes]]:
    """Heads and bodies of all that came; nothing may be left over."""
    found: list[tuple[bytes, bytes]] = []
    while data:
        head, mark, rest = data.partition(b"\r\n\r\n")
        assert mark, f"no head, after {len(found)} responses: {data[:200]!r}"
        assert head.startswith(b"HTTP/1.1 "), f"bad head: {head[:200]!r}"
        lengths = [
            int(line.partition(b": ")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length: ")
        ]
        assert len(lengths) == 1, f"bad head: {head[:200]!r}"
        assert len(rest) >= lengths[0], f"{lengths[0] - len(rest)} bytes are missing: {head!r}"
        found.append((head, rest[: lengths[0]]))
        data = rest[lengths[0] :]
    return found


# Connections that are not each other's business


def test_shutdown_never_hits_a_connection_with_a_reused_descriptor(server: Server) -> None:
    """Eight threads with 26 clients each: descriptor numbers are used again all the time."""
    until = time.monotonic() + 3
    rounds = [0] * 8

    def work(number: int) -> None:
        while time.monotonic() < until:
            clients = [server.client(timeout=5) for _ in range(26)]
            for index, client in enumerate(clients):
                target = f"/users/{number}-{rounds[number]}-{index}"
                client.send(request("GET", target, headers=("Connection: close",)))
            for index, client in enumerate(clients):
                expected = f"user {number}-{rounds[number]}-{index}"
                assert client.read().whole() == page(expected, connection="close")
                # Most do not wait for the server's end: its shutdown and its close are near.
                if index % 8 == 0:
                    client.assert_closed()
                client.close()
            rounds[number] += 1

    in_threads(8, work)
    assert all(rounds)


def test_pipelined_requests_of_handlers_that_wake_together_are_all_answered(
    server: Server,
) -> None:
    for _ in range(3):
        clients = [server.client(timeout=3) for _ in range(10)]
        for number, client in enumerate(clients):
            client.send(
                request("GET", f"/sleep/0.2/{number}-first")
                + request("GET", f"/sleep/0.2/{number}-second")
            )
        for number, client in enumerate(clients):
            assert client.read().whole() == page(f"slept as {number}-first")
            assert client.read().whole() == page(f"slept as {number}-second")
            client.assert_open(0)
            client.close()


# Slow readers


def test_download_longer_than_the_keepalive_timeout_is_whole(start: Start) -> None:
    server = start("--keepalive-timeout", "1")
    size = 6 * MIB
    with SlowClient(server, 3 * MIB) as client:
        began = time.monotonic()
        client.send(request("GET", f"/large/{size}"))
        responses = split_responses(client.read_rest())
        assert time.monotonic() - began > 1.8
        assert [body == large_body(size) for _, body in responses] == [True]


def test_download_longer_than_the_idle_time_of_a_drain_is_whole(start: Start) -> None:
    server = start("--graceful-timeout", "20")
    size = 6 * MIB
    with SlowClient(server, 3 * MIB) as client:
        client.send(request("GET", f"/large/{size}"))
        first = client.read_first()
        server.signal(signal.SIGTERM)
        began = time.monotonic()
        responses = split_responses(first + client.read_rest())
        assert time.monotonic() - began > 1.8
        assert [body == large_body(size) for _, body in responses] == [True]
    assert server.wait() == 0
    assert "cut off" not in server.log()


@pytest.mark.parametrize("sent", [4, 40])
def test_drain_puts_no_408_into_pipelined_responses(start: Start, sent: int) -> None:
    server = start("--graceful-timeout", "20")
    # Each takes longer than the idle time of a drain, 1 s.
    size = 4 * MIB
    with SlowClient(server, 3 * MIB) as client:
        client.send(request("GET", f"/large/{size}") * sent)
        first = client.read_first()
        # Two responses wait, and the other requests for them.
        time.sleep(0.2)
        server.signal(signal.SIGTERM)
        responses = split_responses(first + client.read_rest())
        assert 0 < len(responses) <= sent
        for head, body in responses:
            assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
            assert body == large_body(size)
        closes = [b"\r\nConnection: close" in head for head, _ in responses]
        assert not any(closes[:-1])
        # Whoever is not told that his other requests are lost got all of their answers.
        assert closes[-1] or len(responses) == sent
    assert server.wait() == 0
    assert "cut off" not in server.log()


def test_client_that_pipelines_and_never_reads_fills_no_memory(start: Start) -> None:
    server = start()
    assert server.get("/").whole() == HELLO
    before = server.memory_kib()
    most = sent = 0
    with server.client() as client:
        client.socket.setblocking(False)
        batch = request("GET", f"/large/{MIB}", headers=("X-Padding: " + "x" * 4000,)) * 64
        # Whole requests, so that the server finds nothing to refuse.
        left = batch
        while sent < 256 * MIB and select.select([], [client.socket], [], 1.0)[1]:
            count = client.socket.send(left)
            sent += count
            left = left[count:] or batch
            most = max(most, server.memory_kib() - before)
        assert MIB < sent < 64 * MIB, f"{sent / MIB:.0f} MiB were taken"
        assert most < 40 * 1024, f"{most / 1024:.0f} MiB more than before"
        assert server.get("/").whole() == HELLO
    server.assert_unchanged()


# Timeouts of handlers


def test_handler_that_swallows_its_timeout_loses_its_connection(start: Start) -> None:
    server = start("--handler-timeout", "0.5")
    with server.client() as client:
        began = time.monotonic()
        client.send(request("GET", "/timeout-swallowed/6.5"))
        while not client.has_answer() and time.monotonic() - began < 8:
            assert server.get("/sleep/0.01").whole() == page("slept")
        client.assert_closed(0.1)
        assert 5.2 < time.monotonic() - began < 6.8
    warning = "a handler went on after its timeout: its connection is closed"
    server.wait_for_log(warning)
    # The handler goes on for a second more, and what it answers is nobody's.
    assert server.get("/").whole() == HELLO
    server.assert_unchanged()
    assert server.log().count(warning) == 1
    assert "Traceback" not in server.log()


def test_timeout_of_a_handler_that_wakes_in_the_same_turn_is_not_lost(start: Start) -> None:
    server = start("--handler-timeout", "0.5")
    began = time.monotonic()
    clients = [server.client(timeout=3) for _ in range(20)]
    for client in clients:
        client.send(request("GET", "/sleep-for-ever"))
    for client in clients:
        answer = client.read()
        closes = answer.header("Connection") == "close"
        assert answer.whole() == refusal(503, close=closes, retry_after="1")
        assert 0.45 < time.monotonic() - began < 3
        client.close()
    assert server.get("/").whole() == HELLO


# Forks


@pytest.mark.parametrize("way", ["exit", "sleep", "return"])
def test_fork_in_a_handler_leaves_the_parents_connections_alone(start: Start, way: str) -> None:
    server = start()
    others = [server.client(timeout=5) for _ in range(8)]
    with server.client(timeout=5) as forking:
        for turn in range(10):
            for number, other in enumerate(others):
                other.send(
                    request("GET", f"/sleep/0.02/{turn}-{number}")
                    + request("GET", f"/users/{turn}-{number}")
                )
            answer = forking.get(f"/fork/{way}")
            child = int(answer.body)
            assert answer.whole() == page(str(child))
            for number, other in enumerate(others):
                assert other.read().whole() == page(f"slept as {turn}-{number}")
                assert other.read().whole() == page(f"user {turn}-{number}")
            assert server.get("/", "Connection: close").whole() == page(
                "hello world", connection="close"
            )
            assert reaped(server, child) == "0", server.log()
            forking.assert_open(0)
            for other in others:
                other.assert_open(0)
        assert forking.get("/").whole() == HELLO
        forking.assert_open()
    for other in others:
        other.close()
    server.assert_unchanged()
    assert "Traceback" not in server.log()


def reaped(server: Server, child: int) -> str:
    """The wait status of a child of the worker, when it has ended."""
    statuses: list[str] = []

    def ended() -> bool:
        statuses.append(server.get(f"/reap/{child}").body.decode())
        return statuses[-1] != "-1"

    wait_for(ended, f"child {child} ends: {server.log()}", 3)
    return statuses[-1]


# Bodies


def test_continue_is_sent_once_for_a_size_line_in_pieces(server: Server) -> None:
    head = request("POST", "/echo", headers=("Expect: 100-continue", "Transfer-Encoding: chunked"))
    with server.client() as client:
        for pieces in (
            [b"5", b"\r\n", b"hello\r\n0\r\n\r\n"],
            [b"5", b"\r", b"\n", b"he", b"llo", b"\r", b"\n", b"0", b"\r\n", b"\r", b"\n"],
        ):
            client.send(head)
            interim = client.read()
            assert (interim.status, interim.headers, interim.body) == (100, [], b"")
            for piece in pieces:
                client.assert_open(0.02)
                client.send(piece)
            assert client.read().whole() == page(b"hello", BINARY)
        # The same when the first part of the size line comes with the head.
        client.send(head + b"1")
        interim = client.read()
        assert (interim.status, interim.headers, interim.body) == (100, [], b"")
        client.assert_open(0.02)
        client.send_slowly(chunked(b"x" * 16)[1:], 0.002)
        assert client.read().whole() == page(b"x" * 16, BINARY)
        client.assert_open()


def test_large_body_after_a_head_in_two_packets_is_whole(server: Server) -> None:
    body = bytes(number * 7 % 251 for number in range(500_000))
    expected = page(f"{len(body)} {hashlib.sha256(body).hexdigest()}")
    for padding in (0, 3000, 20_000):
        whole = request("POST", "/digest", body, headers=("X-Padding: " + "x" * padding,))
        size = len(whole) - len(body)
        for splits in (
            *([at] for at in (1, 10, 30, size - 5, size - 1, size, size + 1)),
            *([at, size] for at in (1, size - 5)),
            [30, size + 1000],
            [30, size + 20_000],
        ):
            with server.client(timeout=3) as client:
                for start, end in zip([0, *splits], [*splits, len(whole)], strict=True):
                    client.send(whole[start:end])
                    time.sleep(0.01)
                assert client.read().whole() == expected
                assert client.get("/").whole() == HELLO
                client.assert_open(0.01)


# Ends


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (
            request("GET", "/", headers=("Connection: close",)),
            [page("hello world", connection="close")],
        ),
        (
            request("GET", "/") + request("GET", "/", headers=("Connection: close",)),
            [HELLO, page("hello world", connection="close")],
        ),
        (request("GET", "/") + b"nonsense\r\n\r\n", [HELLO, refusal(400)]),
        (
            request("GET", "/sleep/0.01") + b"nonsense\r\n\r\n",
            [page("slept"), refusal(400)],
        ),
        (
            request("GET", "/large/16384") + request("GET", "/", headers=("Connection: close",)),
            [page(large_body(16_384), BINARY), page("hello world", connection="close")],
        ),
        (
            request("GET", f"/large/{MIB}") + b"nonsense\r\n\r\n",
            [page(large_body(MIB), BINARY), refusal(400)],
        ),
    ],
    ids=[
        "close",
        "pipelined-close",
        "refusal",
        "refusal-after-sleep",
        "close-after-large",
        "refusal-after-large",
    ],
)
def test_last_response_is_followed_by_the_end_at_once(
    start: Start, sent: bytes, expected: list[object]
) -> None:
    """Nothing else happens in this server that could push what waits."""
    server = start()
    for _ in range(3):
        with server.client(timeout=3) as client:
            client.send(sent)
            began = time.monotonic()
            for whole in expected:
                assert client.read().whole() == whole
            client.assert_closed(0.5)
            assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("is_refused", [False, True])
def test_last_request_that_comes_with_a_write_under_way_is_followed_by_the_end_at_once(
    start: Start, is_refused: bool
) -> None:
    """The last request is received in the turn that sends the response before."""
    server = start()
    last = (
        b"nonsense\r\n\r\n" if is_refused else request("GET", "/", headers=("Connection: close",))
    )
    expected = refusal(400) if is_refused else page("hello world", connection="close")
    for _ in range(5):
        with server.client(timeout=3) as client:
            client.send(request("GET", "/spin/0.03"))
            time.sleep(0.01)
            client.send(last)
            assert client.read().whole() == page("spun")
            began = time.monotonic()
            assert client.read().whole() == expected
            client.assert_closed(0.5)
            assert time.monotonic() - began < 0.5


def test_drain_with_nothing_to_wait_for_ends_at_once(start: Start) -> None:
    for _ in range(10):
        server = start("--workers", "2")
        assert server.get("/").whole() == HELLO
        server.signal(signal.SIGINT)
        assert server.wait(2) == 0
        assert "Traceback" not in server.log()
