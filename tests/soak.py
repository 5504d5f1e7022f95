"""A soak: mixed good, slow, aborting, oversized and malformed clients against a running server,
while its workers are exchanged one after the other; every answer is checked, memory is watched.

    python -m tests.soak                          ten minutes, five million requests at least
    python -m tests.soak --seconds 60 --requests 0
    python -m tests.soak --driver poll --page docs/soak-poll.md

One of two workers lives from start to end; half of the good clients stay with it, so that its load
is the same throughout. The other is told to end every 20 seconds, in the middle of its work, and is
replaced. The lasting worker's resident memory must stay within 2 %, at rest and under load, and the
private part of it at rest; under load that is told. At rest: when all clients have paused for 65
seconds, behind the first fifth of the time and at the end. Under load: the means of eight windows,
from a tenth of the time behind the first pause on (a worker at rest gives its memory back, and
warms up again). Exit status 1 on a wrong answer, on too few requests, or on memory that grows.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import re
import signal
import socket
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from statistics import mean
from typing import Any

from tests.client import request
from tests.server import Server, command

SECONDS = 600
REQUESTS = 5_000_000
GROWTH_MAX = 0.02
EXCHANGE_SECONDS = 20.0
# Of what nothing uses a worker gives half back every ten seconds: little is left of a burst then.
REST_SECONDS = 65.0
SAMPLE_SECONDS = 1.0
WINDOWS = 8
PIPELINE = 24
RECONNECTING = 0.01
CONNECTIONS = 24
BAD_CONNECTIONS = 16
_DATE = re.compile(rb"Date: [^\r]{29}\r\n")
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) (?:[^\r]*\r\n)(?:[^\r]+\r\n)*?\r\n")
_LENGTH = re.compile(rb"Content-Length: (\d+)\r\n")
_BEGAN = time.monotonic()
_KINDS = ("good", "slow", "aborting", "oversized", "malformed")

Address = tuple[str, int]


class WrongAnswerError(AssertionError):
    """The server sent what it must not send."""


@dataclass
class Counters:
    """Shared by all processes."""

    answered: dict[str, Synchronized[int]]
    wrong: Synchronized[int]
    is_over: Any
    # Set while clients may act; all pause while it is not.
    acts: Any

    @classmethod
    def new(cls) -> Counters:
        return cls(
            {kind: multiprocessing.Value("q", 0) for kind in _KINDS},
            multiprocessing.Value("q", 0),
            multiprocessing.Event(),
            multiprocessing.Event(),
        )

    def add(self, kind: str, count: int = 1) -> None:
        counter = self.answered[kind]
        with counter.get_lock():
            counter.value += count

    def goes_on(self) -> bool:
        """Waits while clients are to pause; false when the soak is over."""
        while not self.acts.wait(0.1) and not self.is_over.is_set():
            pass
        return not self.is_over.is_set()

    @property
    def total(self) -> int:
        return sum(counter.value for counter in self.answered.values())


# Good clients: pipelines of different requests, compared byte by byte but for the date.


def _exchanges() -> list[tuple[bytes, int, bytes]]:
    """Requests, and the status and body that must come back."""
    small = [
        (request("GET", "/"), 200, b"hello world"),
        (request("GET", "/nowhere"), 404, b"404 Not Found\n"),
        (request("GET", "/sleep/0.001"), 200, b"slept"),
        (request("GET", "/large/20000"), 200, (b"0123456789abcdef" * 1250)[:20000]),
    ]
    users = [(request("GET", f"/users/{n}"), 200, b"user %d" % n) for n in range(40)]
    bodies = [random.Random(n).randbytes(n * n * 60) for n in range(1, 20)]
    echoes = [(request("POST", "/echo", body), 200, body) for body in bodies]
    return small * 3 + users + echoes


def good(address: Address, counters: Counters, seed: int, is_wanted: Callable[[int], bool]) -> None:
    """Keep many connections busy with pipelines; to workers that are wanted only."""
    rng = random.Random(seed)
    exchanges = _exchanges()
    heads: dict[int, bytes] = {}
    connections = [_connect_to(address, is_wanted) for _ in range(CONNECTIONS)]
    while counters.goes_on():
        batches = []
        for index, connection in enumerate(connections):
            batch = [rng.randrange(len(exchanges)) for _ in range(rng.randrange(1, PIPELINE))]
            batches.append(batch)
            try:
                connection.sendall(b"".join(exchanges[number][0] for number in batch))
            except OSError:
                # Its worker has drained it: what was on its way is asked again.
                connections[index] = _connect_to(address, is_wanted)
                batches[-1] = []
        for index, batch in enumerate(batches):
            answered = _read_answers(connections[index], batch, exchanges, heads)
            counters.add("good", answered)
            if answered < len(batch) or rng.random() < RECONNECTING:
                connections[index].close()
                connections[index] = _connect_to(address, is_wanted)


def _connect(address: Address) -> socket.socket:
    connection = socket.create_connection(address, 20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _connect_to(address: Address, is_wanted: Callable[[int], bool]) -> socket.socket:
    """A connection to a worker whose process id is wanted."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        connection = _connect(address)
        with contextlib.suppress(ConnectionError):
            connection.sendall(request("GET", "/pid"))
            got = connection.recv(4096)
            if b"\r\nConnection: close\r\n" not in got and is_wanted(int(got.split()[-1])):
                return connection
        connection.close()
        time.sleep(0.001)
    raise WrongAnswerError("no connection to a worker that is wanted within 20 s")


def _read_answers(
    connection: socket.socket,
    batch: list[int],
    exchanges: list[tuple[bytes, int, bytes]],
    heads: dict[int, bytes],
) -> int:
    """How many of a pipeline were answered before the server ended the connection, if it did."""
    got = b""
    answered = 0
    while answered < len(batch):
        number = batch[answered]
        known = heads.get(number)
        if known is not None and len(got) >= len(known):
            plain = _DATE.sub(b"", got[: len(known) + 37], count=1)
            if plain.startswith(known):
                got = got[len(known) + 37 :]
                answered += 1
                continue
        head = _HEAD.match(got)
        if head is not None and (length := _LENGTH.search(head[0])):
            end = head.end() + int(length[1])
            if len(got) >= end:
                _, status, body = exchanges[number]
                if (int(head[1]), got[head.end() : end]) != (status, body):
                    raise WrongAnswerError(
                        f"{exchanges[number][0][:80]!r} was answered {got[:300]!r}"
                    )
                answered += 1
                if b"\r\nConnection: close\r\n" in head[0]:
                    return _ended(connection, got[end:], answered)
                heads[number] = _DATE.sub(b"", got[:end], count=1)
                got = got[end:]
                continue
        try:
            data = connection.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        if not data:
            if got:
                raise WrongAnswerError(f"cut off in the middle of an answer: {got[:300]!r}")
            return answered
        got += data
    if got:
        raise WrongAnswerError(f"more than was asked for: {got[:300]!r}")
    return answered


def _ended(connection: socket.socket, rest: bytes, answered: int) -> int:
    with contextlib.suppress(ConnectionResetError):
        rest += connection.recv(100)
    if rest:
        raise WrongAnswerError(f"an answer behind the last one: {rest!r}")
    return answered


# Clients that behave badly: each act is one connection, and says what must come of it.


def _status(connection: socket.socket) -> int:
    """The status of the one answer on a connection; 0 when it ended without."""
    got = b""
    while b"\r\n\r\n" not in got:
        try:
            data = connection.recv(65536)
        except ConnectionResetError:
            return 0
        if not data:
            return 0
        got += data
    head = _HEAD.match(got)
    if head is None:
        raise WrongAnswerError(f"not an answer: {got[:300]!r}")
    return int(head[1])


def _expect(connection: socket.socket, *statuses: int) -> None:
    status = _status(connection)
    if status not in statuses:
        raise WrongAnswerError(f"{status}, not {' or '.join(map(str, statuses))}")


def slow(connection: socket.socket, rng: random.Random) -> None:
    """A head in single bytes; some never finish it."""
    head = request("GET", "/", headers=("X-Slow: " + "x" * 20,))
    stops = rng.randrange(1, len(head)) if rng.random() < 0.3 else len(head)
    try:
        for at in range(stops):
            connection.sendall(head[at : at + 1])
            time.sleep(0.002)
    except OSError:
        return
    # 0: the worker drained while the head was on its way.
    _expect(connection, 408 if stops < len(head) else 200, 0)


def aborting(connection: socket.socket, rng: random.Random) -> None:
    """Asks for much, reads some of it, resets."""
    wanted = request("GET", "/large/200000") * 3 + request("POST", "/echo", b"x" * 300_000)
    with contextlib.suppress(OSError):
        connection.sendall(wanted[: rng.randrange(1, len(wanted))])
        connection.settimeout(0.05)
        with contextlib.suppress(TimeoutError):
            connection.recv(rng.randrange(1, 200_000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def oversized(connection: socket.socket, rng: random.Random) -> None:
    """A target, a head or a body over its limit."""
    texts = [
        (request("GET", "/" + "t" * 9000), 414),
        (request("GET", "/", headers=("X-Large: " + "h" * 33_000,)), 431),
        (request("POST", "/echo", headers=("Content-Length: 2000000",)), 413),
    ]
    text, status = rng.choice(texts)
    with contextlib.suppress(OSError):
        connection.sendall(text)
    _expect(connection, status, 0)


def malformed(connection: socket.socket, rng: random.Random) -> None:
    """What no client may send."""
    texts = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ]
    connection.sendall(rng.choice(texts))
    _expect(connection, 400, 0)


def bad(address: Address, counters: Counters, seed: int) -> None:
    """One bad act after the other, of every kind, on several connections at a time."""
    with ThreadPoolExecutor(BAD_CONNECTIONS) as pool:
        acting = [
            pool.submit(_act_badly, address, counters, seed + n) for n in range(BAD_CONNECTIONS)
        ]
        for future in acting:
            future.result()


def _act_badly(address: Address, counters: Counters, seed: int) -> None:
    rng = random.Random(seed)
    acts: list[Callable[[socket.socket, random.Random], None]]
    acts = [slow, aborting, oversized, malformed]
    while counters.goes_on():
        act = rng.choice(acts)
        try:
            with _connect(address) as connection:
                act(connection, rng)
        except BaseException:
            counters.is_over.set()
            raise
        counters.add(act.__name__)


def _run(what: Callable[..., None], address: Address, counters: Counters, *options: Any) -> None:
    """The body of a client process: a wrong answer ends the soak."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        what(address, counters, *options)
    except BaseException:
        traceback.print_exc()
        counters.wrong.value += 1
        counters.is_over.set()


# The soak itself.


@dataclass
class Sample:
    """The lasting worker at a moment: resident memory and the private part of it in KiB, live bytes
    of the core, and the blocks of the interpreter's allocator."""

    seconds: float
    answered: int
    resident: int
    private: int
    live: int
    blocks: int


def _spread(windows: list[float]) -> float:
    return max(windows) / min(windows) - 1


@dataclass
class Soak:
    """One run and what was seen."""

    server: Server
    counters: Counters
    seconds: float
    samples: list[Sample] = field(default_factory=list)
    rests: list[Sample] = field(default_factory=list)
    exchanges: int = 0

    def __post_init__(self) -> None:
        self.lasting = self.server.workers()[0]
        self.monitor = self.server.client()
        while self.monitor.get("/memory").json()["pid"] != self.lasting:
            self.monitor.close()
            self.monitor = self.server.client()

    def windows(self, of: Callable[[Sample], int]) -> list[float]:
        """Means under load of each window behind the warm-up."""
        began, last = self.rests[0].seconds + self.seconds / 10, self.samples[-1].seconds
        windows: list[list[int]] = [[] for _ in range(WINDOWS)]
        for sample in self.samples:
            if sample.seconds > began:
                at = int((sample.seconds - began) / (last - began) * WINDOWS)
                windows[min(at, WINDOWS - 1)].append(of(sample))
        return [mean(window) for window in windows]

    def growth(self, of: Callable[[Sample], int]) -> float:
        """From the rest behind the warm-up to that at the end."""
        return of(self.rests[-1]) / of(self.rests[0]) - 1

    def run(self) -> None:
        self._load(self.seconds / 5)
        self._rest()
        self._load(self.seconds * 4 / 5)
        self._rest()

    def _load(self, seconds: float) -> None:
        """Let clients act for so long."""
        self.counters.acts.set()
        began = time.monotonic()
        exchange_at = printed_at = began + EXCHANGE_SECONDS / 2
        while not self.counters.is_over.is_set():
            time.sleep(SAMPLE_SECONDS)
            now = time.monotonic()
            workers = self.server.workers()
            if self.lasting not in workers:
                raise WrongAnswerError(f"a worker ended by itself:\n{self.server.log()}")
            self.samples.append(self._sample())
            others = [pid for pid in workers if pid != self.lasting]
            if now >= exchange_at and others:
                exchange_at = now + EXCHANGE_SECONDS
                self.exchanges += 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(others[0], signal.SIGTERM)
            if now >= printed_at:
                printed_at = now + EXCHANGE_SECONDS / 2
                self.print("", self.samples[-1])
            if now - began >= seconds:
                break
        self.counters.acts.clear()

    def _rest(self) -> None:
        if not self.counters.is_over.is_set():
            time.sleep(REST_SECONDS)
            self.rests.append(self._sample())
            self.print("at rest: ", self.rests[-1])

    def _sample(self) -> Sample:
        held = self.monitor.get("/memory").json()
        now = time.monotonic() - _BEGAN
        memory = _memory_kib(self.lasting)
        return Sample(now, self.counters.total, *memory, held["live"], held["blocks"])

    def print(self, what: str, sample: Sample) -> None:
        counts = ", ".join(f"{n.value:,} {k}" for k, n in self.counters.answered.items())
        print(
            f"{sample.seconds:6.0f} s  {what}{sample.resident:,} KiB, {sample.private:,} private, "
            f"{sample.live:,} live bytes, {sample.blocks:,} blocks; "
            f"{sample.answered:,} requests ({counts}), "
            f"{self.exchanges} workers exchanged",
            flush=True,
        )


def _resident(sample: Sample) -> int:
    return sample.resident


def _private(sample: Sample) -> int:
    return sample.private


def _memory_kib(pid: int) -> tuple[int, int]:
    """Resident memory, and the part of it that is private."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    found = {name: int(kib) for name, kib in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
    return found["Rss"], found["Private_Dirty"] + found["Private_Clean"]


@contextlib.contextmanager
def _clients(address: Address, counters: Counters, lasting: int) -> Iterator[None]:
    context = multiprocessing.get_context("fork")
    kinds: list[tuple[Any, ...]] = [
        (good, address, counters, 0, lambda pid: pid == lasting),
        (good, address, counters, 1, lambda pid: pid != lasting),
        (bad, address, counters, 2),
    ]
    processes = [context.Process(target=_run, args=kind) for kind in kinds]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        counters.is_over.set()
        for process in processes:
            process.join(30)
            if process.is_alive():
                process.kill()
                process.join()


def picture(soak: Soak) -> str:
    """Memory and requests over time, as SVG."""
    width, height, left, bottom = 720, 240, 60, 30
    last = soak.samples[-1]
    kib_max = max(sample.resident for sample in soak.samples) * 1.2

    def points(value: Callable[[Sample], float], top: float) -> str:
        return " ".join(
            f"{left + sample.seconds / last.seconds * (width - left - 10):.1f},"
            f"{(height - bottom) * (1 - value(sample) / top):.1f}"
            for sample in soak.samples
        )

    resident, private = points(_resident, kib_max), points(_private, kib_max)
    requests = points(lambda sample: sample.answered, last.answered)
    style = 'fill="none" stroke-width="2"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            f'<polyline points="{requests}" stroke="#bbb" {style}/>',
            f'<polyline points="{resident}" stroke="#06c" {style}/>',
            f'<polyline points="{private}" stroke="#6af" {style}/>',
            f'<text x="{left}" y="14" fill="#06c">resident memory of the lasting worker, and the '
            f"private part: {last.resident:,} and {last.private:,} KiB at the end</text>",
            f'<text x="{left}" y="30" fill="#777">requests: {last.answered:,}</text>',
            f'<line x1="{left}" y1="{height - bottom}" x2="{width}" y2="{height - bottom}" '
            'stroke="black"/>',
            f'<text x="{width - 90}" y="{height - 10}">{last.seconds:.0f} s</text>',
            f'<text x="4" y="{(height - bottom) / 6:.0f}">{kib_max:,.0f}</text>',
            "</svg>",
            "",
        ]
    )


def report(soak: Soak, driver: str) -> str:
    last = soak.samples[-1]
    counts = "\n".join(f"| {k} | {n.value:,} |" for k, n in soak.counters.answered.items())
    rests = "\n".join(
        f"| {when} | {rest.resident:,} | {rest.private:,} | {rest.live:,} | {rest.blocks:,} |"
        for when, rest in zip(("behind the warm-up", "at the end"), soak.rests, strict=True)
    )
    resident, private = soak.windows(_resident), soak.windows(_private)
    windows = "\n".join(
        f"| {number} | {one:,.0f} | {other:,.0f} |"
        for number, (one, other) in enumerate(zip(resident, private, strict=True), 1)
    )
    return f"""# Soak on {driver}

Written by `python -m tests.soak --driver {driver}`: {last.seconds:.0f} s,
{last.answered:,} requests, {soak.exchanges} workers exchanged while they served, wrong answers:
{soak.counters.wrong.value}.

The worker that lived throughout, when all clients had paused for {REST_SECONDS:.0f} s:

| | resident memory (KiB) | of it private | live bytes of the core | blocks of the interpreter |
| --- | ---: | ---: | ---: | ---: |
{rests}

Growth at rest: {soak.growth(_resident):+.1%}, of the private part {soak.growth(_private):+.1%}.

Under load, the means of {WINDOWS} windows behind the warm-up:

| window | resident (KiB) | of it private |
| --- | ---: | ---: |
{windows}

Between the least and the most: {_spread(resident):.1%}, of the private part {_spread(private):.1%}.

| clients | answered or ended as they must |
| --- | ---: |
{counts}

![memory and requests over time](soak-{driver}.svg)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="a soak of a running server")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--requests", type=int, default=REQUESTS, help="the fewest that count")
    parser.add_argument("--driver", default="io_uring", choices=("io_uring", "poll"))
    parser.add_argument("--page", type=Path, help="write the report there, a picture beside it")
    options = parser.parse_args()
    counters = Counters.new()
    arguments = (
        "--port",
        "0",
        "--workers",
        "2",
        "--read-timeout",
        "3",
        "--max-connections",
        "2000",
    )
    driver = ("--driver", options.driver)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        server = Server(command("run", "tests.apps.main:app", *arguments, *driver), log)
        try:
            assert isinstance(server.address, tuple)
            soak = Soak(server, counters, options.seconds)
            with _clients(server.address, counters, soak.lasting):
                soak.run()
            soak.monitor.close()
            troubles = [line for line in server.log().splitlines() if "Traceback" in line]
        finally:
            server.stop()
    problems = []
    if counters.wrong.value:
        problems.append("wrong answers")
    else:
        text = report(soak, options.driver)
        print(text)
        if options.page is not None:
            options.page.write_text(text)
            options.page.with_suffix(".svg").write_text(picture(soak))
        for name, of in (("resident", _resident), ("private", _private)):
            if (growth := soak.growth(of)) > GROWTH_MAX:
                problems.append(f"{name} memory at rest grew by {growth:.1%}")
        if (spread := _spread(soak.windows(_resident))) > GROWTH_MAX:
            problems.append(f"resident memory under load was not flat: {spread:.1%}")
    if troubles:
        problems.append(f"{len(troubles)} tracebacks in the log")
    if counters.total < options.requests:
        problems.append(f"only {counters.total:,} requests")
    for problem in problems:
        print(f"soak: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
