"""The table of settings: its sources, its bounds, its page, and an effect of every row."""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from theframework._framework_core import choose_driver
from theframework.addresses import TcpAddress, UnixAddress, parse_address
from theframework.listeners import open_listeners
from theframework.restarts import Restarts
from theframework.settings import TABLE, Settings, SettingsError, resolve
from theframework.settings import page as settings_page

from tests import test_settings as this_module
from tests.client import page, request
from tests.conftest import Start
from tests.load import Exchange, Plan, run
from tests.server import ROOT, Server, wait_for

HELLO = page("hello world")


# Sources


def test_defaults() -> None:
    settings = resolve({}, {})
    assert settings == Settings()
    assert settings.as_dict() == {
        "host": "127.0.0.1",
        "port": 8000,
        "bind": (),
        "workers": 1,
        "backlog": 2048,
        "reuse_port": False,
        "max_connections": 4096,
        "accept_pause": 1.0,
        "max_target_size": 8192,
        "max_header_size": 32_768,
        "max_body_size": 1_048_576,
        "max_stream_size": 0,
        "read_ahead": 65_536,
        "read_timeout": 30,
        "min_body_rate": 1024,
        "write_timeout": 30,
        "keepalive_timeout": 75,
        "handler_timeout": 30,
        "graceful_timeout": 30,
        "switch_interval": 0.0002,
        "driver": "auto",
        "receive_buffers": 512,
        "io_uring_without": "",
        "header_map": "drop",
        "forwarded_allow_ips": "127.0.0.1,::1",
        "server_header": "",
        "log_level": "info",
    }


def test_keyword_wins_over_environment_and_environment_over_default() -> None:
    environ = {"THEFRAMEWORK_WORKERS": "3", "THEFRAMEWORK_BACKLOG": "9", "OTHER": "1"}
    settings = resolve({"workers": 2}, environ)
    assert (settings.workers, settings.backlog, settings.port) == (2, 9, 8000)


def test_every_setting_has_an_environment_variable_and_an_option() -> None:
    for setting in TABLE:
        assert setting.env == "THEFRAMEWORK_" + setting.name.upper()
        assert setting.flag == "--" + setting.name.replace("_", "-")
        words = ("::/0",) if setting.is_networks else setting.choices or setting.words or ("word",)
        word = words[-1]
        text, parsed = {
            str: (word, word),
            tuple: (":9", (":9",)),
            bool: ("yes", True),
            int: ("128", 128),
            float: ("0.5", 0.5),
        }[setting.type]
        assert setting.default != parsed
        assert resolve({}, {setting.env: text}).as_dict()[setting.name] == parsed


@pytest.mark.parametrize(
    ("alias", "name", "value"),
    [
        ("keepalive", "keepalive_timeout", 5),
        ("keep_alive", "keepalive_timeout", 5),
        ("worker_connections", "max_connections", 5),
        ("limit_request_line", "max_target_size", 5),
        ("loglevel", "log_level", "debug"),
    ],
)
def test_aliases_of_gunicorn(alias: str, name: str, value: object) -> None:
    assert resolve({alias: value}, {}).as_dict()[name] == value
    assert resolve({}, {f"THEFRAMEWORK_{alias.upper()}": str(value)}).as_dict()[name] == value
    with pytest.raises(SettingsError, match="are the same setting"):
        resolve({alias: value, name: value}, {})


def test_unknown_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="no setting 'worker'; did you mean 'workers'"):
        resolve({"worker": 2}, {})
    with pytest.raises(TypeError, match=r"no setting 'nonsense'$"):
        resolve({"nonsense": 2}, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65_536),
        ("port", "80a"),
        ("port", 80.0),
        ("port", True),
        ("port", None),
        ("host", 7),
        ("workers", 1025),
        ("max_connections", 0),
        ("read_timeout", 0),
        ("read_timeout", -1),
        ("read_timeout", float("inf")),
        ("read_timeout", float("nan")),
        ("read_timeout", "soon"),
        ("handler_timeout", -0.1),
        ("switch_interval", 0),
        ("reuse_port", "perhaps"),
        ("reuse_port", 1),
        ("log_level", "LOUD"),
        ("driver", "uring"),
        ("receive_buffers", 8),
        ("receive_buffers", 500),
        ("receive_buffers", 65_536),
        ("io_uring_without", "ext_arg,nonsense"),
        ("header_map", "keep"),
        ("forwarded_allow_ips", "localhost"),
        ("forwarded_allow_ips", "127.0.0.1,10.0.0.1/8"),
        ("forwarded_allow_ips", ["127.0.0.1"]),
        ("bind", "nowhere"),
        ("bind", [7]),
        ("bind", 7),
        ("server_header", "a\nb"),
        ("server_header", "snow ☃"),
    ],
)
def test_bad_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"^{name} ") as caught:
        resolve({name: value}, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", TcpAddress("127.0.0.1", 80)),
        (":80", TcpAddress("0.0.0.0", 80)),
        ("[::1]:80", TcpAddress("::1", 80)),
        ("[::]:0", TcpAddress("::", 0)),
        ("example:65535", TcpAddress("example", 65_535)),
        ("unix:/run/app.sock", UnixAddress("/run/app.sock")),
        ("unix:app.sock", UnixAddress("app.sock")),
    ],
)
def test_addresses(text: str, address: object) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", "host:http", "::1:80", "h:65536", "h:-1", "unix:", "unix:" + "x" * 108],
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_address(text)


def test_bind_and_port_in_one_source_are_refused() -> None:
    with pytest.raises(SettingsError, match="bind already says where to listen; leave out port"):
        resolve({"bind": [":80"], "port": 81}, {})


def test_nearer_address_replaces_the_other_spelling() -> None:
    environ = {"THEFRAMEWORK_BIND": ":80,unix:/x"}
    assert resolve({}, environ).addresses() == [TcpAddress("0.0.0.0", 80), UnixAddress("/x")]
    assert resolve({"port": 81}, environ).addresses() == [TcpAddress("127.0.0.1", 81)]
    environ = {"THEFRAMEWORK_PORT": "82"}
    assert resolve({"bind": [":80"]}, environ).addresses() == [TcpAddress("0.0.0.0", 80)]


def test_page_is_current() -> None:
    written = (ROOT / "docs" / "settings.md").read_text()
    assert written == settings_page(), "run `make docs`"


def test_restart_policy() -> None:
    restarts = Restarts()
    assert restarts.pause_after(60) == 0
    assert [restarts.pause_after(None) for _ in range(4)] == [0, 0.1, 0.2, 0.4]
    assert not restarts.is_looping
    assert restarts.pause_after(0.5) == 0.8
    assert restarts.is_looping
    assert [restarts.pause_after(None) for _ in range(5)] == [1.6, 3.2, 5, 5, 5]
    assert restarts.pause_after(1.5) == 0
    assert not restarts.is_looping


# Effects: one test per setting, named for it. Those of limits are the subject of test_limits.


def test_every_setting_has_a_test_of_its_effect() -> None:
    elsewhere = {
        "max_target_size": "test_limits",
        "max_header_size": "test_limits",
        "max_body_size": "test_limits",
        "max_stream_size": "test_streaming",
        "max_connections": "test_limits",
        "accept_pause": "test_limits",
        "read_timeout": "test_limits",
        "min_body_rate": "test_limits",
        "write_timeout": "test_limits",
        "keepalive_timeout": "test_limits",
        "handler_timeout": "test_limits",
        "workers": "test_workers",
        "graceful_timeout": "test_workers",
        "header_map": "test_spoofing",
        "forwarded_allow_ips": "test_spoofing",
    }
    for setting in TABLE:
        where = elsewhere.get(setting.name)
        if where is None:
            assert hasattr(this_module, f"test_effect_of_{setting.name}"), setting.name
        else:
            source = (ROOT / "tests" / f"{where}.py").read_text()
            assert f'"{setting.flag}", "' in source, setting.name


def test_effect_of_host(start: Start) -> None:
    server = start("--host", "127.0.0.2")
    assert server.address[0] == "127.0.0.2"
    assert server.get("/").whole() == HELLO


def test_effect_of_port(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start("--bind", f"127.0.0.1:{port}")
    server.stop()
    # The same port at once again: connections that just ended do not hold it.
    again = Server([*_command_with_port(port)], server.log_path.with_name("again.log"))
    assert again.address == ("127.0.0.1", port)
    assert again.get("/").whole() == HELLO
    again.stop()


def _command_with_port(port: int) -> list[str]:
    from tests.server import command

    return command("run", "tests.apps.main:app", "--port", str(port))


def test_effect_of_bind(start: Start, tmp_path: Path) -> None:
    server = start("-b", "127.0.0.1:0", "-b", f"unix:{tmp_path}/a", env={"THEFRAMEWORK_PORT": "1"})
    assert len(server.addresses) == 2
    assert server.get("/").whole() == HELLO


def test_effect_of_backlog() -> None:
    for backlog in (3, 77):
        (listener,) = open_listeners(
            [TcpAddress("127.0.0.1", 0)], backlog=backlog, reuse_port=False, workers=1
        )
        (sock,) = listener.sockets
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        # For a listening socket, tcpi_sacked is the backlog that the kernel keeps.
        assert struct.unpack_from("I", info, 28)[0] == backlog
        listener.close()


def _listening_sockets(port: int) -> int:
    """Sockets that listen on an IPv4 port, of all processes."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(f[1].endswith(f":{port:04X}") and f[3] == "0A" for f in fields)


def test_effect_of_reuse_port(start: Start) -> None:
    for options, count in ((("--reuse-port",), 2), ((), 1), (("--no-reuse-port",), 1)):
        server = start("--workers", "2", *options)
        assert _listening_sockets(int(server.address[1])) == count
        assert server.get("/").whole() == HELLO


def test_effect_of_read_ahead(start: Start, measured: Callable[[str], None]) -> None:
    """What a client can send while a handler runs is the kernel's buffers and read_ahead."""
    taken = {}
    for size in (4096, 32 << 20):
        server = start("--read-ahead", str(size))
        with server.client() as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            client.send(request("GET", "/sleep/1.5"))
            later = request("GET", "/") * 1000
            sent = 0
            client.socket.settimeout(0.4)
            try:
                while sent < 24 << 20:
                    sent += client.socket.send(later)
            except TimeoutError:
                pass
            taken[size] = sent
            client.reset()
    measured(f"taken while a handler runs, by read_ahead: {taken}")
    assert taken[4096] < 16 << 20
    assert taken[32 << 20] >= 24 << 20


def test_effect_of_switch_interval(start: Start) -> None:
    for options, seconds in (((), 0.0002), (("--switch-interval", "0.01"), 0.01)):
        shown = float(start(*options).get("/switch-interval").body)
        assert shown == pytest.approx(seconds, abs=1e-6)


def test_effect_of_driver(start: Start, driver: str) -> None:
    if driver == "poll":
        # The option wins over the environment, which says the other; see test_drivers for more.
        assert start("--driver", "auto").driver == choose_driver("auto", 512, "", 1)[0]
    else:
        assert start("--driver", "poll").driver == "poll"


def test_effect_of_receive_buffers(start: Start) -> None:
    live = {}
    for count in (16, 4096):
        server = start("--receive-buffers", str(count))
        live[count] = server.get("/allocations").json()[2]
        # More connections than buffers have something to say at the same time.
        hello = Exchange(request("GET", "/"), 200, b"hello world")
        run(server.address, [Plan([hello] * 20, depth=4) for _ in range(100)])
    growth = live[4096] - live[16]
    assert 4080 * 4096 <= growth <= 4080 * 4096 * 1.05


@pytest.mark.parametrize(
    ("without", "submitted", "completed"),
    [
        ("", 1, 1),
        # A receive is submitted for each arrival; a write's completion is posted; a receive buffer
        # is given back by an operation.
        ("multishot_receive", 2, 1),
        ("skip_success", 1, 2),
        ("buffer_ring", 2, 1),
        ("multishot_receive,skip_success,buffer_ring", 3, 3),
    ],
)
def test_effect_of_io_uring_without(
    start: Start, driver: str, without: str, submitted: int, completed: int
) -> None:
    """What a request on a kept connection costs the ring, as the kernel tells."""
    server = start("--io-uring-without", without)
    if driver == "poll":
        return  # It has no effect there, and is no error.
    with server.client() as client:
        client.get("/")
        before = ring_counts(server.workers()[0])
        for _ in range(200):
            assert client.get("/").whole() == HELLO
        after = ring_counts(server.workers()[0])
    # The entries of the last request may be counted or not.
    assert abs(after[0] - before[0] - 200 * submitted) <= 2
    assert abs(after[1] - before[1] - 200 * completed) <= 2


def ring_counts(pid: int) -> tuple[int, int]:
    """Entries that were ever submitted to a process's ring, and completions that it ever posted."""
    (ring,) = (
        entry.name
        for entry in os.scandir(f"/proc/{pid}/fd")
        if os.readlink(entry) == "anon_inode:[io_uring]"
    )
    found: dict[str, str] = {}

    def has_told() -> bool:
        # The kernel tells nothing while the ring is at work.
        told = Path(f"/proc/{pid}/fdinfo/{ring}").read_text()
        found.update(re.findall(r"^(SqTail|CqTail):\t(\d+)$", told, re.MULTILINE))
        return len(found) == 2

    wait_for(has_told, "the kernel's counts of the ring")
    return int(found["SqTail"]), int(found["CqTail"])


def test_effect_of_server_header(start: Start) -> None:
    assert start().get("/").header("Server") is None
    server = start("--server-header", "the house")
    assert server.get("/").whole() == page("hello world", server="the house")


def test_effect_of_log_level(start: Start) -> None:
    quiet, loud = start("--log-level", "critical"), start("--log-level", "debug")
    assert quiet.get("/raise").status == loud.get("/raise").status == 500
    loud.wait_for_log("a secret detail")
    time.sleep(0.1)
    assert quiet.log() == ""
    line = loud.log().splitlines()[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[\d+\] [A-Z]+: .+", line)


def test_environment_reaches_a_server(start: Start) -> None:
    server = start(env={"THEFRAMEWORK_SERVER_HEADER": "from afar", "THEFRAMEWORK_WORKERS": "2"})
    assert server.get("/").header("Server") == "from afar"
    assert len(server.workers()) == 2
