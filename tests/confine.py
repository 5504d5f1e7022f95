"""Confinements that a container or an administrator puts on a process, set on a child of a test.

Each function returns what a child does between fork and exec (`preexec_fn`).
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# The same numbers on every architecture.
IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER = 425, 426, 427
IO_URING_CALLS = (IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER)
# What io_uring_register is asked for.
REGISTER_PROBE, REGISTER_BUFFER_RING = 8, 22

_PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 22, 24, 38
_SECCOMP_MODE_FILTER = 2
_CAP_IPC_LOCK = 14
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000
# Where the filter finds the call's number and the low half of its second argument.
_NUMBER_AT, _SECOND_AT = 0, 24


@dataclass(frozen=True)
class Refusal:
    """A system call that fails with `errno`; with `second`, only if its second argument is that."""

    call: int
    errno: int
    second: int | None = None


def io_uring_blocked(errno: int) -> Callable[[], None]:
    """As Docker's default profile does it, with any errno."""
    return refusing([Refusal(call, errno) for call in IO_URING_CALLS])


def refusing(refusals: Iterable[Refusal]) -> Callable[[], None]:
    """A seccomp filter that refuses these calls."""
    program = b"".join(map(_instructions, refusals)) + _instruction(_RETURN, value=_ALLOW)

    def confine() -> None:
        buffer = ctypes.create_string_buffer(program)
        head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, head)

    return confine


def _instructions(refusal: Refusal) -> bytes:
    refuse = _instruction(_RETURN, value=_ERRNO | refusal.errno)
    if refusal.second is not None:
        refuse = (
            _instruction(_LOAD, value=_SECOND_AT)
            + _instruction(_JUMP_IF_EQUAL, unequal=1, value=refusal.second)
            + refuse
        )
    skipped = len(refuse) // 8
    load = _instruction(_LOAD, value=_NUMBER_AT)
    return load + _instruction(_JUMP_IF_EQUAL, unequal=skipped, value=refusal.call) + refuse


def _instruction(code: int, *, unequal: int = 0, value: int) -> bytes:
    return struct.pack("HBBI", code, 0, unequal, value)


def locked_memory(limit: int) -> Callable[[], None]:
    """As an ordinary user with RLIMIT_MEMLOCK at `limit` bytes."""

    def confine() -> None:
        if os.geteuid() == 0:
            _prctl(_PR_CAPBSET_DROP, _CAP_IPC_LOCK)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))

    return confine


def _prctl(option: int, value: int, pointer: bytes | None = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(value), ctypes.c_char_p(pointer), ctypes.c_ulong(0)]
    if libc.prctl(ctypes.c_int(option), *arguments, ctypes.c_ulong(0)) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
