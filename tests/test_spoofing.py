"""Attacks that get their framing right: names and addresses that are not the client's own.

Header names that pass for others, forwarded fields that nobody trusted has written, and texts that
would split a response.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.apps.attacks import SPLITTERS
from tests.client import Client, refusal, request
from tests.conftest import Start
from tests.server import Server, command

APP = "tests.apps.attacks:app"


@pytest.fixture(scope="module")
def _attacked(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("attacked")
    binds = ("-b", "127.0.0.1:0", "-b", f"unix:{folder}/socket")
    server = Server(command("run", APP, *binds), folder / "log")
    yield server
    server.stop()


@pytest.fixture
def attacked(_attacked: Server) -> Iterator[Server]:
    """A server on TCP and on a unix socket, unchanged after each attack."""
    yield _attacked
    _attacked.assert_unchanged()


def details(server: Server, *headers: str, unix: bool = False) -> dict[str, Any]:
    """What the application sees of a request with these headers."""
    with Client(server.addresses[1] if unix else server.address) as client:
        answer = client.get("/details", *headers)
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    return found


def test_uvicorn_728_a_response_is_not_split_by_header_values(attacked: Server) -> None:
    with attacked.client() as client:
        answer = client.get("/split")
        said = answer.json()
        client.assert_open(0.01)
    assert {*answer_names(answer.headers)} <= {"date", "content-length", "content-type", "location"}
    assert said["name"] == said["value"] == said["added"] == ["ValueError"] * len(SPLITTERS)
    for text, word in zip(SPLITTERS, said["redirect"], strict=True):
        # A target is percent-encoded where it is not ASCII.
        assert word == ("ValueError" if text.isascii() else "taken"), text
    assert "\r" not in (answer.header("Location") or "")


def answer_names(headers: list[tuple[str, str]]) -> list[str]:
    return [name.lower() for name, _ in headers]


@pytest.mark.parametrize("path", ["/redirect?to=/", "/header?value="])
@pytest.mark.parametrize("text", ["%0d%0aSet-Cookie:evil=1", "%0aSet-Cookie:evil=1", "%00", "%0d"])
def test_a_response_is_not_split_by_what_a_query_says(
    attacked: Server, path: str, text: str
) -> None:
    """An application that repeats what it was sent gets an exception, and the client a 500."""
    with attacked.client() as client:
        answer = client.get(path + "a" + text)
        assert answer.whole() == refusal(500, close=answer.header("Connection") is not None)


def test_gunicorn_2650_underscore_does_not_stand_for_hyphen(attacked: Server) -> None:
    fields = ("X_User: evil", "X-User: honest", "x_user: evil", "X_Other: evil")
    found = details(attacked, *fields)
    assert found["headers"] == {"host": "test", "x-user": "honest"}
    assert [f"{name}: {value}" for name, value in found["fields"][1:]] == [*fields]


def test_gunicorn_3192_script_name_is_no_field_of_a_client(attacked: Server) -> None:
    for unix in (False, True):
        found = details(attacked, "SCRIPT_NAME: /admin", "PATH_INFO: /admin", unix=unix)
        assert found["headers"] == {"host": "test"}


HEADER_MAP_FIELDS = ("X_User: a", "X-User: b", "Content_Length: 3", "Transfer_Encoding: chunked")


def test_effect_of_header_map(start: Start) -> None:
    kept = {"host": "test", "x-user": "b"}
    all_fields = {**kept, "x_user": "a", "content_length": "3", "transfer_encoding": "chunked"}
    for options, headers in (
        ((), kept),
        (("--header-map", "drop"), kept),
        (("--header-map", "dangerous"), all_fields),
    ):
        server = start(*options, app=APP)
        with server.client() as client:
            found = client.get("/details", *HEADER_MAP_FIELDS).json()
            assert found["headers"] == headers
            # As received, and no part of the framing, in any case.
            assert [f"{name}: {value}" for name, value in found["fields"][1:]] == [
                *HEADER_MAP_FIELDS
            ]
            client.assert_open(0.01)
    server = start("--header-map", "refuse", app=APP)
    for field in HEADER_MAP_FIELDS:
        with server.client() as client:
            if "_" in field:
                client.send(request("GET", "/details", headers=(field,)) + request("GET", "/"))
                assert client.read().whole() == refusal(400)
                client.assert_closed()
            else:
                assert client.get("/details", field).status == 200


def test_many_fields_with_underscores(attacked: Server) -> None:
    """More names than are remembered, in more fields than are read at a time."""
    for turn in range(3):
        names = [f"X{'-_'[n % 2]}Field-{turn}-{n}" for n in range(700)]
        found = details(attacked, *[f"{name}: {n}" for n, name in enumerate(names)])
        assert len(found["fields"]) == 701
        kept = {name.lower(): str(n) for n, name in enumerate(names) if "_" not in name}
        assert found["headers"] == {"host": "test", **kept}


# Forwarded fields. The peers in these tests are 127.0.0.1 and a unix socket.


def origin(server: Server, *headers: str, unix: bool = False) -> tuple[str | None, str]:
    """`request.client` without the port of 127.0.0.1, and `request.scheme`."""
    found = details(server, *headers, unix=unix)
    client = found["client"]
    if client is not None and client.startswith("127.0.0.1:"):
        client = "peer"
    return client, found["scheme"]


def test_gunicorn_1485_forwarded_fields_of_a_stranger_are_not_believed(start: Start) -> None:
    fields = ("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
    for trusted in ("", "127.0.0.2", "10.0.0.0/8,::1", "::/0"):
        server = start("--forwarded-allow-ips", trusted, app=APP)
        assert origin(server, *fields) == ("peer", "http")


def test_gunicorn_1544_scheme_of_a_stranger_is_not_believed(start: Start) -> None:
    server = start("--forwarded-allow-ips", "127.0.0.2", app=APP)
    for field in (
        "X-Forwarded-Proto: https",
        "X-Forwarded-Protocol: ssl",
        "X-Forwarded-Ssl: on",
        "X_Forwarded_Proto: https",
        "Forwarded: proto=https",
        "Front-End-Https: on",
    ):
        assert origin(server, field) == ("peer", "http")


def test_gunicorn_163_a_peer_on_a_unix_socket_is_believed(start: Start, tmp_path: Any) -> None:
    binds = ("-b", "127.0.0.1:0", "-b", f"unix:{tmp_path}/s")
    server = start(*binds, "--forwarded-allow-ips", "", app=APP)
    fields = ("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
    assert origin(server, *fields, unix=True) == ("203.0.113.9", "https")
    assert origin(server, unix=True) == (None, "http")
    assert origin(server, *fields) == ("peer", "http")


def test_gunicorn_268_the_address_that_a_client_wrote_is_not_its_own(attacked: Server) -> None:
    """The proxy appends whom it was connected from; what stands before that is a client's word."""
    for fields in (
        ("X-Forwarded-For: 127.0.0.1, 203.0.113.9",),
        ("X-Forwarded-For: 127.0.0.1", "X-Forwarded-For: 203.0.113.9"),
        ("X-Forwarded-For: 192.0.2.1, 203.0.113.9, 127.0.0.1",),
        ("X-Forwarded-For: 203.0.113.9", "X_Forwarded_For: 127.0.0.1"),
        ("X-Forwarded-For: 203.0.113.9", "Forwarded: for=192.0.2.1"),
        ("X-Forwarded-For: 203.0.113.9", "X-Real-IP: 192.0.2.1", "Client-IP: 192.0.2.1"),
    ):
        assert origin(attacked, *fields) == ("203.0.113.9", "http")


def test_goosebit_274_scheme_behind_a_trusted_proxy(attacked: Server) -> None:
    assert origin(attacked, "X-Forwarded-Proto: https") == ("peer", "https")
    assert origin(attacked, "x-forwarded-proto: HTTPS") == ("peer", "https")
    assert origin(attacked, "X-Forwarded-Proto: https, http") == ("peer", "http")
    assert origin(attacked) == ("peer", "http")


MALFORMED = [
    "",
    ",",
    "unknown",
    "127.0.0.1:x",
    "999.1.1.1",
    "\xff",
    "[::1",
    "a" * 12_000,
    "1," * 6000,
]


@pytest.mark.parametrize("value", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_forwarded_fields_are_ignored(attacked: Server, value: str) -> None:
    for unix in (False, True):
        peer = None if unix else "peer"
        fields = (f"X-Forwarded-For: {value}", f"X-Forwarded-Proto: {value}")
        assert origin(attacked, *fields, unix=unix) == (peer, "http")
        # What stands left of it was written by nobody knows whom.
        fields = (f"X-Forwarded-For: 192.0.2.1, {value}, 127.0.0.1",)
        found = details(attacked, *fields, unix=unix)
        assert found["client"] == "127.0.0.1"


def test_effect_of_forwarded_allow_ips(start: Start) -> None:
    fields = ("X-Forwarded-For: 192.0.2.1, 203.0.113.9, 10.1.2.3", "X-Forwarded-Proto: https")
    for trusted, client, scheme in (
        (None, "10.1.2.3", "https"),
        ("127.0.0.1", "10.1.2.3", "https"),
        ("127.0.0.0/8,10.0.0.0/8", "203.0.113.9", "https"),
        ("127.0.0.1, 10.1.2.3, 203.0.113.9", "192.0.2.1", "https"),
        ("*", "192.0.2.1", "https"),
        ("10.0.0.0/8", "peer", "http"),
    ):
        options = () if trusted is None else ("--forwarded-allow-ips", trusted)
        server = start(*options, app=APP)
        assert origin(server, *fields) == (client, scheme)


def test_a_peer_that_has_reset_the_connection_is_not_believed(start: Start) -> None:
    """Nobody can say any more who it was; on a unix socket everybody would be believed."""
    server = start("--forwarded-allow-ips", "", app="tests.apps.attacks_late:app")
    with server.client() as client:
        fields = ("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
        client.send(request("GET", "/late", headers=fields))
        server.wait_for_log("late handler began")
        client.reset()
    server.wait_for_log("late handler saw None http")


def test_a_request_that_is_kept_knows_where_it_came_from(start: Start) -> None:
    server = start(app="tests.apps.attacks_late:app")
    fields = ("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "X_User: evil")
    assert server.get("/keep", *fields).status == 200
    assert server.get("/kept").json() == ["203.0.113.9", "https", False, True]
