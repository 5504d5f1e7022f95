"""Processes that serve in themselves and end in some odd way: tests/test_process_exits.py.

Run as `python -m tests.apps.exits NAME`, with DRIVER in the environment. Each scenario is both
sides: it serves, its clients run in a thread, and it checks what it can see. The test looks at the
exit status and at stderr.
"""

from __future__ import annotations

import atexit
import gc
import os
import random
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import greenlet
from theframework import Framework, Request, Response, sleep
from theframework import _framework_core as core
from theframework.settings import resolve

from tests.client import Address, Client, page, request

app = Framework()
ended: list[str] = []
kept: list[Any] = []
logged: list[str] = []
THOUSAND = 1000


def text(response: Response, body: str) -> None:
    response.set_header("Content-Type", "text/plain")
    response.write(body)


@app.route("/")
def index(request: Request, response: Response) -> None:
    text(response, "hello world")


@app.route("/stats")
def stats(request: Request, response: Response) -> None:
    response.json(core.stats())


@app.route("/sleep/{seconds}")
def sleeping(request: Request, response: Response) -> None:
    try:
        sleep(float(request.params["seconds"]))
    except BaseException as error:
        ended.append(type(error).__name__)
        raise
    text(response, "slept")


@app.route("/own-sleep")
def own_sleep(request: Request, response: Response) -> None:
    """Waits in a greenlet of its own."""
    try:
        greenlet.greenlet(sleep).switch(30)
    except BaseException as error:
        ended.append(type(error).__name__)
        raise


@app.route("/finally-sleeps")
def finally_sleeps(request: Request, response: Response) -> None:
    try:
        sleep(30)
    finally:
        try:
            sleep(30)
        finally:
            ended.append("twice")


@app.route("/stubborn")
def stubborn(request: Request, response: Response) -> None:
    while True:
        try:
            sleep(30)
        except BaseException:
            ended.append("ignored")


@app.route("/keep")
def keep(request: Request, response: Response) -> None:
    kept.extend([request, response, greenlet.getcurrent()])
    text(response, "kept")


@app.route("/stop")
def stop(request: Request, response: Response) -> None:
    core.stop()
    text(response, "not to be seen")


@app.route("/drain/{seconds}")
def drain(request: Request, response: Response) -> None:
    core.drain(float(request.params["seconds"]))
    text(response, "draining")


@app.route("/stop-in-finaliser")
def stop_in_finaliser(request: Request, response: Response) -> None:
    class Stops:
        def __del__(self) -> None:
            core.drain(5)
            core.stop()

    Stops()
    text(response, "not to be seen")


@app.route("/exit/{status}")
def exit_now(request: Request, response: Response) -> None:
    os._exit(int(request.params["status"]))


# Serving in this process


def settings_of(**settings: Any) -> dict[str, Any]:
    def note(exception: BaseException, method: str, path: str) -> None:
        logged.append(type(exception).__name__)

    driver = os.environ["DRIVER"]
    return {**resolve({"driver": driver, **settings}).as_dict(), "on_exception": note}


def listen() -> tuple[int, Address]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.setblocking(False)
    host, port = listener.getsockname()
    return listener.detach(), (host, port)


def serve(drive: Callable[[Address], None], **settings: Any) -> int:
    """Serve until the clients, which `drive` runs in a thread, have stopped it."""
    fd, address = listen()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            drive(address)
        except BaseException as failure:
            failures.append(failure)
            os.kill(os.getpid(), signal.SIGABRT)
            raise

    thread = threading.Thread(target=run)
    lost = core.serve(
        app._application, [fd], settings_of(**settings), on_ready=lambda: thread.start()
    )
    thread.join()
    return lost


def get(address: Address, target: str) -> str:
    with Client(address) as client:
        return client.get(target).body.decode()


def waits(address: Address) -> int:
    with Client(address) as client:
        return int(client.get("/stats").json()["waits"])


def many(address: Address, target: str, count: int) -> list[Client]:
    """So many connections, each with a request that waits in its handler."""
    clients = [Client(address) for _ in range(count)]
    for client in clients:
        client.send(request("GET", target))
    while waits(address) < count:
        time.sleep(0.01)
    return clients


def ask(address: Address, target: str) -> None:
    """Send a request to which there may be no answer."""
    with Client(address) as client:
        client.send(request("GET", target))
        while client.socket.recv(65_536):
            pass


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def greenlets() -> int:
    greenlet.getcurrent()  # the main one is made when it is asked for
    gc.collect()
    return sum(isinstance(thing, greenlet.greenlet) for thing in gc.get_objects())


def same(before: object, after: object) -> None:
    assert before == after, f"before {before}, after {after}"


def stop_many(target: str, count: int = THOUSAND) -> int:
    def drive(address: Address) -> None:
        clients = many(address, target, count)
        ask(address, "/stop")
        for client in clients:
            client.assert_closed()

    return serve(drive, max_connections=THOUSAND + 100)


# Scenarios: the hub ends


def stop_with_a_thousand_waiting() -> None:
    serve(lambda address: ask(address, "/stop"))
    before = descriptors(), greenlets()
    for _ in range(2):
        ended.clear()
        assert stop_many("/sleep/30") >= THOUSAND
        assert ended == ["GreenletExit"] * THOUSAND
        same(before, (descriptors(), greenlets()))


def stop_with_greenlets_of_handlers_waiting() -> None:
    before = descriptors(), greenlets()
    stop_many("/own-sleep", 100)
    assert ended == ["GreenletExit"] * 100
    same(before, (descriptors(), greenlets()))


def stop_with_finally_blocks_that_wait() -> None:
    before = descriptors(), greenlets()
    stop_many("/finally-sleeps", 100)
    assert ended == ["twice"] * 100
    same(before, (descriptors(), greenlets()))


def stop_with_handlers_that_do_not_end() -> None:
    before = descriptors()
    stop_many("/stubborn", 50)
    # They are told some times, and left alone then; nor do they hurt another hub, or the exit.
    assert 50 <= len(ended) < 50 * 20
    same(before, descriptors())
    stop_many("/sleep/30", 50)
    gc.collect()


def drain_with_a_thousand_waiting() -> None:
    def drive(address: Address) -> None:
        clients = many(address, "/sleep/1.5", THOUSAND)
        assert get(address, "/drain/10") == "draining"
        for client in clients:
            assert client.read().whole() == page("slept", connection="close")
            client.close()

    before = descriptors(), greenlets()
    assert serve(drive, max_connections=THOUSAND + 100) == 0
    same(before, (descriptors(), greenlets()))


def drain_that_ends_too_early() -> None:
    def drive(address: Address) -> None:
        clients = many(address, "/sleep/30", 100)
        assert get(address, "/drain/0.2") == "draining"
        for client in clients:
            client.assert_closed()

    before = descriptors(), greenlets()
    assert serve(drive) == 100
    assert ended == ["GreenletExit"] * 100
    same(before, (descriptors(), greenlets()))


def stop_in_a_finaliser() -> None:
    before = descriptors()
    for _ in range(3):
        serve(lambda address: ask(address, "/stop-in-finaliser"))
    same(before, descriptors())


def serve_again_and_again() -> None:
    def drive(address: Address) -> None:
        assert get(address, "/") == "hello world"
        get(address, "/drain/1")

    for _ in range(3):
        serve(drive)
    before = descriptors(), greenlets(), core.allocation_counts()[2]
    for _ in range(20):
        serve(drive)
    after = descriptors(), greenlets(), core.allocation_counts()[2]
    same(before[:2], after[:2])
    # A hub is never freed: what outlives it finds it ended. It is small, and owns nothing.
    assert after[2] - before[2] < 20 * 4096, after[2] - before[2]


# Scenarios: the interpreter ends


def _leave_things() -> None:
    """Serve, and leave behind what a careless application leaves behind."""

    def drive(address: Address) -> None:
        assert get(address, "/keep") == "kept"
        ask(address, "/stop")

    serve(drive)


def exit_with_objects_kept() -> None:
    _leave_things()
    assert kept[0].path == "/keep"


class Calls:
    """Calls everything when it goes, at the exit at the latest."""

    def __del__(self) -> None:
        call_everything()


def refused(call: Callable[[], object]) -> str:
    """What a call says that is refused."""
    try:
        call()
    except RuntimeError as error:
        return str(error)
    return ""


def call_everything() -> None:
    assert refused(core.stats) in ("no hub runs on this thread", "")
    for call in (core.stop, lambda: core.drain(1.0), lambda: sleep(0.001)):
        assert refused(call) == ""
    for thing in kept:
        for name in ("path", "body", "headers", "status"):
            getattr(thing, name, None)
        if isinstance(thing, Response):
            thing.write("late")
            assert refused(lambda: thing.set_header("X-Late", "1")) == "response is over"  # noqa: B023
        if isinstance(thing, greenlet.greenlet):
            thing.switch()


def exit_handlers_that_call_the_core() -> None:
    atexit.register(call_everything)
    kept.append(Calls())
    _leave_things()


def exit_with_stubborn_greenlets() -> None:
    atexit.register(call_everything)
    stop_many("/stubborn", 20)
    sys.exit(5)


def exit_by_an_exception() -> None:
    _leave_things()
    raise LookupError("the script's own end")


def exit_in_a_handler() -> None:
    serve(lambda address: ask(address, "/exit/7"))


def _serve_in_daemon(targets: list[str], seconds: float = 0.2) -> None:
    fd, address = listen()
    settings = settings_of()
    threading.Thread(
        target=core.serve, args=(app._application, [fd], settings), daemon=True
    ).start()

    def load() -> None:
        while True:
            for target in targets:
                get(address, target)

    assert get(address, "/") == "hello world"
    for _ in range(3):
        threading.Thread(target=load, daemon=True).start()
    time.sleep(seconds)


def exit_while_a_daemon_thread_serves() -> None:
    _serve_in_daemon(["/", "/sleep/0.001", "/keep"])


def exit_while_a_daemon_thread_waits() -> None:
    _serve_in_daemon(["/sleep/30", "/own-sleep", "/stubborn"])
    sys.exit(5)


def exit_while_a_daemon_thread_serves_at_random() -> None:
    _serve_in_daemon(["/", "/sleep/0.001", "/sleep/0"], random.random() / 20)


def exit_while_threads_use_requests() -> None:
    """Request and response objects in other threads, while the hub runs and at the exit."""

    def use() -> None:
        while True:
            call_some()

    def call_some() -> None:
        for thing in kept[-6:]:
            if not isinstance(thing, greenlet.greenlet):
                repr(thing)
                try:
                    dict(getattr(thing, "headers", {}))
                    thing.set_header("X-Late", "1")
                except (AttributeError, RuntimeError):
                    pass

    for _ in range(2):
        threading.Thread(target=use, daemon=True).start()
    _serve_in_daemon(["/keep", "/", "/sleep/0.001"], 0.3)


def killed_at_random() -> None:
    """By the signal that the environment names, while it serves."""
    number = int(os.environ["KILLED_BY"])

    def drive(address: Address) -> None:
        clients = many(address, "/sleep/30", 20)
        timer = threading.Timer(random.random() / 20, os.kill, (os.getpid(), number))
        timer.start()
        while True:
            get(address, "/")
            get(address, "/sleep/0.001")
        del clients

    serve(drive)


def interrupted() -> None:
    """SIGINT, with Python's own handler and nobody there: the drain begins."""

    def drive(address: Address) -> None:
        assert get(address, "/") == "hello world"
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    assert serve(drive, graceful_timeout=5) == 0


def exit_out_of_a_greenlet() -> None:
    """The hub runs on a greenlet of its own; a handler leaves it for the main one, which exits."""
    main = greenlet.getcurrent()

    @app.route("/leave")
    def leave(request: Request, response: Response) -> None:
        main.switch("left")

    def drive(address: Address) -> None:
        many(address, "/sleep/30", 10)
        with Client(address) as client:
            client.send(request("GET", "/leave"))
            time.sleep(0.3)

    threads_before = threading.active_count()
    assert greenlet.greenlet(serve).switch(drive) == "left"
    while threading.active_count() > threads_before:
        time.sleep(0.01)
    sys.exit(5)


# Scenarios: forks


def _serve_one(address_of: Callable[[Address], None] | None = None) -> None:
    def drive(address: Address) -> None:
        assert get(address, "/") == "hello world"
        get(address, "/drain/1")

    serve(drive)


def child_starts_a_hub_of_its_own() -> None:
    children: list[int] = []

    @app.route("/fork")
    def fork(request: Request, response: Response) -> None:
        child = os.fork()
        if child:
            children.append(child)
            text(response, "forked")

    def drive(address: Address) -> None:
        clients = many(address, "/sleep/1.0", 10)
        assert get(address, "/fork") == "forked"
        for client in clients:
            assert client.read().whole() == page("slept")
            client.close()
        get(address, "/drain/1")

    pid = os.getpid()
    fd, address = listen()
    thread = threading.Thread(target=drive, args=(address,))
    core.serve(app._application, [fd], settings_of(), on_ready=lambda: thread.start())
    # In the child, `serve` returns when the handler has.
    if os.getpid() != pid:
        assert not ended
    else:
        thread.join()
    before = descriptors()
    _serve_one()
    same(before, descriptors())
    if os.getpid() == pid:
        (child,) = children
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 6, status
    else:
        sys.exit(6)


def fork_beside_a_hub_in_a_thread() -> None:
    """The main thread forks again and again, while a thread serves."""
    fd, address = listen()
    settings = settings_of()
    thread = threading.Thread(target=core.serve, args=(app._application, [fd], settings))
    thread.start()
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            assert get(address, "/") == "hello world"
            assert get(address, "/sleep/0.001") == "slept"

    clients = [threading.Thread(target=load) for _ in range(2)]
    for client in clients:
        client.start()
    for turn in range(40):
        child = os.fork()
        if child == 0:
            sockets = [
                link
                for name in os.listdir("/proc/self/fd")
                if (link := _link(name)).startswith("anon_inode:[io_uring]")
            ]
            assert not sockets, sockets
            if turn % 8 == 0:
                _serve_one()
            os._exit(6)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 6, status
    done.set()
    for client in clients:
        client.join()
    ask(address, "/drain/1")
    thread.join()


def _link(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""


# Scenarios: raw switches that outlive the hub


def switch_into_what_the_hub_has_left() -> None:
    workers: list[weakref.ref[greenlet.greenlet]] = []

    @app.route("/remember")
    def remember(request: Request, response: Response) -> None:
        workers.append(weakref.ref(greenlet.getcurrent()))
        kept.append(greenlet.getcurrent())
        sleep(30)

    def drive(address: Address) -> None:
        clients = many(address, "/remember", 10)
        clients += many(address, "/stubborn", 10)[:0]
        ask(address, "/stop")
        del clients

    serve(drive)
    for worker in kept:
        assert worker.dead
        worker.switch()
    kept.clear()
    gc.collect()
    assert not any(worker() for worker in workers)


def main() -> None:
    name = sys.argv[1]
    random.seed(os.environ.get("SEED"))
    globals()[name]()
    print(f"{name} came to its end", flush=True)


if __name__ == "__main__":
    main()
