"""The Rust core: hub, connections, router, Request and Response.

One hub runs per worker process, on the thread that calls `serve`. Handlers run in greenlets of
that thread. Private: applications use the names that `theframework` exports.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, final

@final
class Application:
    """Route table (a radix trie) and middleware of one application."""

    def __init__(self) -> None: ...
    def add_route(
        self,
        pattern: str,
        methods: list[str],
        handler: Callable[[Request, Response], object],
        stream: bool = False,
        max_stream_size: int | None = None,
    ) -> None:
        """Add one pattern: ``{name}`` takes one segment, ``{*name}`` the non-empty remainder.

        With `stream` its handlers take request bodies while they arrive, of at most
        `max_stream_size` bytes (0: no limit; None: as the setting says).

        Raises `ValueError` for a malformed pattern, one that conflicts with another, and a method
        that the pattern already has.
        """

    def add_middleware(self, middleware: Callable[[Request, Response, Next], object]) -> None:
        """Add a middleware inside all those added before."""

@final
class Request:
    """One request, read-only. Fields become Python objects on first access and are cached.

    Middleware may set further attributes of its own. A request that is kept after its handler
    returned stays readable.
    """

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str:
        """The path, percent-decoded, without the query; ``%2F`` stays undecoded in routing."""

    @property
    def full_path(self) -> str:
        """The target as received: path and query, still encoded."""

    @property
    def query_params(self) -> dict[str, str]:
        """Query parameters, decoded; of a repeated name the first value."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers by lower-case name; repeated ones joined by ``, `` (``; `` for Cookie).

        Those with an underscore in their name are left out, unless ``header_map`` says otherwise.
        """

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """Headers as received, all of them: order, repetitions and letter case kept."""

    @property
    def body(self) -> bytes:
        """The whole body, decoded when it came chunked; at most ``max_body_size``.

        Raises `RuntimeError` on a route that streams.
        """

    def stream(self) -> Iterator[bytes]:
        """The body as it arrives, in pieces of at most 64 KiB; without ``stream=True`` on the
        route, all of it at once.

        Parks the handler while nothing is there. What is not taken stays with the client: at most
        one piece is received ahead. A step raises `ClientDisconnected` when the client has gone,
        `BodyError` when the body is malformed, too slow (``read_timeout``, ``min_body_rate``) or
        too long, and `RuntimeError` when the request is over. Costs one copy of each byte.
        """

    @property
    def disconnected(self) -> bool:
        """Whether the client has gone, or has closed its side at least; False once answered.

        Seen when the worker next looks, so after a wait at the latest. Costs no system call.
        """

    @property
    def params(self) -> dict[str, str]:
        """What the pattern's braces matched, percent-decoded."""

    @property
    def client(self) -> str | None:
        """Who has sent the request: the peer, as ``ip:port``.

        If the peer is a proxy that ``forwarded_allow_ips`` trusts, and there is X-Forwarded-For,
        it is the rightmost address there that is not trusted itself, in the form that the proxy
        wrote, mostly without a port. None on a unix socket where no proxy says more, and when the
        connection was reset. One system call at the first access.
        """

    @property
    def scheme(self) -> str:
        """``http`` or ``https``: what a trusted proxy says in X-Forwarded-Proto, else ``http``.

        See `client`. Costs a system call only when the request has that header.
        """

    def json(self) -> Any:
        """The body as JSON. Raises `ValueError` when it is none."""

    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...

@final
class Response:
    """The response of one exchange, sent when the handler returns, or while it streams."""

    status: int

    def set_status(self, status: int) -> None:
        """Set the status, 200 to 599. Raises `ValueError` outside."""

    def set_header(self, name: str, value: str) -> None:
        """Set a header, replacing earlier ones of that name.

        Raises `ValueError` for CR, LF or NUL, and for a name that is no token.
        """

    def add_header(self, name: str, value: str) -> None:
        """Add a header beside earlier ones of that name; errors as in `set_header`."""

    def write(self, data: str | bytes) -> None:
        """Append to the body; text is sent as UTF-8.

        Once the response streams, the piece is sent: at the latest when the handler waits or
        returns. Parks the handler while the client has more than 64 KiB to take. Raises
        `ClientDisconnected` when the client has gone, and `ValueError` when more is written than
        was announced.
        """

    def stream(
        self,
        iterable: Iterable[str | bytes] | None = None,
        *,
        content_length: int | None = None,
    ) -> None:
        """Send the response while it is made: each item of `iterable`, and each `write` after it.

        The head goes out with the first piece; status and headers cannot be changed then
        (`RuntimeError`), and ``handler_timeout`` has ended. The body is chunked, unless its length
        is announced by `content_length` or a ``Content-Length`` header; for HTTP/1.0 it ends with
        the connection. When the handler raises after the head, the connection is closed before the
        body's end, so that the client notices. `iterable` is closed if it can be. Errors as in
        `write`.
        """

    def send_event(
        self,
        data: str,
        event: str | None = None,
        *,
        id: str | None = None,
        retry: int | None = None,
    ) -> None:
        """Send one server-sent event; the first one starts the response as an event stream.

        `data` may have several lines. `event` and `id` are one line each (`ValueError`), `retry` is
        in milliseconds. Errors as in `write`.
        """

    def json(self, obj: Any, status: int | None = None) -> None:
        """Write `obj` as JSON and set the content type, and the status if given."""

    def send_file(
        self,
        path: str | os.PathLike[str],
        content_type: str | None = None,
        filename: str | None = None,
    ) -> None:
        """Answer with a file, in place of whatever was written.

        It is opened here, and sent when the handler has returned, without Python: the handler's
        greenlet goes on to other requests, and ``handler_timeout`` has ended. Sets the content type
        (`content_type`, else one set before, else by `mimetypes` from the suffix; text as UTF-8),
        and with `filename` has clients save the file by that name. Status 200 honours ``Range``
        (one range), ``If-Range``, ``If-Match``, ``If-None-Match`` and the two dates, and gets
        ``ETag`` and ``Last-Modified`` unless they were set.

        Raises what `open` would: `FileNotFoundError` (a handler that lets it pass answers 500, not
        404), `PermissionError`, `IsADirectoryError`; `OSError` for what is no regular file. The
        path is used as it is: one made from a request must be checked before. Opening is three
        system calls, of which the first may wait for the disk; the bytes are read without the
        worker waiting for them, one window of 128 KiB for each connection. When the file turns out
        shorter than it was, the connection is closed before the body's end.
        """

    def redirect(self, url: str, status: int = 302) -> None:
        """Answer with a redirect to `url`."""

@final
class Next:
    """The rest of the middleware chain and the handler, as one callable."""

    def __call__(self, request: Request = ..., response: Response = ..., /) -> None: ...

class ClientDisconnected(Exception):  # noqa: N818 - the name that the documents have
    """The client has gone: raised by what would read more of its request, or write to it.

    A handler may let it pass: it is not logged, and nobody is answered.
    """

class BodyError(Exception):
    """A streamed body cannot be read further: ``args[0]`` is 400, 408 or 413.

    A handler that lets it pass answers with that status and ends the connection.
    """

class HandlerTimeout(BaseException):
    """Raised in a handler at its next wait once ``handler_timeout`` has passed."""

def serve(
    application: Application,
    listeners: list[int],
    settings: dict[str, Any],
    *,
    worker: int = 0,
    shared: memoryview | None = None,
    on_ready: Callable[[], None] | None = None,
) -> int:
    """Run the hub on this thread until it is drained; return the requests it had to abandon.

    At its end, greenlets that still wait get `GreenletExit`, so that `finally` blocks run; one that
    waits again gets it again, eight times at most, and never runs again then. In the child of a
    fork in a handler it returns 0 when that handler has returned, and raises `SystemExit` when an
    exception has left it there (its own, or status 1 after the log).

    `listeners` are listening, non-blocking sockets. The core owns these descriptors from here
    on, and closes them when a drain has ended its accepts. `settings` holds every setting by
    name, and ``on_exception(exception, method, path)``, called for each exception that leaves a
    handler. `shared` holds 64 bytes per worker, all workers' in one mapping: slot `worker` is
    this one's. `on_ready` is called on the hub once connections are accepted.
    """

def drain(timeout: float) -> None:
    """Stop accepting, finish requests in flight for at most `timeout` seconds, then end `serve`.

    May be called from a signal handler, and again: the first deadline stands.
    """

def stop() -> None:
    """End `serve` now, abandoning what is in flight."""

def sleep(seconds: float) -> None:
    """Let at least `seconds` pass while other requests run.

    When it returns, the time has passed. Whatever ends the wait before is raised: `HandlerTimeout`
    when the handler's time is over, any exception that somebody throws into the greenlet
    (`GreenletExit` when the hub ends), and `RuntimeError` when somebody switches to the greenlet by
    itself; values passed with such a switch are dropped. Who threw or switched goes on soon after.

    The wait holds the greenlet: dropping the last reference to it changes nothing until it ends.
    Costs a timer and two switches, no system call. On the hub's own greenlet, where finalisers can
    run, it raises `RuntimeError`. Outside a hub it blocks the thread, as `time.sleep` does. Raises
    `ValueError` for a negative number.
    """

class DriverError(Exception):
    """The driver that was asked for cannot be set up; one sentence with cause and remedy."""

def choose_driver(
    driver: str, receive_buffers: int, without: str, workers: int
) -> tuple[str, list[str], str | None]:
    """Try io_uring as `workers` workers would use it, unless `driver` is ``poll``.

    Returns the driver to use (``io_uring`` or ``poll``), the io_uring features that it does
    without, and why ``auto`` did not take io_uring. Raises `DriverError` when `driver` is
    ``io_uring`` and that cannot be set up.
    """

def io_uring_features() -> list[tuple[str, str, str]]:
    """Each feature's name, the first kernel that has it, and what the driver does without it."""

def check_trusted_peers(list: str, /) -> None:
    """Raise `ValueError` with the reason unless ``forwarded_allow_ips`` takes `list`."""

def stats() -> dict[str, int]:
    """Counters of this process's hub."""

def allocation_counts() -> tuple[int, int, int]:
    """Allocations, deallocations and live bytes of the Rust allocator, for tests."""
