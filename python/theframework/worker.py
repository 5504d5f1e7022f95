"""A worker process, from the fork to its exit status.

It loads the application, hands it to the core together with the listeners, and turns SIGTERM
and SIGINT into a drain. When its supervisor dies it is sent SIGTERM by the kernel.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from theframework import _framework_core as core
from theframework.errors import StartError
from theframework.log import log_exception, logger
from theframework.report import ReportWriter
from theframework.settings import Settings

if TYPE_CHECKING:
    from theframework.app import Framework

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1

# Whether this process is a worker: an application that serves itself on import is told so.
is_worker = False


@dataclass(frozen=True)
class Post:
    """What the supervisor gives a worker to work with."""

    load: Callable[[], Framework]
    settings: Settings
    index: int
    listeners: list[int]
    shared: memoryview
    report: ReportWriter
    supervisor_pid: int


def run(post: Post) -> int:
    """Be the worker of `post`; return the exit status. Stop signals are blocked on entry."""
    global is_worker
    is_worker = True
    stop = _StopSwitch(post.settings.graceful_timeout)
    stop.install()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    _follow_supervisor(post.supervisor_pid)
    sys.setswitchinterval(post.settings.switch_interval)
    try:
        application = post.load()
    except StartError as error:
        post.report.failed(error)
        return 1
    # Again: what the application imported may have installed handlers of its own.
    stop.install()
    return _serve(application, post, stop)


def _serve(application: Framework, post: Post, stop: _StopSwitch) -> int:
    def on_ready() -> None:
        stop.arm()
        post.report.ready()

    settings = post.settings.as_dict()
    settings["on_exception"] = log_exception
    stop.is_loading = False
    try:
        abandoned = core.serve(
            application._application,
            post.listeners,
            settings,
            worker=post.index,
            shared=post.shared,
            on_ready=on_ready,
        )
    except core.DriverError as error:
        # The parent tried the same, so this is what changed meanwhile: memory or descriptors.
        if not post.report.failed(StartError(str(error))):
            logger.error("%s", error)
        return 1
    except Exception as error:
        failure = StartError(f"the server core failed: {error}", traceback.format_exc().rstrip())
        if not post.report.failed(failure):
            logger.exception("the server core failed")
        return 1
    if abandoned:
        noun = "request was" if abandoned == 1 else "requests were"
        logger.warning("%d %s cut off when graceful_timeout ended", abandoned, noun)
    return 0


class _StopSwitch:
    """Turns stop signals into the core's drain, whenever they come."""

    def __init__(self, graceful_timeout: float) -> None:
        self._graceful_timeout = graceful_timeout
        self._is_asked = False
        self._is_armed = False
        self.is_loading = True

    def install(self) -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)

    def arm(self) -> None:
        """The hub runs: from now on a drain can be asked of it."""
        self._is_armed = True
        if self._is_asked:
            core.drain(self._graceful_timeout)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.is_loading:
            # Nothing is in flight, and an exception could be swallowed by the code that runs.
            os._exit(0)
        self._is_asked = True
        if self._is_armed:
            core.drain(self._graceful_timeout)


def _follow_supervisor(supervisor_pid: int) -> None:
    """Have the kernel send SIGTERM when the supervisor ends, even by SIGKILL."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0:
        logger.warning("the end of the supervisor will not be noticed: prctl failed")
    if os.getppid() != supervisor_pid:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGTERM)
