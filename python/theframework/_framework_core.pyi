"""The Rust core: hub, connections, router, Request and Response.

One hub runs per worker process, on the thread that calls `serve`. Handlers run in greenlets of
that thread. Private: applications use the names that `theframework` exports.
"""

from collections.abc import Callable
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
    ) -> None:
        """Add one pattern: ``{name}`` takes one segment, ``{*name}`` the non-empty remainder.

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
        """Headers by lower-case name; repeated ones joined by ``, `` (``; `` for Cookie)."""

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """Headers as received: order, repetitions and letter case kept."""

    @property
    def body(self) -> bytes:
        """The whole body, decoded when it came chunked; at most ``max_body_size``."""

    @property
    def params(self) -> dict[str, str]:
        """What the pattern's braces matched, percent-decoded."""

    @property
    def client(self) -> str | None:
        """The peer as ``ip:port``; None on a unix socket."""

    def json(self) -> Any:
        """The body as JSON. Raises `ValueError` when it is none."""

    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...

@final
class Response:
    """The response of one exchange, sent when the handler returns."""

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
        """Append to the body; text is sent as UTF-8."""

    def json(self, obj: Any, status: int | None = None) -> None:
        """Write `obj` as JSON and set the content type, and the status if given."""

    def redirect(self, url: str, status: int = 302) -> None:
        """Answer with a redirect to `url`."""

@final
class Next:
    """The rest of the middleware chain and the handler, as one callable."""

    def __call__(self, request: Request = ..., response: Response = ..., /) -> None: ...

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

    Outside a hub it blocks the thread, as `time.sleep` does. Raises `ValueError` for a negative
    number, and `HandlerTimeout` when the handler's time ends meanwhile.
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

def stats() -> dict[str, int]:
    """Counters of this process's hub."""

def allocation_counts() -> tuple[int, int, int]:
    """Allocations, deallocations and live bytes of the Rust allocator, for tests."""
