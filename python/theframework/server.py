"""The one way to start a server, from the command line and from `Framework.run`.

It prepares what all workers share (log, driver, descriptor limit, listeners), runs the
supervisor, and cleans up.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from theframework import _framework_core as core
from theframework import limits, log, worker
from theframework._version import __version__
from theframework.errors import PROGRAM, StartError, complain
from theframework.listeners import Listener, open_listeners
from theframework.settings import Settings, SettingsError, resolve
from theframework.supervisor import Supervisor

if TYPE_CHECKING:
    from theframework.app import Framework


def run_application(application: Framework, keywords: Mapping[str, object]) -> None:
    """Serve `application` with settings from code; the way behind `Framework.run`.

    Returns after a stop. Raises `SystemExit` when the server could not start or was cut off, and
    `RuntimeError` when a server is loading the application this very moment.
    """
    if worker.is_worker:
        raise RuntimeError(
            "run() was called while a server loads the application; put it under "
            "if __name__ == '__main__':"
        )
    try:
        settings = resolve(keywords)
    except SettingsError as error:
        complain(error)
        raise SystemExit(2) from None
    status = serve(lambda: application, settings)
    if status != 0:
        raise SystemExit(status)


def serve(load: Callable[[], Framework], settings: Settings) -> int:
    """Serve what `load` returns, called in each worker; return the exit status."""
    try:
        _check_thread()
        log.configure(settings.log_level)
        return _serve(load, _with_driver(_fitted(settings)))
    except StartError as error:
        complain(error)
        if error.details and settings.log_level == "debug":
            print(error.details, file=sys.stderr, flush=True)
        return 1


def _serve(load: Callable[[], Framework], settings: Settings) -> int:
    listeners = open_listeners(
        settings.addresses(),
        backlog=settings.backlog,
        reuse_port=settings.reuse_port,
        workers=settings.workers,
        write_timeout=settings.write_timeout,
    )
    try:
        supervisor = Supervisor(load, settings, listeners, lambda: _announce(listeners, settings))
        return supervisor.run()
    finally:
        for listener in listeners:
            listener.close()
            listener.remove_file()


def _check_thread() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise StartError("run() needs the main thread, since it handles signals")


def _with_driver(settings: Settings) -> Settings:
    """The settings with the driver chosen: once, before any fork, so that workers never differ."""
    try:
        driver, missing, problem = core.choose_driver(
            settings.driver,
            settings.receive_buffers,
            settings.io_uring_without,
            settings.workers,
        )
    except core.DriverError as error:
        raise StartError(str(error)) from None
    if problem is not None:
        log.logger.warning("%s; the poll driver serves instead", problem)
    elif missing:
        log.logger.debug("io_uring is used without %s", ", ".join(missing))
    return dataclasses.replace(settings, driver=driver, io_uring_without=",".join(missing))


def _fitted(settings: Settings) -> Settings:
    """The settings as this machine can keep them: workers counted, connections that fit."""
    settings = dataclasses.replace(settings, workers=settings.worker_count())
    nofile = limits.raise_nofile()
    fitting = limits.connections_that_fit(nofile)
    if settings.max_connections <= fitting:
        return settings
    log.logger.warning(
        "max_connections is lowered from %d to %d: the limit on open files (ulimit -n) is %d",
        settings.max_connections,
        fitting,
        nofile,
    )
    return dataclasses.replace(settings, max_connections=fitting)


def _announce(listeners: list[Listener], settings: Settings) -> None:
    places = [listener.address.url for listener in listeners]
    where = places[0] if len(places) == 1 else ", ".join(places[:-1]) + " and " + places[-1]
    noun = "worker" if settings.workers == 1 else "workers"
    try:
        print(
            f"{PROGRAM} {__version__} serving on {where} ({settings.workers} {noun}, "
            f"{settings.driver})",
            flush=True,
        )
    except OSError:  # nobody reads stdout any more; the server serves all the same
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - kept until exit
