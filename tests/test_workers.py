"""Worker processes: their start, their stop, their crashes, and how they share connections."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client import page, request
from tests.conftest import Start
from tests.server import Server, command, environment, wait_for

HELLO = page("hello world")
STOPS = [signal.SIGTERM, signal.SIGINT]


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_ready_line(start: Start, driver: str) -> None:
    one, two = start(), start("--workers", "2")
    host, port = one.address
    assert one.ready_line.endswith(f" serving on http://{host}:{port}/ (1 worker, {driver})")
    assert one.ready_line.startswith("theframework ")
    assert two.ready_line.endswith(f"/ (2 workers, {driver})")
    assert len(two.workers()) == 2


def test_workers_zero_is_one_per_core(start: Start) -> None:
    server = start("--workers", "0")
    assert len(server.workers()) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_stop_finishes_what_is_in_flight(
    start: Start, number: signal.Signals, workers: str
) -> None:
    server = start("--workers", workers)
    clients = [server.client() for _ in range(4)]
    for client in clients:
        client.send(request("GET", "/sleep/0.7"))
    time.sleep(0.2)
    server.signal(number)
    for client in clients:
        assert client.read().whole() == page("slept", connection="close")
        client.assert_closed()
        client.close()  # Or the server lingers.
    assert server.wait() == 0
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("number", STOPS)
def test_signal_to_the_whole_group(start: Start, number: signal.Signals) -> None:
    """Ctrl-C reaches supervisor and workers alike; that is one stop, and prints no traceback."""
    server = start("--workers", "2")
    with server.client() as client:
        client.send(request("GET", "/sleep/0.5"))
        time.sleep(0.2)
        os.killpg(server.pid, number)
        assert client.read().whole() == page("slept", connection="close")
    assert server.wait() == 0
    assert "Traceback" not in server.log()


def test_stop_closes_idle_connections(start: Start) -> None:
    server = start()
    with server.client() as client:
        assert client.get("/").whole() == HELLO
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        client.assert_closed(10)
        assert server.wait(10) == 0
        assert time.monotonic() - began < 8


def test_stop_refuses_new_connections(start: Start) -> None:
    server = start()
    with server.client() as client:
        client.send(request("GET", "/sleep/1"))
        time.sleep(0.1)
        server.signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
            server.client()
        assert client.read().status == 200
    assert server.wait() == 0


def test_stop_waits_no_longer_than_graceful_timeout(start: Start) -> None:
    server = start("--graceful-timeout", "0.5")
    with server.client() as client:
        client.send(request("GET", "/sleep/20"))
        time.sleep(0.1)
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert 0.4 < time.monotonic() - began < 4
    assert "cut off when graceful_timeout ended" in server.log()


def test_stop_kills_a_worker_that_computes_for_ever(start: Start) -> None:
    server = start("--graceful-timeout", "0.2")
    with server.client() as client:
        client.send(request("GET", "/spin/60"))
        time.sleep(0.2)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert "have not stopped in time" in server.log()


def test_second_interrupt_exits_at_once(start: Start) -> None:
    server = start("--workers", "2")
    workers = server.workers()
    with server.client() as client:
        client.send(request("GET", "/sleep/20"))
        time.sleep(0.1)
        server.signal(signal.SIGINT)
        time.sleep(0.5)
        assert server.process.poll() is None
        began = time.monotonic()
        server.signal(signal.SIGINT)
        assert server.wait() == 130
        assert time.monotonic() - began < 1
    assert "Traceback" not in server.log()
    assert all(is_gone(pid) for pid in workers)


def test_killed_worker_is_replaced_and_named(start: Start) -> None:
    server = start("--workers", "2")
    before = server.workers()
    time.sleep(1.1)
    kill(before[0])
    server.wait_for_log(f"worker {before[0]} ended: SIGKILL (out of memory?")
    wait_for(lambda: len(server.workers()) == 2, "the worker is replaced")
    after = server.workers()
    assert before[1] in after
    assert before[0] not in after
    pids = set()

    def both_answer() -> bool:
        pids.add(int(server.get("/pid").body))
        return pids == set(after)

    wait_for(both_answer, "the new worker serves")


def test_worker_that_exits_is_replaced(start: Start) -> None:
    server = start()
    (before,) = server.workers()
    with server.client() as client:
        client.send(request("GET", "/exit"))
        client.assert_closed()
    server.wait_for_log(f"worker {before} ended: exit status 7")
    wait_for(lambda: server.workers() not in ([], [before]), "the worker is replaced")
    assert server.get("/").whole() == HELLO
    server.settle()


def test_connections_wait_for_the_replacement(start: Start) -> None:
    """The supervisor holds the listener: a client that comes in between is served, late."""
    server = start()
    (before,) = server.workers()
    os.kill(server.pid, signal.SIGSTOP)  # it cannot replace the worker before it goes on
    try:
        kill(before)
        wait_for(lambda: is_gone(before), "the worker ends")
        client = server.client()
        client.send(request("GET", "/"))
        client.assert_open(0.2)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    with client:
        assert client.read().whole() == HELLO
    server.settle()


def test_restarts_slow_down(start: Start) -> None:
    server = start("--workers", "2")
    time.sleep(1.1)  # the other worker must be stable, or this counts as a crash loop
    began = time.monotonic()
    keeper = server.workers()[0]
    for _ in range(4):
        wait_for(lambda: len(server.workers()) == 2, "the worker is replaced", 10)
        (victim,) = set(server.workers()) - {keeper}
        kill(victim)
        wait_for(lambda pid=victim: pid not in server.workers(), "the worker is gone")
    wait_for(lambda: len(server.workers()) == 2, "the worker is replaced", 10)
    # At once after it was stable, at once after the first failure, then 0.1 s and 0.2 s.
    assert 0.3 <= time.monotonic() - began < 8
    assert server.get("/").whole() == HELLO


CRASHING_APP = """
import os
from theframework import Framework
app = Framework()
os._exit(3)
"""


def test_crash_loop_stops(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(CRASHING_APP)
    began = time.monotonic()
    done = subprocess.run(
        command("run", "crashing:app", "--port", "0"),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert (
        last
        == "theframework: error: workers keep failing: 5 in a row, the last one by exit status 3"
    )
    assert done.stderr.count("ended: exit status 3") == 5
    assert 0.7 < time.monotonic() - began < 15


CRASHING_LATER_APP = """
import os, threading
from theframework import Framework
app = Framework()
threading.Timer(0.2, os._exit, [4]).start()
"""


def test_workers_that_crash_soon_after_they_are_ready_are_a_crash_loop(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(CRASHING_LATER_APP)
    done = subprocess.run(
        command("run", "crashing:app", "--port", "0"),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    assert "workers keep failing: 5 in a row, the last one by exit status 4" in done.stderr


def test_workers_end_with_a_killed_supervisor(start: Start) -> None:
    server = start("--workers", "2")
    workers = server.workers()
    with server.client() as client:
        client.send(request("GET", "/sleep/0.5"))
        time.sleep(0.1)
        kill(server.pid)
        assert client.read().status == 200
    server.wait()
    wait_for(lambda: all(is_gone(pid) for pid in workers), "the workers end", 10)


def test_stop_while_the_application_loads(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(30)\n")
    process = subprocess.Popen(
        command("run", "slow:app", "--port", "0"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=5)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


@pytest.mark.pace
@pytest.mark.parametrize("options", [(), ("--reuse-port",)])
def test_connections_spread_over_workers(
    start: Start, options: tuple[str, ...], measured: Callable[[str], None]
) -> None:
    server = start("--workers", "2", "--log-level", "debug", *options)
    for pid in server.workers():
        server.wait_for_log(f"worker {pid} is ready")
    spreads = []
    for _ in range(5):
        clients = [server.client() for _ in range(64)]
        pids = Counter(int(client.get("/pid").body) for client in clients)
        spreads.append(max(pids.values()) / 64)
        for client in clients:
            client.close()
        time.sleep(0.1)
    listed = ", ".join(f"{spread:.0%}" for spread in spreads)
    measured(f"64 connections over 2 workers {' '.join(options)}: the busier has {listed}")
    if not options:  # with reuse_port the kernel's hash decides
        assert max(spreads) <= 0.6


def test_busy_worker_keeps_nobody_waiting(start: Start, measured: Callable[[str], None]) -> None:
    server = start("--workers", "2")
    with server.client() as spinner:
        spinner.send(request("GET", "/spin/2"))
        time.sleep(0.05)
        began = time.monotonic()
        times = []
        while time.monotonic() - began < 1.5:
            before = time.monotonic()
            assert server.get("/").whole() == HELLO
            times.append(time.monotonic() - before)
            time.sleep(0.01)
        assert spinner.read().whole() == page("spun")
    times.sort()
    measured(
        f"{len(times)} new connections beside a worker that spins: median "
        f"{times[len(times) // 2] * 1e3:.2f} ms, worst {times[-1] * 1e3:.2f} ms"
    )
    # Two busy processes and this client share the cores of a small machine: one may be unlucky.
    assert times[int(len(times) * 0.98)] < 0.02
    assert times[-1] < 0.1


@pytest.mark.usefixtures("driver")
def test_application_served_from_code(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from theframework import Framework\n"
        "app = Framework()\n"
        "@app.get('/')\n"
        "def index(request, response):\n"
        "    response.set_header('Content-Type', 'text/plain')\n"
        "    response.write('own')\n"
        "if __name__ == '__main__':\n"
        "    app.run(port=0, workers=2, log_level='warning')\n"
        "    print('after', flush=True)\n"
    )
    server = Server([sys.executable, "own.py"], tmp_path / "log", cwd=tmp_path)
    assert server.get("/").whole() == page("own")
    server.signal(signal.SIGINT)
    assert server.wait() == 0
    # What follows run() is done once, by the parent.
    assert server.rest_of_stdout == "after\n"
    assert server.log() == ""


@pytest.mark.usefixtures("driver")
def test_exit_functions_run_once_per_worker(tmp_path: Path) -> None:
    (tmp_path / "exits.py").write_text(
        "import atexit, os\n"
        "from theframework import Framework\n"
        "app = Framework()\n"
        "atexit.register(lambda: open(f'exit-{os.getpid()}', 'w').close())\n"
    )
    server = Server(
        command("run", "exits:app", "--port", "0", "--workers", "2", "--log-level", "debug"),
        tmp_path / "log",
        cwd=tmp_path,
    )
    workers = server.workers()
    for pid in workers:
        server.wait_for_log(f"worker {pid} is ready")
    server.stop()
    found = sorted(path.name for path in tmp_path.glob("exit-*"))
    assert found == sorted(f"exit-{pid}" for pid in workers)
