"""The choice of the driver, and io_uring with parts of it missing.

Which driver runs is read from the workers' descriptors (`Server.assert_driver`, at each start).
`kernel.io_uring_disabled` is a setting of the whole machine, so no test changes it; it has the
errno EPERM, as a seccomp profile mostly has.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from theframework import _framework_core as core
from theframework.settings import IO_URING_FEATURES

from tests import confine
from tests.client import Client, page, request
from tests.load import Exchange, Plan, run
from tests.server import Server, command, environment, wait_for

pytestmark = pytest.mark.wire

HELLO = page("hello world")
HELLO_EXCHANGE = Exchange(request("GET", "/"), 200, b"hello world")
APP = "tests.apps.main:app"
# What a container's profile or a sandbox has been seen to answer, and the remedy for it.
BLOCKED = {
    errno.EPERM: "allow io_uring_setup, io_uring_enter and io_uring_register in the profile",
    errno.ENOSYS: "allow the io_uring system calls in the profile, on Linux 5.19 or newer",
    errno.ENOMEM: "raise RLIMIT_MEMLOCK (ulimit -l)",
    errno.EOPNOTSUPP: "allow the io_uring system calls in the profile, on Linux 5.19 or newer",
}
blocked_by_each = pytest.mark.parametrize("number", BLOCKED, ids=lambda n: errno.errorcode[n])

# Kernels as they were, by what they lacked.
KERNELS = {
    "5.19": "single_issuer,defer_taskrun,multishot_receive",
    "6.0": "defer_taskrun",
    "nothing": ",".join(IO_URING_FEATURES),
}
MASKS = {**{name: name for name in IO_URING_FEATURES}, **KERNELS}

StartConfined = Callable[..., Server]


def io_uring_problem() -> str | None:
    return core.choose_driver("auto", 512, "", 1)[2]


@pytest.fixture
def start_confined(tmp_path: Path) -> Iterator[StartConfined]:
    """Start servers with options and a confinement; which driver they get is the test's subject."""
    servers: list[Server] = []

    def start_one(*options: str, before_start: Callable[[], None] | None = None) -> Server:
        log_path = tmp_path / f"server-{len(servers)}.log"
        arguments = command("run", APP, "--port", "0", *options)
        server = Server(arguments, log_path, before_start=before_start)
        servers.append(server)
        return server

    yield start_one
    for server in servers:
        server.stop()


def run_confined(
    *arguments: str,
    before_start: Callable[[], None] | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(env),
        cwd=cwd,
        preexec_fn=before_start,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def needs_io_uring() -> None:
    problem = io_uring_problem()
    if problem is not None:
        pytest.skip(f"the driver io_uring cannot run here: {problem}")


# The choice


def test_auto_takes_io_uring_where_it_works(start_confined: StartConfined) -> None:
    needs_io_uring()
    server = start_confined("--workers", "2")
    assert server.driver == "io_uring"
    assert server.get("/").whole() == HELLO
    assert server.log() == ""


def test_forced_poll_is_silent(start_confined: StartConfined) -> None:
    server = start_confined("--driver", "poll", "--workers", "2")
    assert server.driver == "poll"
    assert server.get("/").whole() == HELLO
    assert server.log() == ""


@blocked_by_each
def test_auto_serves_on_poll_where_io_uring_is_blocked(
    start_confined: StartConfined, number: int
) -> None:
    server = start_confined("--workers", "2", before_start=confine.io_uring_blocked(number))
    assert server.driver == "poll"
    assert server.get("/").whole() == HELLO
    line = f" WARNING: {blocked_line(number)}; the poll driver serves instead\n"
    assert server.log().endswith(line)
    assert server.log().count("\n") == 1


def blocked_line(number: int) -> str:
    cause = {
        errno.EPERM: "a seccomp profile (as Docker's and Kubernetes' defaults) blocks it: ",
        errno.ENOMEM: "locked memory or memory is short: ",
    }.get(number, "a seccomp profile or sandbox hides it, or the kernel has none: ")
    what = f"io_uring cannot be set up ({os.strerror(number)} (os error {number}))"
    return f"{what}: {cause}{BLOCKED[number]}"


@blocked_by_each
def test_forced_io_uring_fails_where_it_is_blocked(number: int) -> None:
    done = run_confined(
        *("run", APP, "--port", "0", "--driver", "io_uring"),
        before_start=confine.io_uring_blocked(number),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"theframework: error: {blocked_line(number)}\n"


def test_forced_poll_is_silent_where_io_uring_is_blocked(start_confined: StartConfined) -> None:
    blocked = confine.io_uring_blocked(errno.EPERM)
    server = start_confined("--driver", "poll", before_start=blocked)
    assert server.driver == "poll"
    assert server.get("/").whole() == HELLO
    assert server.log() == ""


@pytest.mark.parametrize("call", [confine.IO_URING_ENTER, confine.IO_URING_REGISTER])
def test_ring_that_can_be_made_but_not_used_is_found_before_the_first_client(
    start_confined: StartConfined, call: int
) -> None:
    refused = confine.refusing([confine.Refusal(call, errno.EPERM)])
    server = start_confined(before_start=refused)
    assert server.driver == "poll"
    assert server.get("/").whole() == HELLO
    assert server.log().count("\n") == 1


# Memory. Rings are counted by user: a server of another test that runs at the same time, or whose
# rings the kernel has not let go of yet, takes its part.


@pytest.fixture
def counted_memory() -> None:
    """Skips where the kernel does not count rings as locked memory (Linux 5.12 to 6.13)."""
    done = run_confined("check", before_start=confine.locked_memory(4096))
    if "auto takes io_uring" in done.stdout:
        pytest.skip("this kernel does not count rings as locked memory")


@pytest.mark.pace
@pytest.mark.usefixtures("counted_memory")
def test_auto_takes_poll_where_locked_memory_is_too_small_for_one_ring(
    start_confined: StartConfined,
) -> None:
    server = start_confined(before_start=confine.locked_memory(65_536))
    assert server.driver == "poll"
    assert server.log().count("\n") == 1
    assert blocked_line(errno.ENOMEM) in server.log()


@pytest.mark.pace
@pytest.mark.usefixtures("counted_memory")
def test_auto_takes_poll_where_locked_memory_is_too_small_for_all_workers(
    start_confined: StartConfined,
) -> None:
    """One ring would fit."""
    needs_io_uring()
    limit = confine.locked_memory(400_000)
    wait_for(
        lambda: start_confined("--workers", "1", before_start=limit).driver == "io_uring",
        "one ring fits",
    )
    assert start_confined("--workers", "8", before_start=limit).driver == "poll"


@pytest.mark.pace
@pytest.mark.usefixtures("counted_memory")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ring_that_fails_in_the_worker_is_said_in_one_line(tmp_path: Path, workers: str) -> None:
    """The probe passed: memory became short between it and the worker's ring."""
    needs_io_uring()
    (tmp_path / "short.py").write_text(
        "import resource\n"
        "from theframework import Framework\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))\n"
        "app = Framework()\n"
    )
    done = run_confined(
        *("run", "short:app", "--port", "0", "--workers", workers),
        before_start=confine.locked_memory(8 << 20),
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (1, "")
    line = f"{blocked_line(errno.ENOMEM)}, or choose the driver poll"
    assert done.stderr == f"theframework: error: {line}\n"


# The report


def test_check_names_the_block_and_poll_suffices() -> None:
    done = run_confined("check", before_start=confine.io_uring_blocked(errno.EPERM))
    assert done.returncode == 0
    assert "driver:        auto takes poll\n" in done.stdout
    assert f"since {blocked_line(errno.EPERM)}\n" in done.stdout
    assert "io_uring:      does not work\n" in done.stdout
    assert "seccomp:       a filter is active" in done.stdout


def test_check_fails_where_the_environment_forces_what_cannot_run() -> None:
    done = run_confined(
        "check",
        before_start=confine.io_uring_blocked(errno.EPERM),
        env={"THEFRAMEWORK_DRIVER": "io_uring"},
    )
    assert done.returncode == 1
    assert "the environment asks for io_uring, so no server can start\n" in done.stdout


def test_check_names_each_feature_that_is_masked() -> None:
    needs_io_uring()
    masked = ",".join(IO_URING_FEATURES)
    done = run_confined("check", env={"THEFRAMEWORK_IO_URING_WITHOUT": masked})
    assert done.returncode == 0
    for name, _, replacement in core.io_uring_features():
        assert f" without {name} (masked by io_uring_without): {replacement}\n" in done.stdout


# Features


def test_features_of_the_settings_are_those_of_the_core() -> None:
    named = tuple(name for name, _, _ in core.io_uring_features())
    assert named == IO_URING_FEATURES


def test_feature_that_the_kernel_refuses_is_replaced(start_confined: StartConfined) -> None:
    needs_io_uring()
    refused = confine.refusing(
        [
            confine.Refusal(
                confine.IO_URING_REGISTER, errno.EINVAL, second=confine.REGISTER_BUFFER_RING
            )
        ]
    )
    done = run_confined("check", before_start=refused)
    assert "without buffer_ring (came with Linux 5.19): " in done.stdout
    server = start_confined("--log-level", "debug", before_start=refused)
    assert server.driver == "io_uring"
    assert "io_uring is used without buffer_ring\n" in server.log()
    serve_everything(server)


def test_kernel_that_does_not_tell_what_it_has_is_not_used(start_confined: StartConfined) -> None:
    """IORING_REGISTER_PROBE is older than the floor: without it nothing is known."""
    refused = confine.refusing(
        [confine.Refusal(confine.IO_URING_REGISTER, errno.EINVAL, second=confine.REGISTER_PROBE)]
    )
    server = start_confined(before_start=refused)
    assert server.driver == "poll"
    assert "io_uring is too old: use Linux 5.19 or newer; the poll driver" in server.log()


@pytest.mark.parametrize("mask", MASKS)
def test_server_serves_without(start_confined: StartConfined, mask: str) -> None:
    needs_io_uring()
    options = ("--io-uring-without", MASKS[mask], "--log-level", "debug")
    server = start_confined("--driver", "io_uring", *options)
    assert server.driver == "io_uring"
    said = server.log().split("io_uring is used without ")[1].splitlines()[0]
    assert {*MASKS[mask].split(",")} <= {*said.split(", ")}
    serve_everything(server)


def serve_everything(server: Server) -> None:
    """A little of all that a driver does; ends with a drain."""
    with server.client() as client:
        for _ in range(50):
            assert client.get("/").whole() == HELLO
    body = os.urandom(1 << 20)
    upload = Exchange(request("POST", "/echo", body), 200, body)
    run(
        server.address,
        [
            Plan([HELLO_EXCHANGE] * 200, depth=16),
            Plan([upload] * 3),
            *(Plan([HELLO_EXCHANGE] * 5) for _ in range(600)),
        ],
    )
    read_slowly(server)
    server.assert_unchanged()

    waiting = [server.client() for _ in range(4)]
    for client in waiting:
        client.send(request("GET", "/sleep/0.2"))
    wait_for(lambda: server.get("/stats").json()["waits"] == len(waiting), "all sleep")
    server.signal(signal.SIGTERM)
    for client in waiting:
        assert client.read().whole() == page("slept", connection="close")
        client.assert_closed()
        client.close()  # Or the server lingers.
    assert server.wait() == 0
    assert "Traceback" not in server.log()


def read_slowly(server: Server) -> None:
    size = 4 << 20
    received = bytearray()
    with Client(server.address, receive_buffer=65_536) as client:
        client.send(request("GET", f"/large/{size}", headers=("Connection: close",)))
        # Long enough for every buffer between the two to be full.
        while len(received) < 300_000:
            time.sleep(0.01)
            received += client.socket.recv(65_536)
        while data := client.socket.recv(1 << 20):
            received += data
    assert received.partition(b"\r\n\r\n")[2] == b"0123456789abcdef" * (size // 16)
