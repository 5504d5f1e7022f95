"""The load and the accounting: checks, wrk runs, idle connections, CPU and memory of processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

LUA = Path(__file__).resolve().parent / "lua"
TICK = os.sysconf("SC_CLK_TCK")
ITEMS = "/items?page=7&sort=name&limit=50"
MIB = 1 << 20

Run = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """What one letter means."""

    title: str
    path: str = "/hello"
    connections: int = 64
    script: tuple[str, ...] = ()
    times: int = 1  # length of a run, in multiples of --seconds


WORKLOADS = {
    "a": Workload("GET hello, 64 connections"),
    "b": Workload("GET hello, pipelined by 16", script=("pipeline.lua",)),
    "c": Workload("POST of 1 MiB, 16 connections", "/upload", 16, ("upload.lua",)),
    "d": Workload("GET with 20 headers, JSON answer, 64 connections", ITEMS, 64, ("browser.lua",)),
    "e": Workload("handlers that sleep 50 ms, 1,000 connections", "/sleep", 1000, times=2),
    "f": Workload("memory of an idle connection", connections=5000),
    "g": Workload("GET hello, 2,000 connections", connections=2000),
    "v": Workload("every request differs", "/vary/1", 64, ("vary.lua", "differ")),
    "w": Workload("the same request each time", "/vary/1", 64, ("vary.lua", "same")),
}


def heading(letter: str) -> str:
    title = WORKLOADS[letter].title
    return title[0].upper() + title[1:]


# ------------------------------------------------------------------ processes


def process_tree(pid: int) -> list[int]:
    """A process and all its descendants: the workers of a supervisor are the server too."""
    found = [pid]
    for p in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{p}/task"):
                children = Path(f"/proc/{p}/task/{task}/children").read_text()
                found += [int(child) for child in children.split()]
    return found


def cpu_seconds(pids: list[int]) -> tuple[float, float]:
    """User and system time of these processes, all their threads included."""
    user = system = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            user, system = user + int(fields[11]), system + int(fields[12])
    return user / TICK, system / TICK


def machine_seconds() -> float:
    """CPU time of all processes of this machine (user, nice and system)."""
    with open("/proc/stat") as f:
        fields = f.readline().split()
    return sum(int(x) for x in fields[1:4]) / TICK


def client_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def resident(pids: list[int]) -> int:
    """Resident bytes, exact (the counters of /proc/PID/stat lag behind by some pages)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            if match := re.search(r"^Rss:\s+(\d+) kB", text, re.M):
                total += int(match[1]) * 1024
    return total


# ------------------------------------------------------------------ a small client


class Answer(NamedTuple):
    status: int
    head: str  # lower case
    body: bytes
    rest: bytes  # what came after it


def connect(port: int, timeout: float = 5) -> socket.socket:
    s = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def read_answer(s: socket.socket, data: bytes = b"") -> Answer:
    """One response with a Content-Length; OSError when the server closes before its end."""

    def more() -> bytes:
        got = s.recv(65536)
        if not got:
            raise ConnectionResetError(f"closed early, after {data[:80]!r}")
        return got

    while b"\r\n\r\n" not in data:
        data += more()
    raw, _, data = data.partition(b"\r\n\r\n")
    head = raw.decode("latin1").lower()
    match = re.search(r"\r\ncontent-length: *(\d+)", head)
    if not match:
        raise ValueError(f"no Content-Length in {head!r}")
    size = int(match[1])
    while len(data) < size:
        data += more()
    return Answer(int(head.split(" ", 2)[1]), head, data[:size], data[size:])


def request(method: str, path: str, headers: tuple[str, ...] = (), body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def fetch(port: int, path: str, *headers: str) -> Answer:
    with connect(port) as s:
        s.sendall(request("GET", path, headers))
        return read_answer(s)


# ------------------------------------------------------------------ checks


def expect(answer: Answer, body: bytes, kind: str = "text/plain") -> None:
    right = answer.status == 200 and answer.body == body
    if not right or f"content-type: {kind}" not in answer.head:
        raise ValueError(f"{answer.status} {answer.body[:60]!r} {answer.head!r}")


def upload(port: int, path: str) -> None:
    """1 MiB twice on one connection; its length is to be answered."""
    with connect(port, 10) as s:
        for _ in range(2):
            head = request("POST", path, (f"Content-Length: {MIB}",))
            s.sendall(head + b"0123456789abcdef" * (MIB // 16))
            expect(read_answer(s), str(MIB).encode())


def what_fails(tests: dict[str, Callable[[], None]], workloads: str) -> dict[str, str]:
    """Run the tests of these workloads.  Returns {workload: what is wrong}."""
    wrong = {}
    for letter, test in tests.items():
        if letter in workloads:
            try:
                test()
            except (OSError, ValueError, KeyError) as e:
                wrong[letter] = f"{type(e).__name__}: {e}"[:300]
    return wrong


def check(port: int, kind: str, workloads: str) -> dict[str, str]:
    """Does it answer as the workloads need it to?  Returns {workload: what is wrong}.

    A floor program sends one fixed answer, nginx constants: of them less is asked.
    """
    python = kind in ("ours", "peer")

    def hello() -> None:
        expect(fetch(port, "/hello"), b"hello world")

    def pipelined() -> None:  # 16 requests in one write: all answered, in order
        paths = [f"/items?page={i}" if python else "/hello" for i in range(16)]
        with connect(port) as s:
            s.sendall(b"".join(request("GET", p) for p in paths))
            rest = b""
            for i in range(16):
                answer = read_answer(s, rest)
                rest = answer.rest
                if answer.status != 200 or (python and json.loads(answer.body)["page"] != str(i)):
                    raise ValueError(f"answer {i} is {answer.status} {answer.body[:60]!r}")

    def items() -> None:
        answer = fetch(
            port,
            ITEMS,
            "User-Agent: Mozilla/5.0 (X11; Linux)",
            "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
        )
        want = {
            "page": "7",
            "agent": "Mozilla/5.0 (X11",
            "lang": "en-GB,en;q=0.9,d",
            "items": [1, 2, 3],
        }
        if answer.status != 200 or (kind != "floor" and json.loads(answer.body) != want):
            raise ValueError(f"{answer.status} {answer.body[:120]!r}")

    def sleeping() -> None:
        start = time.monotonic()
        answer = fetch(port, "/sleep")
        took = time.monotonic() - start
        if (answer.status, answer.body) != (200, b"slept") or took < 0.049:
            raise ValueError(f"{answer.status} {answer.body[:60]!r} after {took:.3f} s")

    def vary() -> None:
        answer = fetch(port, "/vary/7?page=2&q=8", "X-Vary: 9")
        if answer.status != 200 or (python and answer.body != b"7 8 9"):
            raise ValueError(f"{answer.status} {answer.body[:60]!r}")

    tests = {"a": hello, "b": pipelined, "c": lambda: upload(port, "/upload"), "d": items}
    tests |= {"e": sleeping, "f": hello, "g": hello, "v": vary, "w": vary}
    return what_fails(tests, workloads)


# ------------------------------------------------------------------ measuring


class ServerGoneError(Exception):
    """wrk got no answers, or the server ended."""


def micros(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)(us|ms|s|m|h)", text)
    if not match:
        raise ValueError(f"not a time: {text!r}")
    return float(match[1]) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7, "h": 3.6e9}[match[2]]


def measure(pid: int, port: int, letter: str, seconds: int, cpu: str) -> Run:
    """One wrk run of a workload of `WORKLOADS`."""
    return drive(pid, port, WORKLOADS[letter], seconds, cpu)


def drive(pid: int, port: int, load: Workload, seconds: int, cpu: str, nice: int = 0) -> Run:
    """One wrk run against a server.  Times in microseconds, CPU in microseconds per request."""
    command = (["taskset", "-c", cpu] if cpu else []) + (["nice", f"-n{nice}"] if nice else [])
    command += ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", "--latency"]
    command += ["--timeout", "20s"]
    if load.script:
        command += ["-s", str(LUA / load.script[0])]
    command += [f"http://127.0.0.1:{port}{load.path}"]
    if load.script[1:]:
        command += ["--", *load.script[1:]]

    pids = process_tree(pid)
    user0, system0 = cpu_seconds(pids)
    machine0, client0, start = machine_seconds(), client_seconds(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    user1, system1 = cpu_seconds(pids)
    machine1, client1 = machine_seconds(), client_seconds()
    wall = time.monotonic() - start

    out = done.stdout
    total = re.search(r"(\d+) requests in ([\d.]+\w+)", out)
    if not total or not int(total[1]):
        complaint = (done.stderr.strip() or "0 requests answered").splitlines()[-1]
        raise ServerGoneError(f"wrk: {complaint[-200:]}")
    count = int(total[1])
    user, system, client = user1 - user0, system1 - system0, client1 - client0

    def percentile(p: int) -> float | None:
        match = re.search(rf"^\s+{p}%\s+(\S+)", out, re.M)
        return micros(match[1]) or None if match else None  # wrk prints 0 for some pipelined runs

    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    return {
        "requests": count,
        "rps": count / (micros(total[2]) / 1e6),
        "p50_us": percentile(50),
        "p99_us": percentile(99),
        "cpu_us": (user + system) / count * 1e6,
        "user_us": user / count * 1e6,
        "server_cpu": (user + system) / wall,
        "client_cpu": client / wall,
        "foreign_cpu": max(0.0, machine1 - machine0 - user - system - client) / wall,
        "non2xx": int(bad[1]) if bad else 0,
        "errors": sum(map(int, errors.groups())) if errors else 0,
        "process_lost": not set(pids) <= set(process_tree(pid)),
    }


def measure_idle(pid: int, port: int, count: int) -> Run:
    """Growth of resident memory by idle keep-alive connections, each after one request."""
    hello = request("GET", "/hello")

    def ask(s: socket.socket) -> bool:
        s.sendall(hello)
        return read_answer(s).body == b"hello world"

    # What the first requests allocate is not the connections'.
    with connect(port) as s, contextlib.suppress(OSError):
        for _ in range(300):
            ask(s)
    pids = process_tree(pid)
    held: list[socket.socket] = []
    failed = 0
    try:
        time.sleep(0.3)
        before = resident(pids)
        for _ in range(count):
            try:
                s = connect(port, 3)
                held.append(s)
                failed += not ask(s)
            except (OSError, ValueError):
                failed += 1
                if failed > 20:
                    break
        time.sleep(0.7)
        after = resident(pids)
        alive = 0
        for s in held:
            s.setblocking(False)
            try:
                s.recv(1)
            except BlockingIOError:
                alive += 1
            except OSError:
                pass
    finally:
        for s in held:
            s.close()
    return {
        "asked": count,
        "alive": alive,
        "failed": failed,
        "rss_before": before,
        "rss_after": after,
        "bytes_per_connection": (after - before) / alive if alive else None,
        "process_lost": not set(pids) <= set(process_tree(pid)),
    }
