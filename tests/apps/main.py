"""The application that most tests talk to: one route per thing to try."""

from __future__ import annotations

import contextvars
import hashlib
import os
import sys
import threading
import time
from typing import Any

from greenlet import GreenletExit
from theframework import Framework, HandlerTimeout, Request, Response, sleep
from theframework import _framework_core as core

app = Framework()
TEXT = "text/plain"


def text(response: Response, body: str | bytes) -> None:
    response.set_header("Content-Type", TEXT)
    response.write(body)


@app.route("/")
def index(request: Request, response: Response) -> None:
    text(response, "hello world")


@app.route("/request", methods=["GET", "POST", "PUT", "OPTIONS"])
def show_request(request: Request, response: Response) -> None:
    response.json(
        {
            "method": request.method,
            "path": request.path,
            "full_path": request.full_path,
            "query_params": request.query_params,
            "headers": request.headers,
            "raw_headers": [
                [n.decode("latin-1"), v.decode("latin-1")] for n, v in request.raw_headers
            ],
            "body": request.body.decode("latin-1"),
            "params": request.params,
        }
    )


@app.route("/client")
def client(request: Request, response: Response) -> None:
    response.json(request.client)


@app.route("/same-objects", methods=["POST"])
def same_objects(request: Request, response: Response) -> None:
    names = ["headers", "query_params", "params", "raw_headers", "path", "body", "full_path"]
    response.json([name for name in names if getattr(request, name) is not getattr(request, name)])


@app.route("/read-only", methods=["GET"])
def read_only(request: Request, response: Response) -> None:
    try:
        request.method = "PUT"  # type: ignore[misc]
    except AttributeError:
        text(response, "AttributeError")


@app.route("/json-body", methods=["POST"])
def json_body(request: Request, response: Response) -> None:
    try:
        response.json({"got": request.json()})
    except ValueError:
        response.json({"error": "ValueError"}, status=400)


@app.route("/echo", methods=["POST", "PUT", "PATCH"])
def echo(request: Request, response: Response) -> None:
    response.set_header("Content-Type", "application/octet-stream")
    response.write(request.body)


@app.route("/echo-late", methods=["POST"])
def echo_late(request: Request, response: Response) -> None:
    """Holds the body for a while."""
    body = request.body
    sleep(0.5)
    text(response, str(len(body)))


@app.route("/digest", methods=["POST"])
def digest(request: Request, response: Response) -> None:
    text(response, f"{len(request.body)} {hashlib.sha256(request.body).hexdigest()}")


# Routing


@app.route("/users/me")
def user_me(request: Request, response: Response) -> None:
    text(response, "me")


@app.route("/users/{id}")
def user(request: Request, response: Response) -> None:
    text(response, f"user {request.params['id']}")


@app.route("/users/{id}/posts/{post}")
def post(request: Request, response: Response) -> None:
    text(response, f"post {request.params['post']} of {request.params['id']}")


@app.route("/files/{*rest}")
def files(request: Request, response: Response) -> None:
    text(response, f"file {request.params['rest']}")


@app.route("/item", methods=["GET"])
def read_item(request: Request, response: Response) -> None:
    text(response, "read")


@app.route("/item", methods=["PUT", "DELETE"])
def change_item(request: Request, response: Response) -> None:
    text(response, f"changed by {request.method}")


# Responses


@app.route("/status/{code}")
def status(request: Request, response: Response) -> None:
    response.set_status(int(request.params["code"]))
    if int(request.params["code"]) not in (204, 304):
        text(response, "as asked")


@app.route("/status-attribute")
def status_attribute(request: Request, response: Response) -> None:
    before = response.status
    response.status = 404
    text(response, f"{before} {response.status}")


@app.route("/bad-status/{code}")
def bad_status(request: Request, response: Response) -> None:
    try:
        response.set_status(int(request.params["code"]))
    except ValueError:
        text(response, "ValueError")


@app.route("/response-headers")
def response_headers(request: Request, response: Response) -> None:
    response.set_header("X-Once", "first")
    response.set_header("x-once", "second")
    response.add_header("Set-Cookie", "a=1")
    response.add_header("Set-Cookie", "b=2")
    response.set_header("X-Latin", "café")
    response.set_header("X-Empty", "")
    text(response, "ok")


@app.route("/bad-header", methods=["POST"])
def bad_header(request: Request, response: Response) -> None:
    name, value = request.json()
    for method in (response.set_header, response.add_header):
        try:
            method(name, value)
        except ValueError:
            continue
        text(response, "accepted")
        return
    text(response, "ValueError")


@app.route("/framing-headers")
def framing_headers(request: Request, response: Response) -> None:
    response.set_header("Content-Length", "999")
    response.set_header("Transfer-Encoding", "chunked")
    text(response, "ok")


@app.route("/parts")
def parts(request: Request, response: Response) -> None:
    response.set_header("Content-Type", TEXT)
    response.write("grün ")
    response.write(b"und ")
    response.write("")
    response.write("blau")


@app.route("/bad-write")
def bad_write(request: Request, response: Response) -> None:
    try:
        response.write(7)  # type: ignore[arg-type]
    except TypeError:
        text(response, "TypeError")


@app.route("/json")
def json_answer(request: Request, response: Response) -> None:
    response.json({"text": "ü", "list": [1, 2.5, None, True]})


@app.route("/json-status")
def json_status(request: Request, response: Response) -> None:
    response.json([], status=404)


@app.route("/redirect")
def redirect(request: Request, response: Response) -> None:
    response.redirect("/elsewhere?a=b")


@app.route("/redirect-status")
def redirect_status(request: Request, response: Response) -> None:
    response.redirect("/elsewhere", status=308)


@app.route("/nothing")
def nothing(request: Request, response: Response) -> None:
    pass


@app.route("/large/{size}")
def large(request: Request, response: Response) -> None:
    response.set_header("Content-Type", "application/octet-stream")
    response.write(b"0123456789abcdef" * (int(request.params["size"]) // 16))


# Waiting, failing, computing


@app.route("/sleep/{seconds}")
def sleeping(request: Request, response: Response) -> None:
    sleep(float(request.params["seconds"]))
    text(response, "slept")


@app.route("/sleep/{seconds}/{name}")
def sleeping_as(request: Request, response: Response) -> None:
    sleep(float(request.params["seconds"]))
    text(response, f"slept as {request.params['name']}")


@app.route("/sleep-negative")
def sleep_negative(request: Request, response: Response) -> None:
    try:
        sleep(-1)
    except ValueError:
        text(response, "ValueError")


@app.route("/spin/{seconds}")
def spin(request: Request, response: Response) -> None:
    end = time.monotonic() + float(request.params["seconds"])
    while time.monotonic() < end:
        pass
    text(response, "spun")


@app.route("/raise")
def raising(request: Request, response: Response) -> None:
    response.write("half an answer")
    raise RuntimeError("a secret detail")


class Strange(BaseException):
    """Neither an Exception nor one that Python ends by."""


@app.route("/raise/{name}")
def raising_other(request: Request, response: Response) -> None:
    kinds: dict[str, type[BaseException]] = {
        "SystemExit": SystemExit,
        "GreenletExit": GreenletExit,
        "KeyboardInterrupt": KeyboardInterrupt,
        "Strange": Strange,
    }
    raise kinds[request.params["name"]]("a secret detail")


@app.route("/raise-after-sleep")
def raising_late(request: Request, response: Response) -> None:
    sleep(0.01)
    raise RuntimeError("a secret detail")


@app.route("/timeout-seen")
def timeout_seen(request: Request, response: Response) -> None:
    try:
        sleep(30)
    except HandlerTimeout:
        print("handler saw its timeout", file=sys.stderr, flush=True)
        raise


@app.route("/timeout-swallowed/{seconds}")
def timeout_swallowed(request: Request, response: Response) -> None:
    try:
        sleep(30)
    except BaseException:
        sleep(float(request.params["seconds"]))
        text(response, "too late")


@app.route("/sleep-for-ever")
def sleep_for_ever(request: Request, response: Response) -> None:
    while True:
        sleep(0.001)


_variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@app.route("/context/{name}")
def context(request: Request, response: Response) -> None:
    before = _variable.get()
    _variable.set(request.params["name"])
    sleep(0.005)
    text(response, f"{before} {_variable.get()}")


_spinning = threading.Event()


@app.route("/thread/start")
def start_thread(request: Request, response: Response) -> None:
    def compute() -> None:
        while _spinning.is_set():
            sum(range(100))

    _spinning.set()
    threading.Thread(target=compute, daemon=True).start()
    text(response, "started")


@app.route("/thread/stop")
def stop_thread(request: Request, response: Response) -> None:
    _spinning.clear()
    text(response, "stopped")


_kept: list[Any] = []


@app.route("/keep", methods=["POST"])
def keep(request: Request, response: Response) -> None:
    _kept[:] = [request]
    text(response, "kept")


@app.route("/kept")
def kept(request: Request, response: Response) -> None:
    other = _kept.pop()
    response.json([other.method, other.full_path, other.headers["x-mark"], other.body.decode()])


# The process


@app.route("/pid")
def pid(request: Request, response: Response) -> None:
    text(response, str(os.getpid()))


@app.route("/switch-interval")
def switch_interval(request: Request, response: Response) -> None:
    text(response, repr(sys.getswitchinterval()))


def _be_forked(way: str) -> None:
    """In the child: end, with status 0 when all was as it must be; or return."""
    if way == "exit":
        time.sleep(0.05)
        os._exit(0)
    if way == "sleep":
        try:
            sleep(0.05)
        except BaseException:
            os._exit(0)
        os._exit(0)


@app.route("/fork/{way}")
def fork(request: Request, response: Response) -> None:
    # The child has no request any more.
    way = request.params["way"]
    child = os.fork()
    if child == 0:
        _be_forked(way)
        return
    text(response, str(child))


@app.route("/reap/{pid}")
def reap(request: Request, response: Response) -> None:
    """The wait status of a child, or -1 while it runs."""
    child, wait_status = os.waitpid(int(request.params["pid"]), os.WNOHANG)
    text(response, str(wait_status if child else -1))


@app.route("/exit")
def exit_now(request: Request, response: Response) -> None:
    os._exit(7)


@app.route("/allocations")
def allocations(request: Request, response: Response) -> None:
    response.json(core.allocation_counts())


@app.route("/memory")
def memory(request: Request, response: Response) -> None:
    """What this worker holds: live bytes of the core, and blocks of the interpreter."""
    live_bytes = core.allocation_counts()[2]
    response.json({"pid": os.getpid(), "live": live_bytes, "blocks": sys.getallocatedblocks()})


@app.route("/stats")
def stats(request: Request, response: Response) -> None:
    response.json(core.stats())


@app.route("/typical", methods=["GET", "POST"])
def typical(request: Request, response: Response) -> None:
    """What a usual handler touches: headers, query, body; answers JSON."""
    response.json(
        {
            "agent": request.headers.get("user-agent"),
            "page": request.query_params.get("page"),
            "bytes": len(request.body),
        }
    )
