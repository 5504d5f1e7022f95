"""`Framework`: an application's routes and middleware, and how to serve it from code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from theframework._framework_core import Application, Next, Request, Response

Handler = Callable[[Request, Response], object]
Middleware = Callable[[Request, Response, Next], object]
H = TypeVar("H", bound=Handler)
M = TypeVar("M", bound=Middleware)


class Framework:
    """Routes and middleware. Routing itself is done by the core."""

    def __init__(self) -> None:
        self._application = Application()

    def route(
        self,
        path: str,
        methods: Iterable[str] = ("GET",),
        *,
        stream: bool = False,
        max_stream_size: int | None = None,
    ) -> Callable[[H], H]:
        """Decorate a handler for `path` and `methods`; GET answers HEAD too.

        ``{name}`` matches one segment, ``{*name}`` the remainder of the path; both are in
        ``request.params``. Raises `ValueError` for a bad or conflicting pattern.

        With `stream` the handler starts as soon as a request's head is there, and takes its body
        by ``request.stream()`` while it arrives; ``max_body_size`` does not hold for it, but
        `max_stream_size` (bytes; 0 for no limit; None for the setting of that name). There is no
        ``handler_timeout`` then.
        """
        if max_stream_size is not None and (not stream or max_stream_size < 0):
            raise ValueError("max_stream_size is for routes that stream, and not negative")
        if isinstance(methods, str):
            raise TypeError(f"methods must be a list of names: methods=[{methods!r}]")
        names = [name.upper() for name in methods]
        if not names:
            raise ValueError(f"the route {path!r} has no method")

        def add(handler: H) -> H:
            if not callable(handler):
                raise TypeError(f"the handler of {path!r} is not callable: {handler!r}")
            self._application.add_route(path, names, handler, stream, max_stream_size)
            return handler

        return add

    def get(self, path: str) -> Callable[[H], H]:
        """`route` for GET (and HEAD)."""
        return self.route(path, ["GET"])

    def post(self, path: str) -> Callable[[H], H]:
        """`route` for POST."""
        return self.route(path, ["POST"])

    def put(self, path: str) -> Callable[[H], H]:
        """`route` for PUT."""
        return self.route(path, ["PUT"])

    def patch(self, path: str) -> Callable[[H], H]:
        """`route` for PATCH."""
        return self.route(path, ["PATCH"])

    def delete(self, path: str) -> Callable[[H], H]:
        """`route` for DELETE."""
        return self.route(path, ["DELETE"])

    def use(self, middleware: M) -> M:
        """Add ``middleware(request, response, next)``; also usable as a decorator.

        The first one added is the outermost. One that does not call ``next`` answers itself.
        """
        if not callable(middleware):
            raise TypeError(f"middleware is not callable: {middleware!r}")
        self._application.add_middleware(middleware)
        return middleware

    def run(self, host: str | None = None, port: int | None = None, **settings: object) -> None:
        """Serve until stopped by SIGINT or SIGTERM; settings as in ``docs/settings.md``.

        Raises `TypeError` for a setting that does not exist. What keeps the server from
        starting (a bad value, a taken port) is raised as `SystemExit` with one sentence.
        """
        # Imported here: an application that is only imported needs no server.
        from theframework.server import run_application

        for name, value in (("host", host), ("port", port)):
            if value is not None:
                settings[name] = value
        run_application(self, settings)
