"""The smallest application.

Run it:  make run, or: theframework run examples.hello:app
Try it:  curl http://127.0.0.1:8000/hello/you
"""

from theframework import Framework, Request, Response

app = Framework()


@app.route("/")
def index(request: Request, response: Response) -> None:
    response.set_header("Content-Type", "text/plain")
    response.write("hello world")


@app.route("/hello")
def hello(request: Request, response: Response) -> None:
    response.set_header("Content-Type", "text/plain")
    response.write("hello")


@app.route("/hello/{name}")
def hello_name(request: Request, response: Response) -> None:
    response.set_header("Content-Type", "text/plain; charset=utf-8")
    response.write(f"hello {request.params['name']}")


if __name__ == "__main__":
    app.run()
