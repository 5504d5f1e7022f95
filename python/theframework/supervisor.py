"""The parent process: starts workers, replaces those that end, and stops them all.

States: *starting* (not every worker was ready yet), *serving*, *stopping*. In *starting* an
application that cannot be loaded ends everything with its one sentence; in *serving* it is one
more failed worker. A worker that ends is replaced, as `restarts` says; when it keeps failing and
no other worker is stable, the server gives up. *stopping* begins with the first SIGTERM or
SIGINT: the listeners close, workers get SIGTERM, and those left after ``graceful_timeout`` and a
margin get SIGKILL. A second signal kills at once.

It waits in one `poll` for signals, for the workers' reports and for their ends (pidfds); it
shares no lock with workers, so a killed one cannot block it.
"""

from __future__ import annotations

import atexit
import mmap
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from theframework import signals, worker
from theframework.errors import StartError
from theframework.listeners import Listener
from theframework.log import logger
from theframework.report import ReportReader, ReportWriter
from theframework.restarts import STABLE_SECONDS, Restarts
from theframework.settings import Settings

if TYPE_CHECKING:
    from theframework.app import Framework

# A worker may use all of graceful_timeout; then it needs a moment to end its handlers and itself.
STOP_MARGIN_SECONDS = 2.0
# One stop may arrive twice (`timeout` signals the process and then its group).
_SAME_SIGNAL_SECONDS = 0.2
# Bytes of shared memory per worker: a cache line, so that writers do not disturb each other.
SHARED_SLOT_BYTES = 64
# What a slot holds while no worker fills it, so that nobody leaves connections to one.
_SLOT_ABSENT = bytes(SHARED_SLOT_BYTES)


class Slot:
    """The place of one worker, and the process that fills it now."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.restarts = Restarts()
        self.pid = 0
        self.pidfd = -1
        self.report: ReportReader | None = None
        self.ready_at: float | None = None
        self.restart_at: float | None = None

    @property
    def is_running(self) -> bool:
        return self.pidfd >= 0

    def is_stable(self, now: float) -> bool:
        """Whether its worker has served long enough to be trusted."""
        return self.ready_at is not None and now - self.ready_at >= STABLE_SECONDS

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the worker, if it still runs."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        """Give up this process's descriptors of the worker."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
        if self.report is not None:
            self.report.close()
        self.pidfd, self.report, self.ready_at = -1, None, None


class Supervisor:
    """Runs the workers of one server until it is told to stop."""

    def __init__(
        self,
        load: Callable[[], Framework],
        settings: Settings,
        listeners: list[Listener],
        announce: Callable[[], None],
    ) -> None:
        self._load = load
        self._settings = settings
        self._listeners = listeners
        self._announce = announce
        self._slots = [Slot(index) for index in range(settings.worker_count())]
        shared_bytes = SHARED_SLOT_BYTES * len(self._slots)
        self._shared = mmap.mmap(-1, shared_bytes)
        self._pipe = signals.SignalPipe(signal.SIGTERM, signal.SIGINT)
        self._is_announced = False
        self._failure: StartError | None = None
        self._stop_signal: tuple[signal.Signals, float] | None = None
        self._kill_at: float | None = None
        self._exit_status = 0

    def run(self) -> int:
        """Serve until stopped; return the exit status. Raises `StartError` for a failed start."""
        with self._pipe:
            try:
                for slot in self._slots:
                    self._start(slot)
                while self._has_work():
                    self._turn()
            finally:
                self._end_all()
        if self._failure is not None:
            raise self._failure
        return self._exit_status

    def _has_work(self) -> bool:
        if self._kill_at is None:
            return True
        return any(slot.is_running for slot in self._slots)

    def _turn(self) -> None:
        """Wait for the next thing to happen, and deal with all that has happened."""
        poll = select.poll()
        poll.register(self._pipe.fd, select.POLLIN)
        for slot in self._slots:
            if slot.is_running:
                poll.register(slot.pidfd, select.POLLIN)
            if slot.report is not None and slot.report.fd >= 0:
                poll.register(slot.report.fd, select.POLLIN)
        happened = {fd for fd, _ in poll.poll(self._wait_ms())}
        for slot in self._slots:
            if slot.report is not None and slot.report.fd in happened:
                self._on_report(slot)
            if slot.pidfd in happened:
                self._on_end(slot)
        if self._pipe.fd in happened:
            for number in self._pipe.read():
                self._on_signal(number)
        self._on_time()

    def _wait_ms(self) -> float | None:
        times = [slot.restart_at for slot in self._slots if slot.restart_at is not None]
        if self._kill_at is not None:
            times.append(self._kill_at)
        if not times:
            return None
        # One more millisecond: poll rounds down, and would spin through the last one.
        return max(0.0, min(times) - time.monotonic()) * 1000 + 1

    # Starting and ending one worker

    def _start(self, slot: Slot) -> None:
        slot.restart_at = None
        self._mark_absent(slot)
        read_end, write_end = os.pipe()
        # Buffered text would be written by both processes.
        sys.stdout.flush()
        sys.stderr.flush()
        # The child must not put signals meant for itself on the parent's pipe.
        mask = signals.block(worker.STOP_SIGNALS)
        try:
            parent_pid = os.getpid()
            pid = os.fork()
            if pid == 0:
                os.close(read_end)
                self._become_worker(slot, write_end, parent_pid)
        except OSError as error:
            os.close(read_end)
            self._on_failed_start(slot, StartError(f"cannot start a worker: {error.strerror}"))
            return
        finally:
            os.close(write_end)
            signals.restore(mask)
        slot.pid = pid
        slot.pidfd = os.pidfd_open(pid)
        slot.report = ReportReader(read_end)

    def _become_worker(self, slot: Slot, write_end: int, parent_pid: int) -> NoReturn:
        """In the child: leave everything of the parent's behind and never return to it."""
        status = 1
        try:
            # What was registered before the fork is the parent's to run.
            atexit._clear()
            self._pipe.forget_in_child()
            for other in self._slots:
                other.close()
            post = worker.Post(
                load=self._load,
                settings=self._settings,
                index=slot.index,
                listeners=self._listeners_of(slot),
                shared=memoryview(self._shared),
                report=ReportWriter(write_end),
                supervisor_pid=parent_pid,
            )
            status = worker.run(post)
            atexit._run_exitfuncs()
        except SystemExit as end:  # of a child that a handler has forked
            status = _status_of(end)
        except BaseException:
            traceback.print_exc()
        finally:
            _flush_streams()
            os._exit(status)

    def _listeners_of(self, slot: Slot) -> list[int]:
        """In the child: the descriptors to accept from; those of other workers are closed."""
        mine = [listener.socket_of(slot.index) for listener in self._listeners]
        for listener in self._listeners:
            for sock in listener.sockets:
                if sock not in mine:
                    sock.close()
        # The core owns them from here on: Python must not close them a second time.
        return [sock.detach() for sock in mine]

    def _on_report(self, slot: Slot) -> None:
        report = slot.report
        if report is None:
            return
        report.read()
        if report.is_ready and slot.ready_at is None:
            slot.ready_at = time.monotonic()
            logger.debug("worker %d is ready", slot.pid)
            are_ready = all(other.ready_at is not None for other in self._slots)
            if are_ready and not self._is_announced and self._kill_at is None:
                # Not before: who connects at this line finds every worker accepting.
                self._is_announced = True
                self._announce()

    def _on_end(self, slot: Slot) -> None:
        self._on_report(slot)
        _, wait_status = os.waitpid(slot.pid, 0)
        error = slot.report.error if slot.report is not None else None
        served = None if slot.ready_at is None else time.monotonic() - slot.ready_at
        slot.close()
        self._mark_absent(slot)
        if self._kill_at is not None:
            self._log_end_while_stopping(slot, wait_status)
            return
        if error is not None:
            self._on_failed_start(slot, error)
            return
        reason = _reason(wait_status)
        logger.error("worker %d ended: %s", slot.pid, reason)
        self._plan_restart(slot, served, reason)

    def _on_failed_start(self, slot: Slot, error: StartError) -> None:
        if not self._is_announced:
            self._give_up(error)
            return
        logger.error("a worker could not start: %s", error)
        if error.details:
            logger.debug("%s", error.details)
        self._plan_restart(slot, None, str(error))

    def _plan_restart(self, slot: Slot, served: float | None, reason: str) -> None:
        now = time.monotonic()
        pause = slot.restarts.pause_after(served)
        if slot.restarts.is_looping and not any(other.is_stable(now) for other in self._slots):
            count = slot.restarts.failures
            self._give_up(
                StartError(f"workers keep failing: {count} in a row, the last one by {reason}")
            )
            return
        slot.restart_at = now + pause

    def _mark_absent(self, slot: Slot) -> None:
        start = SHARED_SLOT_BYTES * slot.index
        self._shared[start : start + SHARED_SLOT_BYTES] = _SLOT_ABSENT

    def _on_time(self) -> None:
        now = time.monotonic()
        if self._kill_at is not None:
            if now >= self._kill_at:
                late = [slot.pid for slot in self._slots if slot.is_running]
                logger.warning("workers %s have not stopped in time and are killed", late)
                self._kill_workers()
            return
        for slot in self._slots:
            if slot.restart_at is not None and slot.restart_at <= now:
                self._start(slot)
                if slot.is_running:
                    logger.info("worker %d replaces it", slot.pid)

    # Stopping

    def _on_signal(self, number: signal.Signals) -> None:
        now = time.monotonic()
        if self._stop_signal is None:
            self._stop_signal = (number, now)
            logger.info("%s: stopping", number.name)
            self._stop(self._settings.graceful_timeout)
            return
        first, first_at = self._stop_signal
        if number == first and now - first_at < _SAME_SIGNAL_SECONDS:
            return
        logger.warning("%s: stopping at once", number.name)
        self._exit_status = 128 + number
        self._kill_workers()

    def _give_up(self, failure: StartError) -> None:
        """Stop because workers cannot start; the first failure is the one that is told."""
        if self._failure is None:
            self._failure = failure
            self._stop(self._settings.graceful_timeout)

    def _stop(self, timeout: float) -> None:
        if self._kill_at is not None:
            return
        self._kill_at = time.monotonic() + timeout + STOP_MARGIN_SECONDS
        for listener in self._listeners:
            listener.close()
            listener.remove_file()
        for slot in self._slots:
            slot.restart_at = None
            if slot.is_running:
                slot.send(signal.SIGTERM)

    def _kill_workers(self) -> None:
        for slot in self._slots:
            if slot.is_running:
                slot.send(signal.SIGKILL)
        # Their ends come as events; this only keeps the wait from waking up again and again.
        self._kill_at = time.monotonic() + STOP_MARGIN_SECONDS

    def _log_end_while_stopping(self, slot: Slot, wait_status: int) -> None:
        # After a failed start only its one sentence is told.
        if self._failure is None and wait_status not in (0, signal.SIGKILL):
            logger.warning("worker %d ended: %s", slot.pid, _reason(wait_status))

    def _end_all(self) -> None:
        """Whatever happened, leave no process behind."""
        for slot in self._slots:
            if slot.is_running:
                slot.send(signal.SIGKILL)
                os.waitpid(slot.pid, 0)
            slot.close()


def _reason(wait_status: int) -> str:
    """Why a process ended, in words, with a hint where the cause is usually the same."""
    code = os.waitstatus_to_exitcode(wait_status)
    if code >= 0:
        return f"exit status {code}"
    name = signals.name_of(-code)
    if -code == signal.SIGKILL:
        return f"{name} (out of memory? the kernel log tells)"
    return name


def _status_of(end: SystemExit) -> int:
    """The exit status that Python gives a process that ends with `end`."""
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code & 0xFF
    print(end.code, file=sys.stderr)
    return 1


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
