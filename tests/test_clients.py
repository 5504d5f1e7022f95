"""Programs and libraries that people use, against a running server.

Each does what it is used for: uploads (small, large, of a length that is not known before),
downloads, ranges of files, event streams, redirects, HEAD, and many requests over one connection,
which the server counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests

from tests.server import Server, command, wait_for

pytestmark = pytest.mark.wire

APP = "tests.apps.clients:app"
SMALL = b"a small body"
LARGE = random.Random(1).randbytes(5_000_000)
# Below max_body_size, for routes that receive the body first.
MEDIUM = LARGE[:1_000_000]
BODIES = [b"", SMALL, MEDIUM]
PIECES = b"".join(number.to_bytes(4, "big") * 25_000 for number in range(40))
EVENT = "event: tick\nid: {0}\nretry: 1500\ndata: number {0}\ndata: second line\n\n"
REUSED = 200


@pytest.fixture(scope="module")
def _running(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "large.bin").write_bytes(LARGE)
    environment = {"FILES": str(folder)}
    server = Server(command("run", APP, "--port", "0"), folder / "log", env=environment)
    yield server
    server.stop()


@pytest.fixture
def server(_running: Server) -> Iterator[Server]:
    yield _running
    _running.assert_unchanged()
    assert "panicked" not in _running.log()


@pytest.fixture
def url(server: Server) -> str:
    host, port = server.address
    return f"http://{host}:{port}"


@pytest.fixture
def opened(server: Server) -> Callable[[], int]:
    """How many connections the server has accepted since the test began, or since the last call."""
    before = server.get("/stats").json()["accepted"]

    def count() -> int:
        nonlocal before
        now: int = server.get("/stats").json()["accepted"]
        # The one that asks is new as well.
        opened, before = now - before - 1, now
        return opened

    return count


def digest(data: bytes) -> list[object]:
    return [len(data), hashlib.sha256(data).hexdigest()]


def in_pieces(data: bytes, size: int = 70_000) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def async_pieces(data: bytes) -> AsyncIterator[bytes]:
    for piece in in_pieces(data):
        yield piece


def seen(server: Server) -> list[str]:
    """What handlers have noted since it was asked last."""
    notes: list[str] = json.loads(server.get("/seen").body)
    return notes


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(arguments, input=stdin, capture_output=True, timeout=30, check=False)


# curl


@pytest.fixture
def curl(program: Callable[[str], str]) -> Callable[..., bytes]:
    """Run curl; what it writes to stdout, and of `curl.notes` what it tells of the exchange."""
    path = program("curl")

    def call(*arguments: str, stdin: bytes = b"") -> bytes:
        done = run(path, "--silent", "--show-error", "--fail", *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        call.notes = done.stderr.decode(errors="replace")  # type: ignore[attr-defined]
        return done.stdout

    return call


@pytest.mark.parametrize("body", BODIES, ids=len)
@pytest.mark.parametrize("target", ["/upload", "/digest"])
def test_curl_uploads_by_length(
    curl: Callable[..., bytes], url: str, target: str, body: bytes
) -> None:
    got = json.loads(curl("--data-binary", "@-", url + target, stdin=body))
    assert got[:2] == digest(body)


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("target", ["/upload", "/digest"])
def test_curl_uploads_in_chunks(
    curl: Callable[..., bytes], url: str, target: str, method: str
) -> None:
    body = LARGE if target == "/digest" else MEDIUM
    got = curl("--upload-file", "-", "-X", method, "-v", url + target, stdin=body)
    assert json.loads(got)[:2] == digest(body)
    assert "> Transfer-Encoding: chunked" in curl.notes  # type: ignore[attr-defined]


@pytest.mark.parametrize("target", ["/upload", "/digest"])
def test_curl_waits_for_100_continue(curl: Callable[..., bytes], url: str, target: str) -> None:
    expect = ("-H", "Expect: 100-continue", "--expect100-timeout", "20")
    got = curl("-v", *expect, "--data-binary", "@-", url + target, stdin=MEDIUM)
    assert json.loads(got)[:2] == digest(MEDIUM)
    notes: str = curl.notes  # type: ignore[attr-defined]
    assert re.findall(r"^< HTTP/1.1 (\d+)", notes, re.MULTILINE) == ["100", "200"]


def test_curl_is_refused_before_it_sends_its_body(program: Callable[[str], str], url: str) -> None:
    expect = ("-H", "Expect: 100-continue", "--expect100-timeout", "20")
    done = run(program("curl"), "-sv", *expect, "--data-binary", "@-", url + "/upload", stdin=LARGE)
    assert done.stdout == b"413 Content Too Large\n"
    notes = done.stderr.decode()
    assert re.findall(r"^< HTTP/1.1 (\d+)", notes, re.MULTILINE) == ["413"]
    assert "* Closing connection" in notes or "HTTP error before end of send" in notes


def test_curl_reads_a_refusal_while_it_sends(program: Callable[[str], str], url: str) -> None:
    """The connection lingers: curl gets all of the response, and no reset."""
    done = run(
        program("curl"), "-s", "-H", "Expect:", "--data-binary", "@-", f"{url}/upload", stdin=LARGE
    )
    assert (done.returncode, done.stdout) == (0, b"413 Content Too Large\n")


def test_curl_downloads(curl: Callable[..., bytes], url: str) -> None:
    assert curl(f"{url}/known/4000000/40/100000") == PIECES
    assert curl(f"{url}/pieces/40/100000") == PIECES
    assert curl("--http1.0", f"{url}/pieces/40/100000") == PIECES
    assert curl(f"{url}/large/1600000") == b"0123456789abcdef" * 100_000


def test_curl_takes_ranges(curl: Callable[..., bytes], url: str, tmp_path: Path) -> None:
    target = f"{url}/file/large.bin"
    assert curl(target) == LARGE
    assert curl("-r", "1000-1999", target) == LARGE[1000:2000]
    assert curl("-r", "-500", target) == LARGE[-500:]
    # It goes on with what it has.
    saved = tmp_path / "saved"
    saved.write_bytes(LARGE[:1_234_567])
    curl("-C", "-", "-o", str(saved), target)
    assert saved.read_bytes() == LARGE


def test_curl_asks_whether_a_file_has_changed(
    curl: Callable[..., bytes], server: Server, url: str, tmp_path: Path
) -> None:
    target, etag = f"{url}/file/large.bin", str(tmp_path / "etag")
    server.get("/asked-again")
    assert curl("--etag-save", etag, target) == LARGE
    assert curl("--etag-compare", etag, "-w", "%{http_code}", target) == b"304"
    # By the date of what it has.
    (tmp_path / "saved").write_bytes(LARGE)
    assert curl("-z", str(tmp_path / "saved"), "-w", "%{http_code}", target) == b"304"
    assert server.get("/asked-again").json() == 1


def test_curl_shows_events_as_they_come(curl: Callable[..., bytes], url: str) -> None:
    expected = "".join(EVENT.format(number) for number in range(4))
    assert curl("-N", f"{url}/events/4").decode() == expected


def test_curl_takes_the_head_alone(curl: Callable[..., bytes], url: str) -> None:
    head = curl("-I", f"{url}/large/100000").decode()
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert "Content-Length: 100000\r\n" in head
    curl("-I", f"{url}/pieces/40/100000")


def test_curl_follows_redirects(curl: Callable[..., bytes], url: str) -> None:
    assert curl("-L", f"{url}/moved") == b"hello world"
    got = curl("-L", "--data-binary", "@-", f"{url}/moved-upload", stdin=MEDIUM)
    assert json.loads(got) == digest(MEDIUM)


def test_curl_reuses_its_connection(
    curl: Callable[..., bytes], url: str, opened: Callable[[], int]
) -> None:
    targets = ("/", "/known/4000000/40/100000", "/pieces/3/70000", "/events/1", "/moved") * 10
    curl("-L", *(url + target for target in targets))
    assert opened() == 1


# h2load, as an HTTP/1.1 client


@pytest.mark.parametrize("target", ["/", "/pieces/5/5000", "/large/100000"])
def test_h2load(
    program: Callable[[str], str], url: str, opened: Callable[[], int], target: str
) -> None:
    count = 2000
    done = run(program("h2load"), "--h1", "-n", str(count), "-c", "20", url + target)
    text = done.stdout.decode()
    requests_line = f"requests: {count} total, {count} started, {count} done, {count} succeeded"
    assert requests_line in text, text + done.stderr.decode()
    assert f"status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx" in text
    assert opened() == 20


def test_h2load_uploads(program: Callable[[str], str], url: str, tmp_path: Path) -> None:
    """As many bodies as it wants under way at a time."""
    (tmp_path / "body").write_bytes(MEDIUM)
    arguments = ("--h1", "-n", "100", "-c", "10", "-d", str(tmp_path / "body"))
    for target in ("/upload", "/digest"):
        done = run(program("h2load"), *arguments, url + target)
        assert b"status codes: 100 2xx, 0 3xx, 0 4xx, 0 5xx" in done.stdout, done.stdout


# requests


@pytest.fixture
def session(url: str) -> Iterator[requests.Session]:
    """Ends before the server is looked at."""
    with requests.Session() as session:
        yield session


@pytest.mark.parametrize("body", BODIES, ids=len)
@pytest.mark.parametrize("target", ["/upload", "/digest"])
def test_requests_uploads(
    session: requests.Session, url: str, target: str, body: bytes, opened: Callable[[], int]
) -> None:
    for _ in range(3):
        assert session.post(url + target, data=body, timeout=10).json()[:2] == digest(body)
        assert session.put(url + target, data=in_pieces(body), timeout=10).json()[:2] == digest(
            body
        )
    assert opened() == 1


def test_requests_uploads_what_is_large(session: requests.Session, url: str) -> None:
    assert session.post(f"{url}/digest", data=LARGE, timeout=10).json()[:2] == digest(LARGE)
    chunked = session.post(f"{url}/digest", data=in_pieces(LARGE), timeout=10)
    assert chunked.json()[:2] == digest(LARGE)
    form = session.post(f"{url}/count", files={"file": LARGE}, timeout=10)
    assert form.json() > len(LARGE)


def test_requests_downloads(session: requests.Session, url: str) -> None:
    assert session.get(f"{url}/known/4000000/40/100000", timeout=10).content == PIECES
    with session.get(f"{url}/pieces/40/100000", stream=True, timeout=10) as answer:
        assert b"".join(answer.iter_content(10_000)) == PIECES
    assert len(session.get(f"{url}/large/16000000", timeout=10).content) == 16_000_000


def test_requests_takes_ranges(session: requests.Session, url: str) -> None:
    def get(**headers: str) -> requests.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return session.get(f"{url}/file/large.bin", headers=names, timeout=10)

    part = get(Range="bytes=4999000-")
    assert (part.status_code, part.content) == (206, LARGE[-1000:])
    assert part.headers["Content-Range"] == "bytes 4999000-4999999/5000000"
    assert get(Range="bytes=5000000-").status_code == 416
    etag = part.headers["ETag"]
    assert get(Range="bytes=0-9", If_Range=etag).content == LARGE[:10]
    assert get(Range="bytes=0-9", If_Range='"another"').content == LARGE
    again = get(If_None_Match=etag)
    assert (again.status_code, again.content) == (304, b"")


def test_requests_reads_events(session: requests.Session, url: str) -> None:
    with session.get(f"{url}/events/3", stream=True, timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        lines = list(answer.iter_lines(decode_unicode=True))
    assert lines == "".join(EVENT.format(number) for number in range(3)).splitlines()


def test_requests_heads_and_redirects(
    session: requests.Session, url: str, opened: Callable[[], int]
) -> None:
    head = session.head(f"{url}/large/100000", timeout=10)
    assert (head.headers["Content-Length"], head.content) == ("100000", b"")
    assert session.head(f"{url}/pieces/3/100000", timeout=10).content == b""
    moved = session.get(f"{url}/moved", timeout=10)
    assert ([answer.status_code for answer in moved.history], moved.text) == ([302], "hello world")
    again = session.post(f"{url}/moved-upload", data=MEDIUM, timeout=10)
    assert ([answer.status_code for answer in again.history], again.json()) == (
        [307],
        digest(MEDIUM),
    )
    assert opened() == 1


def test_requests_reuses_its_connection(
    session: requests.Session, url: str, opened: Callable[[], int]
) -> None:
    for _ in range(REUSED):
        assert session.get(url, timeout=10).content == b"hello world"
    assert opened() == 1


# httpx


def test_httpx(url: str, opened: Callable[[], int]) -> None:
    """All that `requests` does, over one connection."""
    with httpx.Client(base_url=url, timeout=10) as client:
        for target in ("/upload", "/digest"):
            for body in BODIES:
                assert client.post(target, content=body).json()[:2] == digest(body)
                assert client.put(target, content=in_pieces(body)).json()[:2] == digest(body)
        assert client.post("/digest", content=in_pieces(LARGE)).json()[:2] == digest(LARGE)
        assert client.post("/count", files={"file": LARGE}).json() > len(LARGE)
        assert client.get("/known/4000000/40/100000").content == PIECES
        with client.stream("GET", "/pieces/40/100000") as answer:
            assert b"".join(answer.iter_raw()) == PIECES
        assert client.get("/file/large.bin").content == LARGE
        part = client.get("/file/large.bin", headers={"Range": "bytes=7-70000"})
        assert (part.status_code, part.content) == (206, LARGE[7:70_001])
        etag = part.headers["ETag"]
        assert client.get("/file/large.bin", headers={"If-None-Match": etag}).status_code == 304
        with client.stream("GET", "/events/3") as answer:
            text = "".join(answer.iter_text())
        assert text == "".join(EVENT.format(number) for number in range(3))
        head = client.head("/large/100000")
        assert (head.headers["Content-Length"], head.content) == ("100000", b"")
        moved = client.get("/moved", follow_redirects=True)
        assert ([answer.status_code for answer in moved.history], moved.text) == (
            [302],
            "hello world",
        )
        again = client.post("/moved-upload", content=MEDIUM, follow_redirects=True)
        assert again.json() == digest(MEDIUM)
        for _ in range(REUSED):
            assert client.get("/").content == b"hello world"
    assert opened() == 1


def test_httpx_leaves_in_the_middle(server: Server, url: str) -> None:
    with (
        httpx.Client(base_url=url, timeout=10) as client,
        client.stream("GET", "/endless/httpx") as answer,
    ):
        next(answer.iter_raw())
    wait_for(lambda: "httpx ClientDisconnected" in seen(server), "the handler is told")


def test_httpx_async(url: str, opened: Callable[[], int]) -> None:
    """Twenty at a time; as many connections as it allows itself, and none is opened twice."""

    async def ask() -> None:
        limits = httpx.Limits(max_connections=20, max_keepalive_connections=20)
        async with httpx.AsyncClient(base_url=url, timeout=20, limits=limits) as client:

            async def upload(number: int) -> None:
                body = MEDIUM[: number * 5000]
                got = await client.post("/digest", content=async_pieces(body))
                assert got.json()[:2] == digest(body)
                assert (await client.get("/pieces/4/70000")).content == PIECES_OF_4

            await asyncio.gather(*(upload(number) for number in range(100)))
            async with client.stream("GET", "/events/3") as answer:
                text = "".join([piece async for piece in answer.aiter_text()])
            assert text == "".join(EVENT.format(number) for number in range(3))

    asyncio.run(ask())
    assert opened() <= 20


PIECES_OF_4 = b"".join(number.to_bytes(4, "big") * 17_500 for number in range(4))


# aiohttp


def test_aiohttp(url: str, opened: Callable[[], int]) -> None:
    """All that `requests` does, over one connection."""

    async def ask() -> None:
        async with aiohttp.ClientSession(url) as session:
            for target in ("/upload", "/digest"):
                for body in BODIES:
                    async with session.post(target, data=body) as answer:
                        assert (await answer.json())[:2] == digest(body)
                    async with session.put(target, data=async_pieces(body)) as answer:
                        assert (await answer.json())[:2] == digest(body)
                async with session.post(target, data=MEDIUM, expect100=True) as answer:
                    assert (await answer.json())[:2] == digest(MEDIUM)
            async with session.post("/digest", data=async_pieces(LARGE)) as answer:
                assert (await answer.json())[:2] == digest(LARGE)
            async with session.get("/known/4000000/40/100000") as answer:
                assert await answer.read() == PIECES
            async with session.get("/pieces/40/100000") as answer:
                assert b"".join([piece async for piece in answer.content.iter_any()]) == PIECES
            async with session.get("/file/large.bin") as answer:
                assert await answer.read() == LARGE
            ranged = {"Range": "bytes=7-70000", "If-Range": answer.headers["ETag"]}
            async with session.get("/file/large.bin", headers=ranged) as answer:
                assert (answer.status, await answer.read()) == (206, LARGE[7:70_001])
            known = {"If-None-Match": answer.headers["ETag"]}
            async with session.get("/file/large.bin", headers=known) as answer:
                assert (answer.status, await answer.read()) == (304, b"")
            async with session.get("/events/3") as answer:
                lines = [line.decode() async for line in answer.content]
            assert "".join(lines) == "".join(EVENT.format(number) for number in range(3))
            async with session.head("/large/100000") as answer:
                assert (answer.headers["Content-Length"], await answer.read()) == ("100000", b"")
            async with session.get("/moved") as answer:
                assert [moved.status for moved in answer.history] == [302]
                assert await answer.text() == "hello world"
            async with session.post("/moved-upload", data=MEDIUM) as answer:
                assert await answer.json() == digest(MEDIUM)
            for _ in range(REUSED):
                async with session.get("/") as answer:
                    assert await answer.read() == b"hello world"

    asyncio.run(ask())
    assert opened() == 1


def test_aiohttp_many_at_a_time(url: str, opened: Callable[[], int]) -> None:
    async def ask() -> None:
        connector = aiohttp.TCPConnector(limit=20)
        async with aiohttp.ClientSession(url, connector=connector) as session:

            async def once(number: int) -> None:
                body = MEDIUM[: number * 5000]
                async with session.post("/digest", data=async_pieces(body)) as answer:
                    assert (await answer.json())[:2] == digest(body)
                async with session.get("/pieces/4/70000") as answer:
                    assert await answer.read() == PIECES_OF_4

            await asyncio.gather(*(once(number) for number in range(100)))

    asyncio.run(ask())
    assert opened() <= 20


# A browser


@contextlib.contextmanager
def browser(path: str, profile: Path, address: str) -> Iterator[Path]:
    """A browser without a screen that shows a page; its log."""
    log_path = profile.with_suffix(".log")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    silent = ("--no-first-run", "--disable-background-networking", "--disable-component-update")
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            [
                path,
                *options,
                *silent,
                f"--user-data-dir={profile}",
                "--remote-debugging-port=0",
                address,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield log_path
    finally:
        # Its helpers are in its process group, which is its own.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def test_a_browser(program: Callable[[str], str], server: Server, url: str, tmp_path: Path) -> None:
    path = program("chromium")
    reports: list[dict[str, object]] = []
    with server.client() as watcher:
        watcher.get("/reports")
        watcher.get("/asked-again")

        def has_reported() -> bool:
            # Over a connection that is there: the page counts how many it opens.
            reports.extend(json.loads(watcher.get("/reports").body))
            return bool(reports)

        with browser(path, tmp_path / "profile", f"{url}/page") as log:
            wait_for(has_reported, f"the page reports, see {log}", 40)
    (report,) = reports
    opened = report.pop("opened_for_50")
    assert report == {
        "small": digest(b"small"),
        "large": [3_000_000, True],
        "form": True,
        "known": [len(PIECES), hashlib.sha256(PIECES).hexdigest()],
        "chunked": len(PIECES),
        "events": [[f"number {number}\nsecond line", str(number)] for number in range(5)],
        "head": ["100000", 0],
        "part": [206, hashlib.sha256(LARGE[100:300]).hexdigest()],
        "file": [hashlib.sha256(LARGE).hexdigest()] * 2,
        "moved": [True, "/", "hello world"],
        "moved_upload": len(b"with a body"),
    }
    # It had the file, and asked whether that has changed.
    assert server.get("/asked-again").json() == 1
    assert opened in (0, 1), "50 requests one after the other share a connection"
    wait_for(lambda: "browser ClientDisconnected" in seen(server), "the handler is told")
