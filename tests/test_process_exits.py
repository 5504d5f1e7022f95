"""Processes that end at an odd moment, or whose hub does: subprocesses, with their exit status.

They run beside each other. Python's allocator checks what it is given, and a crash prints where.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.client import Client, MalformedError, page
from tests.conftest import Start
from tests.server import ROOT, environment, wait_for

AT_ONCE = 4
SECONDS = 40.0
SIGNALS = [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1]
SEEDS = range(4)


@dataclass(frozen=True)
class Case:
    """One process: a scenario of tests/apps/exits.py, and how it must end."""

    scenario: str
    status: int = 0
    stderr: str = ""
    ends: bool = True
    extra: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return "-".join([self.scenario, *(value for _, value in self.extra)])


CASES = [
    Case("stop_with_a_thousand_waiting"),
    Case("drain_with_a_thousand_waiting"),
    Case("stop_with_greenlets_of_handlers_waiting"),
    Case("stop_with_finally_blocks_that_wait"),
    Case("stop_with_handlers_that_do_not_end"),
    Case("drain_that_ends_too_early"),
    Case("stop_in_a_finaliser"),
    Case("serve_again_and_again"),
    Case("exit_with_objects_kept"),
    Case("exit_handlers_that_call_the_core"),
    Case("exit_with_stubborn_greenlets", 5, ends=False),
    Case("exit_by_an_exception", 1, "LookupError: the script's own end", ends=False),
    Case("exit_in_a_handler", 7, ends=False),
    Case("exit_while_a_daemon_thread_serves"),
    Case("exit_while_a_daemon_thread_waits", 5, ends=False),
    Case("exit_while_threads_use_requests"),
    Case("interrupted"),
    Case("exit_out_of_a_greenlet", 5, ends=False),
    Case("child_starts_a_hub_of_its_own"),
    Case("fork_beside_a_hub_in_a_thread"),
    Case("switch_into_what_the_hub_has_left"),
    *(
        Case("exit_while_a_daemon_thread_serves_at_random", extra=(("SEED", str(seed)),))
        for seed in SEEDS
    ),
    *(
        Case(
            "killed_at_random",
            -number,
            ends=False,
            extra=(("SEED", str(seed)), ("KILLED_BY", str(int(number)))),
        )
        for number in SIGNALS
        for seed in SEEDS[:2]
    ),
]


def run(case: Case, driver: str) -> subprocess.CompletedProcess[str]:
    checks = {"PYTHONMALLOC": "debug", "PYTHONFAULTHANDLER": "1", "DRIVER": driver}
    return subprocess.run(
        [sys.executable, "-m", "tests.apps.exits", case.scenario],
        cwd=ROOT,
        env=environment({**checks, **dict(case.extra)}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        # Where the tests themselves run in the background, it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, driver: str
) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """The processes of all cases that were chosen, on one driver, some at a time."""
    parameters = [
        item.callspec.params
        for item in request.session.items
        if item.fspath == request.fspath and hasattr(item, "callspec")
    ]
    chosen = [its["case"] for its in parameters if "case" in its and its["driver"] == driver]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {str(case): pool.submit(run, case, driver) for case in chosen}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_process_ends_as_it_should(
    runs: dict[str, Future[subprocess.CompletedProcess[str]]], case: Case
) -> None:
    done = runs[str(case)].result()
    report = f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == case.status, report
    assert (f"{case.scenario} came to its end" in done.stdout) == case.ends, report
    for trouble in ("Fatal Python error", "panicked", "Segmentation", "did not kill"):
        assert trouble not in done.stderr, report
    assert case.stderr in done.stderr, report
    if not case.stderr and case.scenario != "stop_in_a_finaliser":
        assert "Traceback" not in done.stderr, report


def test_workers_that_are_killed_at_random_moments(start: Start) -> None:
    """SIGKILL and SIGTERM for workers under load: an answer is right, or there is none."""
    server = start("--workers", "2", app="tests.apps.exits:app")
    chance = random.Random(5)
    is_over = threading.Event()
    answered = [0] * 4
    failures: list[BaseException] = []

    def work(number: int) -> None:
        while not is_over.is_set():
            try:
                with Client(server.address, timeout=10) as client:
                    for target, expected in (("/", "hello world"), ("/sleep/0.003", "slept")) * 5:
                        answer = client.get(target)
                        closes = {"connection": "close"} if answer.header("Connection") else {}
                        assert answer.whole() == page(expected, **closes)
                        answered[number] += 1
                        if closes:
                            break
            except (OSError, MalformedError) as error:
                # Cut off before its first byte, or nobody listens: never half an answer.
                if isinstance(error, MalformedError) and "after b''" not in str(error):
                    failures.append(error)
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(8):
            time.sleep(chance.uniform(0.05, 0.25))
            workers = server.workers()
            if workers:
                number = signal.SIGKILL if turn % 2 else signal.SIGTERM
                os.kill(chance.choice(workers), number)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert not failures, failures[0]
    assert all(count > 20 for count in answered), answered
    wait_for(lambda: len(server.workers()) == 2, "both workers run again", 10)
    assert "Fatal Python error" not in server.log()
    assert server.get("/").whole() == page("hello world")
    # Descriptors of workers that are new are counted anew.
    server._descriptors = {}
