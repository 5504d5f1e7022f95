"""What the fixtures of tests/requirements.py are sent to: small answers, all predictable."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from pathlib import Path

from greenlet import GreenletExit
from theframework import Framework, Request, Response, sleep
from theframework import _framework_core as core

app = Framework()
_counted: list[str] = []

_folder = Path(tempfile.mkdtemp())
_loader = os.getpid()


@atexit.register
def _tidy_up() -> None:
    # Workers are forked: the folder goes with the process that made it.
    if os.getpid() == _loader:
        shutil.rmtree(_folder)


def _digits(name: str, modified: float) -> Path:
    path = _folder / name
    path.write_bytes(b"0123456789")
    os.utime(path, (modified, modified))
    return path


# Sun, 06 Nov 1994 08:49:37 GMT, the RFC's example of a date.
_FILE = _digits("file", 784_111_777)
_FUTURE = _digits("future", time.time() + 86_400)


@app.route("/")
def index(request: Request, response: Response) -> None:
    response.write("hello")


@app.route("/seen", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def seen(request: Request, response: Response) -> None:
    """All of a request as a handler sees it; `seen` of tests/requirements.py makes the same."""
    response.json(
        {
            "method": request.method,
            "path": request.path,
            "query": request.query_params,
            "headers": request.headers,
            "body": request.body.decode("latin-1"),
        }
    )


@app.route("/seen/{name}")
def seen_name(request: Request, response: Response) -> None:
    response.json([request.path, request.params["name"]])


@app.route("/item", methods=["PUT", "DELETE"])
def item(request: Request, response: Response) -> None:
    response.write("changed")


@app.route("/brew", methods=["BREW"])
def brew(request: Request, response: Response) -> None:
    response.write("tea")


@app.route("/status/{code}")
def status(request: Request, response: Response) -> None:
    """A body with any status, whether or not it may have one."""
    response.set_status(int(request.params["code"]))
    response.write("body")


@app.route("/kept/{code}")
def kept(request: Request, response: Response) -> None:
    """The same with a body that is sent from where it is."""
    response.set_status(int(request.params["code"]))
    response.write("x" * 5000)


@app.route("/bad-status/{code}")
def bad_status(request: Request, response: Response) -> None:
    try:
        response.set_status(int(request.params["code"]))
    except ValueError:
        response.write("ValueError")


@app.route("/bytes")
def some_bytes(request: Request, response: Response) -> None:
    response.write(b"\0")


@app.route("/framing")
def framing(request: Request, response: Response) -> None:
    """A handler that meddles with what is the server's."""
    for name, value in (
        ("Content-Length", "999"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "close"),
    ):
        response.add_header(name, value)
    response.write("ok")


@app.route("/once")
def once(request: Request, response: Response) -> None:
    response.set_header("X-Once", "first")
    response.set_header("x-ONCE", "second")
    response.write("ok")


@app.route("/upgrade")
def upgrade(request: Request, response: Response) -> None:
    response.set_status(426)
    response.set_header("Upgrade", "h2c")
    response.write("upgrade")


@app.route("/redirect")
def redirect(request: Request, response: Response) -> None:
    response.redirect("/elsewhere")


@app.route("/set-header", methods=["POST"])
def set_header(request: Request, response: Response) -> None:
    """Try what the body says, as JSON: name and value."""
    name, value = request.json()
    for method in (response.set_header, response.add_header):
        try:
            method(name, value)
        except ValueError:
            continue
        response.write("accepted")
        return
    response.write("ValueError")


@app.route("/count", methods=["POST"])
def count(request: Request, response: Response) -> None:
    _counted.append(request.method)
    response.write("counted")


@app.route("/counted")
def counted(request: Request, response: Response) -> None:
    response.write(str(len(_counted)))


@app.route("/raise")
def raising(request: Request, response: Response) -> None:
    raise RuntimeError("a secret detail")


class Strange(BaseException):
    """Neither an Exception nor one that Python ends by."""


@app.route("/raise/{name}")
def raising_other(request: Request, response: Response) -> None:
    kinds: dict[str, type[BaseException]] = {
        "SystemExit": SystemExit,
        "GreenletExit": GreenletExit,
        "BaseException": Strange,
    }
    raise kinds[request.params["name"]]("a secret detail")


@app.route("/sleep")
def sleeping(request: Request, response: Response) -> None:
    sleep(30)


@app.route("/nap")
def napping(request: Request, response: Response) -> None:
    sleep(0.2)
    response.write("hello")


@app.route("/stream")
def stream(request: Request, response: Response) -> None:
    """A piece of no bytes must not look like the end."""
    response.stream(["hel", "", "lo"])


@app.route("/stream/{code}")
def stream_status(request: Request, response: Response) -> None:
    response.set_status(int(request.params["code"]))
    response.stream(["body"])


@app.route("/stream-of-5")
def stream_of_5(request: Request, response: Response) -> None:
    response.stream(["hel", "lo"], content_length=5)


@app.route("/stream-fails")
def stream_fails(request: Request, response: Response) -> None:
    response.stream(["hel"])
    raise RuntimeError("a secret detail")


@app.route("/file", methods=["GET", "POST"])
def file(request: Request, response: Response) -> None:
    response.send_file(_FILE, "text/plain")


@app.route("/file/future")
def file_from_the_future(request: Request, response: Response) -> None:
    response.send_file(_FUTURE, "text/plain")


@app.route("/file/tagged/{kind}")
def tagged_file(request: Request, response: Response) -> None:
    """With validators of the handler's own, and what caches want to know."""
    response.set_header("ETag", {"strong": '"abc"', "weak": 'W/"abc"'}[request.params["kind"]])
    response.set_header("Cache-Control", "max-age=60")
    response.set_header("Vary", "Accept")
    response.send_file(_FILE, "text/plain")


@app.route("/file/status/{code}")
def file_with_status(request: Request, response: Response) -> None:
    response.set_status(int(request.params["code"]))
    response.send_file(_FILE, "text/plain")


@app.route("/upload", methods=["POST"], stream=True)
def upload(request: Request, response: Response) -> None:
    response.write(b"".join(request.stream()).decode())


@app.route("/unread", methods=["POST"], stream=True)
def unread(request: Request, response: Response) -> None:
    response.write("hello")


@app.route("/large")
def large(request: Request, response: Response) -> None:
    response.write("x" * (32 << 20))


@app.route("/stats")
def stats(request: Request, response: Response) -> None:
    response.json(core.stats())
