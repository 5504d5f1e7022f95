"""Many connections from one thread: each sends its requests and checks every response.

A `Plan` is what one connection does: pairs of request bytes and the status and body that must
come back, in order, with up to `depth` requests under way.
"""

from __future__ import annotations

import re
import selectors
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.client import Address

_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n(?:[^\r]+\r\n)*?Content-Length: (\d+)\r\n")
_SEND_BYTES = 1 << 18


@dataclass(frozen=True)
class Exchange:
    """One request and what must answer it."""

    sent: bytes
    status: int
    body: bytes


@dataclass
class Plan:
    """The exchanges of one connection; `reset_after` bytes of its responses it may vanish."""

    exchanges: Sequence[Exchange]
    depth: int = 1
    reset_after: int | None = None


@dataclass
class Result:
    """What came of a run."""

    seconds: float = 0.0
    answered: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.answered / self.seconds if self.seconds else 0.0


def run(address: Address, plans: Sequence[Plan], *, seconds: float = 30.0) -> Result:
    """Carry out all plans at once. Fails on the first response that is not as it must be."""
    selector = selectors.DefaultSelector()
    result = Result()
    began = time.monotonic()
    active = [_Connection(address, plan, selector, result) for plan in plans]
    left = len(active)
    try:
        for connection in active:
            connection.advance()
        left = sum(not connection.is_done for connection in active)
        while left:
            assert time.monotonic() - began < seconds, f"{left} connections are not done"
            for key, events in selector.select(1.0):
                connection = key.data
                connection.on_event(events)
                left -= connection.is_done
    finally:
        for connection in active:
            connection.close()
        selector.close()
    result.seconds = time.monotonic() - began
    return result


class _Connection:
    def __init__(
        self, address: Address, plan: Plan, selector: selectors.BaseSelector, result: Result
    ) -> None:
        self.plan = plan
        self.is_done = False
        self._selector = selector
        self._result = result
        self._sent = self._answered = self._received = 0
        self._sent_at: list[float] = []
        self._output = b""
        self._input = b""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect(address)
        self.socket.setblocking(False)
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._events = selectors.EVENT_READ
        selector.register(self.socket, self._events, self)

    def on_event(self, events: int) -> None:
        if events & selectors.EVENT_READ:
            self._receive()
        if not self.is_done:
            self.advance()

    def advance(self) -> None:
        """Send as many requests as the plan's depth allows."""
        exchanges = self.plan.exchanges
        if not self._output:
            until = min(self._answered + self.plan.depth, len(exchanges))
            if self._sent < until:
                self._output = b"".join(e.sent for e in exchanges[self._sent : until])
                self._sent_at += [time.monotonic()] * (until - self._sent)
                self._sent = until
        if self._output:
            try:
                count = self.socket.send(self._output[:_SEND_BYTES])
                self._output = self._output[count:]
            except BlockingIOError:
                pass
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._output else 0)
        if wanted != self._events:
            self._events = wanted
            self._selector.modify(self.socket, wanted, self)

    def _receive(self) -> None:
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        assert data, f"closed after {self._answered} of {len(self.plan.exchanges)} responses"
        self._input += data
        self._received += len(data)
        if self.plan.reset_after is not None and self._received >= self.plan.reset_after:
            self._reset()
            return
        self._take_answers()
        if self._answered == len(self.plan.exchanges):
            assert self._input == b"", f"more than asked for: {self._input[:200]!r}"
            self._finish()

    def _take_answers(self) -> None:
        at = 0
        while self._answered < self._sent:
            head = _HEAD.match(self._input, at)
            if head is None:
                assert b"\r\n\r\n" not in self._input[at:], f"bad head: {self._input[at:][:300]!r}"
                break
            start = self._input.find(b"\r\n\r\n", head.end() - 2) + 4
            end = start + int(head[2])
            if start < 4 or end > len(self._input):
                break
            expected = self.plan.exchanges[self._answered]
            got = int(head[1]), self._input[start:end]
            if got != (expected.status, expected.body):
                raise AssertionError(
                    f"response {self._answered} to {expected.sent[:80]!r}: "
                    f"{got[0]} {got[1][:200]!r}, not {expected.status} {expected.body[:200]!r}"
                )
            self._result.latencies.append(time.monotonic() - self._sent_at[self._answered])
            self._result.answered += 1
            self._answered += 1
            at = end
        self._input = self._input[at:]

    def _reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._finish()

    def _finish(self) -> None:
        self.is_done = True
        self._selector.unregister(self.socket)
        self.socket.close()

    def close(self) -> None:
        if not self.is_done:
            self._finish()


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
