"""The attack corpus against a real server.

Each attack is sent in one piece, split at every byte, and in single bytes, and must always have the
same outcome: the answers that `tests/attacks.py` names, each of them whole, and no other.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests import test_spoofing
from tests.attacks import ATTACKS, CLASSES, ELSEWHERE, VULNERABILITIES, Attack, seen
from tests.client import Client, page, refusal
from tests.server import Server, command

pytestmark = pytest.mark.wire

# Connections at a time: below what a process may open, and what the server accepts at once.
BATCH = 200
# The first part of every attack has to be read before the second is sent.
PAUSE_SECONDS = 0.01
# Longer attacks are split at this many places instead of everywhere.
PLACES = 200
_DATE = re.compile(rb"\r\nDate: [^\r]*")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture(scope="module", params=["app", "streamed"])
def _attacked(
    request: pytest.FixtureRequest, driver: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    yield from running(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def _unread(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running("unread", tmp_path_factory)


def running(app: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one of the applications, on TCP and on a unix socket."""
    folder = tmp_path_factory.mktemp(app)
    binds = ("-b", "127.0.0.1:0", "-b", f"unix:{folder}/socket")
    server = Server(command("run", f"tests.apps.attacks:{app}", *binds), folder / "log")
    yield server
    server.stop()


@pytest.fixture
def attacked(_attacked: Server) -> Iterator[Server]:
    """A server whose routes take bodies whole, or as they arrive; unchanged after each attack."""
    yield _attacked
    _attacked.assert_unchanged()


@pytest.fixture
def unread(_unread: Server) -> Iterator[Server]:
    """A server that answers without having looked at a body."""
    yield _unread
    _unread.assert_unchanged()


def expected(attack: Attack) -> Iterator[tuple[Any, ...]]:
    """What `Answer.whole` must be for each answer."""
    for place, answer in enumerate(attack.answers, start=1):
        if isinstance(answer, int):
            yield refusal(answer)
        elif attack.is_closed and place == len(attack.answers):
            yield page(answer, connection="close")
        else:
            yield page(answer)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(attacked: Server, name: str) -> None:
    attack = ATTACKS[name]
    with attacked.client() as client:
        client.send(attack.sent)
        if attack.ends:
            client.half_close()
        for answer in expected(attack):
            assert _read_final(client).whole() == answer
        if attack.is_closed:
            client.assert_closed()
        else:
            # The next request is the client's own, from its first byte on.
            assert client.get("/own").whole() == page(seen("GET", "/own"))
            client.assert_open(0.01)


def _read_final(client: Client) -> Any:
    answer = client.read()
    return client.read() if answer.status == 100 else answer


class Attempt:
    """One connection that sends an attack in pieces; afterwards, everything that came back."""

    def __init__(self, address: object, attack: Attack, pieces: Sequence[bytes]) -> None:
        self.attack = attack
        self._pieces = list(pieces)
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.settimeout(5)
        self._socket.connect(address)  # type: ignore[arg-type]

    def send_next(self) -> bool:
        """Send one piece; whether there was one."""
        if not self._pieces:
            return False
        try:
            self._socket.sendall(self._pieces.pop(0))
        except (BrokenPipeError, ConnectionResetError):
            # It was refused long ago, and the server has lingered long enough.
            self._pieces.clear()
        return True

    def outcome(self) -> bytes:
        """Everything until the server closes, which it does by itself if the attack is refused."""
        if not self.attack.is_refused:
            self._socket.shutdown(socket.SHUT_WR)
        received = b""
        while data := self._socket.recv(65_536):
            received += data
        self._socket.close()
        return without_date(received)


def without_date(transcript: bytes) -> bytes:
    """What came, but for the date, and without ``100 Continue``, which depends on the pieces."""
    return _DATE.sub(b"", transcript.replace(_CONTINUE, b""))


def in_one_piece(server: Server, attack: Attack) -> bytes:
    """The outcome that `test_attack` has looked at, as bytes."""
    attempt = Attempt(server.address, attack, [attack.sent])
    attempt.send_next()
    return attempt.outcome()


def places(attack: Attack) -> Iterator[int]:
    """Where to split: everywhere, or evenly if that were too much."""
    length = len(attack.data)
    yield from range(1, length, max(1, length // PLACES))


def split_outcomes(server: Server) -> Iterator[tuple[str, int, bytes]]:
    """Each attack, split at each place: its name, the place, and what came of it."""
    splits = [(name, at) for name, attack in ATTACKS.items() for at in places(attack)]
    for start in range(0, len(splits), BATCH):
        batch = []
        for name, at in splits[start : start + BATCH]:
            sent = ATTACKS[name].sent
            attempt = Attempt(server.addresses[1], ATTACKS[name], [sent[:at], sent[at:]])
            attempt.send_next()
            batch.append((name, at, attempt))
        time.sleep(PAUSE_SECONDS)
        for _, _, attempt in batch:
            attempt.send_next()
        yield from ((name, at, attempt.outcome()) for name, at, attempt in batch)


def test_attacks_split_at_every_byte(attacked: Server) -> None:
    """The first part has been read, and looked at, when the second comes."""
    whole = {name: in_one_piece(attacked, attack) for name, attack in ATTACKS.items()}
    for name, at, outcome in split_outcomes(attacked):
        assert outcome == whole[name], f"{name}, split at {at}"


def test_attacks_on_routes_that_do_not_read(unread: Server) -> None:
    """A body that comes when its request was answered is no request, and neither is what hides in
    one that was never looked at."""
    outcomes = [(name, 0, in_one_piece(unread, attack)) for name, attack in ATTACKS.items()]
    for name, at, outcome in [*outcomes, *split_outcomes(unread)]:
        where = f"{name}, split at {at}: {outcome!r}"
        assert b"smuggled" not in outcome, where
        assert b"poison" not in outcome, where
        # The application may have answered what is then found to be refused, or cut off.
        assert outcome.count(b"HTTP/1.1 ") <= max(1, len(ATTACKS[name].answers)), where


def test_attacks_in_single_bytes(attacked: Server) -> None:
    """All attacks at the same time, a byte of each in turn; long ones in as many pieces."""
    whole = {name: in_one_piece(attacked, attack) for name, attack in ATTACKS.items()}
    attempts = {}
    for name, attack in ATTACKS.items():
        step = max(1, len(attack.sent) // (2 * PLACES))
        pieces = [attack.sent[at : at + step] for at in range(0, len(attack.sent), step)]
        attempts[name] = Attempt(attacked.addresses[1], attack, pieces)
    while sum([attempt.send_next() for attempt in attempts.values()]):
        pass
    for name, attempt in attempts.items():
        assert attempt.outcome() == whole[name], name


def test_every_vulnerability_of_the_list_has_a_test() -> None:
    """Those that we have collected; a name is of no use if nobody runs it."""
    known = [
        "CVE-2024-1135",
        "CVE-2024-6827",
        "gunicorn#3364",
        "CVE-2025-43859",
        "CVE-2023-41419",
        "gevent#2075",
        "CVE-2025-58068",
        "CVE-2021-21419",
        "CVE-2024-27982",
        "hypercorn#279",
        "cheroot#275",
        "meinheld#111",
        "uvicorn#728",
        "gunicorn#3366",
        "gunicorn#3548",
        "gunicorn#3382",
        "gunicorn#3556",
        "gunicorn#2650",
        "gunicorn#3192",
        "gunicorn#1485",
        "gunicorn#1544",
        "gunicorn#163",
        "gunicorn#268",
        "goosebit#274",
    ]
    corpus = {name.split(" ")[0] for name in VULNERABILITIES}
    assert [name for name in known if name not in corpus | ELSEWHERE.keys()] == []
    assert [test for test in ELSEWHERE.values() if not hasattr(test_spoofing, test)] == []
    assert not VULNERABILITIES.keys() & CLASSES.keys()
