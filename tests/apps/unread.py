"""Handlers that leave a streamed body unread, and how they answer: tests/test_unread.py."""

from __future__ import annotations

from theframework import Framework, Request, Response

app = Framework()


@app.route("/")
def index(request: Request, response: Response) -> None:
    response.write("hello world")


@app.route("/whole", methods=["POST"], stream=True)
def whole(request: Request, response: Response) -> None:
    response.write("answer")


@app.route("/chunks", methods=["POST"], stream=True)
def chunks(request: Request, response: Response) -> None:
    response.stream(["ans", "wer"])


@app.route("/length", methods=["POST"], stream=True)
def length(request: Request, response: Response) -> None:
    response.stream(["ans", "wer"], content_length=6)


@app.route("/file", methods=["POST"], stream=True)
def file(request: Request, response: Response) -> None:
    response.send_file(__file__)


@app.route("/some", methods=["POST"], stream=True)
def some(request: Request, response: Response) -> None:
    """Reads the beginning."""
    next(request.stream())
    response.stream(["ans", "wer"])
