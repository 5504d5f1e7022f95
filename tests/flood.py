"""What a hostile client sends that costs it little: floods, in a process of its own.

    python -m tests.flood KIND HOST PORT COUNT

Prints one line of JSON: how many system calls it made to send, how many bytes, and the CPU time in
seconds that it took, so that it can be compared with what the server paid.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.client import Address
from tests.server import Server

_RESET = struct.pack("ii", 1, 0)
HEAD_MAX = 32_768


@dataclass
class Cost:
    """What a flood cost both sides."""

    sends: int
    sent_bytes: int
    attacker_seconds: float
    server_seconds: float

    @property
    def ratio(self) -> float:
        """What the server paid for each second that the attacker paid."""
        return self.server_seconds / self.attacker_seconds

    def __str__(self) -> str:
        per_send = 1e6 / max(self.sends, 1)
        return (
            f"{self.sends:,} sends of {self.sent_bytes:,} bytes in all: "
            f"{self.attacker_seconds * per_send:.2f} us for each by the attacker, "
            f"{self.server_seconds * per_send:.2f} us by the server"
        )


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process, exactly."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def flood(server: Server, kind: str, count: int, *, rests: bool = True) -> Cost:
    """One flood; the server has come to rest when this returns, unless others ask it something."""
    (worker,) = server.workers()
    host, port = server.address
    before = cpu_seconds(worker)
    done = subprocess.run(
        [sys.executable, "-m", "tests.flood", kind, str(host), str(port), str(count)],
        stdout=subprocess.PIPE,
        timeout=50,
        check=True,
    )
    after = cpu_seconds(worker)
    while rests:
        time.sleep(0.05)
        now = cpu_seconds(worker)
        if now - after < 0.001:
            break
        after = now
    sends, sent_bytes, attacker_seconds = json.loads(done.stdout)
    return Cost(sends, sent_bytes, attacker_seconds, after - before)


class Attacker:
    """One connection that counts what it sends."""

    sends = 0
    sent_bytes = 0

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection(address, 20)  # type: ignore[arg-type]
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)
        Attacker.sends += 1
        Attacker.sent_bytes += len(data)

    def send_bytewise(self, data: bytes, step: int = 1) -> None:
        for at in range(0, len(data), step):
            self.send(data[at : at + step])

    def read_answers(self, count: int) -> None:
        """So many responses of fixed length or status, told by their status lines."""
        got = b""
        while got.count(b"HTTP/1.1 ") < count:
            data = self.socket.recv(1 << 20)
            assert data, got
            got = got[-20:] + data if count == 1 else got + data
        assert b"HTTP/1.1 200 " in got, got[:200]

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.socket.close()


def _head(target: str, *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a", *fields, "", ""]).encode()


def connect_and_close(address: Address, count: int) -> None:
    for _ in range(count):
        Attacker(address).socket.close()
        Attacker.sends += 1


def connect_and_reset(address: Address, count: int) -> None:
    for _ in range(count):
        Attacker(address).reset()
        Attacker.sends += 1


def ask_and_reset(address: Address, count: int) -> None:
    """A request, and gone before its answer."""
    for _ in range(count):
        attacker = Attacker(address)
        attacker.send(_head("/"))
        attacker.reset()


def head_bytewise(address: Address, count: int) -> None:
    """Heads of 3 KiB, a byte at a time."""
    _heads_bytewise(address, count, 30)


def long_head_bytewise(address: Address, count: int) -> None:
    """Heads of 30 KiB."""
    _heads_bytewise(address, count, 300)


def _heads_bytewise(address: Address, count: int, fields: int) -> None:
    attacker = Attacker(address)
    head = _head("/", *(f"X-{number:04}: {'x' * 92}" for number in range(fields)))
    while Attacker.sends < count:
        attacker.send_bytewise(head)
        attacker.read_answers(1)


def body_bytewise(address: Address, count: int) -> None:
    attacker = Attacker(address)
    attacker.send(_head("/upload", f"Content-Length: {count}", method="POST"))
    attacker.send_bytewise(b"x" * count)
    attacker.read_answers(1)


def stream_bytewise(address: Address, count: int) -> None:
    attacker = Attacker(address)
    attacker.send(_head("/count", f"Content-Length: {count}", method="POST"))
    attacker.send_bytewise(b"x" * count)
    attacker.read_answers(1)


def chunks_one_by_one(address: Address, count: int) -> None:
    """A chunk of one byte in each packet, received first."""
    _chunks(address, "/upload", count, 6)


def streamed_chunks_one_by_one(address: Address, count: int) -> None:
    """The same, taken by the handler as they come."""
    _chunks(address, "/count", count, 6)


def chunks_at_once(address: Address, count: int) -> None:
    """Chunks of one byte, as many in a packet as go in."""
    _chunks(address, "/upload", count, 60_000)


def streamed_chunks_at_once(address: Address, count: int) -> None:
    _chunks(address, "/count", count, 60_000)


def _chunks(address: Address, target: str, count: int, step: int) -> None:
    attacker = Attacker(address)
    attacker.send(_head(target, "Transfer-Encoding: chunked", method="POST"))
    attacker.send_bytewise(b"1\r\nx\r\n" * count, step)
    attacker.send(b"0\r\n\r\n")
    attacker.read_answers(1)


def many_fields(address: Address, count: int) -> None:
    """As many fields as a head may have, of different names."""
    _fields(address, count, "/headers", [f"{number:x}:1" for number in range(10_000)])


def equal_fields(address: Address, count: int) -> None:
    """The same field again and again."""
    _fields(address, count, "/headers", ["a:xy"] * 10_000)


def unread_fields(address: Address, count: int) -> None:
    """For a handler that does not look at them."""
    _fields(address, count, "/", [f"{number:x}:1" for number in range(10_000)])


def _fields(address: Address, count: int, target: str, lines: list[str]) -> None:
    fields, size = [], len(_head(target))
    for line in lines:
        if size + len(line) + 2 > HEAD_MAX:
            break
        fields.append(line)
        size += len(line) + 2
    head = _head(target, *fields)
    attacker = Attacker(address)
    for _ in range(count):
        attacker.send(head)
        attacker.read_answers(1)


def small_requests(address: Address, count: int) -> None:
    """Requests in one packet each, answers read: the yardstick."""
    attacker = Attacker(address)
    for _ in range(count):
        attacker.send(_head("/"))
        attacker.read_answers(1)


KINDS: dict[str, Callable[[Address, int], None]] = {
    function.__name__: function
    for function in (
        connect_and_close,
        connect_and_reset,
        ask_and_reset,
        head_bytewise,
        long_head_bytewise,
        body_bytewise,
        stream_bytewise,
        chunks_one_by_one,
        streamed_chunks_one_by_one,
        chunks_at_once,
        streamed_chunks_at_once,
        many_fields,
        equal_fields,
        unread_fields,
        small_requests,
    )
}


def main() -> None:
    kind, host, port, count = sys.argv[1:]
    began = time.process_time()
    KINDS[kind]((host, int(port)), int(count))
    print(json.dumps([Attacker.sends, Attacker.sent_bytes, time.process_time() - began]))


if __name__ == "__main__":
    main()
