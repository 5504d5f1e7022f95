"""Many requests on one connection, and requests that arrive in pieces."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.client import page, request
from tests.server import Server

pytestmark = pytest.mark.wire

HELLO = page("hello world")


@pytest.mark.parametrize("depth", [2, 3, 16, 200])
def test_pipelined_requests_are_answered_in_order(server: Server, depth: int) -> None:
    with server.client() as client:
        client.send(b"".join(request("GET", f"/users/{number}") for number in range(depth)))
        for number in range(depth):
            assert client.read().whole() == page(f"user {number}")
        client.assert_open()


def test_pipelined_requests_with_bodies(server: Server) -> None:
    bodies = [b"a" * size for size in (0, 1, 5_000, 70_000, 3, 300_000, 0, 2)]
    with server.client() as client:
        client.send(b"".join(request("POST", "/echo", body) for body in bodies))
        for body in bodies:
            assert client.read().whole() == page(body, "application/octet-stream")
        client.assert_open()


def test_quick_sleeping_quick_in_order_and_the_first_at_once(
    server: Server, measured: Callable[[str], None]
) -> None:
    with server.client() as client:
        began = time.monotonic()
        client.send(
            request("GET", "/users/1") + request("GET", "/sleep/0.3") + request("GET", "/users/3")
        )
        assert client.read().whole() == page("user 1")
        first = time.monotonic() - began
        client.assert_open(0.1)
        assert client.read().whole() == page("slept")
        assert time.monotonic() - began >= 0.3
        assert client.read().whole() == page("user 3")
    measured(f"pipelined quick before a 300 ms sleeper: first response after {first * 1e3:.1f} ms")
    assert first < 0.1


def test_large_responses_in_a_pipeline(server: Server) -> None:
    sizes = (1 << 20, 16, 4 << 20, 32)
    with server.client() as client:
        client.send(b"".join(request("GET", f"/large/{size}") for size in sizes))
        for size in sizes:
            assert len(client.read().body) == size
        client.assert_open()


def test_pipeline_goes_on_after_a_failed_handler_or_closes(server: Server) -> None:
    with server.client() as client:
        client.send(
            request("GET", "/users/1") + request("GET", "/raise") + request("GET", "/users/3")
        )
        assert client.read().whole() == page("user 1")
        failed = client.read()
        assert failed.status == 500
        if failed.header("Connection") == "close":
            client.assert_closed()
        else:
            assert client.read().whole() == page("user 3")


def test_request_split_at_each_byte(server: Server) -> None:
    whole = request("POST", "/echo?a=b", b"the body\r\n\r\n", ("X-Header: value",))
    expected = page(b"the body\r\n\r\n", "application/octet-stream")
    with server.client() as client:
        for split in range(1, len(whole)):
            client.send(whole[:split])
            time.sleep(0.002)
            client.send(whole[split:])
            assert client.read().whole() == expected
        client.assert_open()


def test_two_requests_split_at_each_byte(server: Server) -> None:
    whole = request("POST", "/echo", b"body") + request("GET", "/users/2")
    with server.client() as client:
        for split in range(1, len(whole)):
            client.send(whole[:split])
            time.sleep(0.002)
            client.send(whole[split:])
            assert client.read().whole() == page(b"body", "application/octet-stream")
            assert client.read().whole() == page("user 2")
        client.assert_open()


def test_one_byte_at_a_time(server: Server) -> None:
    with server.client() as client:
        client.send_slowly(request("POST", "/echo", b"slowly", ("X-Header: value",)), 0.001)
        assert client.read().whole() == page(b"slowly", "application/octet-stream")
        client.assert_open()


def test_head_first_and_body_later(server: Server) -> None:
    whole = request("POST", "/echo", b"x" * 50)
    with server.client() as client:
        client.send(whole[:-50])
        client.assert_open(0.1)
        client.send(whole[-50:])
        assert client.read().whole() == page(b"x" * 50, "application/octet-stream")


@pytest.mark.parametrize("size", [10, 20_000, 500_000])
def test_half_of_the_body_first(server: Server, size: int) -> None:
    body = bytes(number % 256 for number in range(size))
    whole = request("POST", "/echo", body)
    with server.client() as client:
        for _ in range(3):
            client.send(whole[: len(whole) - size // 2])
            client.assert_open(0.02)
            client.send(whole[len(whole) - size // 2 :] + request("GET", "/"))
            assert client.read().whole() == page(body, "application/octet-stream")
            assert client.read().whole() == HELLO


@pytest.mark.parametrize("size", [4_000, 4_096, 16_384, 16_385, 65_537, 262_144])
@pytest.mark.parametrize("step", [1_000, 4_096, 65_536])
def test_body_in_steps(server: Server, size: int, step: int) -> None:
    body = bytes(number * 7 % 256 for number in range(size))
    with server.client() as client:
        client.send_slowly(request("POST", "/echo", body), 0.0002, step)
        assert client.read().whole() == page(body, "application/octet-stream")
        assert client.get("/").whole() == HELLO


def test_hundred_requests_on_one_connection(server: Server) -> None:
    with server.client() as client:
        for number in range(100):
            assert client.get(f"/users/{number}").whole() == page(f"user {number}")
        client.assert_open()


def test_connection_close_is_kept(server: Server) -> None:
    with server.client() as client:
        answer = client.get("/", "Connection: close")
        assert answer.whole() == page("hello world", connection="close")
        client.assert_closed()


def test_what_follows_connection_close_is_not_answered(server: Server) -> None:
    with server.client() as client:
        client.send(request("GET", "/", headers=("Connection: close",)) + request("GET", "/"))
        assert client.read().whole() == page("hello world", connection="close")
        client.assert_closed()


def test_http_1_0_closes(server: Server) -> None:
    with server.client() as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        answer = client.read()
        assert (answer.status, answer.body) == (200, b"hello world")
        assert answer.header("Connection") in (None, "close")
        client.assert_closed()


def test_http_1_0_with_keep_alive_stays(server: Server) -> None:
    with server.client() as client:
        for _ in range(2):
            client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert client.read().whole() == page("hello world", connection="keep-alive")
        client.assert_open()


def test_http_1_2_is_served_as_1_1(server: Server) -> None:
    with server.client() as client:
        client.send(b"GET / HTTP/1.2\r\nHost: test\r\n\r\n")
        assert client.read().whole() == HELLO
        client.assert_open()


def test_empty_lines_before_a_request_are_skipped(server: Server) -> None:
    with server.client() as client:
        client.send(b"\r\n" + request("GET", "/") + b"\r\n" + request("GET", "/"))
        assert client.read().whole() == HELLO
        assert client.read().whole() == HELLO


def test_end_of_input_after_a_request_still_gets_its_answer(server: Server) -> None:
    with server.client() as client:
        client.send(request("GET", "/sleep/0.05"))
        client.half_close()
        assert client.read().whole()[3] == b"slept"
        client.assert_closed()


def test_end_of_input_in_a_request_closes_without_an_answer(server: Server) -> None:
    for part in (b"GET / HT", request("POST", "/echo", b"body")[:-2]):
        with server.client() as client:
            client.send(part)
            client.half_close()
            data = client.socket.recv(4096)
            # A request that never ended may be refused, but never answered.
            assert data == b"" or data.startswith(b"HTTP/1.1 400 ")


def test_end_of_input_without_a_request_closes(server: Server) -> None:
    with server.client() as client:
        client.half_close()
        client.assert_closed()


def test_expect_continue(server: Server) -> None:
    whole = request("POST", "/echo", b"the body", ("Expect: 100-continue",))
    with server.client() as client:
        client.send(whole[:-8])
        interim = client.read()
        assert (interim.status, interim.headers, interim.body) == (100, [], b"")
        client.send(whole[-8:])
        assert client.read().whole() == page(b"the body", "application/octet-stream")
        client.assert_open()


def test_expect_continue_with_the_body_there_already(server: Server) -> None:
    with server.client() as client:
        client.send(request("POST", "/echo", b"the body", ("Expect: 100-continue",)))
        answer = client.read()
        if answer.status == 100:
            answer = client.read()
        assert answer.whole() == page(b"the body", "application/octet-stream")
        client.assert_open()


def test_expect_continue_on_what_is_refused(server: Server) -> None:
    for target, status in (("/nowhere", 404), ("/", 405)):
        with server.client() as client:
            client.send(request("POST", target, b"12345678", ("Expect: 100-continue",))[:-8])
            answer = client.read()
            assert (answer.status, answer.header("Connection")) == (status, "close")
            client.assert_closed()


def test_clients_that_vanish_leave_nothing_behind(server: Server) -> None:
    whole = request("POST", "/echo", b"x" * 100_000)
    for part in (b"", b"G", whole[:30], whole[:5000], whole, request("GET", "/sleep/0.05")):
        for way in ("close", "reset"):
            client = server.client()
            client.send(part)
            time.sleep(0.01)
            if way == "close":
                client.close()
            else:
                client.reset()
    large = server.client()
    large.send(request("GET", f"/large/{32 << 20}"))
    large.socket.recv(1000)
    large.reset()
    assert server.get("/").whole() == HELLO
