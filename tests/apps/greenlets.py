"""Handlers that do with greenlets what no handler should: tests/test_greenlet_faults.py."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

import greenlet
from theframework import Framework, Next, Request, Response, sleep
from theframework import _framework_core as core

app = Framework()
TEXT = "text/plain"

KINDS: dict[str, type[BaseException]] = {
    "RuntimeError": RuntimeError,
    "GreenletExit": greenlet.GreenletExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": SystemExit,
}
# The greenlets of handlers that wait, by a name that the request gave them.
_waiting: dict[str, greenlet.greenlet] = {}
_remembered: dict[str, weakref.ref[greenlet.greenlet]] = {}
_kept: dict[str, Any] = {}
# What happened where no response tells of it.
_seen: list[str] = []


def text(response: Response, body: str) -> None:
    response.set_header("Content-Type", TEXT)
    response.write(body)


def hub_greenlet() -> greenlet.greenlet:
    parent = greenlet.getcurrent()
    while parent.parent is not None:
        parent = parent.parent
    return parent


@app.use
def exits_on_request(request: Request, response: Response, next: Next) -> None:
    if request.path == "/exit-in-middleware/before":
        sys.exit(3)
    next()
    if request.path == "/exit-in-middleware/after":
        sys.exit(3)


@app.route("/")
def index(request: Request, response: Response) -> None:
    text(response, "hello world")


@app.route("/stats")
def stats(request: Request, response: Response) -> None:
    gc.collect()
    response.json(core.stats())


@app.route("/greenlets")
def greenlets(request: Request, response: Response) -> None:
    """How many greenlets there are, dead or alive, that are not the core's workers."""
    gc.collect()
    count = sum(isinstance(thing, greenlet.greenlet) for thing in gc.get_objects())
    text(response, str(count - core.stats()["workers"]))


@app.route("/seen")
def seen(request: Request, response: Response) -> None:
    response.json(_seen)
    _seen.clear()


@app.route("/sleep/{seconds}/{name}")
def sleeping(request: Request, response: Response) -> None:
    sleep(float(request.params["seconds"]))
    text(response, f"slept as {request.params['name']}")


@app.route("/large/{size}")
def large(request: Request, response: Response) -> None:
    response.set_header("Content-Type", "application/octet-stream")
    response.write(b"0123456789abcdef" * (int(request.params["size"]) // 16))


# Waiting, and being thrown into or switched to meanwhile


@app.route("/wait/{name}")
def wait(request: Request, response: Response) -> None:
    name = request.params["name"]
    _waiting[name] = greenlet.getcurrent()
    try:
        sleep(30)
    except BaseException as error:
        _seen.append(f"{name}: {type(error).__name__}: {error}")
        raise
    finally:
        _waiting.pop(name, None)
    text(response, f"waited as {name}")


@app.route("/wait-on/{name}/{seconds}")
def wait_on(request: Request, response: Response) -> None:
    """Told in the first wait, waits once more: the whole time, whatever the first one left."""
    name = request.params["name"]
    _waiting[name] = greenlet.getcurrent()
    try:
        sleep(0.2)
    except BaseException as error:
        told = type(error).__name__
    else:
        told = "nothing"
    began = time.monotonic()
    sleep(float(request.params["seconds"]))
    passed = time.monotonic() - began
    del _waiting[name]
    right = passed >= float(request.params["seconds"])
    text(response, f"told {told}, then slept {'enough' if right else passed}")


@app.route("/wait-and-throw/{name}/{other}")
def wait_and_throw(request: Request, response: Response) -> None:
    """Thrown into, it throws into the next one."""
    name = request.params["name"]
    _waiting[name] = greenlet.getcurrent()
    try:
        sleep(30)
    except RuntimeError as error:
        _waiting[request.params["other"]].throw(RuntimeError(f"{error} by {name}"))
    del _waiting[name]
    text(response, f"passed on by {name}")


@app.route("/wait-and-switch-back/{name}")
def wait_and_switch_back(request: Request, response: Response) -> None:
    """Switched to, it switches back as a coroutine would."""
    name = request.params["name"]
    _waiting[name] = greenlet.getcurrent()
    try:
        sleep(30)
    except RuntimeError:
        _waiting["caller"].switch("a value")
    text(response, f"switched back by {name}")


@app.route("/call/{name}")
def call(request: Request, response: Response) -> None:
    _waiting["caller"] = greenlet.getcurrent()
    got = _waiting[request.params["name"]].switch()
    _waiting.clear()
    text(response, f"got {got}")


@app.route("/is-waiting/{name}")
def is_waiting(request: Request, response: Response) -> None:
    text(response, str(request.params["name"] in _waiting))


@app.route("/throw/{name}/{kind}")
def throw(request: Request, response: Response) -> None:
    _waiting[request.params["name"]].throw(KINDS[request.params["kind"]], "thrown by a handler")
    text(response, "threw")


@app.route("/throw-and-sleep/{name}")
def throw_and_sleep(request: Request, response: Response) -> None:
    _waiting[request.params["name"]].throw(RuntimeError("thrown by a handler"))
    sleep(0.05)
    text(response, "threw and slept")


@app.route("/throw-by-own/{name}")
def throw_by_own(request: Request, response: Response) -> None:
    """A greenlet of the handler's own throws, after a wait of its own."""
    target = _waiting[request.params["name"]]

    def run() -> str:
        sleep(0.01)
        target.throw(RuntimeError("thrown by a handler"))
        return "own greenlet went on"

    text(response, greenlet.greenlet(run).switch())


@app.route("/switch/{name}")
def switch(request: Request, response: Response) -> None:
    _waiting[request.params["name"]].switch("a", "value", key=1)
    text(response, "switched")


@app.route("/throw-from-thread/{name}")
def throw_from_thread(request: Request, response: Response) -> None:
    target = _waiting[request.params["name"]]
    got: list[str] = []

    def run() -> None:
        for act in (target.switch, lambda: target.throw(RuntimeError)):
            try:
                act()
            except BaseException as error:
                got.append(type(error).__name__)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    text(response, " ".join(got))


# The hub's own greenlet


@app.route("/hub/switch")
def hub_switch(request: Request, response: Response) -> None:
    for _ in range(3):
        hub_greenlet().switch("a", "value")
    text(response, "went on")


@app.route("/hub/switch-for-ever")
def hub_switch_for_ever(request: Request, response: Response) -> None:
    while True:
        hub_greenlet().switch()


@app.route("/hub/throw/{kind}")
def hub_throw(request: Request, response: Response) -> None:
    hub_greenlet().throw(KINDS[request.params["kind"]], "thrown into the hub")
    text(response, "went on")


@app.route("/hub/report/{text}/{seconds}")
def hub_report(request: Request, response: Response) -> None:
    """Has the hub report something after a while; who reports "first" forks."""

    def report(unraisable: Any) -> None:
        said = str(unraisable.exc_value)
        if said in ("first", "second"):
            print(f"process {os.getpid()} reports {said}", file=sys.stderr, flush=True)
            if said == "first" and (child := os.fork()):
                os.waitpid(child, 0)
        else:
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = report
    sleep(float(request.params["seconds"]))
    hub_greenlet().throw(RuntimeError, request.params["text"])
    text(response, "went on")


@app.route("/hub/sleeps")
def hub_sleeps(request: Request, response: Response) -> None:
    """Code on the hub's greenlet: a finaliser that runs when the hub drops the last reference."""

    class Loud:
        def __del__(self) -> None:
            try:
                sleep(0.01)
            except RuntimeError as error:
                _seen.append(str(error))

    # Its result goes to the hub, which has no use for it.
    greenlet.greenlet(Loud, parent=hub_greenlet()).switch()
    text(response, "went on")


# Workers that are idle, or over


@app.route("/remember/{name}")
def remember(request: Request, response: Response) -> None:
    """A weak reference to the worker: it stays pooled, and can be come by."""
    _remembered[request.params["name"]] = weakref.ref(greenlet.getcurrent())
    text(response, "remembered")


@app.route("/idle/{name}/{how}")
def idle(request: Request, response: Response) -> None:
    target = _remembered.pop(request.params["name"])()
    if target is None:
        text(response, "gone")
        return
    how = request.params["how"]
    if target is greenlet.getcurrent():
        text(response, "myself")
    elif how == "switch":
        target.switch("a", "value")
        text(response, "idle")
    else:
        target.throw(KINDS[how], "thrown into an idle worker")
        text(response, "idle")


@app.route("/keep-worker/{name}")
def keep_worker(request: Request, response: Response) -> None:
    _kept[request.params["name"]] = greenlet.getcurrent()
    text(response, "kept")


@app.route("/late/{name}/{how}")
def late(request: Request, response: Response) -> None:
    """Something late for a worker whose handler returned long ago."""
    target = _kept.pop(request.params["name"])
    if target is greenlet.getcurrent():
        text(response, "it is in use again")
        return
    was_dead = target.dead
    if request.params["how"] == "switch":
        target.switch("a", "value")
    else:
        target.throw(KINDS[request.params["how"]], "thrown into a dead worker")
    text(response, "dead" if was_dead else "alive")


# Greenlets of the handler's own


@app.route("/own/coroutine")
def own_coroutine(request: Request, response: Response) -> None:
    """A producer that waits, and hands over its items by switching to its parent."""

    def produce() -> str:
        home = greenlet.getcurrent().parent
        assert home is not None
        for number in range(5):
            sleep(0.01)
            home.switch(number)
            sleep(0.01)
        return "end"

    producer = greenlet.greenlet(produce)
    got = []
    while not producer.dead:
        got.append(producer.switch())
        sleep(0.005)
    response.json(got)


@app.route("/own/beside")
def own_beside(request: Request, response: Response) -> None:
    """Greenlets beside the handler, children of the hub: when one waits, the handler goes on."""
    done: list[int] = []

    def run(number: int) -> None:
        sleep(0.02 * (5 - number))
        done.append(number)

    for number in range(5):
        greenlet.greenlet(run, parent=hub_greenlet()).switch(number)
    began = list(done)
    sleep(0.3)
    response.json([began, done])


@app.route("/own/dropped")
def own_dropped(request: Request, response: Response) -> None:
    """Nobody holds them: one waits in a cooperative call, one does not."""

    def waits() -> None:
        try:
            sleep(0.02)
            _seen.append("waited")
        except BaseException as error:
            _seen.append(f"told {type(error).__name__}")

    def parked() -> None:
        home = greenlet.getcurrent().parent
        assert home is not None
        try:
            home.switch()
        except BaseException as error:
            _seen.append(f"told {type(error).__name__}")
            raise

    greenlet.greenlet(waits, parent=hub_greenlet()).switch()
    greenlet.greenlet(parked).switch()
    gc.collect()
    sleep(0.05)
    text(response, "dropped both")


@app.route("/own/away/{how}")
def own_away(request: Request, response: Response) -> None:
    """The handler goes to a greenlet of its own that does not come back."""

    how = request.params["how"]

    def run() -> None:
        if how == "sleeps":
            while True:
                sleep(0.01)
        if how in ("waits-and-ends", "is-kept"):
            sleep(0.01)
        greenlet.getcurrent().parent = hub_greenlet()
        if how == "raises":
            raise RuntimeError("raised far from home")

    if how == "is-kept":
        _kept["handler"] = greenlet.getcurrent()
    own = greenlet.greenlet(run)
    try:
        own.switch()
    except BaseException as error:
        _seen.append(f"away: {type(error).__name__}")
        raise
    text(response, "came back")


@app.route("/own/stray/{name}")
def own_stray(request: Request, response: Response) -> None:
    """Its own greenlet does not come back; somebody else resumes the handler, which waits then."""
    name = request.params["name"]

    def run() -> None:
        sleep(0.01)
        greenlet.getcurrent().parent = hub_greenlet()

    _waiting[name] = greenlet.getcurrent()
    greenlet.greenlet(run).switch()
    del _waiting[name]
    try:
        sleep(30)
    except BaseException as error:
        _seen.append(f"{name}: {type(error).__name__}")
        raise
    text(response, "slept")


@app.route("/block/{seconds}")
def block(request: Request, response: Response) -> None:
    """Keeps the worker for so long."""
    time.sleep(float(request.params["seconds"]))
    text(response, "blocked")


@app.route("/resume-late/{name}/{seconds}")
def resume_late(request: Request, response: Response) -> None:
    sleep(float(request.params["seconds"]))
    _waiting[request.params["name"]].switch()
    text(response, "resumed")


@app.route("/own/lent/{name}/{then}")
def own_lent(request: Request, response: Response) -> None:
    """Waits for a greenlet of its own; others may switch to the handler meanwhile."""
    name = request.params["name"]
    _waiting[name] = greenlet.getcurrent()

    def run() -> str:
        sleep(0.2)
        return "home"

    own = greenlet.greenlet(run)
    try:
        got = own.switch()
        state = "dead" if own.dead else "alive"
        if request.params["then"] == "sleep":
            # Its own greenlet ends meanwhile, and so returns to it.
            sleep(0.4)
    except BaseException as error:
        _seen.append(f"{name}: {type(error).__name__}: {error}")
        raise
    finally:
        del _waiting[name]
    text(response, f"got {got}, own is {state}")


# Finalisers


class Acts:
    """Does something when it goes."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def __del__(self) -> None:
        self._act()


def _waits() -> None:
    sleep(0.01)
    _seen.append("finaliser slept")


@app.route("/finaliser/{how}")
def finaliser(request: Request, response: Response) -> None:
    """The last reference goes when the handler returns."""
    how = request.params["how"]
    acts: dict[str, Callable[[], object]] = {
        "sleep": _waits,
        "stats": core.stats,
        "exit": lambda: sys.exit(3),
        "kill": lambda: greenlet.getcurrent().throw(),
        "hub": lambda: hub_greenlet().switch(),
        "write": lambda: response.write(" and more"),
        "request": lambda: _seen.append(request.full_path),
    }
    text(response, how)
    if how in ("write", "request"):
        # They have the objects: those of the next request must be others.
        loop = Acts(acts[how])
        loop.self = loop  # type: ignore[attr-defined]
        return
    request.acts = Acts(acts[how])


@app.route("/finaliser-in-cycle/{how}")
def finaliser_in_cycle(request: Request, response: Response) -> None:
    """Found by the collector, somewhere."""
    acts: dict[str, Callable[[], object]] = {"sleep": lambda: sleep(0.001), "stats": core.stats}
    for _ in range(100):
        loop = Acts(acts[request.params["how"]])
        loop.self = loop  # type: ignore[attr-defined]
    text(response, "made")


@app.route("/weakref-callback")
def weakref_callback(request: Request, response: Response) -> None:
    class Thing:
        pass

    thing = Thing()
    ref = weakref.ref(thing, lambda ref: _waits())
    del thing
    text(response, str(ref() is None))


@app.route("/collect")
def collect(request: Request, response: Response) -> None:
    gc.collect()
    text(response, "collected")


@app.route("/exit-in-middleware/{when}")
def exit_in_middleware(request: Request, response: Response) -> None:
    text(response, "not to be seen")


@app.route("/exit-in-handler")
def exit_in_handler(request: Request, response: Response) -> None:
    text(response, "not to be seen")
    sys.exit(3)


# Signals


@app.route("/on-signal/{how}")
def on_signal(request: Request, response: Response) -> None:
    """What SIGUSR1 does from now on."""
    how = request.params["how"]

    def handle(number: int, frame: FrameType | None) -> None:
        _kept["signals"] = _kept.get("signals", 0) + 1
        if how == "sleep":
            try:
                sleep(0.001)
            except RuntimeError as error:
                _seen.append(str(error))
        elif how == "raise":
            raise RuntimeError("raised by a signal handler")
        elif how == "exit":
            sys.exit(3)
        elif how == "call":
            core.stats()
            response.write("late")
            str(request.headers)
        elif how == "hub":
            hub_greenlet().switch()

    signal.signal(signal.SIGUSR1, handle)
    _kept["signals"] = 0
    text(response, "set")


@app.route("/alarms/{state}")
def alarms(request: Request, response: Response) -> None:
    signal.signal(signal.SIGALRM, lambda number, frame: sleep(0.0005))
    # Longer than a handler sleeps, also where timers tick in milliseconds: else they pile up.
    period = 0.005 if request.params["state"] == "on" else 0.0
    signal.setitimer(signal.ITIMER_REAL, period, period)
    text(response, request.params["state"])


@app.route("/signals")
def signals(request: Request, response: Response) -> None:
    text(response, str(_kept.get("signals", 0)))


@app.route("/spin/{seconds}")
def spin(request: Request, response: Response) -> None:
    end = time.monotonic() + float(request.params["seconds"])
    while time.monotonic() < end:
        pass
    text(response, "spun")


# Forks


@app.route("/fork/{how}")
def fork(request: Request, response: Response) -> None:
    """The child's exit status, or what it printed."""
    how = request.params["how"]
    if how == "subprocess":
        done = subprocess.run([sys.executable, "-c", "print(6 * 7)"], stdout=subprocess.PIPE)
        text(response, done.stdout.decode().strip())
    elif how == "preexec":
        done = subprocess.run(["true"], preexec_fn=lambda: None)
        text(response, str(done.returncode))
    elif how == "multiprocessing":
        import multiprocessing

        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        process = context.Process(target=lambda: queue.put(os.getppid()))
        process.start()
        got = queue.get()
        process.join()
        queue.close()
        text(response, f"{got == os.getpid()} {process.exitcode}")
        process.close()
    else:
        status = _status_of_child(how)
        if status is not None:
            text(response, str(status))


def _status_of_child(how: str) -> int | None:
    """The exit status of a new child; in the child, None."""
    child = greenlet.greenlet(os.fork).switch() if how == "own-greenlet" else os.fork()
    if child == 0:
        if how == "sys-exit":
            sys.exit(3)
        if how == "raise":
            raise RuntimeError("raised in the child")
        if how == "sleeps":
            sleep(0.05)
            os._exit(4)
        if how == "own-greenlet":
            os._exit(len(_waiting) + 5)
        if how == "hub":
            hub_greenlet().switch()
        return None
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        sleep(0.005)


@app.route("/fork-in-thread")
def fork_in_thread(request: Request, response: Response) -> None:
    """A child of another thread: it lives on for a while, and must hold nothing of the server's."""
    got: list[int] = []

    def run() -> None:
        child = os.fork()
        if child == 0:
            time.sleep(1.5)
            os._exit(0)
        got.append(child)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    _kept["child"] = got[0]
    text(response, str(got[0]))


@app.route("/reap")
def reap(request: Request, response: Response) -> None:
    _, status = os.waitpid(_kept.pop("child"), 0)
    text(response, str(status))
