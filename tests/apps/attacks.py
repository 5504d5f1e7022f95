"""The application under attack: it answers every request with what it was taken for.

A request that an attacker has smuggled in would show itself by an answer of its own. `streamed` and
`unread` do the same with routes that stream: one takes the body as it arrives, one answers before
there is any. `details` tells more of each request, for the comparison with other parsers.
"""

from __future__ import annotations

from typing import Any

from theframework import Framework, Request, Response
from theframework import _framework_core as core

app = Framework()
streamed = Framework()
unread = Framework()
details = Framework()
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
SPLITTERS = [
    "a\r\nSet-Cookie: evil=1",
    "a\nSet-Cookie: evil=1",
    "a\rSet-Cookie: evil=1",
    "a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a\r\n folded",
    "a\0b",
    "\r\n",
    # These become CR and LF where text is cut down to bytes.
    "a\u010d\u010aSet-Cookie: evil=1",
    "a\uff0d\uff0ab",
    "a\u2028b",
]


def nothing(request: Request, response: Response) -> None:
    """What every path leads to, so that bodies are waited for; the middleware answers before."""


for path in ("/", "/{*rest}"):
    for each in (app, details):
        each.route(path, methods=METHODS)(nothing)
    for each in (streamed, unread):
        each.route(path, methods=METHODS, stream=True, max_stream_size=1_048_576)(nothing)


# As middleware, it answers also what no route is for.
@app.use
def answer(request: Request, response: Response, next: Any) -> None:
    if request.path == "/stats":
        response.json(core.stats())
    elif request.path == "/details":
        response.json(describe(request))
    elif request.path == "/split":
        response.json(split(response), 200)
    elif request.path == "/redirect":
        response.redirect(request.query_params["to"])
    elif request.path == "/header":
        response.set_header("X-Echo", request.query_params["value"])
    else:
        response.set_header("Content-Type", "text/plain")
        response.write(f"{request.method} {request.full_path}\n")
        response.write(request.body)


@streamed.use
def answer_from_stream(request: Request, response: Response, next: Any) -> None:
    if request.path == "/stats":
        response.json(core.stats())
        return
    response.set_header("Content-Type", "text/plain")
    response.write(f"{request.method} {request.full_path}\n")
    for piece in request.stream():
        response.write(piece)


@unread.use
def answer_at_once(request: Request, response: Response, next: Any) -> None:
    if request.path == "/stats":
        response.json(core.stats())
        return
    response.set_header("Content-Type", "text/plain")
    response.write(f"{request.method} {request.full_path}\n")


@details.use
def answer_details(request: Request, response: Response, next: Any) -> None:
    response.json(core.stats() if request.path == "/stats" else describe(request))


def describe(request: Request) -> dict[str, Any]:
    """All of a request; bytes as ISO-8859-1."""
    return {
        "method": request.method,
        "target": request.full_path,
        "fields": [(n.decode("latin-1"), v.decode("latin-1")) for n, v in request.raw_headers],
        "headers": request.headers,
        "body": request.body.decode("latin-1"),
        "client": request.client,
        "scheme": request.scheme,
    }


def split(response: Response) -> dict[str, list[str]]:
    """What each way of setting a header says to each text that would split the response."""
    ways: dict[str, Any] = {
        "value": lambda text: response.set_header("X-Way", text),
        "added": lambda text: response.add_header("X-Way", text),
        "name": lambda text: response.set_header(text, "way"),
        "redirect": lambda text: response.redirect("/" + text),
    }
    said: dict[str, list[str]] = {}
    for name, way in ways.items():
        said[name] = []
        for text in SPLITTERS:
            try:
                way(text)
                said[name].append("taken")
            except ValueError:
                said[name].append("ValueError")
    return said
