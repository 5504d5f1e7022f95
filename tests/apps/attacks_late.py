"""Handlers that look at a request when it is late: its client has gone, or it is over."""

from __future__ import annotations

import sys

from theframework import Framework, Request, Response, sleep
from theframework import _framework_core as core

app = Framework()
kept: list[Request] = []


@app.route("/stats")
def stats(request: Request, response: Response) -> None:
    response.json(core.stats())


@app.route("/late")
def late(request: Request, response: Response) -> None:
    print("late handler began", file=sys.stderr)
    sleep(0.3)
    print("late handler saw", request.client, request.scheme, file=sys.stderr)


@app.route("/keep")
def keep(request: Request, response: Response) -> None:
    kept.append(request)
    response.write("kept")


@app.route("/kept")
def show_kept(request: Request, response: Response) -> None:
    """Origin of the request that was kept, and whether it has a field with an underscore."""
    old = kept.pop()
    raw = [name for name, _ in old.raw_headers]
    response.json([old.client, old.scheme, "x_user" in old.headers, b"X_User" in raw])
