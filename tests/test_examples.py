"""The examples, driven over sockets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.client import Answer, Client, page, request
from tests.conftest import Start
from tests.load import Exchange, Plan, run
from tests.server import Server


def test_hello(start: Start) -> None:
    server = start(app="examples.hello:app")
    with server.client() as client:
        assert client.get("/").whole() == page("hello world")
        assert client.get("/hello").whole() == page("hello")
        utf8 = "text/plain; charset=utf-8"
        assert client.get("/hello/you").whole() == page("hello you", utf8)
        assert client.get("/hello/gr%C3%BCn").whole() == page("hello grün", utf8)
        assert client.get("/goodbye").status == 404


def test_streams(start: Start) -> None:
    server = start(app="examples.streams:app")
    with server.client() as client:
        data = bytes(range(256)) * 8192
        digest = hashlib.sha256(data).hexdigest()
        answer = client.request("PUT", "/upload", data).json()
        assert answer == {"bytes": len(data), "sha256": digest}
        rows = "".join(f"{number},{number * number}\n" for number in range(100_000))
        assert client.get("/numbers").whole()[3] == rows.encode()
        source = Path("examples/streams.py").read_bytes()
        assert client.get("/source").body == source
        part = client.get("/source", "Range: bytes=0-99")
        assert (part.status, part.body) == (206, source[:100])
    with server.client() as client:
        client.send(request("GET", "/clock"))
        got = b""
        while b"event: tick\n" not in got:
            got += client.socket.recv(4096)


@pytest.fixture
def todo(start: Start, tmp_path: Path) -> Server:
    server = start(app="examples.todo:app", env={"TODO_DB": str(tmp_path / "todo.db")})
    assert server.get("/todos").json() == []
    server.settle()  # the database is open now
    return server


def send(client: Client, method: str, target: str, value: Any = None) -> Answer:
    body = b"" if value is None else json.dumps(value).encode()
    return client.request(method, target, body, ("Content-Type: application/json",))


def test_todo_from_creation_to_deletion(todo: Server) -> None:
    with todo.client() as client:
        created = send(client, "POST", "/todos", {"title": "water the plants"})
        first = {"id": 1, "title": "water the plants", "done": False}
        assert (created.status, created.header("Location")) == (201, "/todos/1")
        assert created.json() == first
        second = send(client, "POST", "/todos", {"title": "grün", "done": True}).json()
        assert second == {"id": 2, "title": "grün", "done": True}
        assert client.get("/todos").json() == [first, second]
        assert client.get("/todos/2").json() == second
        changed = send(client, "PUT", "/todos/1", {"done": True})
        assert (changed.status, changed.json()) == (200, {**first, "done": True})
        deleted = client.request("DELETE", "/todos/1")
        assert (deleted.status, deleted.body) == (204, b"")
        assert client.get("/todos").json() == [second]
        client.assert_open()


@pytest.mark.parametrize(
    ("method", "target", "value", "status", "error"),
    [
        ("GET", "/todos/9", None, 404, "no such todo"),
        ("GET", "/todos/x", None, 404, "no such todo"),
        ("GET", "/todos/-1", None, 404, "no such todo"),
        ("GET", "/todos/99999999999999999999", None, 404, "no such todo"),
        ("DELETE", "/todos/9", None, 404, "no such todo"),
        ("PUT", "/todos/9", {"done": True}, 404, "no such todo"),
        ("PUT", "/todos/9", {}, 400, "nothing to change"),
        ("PUT", "/todos/9", {"done": 1}, 400, "done must be true or false"),
        ("POST", "/todos", None, 400, "the body is not JSON"),
        ("POST", "/todos", [], 400, "the body must be an object"),
        ("POST", "/todos", {}, 400, "title is missing"),
        ("POST", "/todos", {"title": ""}, 400, "title must be a text"),
        ("POST", "/todos", {"title": 7}, 400, "title must be a text"),
        ("POST", "/todos", {"title": "x" * 201}, 400, "title is longer than 200"),
        ("POST", "/todos", {"title": "x", "id": 7}, 400, "there is no field 'id'"),
    ],
)
def test_todo_says_what_is_wrong(
    todo: Server, method: str, target: str, value: Any, status: int, error: str
) -> None:
    with todo.client() as client:
        answer = send(client, method, target, value)
        assert answer.status == status
        assert error in answer.json()["error"]
        assert client.get("/todos").json() == []


def test_todo_outlives_its_server(start: Start, tmp_path: Path) -> None:
    env = {"TODO_DB": str(tmp_path / "todo.db")}
    for expected in ([], ["kept"]):
        server = start(app="examples.todo:app", env=env)
        assert [todo["title"] for todo in server.get("/todos").json()] == expected
        server.settle()
        with server.client() as client:
            assert send(client, "POST", "/todos", {"title": "kept"}).status == 201
        server.stop()


def test_todo_with_many_writers_in_two_workers(start: Start, tmp_path: Path) -> None:
    server = start(
        "--workers", "2", app="examples.todo:app", env={"TODO_DB": str(tmp_path / "todo.db")}
    )
    clients = [server.client() for _ in range(16)]
    for number in range(10):
        for index, client in enumerate(clients):
            assert send(client, "POST", "/todos", {"title": f"{index} {number}"}).status == 201
    for client in clients:
        client.close()
    todos = server.get("/todos").json()
    assert len({todo["id"] for todo in todos}) == len({todo["title"] for todo in todos}) == 160
    exchange = Exchange(
        b"GET /todos/9999 HTTP/1.1\r\nHost: t\r\n\r\n", 404, b'{"error": "no such todo"}'
    )
    assert run(server.address, [Plan([exchange] * 50) for _ in range(8)]).answered == 400
