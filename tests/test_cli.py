"""The command line: every mistake is one clear sentence, a non-zero exit and no traceback."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client import page
from tests.conftest import Start
from tests.server import Server, command, environment

HELLO = page("hello world")
GOOD_APP = "from theframework import Framework\napp = Framework()\n"


def run_to_end(
    *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def assert_one_sentence(done: subprocess.CompletedProcess[str], status: int, *parts: str) -> None:
    """The program said one sentence on stderr, with all of `parts`, and nothing else."""
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("theframework: error: "), done.stderr
    for part in parts:
        assert part in done.stderr
    assert done.returncode == status


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run"], ["MODULE:APP"]),
        (
            ["run", "app:app", "--prot", "80"],
            ["there is no option --prot", "did you mean", "--port"],
        ),
        (["run", "app:app", "--nonsense"], ["there is no option --nonsense"]),
        (["run", "app:app", "--port"], ["--port"]),
        (
            ["run", "app:app", "--port", "http"],
            ["--port must be a whole number from 0 to 65535, not 'http'"],
        ),
        (["run", "app:app", "--port", "65536"], ["--port must be", "not '65536'"]),
        (["run", "app:app", "--workers", "-1"], ["--workers must be", "not '-1'"]),
        (["run", "app:app", "--read-timeout", "0"], ["--read-timeout must be a number above 0"]),
        (["run", "app:app", "--read-timeout", "nan"], ["--read-timeout must be"]),
        (["run", "app:app", "--log-level", "loud"], ["--log-level must be one of debug, info"]),
        (["run", "app:app", "--bind", "localhost"], ["--bind must be", "has no port"]),
        (["run", "app:app", "--bind", "::1:80"], ["--bind must be", "brackets"]),
        (["run", "app:app", "--bind", ":80", "--port", "81"], ["--bind already says"]),
        (["run", "app:app", "--server-header", "a\r\nb"], ["--server-header"]),
        (["run", "app:app", "extra"], ["extra"]),
        (["serve", "app:app"], ["serve"]),
    ],
)
def test_wrong_command_line(arguments: list[str], parts: list[str]) -> None:
    assert_one_sentence(run_to_end(*arguments), 2, *parts)


def test_wrong_environment() -> None:
    done = run_to_end("run", "app:app", env={"THEFRAMEWORK_BACKLOG": "many"})
    assert_one_sentence(done, 2, "THEFRAMEWORK_BACKLOG must be a whole number", "'many'")


@pytest.mark.parametrize(
    ("target", "files", "parts"),
    [
        ("nowhere:app", {}, ["there is no module 'nowhere'"]),
        ("pack.nowhere:app", {"pack/__init__.py": ""}, ["there is no module 'pack.nowhere'"]),
        ("app", {}, ["'app' does not name an application; write MODULE:NAME"]),
        ("app.py:app", {}, ["write it as a module: app:app"]),
        ("./src/app.py", {}, ["write it as a module: src.app:app"]),
        (":app", {}, ["does not name an application"]),
        ("a b:app", {}, ["'a b' is not a module name"]),
        ("good:app[0]", {"good.py": GOOD_APP}, ["neither a name nor a call"]),
        ("good:missing", {"good.py": GOOD_APP}, ["module 'good' has no 'missing'", "good.py"]),
        ("good:Framework", {"good.py": GOOD_APP}, ["good:Framework is a type, not a Framework"]),
        ("bad:app", {"bad.py": "app = 7\n"}, ["bad:app is an int, not a Framework"]),
        (
            "bad:make",
            {"bad.py": "def make(): pass\n"},
            ["bad:make is a function (write make() to call a factory), not a Framework"],
        ),
        ("bad:make()", {"bad.py": "def make(): pass\n"}, ["is a NoneType, not a Framework"]),
        ("bad:make(x)", {"bad.py": "def make(x): pass\n"}, ["must be plain literals"]),
        ("bad:app()", {"bad.py": "app = 7\n"}, ["app is not callable"]),
        (
            "bad:make()",
            {"bad.py": "def make():\n\n    raise RuntimeError('no database')\n"},
            ["bad:make() failed: RuntimeError: no database", "bad.py, line 3"],
        ),
        (
            "bad:app",
            {"bad.py": "import json\nimport missing_thing\n"},
            ["cannot import bad", "No module named 'missing_thing'", "bad.py, line 2"],
        ),
        (
            "bad:app",
            {"bad.py": "import other\n", "other.py": "\n\nx = 1 / 0\n"},
            ["cannot import bad: ZeroDivisionError", "other.py, line 3"],
        ),
        (
            "bad:app",
            {"bad.py": "import json\n\njson.loads('{')\n"},
            ["JSONDecodeError", "bad.py, line 3"],
        ),
        (
            "bad:app",
            {"bad.py": "x = 1\ndef broken(:\n"},
            ["cannot import bad: SyntaxError: invalid syntax", "bad.py, line 2"],
        ),
        (
            "bad:app",
            {"bad.py": "import sys\nsys.exit('enough')\n"},
            ["SystemExit: enough", "line 2"],
        ),
        (
            "bad:app",
            {"bad.py": GOOD_APP + "app.run()\n"},
            ["cannot import bad: RuntimeError: run() was called", "bad.py, line 3"],
        ),
    ],
)
@pytest.mark.parametrize("workers", ["1", "3"])
def test_application_that_cannot_be_loaded(
    tmp_path: Path, target: str, files: dict[str, str], parts: list[str], workers: str
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    done = run_to_end("run", target, "--port", "0", "--workers", workers, cwd=tmp_path)
    assert_one_sentence(done, 1, *parts)


def test_traceback_of_an_import_only_for_debug(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("x = 1 / 0\n")
    done = run_to_end("run", "bad:app", "--port", "0", "--log-level", "debug", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr


def test_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_to_end("run", "tests.apps.main:app", "--port", str(port))
    assert_one_sentence(done, 1, f"127.0.0.1:{port} is already in use")


def test_taken_port_among_several_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_to_end("run", "x:app", "-b", f"unix:{path}", "-b", f"127.0.0.1:{port}")
    assert_one_sentence(done, 1, "is already in use")
    assert not path.exists()


def test_address_of_another_machine() -> None:
    done = run_to_end("run", "x:app", "--host", "192.0.2.1")
    assert_one_sentence(
        done, 1, "cannot listen on 192.0.2.1:8000: this machine has no such address"
    )


def test_host_that_does_not_resolve() -> None:
    done = run_to_end("run", "x:app", "--host", "no.such.host.invalid")
    assert_one_sentence(done, 1, "'no.such.host.invalid' cannot be resolved")


def test_backlog_above_the_systems_is_said_once(start: Start) -> None:
    server = start("--backlog", "1000000", "--workers", "2")
    assert server.log().count("net.core.somaxconn") == 1


def test_unix_socket(start: Start, tmp_path: Path, driver: str) -> None:
    path = tmp_path / "socket"
    server = start("--bind", f"unix:{path}")
    assert server.ready_line.endswith(f" serving on unix:{path} (1 worker, {driver})")
    assert server.get("/").whole() == HELLO
    assert server.get("/client").json() is None
    server.stop()
    assert not path.exists()


def test_unix_socket_of_a_dead_server_is_replaced(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert start("--bind", f"unix:{path}").get("/").whole() == HELLO


def test_unix_socket_of_a_live_server_is_refused(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start("--bind", f"unix:{path}")
    done = run_to_end("run", "tests.apps.main:app", "--bind", f"unix:{path}")
    assert_one_sentence(done, 1, f"unix:{path} is already in use by a running server")
    assert server.get("/").whole() == HELLO


def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    done = run_to_end("run", "tests.apps.main:app", "--bind", f"unix:{path}")
    assert_one_sentence(done, 1, "exists and is not a socket")
    assert path.read_text() == "precious"


def test_ipv6(start: Start) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = start("--bind", "[::1]:0")
    assert server.address[0] == "::1"
    assert server.get("/").whole() == HELLO
    assert server.get("/client").json().startswith("[::1]:")


def test_several_addresses(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start("--bind", "127.0.0.1:0", "--bind", "localhost:0", "-b", f"unix:{path}")
    assert len(server.addresses) == 3
    for address in server.addresses:
        server.address = address
        assert server.get("/").whole() == HELLO


@pytest.mark.usefixtures("driver")
def test_application_from_a_factory(tmp_path: Path) -> None:
    (tmp_path / "factory.py").write_text(
        "from theframework import Framework\n"
        "def create_app(name, *, mark='!'):\n"
        "    app = Framework()\n"
        "    @app.get('/')\n"
        "    def index(request, response):\n"
        "        response.set_header('Content-Type', 'text/plain')\n"
        "        response.write(name + mark)\n"
        "    return app\n"
    )
    target = "factory:create_app('made', mark='?')"
    server = Server(command("run", target, "--port", "0"), tmp_path / "log", cwd=tmp_path)
    assert server.get("/").whole() == page("made?")
    server.stop()


def test_version() -> None:
    done = run_to_end("--version")
    assert re.fullmatch(r"theframework \d+\.\d+\.\d+\S*\n", done.stdout)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_lists_every_setting() -> None:
    done = run_to_end("run", "--help")
    from theframework.settings import TABLE

    assert done.returncode == 0
    for setting in TABLE:
        assert setting.flag in done.stdout


def test_help_without_a_command() -> None:
    done = run_to_end()
    assert done.returncode == 0
    assert "run" in done.stdout
    assert "check" in done.stdout


def test_check() -> None:
    done = run_to_end("check")
    assert done.returncode == 0
    names = [line.partition(":")[0] for line in done.stdout.splitlines() if line[0] != " "]
    assert names == [
        "theframework",
        "Python",
        "kernel",
        "driver",
        "io_uring",
        "seccomp",
        "cores",
        "open files",
        "locked memory",
        "somaxconn",
    ]


def test_installed_command_is_the_same() -> None:
    script = Path(sys.executable).with_name("theframework")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == run_to_end("--version").stdout


def test_start_takes_well_under_a_second(start: Start, measured: Callable[[str], None]) -> None:
    start("--workers", "2")  # the first one may have to write byte code
    times = []
    for _ in range(3):
        began = time.monotonic()
        start("--workers", "2")
        times.append(time.monotonic() - began)
    measured(f"start with 2 workers until the ready line: {min(times) * 1e3:.0f} ms")
    assert min(times) < 1
