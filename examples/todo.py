"""A JSON API on SQLite.

Run it:  theframework run examples.todo:app --workers 2
Try it:  curl -d '{"title": "water the plants"}' http://127.0.0.1:8000/todos
         curl http://127.0.0.1:8000/todos
         curl -X PUT -d '{"done": true}' http://127.0.0.1:8000/todos/1
         curl -X DELETE http://127.0.0.1:8000/todos/1

The database is the file named by the environment variable TODO_DB, or ./todo.db. Each worker
process has one connection. That is safe among the handlers of a worker: a call into SQLite
never lets another handler run, and each handler ends its transaction before it returns.
"""

from __future__ import annotations

import os
import sqlite3
from functools import cache
from typing import Any

from theframework import Framework, Next, Request, Response

TITLE_LENGTH_MAX = 200

app = Framework()


class BadRequest(Exception):  # noqa: N818 - it is the answer, not a defect
    """The client's fault; the text says what it is."""


class NotFound(Exception):  # noqa: N818
    """There is no such todo."""


@cache
def database() -> sqlite3.Connection:
    """This worker's connection. Opened at first use, so never carried over a fork."""
    # autocommit: each statement is a transaction of its own.
    connection = sqlite3.connect(
        os.environ.get("TODO_DB", "todo.db"), isolation_level=None, timeout=5
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS todo ("
        " id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " title TEXT NOT NULL,"
        " done INTEGER NOT NULL DEFAULT 0)"
    )
    return connection


@app.use
def errors_as_json(request: Request, response: Response, next: Next) -> None:
    try:
        next()
    except BadRequest as error:
        response.json({"error": str(error)}, status=400)
    except NotFound:
        response.json({"error": "no such todo"}, status=404)


@app.get("/todos")
def list_todos(request: Request, response: Response) -> None:
    rows = database().execute("SELECT * FROM todo ORDER BY id")
    response.json([as_json(row) for row in rows])


@app.post("/todos")
def create_todo(request: Request, response: Response) -> None:
    fields = fields_of(request)
    if "title" not in fields:
        raise BadRequest("title is missing")
    row = (
        database()
        .execute(
            "INSERT INTO todo (title, done) VALUES (?, ?) RETURNING *",
            (fields["title"], fields.get("done", False)),
        )
        .fetchall()[0]
    )
    response.set_header("Location", f"/todos/{row['id']}")
    response.json(as_json(row), status=201)


@app.get("/todos/{id}")
def read_todo(request: Request, response: Response) -> None:
    rows = database().execute("SELECT * FROM todo WHERE id = ?", (id_of(request),))
    response.json(as_json(only(rows)))


@app.put("/todos/{id}")
def update_todo(request: Request, response: Response) -> None:
    fields = fields_of(request)
    if not fields:
        raise BadRequest("nothing to change: give title, done or both")
    rows = database().execute(
        "UPDATE todo SET title = coalesce(?, title), done = coalesce(?, done)"
        " WHERE id = ? RETURNING *",
        (fields.get("title"), fields.get("done"), id_of(request)),
    )
    response.json(as_json(only(rows)))


@app.delete("/todos/{id}")
def delete_todo(request: Request, response: Response) -> None:
    only(database().execute("DELETE FROM todo WHERE id = ? RETURNING *", (id_of(request),)))
    response.set_status(204)


def id_of(request: Request) -> int:
    text = request.params["id"]
    # 18 digits fit into SQLite's 64-bit integers.
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise NotFound
    return int(text)


def fields_of(request: Request) -> dict[str, Any]:
    """The todo's fields in the body, checked."""
    try:
        fields = request.json()
    except ValueError:
        raise BadRequest("the body is not JSON") from None
    if not isinstance(fields, dict):
        raise BadRequest("the body must be an object")
    for name, value in fields.items():
        if name == "title":
            check_title(value)
        elif name == "done":
            if not isinstance(value, bool):
                raise BadRequest("done must be true or false")
        else:
            raise BadRequest(f"there is no field {name!r}")
    return fields


def check_title(title: object) -> None:
    if not isinstance(title, str) or not title.strip():
        raise BadRequest("title must be a text that is not empty")
    if len(title) > TITLE_LENGTH_MAX:
        raise BadRequest(f"title is longer than {TITLE_LENGTH_MAX} characters")


def only(rows: sqlite3.Cursor) -> sqlite3.Row:
    """The one row, read to the end so that the statement's transaction is over."""
    found = rows.fetchall()
    if not found:
        raise NotFound
    row: sqlite3.Row = found[0]
    return row


def as_json(row: sqlite3.Row) -> dict[str, Any]:
    return {"id": row["id"], "title": row["title"], "done": bool(row["done"])}


if __name__ == "__main__":
    app.run()
