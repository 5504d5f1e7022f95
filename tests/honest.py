"""Honest clients at a fixed rate, whatever the server does: an open loop in a process of its own.

    python -m tests.honest HOST PORT --kept 100 --new 100 --seconds 60

Every request has a time at which it is due, and its latency counts from there: a server that is
stuck for a second is late for all requests of that second. `--kept` requests a second go over
connections that are kept, a further one is opened when none is idle; `--new` requests a second have
a connection of their own, with the time that it takes to open and to close it. Prints one line of
JSON: for each kind how many were asked and served, the latencies in seconds, and what went wrong.
"""

from __future__ import annotations

import argparse
import collections
import json
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

from tests.client import Address

GIVE_UP_SECONDS = 10.0
KEPT_AT_THE_START = 10
HELLO = b"hello world"


@dataclass
class Kind:
    """Requests of one kind: what came of them."""

    asked: int = 0
    latencies: list[float] = field(default_factory=list)
    failures: collections.Counter[str] = field(default_factory=collections.Counter)


class _Connection:
    """One connection and the request that it is busy with."""

    def __init__(self, address: Address, kind: Kind, is_kept: bool) -> None:
        self.kind = kind
        self.is_kept = is_kept
        self.due = 0.0
        self.got = b""
        self.waits_to_send = True
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.connect_ex(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self) -> None:
        close = "" if self.is_kept else "Connection: close\r\n"
        self.socket.sendall(f"GET / HTTP/1.1\r\nHost: honest\r\n{close}\r\n".encode())
        self.waits_to_send = False


class Load:
    """The loop."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.kept, self.new = Kind(), Kind()
        self._selector = selectors.DefaultSelector()
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()

    def run(self, kept_rate: float, new_rate: float, seconds: float) -> None:
        for _ in range(KEPT_AT_THE_START if kept_rate else 0):
            self._ask(self._open(self.kept, is_kept=True), time.monotonic())
        self._wait_until(time.monotonic() + 1.0)
        self.kept, self.new = Kind(), Kind()
        began = time.monotonic()
        schedule = [(at / kept_rate, True) for at in range(int(kept_rate * seconds))]
        schedule += [((at + 0.5) / new_rate, False) for at in range(int(new_rate * seconds))]
        for due, is_kept in sorted(schedule):
            self._wait_until(began + due)
            connection = self._idle.pop() if is_kept and self._idle else None
            kind = self.kept if is_kept else self.new
            kind.asked += 1
            if connection is None:
                connection = self._open(kind, is_kept)
            connection.kind = kind
            self._ask(connection, began + due)
        end = time.monotonic() + GIVE_UP_SECONDS
        while self._busy and time.monotonic() < end:
            self._wait_until(time.monotonic() + 0.01)
        for connection in [*self._busy]:
            self._fail(connection, "no answer in time")

    def _open(self, kind: Kind, is_kept: bool) -> _Connection:
        connection = _Connection(self.address, kind, is_kept)
        self._selector.register(connection.socket, selectors.EVENT_WRITE, connection)
        return connection

    def _ask(self, connection: _Connection, due: float) -> None:
        connection.due = due
        self._busy.add(connection)
        if not connection.waits_to_send:
            try:
                connection.send()
            except OSError as error:
                self._fail(connection, type(error).__name__)

    def _wait_until(self, moment: float) -> None:
        while True:
            left = moment - time.monotonic()
            for key, _ in self._selector.select(max(left, 0)):
                connection = key.data
                try:
                    self._on_event(connection)
                except OSError as error:
                    self._fail(connection, type(error).__name__)
            if left <= 0:
                return

    def _on_event(self, connection: _Connection) -> None:
        if connection.waits_to_send:
            error = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "connect")
            connection.send()
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
            return
        data = connection.socket.recv(65_536)
        connection.got += data
        if connection in self._busy and (connection.is_kept or not data):
            head, mark, body = connection.got.partition(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 200 ") and body == HELLO:
                connection.kind.latencies.append(time.monotonic() - connection.due)
                self._busy.discard(connection)
                connection.got = b""
                if connection.is_kept:
                    self._idle.append(connection)
                else:
                    self._end(connection)
                return
            if mark and head[9:12] != b"200":
                self._fail(connection, f"status {head[9:12].decode()}")
                return
        if not data:
            if connection in self._busy:
                self._fail(connection, "closed")
            else:
                self._end(connection)

    def _fail(self, connection: _Connection, why: str) -> None:
        connection.kind.failures[why] += 1
        self._busy.discard(connection)
        self._end(connection)

    def _end(self, connection: _Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()


class Honest:
    """A load that runs in a process of its own."""

    def __init__(self, address: Address, kept: float, new: float, seconds: float) -> None:
        host, port = address
        options = ["--kept", str(kept), "--new", str(new), "--seconds", str(seconds)]
        # Not a pipe: nobody reads before the end.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.honest", str(host), str(port), *options],
            stdout=self._output,
        )

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def result(self) -> dict[str, Any]:
        """Waits for the end."""
        assert self.process.wait(300) == 0
        self._output.seek(0)
        found: dict[str, Any] = json.load(self._output)
        return found

    def __enter__(self) -> Honest:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        self._output.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--kept", type=float, default=100)
    parser.add_argument("--new", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    load = Load((given.host, given.port))
    load.run(given.kept, given.new, given.seconds)
    kinds = {"kept": load.kept, "new": load.new}
    print(
        json.dumps(
            {
                name: {
                    "asked": kind.asked,
                    "latencies": [round(latency, 6) for latency in kind.latencies],
                    "failures": kind.failures,
                }
                for name, kind in kinds.items()
            }
        )
    )


if __name__ == "__main__":
    main()
