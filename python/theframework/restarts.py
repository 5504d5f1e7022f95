"""When a worker that ended is started again: at once, later, or never. No processes here.

A worker that ends before it was ready, or within `STABLE_SECONDS` after, *failed*. The first
failure in a row is followed by a restart at once, the later ones by doubling pauses. A worker
that had been stable starts the count anew.
"""

from __future__ import annotations

STABLE_SECONDS = 1.0
FAILURES_MAX = 5
_PAUSE_FIRST_SECONDS = 0.1
_PAUSE_MAX_SECONDS = 5.0


class Restarts:
    """The restarts of one worker slot."""

    def __init__(self) -> None:
        self.failures = 0

    def pause_after(self, served_seconds: float | None) -> float:
        """Seconds until the next start, after a worker served that long (None: never ready)."""
        if served_seconds is not None and served_seconds >= STABLE_SECONDS:
            self.failures = 0
            return 0.0
        self.failures += 1
        if self.failures == 1:
            return 0.0
        doubled: float = _PAUSE_FIRST_SECONDS * 2 ** min(self.failures - 2, 16)
        return min(doubled, _PAUSE_MAX_SECONDS)

    @property
    def is_looping(self) -> bool:
        """Whether this slot has failed so often that starting it again is pointless."""
        return self.failures >= FAILURES_MAX
