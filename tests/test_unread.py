"""What a handler leaves of a streamed body is never taken for the next request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import request
from tests.server import ROOT, Server, command

pytestmark = pytest.mark.wire

APP = "tests.apps.unread:app"
HIDDEN = request("GET", "/")


@pytest.fixture(scope="module")
def server(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(command("run", APP, "--port", "0"), tmp_path_factory.mktemp("log") / "log")
    yield server
    server.stop()


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("target", ["/whole", "/chunks", "/length", "/file", "/some"])
def test_an_unread_body_is_no_request(
    server: Server, target: str, is_late: bool, is_chunked: bool
) -> None:
    if is_chunked:
        framing = ("Transfer-Encoding: chunked",)
        parts = [b"1\r\nx\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)]
    else:
        framing = (f"Content-Length: {len(HIDDEN) + 1}",)
        parts = [b"x", HIDDEN]
    head = request("POST", target, headers=framing)
    with server.client() as client:
        client.send(head + parts[0])
        if is_late:
            answer = client.read("POST")
            client.send(parts[1])
        else:
            client.send(parts[1])
            answer = client.read("POST")
        source = Path(ROOT, "tests", "apps", "unread.py")
        assert answer.body == (source.read_bytes() if target == "/file" else b"answer")
        # Once the whole body has come, unread or not, the connection may go on.
        client.half_close()
        assert client.read_to_end() == b""
