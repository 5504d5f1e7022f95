"""The server's log: logger "theframework", on stderr, one line each.

An exception's traceback follows its line. Applications may add handlers of their own to the
logger before the start; then the server adds none.
"""

from __future__ import annotations

import logging
import sys
import traceback

logger = logging.getLogger("theframework")

_FORMAT = "%(asctime)s.%(msecs)03d [%(process)d] %(levelname)s: %(message)s"
_DATE_FORMAT = "%Y-%m-%d %H:%M:%S"


def configure(level: str) -> None:
    """Set the level, and write to stderr unless the application chose otherwise."""
    logger.setLevel(level.upper())
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(_FORMAT, _DATE_FORMAT))
        logger.addHandler(handler)
        logger.propagate = False


def log_exception(exception: BaseException, method: str, path: str) -> None:
    """Log an exception that left a handler, with its traceback."""
    lines = traceback.format_exception(exception)
    logger.error("%s %s failed\n%s", printable(method), printable(path), "".join(lines).rstrip())


def printable(text: str) -> str:
    """`text` with control characters escaped, so that a client cannot write log lines."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
