"""Signals as bytes on a pipe, so that one `poll` can wait for them beside other things.

The interpreter's own C handler writes the signal's number to the pipe; no Python code runs in
between, and a signal just before the wait is not lost.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from types import FrameType
from typing import Any


def block(signals: Iterable[int]) -> set[Any]:
    """Hold `signals` back; return the mask to restore."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, signals)


def restore(mask: set[Any]) -> None:
    """Let the signals through again that `block` held back."""
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class SignalPipe:
    """Catches signals while it is entered; `fd` is readable when one has come."""

    def __init__(self, *signals: signal.Signals) -> None:
        self._signals = signals
        self._handlers: dict[int, Any] = {}
        self._wakeup_before = -1
        self.fd = self._write_end = -1

    def __enter__(self) -> SignalPipe:
        self.fd, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in self._signals:
            self._handlers[number] = signal.signal(number, _do_nothing)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._close()

    def read(self) -> list[signal.Signals]:
        """The caught signals since the last call, in order."""
        try:
            numbers = os.read(self.fd, 4096)
        except BlockingIOError:
            return []
        return [signal.Signals(number) for number in numbers if number in self._signals]

    def forget_in_child(self) -> None:
        """After a fork, in the child: leave the pipe to the parent. Handlers stay as they are."""
        signal.set_wakeup_fd(-1)
        self._close()

    def _close(self) -> None:
        os.close(self.fd)
        os.close(self._write_end)
        self.fd = self._write_end = -1


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """The signal's number is on the pipe already."""


def name_of(number: int) -> str:
    """The name of a signal, real-time ones included."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
