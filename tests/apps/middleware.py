"""Middleware in every role: before and after, answering itself, catching, replacing."""

from __future__ import annotations

from theframework import Framework, Next, Request, Response

app = Framework()


def outer(request: Request, response: Response, next: Next) -> None:
    request.trail = ["outer"]
    next()
    response.set_header("X-Trail", " ".join([*request.trail, "outer-after"]))


app.use(outer)


@app.use
def guard(request: Request, response: Response, next: Next) -> None:
    request.trail.append("guard")
    if request.headers.get("x-token") == "wrong":
        response.set_status(400)
        response.set_header("Content-Type", "text/plain")
        response.write("no entry")
        return
    next(request, response)
    request.trail.append("guard-after")


@app.use
def catch(request: Request, response: Response, next: Next) -> None:
    try:
        next()
    except KeyError as error:
        response.set_header("Content-Type", "text/plain")
        response.write(f"caught {error.args[0]}")


@app.route("/")
def index(request: Request, response: Response) -> None:
    request.trail.append("handler")
    response.set_header("Content-Type", "text/plain")
    response.write("index")


@app.route("/key-error")
def key_error(request: Request, response: Response) -> None:
    raise KeyError("lost")


@app.route("/error")
def error(request: Request, response: Response) -> None:
    raise RuntimeError("a secret detail")
