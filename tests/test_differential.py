"""The same bytes to our server and to other parsers; every disagreement has a reason.

The bytes are the attack corpus, good requests, and some hundreds of mutations of these. `RULES`
names the disagreements; one that no rule explains fails, and so does a rule that explains nothing
any more. That both read on and do not see the same requests is never explained.

`docs/attacks.md` has the rules as a table: ``python -m tests.test_differential`` prints it.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import pytest

from tests import differential
from tests.attacks import ATTACKS
from tests.differential import (
    CLOSED,
    FIELDS,
    FRAMING,
    GOOD,
    LIFETIME,
    LOOSER,
    OPEN,
    PROBE,
    READERS,
    REFUSED,
    STRICTER,
    Reading,
    Seen,
    compare,
    mutations,
)
from tests.server import ROOT, Server, command

pytestmark = pytest.mark.wire

BATCH = 200
MUTATIONS = 2_000
SEED = 4
# Longer attacks say nothing about framing; limits are the others' own affair.
LENGTH_MAX = 2_500
_ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n(.*?)\r\n\r\n", re.DOTALL)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def corpus() -> dict[str, bytes]:
    """Everything that is compared, by name."""
    attacks = {n: a.data for n, a in ATTACKS.items() if len(a.data) <= LENGTH_MAX}
    good = {f"good request {number}": data for number, data in enumerate(GOOD)}
    mutated = {f"mutation {n}": data for n, data in enumerate(mutations(MUTATIONS, SEED))}
    return {**attacks, **good, **mutated}


# What our server makes of bytes


@pytest.fixture(scope="module")
def readings(driver: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reading]:
    folder = tmp_path_factory.mktemp("differential")
    bind = ("-b", f"unix:{folder}/socket")
    server = Server(command("run", "tests.apps.attacks:details", *bind), folder / "log")
    try:
        found = dict(_read_all(server))
    finally:
        server.stop()
    return found


def _read_all(server: Server) -> Iterator[tuple[str, Reading]]:
    cases = [*corpus().items()]
    for start in range(0, len(cases), BATCH):
        connections = []
        for name, data in cases[start : start + BATCH]:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(server.address)
            connection.sendall(data + PROBE)
            connections.append((name, connection))
        # Those who have come before these are answered before these.
        for _ in range(3):
            server.get("/later")
            time.sleep(0.01)
        for name, connection in connections:
            yield name, _reading(*_received(connection), dict(cases)[name])
            connection.close()


def _received(connection: socket.socket) -> tuple[bytes, bool]:
    """What has come, and whether the server has closed."""
    connection.setblocking(False)
    received = b""
    try:
        while data := connection.recv(65_536):
            received += data
    except BlockingIOError:
        return received, False
    return received, True


def _reading(received: bytes, is_closed: bool, data: bytes) -> Reading:
    requests: list[Seen] = []
    received = received.replace(_CONTINUE, b"")
    while received:
        head = _ANSWER.match(received)
        assert head, received
        if head[1] == b"204":
            # The server's own answer, to this alone; it does not tell what it has read.
            text = data[data.index(b"OPTIONS *") :].split(b"\r\n\r\n")[0]
            pairs = [line.split(b":", 1) for line in text.split(b"\r\n")[1:]]
            told_fields = [(name.lower(), value.strip(b" \t")) for name, value in pairs]
            requests.append(Seen(b"OPTIONS", b"*", b"", told_fields))
            received = received[head.end() :]
            continue
        length = re.search(rb"(?i)content-length: (\d+)", head[2])
        assert length, received
        end = head.end() + int(length[1])
        body, received = received[head.end() : end], received[end:]
        if head[1] != b"200":
            assert is_closed
            assert not received, "an answer behind a refusal"
            return Reading(requests, REFUSED, head[1].decode())
        told = json.loads(body)
        fields = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in told["fields"]]
        method, target, content = (told[k].encode("latin-1") for k in ("method", "target", "body"))
        requests.append(Seen(method, target, content, fields))
    return Reading(requests, CLOSED if is_closed else OPEN)


# Disagreements


@dataclass(frozen=True)
class Case:
    """Bytes that are read in two ways."""

    data: bytes
    ours: Reading
    other: Reading

    def has(self, pattern: bytes) -> bool:
        """Whether a regular expression is somewhere in the bytes, `PROBE` among them."""
        return re.search(pattern, self.data + PROBE) is not None

    def targets(self) -> list[tuple[bytes, bytes]]:
        """Methods and targets of what looks like request lines."""
        line = rb"(?:^|\n)([!-~]+) +([^ \r\n]+) +HTTP/\d\.\d\r?\n"
        return re.findall(line, self.data + PROBE)

    def heads(self) -> list[bytes]:
        """What looks like heads."""
        parts = (self.data + PROBE).split(b"\r\n\r\n")
        return [part for part in parts if re.search(rb" HTTP/1\.\d\r\n", part + b"\r\n")]

    def extensions(self) -> list[bytes]:
        """What looks like extensions of chunks, each from its semicolon on."""
        return re.findall(rb"\n[0-9A-Fa-f]+(;[^\n]*?)\r?\n", self.data)

    def values(self, name: bytes) -> list[bytes]:
        """Values of what looks like a field of this name."""
        return re.findall(rb"(?i)\n" + name + rb":[ \t]*([^\r\n]*?)[ \t]*\r", self.data + PROBE)


@dataclass(frozen=True)
class Rule:
    """A class of disagreements."""

    kind: str
    parsers: str
    what: str
    why: str
    applies: Callable[[Case], bool]


def _says(*reasons: str) -> Callable[[Case], bool]:
    """For what another parser refuses: it says why."""
    return lambda case: case.other.why.startswith(reasons)


_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSIONS = rb"(?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*" % (_TOKEN, _TOKEN, _QUOTED)
_NAME = rb"(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})"
_PORT = rb"(?::([0-9]{0,5}))?"
_HOST = rb"(" + _NAME + rb"*|\[([0-9A-Fa-f:.]+)\])" + _PORT
_TARGET = rb"(?:/|https?://(?:" + _NAME + rb"+|\[[0-9A-Fa-f:.]+\])" + _PORT + rb"(?=[/?]|$))[^#]*"


def _has_odd_host(case: Case) -> bool:
    return not all(_is_host(value) for value in case.values(b"host"))


def _is_host(value: bytes) -> bool:
    found = re.fullmatch(_HOST, value)
    if not found or int(found[3] or b"0") > 65_535:
        return False
    try:
        return found[2] is None or bool(ipaddress.IPv6Address(found[2].decode()))
    except ValueError:
        return False


def _has_odd_target(case: Case) -> bool:
    return not all(
        re.fullmatch(rb"(?i)" + _TARGET, target) or (method, target) == (b"OPTIONS", b"*")
        for method, target in case.targets()
    )


def _has_odd_path(case: Case) -> bool:
    for _, target in case.targets():
        path = target.split(b"?")[0]
        try:
            unquote_to_bytes(path).decode()
        except UnicodeDecodeError:
            return True
        if re.search(rb"%(?![0-9A-Fa-f]{2})", path):
            return True
    return False


def _repeats(name: bytes) -> Callable[[Case], bool]:
    field_line = rb"(?im)^" + name + rb":"
    return lambda case: any(len(re.findall(field_line, head)) > 1 for head in case.heads())


def _has_odd_method(case: Case) -> bool:
    usual = {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"}
    return any(method not in usual for method, _ in case.targets())


def _lacks_host(case: Case) -> bool:
    return any(
        b" HTTP/1.1\r\n" in head + b"\r\n" and not re.search(rb"(?im)^host:", head)
        for head in case.heads()
    )


def _has(pattern: bytes) -> Callable[[Case], bool]:
    return lambda case: case.has(pattern)


_FRAMED_BY_CHUNKS = rb"(?i)\ntransfer-encoding:"
_FORBIDDEN_TRAILER = (
    rb"(?i)\r\n0+(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*(?:content-(?:length|type|encoding)|transfer-encoding|trailer|host|te|expect"
    rb"|authorization|cookie|connection):"
)
_CHUNK_SIZE = rb"\r\n[0-9A-Fa-f]+"
_MAY = "a recipient may take it; a line that ends for one party only is how requests are smuggled"

RULES: list[Rule] = [
    # Line ends and white space.
    Rule(STRICTER, "h11", "LF alone as a line end", f"RFC 9112 §2.2: {_MAY}", _has(rb"(?<!\r)\n")),
    Rule(
        STRICTER,
        "h11",
        "a folded line, or white space before a field",
        "RFC 9112 §5.2: refused, or unfolded; we refuse",
        _has(rb"\r\n[ \t]"),
    ),
    Rule(
        STRICTER,
        "httptools",
        "two spaces in a request line",
        f"RFC 9112 §3: {_MAY}",
        _has(rb"(?m)^[A-Z]+  |  HTTP/"),
    ),
    Rule(
        STRICTER,
        "httptools",
        "LF, CR, or more than four empty lines before a request line",
        "RFC 9112 §2.2 speaks of an empty line, CRLF; four are enough",
        _has(rb"(?:^|\r\n\r\n|[^\r\n])(?:\n|\r[^\n]|(?:\r\n){5})"),
    ),
    Rule(
        LOOSER,
        "h11 gunicorn",
        "empty lines before a request line",
        "RFC 9112 §2.2: at least one is skipped; h11 skips none, gunicorn one, we four",
        _says("no request line received", "InvalidRequestLine('')"),
    ),
    # The request line.
    Rule(
        STRICTER,
        "h11 httptools gunicorn",
        "a target of no form that RFC 9112 §3.2 has for its method, or with a fragment, user "
        "information or another scheme",
        "who is asked for must be certain",
        _has_odd_target,
    ),
    Rule(
        STRICTER,
        "h11 httptools gunicorn",
        "a path with a percent sign alone, or that is no UTF-8 when decoded",
        "nobody knows which path it is",
        _has_odd_path,
    ),
    Rule(
        STRICTER,
        "httptools",
        "no version",
        "HTTP/0.9 has no framing at all",
        _has(rb"(?m)^[A-Za-z]+ [^ \r\n]+\r?\n"),
    ),
    Rule(
        STRICTER,
        "h11 httptools",
        "a version other than 1.x",
        "505: what it means is not known here",
        _has(rb" HTTP/[02-9]\."),
    ),
    Rule(
        STRICTER,
        "h11 gunicorn",
        "a method that no route has and that is not one of the usual",
        "RFC 9110 §9.1: 501; the others leave it to the application",
        lambda case: case.ours.why == "501" and _has_odd_method(case),
    ),
    Rule(
        FIELDS,
        "h11 httptools gunicorn",
        "a host in the target",
        "RFC 9112 §3.2.2: it counts, and handlers get it as Host",
        lambda case: any(b"://" in target for _, target in case.targets()),
    ),
    # Fields.
    Rule(STRICTER, "httptools gunicorn", "no Host in HTTP/1.1", "RFC 9112 §3.2: 400", _lacks_host),
    Rule(STRICTER, "httptools", "two Hosts", "RFC 9112 §3.2: 400", _repeats(b"host")),
    Rule(
        STRICTER,
        "h11 httptools gunicorn",
        "a Host that is no host with an optional port",
        "RFC 9112 §3.2: 400",
        _has_odd_host,
    ),
    Rule(
        STRICTER,
        "h11 httptools",
        "two Content-Types",
        "who checks and who reads the body could each take another",
        _repeats(b"content-type"),
    ),
    Rule(
        STRICTER,
        "h11 httptools",
        "an expectation other than 100-continue",
        "RFC 9110 §10.1.1: 417",
        lambda case: any(v.lower() != b"100-continue" for v in case.values(b"expect")),
    ),
    Rule(
        STRICTER,
        "h11",
        "DEL in a field's value",
        "RFC 9110 §5.5: no control byte but a tab",
        _has(rb"\n[A-Za-z-]+:[^\r\n]*\x7f"),
    ),
    Rule(
        FIELDS,
        "httptools",
        "white space behind a field's value",
        "RFC 9112 §5.1: it does not belong to the value",
        _has(rb"[ \t]\r\n"),
    ),
    # Framing.
    Rule(
        STRICTER,
        "h11",
        "Content-Length together with Transfer-Encoding",
        "RFC 9112 §6.3: chunked counts, or 400; we refuse",
        lambda case: bool(case.values(b"content-length")) and case.has(_FRAMED_BY_CHUNKS),
    ),
    Rule(
        STRICTER,
        "h11",
        "Content-Length as a list of equal numbers",
        "RFC 9112 §6.3: one number, or 400; we refuse",
        lambda case: any(b"," in value for value in case.values(b"content-length")),
    ),
    Rule(
        LOOSER,
        "httptools gunicorn",
        "two Content-Lengths that are equal",
        "RFC 9112 §6.3 allows both; there is nothing to read in two ways",
        _says("Duplicate Content-Length", "InvalidHeader('CONTENT-LENGTH')"),
    ),
    Rule(
        FIELDS,
        "h11",
        "two equal Content-Lengths, and the coding's name in capitals",
        "h11 keeps one, and writes `chunked`; we show what came",
        lambda case: _repeats(b"content-length")(case) or case.has(_FRAMED_BY_CHUNKS),
    ),
    Rule(
        STRICTER,
        "h11 gunicorn",
        "a length of more than 64 bits",
        "there is no such body: 400",
        _has(rb"(?i)content-length:[ \t]*\d{20}"),
    ),
    Rule(
        STRICTER,
        "h11 httptools gunicorn",
        "a body over `max_body_size`",
        "413: limits are the application's affair there",
        lambda case: case.ours.why == "413",
    ),
    Rule(
        STRICTER,
        "h11 httptools",
        "Transfer-Encoding in HTTP/1.0",
        "RFC 9112 §6.1: the framing is to be treated as faulty",
        lambda case: case.has(rb" HTTP/1\.0\r\n") and case.has(_FRAMED_BY_CHUNKS),
    ),
    Rule(
        STRICTER,
        "httptools",
        "empty elements in Transfer-Encoding",
        "RFC 9110 §5.6.1 would skip them; no sender writes them",
        _has(_FRAMED_BY_CHUNKS + rb"[ \t]*,"),
    ),
    Rule(
        STRICTER,
        "httptools gunicorn",
        "other codings before chunked",
        "RFC 9112 §6.1: 501; nobody here undoes them",
        lambda case: case.ours.why == "501",
    ),
    Rule(
        LOOSER,
        "httptools",
        "tabs around the value of Transfer-Encoding",
        "RFC 9110 §5.5: white space around a value is spaces and tabs",
        _says("Request has invalid `Transfer-Encoding`"),
    ),
    # Chunks.
    Rule(
        STRICTER,
        "h11 httptools gunicorn",
        "a chunk size of more than 16 digits, zeros among them",
        "64 bits have no more",
        _has(rb"\r\n[0-9A-Fa-f]{17}"),
    ),
    Rule(
        STRICTER,
        "h11 gunicorn",
        "white space behind a chunk size",
        "RFC 9112 §7.1.1 has it before an extension only, as bad form; we refuse",
        _has(_CHUNK_SIZE + rb"[ \t]"),
    ),
    Rule(
        STRICTER,
        "h11 httptools",
        "a chunk extension that is not as RFC 9112 §7.1.1 has it",
        "quotes that go on over a line's end, for one party only, hide requests",
        lambda case: any(not re.fullmatch(_EXTENSIONS, text) for text in case.extensions()),
    ),
    Rule(
        STRICTER,
        "h11 httptools gunicorn",
        "a chunk extension of more than 256 bytes",
        "nobody uses them but to be read for ever",
        _has(_CHUNK_SIZE + rb";[^\r\n]{256}"),
    ),
    Rule(
        STRICTER,
        "h11 httptools gunicorn",
        "a trailer that must not be one",
        "RFC 9110 §6.5.1: who merges trailers with fields would be misled; 400",
        _has(_FORBIDDEN_TRAILER),
    ),
    Rule(
        FIELDS,
        "httptools",
        "trailers",
        "it gives them to the same callback as fields; we drop them",
        _has(rb"\r\n0+(?:;[^\r\n]*)?\r\n[^\r\n]"),
    ),
    Rule(
        LOOSER,
        "gunicorn",
        "empty elements in Expect",
        "RFC 9110 §5.6.1: they are skipped; an expectation frames nothing",
        _says("ExpectationFailed"),
    ),
    # The connection's life.
    Rule(
        LIFETIME,
        "gunicorn httptools",
        "several connection options, in a list or in fields",
        "RFC 9110 §7.6.1: it is a list; gunicorn compares the first value as a whole, and "
        "keep-alive counts more than close for httptools",
        lambda case: (
            any(b"," in v for v in case.values(b"connection")) or _repeats(b"connection")(case)
        ),
    ),
    Rule(
        LIFETIME,
        "h11",
        "HTTP/1.0 with `Connection: keep-alive`",
        "RFC 9112 §9.3 allows both",
        lambda case: case.has(rb" HTTP/1\.0\r\n") and case.has(rb"(?i)keep-alive"),
    ),
    Rule(
        LIFETIME,
        "httptools",
        "a request to upgrade",
        "RFC 9110 §7.8: it may be ignored, and is here; what follows is HTTP",
        _has(rb"(?i)\nupgrade:"),
    ),
]


def explain(kind: str, parser: str, case: Case) -> Rule | None:
    for rule in RULES:
        if rule.kind == kind and parser in rule.parsers.split() and rule.applies(case):
            return rule
    return None


def disagreements(readings: dict[str, Reading]) -> Iterator[tuple[str, str, str, Case]]:
    """Name, parser, kind and case of each."""
    for name, data in corpus().items():
        for parser, read in READERS.items():
            case = Case(data, readings[name], read(data + PROBE))
            kind = compare(case.ours, case.other, keeps_underscores=parser != "gunicorn")
            if kind is not None:
                yield name, parser, kind, case


def test_good_requests_are_read_by_all_alike(readings: dict[str, Reading]) -> None:
    for name, data in corpus().items():
        if name.startswith("good"):
            assert readings[name].requests, name
            assert readings[name].end != REFUSED, name
            for read in READERS.values():
                kind = compare(readings[name], read(data + PROBE), True)
                assert kind in (None, FIELDS, LIFETIME), name


def test_where_both_read_on_they_read_the_same(readings: dict[str, Reading]) -> None:
    """The class of disagreements by which requests are smuggled."""
    found = [(n, p, c) for n, p, kind, c in disagreements(readings) if kind == FRAMING]
    assert found == []


def test_every_disagreement_is_explained(readings: dict[str, Reading]) -> None:
    unexplained, used = [], set()
    for name, parser, kind, case in disagreements(readings):
        rule = explain(kind, parser, case)
        if rule is None:
            unexplained.append((name, parser, kind, case))
        else:
            used.add((rule.kind, rule.what, parser))
    assert unexplained == []
    known = {(r.kind, r.what, parser) for r in RULES for parser in r.parsers.split()}
    assert known - used == set(), "rules that explain nothing any more"


def table() -> str:
    """The rules as the page has them."""
    lines = ["| kind | bytes | parsers | reason |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {r.kind} | {r.what} | {', '.join(r.parsers.split())} | {r.why} |"
        for r in sorted(RULES, key=lambda rule: rule.kind)
    ]
    return "\n".join(lines) + "\n"


def versions() -> str:
    return ", ".join(f"{reader} {differential.version(reader)}" for reader in READERS)


def test_page_has_the_rules() -> None:
    text = (ROOT / "docs" / "attacks.md").read_text()
    assert table() in text, "run `python -m tests.test_differential` and put its table there"
    assert versions() in text


if __name__ == "__main__":
    print(versions())
    print(table(), end="")
