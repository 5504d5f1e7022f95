"""Files as responses: conditions, ranges, large ones, slow clients, files that change."""

from __future__ import annotations

import email.utils
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client import Client, page, refusal, request
from tests.conftest import Start
from tests.server import Server, command, wait_for

APP = "tests.apps.files:app"
SMALL = b"some text\n" * 20
LARGE = random.Random(1).randbytes(3_000_001)
WINDOW = 128 * 1024
MODIFIED = 1_000_000_000
DATE = "Sun, 09 Sep 2001 01:46:40 GMT"
TEXT = "text/plain; charset=utf-8"
BINARY = "application/octet-stream"
# A file that says it has 4096 bytes.
LIAR = "/sys/devices/system/cpu/online"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write(folder / "small.txt", SMALL)
    write(folder / "large.bin", LARGE)
    write(folder / "empty.txt", b"")
    return folder


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    os.utime(path, (MODIFIED, MODIFIED))


def tag(size: int) -> str:
    return f'"{MODIFIED * 10**9:x}-{size:x}"'


def fields(size: int) -> dict[str, Any]:
    return {"etag": tag(size), "last_modified": DATE, "accept_ranges": "bytes"}


@pytest.fixture(scope="module")
def _files(driver: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log_path = tmp_path_factory.mktemp("log") / "log"
    server = Server(command("run", APP, "--port", "0"), log_path, env={"FILES": str(folder)})
    # On poll the first file that only a thread can read opens a descriptor for good.
    with server.client() as client:
        client.send(request("GET", f"/anywhere?path={LIAR}"))
        client.read_to_end()
    server.settle()
    yield server
    server.stop()


@pytest.fixture
def server(_files: Server) -> Iterator[Server]:
    yield _files
    _files.assert_unchanged()
    assert "Fatal" not in _files.log()
    assert "panicked" not in _files.log()
    assert "AssertionError" not in _files.log()


def test_a_file_is_sent_as_it_is(server: Server) -> None:
    with server.client() as client:
        for _ in range(3):
            answer = client.get("/file/small.txt")
            assert answer.whole() == page(SMALL, TEXT, **fields(len(SMALL)))
            answer = client.get("/text/large.bin")
            assert answer.whole() == page(LARGE, BINARY, **fields(len(LARGE)))
            assert client.get("/").body == b"hello world"


def test_an_empty_file_has_an_empty_body(server: Server) -> None:
    with server.client() as client:
        for range_ in ((), ("Range: bytes=0-",), ("Range: bytes=-5",)):
            answer = client.get("/file/empty.txt", *range_)
            assert answer.whole() == page(b"", TEXT, **fields(0))


@pytest.mark.parametrize(("name", "data"), [("small.txt", SMALL), ("large.bin", LARGE)])
def test_head_is_get_without_the_body(server: Server, name: str, data: bytes) -> None:
    with server.client() as client:
        answer = client.request("HEAD", f"/file/{name}", headers=("Range: bytes=1-2",))
        status, reason, headers, body = answer.whole()
        kind = TEXT if name == "small.txt" else BINARY
        assert (status, reason, headers) == page(data, kind, **fields(len(data)))[:3]
        assert body == b""
        assert client.get("/").body == b"hello world"


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("0-0", 0, 0),
        ("1-9", 1, 9),
        (f"{WINDOW - 500}-{WINDOW + 500}", WINDOW - 500, WINDOW + 500),
        ("1000000-", 1_000_000, len(LARGE) - 1),
        ("-7", len(LARGE) - 7, len(LARGE) - 1),
        ("2999999-9999999999999999999999", 2_999_999, len(LARGE) - 1),
    ],
)
def test_a_range_is_sent(server: Server, asked: str, first: int, last: int) -> None:
    with server.client() as client:
        answer = client.get("/file/large.bin", f"Range: bytes={asked}")
        assert (answer.status, answer.reason) == (206, "Partial Content")
        assert answer.header("Content-Range") == f"bytes {first}-{last}/{len(LARGE)}"
        assert answer.header("ETag") == tag(len(LARGE))
        assert answer.body == LARGE[first : last + 1]


def test_a_download_goes_on_where_it_was_cut(server: Server) -> None:
    with server.client() as client:
        start = client.get("/file/large.bin", "Range: bytes=0-1999999")
        rest = f"Range: bytes={len(start.body)}-"
        same = client.get("/file/large.bin", rest, f"If-Range: {start.header('ETag')}")
        assert same.status == 206
        assert start.body + same.body == LARGE
        by_date = client.get("/file/large.bin", rest, f"If-Range: {DATE}")
        assert by_date.body == same.body
        for other in ('"other"', f"W/{tag(len(LARGE))}", "Sun, 09 Sep 2001 01:46:41 GMT"):
            changed = client.get("/file/large.bin", rest, f"If-Range: {other}")
            assert (changed.status, changed.body == LARGE) == (200, True)


def test_what_is_no_single_range_is_the_whole(server: Server) -> None:
    with server.client() as client:
        for asked in ("bytes=0-1,3-4", "bytes=5-4", "lines=1-2", "bytes=a-", "bytes=-"):
            answer = client.get("/file/small.txt", f"Range: {asked}")
            assert answer.whole() == page(SMALL, TEXT, **fields(len(SMALL)))


def test_a_range_behind_the_end_is_refused(server: Server) -> None:
    with server.client() as client:
        answer = client.get("/file/small.txt", f"Range: bytes={len(SMALL)}-")
        assert (answer.status, answer.reason) == (416, "Range Not Satisfiable")
        assert answer.header("Content-Range") == f"bytes */{len(SMALL)}"
        assert (answer.body, answer.header("Content-Type")) == (b"", None)
        assert client.get("/").body == b"hello world"


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (f"If-None-Match: {tag(len(SMALL))}", 304),
        (f'If-None-Match: "x", W/{tag(len(SMALL))}', 304),
        ("If-None-Match: *", 304),
        ('If-None-Match: "x"', 200),
        (f"If-Modified-Since: {DATE}", 304),
        ("If-Modified-Since: Sunday, 09-Sep-01 01:46:40 GMT", 304),
        ("If-Modified-Since: Sun Sep  9 01:46:40 2001", 304),
        ("If-Modified-Since: Sun, 09 Sep 2001 01:46:39 GMT", 200),
        ("If-Modified-Since: yesterday", 200),
        (f"If-Match: {tag(len(SMALL))}", 200),
        ('If-Match: "x"', 412),
        (f"If-Unmodified-Since: {DATE}", 200),
        ("If-Unmodified-Since: Sun, 09 Sep 2001 01:46:39 GMT", 412),
    ],
)
def test_conditions(server: Server, condition: str, status: int) -> None:
    with server.client() as client:
        for method in ("GET", "HEAD"):
            answer = client.request(method, "/file/small.txt", headers=(condition,))
            assert answer.status == status
            has_body = status == 200 and method == "GET"
            assert answer.body == (SMALL if has_body else b"")
            assert answer.header("ETag") == tag(len(SMALL))
            assert answer.header("Content-Type") == (TEXT if status == 200 else None)
        assert client.get("/").body == b"hello world"


def test_conditions_are_not_for_posts_nor_for_other_statuses(server: Server) -> None:
    some = (f"If-None-Match: {tag(len(SMALL))}", "Range: bytes=1-2")
    with server.client() as client:
        answer = client.request("POST", "/file/small.txt", headers=(*some, "Content-Length: 0"))
        assert answer.whole() == page(SMALL, TEXT)
        answer = client.get("/not-found", *some)
        assert answer.whole() == page(SMALL, TEXT, 404)


def test_types(server: Server, folder: Path) -> None:
    with server.client() as client:
        for name, kind in [
            ("a.html", "text/html; charset=utf-8"),
            ("a.HTML", "text/html; charset=utf-8"),
            ("a.png", "image/png"),
            ("a.json", "application/json"),
            ("a.tar.gz", "application/gzip"),
            ("a.unheard-of", BINARY),
            ("a", BINARY),
            (".png", BINARY),
        ]:
            write(folder / name, b"x")
            for _ in range(2):
                answer = client.get(f"/file/{name}")
                assert answer.whole() == page(b"x", kind, **fields(1)), name
        assert client.get("/typed/small.txt").header("Content-Type") == "text/x-given"


def test_what_the_handler_has_set_counts(server: Server) -> None:
    with server.client() as client:
        answer = client.get("/set/small.txt")
        assert answer.header("Content-Type") == "text/x-set"
        assert (answer.header("ETag"), answer.header("X-After")) == ('"mine"', "yes")
        assert client.get("/set/small.txt", 'If-None-Match: "mine"').status == 304
        assert client.get("/set/small.txt", f"If-None-Match: {tag(len(SMALL))}").status == 200


@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        ("a.txt", 'attachment; filename="a.txt"'),
        ("two%20words.txt", 'attachment; filename="two words.txt"'),
        ("%22%5C.txt", "attachment; filename=\"__.txt\"; filename*=UTF-8''%22%5C.txt"),
        ("%C3%A4.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A4.txt"),
        ("a%0D%0AX:y", "attachment; filename=\"a__X:y\"; filename*=UTF-8''a%0D%0AX%3Ay"),
    ],
)
def test_a_name_to_save_it_by(server: Server, name: str, disposition: str) -> None:
    answer = server.get(f"/named/small.txt?as={name}")
    assert answer.header("Content-Disposition") == disposition
    assert answer.body == SMALL


def test_what_cannot_be_opened_raises(server: Server, folder: Path) -> None:
    pipe = folder / "pipe"
    if not pipe.exists():
        os.mkfifo(pipe)
    for path, error in [
        (folder / "missing", "FileNotFoundError"),
        (folder / "small.txt" / "x", "NotADirectoryError"),
        (folder, "IsADirectoryError"),
        (pipe, "OSError: [Errno 22]"),
    ]:
        answer = server.get(f"/anywhere?path={path}")
        assert answer.whole() == refusal(500, close=False)
        server.wait_for_log(f"{error}")
        server.wait_for_log(str(path))


def test_misuse_raises_and_changes_nothing(server: Server) -> None:
    with server.client() as client:
        assert client.get("/misuse").whole() == page(SMALL, TEXT, **fields(len(SMALL)))
        assert client.get("/streamed").body == b"streamed"
        assert client.get("/replaced").body == SMALL
        assert client.get("/json-instead").json() == {"instead": True}
        assert client.get("/raises").whole() == refusal(500, close=False)


def test_a_response_that_became_a_file_is_over(server: Server) -> None:
    with server.client() as client:
        client.send(request("GET", "/kept"))
        wait_for(client.has_answer, "the file is on its way")
        assert server.get("/kept").body == b"it was over"
        answer = client.read()
        assert (answer.header("X-Late"), answer.body == LARGE) == (None, True)


def test_pipelined_answers_stay_in_order(server: Server) -> None:
    targets = [
        "/",
        "/file/small.txt",
        "/file/large.bin",
        "/",
        "/waits/small.txt",
        "/file/small.txt",
    ]
    with server.client() as client:
        client.send(b"".join(request("GET", target) for target in targets))
        for target in targets:
            expected = {"l": LARGE, "s": SMALL}.get(target.rpartition("/")[2][:1], b"hello world")
            assert client.read().body == expected


def test_files_for_many_at_once(server: Server) -> None:
    """Also for clients that read in pieces of their own size, through small buffers."""
    failures: list[BaseException] = []

    def fetch(number: int) -> None:
        try:
            chance = random.Random(number)
            with Client(server.address, receive_buffer=4096) as client:
                for _ in range(5):
                    first = chance.randrange(len(LARGE))
                    last = chance.randrange(first, min(first + 500_000, len(LARGE)))
                    answer = client.get("/file/large.bin", f"Range: bytes={first}-{last}")
                    assert answer.body == LARGE[first : last + 1]
                    assert client.get("/file/small.txt").body == SMALL
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def test_the_handler_is_over_while_its_file_is_sent(server: Server) -> None:
    with Client(server.address, receive_buffer=4096) as client:
        client.send(request("GET", "/file/large.bin"))
        wait_for(client.has_answer, "the file is on its way")
        stats = server.get("/stats").json()
        assert stats["workers"] - stats["workers_idle"] <= 1, "only the one that tells"
        assert client.read().body == LARGE


def test_slow_clients_hold_a_window_each(start: Start, tmp_path: Path) -> None:
    write(tmp_path / "huge.bin", bytes(64 << 20))
    server = start(app=APP, env={"FILES": str(tmp_path)})
    before = server.memory_kib()
    clients = [Client(server.address, receive_buffer=4096) for _ in range(50)]
    for client in clients:
        client.send(request("GET", "/file/huge.bin"))
    for client in clients:
        wait_for(client.has_answer, "the file is on its way")
    time.sleep(0.5)
    grown = server.memory_kib() - before
    for client in clients:
        client.close()
    assert grown < 50 * 1.5 * WINDOW // 1024 + 4096, f"{grown} KiB for 50 clients"
    wait_for(lambda: json.loads(server.get("/stats").body)["connections"] == 1, "they have gone")


def test_a_client_that_goes_closes_the_file(server: Server) -> None:
    for end in (Client.close, Client.reset):
        clients = [Client(server.address, receive_buffer=4096) for _ in range(10)]
        for client in clients:
            client.send(request("GET", "/file/large.bin"))
        for client in clients:
            wait_for(client.has_answer, "the file is on its way")
            end(client)
        server.assert_unchanged()


def test_a_file_that_becomes_shorter_ends_the_connection(server: Server, folder: Path) -> None:
    path = folder / "cut.bin"
    write(path, bytes(20_000_000))
    with Client(server.address, receive_buffer=4096) as client:
        client.send(request("GET", "/file/cut.bin"))
        wait_for(client.has_answer, "the file is on its way")
        os.truncate(path, 10_000_000)
        head, _, body = client.read_to_end().partition(b"\r\n\r\n")
        assert b"Content-Length: 20000000" in head
        assert len(body) == 10_000_000


def test_a_file_that_says_it_is_longer_than_it_is_ends_the_connection(server: Server) -> None:
    with server.client() as client:
        client.send(request("GET", f"/anywhere?path={LIAR}"))
        head, _, body = client.read_to_end().partition(b"\r\n\r\n")
    assert b"Content-Length: 4096" in head
    assert body == Path(LIAR).read_bytes()


def test_a_file_that_grows_is_sent_as_it_was(server: Server, folder: Path) -> None:
    path = folder / "log.txt"
    write(path, bytes(5_000_000))
    with Client(server.address, receive_buffer=4096) as client:
        client.send(request("GET", "/file/log.txt"))
        wait_for(client.has_answer, "the file is on its way")
        with path.open("ab") as file:
            file.write(b"more")
        assert client.read().body == bytes(5_000_000)
        assert client.get("/").body == b"hello world"


def test_a_file_that_was_replaced_is_another(server: Server, folder: Path) -> None:
    path = folder / "page.html"
    path.write_bytes(b"old")
    first = server.get("/file/page.html")
    path.write_bytes(b"new")
    os.utime(path, ns=(0, time.time_ns() + 1))
    second = server.get("/file/page.html", f"If-None-Match: {first.header('ETag')}")
    assert (second.status, second.body) == (200, b"new")
    modified = email.utils.parsedate_to_datetime(second.header("Last-Modified") or "")
    assert abs(modified.timestamp() - time.time()) < 5


def test_a_file_that_is_not_in_memory_is_read(server: Server, folder: Path) -> None:
    path = folder / "cold.bin"
    write(path, LARGE)
    with server.client() as client, path.open("rb") as file:
        for _ in range(3):
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert client.get("/file/cold.bin").body == LARGE
            assert client.get("/").body == b"hello world"


def test_a_body_that_was_not_read_ends_the_connection(server: Server) -> None:
    with server.client() as client:
        client.send(request("POST", "/upload", headers=("Content-Length: 100000",)) + bytes(10))
        answer = client.read("POST")
        assert (answer.body, answer.header("Connection")) == (SMALL, "close")
        client.assert_closed()


def test_a_stop_waits_for_a_file(start: Start, folder: Path) -> None:
    server = start(app=APP, env={"FILES": str(folder)})
    with Client(server.address, receive_buffer=4096) as client:
        client.send(request("GET", "/file/large.bin"))
        wait_for(client.has_answer, "the file is on its way")
        server.process.terminate()
        time.sleep(0.3)
        answer = client.read()
        assert answer.body == LARGE
        client.assert_closed()
    assert server.wait() == 0
