"""Handlers that answer with files: tests/test_files.py. The folder is FILES in the environment."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from theframework import Framework, Request, Response, sleep
from theframework import _framework_core as core

app = Framework()
_folder = Path(os.environ["FILES"])


@app.route("/")
def index(request: Request, response: Response) -> None:
    response.write("hello world")


@app.route("/stats")
def stats(request: Request, response: Response) -> None:
    response.json(core.stats())


@app.route("/file/{name}", methods=["GET", "HEAD", "POST"])
def file(request: Request, response: Response) -> None:
    response.send_file(_folder / request.params["name"])


@app.route("/text/{name}")
def by_text(request: Request, response: Response) -> None:
    response.send_file(str(_folder / request.params["name"]))


@app.route("/anywhere")
def anywhere(request: Request, response: Response) -> None:
    """Only a test may do this."""
    response.send_file(request.query_params["path"])


@app.route("/typed/{name}")
def typed(request: Request, response: Response) -> None:
    response.send_file(_folder / request.params["name"], "text/x-given")


@app.route("/set/{name}")
def type_set_before(request: Request, response: Response) -> None:
    response.set_header("Content-Type", "text/x-set")
    response.set_header("ETag", '"mine"')
    response.send_file(_folder / request.params["name"])
    response.set_header("X-After", "yes")


@app.route("/named/{name}")
def named(request: Request, response: Response) -> None:
    response.send_file(_folder / request.params["name"], filename=request.query_params["as"])


@app.route("/not-found")
def own_page(request: Request, response: Response) -> None:
    response.set_status(404)
    response.send_file(_folder / "small.txt")


@app.route("/waits/{name}")
def waits_first(request: Request, response: Response) -> None:
    response.send_file(_folder / request.params["name"])
    sleep(0.02)


@app.route("/misuse")
def misuse(request: Request, response: Response) -> None:
    """Each wrong use raises, and the file stays the answer."""
    response.write("dropped")
    response.send_file(_folder / "small.txt")
    with contextlib.suppress(RuntimeError):
        response.write("more")
        raise AssertionError("it was written")
    with contextlib.suppress(RuntimeError):
        response.stream(["more"])
        raise AssertionError("it was streamed")
    with contextlib.suppress(FileNotFoundError):
        response.send_file(_folder / "missing")
        raise AssertionError("it was opened")
    with contextlib.suppress(ValueError):
        response.send_file("a\0b")
        raise AssertionError("it was opened")
    with contextlib.suppress(TypeError):
        response.send_file(7)  # type: ignore[arg-type]
        raise AssertionError("it was opened")


@app.route("/streamed")
def file_behind_a_stream(request: Request, response: Response) -> None:
    response.stream(["streamed"])
    with contextlib.suppress(RuntimeError):
        response.send_file(_folder / "small.txt")
        raise AssertionError("it was taken")


@app.route("/replaced")
def replaced(request: Request, response: Response) -> None:
    response.send_file(_folder / "large.bin")
    response.send_file(_folder / "small.txt")


@app.route("/json-instead")
def json_instead(request: Request, response: Response) -> None:
    response.send_file(_folder / "large.bin")
    response.json({"instead": True})


@app.route("/raises")
def raises(request: Request, response: Response) -> None:
    response.send_file(_folder / "large.bin")
    raise LookupError("after all")


@app.route("/kept")
def kept(request: Request, response: Response) -> None:
    """A response of an earlier request, which is over."""
    global _earlier
    if _earlier is None:
        _earlier = response
        response.send_file(_folder / "large.bin")
        return
    with contextlib.suppress(RuntimeError):
        _earlier.set_header("X-Late", "yes")
        raise AssertionError("it was set")
    with contextlib.suppress(RuntimeError):
        _earlier.send_file(_folder / "small.txt")
        raise AssertionError("it was taken")
    response.write("it was over")


_earlier: Response | None = None


@app.route("/upload", methods=["POST"], stream=True)
def upload(request: Request, response: Response) -> None:
    """Answers with a file and leaves the body."""
    response.send_file(_folder / "small.txt")
