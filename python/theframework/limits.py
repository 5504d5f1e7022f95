"""The process's descriptor limit, and the connections that fit into it."""

from __future__ import annotations

import resource

# Descriptors besides connections: 32 slots for refusing connections, and the process's own
# (standard streams, listeners, ring, files and databases of the application).
DESCRIPTORS_RESERVED = 96


def raise_nofile() -> int:
    """Raise the soft limit on descriptors to the hard one; return the limit that then holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # a sandbox may refuse even this
        return soft
    return hard


def connections_that_fit(nofile: int) -> int:
    """How many connections a worker can hold with `nofile` descriptors; at least one."""
    if nofile == resource.RLIM_INFINITY:
        return 2**31
    return max(1, nofile - DESCRIPTORS_RESERVED)
