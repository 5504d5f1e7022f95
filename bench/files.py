#!/usr/bin/env python3
"""Measure files as responses beside nginx: small and large ones, in one run (bench/README.md).

Each server is pinned to core 0 and wrk to core 1; they take turns, so that slow spells of the
machine fall on each of them. The figure to compare is the server's CPU time (user and system, of
the whole process tree) per request, its minimum over the rounds; foreign CPU above 0.10 of a core
is marked.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load import client_seconds, cpu_seconds, fetch, machine_seconds, micros, process_tree
from servers import Ports

HERE = Path(__file__).resolve().parent
SIZES = {"small": 4 << 10, "large": 16 << 20}
CONNECTIONS = {"small": 64, "large": 8}
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000000; sendfile {sendfile}; tcp_nopush {sendfile};
    types {{ application/octet-stream bin; }}
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{ listen 127.0.0.1:{port}; root {folder}; location /cached/ {{
        alias {folder}/; open_file_cache max=100; }} }}
}}
"""


@dataclass(frozen=True)
class Program:
    """One server: its command, and the path below which it has the files."""

    name: str
    command: str
    prefix: str = "/file/"
    sendfile: str = "on"


OURS = "{python} -m theframework run files_app:app --host 127.0.0.1 --port {port} --driver "
PROGRAMS = [
    Program("theframework", OURS + "io_uring"),
    Program("theframework-poll", OURS + "poll"),
    Program("nginx", "{nginx} -c {folder}/nginx.conf", "/"),
    Program("nginx-open_file_cache", "{nginx} -c {folder}/nginx.conf", "/cached/"),
    Program("nginx-sendfile-off", "{nginx} -c {folder}/nginx.conf", "/", "off"),
]


@contextlib.contextmanager
def running(program: Program, port: int) -> Iterator[int]:
    """The process id of a server that has the files."""
    folder = Path(tempfile.mkdtemp(prefix="bench-files-"))
    folder.chmod(0o755)
    for name, size in SIZES.items():
        (folder / f"{name}.bin").write_bytes(os.urandom(size))
    places = {"folder": folder, "port": port, "sendfile": program.sendfile}
    (folder / "nginx.conf").write_text(NGINX.format(**places))
    programs = {"python": sys.executable, "nginx": shutil.which("nginx") or "/usr/sbin/nginx"}
    line = ["taskset", "-c", "0", *shlex.split(program.command.format(**places, **programs))]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            line,
            cwd=HERE / "apps",
            env=dict(os.environ, PYTHONPATH=str(HERE / "apps"), FILES=str(folder)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        end = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError, ValueError):
                if all(
                    fetch(port, f"{program.prefix}{name}.bin").body
                    == (folder / f"{name}.bin").read_bytes()
                    for name in SIZES
                ):
                    break
            if time.monotonic() > end:
                raise RuntimeError(f"{program.name}: {(folder / 'log').read_text()[-400:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def measure(pid: int, url: str, connections: int, seconds: int) -> dict[str, Any]:
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", url]
    pids = process_tree(pid)
    server0, machine0, client0 = sum(cpu_seconds(pids)), machine_seconds(), client_seconds()
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30)
    wall = time.monotonic() - start
    server = sum(cpu_seconds(pids)) - server0
    machine, client = machine_seconds() - machine0, client_seconds() - client0
    total = re.search(r"(\d+) requests in ([\d.]+\w+)", done.stdout)
    if not total or not int(total[1]) or "Non-2xx" in done.stdout or "errors" in done.stdout:
        raise RuntimeError(f"wrk: {done.stdout} {done.stderr}")
    count = int(total[1])
    return {
        "rps": count / (micros(total[2]) / 1e6),
        "cpu_us": server / count * 1e6,
        "foreign": max(0.0, machine - server - client) / wall,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--port", type=int, default=22000)
    parser.add_argument("--servers", default=",".join(program.name for program in PROGRAMS))
    args = parser.parse_args()
    programs = [program for program in PROGRAMS if program.name in args.servers.split(",")]
    ports = Ports(args.port)
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with contextlib.ExitStack() as stack:
        started = []
        for program in programs:
            port = ports.take()
            started.append((program, port, stack.enter_context(running(program, port))))
        for _ in range(args.rounds):
            for size in SIZES:
                for program, port, pid in started:
                    url = f"http://127.0.0.1:{port}{program.prefix}{size}.bin"
                    run = measure(pid, url, CONNECTIONS[size], args.seconds)
                    runs.setdefault((size, program.name), []).append(run)
    for size, length in SIZES.items():
        print(f"\n{size}: {length:,} bytes, {CONNECTIONS[size]} connections")
        floor = min(run["cpu_us"] for run in runs[size, programs[-1].name])
        if (size, "nginx") in runs:
            floor = min(run["cpu_us"] for run in runs[size, "nginx"])
        for program in programs:
            mine = runs[size, program.name]
            cpu = min(run["cpu_us"] for run in mine)
            rps = max(run["rps"] for run in mine)
            spread = max(run["cpu_us"] for run in mine) / cpu
            foreign = max(run["foreign"] for run in mine)
            print(
                f"  {program.name:22} {cpu:10,.2f} µs CPU, {cpu / floor:5.2f} times nginx's,"
                f" {rps:10,.0f} requests/s, {rps * length / 2**20:8,.0f} MiB/s"
                f" (CPU spread {spread:.2f}{', foreign CPU!' if foreign > 0.1 else ''})"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
