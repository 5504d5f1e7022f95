"""The attack corpus: requests that lie about where they end, whose they are, or what they are.

Each has a name, bytes and the exact outcome; `tests/test_attacks.py` runs them, and
`tests/differential.py` shows the same bytes to other parsers. Where an attack is refused, `POISON`
is sent behind it: a request that would be answered if the attack were taken for a whole request.

`VULNERABILITIES` are those that others have had, by the number that each is known under; `CLASSES`
are the ways of smuggling in general.
"""

from __future__ import annotations

from dataclasses import dataclass

POST = b"POST /p HTTP/1.1\r\nHost: t\r\n"
GET = b"GET /g HTTP/1.1\r\nHost: t\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"
POISON = b"GET /poison HTTP/1.1\r\nHost: t\r\n\r\n"


@dataclass(frozen=True)
class Attack:
    """Bytes, and what must come of them."""

    data: bytes
    # Answers in order: a status that the server itself answers with, or the text that the
    # application does. Nothing else may come.
    answers: tuple[int | bytes, ...]
    # The client sends no more: what is not complete now never will be.
    ends: bool = False

    @property
    def is_refused(self) -> bool:
        """The server closes by itself."""
        return not self.ends and isinstance(self.answers[-1], int)

    @property
    def is_closed(self) -> bool:
        """The connection is over, by whomever."""
        return self.ends or self.is_refused

    @property
    def sent(self) -> bytes:
        """All that is sent: behind what is refused comes a request that nobody may answer."""
        return self.data + (POISON if self.is_refused else b"")


def refused(data: bytes, status: int = 400, *, after: tuple[bytes, ...] = ()) -> Attack:
    """It gets this one answer and a close; `after` are those of honest requests before it."""
    return Attack(data, (*after, status))


def served(data: bytes, *answers: bytes) -> Attack:
    """It is served as this, and what comes behind it is served, too."""
    return Attack(data, answers)


def cut_off(data: bytes, *answers: int | bytes) -> Attack:
    """The client ends in the middle."""
    return Attack(data, answers, ends=True)


def seen(method: str, target: str, body: bytes = b"") -> bytes:
    """What the application answers."""
    return f"{method} {target}\n".encode() + body


def cl(length: int | str) -> bytes:
    return f"Content-Length: {length}\r\n".encode()


def te(value: bytes) -> bytes:
    return b"Transfer-Encoding: " + value + b"\r\n"


BODY = seen("POST", "/p", b"body")
EMPTY = seen("POST", "/p")
LAST = b"0\r\n\r\n"

VULNERABILITIES: dict[str, Attack] = {
    # gunicorn
    "CVE-2024-1135 conflicting codings in one field": refused(
        POST + te(b"chunked,identity") + cl(5) + b"\r\n" + LAST
    ),
    "CVE-2024-1135 conflicting codings in two fields": refused(
        POST + te(b"chunked") + te(b"identity") + b"\r\n" + LAST
    ),
    "CVE-2024-1135 xchunked falls back to the length": refused(
        POST + cl(len(SMUGGLED)) + te(b"xchunked") + b"\r\n" + SMUGGLED
    ),
    "CVE-2024-6827 a coding unknown, the length taken instead": refused(
        POST + te(b"chunked ;") + cl(len(LAST + SMUGGLED)) + b"\r\n" + LAST + SMUGGLED
    ),
    "CVE-2024-6827 a quoted coding": refused(
        POST + te(b'"chunked"') + cl(len(SMUGGLED)) + b"\r\n" + SMUGGLED
    ),
    "gunicorn#3364 vertical tab before the coding": refused(
        POST + te(b"\x0bchunked") + b"\r\n" + LAST
    ),
    "gunicorn#3364 form feed behind the coding": refused(
        POST + te(b"chunked\x0c") + b"\r\n" + LAST
    ),
    "gunicorn#3087 empty elements in the list of codings": refused(
        POST + te(b",chunked") + b"\r\n" + LAST
    ),
    "gunicorn#3091 NBSP behind a field name": refused(
        POST + b"Transfer-Encoding\xa0: chunked\r\n" + cl(5) + b"\r\n" + LAST
    ),
    "gunicorn#3091 NEL behind a field name": refused(
        POST + b"Content-Length\x85: 5\r\n\r\n" + LAST
    ),
    "gunicorn#3366 two Hosts": refused(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    "gunicorn#3548 two Content-Types": refused(
        POST + cl(4) + b"Content-Type: text/plain\r\nContent-Type: application/json\r\n\r\nbody"
    ),
    "gunicorn#3382 a chunked body that is cut off": cut_off(CHUNKED + b"4\r\nbody\r\n"),
    "gunicorn#3382 a chunked body cut off in its last line": cut_off(
        CHUNKED + b"4\r\nbody\r\n0\r\n"
    ),
    "gunicorn#3556 bare CR in a chunk extension": refused(CHUNKED + b"4;a\rb\r\nbody\r\n" + LAST),
    "gunicorn list of lengths": refused(POST + cl("4, 4") + b"\r\nbody"),
    "gunicorn length together with chunked": refused(
        POST + cl(5) + te(b"chunked") + b"\r\n" + LAST
    ),
    "gunicorn chunked in HTTP/1.0": refused(
        b"POST /p HTTP/1.0\r\nConnection: keep-alive\r\n" + te(b"chunked") + b"\r\n" + LAST
    ),
    "gunicorn stacked chunked codings": refused(POST + te(b"chunked, chunked") + b"\r\n" + LAST),
    "gunicorn a target that is an authority": refused(b"GET t:80 HTTP/1.1\r\nHost: t\r\n\r\n"),
    "gunicorn an asterisk without OPTIONS": refused(b"GET * HTTP/1.1\r\nHost: t\r\n\r\n"),
    "gunicorn a trailer that frames": refused(
        CHUNKED + b"4\r\nbody\r\n0\r\nContent-Length: 60\r\n\r\n"
    ),
    # h11
    "CVE-2025-43859 two bytes that are no CRLF behind a chunk": refused(
        CHUNKED + b"5\r\nAAAAAXX2\r\n45\r\n0\r\n\r\n" + SMUGGLED
    ),
    # gevent
    "CVE-2023-41419 a request in the trailers": refused(CHUNKED + b"4\r\nbody\r\n0\r\n" + SMUGGLED),
    "CVE-2023-41419 a request behind a line that ends no trailer": refused(
        CHUNKED + b"0\r\nno trailer\r\n" + SMUGGLED
    ),
    "gevent#2075 a body that nobody asked to continue": served(
        b"POST /p HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
        + cl(len(SMUGGLED))
        + b"\r\n"
        + SMUGGLED,
        seen("POST", "/p", SMUGGLED),
    ),
    # eventlet
    "CVE-2025-58068 trailers do not become fields or requests": refused(
        CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n"
    ),
    "CVE-2025-58068 a line without colon among the trailers": refused(
        CHUNKED + b"0\r\nX: y\r\nGET /smuggled HTTP/1.1\r\n\r\n"
    ),
    "CVE-2021-21419 an upgrade to WebSocket and a giant frame": refused(
        GET
        + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        + b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"
        + b"x" * 64,
        after=(seen("GET", "/g"),),
    ),
    # llhttp
    "CVE-2024-27982 a space before Content-Length": refused(
        b"POST /p HTTP/1.1\r\nHost: t\r\n Content-Length: 35\r\n\r\n" + SMUGGLED
    ),
    "CVE-2024-27982 a length that hides in a folded line": refused(
        POST + b"X: y\r\n Content-Length: 35\r\n\r\n" + SMUGGLED
    ),
    # hypercorn, cheroot, meinheld
    "hypercorn#279 length and chunked": refused(
        POST + cl(4) + te(b"chunked") + b"\r\n" + LAST + SMUGGLED
    ),
    "cheroot#275 two lengths, the second one zero": refused(
        b"GET /g HTTP/1.1\r\nHost: t\r\n" + cl(35) + cl(0) + b"\r\n" + SMUGGLED
    ),
    "meinheld#111 two lengths": refused(
        b"GET /g HTTP/1.1\r\nHost: t\r\n" + cl(1) + cl(3) + b"\r\nabc\r\n\r\n"
    ),
}

# Those that have no framing to get wrong are tests of their own, in `tests/test_spoofing.py`.
ELSEWHERE = {
    "uvicorn#728": "test_uvicorn_728_a_response_is_not_split_by_header_values",
    "gunicorn#2650": "test_gunicorn_2650_underscore_does_not_stand_for_hyphen",
    "gunicorn#3192": "test_gunicorn_3192_script_name_is_no_field_of_a_client",
    "gunicorn#1485": "test_gunicorn_1485_forwarded_fields_of_a_stranger_are_not_believed",
    "gunicorn#1544": "test_gunicorn_1544_scheme_of_a_stranger_is_not_believed",
    "gunicorn#163": "test_gunicorn_163_a_peer_on_a_unix_socket_is_believed",
    "gunicorn#268": "test_gunicorn_268_the_address_that_a_client_wrote_is_not_its_own",
    "goosebit#274": "test_goosebit_274_scheme_behind_a_trusted_proxy",
}

_CODINGS = (
    b"chunke",
    b"chunkedd",
    b"chunked.",
    b"chunked;q=1",
    b"chunked,",
    b"chunked, identity",
    b"identity, chunked, identity",
    b"chunked chunked",
    b"chunked\x00",
    b"\xefchunked",
    b"'chunked'",
    b"chu nked",
    b"chunked\x0b",
    b"x, chunked;",
    b"identity",
    b"",
)

_LENGTHS = (
    b"+4",
    b"-4",
    b"-0",
    b"4.0",
    b"4e0",
    b"0x4",
    b"4_0",
    b"4 4",
    b"4,4",
    b"4, 5",
    b"4;",
    b"'4'",
    b"",
    b",",
    b"four",
    b"\xef\xbc\x94",
    b"\xb2",
    b"\xd9\xa4",
    b"4\x00",
    b"\x0b4",
    b"4\x0c",
    b"18446744073709551616",
    b"18446744073709551620",
    b"99999999999999999999999999999999999999",
    b"1" + b"0" * 1000,
)

_CHUNK_SIZES = (
    b"",
    b"g",
    b"0x4",
    b"0X4",
    b"x4",
    b"+4",
    b"-4",
    b"4_",
    b"_4",
    b" 4",
    b"4 ",
    b"4\t",
    b"\t4",
    b"4.0",
    b"4,",
    b"4h",
    b"'4'",
    b"\xef\xbc\x94",
    b"\xb2",
    b"4\x00",
    b"\x004",
    b"4\x0b",
    b"10000000000000004",
    b"00000000000000004",
    b"ffffffffffffffffffff",
    b"4\r",
    b"4\n",
    b"\n4",
)

CLASSES: dict[str, Attack] = {
    # One of two parties goes by the length, the other by the chunks.
    "CL.TE": refused(POST + cl(len(LAST + SMUGGLED)) + te(b"chunked") + b"\r\n" + LAST + SMUGGLED),
    "TE.CL": refused(POST + te(b"chunked") + cl(4) + b"\r\n23\r\n" + SMUGGLED + b"\r\n" + LAST),
    "CL.TE with a body for both": refused(POST + cl(5) + te(b"chunked") + b"\r\n" + LAST),
    "CL.TE behind an honest request": refused(
        GET + b"\r\n" + POST + cl(40) + te(b"chunked") + b"\r\n" + LAST + SMUGGLED,
        after=(seen("GET", "/g"),),
    ),
    "CL.0 body that is a request": served(
        POST + cl(len(SMUGGLED)) + b"\r\n" + SMUGGLED, seen("POST", "/p", SMUGGLED)
    ),
    "CL.0 body of a GET": served(
        GET + cl(len(SMUGGLED)) + b"\r\n" + SMUGGLED, seen("GET", "/g", SMUGGLED)
    ),
    "CL.0 body of an OPTIONS": served(
        b"OPTIONS /o HTTP/1.1\r\nHost: t\r\n" + cl(len(SMUGGLED)) + b"\r\n" + SMUGGLED,
        seen("OPTIONS", "/o", SMUGGLED),
    ),
    "CL.0 length of zero and a body": refused(
        POST + cl(0) + b"\r\nX=1&@" + SMUGGLED, after=(EMPTY,)
    ),
    "0.CL length behind an expectation": served(
        POST + b"Expect: 100-continue\r\n" + cl(len(SMUGGLED)) + b"\r\n" + SMUGGLED,
        seen("POST", "/p", SMUGGLED),
    ),
    "0.CL length behind a folded expectation": refused(
        POST + b"Expect:\r\n 100-continue\r\n" + cl(len(SMUGGLED)) + b"\r\n" + SMUGGLED
    ),
    "0.CL expectation that nobody knows": refused(
        POST + b"Expect: y 100-continue\r\n" + cl(len(SMUGGLED)) + b"\r\n" + SMUGGLED, 417
    ),
    "TE.0 chunked body that is a request": served(
        CHUNKED + b"23\r\n" + SMUGGLED + b"\r\n" + LAST, seen("POST", "/p", SMUGGLED)
    ),
    "TE.0 chunked body of an OPTIONS": served(
        b"OPTIONS /o HTTP/1.1\r\nHost: t\r\n"
        + te(b"chunked")
        + b"\r\n23\r\n"
        + SMUGGLED
        + b"\r\n"
        + LAST,
        seen("OPTIONS", "/o", SMUGGLED),
    ),
    "TE.0 HTTP/1.0 with chunked": refused(
        b"POST /p HTTP/1.0\r\n" + te(b"chunked") + b"\r\n23\r\n" + SMUGGLED + b"\r\n" + LAST
    ),
    # Transfer-Encoding in a form that one of two parties does not know.
    **{
        f"TE.TE {coding!r}": refused(POST + te(coding) + cl(5) + b"\r\n" + LAST)
        for coding in _CODINGS
    },
    **{
        f"TE.TE alone {coding!r}": refused(POST + te(coding) + b"\r\n" + LAST)
        for coding in _CODINGS
    },
    "TE.TE unknown before chunked": refused(POST + te(b"gzip, chunked") + b"\r\n" + LAST, 501),
    "TE.TE two fields, one unknown": refused(POST + te(b"chunked") + te(b"x") + b"\r\n" + LAST),
    "TE.TE two fields, unknown first": refused(
        POST + te(b"x") + te(b"chunked") + b"\r\n" + LAST, 501
    ),
    "TE.TE two fields of chunked": refused(POST + te(b"chunked") + te(b"chunked") + b"\r\n" + LAST),
    "TE.TE in another case": served(
        POST + b"tRANSFER-ENCODING:cHuNkEd\r\n\r\n4\r\nbody\r\n" + LAST, BODY
    ),
    "TE.TE with tabs around": served(
        POST + b"Transfer-Encoding:\t chunked \t\r\n\r\n4\r\nbody\r\n" + LAST, BODY
    ),
    "TE.TE space before the colon": refused(
        POST + b"Transfer-Encoding : chunked\r\n" + cl(5) + b"\r\n" + LAST
    ),
    "TE.TE tab before the colon": refused(
        POST + b"Transfer-Encoding\t: chunked\r\n" + cl(5) + b"\r\n" + LAST
    ),
    "TE.TE folded value": refused(POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + LAST),
    "TE.TE folded with a tab": refused(POST + b"Transfer-Encoding:\r\n\tchunked\r\n\r\n" + LAST),
    "TE.TE behind a bare LF": refused(POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n" + LAST),
    "TE.TE behind a bare CR": refused(POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n" + LAST),
    "TE.TE behind a NUL": refused(POST + b"X: y\0Transfer-Encoding: chunked\r\n\r\n" + LAST),
    "TE.TE behind a folded line": refused(
        POST + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n" + LAST
    ),
    "TE.TE underscore for the hyphen": served(
        POST + b"Transfer_Encoding: chunked\r\n" + cl(4) + b"\r\nbody", BODY
    ),
    "TE.TE a letter that looks alike": refused(
        POST + "Transf\u0435r-Encoding: chunked\r\n".encode() + cl(5) + b"\r\n" + LAST
    ),
    "TE.TE a long s in the name": refused(
        POST + "Tran\u017ffer-Encoding: chunked\r\n".encode() + cl(5) + b"\r\n" + LAST
    ),
    "TE.TE a Kelvin sign in the value": refused(
        POST + te("chun\u212aed".encode()) + cl(5) + b"\r\n" + LAST
    ),
    "TE.TE space in the name": refused(
        POST + b"Transfer Encoding: chunked\r\n" + cl(5) + b"\r\n" + LAST
    ),
    "TE.TE colon twice": refused(POST + b"Transfer-Encoding:: chunked\r\n\r\n" + LAST),
    # Forms of Content-Length.
    **{
        f"Content-Length {length!r}": refused(POST + b"Content-Length: " + length + b"\r\n\r\nbody")
        for length in _LENGTHS
    },
    "Content-Length twice, different": refused(POST + cl(4) + cl(5) + b"\r\nbody"),
    "Content-Length twice, in two cases": refused(POST + cl(4) + b"content-LENGTH: 5\r\n\r\nbody"),
    "Content-Length twice, equal": served(POST + cl(4) + cl(4) + b"\r\nbody", BODY),
    "Content-Length twice, one with an odd name": refused(
        POST + cl(4) + b"Content-Length : 5\r\n\r\nbody"
    ),
    "Content-Length with an underscore": served(
        POST + b"Content_Length: 40\r\n" + cl(4) + b"\r\nbody", BODY
    ),
    "Content-Length with zeros before": served(POST + cl("0004") + b"\r\nbody", BODY),
    "Content-Length of the largest number": refused(POST + cl(2**64 - 1) + b"\r\nbody", 413),
    "Content-Length that wraps to four at 32 bits": refused(
        POST + cl(2**32 + 4) + b"\r\nbody", 413
    ),
    "Content-Length that is negative as a signed number": refused(
        POST + cl(2**63) + b"\r\nbody", 413
    ),
    "Content-Length folded": refused(POST + b"Content-Length:\r\n 4\r\n\r\nbody"),
    "Content-Length behind a bare CR": refused(POST + b"X: y\rContent-Length: 4\r\n\r\nbody"),
    "Content-Length behind a bare LF": refused(POST + b"X: y\nContent-Length: 4\r\n\r\nbody"),
    # Forms of a chunk's size.
    **{
        f"chunk size {size!r}": refused(CHUNKED + size + b"\r\nbody\r\n" + LAST)
        for size in _CHUNK_SIZES
    },
    "chunk size that wraps at 64 bits": refused(CHUNKED + b"10000000000000000\r\n" + LAST),
    "chunk size of the largest number": refused(CHUNKED + b"f" * 16 + b"\r\nbody", 413),
    "chunk size that wraps at 32 bits": refused(CHUNKED + b"100000004\r\nbody\r\n" + LAST, 413),
    "chunk sizes whose sum wraps": refused(
        CHUNKED + b"4\r\nbody\r\n" + b"fffffffffffffffc\r\nbody\r\n" + LAST, 413
    ),
    "chunk size too small": refused(CHUNKED + b"3\r\nbody\r\n" + LAST),
    "chunk size too large": refused(CHUNKED + b"5\r\nbody\r\n" + LAST),
    "chunk data that look like the end": served(
        CHUNKED + b"5\r\n0\r\n\r\n\r\n" + LAST, seen("POST", "/p", b"0\r\n\r\n")
    ),
    "chunk of no bytes and more behind it": refused(
        CHUNKED + b"0\r\n\r\n4\r\nbody\r\n" + LAST, after=(EMPTY,)
    ),
    "last chunk of many zeros": served(CHUNKED + b"4\r\nbody\r\n00000000\r\n\r\n", BODY),
    # Extensions, bare CR and LF, and what else stands between chunks.
    "extension with LF that hides a chunk": refused(CHUNKED + b"4;\nbody\r\n0\r\n\r\n" + SMUGGLED),
    "extension with LF and CRLF": refused(CHUNKED + b"2;\nxx\r\n4c\r\n0\r\n\r\n" + SMUGGLED),
    "extension with CR at its end": refused(CHUNKED + b"4;a\r\r\nbody\r\n" + LAST),
    "extension with NUL": refused(CHUNKED + b"4;a\0b\r\nbody\r\n" + LAST),
    "extension with a byte over 127": refused(CHUNKED + b"4;a=\xff\r\nbody\r\n" + LAST),
    "extension with a quoted line end": refused(CHUNKED + b'4;a="\r\n"\r\nbody\r\n' + LAST),
    "extension with quotes over the end of its line": refused(
        CHUNKED + b'4;a="\r\nbody\r\n0\r\n\r\n' + SMUGGLED + b'"\r\n' + LAST
    ),
    "extension with an escaped quote at its end": refused(
        CHUNKED + b'4;a="\\"\r\nbody\r\n0\r\n\r\n' + SMUGGLED
    ),
    "extension without a name": refused(CHUNKED + b"4;\r\nbody\r\n" + LAST),
    "extension without a value": refused(CHUNKED + b"4;a=\r\nbody\r\n" + LAST),
    "extension that is no token": refused(CHUNKED + b"4;a}=b\r\nbody\r\n" + LAST),
    "extension with a quoted semicolon": served(
        CHUNKED + b'4;a="b;c\\"d"\r\nbody\r\n' + LAST, BODY
    ),
    "extension of the last chunk": served(CHUNKED + b"4\r\nbody\r\n0;a=b\r\n\r\n", BODY),
    "extension with a space before it": refused(CHUNKED + b"4 ;a\r\nbody\r\n" + LAST),
    "extension that is endless": refused(CHUNKED + b"4;" + b"a" * 1000 + b"\r\nbody\r\n" + LAST),
    "LF alone behind a chunk size": refused(CHUNKED + b"4\nbody\r\n" + LAST),
    "CR alone behind a chunk size": refused(CHUNKED + b"4\rbody\r\n" + LAST),
    "LF alone behind chunk data": refused(CHUNKED + b"4\r\nbody\n" + LAST),
    "CR alone behind chunk data": refused(CHUNKED + b"4\r\nbody\r" + LAST),
    "two CRs behind chunk data": refused(CHUNKED + b"4\r\nbody\r\r\n" + LAST),
    "LF CR behind chunk data": refused(CHUNKED + b"4\r\nbody\n\r" + LAST),
    "nothing behind chunk data": refused(CHUNKED + b"4\r\nbody" + LAST),
    "empty line between chunks": refused(CHUNKED + b"4\r\nbody\r\n\r\n" + LAST),
    "LF alone at the end of the body": refused(CHUNKED + b"4\r\nbody\r\n0\n\n"),
    "LF alone instead of the last line": refused(CHUNKED + b"4\r\nbody\r\n0\r\n\n"),
    "CR alone instead of the last line": refused(CHUNKED + b"4\r\nbody\r\n0\r\n\rX"),
    # Trailers.
    **{
        f"trailer {name}": refused(CHUNKED + b"4\r\nbody\r\n0\r\n" + name.encode() + b": 1\r\n\r\n")
        for name in (
            "Content-Length",
            "content-length",
            "Transfer-Encoding",
            "TRAILER",
            "Host",
            "Authorization",
            "Cookie",
            "Content-Type",
            "Content-Encoding",
            "Connection",
            "TE",
            "Expect",
        )
    },
    "trailer that is harmless": served(
        CHUNKED + b"4\r\nbody\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n", BODY
    ),
    "trailer with bare LF": refused(CHUNKED + b"0\r\nX: y\nContent-Length: 4\r\n\r\n"),
    "trailer with bare CR": refused(CHUNKED + b"0\r\nX: y\rContent-Length: 4\r\n\r\n"),
    "trailer with NUL": refused(CHUNKED + b"0\r\nX: y\0z\r\n\r\n"),
    "trailer folded": refused(CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n"),
    "trailer with space before the colon": refused(CHUNKED + b"0\r\nX : y\r\n\r\n"),
    "trailer without name": refused(CHUNKED + b"0\r\n: y\r\n\r\n"),
    "trailers without end": refused(CHUNKED + b"0\r\n" + b"X-Trailer: y\r\n" * 800, 431),
    # The request line.
    "HTTP/0.9": refused(b"GET /\r\n"),
    "HTTP/0.9 with its version": refused(b"GET / HTTP/0.9\r\nHost: t\r\n\r\n", 505),
    "HTTP/0.9 behind an honest request": refused(
        GET + b"\r\nGET /smuggled\r\n", after=(seen("GET", "/g"),)
    ),
    "version of two digits": refused(b"GET / HTTP/1.01\r\nHost: t\r\n\r\n"),
    "version of 11": refused(b"GET / HTTP/11\r\nHost: t\r\n\r\n"),
    "version in small letters": refused(b"GET / http/1.1\r\nHost: t\r\n\r\n"),
    "version of fullwidth digits": refused("GET / HTTP/\uff11.\uff11\r\nHost: t\r\n\r\n".encode()),
    "version of HTTP/2": refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "version with space behind": refused(b"GET / HTTP/1.1 \r\nHost: t\r\n\r\n"),
    "version twice": refused(b"GET / HTTP/1.1 HTTP/1.1\r\nHost: t\r\n\r\n"),
    "request line with LF": refused(b"GET / HTTP/1.1\nHost: t\r\n\r\n"),
    "request line with CR": refused(b"GET / HTTP/1.1\rHost: t\r\n\r\n"),
    "request line with two CRs": refused(b"GET / HTTP/1.1\r\r\nHost: t\r\n\r\n"),
    "request line with tabs": refused(b"GET\t/\tHTTP/1.1\r\nHost: t\r\n\r\n"),
    "request line with two spaces": refused(b"GET  /  HTTP/1.1\r\nHost: t\r\n\r\n"),
    "request line behind a space": refused(b" GET / HTTP/1.1\r\nHost: t\r\n\r\n"),
    "request line behind a NUL": refused(b"\0GET / HTTP/1.1\r\nHost: t\r\n\r\n"),
    "request line behind LFs": refused(b"\n\nGET / HTTP/1.1\r\nHost: t\r\n\r\n"),
    "request line behind a CR": refused(b"\rGET / HTTP/1.1\r\nHost: t\r\n\r\n"),
    "request line behind empty lines": served(
        b"\r\n\r\nGET /g HTTP/1.1\r\nHost: t\r\n\r\n", seen("GET", "/g")
    ),
    "request line behind very many empty lines": refused(
        b"\r\n" * 500 + b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
    ),
    "target with a space": refused(b"GET /a b HTTP/1.1\r\nHost: t\r\n\r\n"),
    "target with NUL": refused(b"GET /a\0b HTTP/1.1\r\nHost: t\r\n\r\n"),
    "target with CR": refused(b"GET /a\rb HTTP/1.1\r\nHost: t\r\n\r\n"),
    "target with a byte over 127": refused(b"GET /\xc4\x8d HTTP/1.1\r\nHost: t\r\n\r\n"),
    "target with a fragment": refused(b"GET /a#b HTTP/1.1\r\nHost: t\r\n\r\n"),
    "target with encoded CRLF": served(
        b"GET /a%0d%0aX:y HTTP/1.1\r\nHost: t\r\n\r\n", seen("GET", "/a%0d%0aX:y")
    ),
    "target with a percent sign alone": refused(b"GET /a%2 HTTP/1.1\r\nHost: t\r\n\r\n"),
    "target with an overlong slash": refused(b"GET /a%c0%afb HTTP/1.1\r\nHost: t\r\n\r\n"),
    "target that is relative": refused(b"GET admin HTTP/1.1\r\nHost: t\r\n\r\n"),
    "target of another scheme": refused(b"GET file:///etc/passwd HTTP/1.1\r\nHost: t\r\n\r\n"),
    "target that is absolute, with another Host": served(
        b"GET http://inner/a HTTP/1.1\r\nHost: outer\r\n\r\n", seen("GET", "http://inner/a")
    ),
    "target that is absolute, without Host": refused(b"GET http://inner/a HTTP/1.1\r\n\r\n"),
    "target that is absolute, with two Hosts": refused(
        b"GET http://inner/a HTTP/1.1\r\nHost: outer\r\nHost: inner\r\n\r\n"
    ),
    "target with user information": refused(
        b"GET http://outer@inner/ HTTP/1.1\r\nHost: outer\r\n\r\n"
    ),
    "target with an empty authority": refused(b"GET http:///a HTTP/1.1\r\nHost: t\r\n\r\n"),
    "target with two slashes": served(
        b"GET //inner/a HTTP/1.1\r\nHost: t\r\n\r\n", seen("GET", "//inner/a")
    ),
    "target with a backslash in its authority": refused(
        b"GET http://inner\\outer/ HTTP/1.1\r\nHost: t\r\n\r\n"
    ),
    "method that is no token": refused(b"G@T / HTTP/1.1\r\nHost: t\r\n\r\n"),
    "method with a colon": refused(b"GET: / HTTP/1.1\r\nHost: t\r\n\r\n"),
    # Host.
    "Host missing": refused(b"GET / HTTP/1.1\r\nX: y\r\n\r\n"),
    "Host twice, equal": refused(b"GET / HTTP/1.1\r\nHost: t\r\nHost: t\r\n\r\n"),
    "Host twice, in two cases": refused(b"GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n"),
    "Host as a list": refused(b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    "Host with user information": refused(b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    "Host with a path": refused(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "Host with a space": refused(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    "Host with a bad port": refused(b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
    "Host with a tab in its port": refused(b"GET / HTTP/1.1\r\nHost: a:\t80\r\n\r\n"),
    "Host folded": refused(b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"),
    "Host behind a folded line": refused(b"GET / HTTP/1.1\r\n Host: a\r\nHost: b\r\n\r\n"),
    # Fields.
    "field folded": refused(GET + b"X: y\r\n z\r\n\r\n"),
    "field folded with a tab": refused(GET + b"X: y\r\n\tz\r\n\r\n"),
    "field folded to nothing": refused(GET + b"X: y\r\n \r\n\r\n"),
    "field behind white space": refused(GET + b" X: y\r\n\r\n"),
    "field with space before the colon": refused(GET + b"X : y\r\n\r\n"),
    "field without colon": refused(GET + b"X\r\n\r\n"),
    "field without name": refused(GET + b": y\r\n\r\n"),
    "field with NUL in its name": refused(GET + b"X\0: y\r\n\r\n"),
    "field with NUL in its value": refused(GET + b"X: a\0b\r\n\r\n"),
    "field with CR in its name": refused(GET + b"X\rY: y\r\n\r\n"),
    "field with CR in its value": refused(GET + b"X: a\rb\r\n\r\n"),
    "field with CR at its end": refused(GET + b"X: a\r\r\n\r\n"),
    "field with LF in its value": refused(GET + b"X: a\nY: b\r\n\r\n"),
    "field with a vertical tab": refused(GET + b"X: a\x0bb\r\n\r\n"),
    "field with DEL": refused(GET + b"X: a\x7fb\r\n\r\n"),
    "field with a byte over 127 in its name": refused(GET + b"X\xe9: y\r\n\r\n"),
    "field with a byte over 127 in its value": served(
        GET + b"X: \xe9\xff\r\n\r\n", seen("GET", "/g")
    ),
    "field with a colon in its value": served(GET + b"X::y:z\r\n\r\n", seen("GET", "/g")),
    "field with nothing in it": served(GET + b"X:\r\n\r\n", seen("GET", "/g")),
    "end of the head by LF LF": refused(b"GET / HTTP/1.1\r\nHost: t\n\n"),
    "end of the head by CRLF LF": refused(b"GET / HTTP/1.1\r\nHost: t\r\n\nX"),
    "end of the head by LF CRLF": refused(b"GET / HTTP/1.1\r\nHost: t\n\r\n"),
    "end of the head by CR CR": refused(b"GET / HTTP/1.1\r\nHost: t\r\r"),
    "end of the head by CR LF CR": refused(b"GET / HTTP/1.1\r\nHost: t\r\n\rX"),
    # Very long things.
    "long method": refused(b"G" * 10_000 + b" / HTTP/1.1\r\nHost: t\r\n\r\n", 501),
    "long target": refused(b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: t\r\n\r\n", 414),
    "long target without end": refused(b"GET /" + b"a" * 40_000, 414),
    "long field name": refused(GET + b"X" * 40_000 + b": y\r\n\r\n", 431),
    "long field value": refused(GET + b"X: " + b"y" * 40_000 + b"\r\n\r\n", 431),
    "long list of fields": refused(GET + b"X: y\r\n" * 8_000 + b"\r\n", 431),
    "long list of codings": refused(POST + te(b"chunked, " * 1000 + b"chunked") + b"\r\n" + LAST),
    "long version": refused(b"GET / HTTP/1." + b"1" * 1000 + b"\r\nHost: t\r\n\r\n"),
    "long chunk size": refused(CHUNKED + b"0" * 1000 + b"4\r\nbody\r\n" + LAST),
    "long list of empty chunks' zeros": refused(CHUNKED + b"0" * 17 + b"\r\n\r\n"),
    # A connection that is over: nothing behind it is answered.
    "poison behind Connection: close": Attack(
        GET + b"Connection: close\r\n\r\n" + SMUGGLED, (seen("GET", "/g"),), ends=True
    ),
    "poison behind close in a list": Attack(
        GET + b"Connection: x, cLoSe ,y\r\n\r\n" + SMUGGLED, (seen("GET", "/g"),), ends=True
    ),
    "poison behind close and keep-alive": Attack(
        b"GET /g HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n" + SMUGGLED,
        (seen("GET", "/g"),),
        ends=True,
    ),
    "poison behind HTTP/1.0": Attack(
        b"GET /g HTTP/1.0\r\n\r\n" + SMUGGLED, (seen("GET", "/g"),), ends=True
    ),
    "poison behind a body of HTTP/1.0": Attack(
        b"POST /p HTTP/1.0\r\n" + cl(4) + b"\r\nbody" + SMUGGLED, (BODY,), ends=True
    ),
    "poison behind a body too large": refused(POST + cl(2_000_000) + b"\r\n" + SMUGGLED, 413),
    "poison behind honest requests": refused(
        GET + b"\r\n" + POST + cl(4) + b"\r\nbody" + b"nonsense\r\n\r\n" + SMUGGLED,
        after=(seen("GET", "/g"), BODY),
    ),
    "body that is cut off": cut_off(POST + cl(100) + b"\r\n" + SMUGGLED),
    "head that is cut off": cut_off(GET + b"X: y\r\n", 400),
}

ATTACKS: dict[str, Attack] = {**VULNERABILITIES, **CLASSES}
