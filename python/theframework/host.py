"""What this host offers to the server: the report behind ``theframework check``.

It tries what a start would try, with the settings of the environment, and forks and opens nothing.
"""

from __future__ import annotations

import os
import platform
import resource
from importlib.metadata import version
from pathlib import Path

from theframework import _framework_core as core
from theframework._version import __version__
from theframework.limits import connections_that_fit
from theframework.listeners import somaxconn
from theframework.settings import IO_URING_FEATURES, Settings, listed, resolve

# What the queues of a ring lock where the kernel counts it; each receive buffer adds an entry.
_RING_BYTES = 144 * 1024
_ENTRY_BYTES = 16
_SECCOMP_MODES = {"0": "no filter", "1": "strict", "2": "a filter is active, as in a container"}


def describe() -> tuple[list[str], bool]:
    """Lines for a person, and whether a server can run here."""
    settings = resolve({})
    uring, problem = _io_uring(settings)
    lines = [
        ("theframework", [__version__]),
        (
            "Python",
            [
                f"{platform.python_implementation()} {platform.python_version()}, "
                f"greenlet {version('greenlet')}"
            ],
        ),
        ("kernel", [f"{platform.system()} {platform.release()} ({platform.machine()})"]),
        ("driver", _driver(settings, problem)),
        ("io_uring", uring),
        ("seccomp", [_seccomp()]),
        ("cores", [str(len(os.sched_getaffinity(0)))]),
        ("open files", [_open_files()]),
        ("locked memory", [_locked_memory(settings.receive_buffers)]),
        ("somaxconn", [_somaxconn()]),
    ]
    is_usable = problem is None or settings.driver != "io_uring"
    return [
        f"{name + ':':<15}{line}" if index == 0 else f"{'':<15}{line}"
        for name, texts in lines
        for index, line in enumerate(texts)
    ], is_usable


def _io_uring(settings: Settings) -> tuple[list[str], str | None]:
    """What works of io_uring, or why it does not."""
    try:
        _, missing, _ = core.choose_driver(
            "io_uring", settings.receive_buffers, settings.io_uring_without, 1
        )
    except core.DriverError as error:
        return ["does not work"], str(error)
    masked = listed(settings.io_uring_without)
    found = [name for name in IO_URING_FEATURES if name not in missing]
    lines = [f"works with {', '.join(found)}" if missing else "works, with all that is of use"]
    for name, since, replacement in core.io_uring_features():
        if name in missing:
            cause = "masked by io_uring_without" if name in masked else f"came with Linux {since}"
            lines.append(f"without {name} ({cause}): {replacement}")
    return lines, None


def _driver(settings: Settings, problem: str | None) -> list[str]:
    """What ``auto`` takes, and what the environment asks for instead."""
    lines = ["auto takes poll", f"since {problem}"] if problem else ["auto takes io_uring"]
    if settings.driver != "auto":
        verdict = ""
        if settings.driver == "io_uring" and problem is not None:
            verdict = ", so no server can start"
        lines.append(f"the environment asks for {settings.driver}{verdict}")
    return lines


def _seccomp() -> str:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return "unknown"
    modes = [line.split()[1] for line in status.splitlines() if line.startswith("Seccomp:")]
    return _SECCOMP_MODES.get(modes[0], "unknown") if modes else "unknown"


def _open_files() -> str:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return "unlimited (connections per worker: as many as max_connections)"
    return f"{hard} (connections per worker: at most {connections_that_fit(hard)})"


def _locked_memory(receive_buffers: int) -> str:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return "unlimited"
    workers = soft // (_RING_BYTES + _ENTRY_BYTES * receive_buffers)
    return (
        f"{soft // 1024} KiB (where rings are counted, without CAP_IPC_LOCK: "
        f"workers of this user on io_uring: about {workers})"
    )


def _somaxconn() -> str:
    cap = somaxconn()
    return "unknown" if cap is None else str(cap)
