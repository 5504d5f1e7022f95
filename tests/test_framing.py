"""What a strict server must refuse, and chunked bodies.

Every refusal is one response and a close; nothing of the refused bytes is taken for a request.
"""

from __future__ import annotations

import time

import pytest

from tests.client import chunked, page, refusal, request
from tests.server import Server

pytestmark = pytest.mark.wire

HELLO = page("hello world")
BINARY = "application/octet-stream"
POST = b"POST /echo HTTP/1.1\r\nHost: t\r\n"
GET = b"GET / HTTP/1.1\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

MALFORMED: dict[str, tuple[int, bytes]] = {
    # Request line
    "no version": (400, b"GET /\r\nHost: t\r\n\r\n"),
    "no target": (400, b"GET HTTP/1.1\r\nHost: t\r\n\r\n"),
    "two spaces": (400, b"GET  / HTTP/1.1\r\nHost: t\r\n\r\n"),
    "space before the end": (400, b"GET / HTTP/1.1 \r\nHost: t\r\n\r\n"),
    "tab for a space": (400, b"GET\t/ HTTP/1.1\r\nHost: t\r\n\r\n"),
    "space in the target": (400, b"GET /a b HTTP/1.1\r\nHost: t\r\n\r\n"),
    "method that is no token": (400, b"G(T / HTTP/1.1\r\nHost: t\r\n\r\n"),
    "relative target": (400, b"GET index HTTP/1.1\r\nHost: t\r\n\r\n"),
    "fragment": (400, b"GET /#a HTTP/1.1\r\nHost: t\r\n\r\n"),
    "byte over 127 in the target": (400, b"GET /\xff HTTP/1.1\r\nHost: t\r\n\r\n"),
    "NUL in the target": (400, b"GET /\0 HTTP/1.1\r\nHost: t\r\n\r\n"),
    "lower-case http": (400, b"GET / http/1.1\r\nHost: t\r\n\r\n"),
    "version of two digits": (400, b"GET / HTTP/1.10\r\nHost: t\r\n\r\n"),
    "version 2": (505, b"GET / HTTP/2.0\r\nHost: t\r\n\r\n"),
    "preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "version 0.9": (505, b"GET / HTTP/0.9\r\nHost: t\r\n\r\n"),
    "nonsense": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    "bare LF after the request line": (400, b"GET / HTTP/1.1\nHost: t\r\n\r\n"),
    "bare LF everywhere": (400, b"GET / HTTP/1.1\nHost: t\n\n"),
    # Header fields
    "no Host": (400, GET + b"\r\n"),
    "two Hosts": (400, GET + b"Host: a\r\nHost: b\r\n\r\n"),
    "two equal Hosts": (400, GET + b"Host: a\r\nHost: a\r\n\r\n"),
    "bad Host": (400, GET + b"Host: a b\r\n\r\n"),
    "Host with a path": (400, GET + b"Host: a/b\r\n\r\n"),
    "space before the colon": (400, GET + b"Host : t\r\n\r\n"),
    "tab before the colon": (400, GET + b"Host: t\r\nX\t: y\r\n\r\n"),
    "no colon": (400, GET + b"Host: t\r\nnonsense\r\n\r\n"),
    "empty name": (400, GET + b"Host: t\r\n: x\r\n\r\n"),
    "name that is no token": (400, GET + b"Host: t\r\nX(Y: z\r\n\r\n"),
    "folded line": (400, GET + b"Host: t\r\nX: y\r\n z\r\n\r\n"),
    "folded first line": (400, GET + b" Host: t\r\nHost: t\r\n\r\n"),
    "bare CR in a value": (400, GET + b"Host: t\r\nX: y\rz\r\n\r\n"),
    "NUL in a value": (400, GET + b"Host: t\r\nX: y\0z\r\n\r\n"),
    "NUL in a name": (400, GET + b"Host: t\r\nX\0: y\r\n\r\n"),
    "bare LF in the head": (400, GET + b"Host: t\r\nX: y\nZ: a\r\n\r\n"),
    "unknown expectation": (417, POST + b"Expect: tea\r\nContent-Length: 4\r\n\r\nbody"),
    # Content-Length
    "length not a number": (400, POST + b"Content-Length: abc\r\n\r\n"),
    "length empty": (400, POST + b"Content-Length: \r\n\r\n"),
    "length negative": (400, POST + b"Content-Length: -1\r\n\r\n"),
    "length with a sign": (400, POST + b"Content-Length: +4\r\n\r\nbody"),
    "length hexadecimal": (400, POST + b"Content-Length: 0x4\r\n\r\nbody"),
    "length with an underscore": (400, POST + b"Content-Length: 1_0\r\n\r\n0123456789"),
    "length with a fraction": (400, POST + b"Content-Length: 4.0\r\n\r\nbody"),
    "length over 64 bits": (400, POST + b"Content-Length: 18446744073709551616\r\n\r\n"),
    "length with many digits": (400, POST + b"Content-Length: " + b"9" * 100 + b"\r\n\r\n"),
    "lengths that differ": (400, POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody"),
    "list of lengths that differ": (400, POST + b"Content-Length: 4, 5\r\n\r\nbody"),
    # Transfer-Encoding
    "length and chunked": (
        400,
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "chunked and length": (
        400,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
    "coding without chunked": (400, POST + b"Transfer-Encoding: gzip\r\n\r\n"),
    "identity": (400, POST + b"Transfer-Encoding: identity\r\n\r\n"),
    "chunked not last": (400, POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    "chunked twice": (400, POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "chunked in two fields": (
        400,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "chunked with a control byte": (
        400,
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    "xchunked": (400, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "empty coding": (400, POST + b"Transfer-Encoding: \r\n\r\n"),
    "unknown coding": (501, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "chunked in HTTP/1.0": (
        400,
        b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    # Chunks
    "chunk size not hexadecimal": (400, CHUNKED + b"g\r\n"),
    "chunk size empty": (400, CHUNKED + b"\r\nbody\r\n"),
    "chunk size with 0x": (400, CHUNKED + b"0x4\r\nbody\r\n0\r\n\r\n"),
    "chunk size with a sign": (400, CHUNKED + b"+4\r\nbody\r\n0\r\n\r\n"),
    "chunk size negative": (400, CHUNKED + b"-4\r\nbody\r\n0\r\n\r\n"),
    "chunk size with space before": (400, CHUNKED + b" 4\r\nbody\r\n0\r\n\r\n"),
    "chunk size with space after": (400, CHUNKED + b"4 \r\nbody\r\n0\r\n\r\n"),
    "chunk size over 64 bits": (400, CHUNKED + b"1" + b"0" * 16 + b"\r\n"),
    "chunk size line with bare LF": (400, CHUNKED + b"4\nbody\r\n0\r\n\r\n"),
    "chunk longer than its size": (400, CHUNKED + b"4\r\nbodybody\r\n0\r\n\r\n"),
    "chunk without CRLF": (400, CHUNKED + b"4\r\nbody0\r\n\r\n"),
    "chunk with bare LF": (400, CHUNKED + b"4\r\nbody\n0\r\n\r\n"),
    "bare CR in an extension": (400, CHUNKED + b"4;a=\rb\r\nbody\r\n0\r\n\r\n"),
    "bare LF in an extension": (400, CHUNKED + b"4;a\nbody\r\n0\r\n\r\n"),
    "long extension": (400, CHUNKED + b"4;" + b"a" * 1000 + b"\r\nbody\r\n0\r\n\r\n"),
    "trailer that is no field": (400, CHUNKED + b"0\r\nnonsense\r\n\r\n"),
    "forbidden trailer": (400, CHUNKED + b"0\r\nContent-Length: 4\r\n\r\n"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_request_is_refused(server: Server, case: str) -> None:
    status, data = MALFORMED[case]
    with server.client() as client:
        client.send(data)
        assert client.read().whole() == refusal(status)
        client.assert_closed()


@pytest.mark.parametrize("case", MALFORMED)
def test_nothing_after_a_refused_request_is_answered(server: Server, case: str) -> None:
    status, data = MALFORMED[case]
    with server.client() as client:
        client.send(request("GET", "/users/1") + data + request("GET", "/users/2"))
        assert client.read().whole() == page("user 1")
        assert client.read().whole() == refusal(status)
        client.assert_closed()


def test_malformed_request_in_single_bytes(server: Server) -> None:
    """The same answer when the bytes come one at a time, as soon as it is certain."""
    for case in ("folded line", "lengths that differ", "length and chunked", "chunk without CRLF"):
        status, data = MALFORMED[case]
        with server.client() as client:
            try:
                client.send_slowly(data, 0.0002)
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert client.read().whole() == refusal(status)


def test_length_and_chunked_do_not_smuggle(server: Server) -> None:
    """CL.TE and TE.CL: neither reading of the bytes may yield a second request."""
    hidden = b"GET /users/smuggled HTTP/1.1\r\nHost: t\r\n\r\n"
    for first, second in (
        ("Content-Length", "Transfer-Encoding"),
        ("Transfer-Encoding", "Content-Length"),
    ):
        values = {"Content-Length": str(len(hidden) + 5), "Transfer-Encoding": "chunked"}
        fields = f"{first}: {values[first]}\r\n{second}: {values[second]}\r\n"
        head = f"POST /echo HTTP/1.1\r\nHost: t\r\n{fields}\r\n"
        with server.client() as client:
            client.send(head.encode() + b"0\r\n\r\n" + hidden)
            assert client.read().whole() == refusal(400)
            client.assert_closed()


def test_equal_lengths_are_one_length(server: Server) -> None:
    with server.client() as client:
        client.send(POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody")
        assert client.read().whole() == page(b"body", BINARY)
        client.assert_open()


def test_length_of_a_get_is_read(server: Server) -> None:
    with server.client() as client:
        client.send(GET + b"Host: t\r\nContent-Length: 4\r\n\r\nbody" + request("GET", "/"))
        assert client.read().whole() == HELLO
        assert client.read().whole() == HELLO
        client.assert_open()


CHUNKED_BODIES: dict[str, tuple[bytes, bytes]] = {
    "nothing": (chunked(), b""),
    "one chunk": (chunked(b"body"), b"body"),
    "many chunks": (
        chunked(*[b"%d," % n for n in range(200)]),
        b"".join(b"%d," % n for n in range(200)),
    ),
    "upper case size": (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "leading zeros": (b"0004\r\nbody\r\n000\r\n\r\n", b"body"),
    "extensions": (b'4;a=b;c="d e"\r\nbody\r\n0;last\r\n\r\n', b"body"),
    "CRLF in the data": (chunked(b"a\r\n0\r\n\r\nb"), b"a\r\n0\r\n\r\nb"),
    "trailers": (chunked(b"body", trailer=b"X-Sum: 1\r\nX-More: 2\r\n"), b"body"),
    "large": (chunked(b"x" * 100_000, b"y" * 100_000), b"x" * 100_000 + b"y" * 100_000),
}


@pytest.mark.parametrize("case", CHUNKED_BODIES)
def test_chunked_body_is_decoded(server: Server, case: str) -> None:
    framed, body = CHUNKED_BODIES[case]
    with server.client() as client:
        for _ in range(2):
            client.send(CHUNKED + framed + request("GET", "/"))
            assert client.read().whole() == page(body, BINARY)
            assert client.read().whole() == HELLO
        client.assert_open()


def test_chunked_body_split_at_each_byte(server: Server) -> None:
    framed = chunked(b"first", b"the second", trailer=b"X-Sum: 1\r\n")
    whole = CHUNKED + framed
    expected = page(b"firstthe second", BINARY)
    with server.client() as client:
        for split in range(1, len(whole)):
            client.send(whole[:split])
            time.sleep(0.002)
            client.send(whole[split:])
            assert client.read().whole() == expected
        client.assert_open()


def test_chunked_body_one_byte_at_a_time(server: Server) -> None:
    with server.client() as client:
        client.send_slowly(CHUNKED + chunked(b"first", b"the second"), 0.001)
        assert client.read().whole() == page(b"firstthe second", BINARY)
        client.assert_open()


def test_coding_name_in_any_case(server: Server) -> None:
    with server.client() as client:
        client.send(POST + b"transfer-encoding:  Chunked\r\n\r\n" + chunked(b"body"))
        assert client.read().whole() == page(b"body", BINARY)
