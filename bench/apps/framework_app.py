"""The benchmark's application on Theframework: the routes that every peer's application has."""

import json

from theframework import Framework, Request, Response, sleep

app = Framework()


@app.route("/hello")
def hello(request: Request, response: Response) -> None:
    response.set_header("Content-Type", "text/plain")
    response.write("hello world")


@app.route("/items")
def items(request: Request, response: Response) -> None:
    headers = request.headers
    body = json.dumps(
        {
            "page": request.query_params.get("page", ""),
            "agent": headers.get("user-agent", "")[:16],
            "lang": headers.get("accept-language", "")[:16],
            "items": [1, 2, 3],
        }
    )
    response.set_header("Content-Type", "application/json")
    response.write(body)


@app.route("/upload", methods=["POST"])
def upload(request: Request, response: Response) -> None:
    response.set_header("Content-Type", "text/plain")
    response.write(str(len(request.body)))


@app.route("/len", methods=["POST"])
def length(request: Request, response: Response) -> None:
    upload(request, response)


@app.route("/sleep")
def sleeping(request: Request, response: Response) -> None:
    sleep(0.05)
    response.set_header("Content-Type", "text/plain")
    response.write("slept")


@app.route("/vary/{id}")
def vary(request: Request, response: Response) -> None:
    response.set_header("Content-Type", "text/plain")
    response.write(
        f"{request.params['id']} {request.query_params['q']} {request.headers['x-vary']}"
    )
