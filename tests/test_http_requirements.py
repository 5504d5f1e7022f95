"""Each row of tests/requirements.py, against a real server, whole and cut at every byte.

The page docs/http.md is compared with the rows, so the two say the same.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import requirements
from tests.client import Answer, Client, chunked, request
from tests.conftest import Start
from tests.requirements import CONTINUE, HELLO, PROBE, ROWS, Expected, Fixture
from tests.rules import RULES
from tests.server import ROOT, Server, command, wait_for

pytestmark = pytest.mark.wire

APP = "tests.apps.requirements:app"
WITH_FIXTURES = [row.id for row in ROWS.values() if row.fixtures]
# So many connections have their first half sent before the second halves follow.
AT_ONCE = 128
# Until the server has seen a first half: it is idle then, and needs some 0.1 ms.
PAUSE_SECONDS = 0.003
# What is longer than this comes byte by byte on one connection, instead of once for each cut.
LONG = 700


@pytest.fixture(scope="module")
def _strict(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    servers: list[Server] = []
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def strict(_strict: list[Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server with the small limits of the fixtures, shared; unchanged after each test."""
    if not _strict:
        log_path = tmp_path_factory.mktemp("requirements") / "log"
        options = requirements.SERVER_OPTIONS
        _strict.append(Server(command("run", APP, "--port", "0", *options), log_path))
    server = _strict[0]
    yield server
    try:
        server.assert_unchanged()
    except AssertionError:
        # The next test gets a fresh one: this failure is not its own.
        _strict.clear()
        server.kill()
        raise


def read(client: Client, expected: Expected, *, may_continue: bool = False) -> None:
    """Read one answer, which must be this one to the last byte."""
    method = "HEAD" if expected.is_head else "GET"
    answer: Answer = client.read(method)
    if may_continue and answer.status == 100:
        assert answer.whole() == CONTINUE.whole
        answer = client.read(method)
    assert answer.whole() == expected.whole


def send(client: Client, data: bytes) -> None:
    """Send what the server may not want any more."""
    try:
        client.send(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def finish(client: Client, fixture: Fixture, *, is_probed: bool) -> None:
    """After the last answer: does it end as it must?"""
    if fixture.end == "keeps":
        if not is_probed:
            client.send(PROBE)
        read(client, HELLO)
        # There is nothing more: no byte of the request was taken for another one.
        client.half_close()
    elif fixture.end == "closes" and not is_probed:
        send(client, PROBE)
    client.assert_closed()


def probe_of(fixture: Fixture, step: int) -> bytes:
    """What follows a step at once: after the last one the probe, unless it must wait."""
    is_last = step == len(fixture.steps) - 1
    return PROBE if is_last and fixture.end != "ends" and not fixture.waits else b""


@pytest.mark.parametrize("row_id", WITH_FIXTURES)
def test_requirement(strict: Server, row_id: str) -> None:
    """Each request is answered as the row says, to the last byte, and so is what follows it."""
    for fixture in ROWS[row_id].fixtures:
        probe = b""
        with strict.client() as client:
            for number, (data, answers) in enumerate(fixture.steps):
                probe = probe_of(fixture, number)
                send(client, data + probe)
                if fixture.end == "ends" and number == len(fixture.steps) - 1:
                    client.half_close()
                if not answers:
                    client.assert_open(0.03)
                for expected in answers:
                    read(client, expected)
            finish(client, fixture, is_probed=bool(probe))


@pytest.mark.parametrize("row_id", WITH_FIXTURES)
def test_requirement_split(strict: Server, row_id: str) -> None:
    """The same with the first request cut at every byte; a long one comes byte by byte."""
    pieces = []
    for fixture in ROWS[row_id].fixtures:
        data = fixture.steps[0][0]
        if len(data) > LONG:
            _one_byte_at_a_time(strict, fixture)
        else:
            pieces += [(fixture, cut) for cut in range(1, len(data))]
    for start in range(0, len(pieces), AT_ONCE):
        _in_two_pieces(strict, pieces[start : start + AT_ONCE])


def _in_two_pieces(server: Server, pieces: list[tuple[Fixture, int]]) -> None:
    clients = [server.client() for _ in pieces]
    for client, (fixture, cut) in zip(clients, pieces, strict=True):
        client.send(fixture.steps[0][0][:cut])
    time.sleep(PAUSE_SECONDS)
    for client, (fixture, cut) in zip(clients, pieces, strict=True):
        send(client, fixture.steps[0][0][cut:] + probe_of(fixture, 0))
    for client, (fixture, cut) in zip(clients, pieces, strict=True):
        with client:
            try:
                _read_on(client, fixture)
            except Exception as error:
                raise AssertionError(f"cut at {cut}: {fixture}") from error


def _one_byte_at_a_time(server: Server, fixture: Fixture) -> None:
    with server.client() as client:
        for byte in fixture.steps[0][0]:
            send(client, bytes([byte]))
        send(client, probe_of(fixture, 0))
        _read_on(client, fixture)


def _read_on(client: Client, fixture: Fixture) -> None:
    """Everything after the bytes of the first step."""
    for number, (data, answers) in enumerate(fixture.steps):
        if number > 0:
            client.send(data + probe_of(fixture, number))
        if fixture.end == "ends":
            client.half_close()
        for expected in answers:
            read(client, expected, may_continue=fixture.may_continue)
    last = len(fixture.steps) - 1
    finish(client, fixture, is_probed=bool(probe_of(fixture, last)))


# Rows that bytes alone cannot show


def test_request_line_of_8000_octets(start: Start) -> None:
    server = start(app=APP)
    target = "/seen/" + "x" * (8000 - len("GET /seen/ HTTP/1.1"))
    whole = request("GET", target)
    name = target.removeprefix("/seen/")
    with server.client() as client:
        for _ in range(2):
            client.send(whole)
            assert client.read().json() == [target, name]
            client.send_slowly(whole)
            assert client.read().json() == [target, name]


def test_incomplete_body_reaches_no_handler(strict: Server) -> None:
    before = strict.get("/counted").body
    head = request("POST", "/count", headers=("Transfer-Encoding: chunked",))
    for data in (request("POST", "/count", b"body"), head + chunked(b"body")):
        for missing in range(1, 5):
            with strict.client() as client:
                client.send(data[:-missing])
                client.half_close()
                client.assert_closed()
    assert strict.get("/counted").body == before


def test_request_before_a_half_close_is_answered(strict: Server) -> None:
    """The handler still runs when the client's end is noticed."""
    with strict.client() as client:
        client.send(PROBE + request("GET", "/nap"))
        client.half_close()
        for _ in range(2):
            read(client, HELLO)
        client.assert_closed()


def test_streamed_answer_of_1_0_ends_with_the_connection(strict: Server) -> None:
    for fields in ((), ("Connection: keep-alive",)):
        with strict.client() as client:
            client.send(requirements.ask("GET /stream", *fields, version="HTTP/1.0"))
            head, body = client.read_to_end().split(b"\r\n\r\n")
            names = {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
            assert (names, body) == ({b"date", b"content-type", b"connection"}, b"hello")
            assert b"\r\nConnection: close" in head


def test_answer_that_fails_is_seen_to_be_incomplete(strict: Server) -> None:
    with strict.client() as client:
        client.send(request("GET", "/stream-fails"))
        head, body = client.read_to_end().split(b"\r\n\r\n")
        assert b"\r\nTransfer-Encoding: chunked" in head
        assert body == b"3\r\nhel\r\n"


def test_refusal_reaches_a_client_that_goes_on_sending(strict: Server) -> None:
    """An unread byte at the close would be a reset, and that would destroy the answer."""
    with strict.client() as client:
        client.send(request("POST", "/seen", headers=("Content-Length: 3000000",)))
        for _ in range(30):
            # This would raise after a reset.
            client.send(b"x" * 100_000)
            time.sleep(0.001)
        read(client, requirements.refused(413))
        client.assert_closed()


def test_connection_that_rests_is_ended(start: Start) -> None:
    server = start("--read-timeout", "0.3", "--keepalive-timeout", "0.3", app=APP)
    whole = request("POST", "/seen", b"body")
    parts = {b"": 0, PROBE: 0, b"\r\n": 0, whole[:9]: 1, whole[:-9]: 1, whole[:-1]: 1}
    for part, refusals in parts.items():
        with server.client() as client:
            client.send(part)
            if part == PROBE:
                read(client, HELLO)
            began = time.monotonic()
            for _ in range(refusals):
                read(client, requirements.refused(408))
            client.assert_closed()
            assert 0.2 < time.monotonic() - began < 2


def test_overload_is_503_with_retry_after(start: Start) -> None:
    server = start("--max-connections", "2", "--accept-pause", "0", app=APP)
    held = [server.client() for _ in range(2)]
    for client in held:
        client.send(PROBE)
        read(client, HELLO)
    with server.client() as client:
        client.send(PROBE)
        read(client, requirements.refused(503, retry_after="1"))
        client.assert_closed()
    for client in held:
        client.close()
    wait_for(lambda: server.get("/").status == 200, "a place is free again")


def test_file_from_the_future_was_modified_now(strict: Server) -> None:
    for method in ("GET", "HEAD"):
        with strict.client() as client:
            answer = client.request(method, "/file/future")
            assert answer.header("Last-Modified") == answer.header("Date")


def test_date_is_that_of_the_answer(strict: Server) -> None:
    dates = set()
    with strict.client() as client:
        for _ in range(5):
            # The server's clock counts whole milliseconds.
            before = int(time.time() - 0.005)
            client.send(PROBE)
            date = client.read().header("Date")
            seconds = range(before, int(time.time()) + 1)
            assert date in [email.utils.formatdate(second, usegmt=True) for second in seconds]
            dates.add(date)
            time.sleep(0.4)
    assert len(dates) in (2, 3)


def test_server_field_is_in_every_answer(start: Start) -> None:
    server = start("--server-header", "tested/1", app=APP)
    for target, status in (("/", 200), ("/status/204", 204), ("/nowhere", 404), ("/raise", 500)):
        answer = server.get(target)
        assert (answer.status, answer.header("Server")) == (status, "tested/1")
    for data, status in ((b"nonsense\r\n\r\n", 400), (requirements.ask("MAKE /"), 501)):
        with server.client() as client:
            client.send(data)
            read(client, requirements.refused(status, server="tested/1"))
            client.assert_closed()
    with server.client() as client:
        assert client.request("OPTIONS", "*").header("Server") == "tested/1"


def test_slow_body_is_408(start: Start) -> None:
    server = start("--read-timeout", "0.3", "--min-body-rate", "10000", app=APP)
    with server.client() as client:
        client.send(request("POST", "/seen", headers=("Content-Length: 50000",)))
        began = time.monotonic()
        while time.monotonic() - began < 3 and not client.has_answer():
            client.send(b"x" * 10)
            time.sleep(0.02)
        read(client, requirements.refused(408))
        client.assert_closed()
        assert 0.2 < time.monotonic() - began < 2


def test_answer_that_nobody_reads_is_given_up(start: Start, tmp_path: Path) -> None:
    """On TCP the kernel does it too; on a unix socket nobody else would."""
    _never_read_from(start("--write-timeout", "0.3", app=APP))
    _never_read_from(start("--write-timeout", "0.3", "-b", f"unix:{tmp_path / 'socket'}", app=APP))


def _never_read_from(server: Server) -> None:
    before = server.descriptors()
    with Client(server.address, receive_buffer=4096) as client:
        client.send(request("GET", "/large"))
        wait_for(lambda: server.descriptors() != before, "the connection")
        wait_for(lambda: server.descriptors() == before, "its end")


def test_handler_over_its_time_is_503(start: Start) -> None:
    server = start("--handler-timeout", "0.3", app=APP)
    with server.client() as client:
        client.send(request("GET", "/sleep"))
        read(client, requirements.refused(503, close=False, retry_after="1"))


# The page


def test_page_is_written_from_the_rows() -> None:
    assert (ROOT / "docs" / "http.md").read_text() == requirements.page(), "run `make docs`"


def test_every_row_has_something_that_shows_it() -> None:
    assert len(ROWS) == sum(len(rows) for rows in requirements.PARTS.values()), "an id comes twice"
    functions = {name for name in globals() if name.startswith("test_")}
    for row in ROWS.values():
        assert re.fullmatch(r"[a-z0-9.-]+", row.id)
        assert bool(row.fixtures) != bool(row.test), row.id
        assert not row.test or row.test in functions, row.id
        for fixture in row.fixtures:
            assert fixture.end in ("keeps", "closes", "ends"), row.id


def test_every_row_has_a_rule_that_can_be_taken_out() -> None:
    """And the texts that tools/rules.py replaces are still there, each once."""
    assert {row for rule in RULES for row in rule.rows} == {*ROWS}
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert (ROOT / rule.path).read_text().count(rule.old) == 1, rule.name
