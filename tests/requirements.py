"""What RFC 9110 and RFC 9112 ask of an origin server, row by row, and the bytes that show each.

Each row says in our words what is asked, what we do, and how it is shown: by fixtures, which are
bytes to send and the whole answers to expect, or by a test function of its own. The page
docs/http.md is written from this file: ``python -m tests.requirements > docs/http.md``; a test
compares the two. tools/rules.py takes the rules out of the sources, one by one, and runs the rows.

What it does not do: send anything. tests/test_http_requirements.py does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tests import client
from tests.client import TEXT_UTF8, chunked

Whole = tuple[int, str, dict[str, list[str]], bytes]

# The server that fixtures are sent to has these limits, so that fixtures stay short.
TARGET_MAX = 64
HEAD_MAX = 400
BODY_MAX = 64
SERVER_OPTIONS = (
    *("--max-target-size", str(TARGET_MAX)),
    *("--max-header-size", str(HEAD_MAX)),
    *("--max-body-size", str(BODY_MAX)),
)

REASONS = {
    **client.REASONS,
    100: "Continue",
    204: "No Content",
    205: "Reset Content",
    206: "Partial Content",
    299: "",
    302: "Found",
    304: "Not Modified",
    412: "Precondition Failed",
    416: "Range Not Satisfiable",
    421: "Misdirected Request",
    426: "Upgrade Required",
}


@dataclass(frozen=True)
class Expected:
    """One answer, completely; to HEAD there is no body, whatever the fields say."""

    whole: Whole
    is_head: bool = False


@dataclass(frozen=True)
class Fixture:
    """Bytes and the answers to them, step by step, and how it ends.

    `keeps`: the connection serves another request afterwards. `closes`: nothing that follows is
    answered. `ends`: the client ends its side after its bytes, and the server closes.
    """

    steps: tuple[tuple[bytes, tuple[Expected, ...]], ...]
    end: str
    # Whether `100 Continue` may come first when the bytes come in pieces.
    may_continue: bool = False
    # Whether nothing may follow at once: it would be the body.
    waits: bool = False


@dataclass(frozen=True)
class Row:
    id: str
    section: str
    level: str
    asked: str
    done: str
    fixtures: tuple[Fixture, ...] = ()
    # A function of tests/test_http_requirements.py, where bytes alone cannot show it.
    test: str = ""


# Requests


def ask(
    line: str = "GET /seen",
    *fields: str,
    body: bytes = b"",
    version: str = "HTTP/1.1",
    host: str | None = "t",
) -> bytes:
    """The bytes of a request: `line` is method and target; a body gets its Content-Length."""
    lines = [f"{line} {version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines.extend(fields)
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def raw(text: str) -> bytes:
    return text.encode("latin-1")


def post_chunked(body: bytes, *fields: str) -> bytes:
    return ask("POST /seen", *fields, "Transfer-Encoding: chunked") + body


PROBE = ask("GET /")


# Answers


def answer(status: int, body: str | bytes, kind: str | None, **more: str) -> Expected:
    data = body.encode() if isinstance(body, str) else body
    fields = {} if status in (204, 304) else {"content-length": [str(len(data))]}
    if kind is not None:
        fields["content-type"] = [kind]
    fields.update({name.lower().replace("_", "-"): [value] for name, value in more.items()})
    return Expected((status, REASONS[status], fields, b"" if status in (204, 304) else data))


def text(body: str, status: int = 200, **more: str) -> Expected:
    return answer(status, body, TEXT_UTF8, **more)


def refused(status: int, *, close: bool = True, **more: str) -> Expected:
    if close:
        more["connection"] = "close"
    return text(f"{status} {REASONS[status]}\n", status, **more)


def seen(
    method: str = "GET",
    *,
    path: str = "/seen",
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    host: str | None = "t",
    body: str = "",
    **more: str,
) -> Expected:
    """What `/seen` answers; `headers` are those beside `Host`."""
    whole = {} if host is None else {"host": host}
    whole.update(headers or {})
    fields = {
        "method": method,
        "path": path,
        "query": dict(query or {}),
        "headers": whole,
        "body": body,
    }
    return answer(200, json.dumps(fields), "application/json", **more)


def got(body: str, *, method: str = "POST", **headers: str) -> Expected:
    """What `/seen` answers to a body that came with a length."""
    return seen(method, headers={**headers, "content-length": str(len(body))}, body=body)


def unchunked(body: str) -> Expected:
    return seen("POST", headers={"transfer-encoding": "chunked"}, body=body)


def named(name: str) -> Expected:
    return answer(200, json.dumps([f"/seen/{name}", name]), "application/json")


def bodiless(expected: Expected) -> Expected:
    """The same answer to HEAD."""
    status, reason, fields, _ = expected.whole
    return Expected((status, reason, fields, b""), is_head=True)


HELLO = text("hello")
STREAMED = Expected(
    (200, "OK", {"transfer-encoding": ["chunked"], "content-type": [TEXT_UTF8]}, b"hello")
)
CONTINUE = Expected((100, "Continue", {}, b""))
ALLOWED = "BREW, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
OPTIONS_OF_SERVER = answer(204, "", None, allow=ALLOWED)


# Fixtures


def keeps(data: bytes, *answers: Expected, may_continue: bool = False) -> Fixture:
    return Fixture(((data, answers),), "keeps", may_continue)


def closes(data: bytes, *answers: Expected, waits: bool = False) -> Fixture:
    return Fixture(((data, answers),), "closes", waits=waits)


def refuses(status: int, *requests: bytes) -> tuple[Fixture, ...]:
    """Each of these gets this refusal, and the connection ends."""
    return tuple(closes(data, refused(status)) for data in requests)


def each(expected: Expected, *requests: bytes) -> tuple[Fixture, ...]:
    """Each of these gets this answer, and the connection stays."""
    return tuple(keeps(data, expected) for data in requests)


def fields_refused(status: int, *fields: str) -> tuple[Fixture, ...]:
    return refuses(status, *(ask("GET /", field) for field in fields))


def lengths_refused(*values: str) -> tuple[Fixture, ...]:
    requests = (ask("POST /seen", f"Content-Length: {value}") + b"body" for value in values)
    return refuses(400, *requests)


def codings_refused(status: int, *values: str) -> tuple[Fixture, ...]:
    requests = (ask("POST /seen", f"Transfer-Encoding: {value}") for value in values)
    return refuses(status, *(head + b"0\r\n\r\n" for head in requests))


def chunks_refused(status: int, *bodies: bytes) -> tuple[Fixture, ...]:
    return refuses(status, *map(post_chunked, bodies))


def chunks_decoded(*bodies: tuple[bytes, str]) -> tuple[Fixture, ...]:
    return tuple(keeps(post_chunked(framed), unchunked(body)) for framed, body in bodies)


def sets_header(name: str, value: str) -> bytes:
    # Only the field's own characters are tried; JSON escapes them, so the body is ASCII.
    return ask("POST /set-header", body=json.dumps([name, value]).encode())


_PADDING = HEAD_MAX - len(ask("GET /", "X: "))

SYNTAX = (
    Row(
        "octets",
        "9112 §2.2, 9110 §5.5",
        "MUST",
        "Parse a message as octets of a superset of ASCII; bytes over 127 in a field value are "
        "opaque.",
        "Such bytes pass in field values and are given out as Latin-1; nowhere else do they pass.",
        (
            keeps(ask("GET /seen", "X: \xe9\xff"), seen(headers={"x": "éÿ"})),
            *refuses(400, raw("GET /\xff HTTP/1.1\r\nHost: t\r\n\r\n")),
            *fields_refused(400, "\xe9: x"),
        ),
    ),
    Row(
        "bare-lf",
        "9112 §2.2",
        "MAY",
        "Take a lone LF for the end of a line.",
        "We do not: whoever reads on the way may, and then the two of us would see different "
        "messages. 400.",
        refuses(
            400,
            raw("GET / HTTP/1.1\nHost: t\r\n\r\n"),
            raw("GET / HTTP/1.1\nHost: t\n\n"),
            raw("GET / HTTP/1.1\r\nHost: t\nX: y\r\n\r\n"),
            raw("GET / HTTP/1.1\r\nHost: t\r\n\n"),
            raw("\nGET / HTTP/1.1\r\nHost: t\r\n\r\n"),
        ),
    ),
    Row(
        "bare-cr",
        "9112 §2.2",
        "MUST",
        "Refuse a message with a CR without LF outside of content, or take it for a space.",
        "400.",
        refuses(
            400,
            raw("GET / HTTP/1.1\rHost: t\r\n\r\n"),
            raw("GET /\rX HTTP/1.1\r\nHost: t\r\n\r\n"),
            raw("GET / HTTP/1.1\r\nHost: t\rX: y\r\n\r\n"),
            raw("GET / HTTP/1.1\r\nHost: t\r\nX: a\rb\r\n\r\n"),
            raw("GET / HTTP/1.1\r\nHost: t\r\nX\r: y\r\n\r\n"),
            raw("\rGET / HTTP/1.1\r\nHost: t\r\n\r\n"),
        ),
    ),
    Row(
        "space-before-first-field",
        "9112 §2.2",
        "MUST",
        "Refuse white space between the request line and the first field, or skip those lines.",
        "400.",
        refuses(
            400,
            raw("GET / HTTP/1.1\r\n Host: t\r\nHost: t\r\n\r\n"),
            raw("GET / HTTP/1.1\r\n\tX: y\r\nHost: t\r\n\r\n"),
            raw("GET / HTTP/1.1\r\n \r\nHost: t\r\n\r\n"),
        ),
    ),
    Row(
        "blank-lines",
        "9112 §2.2",
        "SHOULD",
        "Ignore at least one empty line before a request line.",
        "Up to four are skipped; they count for `max_header_size`.",
        each(HELLO, *(b"\r\n" * count + PROBE for count in range(1, 5))),
    ),
    Row(
        "blank-lines-bound",
        "9112 §2.2",
        "ours",
        "How many empty lines are ignored is left open.",
        "The fifth is refused with 400: nobody waits for a request that is only line ends. A "
        "connection that brings nothing else in `read_timeout` is closed silently.",
        refuses(400, b"\r\n" * 5 + PROBE, b"\r\n" * 100),
    ),
    Row(
        "no-message",
        "9112 §2.2",
        "SHOULD",
        "Answer what looks like a request and does not fit the grammar with 400, and close.",
        "400, close.",
        refuses(
            400,
            raw("nonsense\r\n\r\n"),
            raw("GET /\r\nHost: t\r\n\r\n"),
            raw("GET HTTP/1.1\r\nHost: t\r\n\r\n"),
            raw("GET / HTTP/1.1\r\nHost: t\r\nnonsense\r\n\r\n"),
            raw("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        ),
    ),
    Row(
        "version-syntax",
        "9112 §2.3",
        "MUST",
        "A version is `HTTP/`, in this case, a digit, a dot and a digit.",
        "Anything else is 400.",
        refuses(
            400,
            *(
                ask("GET /", version=version)
                for version in (
                    "http/1.1",
                    "HTTP/1.10",
                    "HTTP/1",
                    "HTTP/1,1",
                    "HTTPS/1.1",
                    "HTTP/a",
                )
            ),
        ),
    ),
    Row(
        "version-minor",
        "9110 §2.5, §6.2",
        "SHOULD",
        "Take a message of a higher minor version for one of the highest that is known.",
        "1.2 to 1.9 are served as 1.1.",
        each(HELLO, *(ask("GET /", version=f"HTTP/1.{minor}") for minor in (2, 9))),
    ),
    Row(
        "version-major",
        "9110 §15.6.6",
        "MAY",
        "Refuse a major version with 505.",
        "505, close: for all but 1, and for the preface of HTTP/2.",
        refuses(
            505,
            raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            ask("GET /", version="HTTP/2.0"),
            ask("GET /", version="HTTP/0.9"),
            ask("GET /", version="HTTP/9.9"),
        ),
    ),
    Row(
        "version-of-answers",
        "9110 §6.2",
        "SHOULD",
        "Answer with the highest version of that major version that the server conforms to.",
        "Every answer is HTTP/1.1, also to HTTP/1.0. (The test's client takes no other.)",
        (
            closes(ask("GET /", version="HTTP/1.0"), text("hello", connection="close")),
            closes(b"nonsense\r\n\r\n", refused(400)),
        ),
    ),
)

REQUEST_LINE = (
    Row(
        "request-line",
        "9112 §3",
        "SHOULD",
        "Refuse a malformed request line with 400; do not repair it.",
        "One space each between method, target and version, and nothing after it; else 400.",
        refuses(
            400,
            raw("GET  / HTTP/1.1\r\nHost: t\r\n\r\n"),
            raw("GET /  HTTP/1.1\r\nHost: t\r\n\r\n"),
            raw("GET / HTTP/1.1 \r\nHost: t\r\n\r\n"),
            raw(" GET / HTTP/1.1\r\nHost: t\r\n\r\n"),
            raw("GET\t/ HTTP/1.1\r\nHost: t\r\n\r\n"),
            raw("GET / x HTTP/1.1\r\nHost: t\r\n\r\n"),
        ),
    ),
    Row(
        "target-bytes",
        "9112 §3.2",
        "SHOULD NOT",
        "Do not correct a target with bytes that no URI has.",
        "A space, a control byte, a byte over 127 and a fragment are 400.",
        refuses(
            400,
            ask("GET /a b"),
            ask("GET /\0"),
            ask("GET /\x7f"),
            ask("GET /\xff"),
            ask("GET /#a"),
            ask("GET /?#a"),
        ),
    ),
    Row(
        "method-token",
        "9112 §3.1",
        "MUST",
        "A method is a token.",
        "Anything else is 400.",
        refuses(400, ask("G(T /"), ask("G\xe4T /"), ask('"GET" /'), ask("GET: /")),
    ),
    Row(
        "method-case",
        "9110 §9.1",
        "MUST",
        "Method names are case-sensitive.",
        "`get` is a method that is not implemented: 501.",
        refuses(501, ask("get /"), ask("Get /")),
    ),
    Row(
        "method-unknown",
        "9110 §9.1",
        "SHOULD",
        "Answer a method that is not implemented with 501.",
        "501, close, whatever the path: a method that is not one of GET, HEAD, POST, PUT, PATCH, "
        "DELETE and OPTIONS, and that no route has. One that a route has is served.",
        (
            *refuses(501, ask("MAKE /"), ask("MAKE /nowhere"), ask("M-SEARCH /", body=b"body")),
            keeps(ask("BREW /brew"), text("tea")),
            keeps(ask("BREW /"), refused(405, close=False, allow="GET, HEAD")),
        ),
    ),
    Row(
        "method-not-allowed",
        "9110 §9.1, §15.5.6",
        "MUST",
        "Answer a method that is known and not allowed for the target with 405 and `Allow`.",
        "405 with the methods of the route, and HEAD where there is GET.",
        (
            keeps(ask("POST /"), refused(405, close=False, allow="GET, HEAD")),
            keeps(ask("PATCH /item"), refused(405, close=False, allow="DELETE, PUT")),
            keeps(ask("OPTIONS /item"), refused(405, close=False, allow="DELETE, PUT")),
        ),
    ),
    Row(
        "method-too-long",
        "9112 §3",
        "SHOULD",
        "Answer a method longer than any that is implemented with 501.",
        "501, close, for more than 32 bytes, as soon as they are there.",
        refuses(501, ask("M" * 33 + " /")),
    ),
    Row(
        "target-too-long",
        "9112 §3, 9110 §15.5.15",
        "MUST",
        "Answer a target longer than is wanted with 414.",
        "414, close, for more than `max_target_size`; that size passes.",
        (
            keeps(ask("GET /seen/" + "x" * (TARGET_MAX - 6)), named("x" * (TARGET_MAX - 6))),
            *refuses(414, ask("GET /" + "x" * TARGET_MAX), raw("GET /" + "x" * HEAD_MAX)),
        ),
    ),
    Row(
        "target-of-8000",
        "9112 §3",
        "SHOULD",
        "Support request lines of at least 8,000 octets.",
        "`max_target_size` is 8,192 unless set.",
        test="test_request_line_of_8000_octets",
    ),
)

TARGETS = (
    Row(
        "origin-form",
        "9112 §3.2.1",
        "MUST",
        "The target of a request to an origin server is a path that begins with a slash, and "
        "perhaps a query.",
        "Anything that is none of the four forms is 400.",
        (
            keeps(ask("GET /seen?a=1&b"), seen(query={"a": "1", "b": ""})),
            *refuses(400, ask("GET index"), ask("GET ?a"), ask("GET ./"), ask("GET ftp://t/")),
        ),
    ),
    Row(
        "absolute-form",
        "9112 §3.2.2",
        "MUST",
        "Accept absolute-form, although clients send it to proxies only.",
        "Served as the path would be; a missing path is `/`.",
        (
            keeps(ask("GET http://t/seen?a=1"), seen(query={"a": "1"})),
            *each(HELLO, ask("GET http://t"), ask("GET HTTP://t:80"), ask("GET http://[::1]/")),
        ),
    ),
    Row(
        "absolute-form-host",
        "9112 §3.2.2",
        "MUST",
        "With absolute-form, ignore `Host` and go by the target's host.",
        "Handlers see the target's host and port as the value of `Host`, not what was received.",
        (
            keeps(ask("GET http://u.example:81/seen"), seen(host="u.example:81")),
            keeps(ask("GET http://u/seen", host="t.example.org"), seen(host="u")),
            keeps(ask("GET http://u/seen", host=""), seen(host="u")),
        ),
    ),
    Row(
        "http-uri-host",
        "9110 §4.2.1",
        "MUST",
        "Refuse an `http` URI without a host.",
        "400.",
        refuses(400, ask("GET http:///seen"), ask("GET http://:80/"), ask("GET http://")),
    ),
    Row(
        "userinfo",
        "9110 §4.2.4",
        "SHOULD",
        "Take user information in an `http` URI for an error.",
        "400.",
        refuses(400, ask("GET http://user@t/"), ask("GET http://t:80@u/"), ask("GET http://@t/")),
    ),
    Row(
        "https-target",
        "9110 §7.4",
        "MUST",
        "Refuse a request for an `https` resource on a connection that is not secured.",
        "421, close. (A gateway that ends TLS says so by a field, not by absolute-form.)",
        refuses(421, ask("GET https://t/"), ask("GET HTTPS://t"), ask("OPTIONS https://t")),
    ),
    Row(
        "authority-form",
        "9112 §3.2.3",
        "MUST NOT",
        "Authority-form is for CONNECT only.",
        "400 with any other method.",
        refuses(400, ask("GET t:80"), ask("OPTIONS t:80"), ask("POST t:80")),
    ),
    Row(
        "connect-port",
        "9110 §9.3.6",
        "MUST",
        "Refuse CONNECT with an empty or invalid port, or in another form.",
        "400.",
        refuses(
            400,
            *(
                ask(f"CONNECT {to}")
                for to in ("t", "t:", "t:99999", "t:x", "/", "*", "http://t:80/")
            ),
        ),
    ),
    Row(
        "connect",
        "9110 §9.3.6, §15.6.2",
        "MAY",
        "Implement CONNECT; most origin servers do not.",
        "501 and close: the method is not implemented for any target (so not 405), and what "
        "follows may be bytes for a tunnel, which must not be read as requests. No route can "
        "have it.",
        refuses(501, ask("CONNECT t:80"), ask("CONNECT [::1]:443")),
    ),
    Row(
        "asterisk-form",
        "9112 §3.2.4, 9110 §7.1",
        "MUST NOT",
        "Asterisk-form is for OPTIONS only.",
        "400 with any other method, and in any other place.",
        refuses(400, ask("GET *"), ask("HEADS *"), ask("OPTIONS *?a"), ask("OPTIONS **")),
    ),
    Row(
        "options-server",
        "9110 §9.3.7",
        "SHOULD",
        "A successful answer to OPTIONS tells what is implemented.",
        "`OPTIONS *` is answered by the server itself: 204 with, in `Allow`, the methods that any "
        "route has. 204, because there is nothing more to say and it ends with its head for "
        "every reader. Middleware does not see it. `OPTIONS http://host` is the same.",
        (
            *each(
                OPTIONS_OF_SERVER,
                ask("OPTIONS *"),
                ask("OPTIONS *", body=b"ping"),
                ask("OPTIONS http://t"),
            ),
            keeps(
                ask("OPTIONS *") + ask("GET /") + ask("OPTIONS *"),
                OPTIONS_OF_SERVER,
                HELLO,
                OPTIONS_OF_SERVER,
            ),
            keeps(ask("OPTIONS http://t/seen"), seen("OPTIONS")),
        ),
    ),
    Row(
        "trace",
        "9110 §9.3.8",
        "MAY",
        "Implement TRACE.",
        "501: nothing of a request is sent back unless a route does it.",
        refuses(501, ask("TRACE /", "Cookie: secret"), ask("TRACE /seen")),
    ),
    Row(
        "percent-decoding",
        "3986 §2.1",
        "MUST",
        "A percent sign is followed by two hexadecimal digits.",
        "A path that cannot be decoded, to UTF-8 without NUL, is 400. In a query, what cannot be "
        "decoded is left as it is.",
        (
            *refuses(
                400,
                *(ask(f"GET /seen/{name}") for name in ("%", "%4", "%zz", "%4g", "%ff", "a%00b")),
                ask("GET /%zz"),
                ask("GET http://t/%zz"),
            ),
            keeps(ask("GET /seen?a=%zz&b=%"), seen(query={"a": "%zz", "b": "%"})),
        ),
    ),
    Row(
        "percent-equivalence",
        "9110 §4.2.3, 3986 §6.2.2",
        "MUST",
        "An octet that is not reserved means the same, percent-encoded or not.",
        "Routes are matched on the decoded path; an encoded slash does not split a segment.",
        (
            keeps(ask("GET /s%65%65n"), seen()),
            keeps(ask("GET /seen/a%20%C3%BC"), named("a ü")),
            keeps(ask("GET /seen/a%2fb%252F"), named("a/b%2F")),
        ),
    ),
)

HOST = (
    Row(
        "host-missing",
        "9112 §3.2",
        "MUST",
        "Answer an HTTP/1.1 request without `Host` with 400.",
        "400, with every form of target. HTTP/1.0 needs none.",
        (
            *refuses(400, ask("GET /", host=None), ask("GET http://t/", host=None)),
            *refuses(400, ask("OPTIONS *", host=None), ask("GET /", version="HTTP/1.2", host=None)),
            closes(
                ask(version="HTTP/1.0", host=None),
                seen(host=None, connection="close"),
            ),
        ),
    ),
    Row(
        "host-repeated",
        "9112 §3.2",
        "MUST",
        "Answer a request with more than one `Host` with 400.",
        "400, equal or not, and in HTTP/1.0 too.",
        (
            *fields_refused(400, "Host: t", "Host: u", "host: t"),
            *refuses(400, ask("GET /", "Host: u", version="HTTP/1.0")),
        ),
    ),
    Row(
        "host-invalid",
        "9112 §3.2, 9110 §7.2",
        "MUST",
        "Answer a request whose `Host` is no host with an optional port with 400.",
        "400; in HTTP/1.0 too.",
        (
            *refuses(
                400,
                *(
                    ask("GET /", host=host)
                    for host in (
                        *("a b", "a/b", "a@b", "a,b", "a\\b", "a?b", "http://a", "a:b", "a:-1"),
                        *("a:65536", "a:80:80", "[::1", "[::1]a", "[g::1]", "%zz", "\xe9"),
                    )
                ),
            ),
            *refuses(400, ask("GET /", version="HTTP/1.0", host="a/b")),
        ),
    ),
    Row(
        "host-empty",
        "9112 §3.2",
        "MUST",
        "A client whose target has no authority sends `Host` empty.",
        "An empty `Host` is taken.",
        each(seen(host=""), ask(host="")),
    ),
)

FIELDS = (
    Row(
        "field-whitespace",
        "9112 §5, 9110 §5.5",
        "MUST",
        "White space around a field value is not part of it.",
        "SP and HTAB at both ends are left out; what is inside stays.",
        (
            keeps(
                ask("GET /seen", "A: \t a  b\tc \t ", "B:b", "C:", "D: \t"),
                seen(headers={"a": "a  b\tc", "b": "b", "c": "", "d": ""}),
            ),
        ),
    ),
    Row(
        "space-before-colon",
        "9112 §5.1",
        "MUST",
        "Answer white space between a field name and its colon with 400.",
        "400.",
        fields_refused(400, "X : y", "X\t: y", "Content-Length : 4", "Transfer-Encoding : chunked"),
    ),
    Row(
        "folded-line",
        "9112 §5.2",
        "MUST",
        "Refuse a folded field line with 400, or join the lines by spaces.",
        "400.",
        fields_refused(400, "X: y\r\n z", "X: y\r\n\tz", "X:\r\n y", "X: y\r\n "),
    ),
    Row(
        "field-name",
        "9110 §5.1",
        "MUST",
        "A field name is a token.",
        "An empty name, and one that is no token, are 400.",
        fields_refused(400, ": x", "X(Y: z", "X Y: z", "X\0: y", '"X": y', "X/Y: z"),
    ),
    Row(
        "field-name-case",
        "9110 §5.1",
        "MUST",
        "Field names are case-insensitive.",
        "They are compared, and given to handlers, in lower case.",
        (
            keeps(
                raw("POST /seen HTTP/1.1\r\nhOST: t\r\nCONTENT-length: 4\r\nX-a: b\r\n\r\nbody"),
                seen("POST", headers={"content-length": "4", "x-a": "b"}, body="body"),
            ),
            closes(ask("GET /", "CONNECTION: close"), text("hello", connection="close")),
        ),
    ),
    Row(
        "field-unknown",
        "9110 §5.1",
        "SHOULD",
        "Ignore fields that are not known.",
        "They change nothing, and handlers get them.",
        (
            keeps(ask("GET /seen", "Un-Known: x"), seen(headers={"un-known": "x"})),
            keeps(ask("GET /seen", "Keep-Alive: 0"), seen(headers={"keep-alive": "0"})),
        ),
    ),
    Row(
        "field-order",
        "9110 §5.2, §5.3",
        "MUST",
        "Several lines of one name are one list, in the order received.",
        "Joined by a comma in `request.headers` (`Cookie` by a semicolon); "
        "`request.raw_headers` has each.",
        (
            keeps(
                ask("GET /seen", "X: 1", "Y: 2", "x: 3", "Cookie: a", "Cookie: b"),
                seen(headers={"x": "1, 3", "y": "2", "cookie": "a; b"}),
            ),
            keeps(ask("GET /seen", "X: 1", "X: 1", "X:"), seen(headers={"x": "1, 1, "})),
        ),
    ),
    Row(
        "whole-head-first",
        "9110 §5.3",
        "MUST NOT",
        "Do not act on a request before its whole header section was received.",
        "A handler begins when head and body are complete.",
        (
            Fixture(
                (
                    (raw("GET /seen HTTP/1.1\r\nHost: t\r\n"), ()),
                    (raw("X: y\r\n\r\n"), (seen(headers={"x": "y"}),)),
                ),
                "keeps",
            ),
        ),
    ),
    Row(
        "head-too-large",
        "9110 §5.4, 6585 §5",
        "MUST",
        "Answer fields that are larger than is wanted with a 4xx; never ignore them.",
        "431, close, for a head of more than `max_header_size`; that size passes.",
        (
            keeps(ask("GET /", "X: " + "x" * _PADDING), HELLO),
            *fields_refused(431, "X: " + "x" * (_PADDING + 1)),
            *refuses(431, raw("GET / HTTP/1.1\r\n" + "X: y\r\n" * 100)),
        ),
    ),
    Row(
        "field-value-bytes",
        "9110 §5.5",
        "MUST",
        "Refuse a message with CR, LF or NUL in a field value, or take them for spaces.",
        "400, for all other control bytes but HTAB as well.",
        fields_refused(400, *(f"X: a{byte}b" for byte in "\r\0\x01\x0b\x1f\x7f")),
    ),
    Row(
        "empty-elements",
        "9110 §5.6.1.2",
        "MUST",
        "Ignore a reasonable number of empty elements in a list.",
        "In `Connection` and `Expect`, any that fit the head.",
        (
            closes(ask("GET /", "Connection: , ,\t,close,"), text("hello", connection="close")),
            keeps(
                ask("POST /seen", "Expect: ,100-continue ,", body=b"body"),
                got("body", expect=",100-continue ,"),
                may_continue=True,
            ),
            keeps(ask("GET /", "Connection:"), HELLO),
            keeps(ask("GET /", "Expect:"), HELLO),
        ),
    ),
    Row(
        "empty-codings",
        "9110 §5.6.1.2",
        "ours",
        "The same holds for `Transfer-Encoding`.",
        "We do not do it: an empty element there has no honest sender and is 400, since others "
        "read such a field as no coding at all.",
        codings_refused(400, "", ",", ",chunked", "chunked,", "chunked, ,"),
    ),
)

BODIES = (
    Row(
        "body-of-any-method",
        "9112 §6",
        "MUST",
        "Whether there is a body does not depend on the method.",
        "The body of a GET, HEAD, DELETE or OPTIONS is read, and never taken for a request.",
        (
            keeps(ask("GET /seen", body=PROBE), got(PROBE.decode(), method="GET")),
            keeps(ask("DELETE /seen", body=b"body"), got("body", method="DELETE")),
            keeps(ask("HEAD /", body=PROBE), bodiless(HELLO)),
            keeps(
                ask("GET /seen", "Transfer-Encoding: chunked") + chunked(b"body"),
                seen(headers={"transfer-encoding": "chunked"}, body="body"),
            ),
        ),
    ),
    Row(
        "no-body",
        "9112 §6.3",
        "MUST",
        "A request with neither `Content-Length` nor `Transfer-Encoding` has no body.",
        "So it is, with any method.",
        (
            keeps(ask("POST /seen"), seen("POST")),
            keeps(ask("PUT /seen") + ask("POST /seen"), seen("PUT"), seen("POST")),
            closes(
                ask("POST /seen", version="HTTP/1.0"),
                seen("POST", connection="close"),
            ),
        ),
    ),
    Row(
        "length",
        "9112 §6.3",
        "MUST",
        "A valid `Content-Length` is the length of the body.",
        "Exactly so many bytes are read; what follows is the next request.",
        (
            keeps(ask("POST /seen", body=b"body"), got("body")),
            keeps(ask("POST /seen", "Content-Length: 0"), got("")),
            keeps(
                ask("POST /seen", "Content-Length: 004") + b"body",
                seen("POST", headers={"content-length": "004"}, body="body"),
            ),
            closes(
                ask("POST /seen", body=b"body", version="HTTP/1.0"),
                seen("POST", headers={"content-length": "4"}, body="body", connection="close"),
            ),
        ),
    ),
    Row(
        "length-invalid",
        "9112 §6.3",
        "MUST",
        "Answer an invalid `Content-Length` with 400 and close.",
        "400, close, for anything but digits.",
        lengths_refused(
            *("abc", "", "-1", "+4", "0x4", "1_0", "4.0", "4 4", "4,5", "4;", "\xb2", "4\x0b"),
        ),
    ),
    Row(
        "length-overflow",
        "9110 §8.6",
        "MUST",
        "Expect large numbers; let no integer overflow or lose precision.",
        "What 64 bits do not hold is 400; what they hold and is over the limit is 413.",
        (
            *lengths_refused("18446744073709551616", "18446744073709551620", "9" * 99),
            *refuses(413, ask("POST /seen", "Content-Length: 18446744073709551615")),
        ),
    ),
    Row(
        "length-conflict",
        "9112 §6.3",
        "MUST",
        "Answer several `Content-Length` of different values with 400 and close.",
        "400, close.",
        refuses(
            400,
            ask("POST /seen", "Content-Length: 4", "Content-Length: 5") + b"body",
            ask("POST /seen", "Content-Length: 4", "X: y", "content-length: 0") + b"body",
            ask("POST /seen", "Content-Length: 4", "Content-Length: x") + b"body",
        ),
    ),
    Row(
        "length-list",
        "9110 §8.6",
        "MAY",
        "Refuse a list of equal lengths, or take it for one.",
        "Equal lengths on several lines are one; a list on one line is 400.",
        (
            keeps(
                ask("POST /seen", "Content-Length: 4", "Content-Length: 4") + b"body",
                got("body"),
            ),
            *lengths_refused("4, 4", "4,4"),
        ),
    ),
    Row(
        "length-and-coding",
        "9112 §6.1, §6.3",
        "MAY",
        "Refuse a request with both `Content-Length` and `Transfer-Encoding`.",
        "400, close, in any order: this is what smuggling begins with.",
        refuses(
            400,
            ask("POST /seen", "Content-Length: 4", "Transfer-Encoding: chunked") + chunked(b"x"),
            ask("POST /seen", "Transfer-Encoding: chunked", "Content-Length: 4") + chunked(b"x"),
            ask("POST /seen", "Transfer-Encoding: chunked", "Content-Length: 0") + chunked(b"x"),
        ),
    ),
    Row(
        "coding-in-1.0",
        "9112 §6.1",
        "MUST",
        "Take `Transfer-Encoding` in HTTP/1.0 for faulty framing, and close.",
        "400, close.",
        refuses(
            400,
            ask("POST /seen", "Transfer-Encoding: chunked", version="HTTP/1.0") + chunked(b"x"),
            ask("POST /seen", "Transfer-Encoding: gzip", version="HTTP/1.0"),
        ),
    ),
    Row(
        "coding-not-chunked-last",
        "9112 §6.3",
        "MUST",
        "Answer a request whose last coding is not chunked with 400 and close.",
        "400, close.",
        codings_refused(
            400, "gzip", "identity", "chunked, gzip", "xchunked", "chunked;a=b", "chunke\xf0"
        ),
    ),
    Row(
        "coding-chunked-twice",
        "9112 §6.1",
        "MUST NOT",
        "Chunked is applied once at most.",
        "400, close, on one line or two.",
        (
            *codings_refused(400, "chunked, chunked", "chunked, gzip, chunked"),
            *codings_refused(400, "chunked\r\nTransfer-Encoding: chunked"),
        ),
    ),
    Row(
        "coding-unknown",
        "9112 §6.1",
        "SHOULD",
        "Answer a coding that is not understood with 501.",
        "501, close, for all but chunked; there is no compression of transfers.",
        codings_refused(
            501, "gzip, chunked", "foo;a=b, chunked", "x\r\nTransfer-Encoding: chunked"
        ),
    ),
    Row(
        "coding-case",
        "9112 §7",
        "MUST",
        "Coding names are case-insensitive.",
        "So they are.",
        (
            keeps(
                ask("POST /seen", "Transfer-Encoding:  CHUNKed ") + chunked(b"body"),
                seen("POST", headers={"transfer-encoding": "CHUNKed"}, body="body"),
            ),
        ),
    ),
    Row(
        "chunked",
        "9112 §7.1",
        "MUST",
        "Parse and decode the chunked coding.",
        "Handlers get the data, in one piece.",
        chunks_decoded(
            (chunked(), ""),
            (chunked(b"body"), "body"),
            (chunked(b"a", b"bc", b"def"), "abcdef"),
            (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
            (b"10\r\n0123456789abcdef\r\n0\r\n\r\n", "0123456789abcdef"),
            (b"0000000000000004\r\nbody\r\n0000\r\n\r\n", "body"),
            (chunked(b"a\r\n0\r\n\r\nb"), "a\r\n0\r\n\r\nb"),
        ),
    ),
    Row(
        "chunk-malformed",
        "9112 §7.1",
        "MUST",
        "A chunk is its size in hexadecimal digits, CRLF, the data and CRLF.",
        "Anything else is 400, close.",
        chunks_refused(
            400,
            *(size + b"\r\nbody\r\n0\r\n\r\n" for size in (b"", b"g", b"0x4", b"+4", b"-4", b" 4")),
            *(size + b"\r\nbody\r\n0\r\n\r\n" for size in (b"4 ", b"4\t", b"4,", b"4\0", b"\xb9")),
            b"4\nbody\r\n0\r\n\r\n",
            b"4\rbody\r\n0\r\n\r\n",
            b"4\r\nbodybody\r\n0\r\n\r\n",
            b"4\r\nbody0\r\n\r\n",
            b"4\r\nbody\n0\r\n\r\n",
            b"4\r\nbody\r0\r\n\r\n",
            b"4\r\nbodyX\n0\r\n\r\n",
            b"0\r\n\n",
        ),
    ),
    Row(
        "chunk-overflow",
        "9112 §7.1",
        "MUST",
        "Expect large chunk sizes; let no integer overflow or lose precision.",
        "More than 16 digits are 400; what is over `max_body_size`, alone or in sum, is 413.",
        (
            *chunks_refused(400, b"1" + b"0" * 16 + b"\r\n", b"0" * 17 + b"\r\n\r\n"),
            *chunks_refused(413, b"ffffffffffffffff\r\n", b"1\r\nx\r\nffffffffffffffff\r\n"),
        ),
    ),
    Row(
        "chunk-extensions",
        "9112 §7.1.1",
        "MUST",
        "Ignore chunk extensions that are not known.",
        "All are; bytes that none can have are 400.",
        (
            *chunks_decoded(
                (b'4;a=b;c="d e"\r\nbody\r\n0;last\r\n\r\n', "body"),
                (b"4; a\t=\tb\r\nbody\r\n0; c\r\n\r\n", "body"),
            ),
            *chunks_refused(
                400,
                b"4;a\nbody\r\n0\r\n\r\n",
                b"4;a=\rb\r\nbody\r\n0\r\n\r\n",
                b"4;\0\r\nbody\r\n0\r\n\r\n",
                b"4;\xe9\r\nbody\r\n0\r\n\r\n",
            ),
        ),
    ),
    Row(
        "chunk-extensions-limit",
        "9112 §7.1.1",
        "SHOULD",
        "Limit the length of the chunk extensions of a request, and answer more with a 4xx.",
        "400, close, over 256 bytes for one chunk, or 16 KiB for all of a body.",
        (
            *chunks_decoded((b"4;" + b"a" * 255 + b"\r\nbody\r\n0\r\n\r\n", "body")),
            *chunks_refused(400, b"4;" + b"a" * 256 + b"\r\nbody\r\n0\r\n\r\n"),
            *chunks_decoded(((b"1;" + b"a" * 255 + b"\r\nx\r\n") * 64 + b"0\r\n\r\n", "x" * 64)),
            *chunks_refused(400, (b"1;" + b"a" * 255 + b"\r\nx\r\n") * 64 + b"0;a\r\n\r\n"),
        ),
    ),
    Row(
        "trailers",
        "9112 §7.1.2, 9110 §6.5.1",
        "MUST NOT",
        "Do not merge trailer fields into the header section; they may be dropped.",
        "They are checked as fields are, and dropped.",
        (
            *chunks_decoded(
                (chunked(b"body", trailer=b"X-Sum: 1\r\nX-More:\r\n"), "body"),
                (chunked(trailer=b"X: \xe9\t\r\n"), ""),
            ),
            *chunks_refused(
                400,
                chunked(trailer=b"nonsense\r\n"),
                chunked(trailer=b": x\r\n"),
                chunked(trailer=b"X : y\r\n"),
                chunked(trailer=b"X: a\0b\r\n"),
                chunked(trailer=b"X: a\r\n b\r\n"),
                chunked(trailer=b"X: a\n"),
            ),
        ),
    ),
    Row(
        "trailers-forbidden",
        "9110 §6.5.1",
        "MUST NOT",
        "Fields of framing, routing, authentication, request control and content format are not "
        "sent as trailers.",
        "400, close: who sends them means to deceive somebody.",
        chunks_refused(
            400,
            *(
                chunked(trailer=name + b": x\r\n")
                for name in (
                    *(b"Content-Length", b"transfer-encoding", b"HOST", b"Connection", b"TE"),
                    *(b"Authorization", b"Cookie", b"Content-Type", b"Expect", b"Trailer"),
                )
            ),
        ),
    ),
    Row(
        "trailers-limit",
        "9110 §5.4",
        "MUST",
        "Answer trailer fields that are larger than is wanted with a 4xx.",
        "431, close, over 8 KiB of them.",
        (
            *chunks_decoded((chunked(trailer=b"X: " + b"x" * 8187 + b"\r\n"), "")),
            *chunks_refused(431, chunked(trailer=b"X: " + b"x" * 8188 + b"\r\n")),
        ),
    ),
    Row(
        "body-too-large",
        "9110 §15.5.14",
        "MAY",
        "Refuse content that is larger than is wanted with 413, and close.",
        "413, close, over `max_body_size`; that size passes. It comes before the body.",
        (
            keeps(ask("POST /seen", body=b"x" * BODY_MAX), got("x" * BODY_MAX)),
            *chunks_decoded((chunked(b"x" * (BODY_MAX - 1), b"x"), "x" * BODY_MAX)),
            *refuses(413, ask("POST /seen", body=b"x" * (BODY_MAX + 1))),
            *refuses(413, ask("POST /seen", f"Content-Length: {BODY_MAX + 1}")),
            *chunks_refused(413, chunked(b"x" * BODY_MAX, b"x"), b"%x\r\n" % (BODY_MAX + 1)),
        ),
    ),
    Row(
        "incomplete-head",
        "9112 §8",
        "MAY",
        "Answer a request that ends in the middle with an error before closing.",
        "400 when the client ends its side within a head; nothing when it had sent nothing.",
        (
            Fixture(((b"GET / HTTP/1.1\r\nHost", (refused(400),)),), "ends"),
            Fixture(((b"GET / HTTP/1.1\r\nHost: t\r\n", (refused(400),)),), "ends"),
        ),
    ),
    Row(
        "incomplete-body",
        "9112 §8",
        "MUST",
        "A request whose body is shorter than said is incomplete.",
        "No handler gets it, and nobody is answered.",
        test="test_incomplete_body_reaches_no_handler",
    ),
    Row(
        "half-closed",
        "9112 §9.6",
        "ours",
        "A client may end its side after its last request.",
        "What came before the end is answered; then we close.",
        test="test_request_before_a_half_close_is_answered",
    ),
)

CONNECTIONS = (
    Row(
        "persistent",
        "9112 §9.3",
        "SHOULD",
        "Keep an HTTP/1.1 connection open after an answer, unless close was said.",
        "So it is, and `Connection: keep-alive` changes nothing.",
        (
            keeps(PROBE * 3, HELLO, HELLO, HELLO),
            keeps(ask("GET /", "Connection: keep-alive"), HELLO),
            keeps(ask("GET /", "Connection: closed, clos, x-close"), HELLO),
            keeps(ask("GET /nowhere"), refused(404, close=False)),
        ),
    ),
    Row(
        "close",
        "9112 §9.3, §9.6",
        "MUST",
        "After a request with `close`, close, and serve nothing more that comes.",
        "The answer says `Connection: close`, and what follows is not looked at.",
        (
            closes(ask("GET /", "Connection: close"), text("hello", connection="close")),
            closes(
                ask("POST /seen", "Connection: close", body=b"body"),
                seen(
                    "POST",
                    headers={"connection": "close", "content-length": "4"},
                    body="body",
                    connection="close",
                ),
            ),
            closes(
                ask("GET /nowhere", "Connection: close"),
                refused(404),
            ),
        ),
    ),
    Row(
        "connection-options",
        "9110 §7.6.1",
        "MUST",
        "`Connection` is a list of case-insensitive options.",
        "Every line and element is looked at; `close` wins over `keep-alive`.",
        tuple(
            closes(ask("GET /", *fields), text("hello", connection="close"))
            for fields in (
                ("Connection: CLOSE",),
                ("Connection: x, close",),
                ("Connection: close , x",),
                ("Connection: keep-alive,\tClose",),
                ("Connection: close", "Connection: keep-alive"),
                ("Connection: keep-alive", "Connection: x", "connection: close"),
            )
        ),
    ),
    Row(
        "http-1.0",
        "9112 §9.3",
        "MUST",
        "Close an HTTP/1.0 connection after the answer, unless keep-alive was said.",
        "Closed, and the answer says so.",
        (
            closes(ask("GET /", version="HTTP/1.0"), text("hello", connection="close")),
            closes(
                ask("GET /", "Connection: keep-alive, close", version="HTTP/1.0"),
                text("hello", connection="close"),
            ),
        ),
    ),
    Row(
        "http-1.0-keep-alive",
        "9112 §9.3, C.2.2",
        "MAY",
        "Keep an HTTP/1.0 connection open if the client asks for it.",
        "Kept; the answer says `Connection: keep-alive`.",
        each(
            text("hello", connection="keep-alive"),
            ask("GET /", "Connection: keep-alive", version="HTTP/1.0"),
            ask("GET /", "Connection: x, Keep-Alive", version="HTTP/1.0", host=None),
        ),
    ),
    Row(
        "whole-body-read",
        "9112 §9.3",
        "MUST",
        "Read the whole body of a request, or close after the answer.",
        "A body that no handler wants is read, and never taken for a request.",
        (
            keeps(ask("POST /nowhere", body=PROBE), refused(404, close=False)),
            keeps(ask("POST /", body=PROBE), refused(405, close=False, allow="GET, HEAD")),
            keeps(ask("POST /count", body=PROBE), text("counted")),
            keeps(
                ask("POST /nowhere", "Transfer-Encoding: chunked") + chunked(PROBE),
                refused(404, close=False),
            ),
        ),
    ),
    Row(
        "pipelining",
        "9112 §9.3.2",
        "MUST",
        "Answer pipelined requests in the order in which they came.",
        "One after the other.",
        (
            keeps(
                ask() + ask("GET /nowhere") + ask("POST /seen", body=b"1") + PROBE,
                seen(),
                refused(404, close=False),
                got("1"),
                HELLO,
            ),
            closes(PROBE + b"nonsense\r\n\r\n", HELLO, refused(400)),
        ),
    ),
    Row(
        "lingering",
        "9112 §9.6",
        "SHOULD",
        "Close in stages, so that no reset destroys the last answer before the client has read it.",
        "The sending side is closed first; then what comes is dropped until the client ends, for "
        "2 s at most.",
        test="test_refusal_reaches_a_client_that_goes_on_sending",
    ),
    Row(
        "timeouts",
        "9112 §9.5",
        "MAY",
        "End a connection that is idle, or a request that does not go on.",
        "An idle connection is closed silently after `keepalive_timeout`; a request that stops "
        "gets 408 and a close after `read_timeout`.",
        test="test_connection_that_rests_is_ended",
    ),
    Row(
        "overload",
        "9110 §15.6.4, §10.2.3",
        "MAY",
        "Say with `Retry-After` when an unavailable service comes back.",
        "503 with `Retry-After` and a close when `max_connections` are open for `accept_pause`.",
        test="test_overload_is_503_with_retry_after",
    ),
    Row(
        "upgrade-ignored",
        "9110 §7.8",
        "MAY",
        "Ignore `Upgrade`.",
        "Served as if it were not there. Handlers see the field.",
        (
            keeps(
                ask("GET /seen", "Connection: Upgrade", "Upgrade: websocket"),
                seen(headers={"connection": "Upgrade", "upgrade": "websocket"}),
            ),
            keeps(
                ask(
                    "GET /",
                    "Connection: HTTP2-Settings, upgrade",
                    "Upgrade: h2c",
                    "HTTP2-Settings:",
                ),
                HELLO,
            ),
            keeps(ask("GET /", "Upgrade: websocket"), HELLO),
        ),
    ),
    Row(
        "upgrade-in-1.0",
        "9110 §7.8",
        "MUST",
        "Ignore `Upgrade` in an HTTP/1.0 request.",
        "So it is.",
        (
            closes(
                ask("GET /", "Connection: upgrade", "Upgrade: h2c", version="HTTP/1.0"),
                text("hello", connection="close"),
            ),
        ),
    ),
    Row(
        "upgrade-sent",
        "9110 §7.8, §15.5.22",
        "MUST",
        "Whoever sends `Upgrade` names it in `Connection`.",
        "The server adds the option when a handler has set the field.",
        (
            keeps(ask("GET /upgrade"), text("upgrade", 426, upgrade="h2c", connection="upgrade")),
            closes(
                ask("GET /upgrade", "Connection: close"),
                text("upgrade", 426, upgrade="h2c", connection="close, upgrade"),
            ),
        ),
    ),
)

_EXPECT = "Expect: 100-continue"

EXPECTATIONS = (
    Row(
        "continue",
        "9110 §10.1.1",
        "MUST",
        "Answer `100-continue` with 100 or a final answer, before waiting for the content; after "
        "100, send a final answer.",
        "100 once the head has passed routing and limits and no byte of the body is there; on a "
        "route that streams, when its handler begins to read.",
        (
            Fixture(
                (
                    (ask("POST /seen", _EXPECT, "Content-Length: 4"), (CONTINUE,)),
                    (b"body", (got("body", expect="100-continue"),)),
                ),
                "keeps",
            ),
            Fixture(
                (
                    (
                        ask("POST /count", "expect: 100-CONTINUE", "Transfer-Encoding: chunked"),
                        (CONTINUE,),
                    ),
                    (chunked(b"body"), (text("counted"),)),
                ),
                "keeps",
            ),
            Fixture(
                (
                    (ask("POST /upload", _EXPECT, "Content-Length: 4"), (CONTINUE,)),
                    (b"body", (text("body"),)),
                ),
                "keeps",
            ),
        ),
    ),
    Row(
        "continue-omitted",
        "9110 §10.1.1",
        "MAY",
        "Leave 100 out when content has come already, or there is none.",
        "Left out.",
        (
            keeps(
                ask("POST /seen", _EXPECT, body=b"body"),
                got("body", expect="100-continue"),
                may_continue=True,
            ),
            keeps(ask("POST /seen", _EXPECT), seen("POST", headers={"expect": "100-continue"})),
            keeps(
                ask("POST /seen", _EXPECT, "Content-Length: 0"),
                got("", expect="100-continue"),
            ),
        ),
    ),
    Row(
        "continue-final",
        "9110 §10.1.1",
        "SHOULD",
        "A final answer before the content was read says whether the connection is closed.",
        "Refusals that the head is enough for come without 100, and close; so do answers of "
        "handlers that stream and do not read.",
        (
            *(
                closes(ask(line, _EXPECT, "Content-Length: 4"), expected, waits=True)
                for line, expected in (
                    ("POST /nowhere", refused(404)),
                    ("POST /", refused(405, allow="GET, HEAD")),
                    ("MAKE /", refused(501)),
                )
            ),
            closes(
                ask("POST /unread", _EXPECT, "Content-Length: 4"),
                text("hello", connection="close"),
                waits=True,
            ),
            *refuses(413, ask("POST /seen", _EXPECT, "Content-Length: 999")),
            *refuses(400, ask("POST /seen/%zz", _EXPECT, "Content-Length: 4")),
        ),
    ),
    Row(
        "continue-in-1.0",
        "9110 §10.1.1, §15.2",
        "MUST",
        "Ignore `100-continue` in HTTP/1.0; never send 1xx there.",
        "So it is: the content is awaited in silence.",
        (
            Fixture(
                (
                    (ask("POST /count", _EXPECT, "Content-Length: 4", version="HTTP/1.0"), ()),
                    (b"body", (text("counted", connection="close"),)),
                ),
                "closes",
            ),
            closes(
                ask("POST /count", "Expect: tea", body=b"body", version="HTTP/1.0"),
                text("counted", connection="close"),
            ),
        ),
    ),
    Row(
        "expectation-unknown",
        "9110 §10.1.1",
        "MAY",
        "Answer an expectation other than `100-continue` with 417.",
        "417, close.",
        refuses(
            417,
            ask("POST /seen", "Expect: tea", body=b"body"),
            ask("POST /seen", "Expect: 100-continue, tea", body=b"body"),
            ask("POST /seen", "Expect: 100-continue=x", body=b"body"),
            ask("GET /", "Expect: 100", "X: y"),
            ask("GET /", _EXPECT, "Expect: x"),
        ),
    ),
)


def _of_any_size(status: int, expected: Expected) -> tuple[Fixture, ...]:
    return each(expected, ask(f"GET /status/{status}"), ask(f"GET /kept/{status}"))


ANSWERS = (
    Row(
        "get-and-head",
        "9110 §9.1, §9.3.2",
        "MUST",
        "Support GET and HEAD.",
        "HEAD is served wherever GET is, by the same handler.",
        (
            keeps(PROBE, HELLO),
            keeps(ask("HEAD /"), bodiless(HELLO)),
            keeps(ask("HEAD /seen/a"), bodiless(named("a"))),
            keeps(ask("HEAD /item"), bodiless(refused(405, close=False, allow="DELETE, PUT"))),
        ),
    ),
    Row(
        "head-without-content",
        "9110 §9.3.2",
        "MUST NOT",
        "Send no content in answer to HEAD.",
        "None, whatever the handler wrote, and also when the request is refused.",
        (
            keeps(ask("HEAD /kept/200"), bodiless(text("x" * 5000))),
            keeps(ask("HEAD /raise"), bodiless(refused(500, close=False))),
            keeps(ask("HEAD /nowhere"), bodiless(refused(404, close=False))),
            *(
                closes(data, bodiless(refused(status)))
                for status, data in (
                    (400, ask("HEAD /", host=None)),
                    (400, ask("HEAD /", "X : y")),
                    (400, ask("HEAD /%zz")),
                    (413, ask("HEAD /", "Content-Length: 999")),
                    (400, ask("HEAD /", "Transfer-Encoding: chunked") + b"x"),
                    (417, b"\r\n" + ask("HEAD /", "Expect: x")),
                )
            ),
        ),
    ),
    Row(
        "head-fields",
        "9110 §9.3.2, §8.6",
        "SHOULD",
        "Answer HEAD with the fields of GET; `Content-Length`, if any, is that of GET.",
        "All of them.",
        (
            keeps(ask("HEAD /bytes"), bodiless(answer(200, b"\0", "application/octet-stream"))),
            keeps(ask("HEAD /redirect"), bodiless(answer(302, "", None, location="/elsewhere"))),
            keeps(ask("HEAD /status/299"), bodiless(text("body", 299))),
            keeps(ask("HEAD /stream"), bodiless(STREAMED)),
            keeps(ask("HEAD /stream-of-5"), bodiless(HELLO)),
        ),
    ),
    Row(
        "status-line",
        "9112 §4",
        "MUST",
        "Send the space after the status also when there is no reason.",
        "Sent. (The test's client demands it.)",
        each(text("body", 299), ask("GET /status/299")),
    ),
    Row(
        "status-valid",
        "9110 §15",
        "MUST",
        "A status has three digits, the first from 1 to 5; 1xx is never the last answer.",
        "`set_status` raises `ValueError` outside of 200 to 599; in Rust, the answer becomes 500.",
        (
            *each(
                text("ValueError"),
                *(ask(f"GET /bad-status/{code}") for code in (100, 101, 199, 600, 999, 0, -200)),
            ),
            keeps(ask("GET /status/599"), Expected((599, "", text("body").whole[2], b"body"))),
        ),
    ),
    Row(
        "204",
        "9110 §15.3.5, §8.6, 9112 §6.3",
        "MUST NOT",
        "204 has neither content nor `Content-Length`.",
        "What the handler wrote is dropped.",
        _of_any_size(204, answer(204, "", TEXT_UTF8)),
    ),
    Row(
        "205",
        "9110 §15.3.6",
        "MUST NOT",
        "205 has no content.",
        "What the handler wrote is dropped; `Content-Length` is 0.",
        _of_any_size(205, answer(205, "", TEXT_UTF8)),
    ),
    Row(
        "304",
        "9110 §15.4.5, 9112 §6.3",
        "MUST NOT",
        "304 has no content, and no `Content-Length` but that of the 200.",
        "What the handler wrote is dropped, and no length is sent.",
        _of_any_size(304, answer(304, "", TEXT_UTF8)),
    ),
    Row(
        "length-sent",
        "9110 §8.6",
        "SHOULD",
        "Send `Content-Length` when the size is known before the head is sent.",
        "Sent, also when it is 0.",
        (
            keeps(ask("GET /kept/200"), text("x" * 5000)),
            keeps(ask("GET /redirect"), answer(302, "", None, location="/elsewhere")),
        ),
    ),
    Row(
        "one-framing",
        "9112 §6.2, 9110 §8.6",
        "MUST NOT",
        "Send one `Content-Length` that is right, and never with `Transfer-Encoding`.",
        "Both are the server's: those of handlers are dropped, and so is their `Connection`.",
        (
            keeps(ask("GET /framing"), text("ok")),
            keeps(ask("HEAD /framing"), bodiless(text("ok"))),
        ),
    ),
    Row(
        "chunked-sent",
        "9112 §7.1",
        "MUST",
        "A chunked body is chunks of at least a byte, the last chunk and an empty line.",
        "What is streamed without a length is chunked; a piece of no bytes is not sent.",
        (
            keeps(ask("GET /stream"), STREAMED),
            keeps(ask("GET /stream") * 2, STREAMED, STREAMED),
            keeps(ask("GET /stream-of-5"), HELLO),
        ),
    ),
    Row(
        "coding-to-1.0",
        "9112 §6.1",
        "MUST NOT",
        "Send `Transfer-Encoding` only to HTTP/1.1.",
        "To HTTP/1.0 a stream without a length ends with the connection.",
        test="test_streamed_answer_of_1_0_ends_with_the_connection",
    ),
    Row(
        "coding-without-content",
        "9112 §6.1, §6.3",
        "MUST NOT",
        "Send no `Transfer-Encoding` with 1xx and 204.",
        "Nor with 205 and 304: what the handler streams is dropped.",
        tuple(
            keeps(ask(f"GET /stream/{status}"), answer(status, "", TEXT_UTF8))
            for status in (204, 205, 304)
        ),
    ),
    Row(
        "answer-cut-off",
        "9112 §8",
        "MUST",
        "An answer that ends before its framing says so is incomplete.",
        "When a handler fails after the head was sent, the connection ends there, without a last "
        "chunk, so that the client can tell.",
        test="test_answer_that_fails_is_seen_to_be_incomplete",
    ),
    Row(
        "field-once",
        "9110 §5.3",
        "MUST NOT",
        "Send no two lines of one name, unless the field is a list.",
        "`set_header` takes the place of what was set, in any case; `add_header` is for lists and "
        "`Set-Cookie`. What the server adds, it adds once. (The test's client demands it.)",
        (keeps(ask("GET /once"), text("ok", x_once="second")),),
    ),
    Row(
        "content-type",
        "9110 §8.3",
        "SHOULD",
        "Say the type of content, if it is known.",
        "`str` is text in UTF-8, bytes are bytes, unless the handler says otherwise.",
        (
            keeps(PROBE, HELLO),
            keeps(ask("GET /bytes"), answer(200, b"\0", "application/octet-stream")),
            keeps(ask("GET /nowhere"), refused(404, close=False)),
        ),
    ),
    Row(
        "date",
        "9110 §6.6.1, §5.6.7",
        "MUST",
        "Send `Date` with every 2xx, 3xx and 4xx, near the time of the answer, in the one form.",
        "With every final answer. (The test's client demands it, and lets it be 5 s old.)",
        (
            keeps(PROBE, HELLO),
            keeps(ask("GET /redirect"), answer(302, "", None, location="/elsewhere")),
            keeps(ask("GET /status/204"), answer(204, "", TEXT_UTF8)),
            keeps(ask("GET /nowhere"), refused(404, close=False)),
            keeps(ask("GET /raise"), refused(500, close=False)),
            closes(b"nonsense\r\n\r\n", refused(400)),
        ),
    ),
    Row(
        "date-moves",
        "9110 §6.6.1",
        "SHOULD",
        "`Date` is the best approximation of the time of the answer.",
        "It is formatted once a second, and is never more than a second old.",
        test="test_date_is_that_of_the_answer",
    ),
    Row(
        "server-field",
        "9110 §10.2.4",
        "MAY",
        "Send `Server`; not needlessly detailed.",
        "Sent with every answer, refusals too, if `server_header` is set; it is not by default.",
        test="test_server_field_is_in_every_answer",
    ),
    Row(
        "redirect",
        "9110 §15.4",
        "SHOULD",
        "A redirection says where to, in `Location`.",
        "`response.redirect` sets it.",
        each(answer(302, "", None, location="/elsewhere"), ask("GET /redirect")),
    ),
    Row(
        "explained",
        "9110 §15.5, §15.6",
        "SHOULD",
        "An error explains itself in its content.",
        "Status and reason, as text; never a traceback or a detail of the request.",
        (
            keeps(ask("GET /nowhere"), refused(404, close=False)),
            keeps(ask("GET /raise"), refused(500, close=False)),
            *refuses(400, b"nonsense\r\n\r\n"),
            *refuses(505, ask("GET /", version="HTTP/2.0")),
        ),
    ),
    Row(
        "splitting",
        "9112 §11.1, 9110 §5.5",
        "MUST NOT",
        "No field may end before its line does: CR, LF and NUL are never sent in one.",
        "`set_header` and `add_header` raise `ValueError` for them, for all other control bytes "
        "but HTAB, and for a name that is no token.",
        (
            *each(
                text("ValueError"),
                *(
                    sets_header("X-A", value)
                    for value in ("b\r\nX-C: d", "b\nc", "b\rc", "b\0c", "\x01", "\x7f", "☃")
                ),
                *(
                    sets_header(name, "b")
                    for name in ("X-A\r\nX-B", "X A", "X-A:", "", "Ü", "X\0", "X\n")
                ),
            ),
            keeps(sets_header("X-A", "b\tc"), text("accepted", x_a="b\tc")),
            keeps(sets_header("X-A", ""), text("accepted", x_a="")),
        ),
    ),
)

MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"
# Nanoseconds and length, in hexadecimal.
FILE_TAG = f'"{784_111_777 * 10**9:x}-a"'


def file(status: int = 200, body: str = "0123456789", **more: str) -> Expected:
    """What `/file` answers; without a type where there is nothing of the file."""
    more = {"etag": FILE_TAG, "last_modified": MODIFIED, "accept_ranges": "bytes", **more}
    return answer(status, body, "text/plain" if body else None, **more)


def tagged(tag: str, status: int = 200, body: str = "0123456789", **more: str) -> Expected:
    """What `/file/tagged/…` answers."""
    more = {"cache_control": "max-age=60", "vary": "Accept", **more}
    return file(status, body, etag=tag, **more)


def strong(*fields: str) -> bytes:
    return ask("GET /file/tagged/strong", *fields)


def weak(*fields: str) -> bytes:
    return ask("GET /file/tagged/weak", *fields)


def part(first: int, last: int) -> Expected:
    body = "0123456789"[first : last + 1]
    return file(206, body, content_range=f"bytes {first}-{last}/10")


def ranges(expected: Expected, *values: str) -> tuple[Fixture, ...]:
    return each(expected, *(ask("GET /file", f"Range: {value}") for value in values))


STRONG, WEAK = '"abc"', 'W/"abc"'
UNCHANGED = tagged(STRONG, 304, "")
FAILED = tagged(STRONG, 412, "")
UNSATISFIABLE = file(416, "", content_range="bytes */10")

CONDITIONS = (
    Row(
        "etag-sent",
        "9110 §8.8.3",
        "SHOULD",
        "Send an `ETag` for a representation of which changes can be told.",
        "A file's time of modification to the nanosecond, and its length; or what the handler set.",
        (
            keeps(ask("GET /file"), file()),
            keeps(ask("HEAD /file"), bodiless(file())),
            keeps(strong(), tagged(STRONG)),
        ),
    ),
    Row(
        "last-modified-sent",
        "9110 §8.8.2",
        "SHOULD",
        "Send `Last-Modified` if the time can be told.",
        "The file's, in whole seconds.",
        (keeps(ask("GET /file"), file()), keeps(ask("HEAD /file"), bodiless(file()))),
    ),
    Row(
        "last-modified-of-the-future",
        "9110 §8.8.2.1",
        "MUST NOT",
        "Send no `Last-Modified` that is later than `Date`.",
        "A file from the future was modified now.",
        test="test_file_from_the_future_was_modified_now",
    ),
    Row(
        "if-match",
        "9110 §13.1.1",
        "MUST NOT",
        "When no tag of `If-Match` is that of the representation, do not serve it.",
        "412; for `*`, any representation will do. (For methods other than GET and HEAD, "
        "conditions are the handler's.)",
        (
            *each(FAILED, strong('If-Match: "x"'), strong('If-Match: "x", "y"')),
            *each(
                tagged(STRONG),
                strong("If-Match: *"),
                strong('If-Match: "abc"'),
                strong('If-Match: "x", "abc"'),
                strong('If-Match: "x"', 'If-Match: "abc"'),
            ),
        ),
    ),
    Row(
        "if-match-strong",
        "9110 §13.1.1",
        "MUST",
        "Compare the tags of `If-Match` by the strong comparison.",
        "A weak tag, on either side, is never equal.",
        (
            keeps(strong('If-Match: W/"abc"'), FAILED),
            keeps(weak('If-Match: "abc"'), tagged(WEAK, 412, "")),
        ),
    ),
    Row(
        "if-none-match",
        "9110 §13.1.2",
        "MUST NOT",
        "When a tag of `If-None-Match` is that of the representation, answer GET and HEAD with "
        "304.",
        "304, with the fields that a cache needs and no content.",
        (
            *each(
                UNCHANGED,
                strong('If-None-Match: "abc"'),
                strong("If-None-Match: *"),
                strong('If-None-Match: "x", "abc"'),
            ),
            keeps(
                ask("HEAD /file/tagged/strong", 'If-None-Match: "abc"'),
                bodiless(UNCHANGED),
            ),
            *each(tagged(STRONG), strong('If-None-Match: "x"'), strong('If-None-Match: "ABC"')),
        ),
    ),
    Row(
        "if-none-match-weak",
        "9110 §13.1.2",
        "MUST",
        "Compare the tags of `If-None-Match` by the weak comparison.",
        "`W/` makes no difference.",
        (
            keeps(strong('If-None-Match: W/"abc"'), UNCHANGED),
            keeps(weak('If-None-Match: "abc"'), tagged(WEAK, 304, "")),
        ),
    ),
    Row(
        "if-modified-since",
        "9110 §13.1.3",
        "SHOULD",
        "Answer GET and HEAD with 304 when nothing was modified since then.",
        "304 when the date is that of the representation, or later.",
        (
            *each(
                UNCHANGED,
                strong(f"If-Modified-Since: {MODIFIED}"),
                strong(f"If-Modified-Since: {AFTER}"),
            ),
            keeps(strong(f"If-Modified-Since: {BEFORE}"), tagged(STRONG)),
        ),
    ),
    Row(
        "if-modified-since-beside-tags",
        "9110 §13.1.3",
        "MUST",
        "Ignore `If-Modified-Since` when there is `If-None-Match`.",
        "So it is.",
        each(tagged(STRONG), strong('If-None-Match: "x"', f"If-Modified-Since: {MODIFIED}")),
    ),
    Row(
        "condition-dates",
        "9110 §13.1.3, §13.1.4",
        "MUST",
        "Ignore a date that is not valid.",
        "So it is.",
        each(
            tagged(STRONG),
            strong("If-Modified-Since: today"),
            strong("If-Modified-Since: Mon, 06 Nov 1994 08:49:37 GMT"),
            strong("If-Modified-Since:"),
            strong("If-Unmodified-Since: 0"),
        ),
    ),
    Row(
        "condition-dates-repeated",
        "9110 §13.1.3",
        "MUST",
        "Ignore a date field that comes more than once.",
        "So it is.",
        each(
            tagged(STRONG),
            strong(f"If-Modified-Since: {AFTER}", f"If-Modified-Since: {AFTER}"),
            strong(f"If-Unmodified-Since: {BEFORE}", f"If-Unmodified-Since: {BEFORE}"),
        ),
    ),
    Row(
        "date-formats",
        "9110 §5.6.7",
        "MUST",
        "Accept a date in each of its three formats.",
        "All three.",
        each(
            UNCHANGED,
            strong(f"If-Modified-Since: {MODIFIED}"),
            strong("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT"),
            strong("If-Modified-Since: Sun Nov  6 08:49:37 1994"),
        ),
    ),
    Row(
        "if-unmodified-since",
        "9110 §13.1.4",
        "MUST NOT",
        "When it was modified since then, do not serve it.",
        "412.",
        (
            keeps(strong(f"If-Unmodified-Since: {BEFORE}"), FAILED),
            *each(
                tagged(STRONG),
                strong(f"If-Unmodified-Since: {MODIFIED}"),
                strong(f"If-Unmodified-Since: {AFTER}"),
            ),
        ),
    ),
    Row(
        "if-unmodified-since-beside-tags",
        "9110 §13.1.4",
        "MUST",
        "Ignore `If-Unmodified-Since` when there is `If-Match`.",
        "So it is.",
        each(tagged(STRONG), strong('If-Match: "abc"', f"If-Unmodified-Since: {BEFORE}")),
    ),
    Row(
        "condition-order",
        "9110 §13.2.2",
        "MUST",
        "Evaluate `If-Match`, `If-Unmodified-Since`, `If-None-Match`, `If-Modified-Since` and "
        "`If-Range` in this order; `Range` counts when they hold.",
        "So they are.",
        (
            keeps(strong('If-Match: "x"', 'If-None-Match: "abc"'), FAILED),
            keeps(strong('If-None-Match: "abc"', "Range: bytes=0-1"), UNCHANGED),
            keeps(
                strong('If-Match: "abc"', 'If-None-Match: "x"', "Range: bytes=0-1"),
                tagged(STRONG, 206, "01", content_range="bytes 0-1/10"),
            ),
        ),
    ),
    Row(
        "conditions-of-errors",
        "9110 §13.2.1",
        "MUST",
        "Ignore conditions when the answer without them would not be a success.",
        "They count with status 200.",
        (
            keeps(
                ask("GET /file/status/404", "If-None-Match: *", "Range: bytes=0-1"),
                answer(404, "0123456789", "text/plain"),
            ),
        ),
    ),
    Row(
        "conditions-of-other-methods",
        "9110 §13.1.3, §14.2",
        "MUST",
        "Ignore `If-Modified-Since` with methods other than GET and HEAD, and `Range` with all "
        "but GET.",
        "So they are: a file in answer to POST is sent whole.",
        (
            keeps(
                ask("POST /file", f"If-Modified-Since: {AFTER}", "Range: bytes=0-1"),
                answer(200, "0123456789", "text/plain"),
            ),
            keeps(ask("HEAD /file", "Range: bytes=0-1"), bodiless(file())),
        ),
    ),
    Row(
        "304-fields",
        "9110 §15.4.5",
        "MUST",
        "304 has those of `Cache-Control`, `Content-Location`, `Date`, `ETag`, `Expires` and "
        "`Vary` that the 200 would have.",
        "All fields but those that tell of the content.",
        each(UNCHANGED, strong('If-None-Match: "abc"')),
    ),
    Row(
        "range",
        "9110 §14.2",
        "MAY",
        "Serve a part when `Range` asks for it.",
        "One range of a file: 206.",
        (
            *ranges(part(0, 1), "bytes=0-1", "BYTES=0-1", "bytes=, 0-1 ,"),
            *ranges(part(9, 9), "bytes=9-9", "bytes=9-", "bytes=-1"),
            *ranges(part(0, 9), "bytes=0-", "bytes=0-9"),
        ),
    ),
    Row(
        "206-fields",
        "9110 §15.3.7",
        "MUST",
        "206 has `Content-Range`, and those of `Cache-Control`, `Content-Location`, `Date`, "
        "`ETag`, `Expires` and `Vary` that the 200 would have.",
        "All fields.",
        each(
            tagged(STRONG, 206, "01", content_range="bytes 0-1/10"),
            strong("Range: bytes=0-1"),
        ),
    ),
    Row(
        "range-end",
        "9110 §14.1.2",
        "MUST",
        "A range that ends behind the last byte, or a suffix that is longer than all, ends there.",
        "So it does.",
        (
            *ranges(part(5, 9), "bytes=5-10", "bytes=5-99999999999999999999"),
            *ranges(part(0, 9), "bytes=-10", "bytes=-11", "bytes=-99999999999999999999"),
        ),
    ),
    Row(
        "range-numbers",
        "9110 §14.1.1",
        "MUST",
        "Expect large numbers; let no integer overflow.",
        "What 64 bits do not hold lies behind the last byte.",
        ranges(
            UNSATISFIABLE,
            "bytes=18446744073709551616-",
            "bytes=18446744073709551617-18446744073709551618",
            "bytes=36893488147419103240-",
        ),
    ),
    Row(
        "range-unsatisfiable",
        "9110 §14.4, §15.5.17",
        "SHOULD",
        "Answer a range of which nothing is there with 416, and say in `Content-Range` how long "
        "the representation is.",
        "So it is.",
        ranges(UNSATISFIABLE, "bytes=10-", "bytes=10-20", "bytes=-0"),
    ),
    Row(
        "range-invalid",
        "9110 §14.2",
        "MAY",
        "Ignore a `Range` that is not valid.",
        "The whole is sent.",
        ranges(file(), "bytes=2-1", "bytes=a-b", "bytes=", "bytes 0-1", "0-1", "bytes=+0-1"),
    ),
    Row(
        "range-unit",
        "9110 §14.2",
        "MUST",
        "Ignore a `Range` in a unit that is not understood.",
        "The whole is sent for all but `bytes`.",
        ranges(file(), "lines=0-1", "byte=0-1"),
    ),
    Row(
        "range-several",
        "9110 §14.2",
        "MAY",
        "Ignore a `Range`, as one of many ranges that nobody honest wants.",
        "The whole is sent when there are several, so no client makes us send a byte twice.",
        ranges(file(), "bytes=0-1,3-4", "bytes=0-,0-,0-,0-"),
    ),
    Row(
        "range-repeated",
        "9110 §5.3",
        "ours",
        "What two lines of `Range` mean is left open.",
        "The whole is sent.",
        (keeps(ask("GET /file", "Range: bytes=0-1", "Range: bytes=2-3"), file()),),
    ),
    Row(
        "accept-ranges",
        "9110 §14.3",
        "MAY",
        "Say with `Accept-Ranges` that ranges are served.",
        "`bytes`, with every file.",
        each(file(), ask("GET /file")),
    ),
    Row(
        "if-range",
        "9110 §13.1.5",
        "MUST",
        "Ignore `Range` when the validator of `If-Range` is not that of the representation; "
        "ignore `If-Range` without `Range`.",
        "The whole is sent.",
        (
            keeps(strong('If-Range: "x"', "Range: bytes=0-1"), tagged(STRONG)),
            keeps(strong('If-Range: "abc"'), tagged(STRONG)),
            keeps(
                strong('If-Range: "abc"', "Range: bytes=0-1"),
                tagged(STRONG, 206, "01", content_range="bytes 0-1/10"),
            ),
        ),
    ),
    Row(
        "if-range-strong",
        "9110 §13.1.5",
        "MUST",
        "Compare the tag of `If-Range` by the strong comparison.",
        "A weak tag, on either side, is never equal.",
        (
            keeps(strong('If-Range: W/"abc"', "Range: bytes=0-1"), tagged(STRONG)),
            keeps(weak('If-Range: "abc"', "Range: bytes=0-1"), tagged(WEAK)),
        ),
    ),
    Row(
        "if-range-date",
        "9110 §13.1.5",
        "MUST",
        "A date of `If-Range` must be exactly that of the representation.",
        "One earlier or later gets the whole, and so does one that is not valid.",
        (
            keeps(
                strong(f"If-Range: {MODIFIED}", "Range: bytes=0-1"),
                tagged(STRONG, 206, "01", content_range="bytes 0-1/10"),
            ),
            *each(
                tagged(STRONG),
                strong(f"If-Range: {AFTER}", "Range: bytes=0-1"),
                strong(f"If-Range: {BEFORE}", "Range: bytes=0-1"),
                strong("If-Range: today", "Range: bytes=0-1"),
            ),
        ),
    ),
)

LIMITS = (
    Row(
        "field-count",
        "9110 §5.4",
        "ours",
        "How many fields a request has is left open.",
        "Any number that `max_header_size` has room for.",
        each(HELLO, *(ask("GET /", *["a:"] * count) for count in (16, 63, 64, 90))),
    ),
    Row(
        "body-rate",
        "9112 §9.5",
        "ours",
        "A client may be as slow as it likes.",
        "A body below `min_body_rate` after its first `read_timeout` gets 408 and a close; only "
        "the time that we wait for the client counts.",
        test="test_slow_body_is_408",
    ),
    Row(
        "write-timeout",
        "9112 §9.5",
        "ours",
        "A client may never read its answer.",
        "Closed after `write_timeout` in which it took nothing.",
        test="test_answer_that_nobody_reads_is_given_up",
    ),
    Row(
        "handler-timeout",
        "9110 §15.6.4",
        "ours",
        "A handler may never end.",
        "503 with `Retry-After` after `handler_timeout`, at its next wait.",
        test="test_handler_over_its_time_is_503",
    ),
    Row(
        "handler-fails",
        "9110 §15.6.1",
        "ours",
        "A handler may raise anything.",
        "500, nothing of the error in it, and the connection goes on.",
        each(
            refused(500, close=False),
            ask("GET /raise"),
            *(
                ask(f"GET /raise/{name}")
                for name in ("SystemExit", "GreenletExit", "BaseException")
            ),
        ),
    ),
)

PARTS: dict[str, tuple[Row, ...]] = {
    "Messages": SYNTAX,
    "Request line": REQUEST_LINE,
    "Targets and methods": TARGETS,
    "Host": HOST,
    "Fields": FIELDS,
    "Bodies": BODIES,
    "Connections": CONNECTIONS,
    "Expectations": EXPECTATIONS,
    "Answers": ANSWERS,
    "Conditions and ranges of files": CONDITIONS,
    "Limits, and handlers that fail": LIMITS,
}
ROWS: dict[str, Row] = {row.id: row for rows in PARTS.values() for row in rows}

_INTRODUCTION = """\
# HTTP/1.1, requirement by requirement

What RFC 9110 and RFC 9112 ask of an origin server, what we do, and the test that shows it. "Ours"
is what they leave open. Where a rule leaves us the choice, we are as strict as a reader that has
another reader before it must be.

This page is written from `tests/requirements.py` by `make docs`, and a test compares the two. A
row is shown by `test_requirement[DRIVER-ID]` of `tests/test_http_requirements.py`, on each driver,
with whole answers compared, and again by `test_requirement_split[DRIVER-ID]` with each of its
requests cut at every byte; or by the function of that file that it names.
[http-rules.md](http-rules.md) says which of them fail when a rule is taken out of the sources.

Not here: caches, proxies, TLS and other versions of HTTP, which this server does not do;
authentication, content negotiation and the meaning of methods, which are the application's.
Conditional requests and ranges (RFC 9110 §13 and §14) are those of `send_file`.
"""


def page() -> str:
    """The text of docs/http.md."""
    lines = [_INTRODUCTION]
    for title, rows in PARTS.items():
        lines += [
            f"## {title}",
            "",
            "| ID | RFC | level | what is asked | what we do | test |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for row in rows:
            count = len(row.fixtures)
            test = f"`{row.test}`" if row.test else f"{count} fixture{'s' * (count > 1)}"
            cells = (row.id, row.section, row.level, row.asked, row.done, test)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    rows_with_fixtures = [row for row in ROWS.values() if row.fixtures]
    fixtures = sum(len(row.fixtures) for row in rows_with_fixtures)
    lines.append(f"{len(ROWS)} rows, {fixtures} fixtures.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
