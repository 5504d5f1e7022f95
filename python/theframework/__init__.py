"""theframework: synchronous Python handlers on a Rust io_uring core.

from theframework import Framework, Request, Response

app = Framework()

@app.route("/hello/{name}")
def hello(request: Request, response: Response) -> None:
    response.write(f"hello {request.params['name']}")

app.run(port=8000)
"""

from theframework._framework_core import (
    BodyError,
    ClientDisconnected,
    HandlerTimeout,
    Next,
    Request,
    Response,
    sleep,
)
from theframework._version import __version__
from theframework.app import Framework

__all__ = [
    "BodyError",
    "ClientDisconnected",
    "Framework",
    "HandlerTimeout",
    "Next",
    "Request",
    "Response",
    "__version__",
    "sleep",
]
