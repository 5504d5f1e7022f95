"""Fixtures: servers under test, a time limit on each test, and a list of what was measured."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from theframework import _framework_core as core

from tests import server as servers_under_test
from tests.server import DRIVERS, Server, command

TEST_SECONDS = 60
LONG_TEST_SECONDS = 600
_measured: list[str] = []

Start = Callable[..., Server]


@pytest.fixture(autouse=True)
def time_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that hangs fails, with the line at which it hung."""

    def expire(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the test took too long")

    before = signal.signal(signal.SIGALRM, expire)
    is_long = request.node.get_closest_marker("long") is not None
    signal.alarm(LONG_TEST_SECONDS if is_long else TEST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--drivers",
        default=",".join(DRIVERS),
        help="run the tests of servers on these drivers only (default: %(default)s)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "driver" in metafunc.fixturenames:
        names = metafunc.config.getoption("--drivers").split(",")
        metafunc.parametrize("driver", names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def driver(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every server of the test has this driver; the test runs once for each."""
    name: str = request.param
    try:
        core.choose_driver(name, 512, "", 1)
    except core.DriverError as error:
        pytest.skip(f"the driver {name} cannot run here: {error}")
    servers_under_test.default_driver = name
    yield name
    servers_under_test.default_driver = None


@pytest.fixture(autouse=True)
def sanitizer_reports() -> Iterator[None]:
    """Under tools/sanitize.sh: a server that a sanitizer has complained of fails the test.

    A worker that died of it would be replaced, and the test might not notice.
    """
    folder = os.environ.get("SANITIZER_REPORTS")
    before = {*os.listdir(folder)} if folder else set()
    yield
    if folder:
        new = sorted({*os.listdir(folder)} - before)
        texts = [Path(folder, name).read_text(errors="replace") for name in new]
        assert not new, "a sanitizer reports:\n" + "\n".join(texts)


@pytest.fixture
def start(tmp_path: Path, driver: str) -> Iterator[Start]:
    """Start servers: ``start("--workers", "2", app="tests.apps.main:app")``."""
    servers: list[Server] = []

    def start_one(*options: str, app: str = "tests.apps.main:app", **how: Any) -> Server:
        where = () if {"-b", "--bind"} & {*options} else ("--port", "0")
        log_path = tmp_path / f"server-{len(servers)}.log"
        server = Server(command("run", app, *where, *options), log_path, **how)
        servers.append(server)
        assert server.driver == driver or "--driver" in options
        return server

    yield start_one
    _stop_all(servers)


def _stop_all(servers: list[Server]) -> None:
    """Stop every server even when one does not end well; report the first trouble."""
    troubles = []
    for server in servers:
        try:
            server.stop()
        except AssertionError as trouble:
            troubles.append(trouble)
    if troubles:
        raise troubles[0]


@pytest.fixture(scope="module")
def _shared(driver: str) -> Iterator[list[Server]]:
    servers: list[Server] = []
    yield servers
    _stop_all(servers)


@pytest.fixture
def server(_shared: list[Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with default settings that the module's tests share; unchanged after each."""
    if not _shared:
        log_path = tmp_path_factory.mktemp("server") / "log"
        _shared.append(Server(command("run", "tests.apps.main:app", "--port", "0"), log_path))
    shared = _shared[0]
    yield shared
    try:
        shared.assert_unchanged()
    except AssertionError:
        # The next test gets a fresh one: this failure is not its own.
        _shared.clear()
        shared.kill()
        raise


@pytest.fixture
def descriptors() -> Iterator[Callable[[int], None]]:
    """Make room in this process for so many connections, or skip."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def make_room(connections: int) -> None:
        wanted = connections + 200
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"{wanted} open files are needed, the hard limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))

    yield make_room
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def measured() -> Callable[[str], None]:
    """Note a measurement for the end of the report."""
    return _measured.append


@pytest.fixture
def program() -> Callable[[str], str]:
    """The path of a program, or a skip that names it."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not installed (SYSTEM_PACKAGES=1 make test installs it)")
        return path

    return find


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _measured:
        terminalreporter.section("measured")
        for line in _measured:
            terminalreporter.line(line)
