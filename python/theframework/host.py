"""What this host offers to the server: the report behind ``theframework check``."""

from __future__ import annotations

import os
import platform
import resource
from importlib.metadata import version

from theframework import _framework_core as core
from theframework._version import __version__
from theframework.limits import connections_that_fit
from theframework.listeners import somaxconn


def describe() -> tuple[list[str], bool]:
    """Lines for a person, and whether a server can run here."""
    problem = core.probe_driver()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    backlog_cap = somaxconn()
    cores = len(os.sched_getaffinity(0))
    lines = [
        f"theframework:  {__version__}",
        f"Python:        {platform.python_implementation()} {platform.python_version()}, "
        f"greenlet {version('greenlet')}",
        f"kernel:        {platform.system()} {platform.release()} ({platform.machine()})",
        f"io_uring:      {'works' if problem is None else problem}",
        f"cores:         {cores}",
        f"open files:    {_limit(hard)} (connections per worker: {_limit_of(hard)})",
        f"somaxconn:     {'unknown' if backlog_cap is None else backlog_cap}",
    ]
    return lines, problem is None


def _limit(number: int) -> str:
    return "unlimited" if number == resource.RLIM_INFINITY else str(number)


def _limit_of(hard: int) -> str:
    if hard == resource.RLIM_INFINITY:
        return "as many as max_connections"
    return f"at most {connections_that_fit(hard)}"
