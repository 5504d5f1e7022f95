"""Bodies that are larger than memory, answers that last, and files.

theframework run examples.streams:app
curl -T big.iso http://127.0.0.1:8000/upload
curl -N http://127.0.0.1:8000/clock
curl http://127.0.0.1:8000/numbers
curl -r 0-99 http://127.0.0.1:8000/source
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

from theframework import Framework, Request, Response, sleep

app = Framework()


@app.route("/upload", methods=["POST", "PUT"], stream=True, max_stream_size=10 << 30)
def upload(request: Request, response: Response) -> None:
    """Takes a body of up to 10 GiB piece by piece; the client is held back while we compute."""
    digest, size = hashlib.sha256(), 0
    for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    response.json({"bytes": size, "sha256": digest.hexdigest()})


@app.route("/clock")
def clock(request: Request, response: Response) -> None:
    """Server-sent events, until the client leaves: the next one then raises ClientDisconnected."""
    while True:
        response.send_event(time.strftime("%H:%M:%S"), "tick")
        sleep(1)


@app.route("/numbers")
def numbers(request: Request, response: Response) -> None:
    """A table that nobody has in memory; the generator rests while the client is slow."""

    def rows() -> Iterator[str]:
        for number in range(100_000):
            yield f"{number},{number * number}\n"

    response.set_header("Content-Type", "text/csv")
    response.stream(rows())


@app.route("/source")
def source(request: Request, response: Response) -> None:
    """A file, with ranges and conditional answers, sent without passing through Python."""
    response.send_file(__file__, content_type="text/plain; charset=utf-8")


if __name__ == "__main__":
    app.run()
