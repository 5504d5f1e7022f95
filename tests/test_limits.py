"""Each limit is answered as it should be, exactly its size passes, and the server lives on."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.client import Client, MalformedError, chunked, page, refusal, request
from tests.conftest import Start
from tests.server import Server, wait_for

HELLO = page("hello world")
BINARY = "application/octet-stream"


def assert_refused(server: Server, data: bytes, status: int) -> None:
    """`data` gets this one response and a close, and the next client is served."""
    with server.client() as client:
        client.send(data)
        assert client.read().whole() == refusal(status)
        client.assert_closed()
    assert server.get("/").whole() == HELLO


def test_body_of_exactly_the_limit_passes(start: Start) -> None:
    server = start("--max-body-size", "1000")
    with server.client() as client:
        body = b"x" * 1000
        assert client.request("POST", "/echo", body).whole() == page(body, BINARY)
        client.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(chunked(b"x" * 999, b"x"))
        assert client.read().whole() == page(body, BINARY)


def test_body_over_the_limit_is_413(start: Start) -> None:
    server = start("--max-body-size", "1000")
    assert_refused(server, request("POST", "/echo", b"x" * 1001), 413)
    head = b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert_refused(server, head + chunked(b"x" * 600, b"x" * 401), 413)
    assert_refused(server, head + b"fffffffff\r\n", 413)


def test_default_limit_of_one_mebibyte(server: Server) -> None:
    assert_refused(
        server, b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1048577\r\n\r\n", 413
    )
    with server.client() as client:
        body = b"x" * 1_048_576
        assert client.request("POST", "/echo", body).whole() == page(body, BINARY)


def test_413_reaches_a_client_that_goes_on_sending(server: Server) -> None:
    """The connection lingers: no reset may destroy the response before it is read."""
    with server.client() as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3000000\r\n\r\n")
        try:
            for _ in range(30):
                client.send(b"x" * 100_000)
                time.sleep(0.001)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert client.read().whole() == refusal(413)


def test_413_comes_before_a_waiting_body(server: Server) -> None:
    with server.client() as client:
        client.send(
            b"POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
            b"Content-Length: 3000000\r\n\r\n"
        )
        assert client.read().whole() == refusal(413)
        client.assert_closed()


def test_target_at_and_over_the_limit(start: Start) -> None:
    server = start("--max-target-size", "100")
    assert server.get("/files/" + "x" * 93).whole() == page("file " + "x" * 93)
    assert_refused(server, request("GET", "/files/" + "x" * 94), 414)
    assert_refused(server, b"GET /" + b"x" * 5000, 414)


def test_default_target_limit(server: Server) -> None:
    assert server.get("/files/" + "x" * 8185).body == b"file " + b"x" * 8185
    assert_refused(server, request("GET", "/files/" + "x" * 8186), 414)


def test_head_at_and_over_the_limit(start: Start) -> None:
    server = start("--max-header-size", "1000")
    empty = len(request("GET", "/", headers=("X: ",)))
    with server.client() as client:
        assert client.get("/", "X: " + "x" * (1000 - empty)).whole() == HELLO
    assert_refused(server, request("GET", "/", headers=("X: " + "x" * (1001 - empty),)), 431)


def test_default_head_limit(server: Server) -> None:
    assert_refused(server, request("GET", "/", headers=("X: " + "x" * 33_000,)), 431)
    many = tuple(f"X-{number}: y" for number in range(4000))
    assert_refused(server, request("GET", "/", headers=many), 431)


def test_head_without_end_is_431(server: Server) -> None:
    with server.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: t\r\n")
        try:
            for _ in range(40):
                client.send(b"X-Header: " + b"x" * 1000 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert client.read().whole() == refusal(431)
    assert server.get("/").whole() == HELLO


@pytest.mark.parametrize("part", [b"G", b"GET / HTTP/1.1\r\nHost: t\r\n", b"GET / HTTP/1.1\r\nX"])
def test_slow_head_is_408(start: Start, part: bytes) -> None:
    server = start("--read-timeout", "0.3")
    with server.client() as client:
        began = time.monotonic()
        client.send(part)
        assert client.read().whole() == refusal(408)
        assert 0.25 < time.monotonic() - began < 2
        client.assert_closed()
    assert server.get("/").whole() == HELLO


def test_head_must_be_complete_in_time_however_many_bytes_come(start: Start) -> None:
    server = start("--read-timeout", "0.3")
    with server.client() as client:
        began = time.monotonic()
        for byte in request("GET", "/", headers=("X: " + "x" * 200,)):
            client.send(bytes([byte]))
            time.sleep(0.02)
            if client.has_answer():
                break
        assert 0.25 < time.monotonic() - began < 2
        assert client.read().whole() == refusal(408)


def test_slow_second_head_is_408(start: Start) -> None:
    server = start("--read-timeout", "0.3")
    with server.client() as client:
        assert client.get("/").whole() == HELLO
        client.send(b"GET /")
        assert client.read().whole() == refusal(408)
        client.assert_closed()


@pytest.mark.parametrize("size", [100, 100_000])
def test_body_that_stops_is_408(start: Start, size: int) -> None:
    server = start("--read-timeout", "0.3")
    with server.client() as client:
        client.send(request("POST", "/echo", b"x" * size)[:-1])
        began = time.monotonic()
        assert client.read().whole() == refusal(408)
        assert 0.25 < time.monotonic() - began < 2
        client.assert_closed()
    assert server.get("/").whole() == HELLO


def test_body_that_goes_on_is_not_late(start: Start) -> None:
    server = start("--read-timeout", "0.3", "--min-body-rate", "0")
    with server.client() as client:
        client.send_slowly(request("POST", "/echo", b"x" * 10), 0.0, 1000)
        whole = request("POST", "/echo", b"y" * 10)
        client.send(whole[:-10])
        client.send_slowly(whole[-10:], 0.1)
        assert client.read().whole() == page(b"x" * 10, BINARY)
        assert client.read().whole() == page(b"y" * 10, BINARY)


def test_body_below_the_rate_is_408(start: Start) -> None:
    server = start("--read-timeout", "0.4", "--min-body-rate", "10000")
    with server.client() as client:
        whole = request("POST", "/echo", b"x" * 50_000)
        client.send(whole[:-50_000])
        began = time.monotonic()
        while time.monotonic() - began < 4 and not client.has_answer():
            client.send(b"x" * 10)
            time.sleep(0.05)
        assert time.monotonic() - began < 3
        assert client.read().whole() == refusal(408)


def test_idle_connection_is_closed_silently(start: Start) -> None:
    server = start("--keepalive-timeout", "0.3")
    with server.client() as client:
        assert client.get("/").whole() == HELLO
        began = time.monotonic()
        client.assert_closed()
        assert 0.25 < time.monotonic() - began < 2


def test_keepalive_timeout_begins_anew_with_each_request(start: Start) -> None:
    server = start("--keepalive-timeout", "0.4")
    with server.client() as client:
        for _ in range(5):
            assert client.get("/").whole() == HELLO
            time.sleep(0.2)
        assert client.get("/sleep/0.6").whole() == page("slept")
        assert client.get("/").whole() == HELLO


def test_connection_that_never_sends_is_closed(start: Start) -> None:
    server = start("--keepalive-timeout", "0.3", "--read-timeout", "0.3")
    with server.client() as client:
        data = client.socket.recv(4096)
        assert data == b"" or data.startswith(b"HTTP/1.1 408 ")


def test_client_that_does_not_read_is_closed(start: Start) -> None:
    server = start("--write-timeout", "0.5")
    client = Client(server.address, receive_buffer=4096)
    assert client.get("/").whole() == HELLO
    before = server.descriptors()
    client.send(request("GET", f"/large/{32 << 20}"))
    wait_for(lambda: _fewer(server, before), "the close")
    with pytest.raises((MalformedError, ConnectionResetError)):
        client.read()
    client.close()
    assert server.get("/").whole() == HELLO


def test_kernel_holds_little_for_a_client_that_does_not_read(start: Start) -> None:
    """Not what fits its largest send buffer: four megabytes."""
    server = start()
    with Client(server.address, receive_buffer=4096) as client:
        client.send(request("GET", f"/large/{32 << 20}"))
        wait_for(lambda: _send_queue(server, client) > 0, "the response begins")
        time.sleep(0.3)
        assert _send_queue(server, client) <= 256 << 10


def _send_queue(server: Server, client: Client) -> int:
    """Bytes that the kernel holds for this client, on the server's side."""
    ports = f":{server.address[1]:04X}", f":{client.socket.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, own, peer, _, queues, *_ = line.split()
        if (own[-5:], peer[-5:]) == ports:
            return int(queues.split(":")[0], 16)
    return 0


def _fewer(server: Server, before: dict[int, int]) -> bool:
    now = server.descriptors()
    return all(now[pid] < count for pid, count in before.items())


def test_slow_reader_is_not_closed(start: Start) -> None:
    # The kernel takes the first byte beyond its buffer when about half of that is free again.
    server = start("--write-timeout", "1.5")
    client = Client(server.address, receive_buffer=65_536)
    with client:
        client.send(request("GET", f"/large/{8 << 20}"))
        received = 0
        while received < 8 << 20:
            time.sleep(0.02)
            data = client.socket.recv(65_536)
            assert data, f"closed after {received} bytes"
            received += len(data)


def test_reader_slower_than_the_sockets_buffer_empties_is_not_closed(start: Start) -> None:
    """The socket takes nothing for longer than the limit; the peer takes some all the while."""
    server = start("--write-timeout", "0.5")
    client = Client(server.address, receive_buffer=65_536)
    length = 6 << 20
    with client:
        client.send(request("GET", f"/large/{length}"))
        received = 0
        while received < length:
            time.sleep(0.02)
            data = client.socket.recv(32_768)
            assert data, f"closed after {received} bytes"
            received += len(data)


def test_handler_over_its_time_is_503(start: Start) -> None:
    server = start("--handler-timeout", "0.3")
    with server.client() as client:
        began = time.monotonic()
        answer = client.get("/timeout-seen")
        assert 0.25 < time.monotonic() - began < 2
        assert answer.status == 503
    server.wait_for_log("handler saw its timeout")
    assert server.get("/sleep/0.1").whole() == page("slept")


def test_handler_timeout_zero_is_off(start: Start) -> None:
    server = start("--handler-timeout", "0")
    assert server.get("/sleep/0.5").whole() == page("slept")


def test_connections_over_the_limit_get_503(start: Start) -> None:
    server = start("--max-connections", "4", "--accept-pause", "0")
    held = [server.client() for _ in range(4)]
    for client in held:
        assert client.get("/").whole() == HELLO
    for _ in range(3):
        with server.client() as client:
            client.send(request("GET", "/"))
            answer = client.read()
            retry_after = answer.header("Retry-After") or ""
            assert retry_after.isdigit()
            assert answer.whole() == refusal(503, retry_after=retry_after)
            client.assert_closed()
    for client in held:
        assert client.get("/").whole() == HELLO
        client.close()
    wait_for(lambda: server.get("/").status == 200, "connections are accepted again")


def test_full_worker_pauses_before_it_refuses(start: Start) -> None:
    server = start("--max-connections", "2", "--accept-pause", "0.5")
    held = [server.client() for _ in range(2)]
    for client in held:
        assert client.get("/").whole() == HELLO
    with server.client() as client:
        began = time.monotonic()
        client.send(request("GET", "/"))
        assert client.read().status == 503
        assert 0.3 < time.monotonic() - began < 2
    for client in held:
        client.close()


def test_waiting_connection_is_served_when_a_place_is_free(start: Start) -> None:
    server = start("--max-connections", "2", "--accept-pause", "30")
    held = [server.client() for _ in range(2)]
    for client in held:
        assert client.get("/").whole() == HELLO
    with server.client() as client:
        client.send(request("GET", "/"))
        client.assert_open(0.2)
        held[0].close()
        assert client.read().whole() == HELLO
    held[1].close()


def test_limit_on_open_files_lowers_max_connections(start: Start) -> None:
    server = start("--accept-pause", "0", nofile=136)
    assert "max_connections is lowered from 4096 to 40" in server.log()
    held = [server.client() for _ in range(40)]
    for client in held:
        assert client.get("/").whole() == HELLO
    with server.client() as client:
        client.send(request("GET", "/"))
        assert client.read().status == 503
    for client in held:
        assert client.get("/").whole() == HELLO
        client.close()


@pytest.mark.parametrize("target", ["/raise", "/raise-after-sleep"])
def test_exception_is_500_and_logged_but_not_shown(start: Start, target: str) -> None:
    server = start()
    with server.client() as client:
        answer = client.get(target)
        closes = answer.header("Connection") == "close"
        assert answer.whole() == refusal(500, close=closes)
    server.wait_for_log("RuntimeError: a secret detail")
    log = server.log()
    assert f"GET {target} failed" in log
    assert "Traceback (most recent call last)" in log
    assert "tests/apps/main.py" in log
    assert server.get("/").whole() == HELLO


@pytest.mark.parametrize("name", ["SystemExit", "GreenletExit", "Strange"])
def test_base_exceptions_end_only_their_request(start: Start, name: str) -> None:
    server = start()
    answer = server.get(f"/raise/{name}")
    assert answer.status == 500
    assert b"secret" not in answer.body
    server.wait_for_log(name)
    for _ in range(3):
        assert server.get("/sleep/0.001").whole() == page("slept")


def test_keyboard_interrupt_of_a_handler_is_answered(start: Start) -> None:
    """It may end the worker, in order and with status 0; then another takes its place."""
    server = start()
    assert server.get("/raise/KeyboardInterrupt").status == 500
    server.wait_for_log("KeyboardInterrupt")
    time.sleep(0.2)
    assert server.get("/").whole() == HELLO
    server.settle()


def test_many_exceptions_in_a_row(server: Server) -> None:
    for _ in range(200):
        assert server.get("/raise").status == 500
    assert server.get("/").whole() == HELLO


def test_refused_connections_do_not_keep_descriptors(server: Server) -> None:
    for _ in range(100):
        with socket.create_connection(server.address) as connection:  # type: ignore[arg-type]
            connection.sendall(b"nonsense\r\n\r\n")
    assert server.get("/").whole() == HELLO
