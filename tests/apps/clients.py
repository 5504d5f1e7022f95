"""The application of tests/apps/streams.py, with what browsers and other whole clients need too:
tests/test_clients.py, tests/test_hostile_clients.py and tests/test_floods.py. The folder of its
files is FILES in the environment, else docs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from theframework import Request, Response, sleep

from tests.apps.streams import app

__all__ = ["app"]
_reports: list[object] = []
_folder = Path(os.environ.get("FILES", "docs"))

# Does in a browser what the other clients' tests do one by one, and reports what it saw.
PAGE = """<!doctype html>
<title>a page</title>
<link rel="icon" href="data:,">
<script>
async function sha256(buffer) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", buffer));
  return [...digest].map(byte => byte.toString(16).padStart(2, "0")).join("");
}
function events(url, count) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(url), seen = [];
    source.addEventListener("tick", event => {
      seen.push([event.data, event.lastEventId]);
      if (seen.length === count) { source.close(); resolve(seen); }
    });
    source.onerror = () => { if (seen.length < count) reject(new Error("event stream")); };
  });
}
async function run() {
  const report = {};
  const small = await fetch("/upload", {method: "POST", body: "small"});
  report.small = await small.json();
  const data = new Uint8Array(3000000).map((_, index) => index % 251);
  const large = await fetch("/digest", {method: "POST", body: data});
  const [count, hash] = await large.json();
  report.large = [count, hash === await sha256(data)];
  const form = new FormData();
  form.append("file", new Blob([data]), "a file");
  report.form = (await (await fetch("/count", {method: "POST", body: form})).json()) > data.length;
  const known = await (await fetch("/known/4000000/40/100000")).arrayBuffer();
  report.known = [known.byteLength, await sha256(known)];
  const reader = (await fetch("/pieces/40/100000")).body.getReader();
  let length = 0;
  for (;;) {
    const {done, value} = await reader.read();
    if (done) break;
    length += value.length;
  }
  report.chunked = length;
  report.events = await events("/events/5", 5);
  const head = await fetch("/large/100000", {method: "HEAD"});
  report.head = [head.headers.get("Content-Length"), (await head.text()).length];
  const part = await fetch("/file/large.bin", {headers: {Range: "bytes=100-299"}});
  report.part = [part.status, await sha256(await part.arrayBuffer())];
  report.file = [];
  for (let time = 0; time < 2; time++) {
    const file = await fetch("/file/large.bin", {cache: "no-cache"});
    report.file.push(await sha256(await file.arrayBuffer()));
  }
  const moved = await fetch("/moved");
  report.moved = [moved.redirected, new URL(moved.url).pathname, await moved.text()];
  const again = await fetch("/moved-upload", {method: "POST", body: "with a body"});
  report.moved_upload = (await again.json())[0];
  const aborter = new AbortController();
  const endless = (await fetch("/endless/browser", {signal: aborter.signal})).body.getReader();
  await endless.read();
  aborter.abort();
  const before = (await (await fetch("/stats")).json()).accepted;
  for (let number = 0; number < 50; number++) await (await fetch("/")).text();
  report.opened_for_50 = (await (await fetch("/stats")).json()).accepted - before;
  return report;
}
run().catch(error => ({error: String(error)})).then(
  report => fetch("/report", {method: "POST", body: JSON.stringify(report)}));
</script>
"""


@app.route("/page")
def page(request: Request, response: Response) -> None:
    response.set_header("Content-Type", "text/html; charset=utf-8")
    response.write(PAGE)


@app.route("/report", methods=["POST"])
def report(request: Request, response: Response) -> None:
    _reports.append(request.json())
    response.write("thanks")


@app.route("/reports")
def reports(request: Request, response: Response) -> None:
    response.json(_reports)
    _reports.clear()


@app.route("/upload", methods=["POST", "PUT"])
def upload(request: Request, response: Response) -> None:
    """The length and hash of a body that was received first."""
    response.json([len(request.body), hashlib.sha256(request.body).hexdigest()])


@app.route("/large/{size}")
def large(request: Request, response: Response) -> None:
    response.set_header("Content-Type", "application/octet-stream")
    response.write(b"0123456789abcdef" * (int(request.params["size"]) // 16))


@app.route("/file/{name}", methods=["GET", "HEAD"])
def file(request: Request, response: Response) -> None:
    if "if-none-match" in request.headers:
        _asked_again.append(request.headers["if-none-match"])
    response.send_file(_folder / request.params["name"])


_asked_again: list[str] = []


@app.route("/asked-again")
def asked_again(request: Request, response: Response) -> None:
    """How often somebody asked whether a file has changed, since this was asked last."""
    response.json(len(_asked_again))
    _asked_again.clear()


@app.route("/moved")
def moved(request: Request, response: Response) -> None:
    response.redirect("/")


@app.route("/moved-upload", methods=["POST", "PUT"])
def moved_upload(request: Request, response: Response) -> None:
    response.redirect("/upload", status=307)


@app.route("/headers")
def headers(request: Request, response: Response) -> None:
    """Reads all of them, as a dictionary and as they came."""
    response.json([len(request.headers), len(request.raw_headers)])


@app.route("/sleep/{seconds}")
def sleeping(request: Request, response: Response) -> None:
    sleep(float(request.params["seconds"]))
    response.write("slept")


@app.route("/cpu")
def cpu(request: Request, response: Response) -> None:
    times = os.times()
    response.json([times.user, times.system])
