"""What ends a start, said to a person in one sentence."""

from __future__ import annotations

import sys

PROGRAM = "theframework"


class StartError(Exception):
    """The server cannot start; the text is one sentence with the cause and, if known, the cure.

    `details` (a traceback) is for the log level debug only.
    """

    def __init__(self, sentence: str, details: str = "") -> None:
        super().__init__(sentence)
        self.details = details


def complain(message: object) -> None:
    """Write one error sentence to stderr, in the form that command line tools use."""
    print(f"{PROGRAM}: error: {message}", file=sys.stderr, flush=True)
