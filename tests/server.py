"""A server under test: a subprocess, started and stopped as a user would.

Its whole life is checked: it says in one line that it serves, its descriptors come back to where
they were when its connections are gone, and it ends by SIGTERM with status 0.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.client import Address, Answer, Client

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 10.0
STOP_SECONDS = 5.0
DRIVERS = ("io_uring", "poll")
# The descriptor by which each driver shows itself, whatever the server says.
_DRIVER_BY_LINK = {"anon_inode:[io_uring]": "io_uring", "anon_inode:[eventpoll]": "poll"}
FOR_SERVERS = "SERVER_ENV_"
# Counters of the core that are the same whenever it has nothing else to do.
_HELD = ("connections", "exchanges", "operations", "leases", "waits")
_URL = re.compile(r"http://(\[[0-9a-f:]+\]|[^:/ ]+):([0-9]+)/|unix:(\S+?)(?=,| and | \()")


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 5.0) -> None:
    """Wait until `condition` holds; it is asked every 5 ms."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def command(*arguments: str) -> list[str]:
    """The command line of this interpreter's theframework."""
    return [sys.executable, "-m", "theframework", *arguments]


# The driver that every server gets that is not told otherwise; set by the fixture `driver`.
default_driver: str | None = None


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings, so that tests do not depend on it.

    What is called SERVER_ENV_X here is X there: a sanitizer's runtime is for servers alone.
    """
    clean = {name: text for name, text in os.environ.items() if "THEFRAMEWORK" not in name}
    driver = {} if default_driver is None else {"THEFRAMEWORK_DRIVER": default_driver}
    theirs = {
        name.removeprefix(FOR_SERVERS): text
        for name, text in os.environ.items()
        if name.startswith(FOR_SERVERS)
    }
    return {**clean, "PYTHONUNBUFFERED": "1", **driver, **theirs, **(extra or {})}


def drivers_of(pid: int) -> set[str]:
    """The drivers that a process has, by its open descriptors."""
    links = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            links.add(os.readlink(entry))
        except FileNotFoundError:  # closed meanwhile
            continue
    return {_DRIVER_BY_LINK[link] for link in links & _DRIVER_BY_LINK.keys()}


class Server:
    """A running server. `address` is the first that it listens on."""

    def __init__(
        self,
        arguments: list[str],
        log_path: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        nofile: int | None = None,
        before_start: Callable[[], None] | None = None,
    ) -> None:
        self.log_path = log_path
        self.is_stopped = False
        self.rest_of_stdout = ""
        self._descriptors: dict[int, int] = {}
        self._counters: dict[str, int] = {}

        def confine() -> None:
            if nofile is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
            if before_start is not None:
                before_start()

        with open(log_path, "wb") as log:
            self.process = subprocess.Popen(
                arguments,
                cwd=cwd,
                env=environment(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                # A process group of its own, as in a terminal.
                start_new_session=True,
                preexec_fn=confine,
            )
        self.pid = self.process.pid
        try:
            self.ready_line = self._read_ready_line()
            self.addresses = [_address(match) for match in _URL.finditer(self.ready_line)]
            self.address = self.addresses[0]
            wait_for(lambda: len(self.workers()) == self.worker_count, "all workers run")
            self.assert_driver()
            if self.worker_count == 1:
                self.settle()
        except BaseException:
            # Nobody else knows of it yet.
            self.kill()
            raise

    @property
    def worker_count(self) -> int:
        return int(self._ready_words()[1])

    @property
    def driver(self) -> str:
        """The driver that the server says it has; `assert_driver` checks it."""
        return self._ready_words()[2]

    def _ready_words(self) -> re.Match[str]:
        found = re.search(r"\((\d+) workers?, (io_uring|poll)\)$", self.ready_line)
        assert found, self.ready_line
        return found

    def assert_driver(self) -> None:
        """Each worker has the descriptor of the driver that the ready line names, and no other."""
        for pid in self.workers():
            assert drivers_of(pid) == {self.driver}, self.ready_line

    def client(self, **options: float) -> Client:
        return Client(self.address, **options)  # type: ignore[arg-type]

    def get(self, target: str, *headers: str) -> Answer:
        """One request on a connection of its own."""
        with self.client() as client:
            return client.get(target, *headers)

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(word) for word in children.read_text().split()]

    def descriptors(self) -> dict[int, int]:
        """The number of open descriptors of each worker."""
        return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in self.workers()}

    def memory_kib(self) -> int:
        """Resident memory of the one worker, without what it shares with others."""
        text = Path(f"/proc/{self.workers()[0]}/smaps_rollup").read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines()[1:])
        return sum(int(fields[name].split()[0]) for name in ("Private_Dirty", "Private_Clean"))

    def log(self) -> str:
        return self.log_path.read_text()

    def wait_for_log(self, text: str, seconds: float = 5.0) -> None:
        wait_for(lambda: text in self.log(), f"{text!r} in the log:\n{self.log()}", seconds)

    def assert_unchanged(self) -> None:
        """It serves, and holds no descriptor more than before the first request."""
        assert self.process.poll() is None, f"the server ended:\n{self.log()}"
        if not self._descriptors:
            return
        wait_for(
            lambda: self.descriptors() == self._descriptors,
            f"descriptors {self.descriptors()} are again {self._descriptors}\n{self.log()}",
        )
        if self._counters:
            wait_for(
                lambda: self._held() == self._counters,
                f"held by the core: {self._held()}, at the start {self._counters}\n{self.log()}",
            )

    def settle(self) -> None:
        """Take what is held now as the right amount, after the application opened something."""
        self._counters = self._held()
        # Connections of a moment ago have to end first.
        readings = [self.descriptors()]
        while len(readings) < 4 or any(reading != readings[-1] for reading in readings[-4:]):
            assert len(readings) < 100, f"descriptors do not come to rest: {readings}"
            time.sleep(0.01)
            readings.append(self.descriptors())
        self._descriptors = readings[-1]

    def _held(self) -> dict[str, int]:
        """What the core holds at this moment, when the application has a way to tell."""
        answer = self.get("/stats")
        if answer.status != 200:
            return {}
        counters: dict[str, int] = json.loads(answer.body)
        held = {name: counters[name] for name in _HELD}
        # The worker that answers this is busy; another one has a handler that has not ended.
        held["workers_busy"] = counters["workers"] - counters["workers_idle"]
        return held

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for the end; return the exit status."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            workers = self.workers()
            self.kill()
            raise AssertionError(
                f"not ended within {seconds} s (workers {workers}):\n{self.log()}"
            ) from None
        self.is_stopped = True
        self._close_stdout()
        return status

    def _close_stdout(self) -> None:
        """Nothing but the one line may be on stdout, unless the application prints."""
        assert self.process.stdout is not None
        self.rest_of_stdout = self.process.stdout.read().decode()
        self.process.stdout.close()

    def kill(self) -> None:
        """End it at once, unchecked."""
        self.process.kill()
        self.process.wait()
        self.is_stopped = True
        self._close_stdout()

    def stop(self) -> None:
        """Stop it as a service manager would, and check its end."""
        if self.is_stopped:
            return
        try:
            self.assert_unchanged()
        finally:
            workers = self.workers()
            self.signal(signal.SIGTERM)
            status = self.wait()
        assert status == 0, f"exit status {status}:\n{self.log()}"
        assert self.rest_of_stdout == "", f"more than one line: {self.rest_of_stdout!r}"
        for pid in workers:
            assert not Path(f"/proc/{pid}").exists(), f"worker {pid} is left"

    def _read_ready_line(self) -> str:
        assert self.process.stdout is not None
        stdout = self.process.stdout.fileno()
        deadline = time.monotonic() + START_SECONDS
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            assert left > 0, f"not ready within {START_SECONDS} s:\n{self.log()}"
            if select.select([stdout], [], [], left)[0]:
                data = os.read(stdout, 4096)
                assert data, f"ended before it was ready:\n{self.log()}"
                line += data
        assert line.count(b"\n") == 1, f"more than one line on stdout: {line!r}"
        return line.decode().rstrip("\n")


def _address(match: re.Match[str]) -> Address:
    host, port, path = match.groups()
    if path is not None:
        return path
    return host.strip("[]"), int(port)
