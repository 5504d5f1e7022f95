"""The table of measured servers, and how one of them is started and stopped."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from load import fetch, process_tree

HERE = Path(__file__).resolve().parent
APPS = HERE / "apps"
BUILD = HERE / "build"
VENV = HERE / ".venv"

OURS = "theframework"

GRANIAN = (
    "{venv}/granian --port {port} --workers 1 --runtime-threads 1 --http 1 --no-ws"
    " --log-level error --backlog 16384 --backpressure 16384 "
)
GUNICORN = (
    "{venv}/gunicorn --bind 127.0.0.1:{port} --workers 1 --backlog 4096 --log-level error"
    " --no-control-socket --keep-alive 75 -k gevent --worker-connections 10000 wsgi_app:app"
)
UVICORN = (
    "{venv}/uvicorn --port {port} --no-access-log --log-level error --timeout-keep-alive 75"
    " --backlog 4096 --loop uvloop --http httptools asgi_app:app"
)


@dataclass(frozen=True)
class Spec:
    """One server: how it is started, what it needs, and which workloads make sense for it."""

    name: str
    kind: str  # "ours", "peer", "reference" (no Python), "floor" (no HTTP either)
    command: str  # {ours} {venv} {build} {nginx} folders or programs, {port}, {tmp}
    needs: str  # a component of setup_peers.py
    workloads: str = "abcdefg"
    idle_options: str = ""  # appended for workload f only
    note: str = ""
    conf: str = ""  # a template, filled in as {tmp}/server.conf: its path in bench/


SERVERS = [
    Spec(
        OURS,
        "ours",
        "{ours} run framework_app:app --host 127.0.0.1 --port {port}",
        "theframework",
        "abcdefgvw",
        idle_options=" --max-connections 8192",
        note="default settings: one worker under its supervisor",
    ),
    Spec(
        OURS + "-poll",
        "reference",
        "{ours} run framework_app:app --host 127.0.0.1 --port {port} --driver poll",
        "theframework",
        "abcdeg",
        note="the same on epoll, as where io_uring is blocked",
    ),
    Spec("granian-wsgi", "peer", GRANIAN + "--interface wsgi --blocking-threads 1 wsgi_app:app",
         "granian", "abcdfg", note="not in e: one blocking thread sleeps one request at a time"),
    Spec("granian-rsgi", "peer", GRANIAN + "--interface rsgi --loop uvloop rsgi_app:app",
         "granian", "ade"),
    Spec("gunicorn-gevent", "peer", GUNICORN, "gunicorn"),
    Spec("uvicorn", "peer", UVICORN, "uvicorn"),
    Spec("fastpysgi", "peer", "{venv}/python serve.py fastpysgi {port}", "fastpysgi", "abcdfg",
         note="not in e: it sleeps one request at a time"),
    Spec("fastpysgi-nodelay", "peer", "{venv}/python serve.py fastpysgi-nodelay {port}",
         "fastpysgi", "abcdg", note="with TCP_NODELAY, which is off by default"),
    Spec("bjoern", "peer", "{venv}/python serve.py bjoern {port}", "bjoern", "abcdfg",
         note="not in e: it sleeps one request at a time"),
    Spec("socketify", "peer", "{venv}/python socketify_app.py {port}", "socketify", "abdefg",
         note="not in c: it aborts under concurrent 1 MiB bodies"),
    Spec("nginx", "reference", "{nginx} -c {tmp}/server.conf", "nginx", "abdfg",
         note="constant answers, no Python", conf="apps/nginx.conf.in"),
    Spec("floor-uring", "floor", "{build}/uring_limit --bufs=256 --bufsz=16384 {port}",
         "floor-uring", "abcdfgvw"),
    Spec("floor-uring-poll", "floor", "{build}/uring_limit --recv=poll --bufsz=65536 {port}",
         "floor-uring", "abcdfgvw"),
    Spec("floor-epoll", "floor", "{build}/epoll_limit {port}", "floor-epoll", "abcdfgvw"),
]  # fmt: skip


def added(text: str) -> Spec:
    """`--add NAME=COMMAND`: a further server, which the checks admit to the workloads it can do."""
    name, _, command = text.partition("=")
    return Spec(name, "ours" if name.startswith("ours") else "peer", command, "", "abcdefgvw")


class StartError(Exception):
    """A server did not come up."""


class Ports:
    """A fresh port for each start: a killed io_uring server may hold its old one for a moment."""

    def __init__(self, first: int) -> None:
        self.next = first

    def take(self) -> int:
        while True:
            port, self.next = self.next, self.next + 1
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError):
                    s.bind(("127.0.0.1", port))
                    return port


class Server:
    """A running server, pinned to its core."""

    def __init__(
        self,
        spec: Spec,
        places: dict[str, str],
        port: int,
        cpu: str,
        nice: int,
        idle: bool = False,
        env: dict[str, str] | None = None,
    ) -> None:
        if idle:
            spec = replace(spec, command=spec.command + spec.idle_options)
        self.spec, self.port, self.stopped = spec, port, False
        self.tmp = Path(tempfile.mkdtemp(prefix="bench-"))
        if spec.conf:
            conf = (HERE / spec.conf).read_text()
            for word, value in (("@PORT@", port), ("@DIR@", self.tmp), ("@BENCH@", HERE)):
                conf = conf.replace(word, str(value))
            (self.tmp / "server.conf").write_text(conf)
        line = spec.command.format(port=port, tmp=self.tmp, **places)
        prefix = (["taskset", "-c", cpu] if cpu else []) + (["nice", f"-n{nice}"] if nice else [])
        self.log = self.tmp / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                prefix + shlex.split(line),
                cwd=APPS,
                env={
                    **os.environ,
                    "PYTHONPATH": str(APPS),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    **(env or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self.process.pid
        if nice:
            # Each session has its own autogroup, and a nice level counts only inside one.
            with contextlib.suppress(OSError):
                Path(f"/proc/{self.pid}/autogroup").write_text(str(nice))
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    def wait_ready(self, seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                if fetch(self.port, "/hello").body == b"hello world":
                    return
            time.sleep(0.05)
        raise StartError(self.last_words() or "no answer to GET /hello")

    def alive(self) -> bool:
        return self.process.poll() is None

    def last_words(self) -> str:
        """The end of the server's log, or nothing once it was stopped."""
        with contextlib.suppress(OSError):
            return self.log.read_bytes()[-400:].decode(errors="replace").strip()
        return ""

    def stop(self) -> None:
        """End it and all that it started; once, as its numbers may be another's later."""
        if self.stopped:
            return
        self.stopped = True
        children = process_tree(self.pid)[1:] if self.alive() else []
        for sig, wait in ((signal.SIGTERM, 4), (signal.SIGINT, 2), (signal.SIGKILL, 2)):
            if self.process.poll() is None:
                self.process.send_signal(sig)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(wait)
        for pid in children:  # those that outlived their parent
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # a group of its own; usually empty by now
        shutil.rmtree(self.tmp, ignore_errors=True)


@contextlib.contextmanager
def running(
    spec: Spec,
    places: dict[str, str],
    port: int,
    cpu: str,
    nice: int,
    idle: bool = False,
    env: dict[str, str] | None = None,
) -> Iterator[Server]:
    """A server for the length of a with block."""
    server = Server(spec, places, port, cpu, nice, idle, env)
    try:
        yield server
    finally:
        server.stop()
