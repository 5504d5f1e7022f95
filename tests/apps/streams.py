"""Handlers that take bodies while they arrive and send responses while they make them:
tests/test_streaming.py."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator

import greenlet
from theframework import BodyError, ClientDisconnected, Framework, Request, Response, sleep
from theframework import _framework_core as core

app = Framework()
# What happened where no response tells of it.
_seen: list[str] = []


@app.route("/")
def index(request: Request, response: Response) -> None:
    response.write("hello world")


@app.route("/stats")
def stats(request: Request, response: Response) -> None:
    response.json(core.stats())


@app.route("/seen")
def seen(request: Request, response: Response) -> None:
    response.json(_seen)
    _seen.clear()


@app.route("/memory")
def memory(request: Request, response: Response) -> None:
    response.json(os.getpid())


# Uploads


@app.route("/digest", methods=["POST", "PUT"], stream=True)
def digest(request: Request, response: Response) -> None:
    """The length and hash of a body, and the most that came at once."""
    count, largest, text = 0, 0, hashlib.sha256()
    for piece in request.stream():
        count += len(piece)
        largest = max(largest, len(piece))
        text.update(piece)
    response.json([count, text.hexdigest(), largest, request.headers.get("x-mark")])


@app.route("/count", methods=["POST"], stream=True)
def count_bytes(request: Request, response: Response) -> None:
    response.json(sum(map(len, request.stream())))


@app.route("/limited", methods=["POST"], stream=True, max_stream_size=100_000)
def limited(request: Request, response: Response) -> None:
    response.json(sum(map(len, request.stream())))


@app.route("/no-limit", methods=["POST"], stream=True, max_stream_size=0)
def no_limit(request: Request, response: Response) -> None:
    response.json(sum(map(len, request.stream())))


@app.route("/slowly/{seconds}", methods=["POST"], stream=True)
def slowly(request: Request, response: Response) -> None:
    """Takes a piece, then waits."""
    count = 0
    for piece in request.stream():
        count += len(piece)
        sleep(float(request.params["seconds"]))
    response.json(count)


@app.route("/late/{seconds}", methods=["POST"], stream=True)
def late(request: Request, response: Response) -> None:
    """Begins to take the body after a while."""
    sleep(float(request.params["seconds"]))
    response.json([request.disconnected, sum(map(len, request.stream()))])


@app.route("/unread", methods=["POST"], stream=True)
def unread(request: Request, response: Response) -> None:
    response.write("not interested")


@app.route("/unread-stream", methods=["POST"], stream=True)
def unread_stream(request: Request, response: Response) -> None:
    response.stream(["not ", "interested"])


@app.route("/first-piece", methods=["POST"], stream=True)
def first_piece(request: Request, response: Response) -> None:
    next(request.stream())
    response.write("enough")


@app.route("/body-of-a-stream", methods=["POST"], stream=True)
def body_of_a_stream(request: Request, response: Response) -> None:
    try:
        len(request.body)
    except RuntimeError as error:
        response.write(str(error))


@app.route("/buffered", methods=["POST"])
def buffered(request: Request, response: Response) -> None:
    response.json([len(piece) for piece in request.stream()])


@app.route("/body-error", methods=["POST"], stream=True)
def body_error(request: Request, response: Response) -> None:
    """Notes why a body ended early, and lets it pass."""
    try:
        for _ in request.stream():
            pass
    except (BodyError, ClientDisconnected) as error:
        _seen.append(f"{type(error).__name__} {error.args[0]}")
        raise


@app.route("/body-error-handled", methods=["POST"], stream=True)
def body_error_handled(request: Request, response: Response) -> None:
    try:
        for _ in request.stream():
            pass
    except BodyError as error:
        response.set_status(422)
        response.write(f"handled {error.args[0]}")


_kept: list[Request] = []


@app.route("/keep", methods=["POST"], stream=True)
def keep(request: Request, response: Response) -> None:
    _kept[:] = [request]
    for _ in request.stream():
        pass
    response.write("kept")


@app.route("/kept")
def kept(request: Request, response: Response) -> None:
    other = _kept.pop()
    try:
        next(iter(other.stream()))
    except RuntimeError as error:
        response.json([other.method, other.path, other.headers["x-mark"], str(error)])


# Both ways at once


@app.route("/echo", methods=["POST"], stream=True)
def echo(request: Request, response: Response) -> None:
    response.set_header("Content-Type", "application/octet-stream")
    response.stream(request.stream())


# Downloads


def pieces(count: int, size: int) -> Iterator[bytes]:
    for number in range(count):
        yield number.to_bytes(4, "big") * (size // 4)


@app.route("/pieces/{count}/{size}")
def send_pieces(request: Request, response: Response) -> None:
    response.stream(pieces(int(request.params["count"]), int(request.params["size"])))


@app.route("/known/{announced}/{count}/{size}")
def known(request: Request, response: Response) -> None:
    response.stream(
        pieces(int(request.params["count"]), int(request.params["size"])),
        content_length=int(request.params["announced"]),
    )


@app.route("/known-by-header")
def known_by_header(request: Request, response: Response) -> None:
    response.set_header("Content-Length", "10")
    response.stream([b"01234", "56789"])


@app.route("/writes")
def writes(request: Request, response: Response) -> None:
    response.set_status(201)
    response.set_header("X-Mark", "yes")
    response.stream()
    response.write("one ")
    sleep(0.02)
    response.write(b"two ")
    response.write("")
    response.write(bytearray(b"three"))


@app.route("/write-then-stream")
def write_then_stream(request: Request, response: Response) -> None:
    response.write("before ")
    response.stream(["within "])
    response.write("after")


@app.route("/nothing")
def nothing(request: Request, response: Response) -> None:
    response.stream([])


@app.route("/no-content")
def no_content(request: Request, response: Response) -> None:
    response.set_status(204)
    response.stream([b"dropped"])


@app.route("/too-late")
def too_late(request: Request, response: Response) -> None:
    """Everything that a sent head makes impossible."""
    response.stream(["begun;"])
    calls = {
        "status": lambda: response.set_status(404),
        "header": lambda: response.set_header("X", "y"),
        "json": lambda: response.json([]),
        "redirect": lambda: response.redirect("/"),
        "length": lambda: response.stream(content_length=3),
    }
    for name, call in calls.items():
        try:
            call()
        except RuntimeError:
            response.write(f"{name};")


@app.route("/raises/{after}")
def raises(request: Request, response: Response) -> None:
    def items() -> Iterator[str]:
        for number in range(int(request.params["after"])):
            yield f"{number};"
        raise LookupError("raised in a generator")

    response.stream(items())


@app.route("/wrong-type")
def wrong_type(request: Request, response: Response) -> None:
    response.stream([b"fine", 7])  # type: ignore[list-item]


@app.route("/endless/{name}")
def endless(request: Request, response: Response) -> None:
    """Until the client goes."""
    name = request.params["name"]

    def items() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 20_000
        finally:
            _seen.append(f"{name} closed")

    try:
        response.stream(items())
    except ClientDisconnected:
        _seen.append(f"{name} ClientDisconnected")
        raise


@app.route("/two-readers", methods=["POST"], stream=True)
def two_readers(request: Request, response: Response) -> None:
    """A greenlet beside the handler waits for the body: the handler may not do so too."""

    def read() -> None:
        try:
            _seen.append(str(next(request.stream())))
        except BaseException as error:
            _seen.append(f"{type(error).__name__}: {error}")

    parent = greenlet.getcurrent()
    while parent.parent is not None:
        parent = parent.parent
    greenlet.greenlet(read, parent=parent).switch()
    try:
        next(request.stream())
    except RuntimeError as error:
        response.write(str(error))


@app.route("/wait-for-the-end/{name}")
def wait_for_the_end(request: Request, response: Response) -> None:
    """Nothing is written: only `disconnected` tells."""
    deadline = time.monotonic() + 5
    while not request.disconnected and time.monotonic() < deadline:
        sleep(0.005)
    _seen.append(f"{request.params['name']} {request.disconnected}")
    response.write("too late")


@app.route("/events/{count}")
def events(request: Request, response: Response) -> None:
    for number in range(int(request.params["count"])):
        response.send_event(f"number {number}\nsecond line", "tick", id=str(number), retry=1500)
        sleep(0.01)


@app.route("/bad-event")
def bad_event(request: Request, response: Response) -> None:
    try:
        response.send_event("data", "two\nlines")
    except ValueError as error:
        response.write(str(error))


@app.use
def marks(request: Request, response: Response, next: object) -> None:
    next()  # type: ignore[operator]
    if request.path == "/pieces/1/4" and "x-fail" in request.headers:
        raise LookupError("raised behind a response that had begun")
