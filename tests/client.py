"""A strict HTTP/1.1 client on a raw socket.

It reads exactly one response at a time, refuses any response that a strict peer could read in
two ways, and can tell whether a byte more came than should.
"""

from __future__ import annotations

import email.utils
import json
import re
import select
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

TIMEOUT_SECONDS = 10.0
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) ([ -~]*)\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\t -~\x80-\xff]*)\r\n")
_DATE = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} "
    r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} [0-9:]{8} GMT"
)
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    422: "Unprocessable Content",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
TEXT_UTF8 = "text/plain; charset=utf-8"

Address = tuple[str, int] | str


class MalformedError(AssertionError):
    """The server sent what no server may send."""


@dataclass(frozen=True)
class Answer:
    """One response, completely."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The one value of a header, or None."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known.lower() == name.lower()]

    def json(self) -> Any:
        assert self.header("Content-Type") == "application/json"
        return json.loads(self.body)

    def whole(self) -> tuple[int, str, dict[str, list[str]], bytes]:
        """All of the response but its (checked) date, in a form to compare with."""
        fields: dict[str, list[str]] = {}
        for name, value in self.headers:
            if name.lower() != "date":
                fields.setdefault(name.lower(), []).append(value)
        return self.status, self.reason, fields, self.body


def page(
    body: bytes | str, content_type: str | None = "text/plain", status: int = 200, **more: str
) -> tuple[int, str, dict[str, list[str]], bytes]:
    """What `Answer.whole` must be for a handler's response; `more` are further headers."""
    if isinstance(body, str):
        body = body.encode()
    fields = {"content-length": [str(len(body))]}
    if content_type is not None:
        fields["content-type"] = [content_type]
    fields.update({name.lower().replace("_", "-"): [value] for name, value in more.items()})
    return status, REASONS[status], fields, body


def refusal(
    status: int, *, close: bool = True, **more: str
) -> tuple[int, str, dict[str, list[str]], bytes]:
    """What `Answer.whole` must be for a response that the server makes itself."""
    if close:
        more["connection"] = "close"
    return page(f"{status} {REASONS[status]}\n", TEXT_UTF8, status, **more)


class Client:
    """One connection."""

    def __init__(
        self, address: Address, *, timeout: float = TIMEOUT_SECONDS, receive_buffer: int = 0
    ) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        if isinstance(address, tuple) and ":" in address[0]:
            family = socket.AF_INET6
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __del__(self) -> None:
        # A test that fails must not leave a second failure about its socket.
        self.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_slowly(self, data: bytes, pause: float = 0.0, step: int = 1) -> None:
        """Send `data` in pieces of `step` bytes, so that the server sees each on its own."""
        for start in range(0, len(data), step):
            self.socket.sendall(data[start : start + step])
            time.sleep(pause)

    def read(self, method: str = "GET") -> Answer:
        """Read exactly one response; `method` tells whether it can have a body."""
        head = self._read_until(b"\r\n\r\n")
        status, reason, headers = _parse_head(head)
        length = _body_length(status, headers)
        if method == "HEAD" or status in (204, 304) or status < 200:
            length = 0
        body = self._read_chunks() if length is None else self._read_exactly(length)
        return Answer(status, reason, headers, body)

    def read_to_end(self) -> bytes:
        """All that comes until the server closes."""
        got, self._buffer = [self._buffer], b""
        while data := self.socket.recv(1 << 18):
            got.append(data)
        return b"".join(got)

    def request(
        self, method: str, target: str, body: bytes = b"", headers: tuple[str, ...] = ()
    ) -> Answer:
        """Send one request and read its response."""
        self.send(request(method, target, body, headers))
        return self.read(method)

    def get(self, target: str, *headers: str) -> Answer:
        return self.request("GET", target, headers=headers)

    def has_answer(self) -> bool:
        """Whether something can be read at this moment."""
        return bool(self._buffer or select.select([self.socket], [], [], 0)[0])

    def assert_closed(self, timeout: float = 3.0) -> None:
        """The server closes, and sends nothing more before it does."""
        assert self._buffer == b"", f"more than one response: {self._buffer!r}"
        self.socket.settimeout(timeout)
        try:
            rest = self.socket.recv(65_536)
        except TimeoutError:
            raise AssertionError(f"the connection is open after {timeout} s") from None
        assert rest == b"", f"more than one response: {rest[:200]!r}"

    def assert_open(self, seconds: float = 0.05) -> None:
        """The server neither sends nor closes."""
        assert self._buffer == b"", f"more than one response: {self._buffer!r}"
        readable, _, _ = select.select([self.socket], [], [], seconds)
        if readable:
            data = self.socket.recv(65_536)
            raise AssertionError(f"unexpected: {data[:200]!r}" if data else "closed")

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def _read_until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._fill(f"{mark!r}")
        end = self._buffer.index(mark) + len(mark)
        found, self._buffer = self._buffer[:end], self._buffer[end:]
        return found

    def _read_chunks(self) -> bytes:
        """A chunked body: sizes without leading zeros or extensions, no trailers."""
        parts = []
        while True:
            line = self._read_until(b"\r\n")
            if not re.fullmatch(rb"(0|[1-9a-f][0-9a-f]*)\r\n", line):
                raise MalformedError(f"bad chunk size: {line!r}")
            size = int(line, 16)
            parts.append(self._read_exactly(size))
            end = self._read_exactly(2)
            if end != b"\r\n":
                raise MalformedError(f"bad end of a chunk: {end!r}")
            if size == 0:
                return b"".join(parts)

    def _read_exactly(self, length: int) -> bytes:
        parts = [self._buffer[:length]]
        missing = length - len(parts[0])
        self._buffer = self._buffer[length:]
        while missing:
            data = self.socket.recv(min(missing, 1 << 20))
            if not data:
                raise MalformedError(f"closed, {missing} bytes of {length} are missing")
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def _fill(self, wanted: str) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise MalformedError(f"closed before {wanted}, after {self._buffer!r}")
        self._buffer += data


def request(
    method: str, target: str, body: bytes = b"", headers: tuple[str, ...] = (), host: str = "test"
) -> bytes:
    """The bytes of a request; a body gets its Content-Length."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    """A chunked body of these chunks."""
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return framed + b"0\r\n" + trailer + b"\r\n"


def _parse_head(head: bytes) -> tuple[int, str, list[tuple[str, str]]]:
    line = _STATUS_LINE.match(head)
    if line is None:
        raise MalformedError(f"bad status line: {head[:200]!r}")
    headers = []
    at = line.end()
    while head[at:] != b"\r\n":
        field = _FIELD.match(head, at)
        if field is None:
            raise MalformedError(f"bad field: {head[at : at + 200]!r}")
        headers.append((field[1].decode("latin-1"), field[2].decode("latin-1")))
        at = field.end()
    status = int(line[1])
    _check_fields(status, headers)
    return status, line[2].decode("latin-1"), headers


def _check_fields(status: int, headers: list[tuple[str, str]]) -> None:
    names = [name.lower() for name, _ in headers]
    for single in ("content-length", "transfer-encoding", "date", "connection", "server"):
        if names.count(single) > 1:
            raise MalformedError(f"{single} came {names.count(single)} times")
    if status < 200:
        return
    date = {name.lower(): value for name, value in headers}.get("date", "")
    if not _DATE.fullmatch(date):
        raise MalformedError(f"bad date: {date!r}")
    age = time.time() - email.utils.parsedate_to_datetime(date).timestamp()
    if not -2 < age < 5:
        raise MalformedError(f"the date is {age:.1f} s old: {date!r}")


def _body_length(status: int, headers: list[tuple[str, str]]) -> int | None:
    """None: the body is chunked."""
    fields = {name.lower(): value for name, value in headers}
    if "transfer-encoding" in fields:
        if fields["transfer-encoding"] != "chunked" or "content-length" in fields or status < 200:
            raise MalformedError(f"bad framing: {headers}")
        return None
    if status in (204,) or status < 200:
        if "content-length" in fields:
            raise MalformedError(f"Content-Length with status {status}")
        return 0
    length = fields.get("content-length", "")
    if status == 304 and not length:
        return 0
    if not (length.isascii() and length.isdigit()):
        raise MalformedError(f"bad Content-Length: {length!r}")
    return int(length)
