"""The application's side: routes, middleware, Request and Response, over real sockets."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from theframework import Framework

from tests.client import page, refusal, request
from tests.conftest import Start
from tests.server import Server


def test_hello(server: Server) -> None:
    assert server.get("/").whole() == page("hello world")


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/users/7", "user 7"),
        ("/users/me", "me"),
        ("/users/mee", "user mee"),
        ("/users/7/posts/9", "post 9 of 7"),
        ("/users/me/posts/9", "post 9 of me"),
        ("/users/a%20b", "user a b"),
        ("/users/a%2Fb", "user a/b"),
        ("/users/a%252Fb", "user a%2Fb"),
        ("/users/a+b", "user a+b"),
        ("/files/a", "file a"),
        ("/files/a/b/c.txt", "file a/b/c.txt"),
        ("/files/a//b/", "file a//b/"),
        ("/users/7?x=1", "user 7"),
    ],
)
def test_route_and_its_parameters(server: Server, target: str, body: str) -> None:
    assert server.get(target).whole() == page(body)


def test_parameter_is_decoded_as_utf8(server: Server) -> None:
    answer = server.get("/users/" + quote("grün"))
    assert answer.body == "user grün".encode()


@pytest.mark.parametrize(
    "target",
    ["/nowhere", "/users", "/users/", "/users/7/", "/users/7/posts", "/files", "/Users/7", "//"],
)
def test_no_route_is_404(server: Server, target: str) -> None:
    with server.client() as client:
        assert client.get(target).whole() == refusal(404, close=False)
        assert client.get("/").whole() == page("hello world")


def test_wrong_method_is_405_with_allow(server: Server) -> None:
    with server.client() as client:
        answer = client.request("PATCH", "/item")
        allow = answer.header("Allow") or ""
        assert sorted(allow.split(", ")) == ["DELETE", "GET", "HEAD", "PUT"]
        assert answer.whole() == refusal(405, close=False, allow=allow)
        assert client.request("DELETE", "/item").whole() == page("changed by DELETE")
        assert client.request("PUT", "/item").whole() == page("changed by PUT")
        assert client.get("/item").whole() == page("read")


def test_wrong_method_with_body_does_not_lose_the_connection_or_closes_it(server: Server) -> None:
    with server.client() as client:
        answer = client.request("POST", "/item", b"GET / HTTP/1.1\r\nHost: smuggled\r\n\r\n")
        assert answer.status == 405
        # The body must not be taken for a request, whether or not the connection goes on.
        if answer.header("Connection") == "close":
            client.assert_closed()
        else:
            client.assert_open()


def test_head_is_get_without_its_body(server: Server) -> None:
    with server.client() as client:
        head = client.request("HEAD", "/")
        get = client.get("/")
        assert head.body == b""
        assert head.whole()[:3] == get.whole()[:3]
        assert client.request("HEAD", "/nowhere").whole()[:3] == refusal(404, close=False)[:3]
        client.assert_open()


@pytest.mark.parametrize("pattern", ["users", "", "/{", "/{}", "/a{*b}/c", "/{*rest}/more"])
def test_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Framework().route(pattern)(lambda request, response: None)


def test_conflicts_and_repetitions_are_refused() -> None:
    app = Framework()
    app.route("/users/{id}", ["GET", "PUT"])(lambda request, response: None)
    app.route("/users/{id}", ["DELETE"])(lambda request, response: None)
    with pytest.raises(ValueError, match=r".+"):
        app.route("/users/{id}", ["PUT"])(lambda request, response: None)
    with pytest.raises(ValueError, match=r".+"):
        app.route("/users/{other}", ["POST"])(lambda request, response: None)


def test_route_checks_its_arguments() -> None:
    app = Framework()
    with pytest.raises(TypeError, match=r"methods=\['GET'\]"):
        app.route("/", methods="GET")
    with pytest.raises(ValueError, match="no method"):
        app.route("/", methods=[])
    with pytest.raises(ValueError, match=r".+"):
        app.route("/", methods=["NO METHOD"])(lambda request, response: None)
    with pytest.raises(TypeError, match="not callable"):
        app.route("/")(7)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="not callable"):
        app.use(7)  # type: ignore[type-var]


def test_decorators_return_the_function() -> None:
    app = Framework()

    def function(*arguments: object) -> None: ...

    for path, decorate in enumerate([app.get, app.post, app.put, app.patch, app.delete]):
        assert decorate(f"/{path}")(function) is function
    assert app.use(function) is function


def test_middleware_runs_in_order_and_around_the_handler(start: Start) -> None:
    server = start(app="tests.apps.middleware:app")
    trail = "outer guard handler guard-after outer-after"
    assert server.get("/").whole() == page("index", x_trail=trail)


def test_middleware_may_answer_itself(start: Start) -> None:
    server = start(app="tests.apps.middleware:app")
    answer = server.get("/", "X-Token: wrong")
    expected = page("no entry", status=400, x_trail="outer guard outer-after")
    assert answer.whole() == expected


def test_middleware_may_catch_what_the_handler_raises(start: Start) -> None:
    server = start(app="tests.apps.middleware:app")
    assert server.get("/key-error").whole() == page(
        "caught lost", x_trail="outer guard guard-after outer-after"
    )
    assert server.get("/error").whole()[0] == 500
    assert server.get("/").status == 200


def test_request_fields(server: Server) -> None:
    body = b'{"a": "b"}'
    target = "/request?q=a%20b+c&empty=&q=second&flag&%C3%BC=%C3%A9"
    with server.client() as client:
        answer = client.request("POST", target, body, ("X-One: 1", "x-one: 2", "X-Latin: caf\xe9"))
    assert answer.json() == {
        "method": "POST",
        "path": "/request",
        "full_path": target,
        "query_params": {"q": "a b c", "empty": "", "flag": "", "ü": "é"},
        "headers": {"host": "test", "x-one": "1, 2", "x-latin": "café", "content-length": "10"},
        "raw_headers": [
            ["Host", "test"],
            ["X-One", "1"],
            ["x-one", "2"],
            ["X-Latin", "café"],
            ["Content-Length", "10"],
        ],
        "body": body.decode(),
        "params": {},
    }


def test_cookies_are_joined_by_semicolons(server: Server) -> None:
    answer = server.get("/request", "Cookie: a=1", "Cookie: b=2")
    assert answer.json()["headers"]["cookie"] == "a=1; b=2"


def test_header_values_lose_the_space_around_them(server: Server) -> None:
    answer = server.get("/request", "X-Padded: \t a  b \t", "X-Empty:", "X-Tight:c")
    headers = answer.json()["headers"]
    assert (headers["x-padded"], headers["x-empty"], headers["x-tight"]) == ("a  b", "", "c")


def test_twenty_kilobytes_of_headers(server: Server) -> None:
    lines = tuple(f"X-Header-{number}: {'v' * 180}" for number in range(100))
    with server.client() as client:
        for _ in range(3):
            headers = client.get("/request", *lines).json()["headers"]
            assert {n: v for n, v in headers.items() if n != "host"} == {
                f"x-header-{number}": "v" * 180 for number in range(100)
            }


def test_client_address(server: Server) -> None:
    with server.client() as client:
        host, port = client.socket.getsockname()
        assert client.get("/client").json() == f"{host}:{port}"


def test_absolute_target(server: Server) -> None:
    fields = server.get("http://other.example/request?a=1").json()
    assert (fields["path"], fields["query_params"]) == ("/request", {"a": "1"})
    assert fields["full_path"] == "http://other.example/request?a=1"


def test_asterisk_target_has_no_route(server: Server) -> None:
    with server.client() as client:
        assert client.request("OPTIONS", "*").status in (200, 204, 404)


def test_undecodable_path_is_400(server: Server) -> None:
    for target in ("/users/%ff", "/users/%zz", "/users/%", "/users/a%00b"):
        with server.client() as client:
            assert client.get(target).status == 400


def test_fields_are_cached(server: Server) -> None:
    with server.client() as client:
        assert client.request("POST", "/same-objects?a=1", b"body").json() == []


def test_request_fields_are_read_only(server: Server) -> None:
    assert server.get("/read-only").whole() == page("AttributeError")


def test_request_outlives_its_exchange(server: Server) -> None:
    with server.client() as client:
        assert client.request("POST", "/keep?a=1", b"the body", ("X-Mark: m",)).status == 200
        for _ in range(3):  # what it stood in is used again
            client.request("POST", "/echo", b"another body that is longer")
        assert client.get("/kept").json() == ["POST", "/keep?a=1", "m", "the body"]


@pytest.mark.parametrize("value", [{"a": [1, None]}, [], "text", 1.5, None])
def test_json_body(server: Server, value: object) -> None:
    with server.client() as client:
        answer = client.request("POST", "/json-body", json.dumps(value).encode())
        assert answer.json() == {"got": value}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"{'a': 1}"])
def test_body_that_is_not_json_is_a_value_error(server: Server, body: bytes) -> None:
    with server.client() as client:
        answer = client.request("POST", "/json-body", body)
        assert answer.status == 400
        assert answer.json() == {"error": "ValueError"}


@pytest.mark.parametrize("size", [1, 100, 4096, 65_536, 1_048_576])
def test_body_comes_back(server: Server, size: int) -> None:
    body = bytes(number % 251 for number in range(size))
    with server.client() as client:
        for _ in range(2):
            answer = client.request("POST", "/echo", body)
            assert answer.whole() == page(body, "application/octet-stream")


def test_statuses(server: Server) -> None:
    with server.client() as client:
        for code in (200, 201, 202, 299, 400, 404, 418, 500, 599):
            answer = client.get(f"/status/{code}")
            assert (answer.status, answer.body) == (code, b"as asked")
        for code in (204, 304):
            answer = client.get(f"/status/{code}")
            assert (answer.status, answer.body) == (code, b"")
        client.assert_open()


def test_status_attribute(server: Server) -> None:
    assert server.get("/status-attribute").whole() == page("200 404", status=404)


@pytest.mark.parametrize("code", ["0", "99", "600", "1000", "-200"])
def test_invalid_status_is_a_value_error(server: Server, code: str) -> None:
    assert server.get(f"/bad-status/{code}").whole() == page("ValueError")


def test_response_headers(server: Server) -> None:
    answer = server.get("/response-headers")
    status, reason, fields, body = answer.whole()
    assert (status, reason, body) == (200, "OK", b"ok")
    assert fields == {
        "x-once": ["second"],
        "set-cookie": ["a=1", "b=2"],
        "x-latin": ["café"],
        "x-empty": [""],
        "content-type": ["text/plain"],
        "content-length": ["2"],
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "b\r\nX-C: d"),
        ("X-A", "b\nc"),
        ("X-A", "b\rc"),
        ("X-A", "b\0c"),
        ("X-A", "snow ☃"),
        ("X-A\r\nX-B", "c"),
        ("X A", "b"),
        ("X-A:", "b"),
        ("", "b"),
        ("Ü", "b"),
    ],
)
def test_header_that_would_split_the_response_is_a_value_error(
    server: Server, name: str, value: str
) -> None:
    with server.client() as client:
        answer = client.request("POST", "/bad-header", json.dumps([name, value]).encode())
        assert answer.whole() == page("ValueError")


def test_framing_headers_are_the_servers_own(server: Server) -> None:
    with server.client() as client:
        assert client.get("/framing-headers").whole() == page("ok")
        assert client.get("/").whole() == page("hello world")


def test_text_and_bytes_are_joined(server: Server) -> None:
    assert server.get("/parts").whole() == page("grün und blau")


def test_writing_anything_else_is_a_type_error(server: Server) -> None:
    assert server.get("/bad-write").whole() == page("TypeError")


def test_json_response(server: Server) -> None:
    with server.client() as client:
        answer = client.get("/json")
        assert answer.json() == {"text": "ü", "list": [1, 2.5, None, True]}
        assert answer.whole() == page(answer.body, "application/json")
        assert client.get("/json-status").whole() == page("[]", "application/json", 404)


def test_redirects(server: Server) -> None:
    with server.client() as client:
        answer = client.get("/redirect")
        assert (answer.status, answer.header("Location")) == (302, "/elsewhere?a=b")
        answer = client.get("/redirect-status")
        assert (answer.status, answer.header("Location")) == (308, "/elsewhere")


def test_handler_that_writes_nothing(server: Server) -> None:
    with server.client() as client:
        answer = client.get("/nothing")
        assert (answer.status, answer.header("Content-Length"), answer.body) == (200, "0", b"")
        client.assert_open()


@pytest.mark.parametrize("size", [16, 16_384, 65_536, 1 << 20, 32 << 20])
def test_large_response(server: Server, size: int) -> None:
    with server.client() as client:
        for _ in range(2):
            answer = client.get(f"/large/{size}")
            expected = page(b"0123456789abcdef" * (size // 16), "application/octet-stream")
            assert answer.whole() == expected


def test_sleep_takes_its_time_and_refuses_negative(server: Server) -> None:
    with server.client() as client:
        assert client.get("/sleep/0.01").whole() == page("slept")
        assert client.get("/sleep/0").whole() == page("slept")
        assert client.get("/sleep-negative").whole() == page("ValueError")


def test_two_requests_reach_two_handlers_at_once(server: Server) -> None:
    first, second = server.client(), server.client()
    with first, second:
        first.send(request("GET", "/sleep/0.3"))
        assert second.get("/").whole() == page("hello world")
        assert first.read().whole() == page("slept")
