"""Files of one folder, by name: bench/files.py."""

from __future__ import annotations

import os

from theframework import Framework, Request, Response

app = Framework()
_paths = {name: f"{os.environ['FILES']}/{name}" for name in ("small.bin", "large.bin")}


@app.route("/file/{name}")
def file(request: Request, response: Response) -> None:
    response.send_file(_paths[request.params["name"]])
