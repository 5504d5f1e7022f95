"""Other parsers of HTTP/1.1 requests, made to say the same thing about the same bytes.

A `Reading` is what a parser makes of a connection's bytes: the complete requests, and how it ended.
There is one reader for each parser. `compare` says how ours and another's differ.
"""

from __future__ import annotations

import importlib.metadata
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gunicorn.config
import gunicorn.http
import gunicorn.http.errors
import h11
import httptools

Fields = list[tuple[bytes, bytes]]
# Sent behind all bytes, so that parsers which end a request elsewhere show it.
PROBE = b"GET /probe HTTP/1.1\r\nHost: t\r\n\r\n"

OPEN, CLOSED, REFUSED = "open", "closed", "refused"


@dataclass(frozen=True)
class Seen:
    """One complete request. `fields` are compared apart: they do not decide where it ends."""

    method: bytes
    target: bytes
    body: bytes
    fields: Fields = field(compare=False)


@dataclass(frozen=True)
class Reading:
    """Complete requests, and the end: waits for more, will not read on, or refuses."""

    requests: list[Seen]
    end: str
    why: str = ""


def _lower(fields: Any) -> Fields:
    return [(bytes(name).lower(), bytes(value)) for name, value in fields]


def read_h11(data: bytes) -> Reading:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
    requests: list[Seen] = []
    head: h11.Request | None = None
    body = b""
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                return Reading(requests, OPEN)
            if event is h11.PAUSED:
                return Reading(requests, CLOSED)
            if isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                requests.append(Seen(head.method, head.target, body, _lower(head.headers)))
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return Reading(requests, CLOSED)
                connection.start_next_cycle()
    except h11.RemoteProtocolError as error:
        return Reading(requests, REFUSED, str(error))


class _Httptools:
    """What httptools calls back."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.requests: list[Seen] = []
        self.is_closed = False

    def on_message_begin(self) -> None:
        self.target = self.body = b""
        self.fields: Fields = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if not self.is_closed:
            method = self.parser.get_method()
            self.requests.append(Seen(method, self.target, self.body, _lower(self.fields)))
            self.is_closed = not self.parser.should_keep_alive()


def read_httptools(data: bytes) -> Reading:
    reader = _Httptools()
    try:
        reader.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        # What follows belongs to another protocol, as far as it can tell: a body, too.
        return Reading(reader.requests[:-1], CLOSED, "upgrade")
    except httptools.HttpParserError as error:
        if not reader.is_closed:
            return Reading(reader.requests, REFUSED, str(error))
    return Reading(reader.requests, CLOSED if reader.is_closed else OPEN)


def read_gunicorn(data: bytes) -> Reading:
    requests: list[Seen] = []
    peer = ("192.0.2.1", 1)
    config = gunicorn.config.Config()
    # Not the one in C, should it be installed.
    config.set("http_parser", "python")
    parser = gunicorn.http.RequestParser(config, iter([data]), peer)
    try:
        for request in parser:
            fields = [
                (n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in request.headers
            ]
            body = request.body.read()
            announced = dict(fields).get(b"content-length")
            if announced is not None and len(body) < int(announced):
                return Reading(requests, OPEN)
            method, target = request.method.encode("latin-1"), request.uri.encode("latin-1")
            requests.append(Seen(method, target, body, fields))
            if request.should_close():
                return Reading(requests, CLOSED)
    except gunicorn.http.errors.NoMoreData:
        pass
    except (gunicorn.http.errors.ParseException, gunicorn.http.errors.ChunkMissingTerminator) as e:
        return Reading(requests, REFUSED, repr(e))
    return Reading(requests, OPEN)


READERS: dict[str, Callable[[bytes], Reading]] = {
    "h11": read_h11,
    "httptools": read_httptools,
    "gunicorn": read_gunicorn,
}


def version(reader: str) -> str:
    return importlib.metadata.version(reader)


# Kinds of disagreement.
STRICTER = "we refuse, it does not"
LOOSER = "it refuses, we do not"
LIFETIME = "one of both closes, the other reads on"
FIELDS = "the same requests with different fields"
FRAMING = "both read on, and not the same"


def compare(ours: Reading, other: Reading, keeps_underscores: bool) -> str | None:
    """The kind of disagreement, or None."""
    common = min(len(ours.requests), len(other.requests))
    if ours.requests[:common] != other.requests[:common]:
        return FRAMING
    if len(ours.requests) == len(other.requests) and ours.end == other.end:
        same = all(
            _fields(mine, keeps_underscores) == theirs.fields
            for mine, theirs in zip(ours.requests, other.requests, strict=True)
        )
        return None if same else FIELDS
    # Whoever has read fewer requests, or stands still at the same one, says by its end why.
    behind = {len(reading.requests): reading.end for reading in (ours, other)}
    ends = {ours.end, other.end} if len(behind) == 1 else {behind[common]}
    if CLOSED in ends:
        return LIFETIME
    if REFUSED in ends:
        return STRICTER if ours.end == REFUSED and len(ours.requests) == common else LOOSER
    return FRAMING


def _fields(request: Seen, keeps_underscores: bool) -> Fields:
    return [f for f in request.fields if keeps_underscores or b"_" not in f[0]]


GOOD: list[bytes] = [
    b"GET / HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /a/b?c=d&e=%20 HTTP/1.1\r\nHost: example.com:8080\r\nAccept: */*\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nbody",
    b"POST /p HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n",
    b"PUT /p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'3;a=b\r\nabc\r\nA;c="d"\r\n0123456789\r\n000\r\nX-Sum: 1\r\n\r\n',
    b"GET / HTTP/1.1\r\nHost: t\r\nConnection: keep-alive\r\nX-A: 1\r\nX-A: 2\r\n\r\n",
    b"DELETE /x HTTP/1.1\r\nhost: t\r\nX-Empty:\r\nX-Space: \t a b \t \r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET http://t/abs?q HTTP/1.1\r\nHost: t\r\n\r\n",
    b"PATCH /p HTTP/1.1\r\nHost: [::1]:80\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\n{}",
    b"GET / HTTP/1.0\r\nHost: t\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: t\r\nConnection: keep-alive\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    b"GET /1 HTTP/1.1\r\nHost: t\r\n\r\nPOST /2 HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc"
    b"GET /3 HTTP/1.1\r\nHost: t\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
    b"GET / HTTP/1.1\r\nHost: t\r\nX-Latin: caf\xe9\r\nX_Under: s\r\n\r\n",
]

# What mutations put in: bytes and words that parsers read in different ways.
_MORSELS = [
    *(
        bytes([b])
        for b in b"\0\t\n\r\x0b\x0c \"#'()+,-./0129:;<=>@AZ[\\]_af{|}~\x7f\x80\x85\xa0\xff"
    ),
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"\r\r\n",
    b"\r\n ",
    b"\r\n\t",
    b"\r\n0\r\n",
    b"0\r\n\r\n",
    b"0x",
    b"Content-Length: 4\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Connection: close\r\n",
    b"Host: u\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: x\r\nConnection: upgrade\r\n",
    b" HTTP/1.1",
    b"HTTP/1.0",
    b"chunked",
    b", ",
    b";a=b",
    b"99999999999999999999",
]


def mutations(count: int, seed: int) -> list[bytes]:
    """Good requests with one to three small changes each; the same for the same seed."""
    chance = random.Random(seed)
    made: dict[bytes, None] = {}
    while len(made) < count:
        data = chance.choice(GOOD)
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            data = _mutate(data, chance)
        made[data] = None
    return list(made)


def _mutate(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    match chance.randrange(7):
        case 0:
            return data[:at] + data[at + 1 :]
        case 1:
            return data[:at] + chance.choice(_MORSELS) + data[at + 1 :]
        case 2:
            lines = data.split(b"\r\n")
            line = chance.randrange(len(lines))
            return b"\r\n".join([*lines[:line], lines[line], *lines[line:]])
        case 3:
            lines = data.split(b"\r\n")
            line = chance.randrange(len(lines))
            return b"\r\n".join([*lines[:line], *lines[line + 1 :]])
        case 4:
            lines = data.split(b"\r\n")
            line = chance.randrange(len(lines))
            lines.insert(line, chance.choice(_MORSELS).strip(b"\r\n"))
            return b"\r\n".join(lines)
        case 5:
            end = min(len(data), at + chance.randrange(1, 8))
            return data[:at] + data[at:end].swapcase() + data[end:]
        case _:
            return data[:at] + chance.choice(_MORSELS) + data[at:]
