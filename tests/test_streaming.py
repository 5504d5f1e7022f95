"""Bodies that are taken while they arrive, responses that are sent while they are made."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client import Client, page, refusal, request
from tests.conftest import Start
from tests.load import Exchange, Plan, run
from tests.server import Server, command, wait_for

APP = "tests.apps.streams:app"


@pytest.fixture(scope="module")
def _streaming(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log_path = tmp_path_factory.mktemp("streams") / "log"
    server = Server(command("run", APP, "--port", "0"), log_path)
    yield server
    server.stop()


@pytest.fixture
def server(_streaming: Server) -> Iterator[Server]:
    yield _streaming
    _streaming.assert_unchanged()
    assert "Fatal" not in _streaming.log()
    assert "panicked" not in _streaming.log()
    _streaming.get("/seen")


def body(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def in_chunks(data: bytes, *sizes: int) -> bytes:
    """`data` in chunks of these sizes, again and again."""
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        piece = data[at : at + size]
        pieces.append(b"%x\r\n%s\r\n" % (len(piece), piece))
        at, turn = at + size, turn + 1
    return b"".join(pieces) + b"0\r\n\r\n"


def post(target: str, *headers: str) -> bytes:
    return request("POST", target, headers=headers)


def seen(server: Server) -> list[str]:
    found: list[str] = json.loads(server.get("/seen").body)
    return found


# Uploads

SIZES = [1, 100, 4_096, 16_384, 16_385, 65_536, 65_537, 300_000, 5_000_000]


@pytest.mark.parametrize("size", SIZES)
def test_a_body_by_length_arrives_whole(server: Server, size: int) -> None:
    data = body(size)
    with server.client() as client:
        for _ in range(2):
            client.send(post("/digest", f"Content-Length: {size}", "X-Mark: here") + data)
            got = client.read().json()
            assert got[:2] == [size, hashlib.sha256(data).hexdigest()]
            assert got[2] <= 65_536
            assert got[3] == "here"
        assert client.get("/").body == b"hello world"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunks", [(5_000_000,), (1000,), (1, 70_000, 3)])
def test_a_body_in_chunks_arrives_whole(server: Server, size: int, chunks: tuple[int, ...]) -> None:
    data = body(size)
    with server.client() as client:
        for _ in range(2):
            client.send(post("/digest", "Transfer-Encoding: chunked") + in_chunks(data, *chunks))
            assert client.read().json()[:2] == [size, hashlib.sha256(data).hexdigest()]
        assert client.get("/").body == b"hello world"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_split_at_every_byte(server: Server, framing: str) -> None:
    data = b"0123456789abcdef"
    if framing == "length":
        whole = post("/count", f"Content-Length: {len(data)}") + data
    else:
        whole = post("/count", "Transfer-Encoding: chunked") + in_chunks(data, 7)
    with server.client() as client:
        for at in range(1, len(whole)):
            client.send(whole[:at])
            time.sleep(0.001)
            client.send(whole[at:])
            assert client.read().json() == len(data)


def test_a_handler_starts_before_the_body_is_there(server: Server) -> None:
    with server.client() as client:
        client.send(post("/first-piece", "Content-Length: 1000000") + b"begun")
        assert client.read().whole() == page(
            "enough", "text/plain; charset=utf-8", connection="close"
        )


def test_requests_behind_a_body_are_answered(server: Server) -> None:
    data = body(200_000)
    one = post("/count", "Content-Length: 200000") + data
    two = post("/count", "Transfer-Encoding: chunked") + in_chunks(data, 999)
    with server.client() as client:
        client.send((one + two + request("GET", "/")) * 3)
        for _ in range(3):
            assert client.read().json() == 200_000
            assert client.read().json() == 200_000
            assert client.read().body == b"hello world"


def test_a_client_is_held_back_while_nothing_is_taken(server: Server) -> None:
    """What a handler does not take stays with the client, beyond the sockets' own buffers."""
    size = 64 << 20
    memory = server.memory_kib()
    with server.client() as client:
        client.send(post("/late/0.6", f"Content-Length: {size}"))
        client.socket.settimeout(0.3)
        sent = 0
        piece = bytes(1 << 20)
        with contextlib.suppress(TimeoutError):
            while sent < size:
                sent += client.socket.send(piece)
        assert sent < 32 << 20
        assert server.memory_kib() - memory < 2048
        client.socket.settimeout(10)
        while sent < size:
            sent += client.socket.send(piece[: size - sent])
        assert client.read().json() == [False, size]


def test_many_uploads_at_once(server: Server) -> None:
    plans = []
    for number in range(40):
        data = body(20_000 + number * 7_000)
        answer = str(len(data)).encode()
        by_length = Exchange(post("/count", f"Content-Length: {len(data)}") + data, 200, answer)
        sent = post("/count", "Transfer-Encoding: chunked") + in_chunks(data, 5_000, 17)
        plans.append(Plan([by_length, Exchange(sent, 200, answer)] * 5, 2))
    assert run(server.address, plans).answered == 400


def test_a_slow_handler_gets_all(server: Server) -> None:
    with server.client() as client:
        client.send(post("/slowly/0.01", "Content-Length: 600000") + body(600_000))
        assert client.read().json() == 600_000


def test_a_slow_client_is_waited_for(server: Server) -> None:
    data = body(3000)
    with server.client() as client:
        client.send(post("/digest", "Content-Length: 3000"))
        for at in range(0, 3000, 300):
            time.sleep(0.01)
            client.send(data[at : at + 300])
            assert server.get("/").body == b"hello world"
        assert client.read().json()[:2] == [3000, hashlib.sha256(data).hexdigest()]


def test_continue_is_sent_at_the_first_read(server: Server) -> None:
    with server.client() as client:
        client.send(post("/late/0.1", "Content-Length: 5", "Expect: 100-continue"))
        client.assert_open(0.05)
        assert client.read().status == 100
        client.send(b"12345")
        assert client.read().json() == [False, 5]
        assert client.get("/").body == b"hello world"


def test_no_continue_without_a_read(server: Server) -> None:
    with server.client() as client:
        client.send(post("/unread", "Content-Length: 5", "Expect: 100-continue"))
        answer = client.read().whole()
        assert answer == page("not interested", "text/plain; charset=utf-8", connection="close")


def test_a_body_that_was_not_read_ends_the_connection(server: Server) -> None:
    with server.client() as client:
        client.send(post("/unread", "Content-Length: 900000") + body(900_000))
        answer = client.read().whole()
        assert answer == page("not interested", "text/plain; charset=utf-8", connection="close")
        client.assert_closed()


def test_a_body_that_was_not_read_is_no_request_behind_a_stream(server: Server) -> None:
    smuggled = request("GET", "/raises/0")
    with server.client() as client:
        client.send(post("/unread-stream", f"Content-Length: {len(smuggled)}"))
        assert client.read().body == b"not interested"
        with contextlib.suppress(OSError):
            client.send(smuggled)
        client.assert_closed()


def test_a_short_body_that_was_not_read_does_not(server: Server) -> None:
    with server.client() as client:
        for framing in ("Content-Length: 5\r\n\r\n12345", "Transfer-Encoding: chunked\r\n\r\n"):
            rest = "" if "12345" in framing else "5\r\n12345\r\n0\r\n\r\n"
            client.send(f"POST /unread HTTP/1.1\r\nHost: a\r\n{framing}{rest}".encode())
            assert client.read().whole() == page("not interested", "text/plain; charset=utf-8")


def test_the_body_of_a_route_that_streams(server: Server) -> None:
    with server.client() as client:
        client.send(post("/body-of-a-stream", "Content-Length: 5") + b"12345")
        assert b"request.stream()" in client.read().body


def test_a_buffered_body_streams_in_one_piece(server: Server) -> None:
    with server.client() as client:
        client.send(request("POST", "/buffered", body(70_000)))
        assert client.read().json() == [70_000]
        client.send(request("POST", "/buffered"))
        assert client.read().json() == []


def test_a_request_that_is_kept_says_that_it_is_over(server: Server) -> None:
    with server.client() as client:
        client.send(post("/keep", "Content-Length: 5", "X-Mark: kept") + b"12345")
        assert client.read().body == b"kept"
        assert client.get("/kept").json() == ["POST", "/keep", "kept", "request is over"]


def test_only_one_greenlet_waits_for_a_body(server: Server) -> None:
    """And the end of the handler is told to the one that does."""
    with server.client() as client:
        client.send(post("/two-readers", "Content-Length: 5"))
        assert client.read().body == b"another greenlet waits for the same already"
    wait_for(lambda: seen(server) == ["RuntimeError: request is over"], "it was told")


# Bodies that end badly


def test_a_body_over_the_routes_limit(server: Server) -> None:
    with server.client() as client:
        client.send(post("/limited", "Content-Length: 100001"))
        assert client.read().whole() == refusal(413)
    with server.client() as client:
        client.send(post("/limited", "Content-Length: 100000") + body(100_000))
        assert client.read().json() == 100_000
        client.send(post("/limited", "Transfer-Encoding: chunked") + in_chunks(body(100_000), 999))
        assert client.read().json() == 100_000
        client.send(post("/limited", "Transfer-Encoding: chunked") + in_chunks(body(100_001), 999))
        assert client.read().whole() == refusal(413)


def test_the_limit_of_streams(start: Start) -> None:
    server = start("--max-stream-size", "1000", app=APP)
    for target, status in (("/count", 413), ("/limited", 200), ("/no-limit", 200)):
        with server.client() as client:
            client.send(post(target, "Content-Length: 1001") + body(1001))
            assert client.read().status == status
        with server.client() as client:
            client.send(post(target, "Transfer-Encoding: chunked") + in_chunks(body(1001), 100))
            assert client.read().status == status


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_malformed_chunk(server: Server, at: int) -> None:
    """In the first bytes it is refused before the handler starts; later the handler is told."""
    good = b"5\r\nfirst\r\n" * at
    with server.client() as client:
        client.send(post("/body-error", "Transfer-Encoding: chunked"))
        wait_for(lambda: server.get("/stats").json()["waits"] == 1, "the handler waits")
        client.send(good + b"zz\r\n")
        assert client.read().whole() == refusal(400)
        client.assert_closed()
    assert seen(server) == ["BodyError 400"]
    with server.client() as client:
        client.send(post("/body-error-handled", "Transfer-Encoding: chunked"))
        wait_for(lambda: server.get("/stats").json()["waits"] == 1, "the handler waits")
        client.send(good + b"zz\r\n")
        assert client.read().whole() == page(
            "handled 400", "text/plain; charset=utf-8", 422, connection="close"
        )


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_client_that_leaves_in_its_body(server: Server, how: str, framing: str) -> None:
    client = server.client()
    client.send(post("/body-error", framing) + b"5\r\nfirst\r\n")
    wait_for(lambda: server.get("/stats").json()["waits"] == 1, "the handler waits")
    if how == "reset":
        client.reset()
    else:
        client.close()
    wait_for(lambda: server.get("/stats").json()["exchanges"] == 1, "it has ended")
    assert [line.split()[0] for line in seen(server)] == ["ClientDisconnected"]
    assert "ClientDisconnected" not in server.log()


def test_a_client_that_leaves_while_nothing_is_taken(server: Server) -> None:
    client = server.client()
    client.send(post("/late/0.3", "Content-Length: 1000000") + body(200_000))
    time.sleep(0.1)
    client.reset()
    wait_for(lambda: server.get("/stats").json()["exchanges"] == 1, "it has ended")


def test_a_body_that_stops(start: Start) -> None:
    server = start("--read-timeout", "0.3", app=APP)
    for headers in (
        "Content-Length: 1000",
        "Content-Length: 1000000",
        "Transfer-Encoding: chunked",
    ):
        with server.client() as client:
            began = time.monotonic()
            client.send(post("/body-error", headers) + b"5\r\nfirst\r\n")
            assert client.read().whole() == refusal(408)
            assert 0.25 < time.monotonic() - began < 1.5
            client.assert_closed()
    assert seen(server) == ["BodyError 408"] * 3


def test_a_body_that_drips(start: Start) -> None:
    server = start("--read-timeout", "0.4", "--min-body-rate", "1000", app=APP)
    with server.client() as client:
        client.send(post("/body-error", "Content-Length: 100000"))
        for _ in range(40):
            time.sleep(0.05)
            try:
                client.send(b"x")
            except OSError:
                break
        assert client.read().whole() == refusal(408)
    assert seen(server) == ["BodyError 408"]


def test_the_time_of_a_handler_does_not_count(start: Start) -> None:
    """A handler that takes its time is no reason to blame the client, nor to end the handler."""
    server = start("--read-timeout", "0.3", "--handler-timeout", "0.4", app=APP)
    with server.client() as client:
        client.send(post("/slowly/0.5", "Content-Length: 150000") + body(150_000))
        assert client.read().json() == 150_000


# Downloads


def pieces(count: int, size: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") * (size // 4) for number in range(count))


@pytest.mark.parametrize(
    ("count", "size"), [(1, 4), (3, 4096), (3, 4100), (1000, 8), (40, 100_000), (3, 3_000_000)]
)
def test_a_stream_in_chunks(server: Server, count: int, size: int) -> None:
    with server.client() as client:
        for _ in range(2):
            client.send(request("GET", f"/pieces/{count}/{size}"))
            answer = client.read()
            assert answer.body == pieces(count, size)
            assert answer.header("Content-Type") == "application/octet-stream"
            assert answer.header("Content-Length") is None
        assert client.get("/").body == b"hello world"


@pytest.mark.parametrize(("count", "size"), [(1, 4), (40, 100_000)])
def test_a_stream_of_known_length(server: Server, count: int, size: int) -> None:
    with server.client() as client:
        for _ in range(2):
            answer = client.get(f"/known/{count * size}/{count}/{size}")
            assert answer.body == pieces(count, size)
            assert answer.header("Transfer-Encoding") is None
        assert client.get("/known-by-header").body == b"0123456789"


def test_pipelined_streams(server: Server) -> None:
    with server.client() as client:
        one = request("GET", "/pieces/5/70000") + request("GET", "/") + request("GET", "/writes")
        client.send(one * 4)
        for _ in range(4):
            assert client.read().body == pieces(5, 70_000)
            assert client.read().body == b"hello world"
            assert client.read().body == b"one two three"


def test_writes_of_a_stream(server: Server) -> None:
    with server.client() as client:
        client.send(request("GET", "/writes"))
        answer = client.read()
        assert (answer.status, answer.header("X-Mark")) == (201, "yes")
        assert answer.header("Content-Type") == "text/plain; charset=utf-8"
        assert answer.body == b"one two three"
        client.send(request("GET", "/write-then-stream"))
        assert client.read().body == b"before within after"


def test_pieces_go_out_as_they_are_written(server: Server) -> None:
    with server.client() as client:
        client.send(request("GET", "/events/3"))
        got, arrived = b"", []
        while got.count(b"id: ") < 3:
            got += client.socket.recv(65_536)
            arrived.append(got.count(b"id: "))
        assert arrived[:2] == [1, 2]


def test_server_sent_events(server: Server) -> None:
    with server.client() as client:
        client.send(request("GET", "/events/2"))
        answer = client.read()
        assert answer.header("Content-Type") == "text/event-stream"
        assert answer.header("Cache-Control") == "no-cache"
        assert answer.body == b"".join(
            b"event: tick\nid: %d\nretry: 1500\ndata: number %d\ndata: second line\n\n" % (n, n)
            for n in range(2)
        )
        assert client.get("/bad-event").body == b"the event of an event is one line"


def test_a_stream_of_nothing(server: Server) -> None:
    with server.client() as client:
        client.send(request("GET", "/nothing"))
        answer = client.read()
        assert (answer.status, answer.body) == (200, b"")
        assert answer.header("Content-Type") is None
        assert client.get("/").body == b"hello world"


def test_responses_without_a_body(server: Server) -> None:
    with server.client() as client:
        client.send(request("GET", "/no-content") + request("HEAD", "/pieces/3/100000"))
        assert client.read().status == 204
        answer = client.read("HEAD")
        assert answer.header("Transfer-Encoding") == "chunked"
        client.send(request("HEAD", "/known/300/3/100"))
        assert client.read("HEAD").header("Content-Length") == "300"
        client.send(request("HEAD", "/endless/head"))
        assert client.read("HEAD").header("Transfer-Encoding") == "chunked"
        assert client.get("/").body == b"hello world"


def test_http_1_0_gets_the_body_up_to_the_end(server: Server) -> None:
    with server.client() as client:
        client.send(b"GET /pieces/3/70000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        got = client.read_to_end()
        head, _, rest = got.partition(b"\r\n\r\n")
        assert b"Connection: close" in head
        assert b"Transfer-Encoding" not in head
        assert rest == pieces(3, 70_000)


def test_what_a_sent_head_makes_impossible(server: Server) -> None:
    with server.client() as client:
        client.send(request("GET", "/too-late"))
        assert client.read().body == b"begun;status;header;json;redirect;length;"


def test_an_error_before_the_first_piece_is_a_500(server: Server) -> None:
    with server.client() as client:
        assert client.get("/raises/0").whole() == refusal(500, close=False)
        assert client.get("/").body == b"hello world"


@pytest.mark.parametrize(
    "target", ["/raises/1", "/raises/5000", "/wrong-type", "/known/100/1/96", "/known/100/1/104"]
)
def test_an_error_behind_the_head_cuts_the_response_off(server: Server, target: str) -> None:
    with server.client() as client:
        client.send(request("GET", target))
        got = client.read_to_end()
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert not got.endswith(b"\r\n0\r\n\r\n")
    assert b"Internal Server Error" not in got


def test_middleware_that_raises_behind_a_stream(server: Server) -> None:
    with server.client() as client:
        client.send(request("GET", "/pieces/1/4", headers=("X-Fail: yes",)))
        got = client.read_to_end()
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert not got.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_a_client_that_leaves_in_a_response(server: Server, how: str) -> None:
    client = server.client()
    client.send(request("GET", f"/endless/{how}"))
    assert client.socket.recv(1000)
    if how == "reset":
        client.reset()
    else:
        client.close()
    wait_for(lambda: server.get("/stats").json()["exchanges"] == 1, "it has ended")
    assert seen(server) == [f"{how} closed", f"{how} ClientDisconnected"]


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_disconnected_tells(server: Server, how: str) -> None:
    client = server.client()
    client.send(request("GET", f"/wait-for-the-end/{how}"))
    wait_for(lambda: server.get("/stats").json()["waits"] == 1, "the handler waits")
    began = time.monotonic()
    if how == "reset":
        client.reset()
    else:
        client.socket.shutdown(socket.SHUT_WR)
    wait_for(lambda: seen(server) == [f"{how} True"], "it was told")
    assert time.monotonic() - began < 1
    if how == "fin":
        assert client.read().body == b"too late"
        client.close()


def test_a_slow_reader_parks_the_handler(server: Server) -> None:
    memory = server.memory_kib()
    with Client(server.address, receive_buffer=65_536) as client:
        client.send(request("GET", "/endless/slow"))
        time.sleep(0.2)
        assert server.memory_kib() - memory < 2048
        assert server.get("/stats").json()["waits"] == 1
        for _ in range(100):
            assert client.socket.recv(65_536)
    wait_for(lambda: "slow closed" in seen(server), "the generator was closed")


def test_a_reader_that_takes_nothing(start: Start) -> None:
    server = start("--write-timeout", "0.5", app=APP)
    with Client(server.address, receive_buffer=65_536) as client:
        client.send(request("GET", "/endless/stuck"))
        began = time.monotonic()
        wait_for(lambda: "stuck closed" in seen(server), "the generator was closed")
        assert time.monotonic() - began < 3


def test_a_stream_outlives_the_time_of_handlers(start: Start) -> None:
    server = start("--handler-timeout", "0.2", app=APP)
    with server.client() as client:
        client.send(request("GET", "/events/50"))
        assert client.read().body.count(b"tick") == 50


def test_both_ways_at_once(server: Server) -> None:
    data = body(3_000_000)
    with server.client() as client:
        client.send(post("/echo", "Transfer-Encoding: chunked"))
        sending = threading.Thread(target=client.send, args=(in_chunks(data, 40_000),))
        sending.start()
        assert client.read().body == data
        sending.join()
        assert client.get("/").body == b"hello world"


def test_streams_in_a_drain(start: Start) -> None:
    server = start(app=APP)
    with server.client() as client, server.client() as upload:
        client.send(request("GET", "/events/30"))
        upload.send(post("/count", "Content-Length: 10"))
        assert client.socket.recv(10)
        server.process.terminate()
        time.sleep(0.1)
        upload.send(b"0123456789")
        assert upload.read().json() == 10
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            piece = client.socket.recv(65_536)
            assert piece
            got += piece
        assert got.count(b"tick") >= 29
    assert server.wait() == 0


# What they cost


def test_two_gigabytes_each_way_in_little_memory(
    start: Start, measured: Callable[[str], None], tmp_path: Path
) -> None:
    server = start("--read-timeout", "60", app=APP)
    total, piece = 2 << 30, bytes(1 << 20)
    most = 0
    with server.client(timeout=120) as client:
        client.send(post("/count", f"Content-Length: {total}"))
        began = time.monotonic()
        for number in range(total // len(piece)):
            client.socket.sendall(piece)
            if number % 64 == 0:
                most = max(most, server.memory_kib())
        assert client.read().json() == total
        up = time.monotonic() - began
        client.send(request("GET", f"/known/{total}/{total >> 16}/65536"))
        began, got, buffer = time.monotonic(), 0, bytearray(1 << 20)
        while got < total:
            count = client.socket.recv_into(buffer)
            assert count
            if (got >> 26) != (got + count) >> 26:
                most = max(most, server.memory_kib())
            got += count
        down = time.monotonic() - began
    measured(
        f"2 GiB up in {up:.1f} s, 2 GiB down in {down:.1f} s, with at most {most / 1024:.0f} MiB"
    )
    assert most < 64 * 1024
