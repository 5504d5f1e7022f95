"""What a worker tells the supervisor about its start, over a pipe: ready, or why not.

The pipe closes after the one message. A pipe that closes without any means that the worker died.
"""

from __future__ import annotations

import json
import os

from theframework.errors import StartError

_READY = b"R"
_FAILED = b"F"


class ReportWriter:
    """The worker's end. Only the first message counts."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def ready(self) -> None:
        """Connections are accepted."""
        self._send(_READY)

    def failed(self, error: StartError) -> bool:
        """The worker cannot start. False when it was ready before: then nobody listens."""
        return self._send(_FAILED + json.dumps([str(error), error.details]).encode())

    def _send(self, message: bytes) -> bool:
        if self._fd < 0:
            return False
        fd, self._fd = self._fd, -1
        try:
            # The supervisor reads on while a long traceback fills the pipe.
            while message:
                message = message[os.write(fd, message) :]
        except BrokenPipeError:  # the supervisor is gone; the worker is told by a signal
            pass
        finally:
            os.close(fd)
        return True


class ReportReader:
    """The supervisor's end."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.is_ready = False
        self.error: StartError | None = None
        self._received = bytearray()

    def read(self) -> None:
        """Take in what has come; sets `is_ready` or `error` once that is known."""
        while self.fd >= 0:
            try:
                data = os.read(self.fd, 65_536)
            except BlockingIOError:
                return
            self._received += data
            if not data or self._received.startswith(_READY):
                self._conclude()

    def close(self) -> None:
        """Stop listening."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _conclude(self) -> None:
        self.close()
        self.is_ready = self._received.startswith(_READY)
        if self._received.startswith(_FAILED):
            try:
                sentence, details = json.loads(self._received[1:])
            except ValueError:  # died while writing
                return
            self.error = StartError(sentence, details)
