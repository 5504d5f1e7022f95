#!/usr/bin/env python3
"""Measure the framework beside its peers and the floor programs in one run (bench/README.md)."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar

import setup_peers
from load import WORKLOADS, ServerGoneError, Workload, check, drive, measure_idle
from report import write_page
from servers import HERE, OURS, SERVERS, Ports, Server, Spec, StartError, added, running

ROOT = HERE.parent
RESULTS = HERE / "results"
PAGE = ROOT / "docs" / "performance.md"
IDLE_SECONDS = 5


class Progress:
    """One line that tells what is measured, how far the run is and how long it still takes."""

    def __init__(self, steps: int, planned: float) -> None:
        self.steps, self.planned = steps, planned
        self.step, self.spent, self.start = 0, 0.0, time.monotonic()
        self.terminal = sys.stdout.isatty()

    def left(self) -> str:
        elapsed = time.monotonic() - self.start
        pace = elapsed / self.spent if self.step > 3 else 1.0
        seconds = max(0.0, self.planned - self.spent) * pace
        return f"{seconds / 60:.0f} min left" if seconds > 90 else f"{seconds:.0f} s left"

    def show(self, text: str, *, keep: bool) -> None:
        line = f"[{self.step}/{self.steps}, {self.left()}] {text}"
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{line[:width]}", end="", flush=True)
        elif keep:
            print(line, flush=True)

    def done(self, text: str, planned: float, *, stay: bool = False) -> None:
        self.step += 1
        self.spent += planned
        self.show(text, keep=True)
        if stay and self.terminal:
            print()


def say(text: str) -> None:
    print(text, flush=True)


def machine() -> dict[str, str]:
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "?",
        "kernel": platform.release(),
        "system": system,
        "python": platform.python_version(),
    }


def revision() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    with contextlib.suppress(OSError):
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", "crates", "python", "Cargo.lock")
        return head + (" with uncommitted changes" if head and changed else "")
    return ""


class Bench:
    """The running servers and what was measured so far."""

    workloads: ClassVar[dict[str, Workload]] = WORKLOADS
    at_most: ClassVar[dict[str, int]] = {"f": 3}  # rounds of a workload, where they are limited

    def __init__(self, args: argparse.Namespace, specs: list[Spec], places: dict[str, str]) -> None:
        self.args, self.specs, self.places = args, specs, places
        self.ports = Ports(args.port)
        self.servers: dict[str, Server] = {}
        self.letters: dict[str, str] = {}  # server: its workloads
        self.lost: dict[tuple[str, str], int] = {}
        self.problems: dict[str, dict[str, str]] = {}
        self.runs: dict[str, dict[str, list[dict[str, Any]]]] = {w: {} for w in args.workloads}

    def problem(self, name: str, letter: str, text: str) -> None:
        self.problems.setdefault(name, {})[letter] = text

    def start(self, spec: Spec) -> Server:
        a = self.args
        server = Server(spec, self.places, self.ports.take(), a.server_cpu, a.nice)
        self.servers[spec.name] = server
        return server

    def start_all(self) -> None:
        """Start each server, ask whether it answers rightly, warm it up."""
        for spec in self.specs:
            wanted = "".join(w for w in self.args.workloads if w in spec.workloads)
            if not wanted:
                continue
            say(f"starting {spec.name}")
            try:
                server = self.start(spec)
            except (StartError, OSError) as e:
                self.problem(spec.name, "start", str(e)[-300:])
                say(f"  {spec.name} does not start: {str(e)[-300:]}")
                continue
            wrong = self.check(server.port, spec.kind, wanted)
            for letter, text in wrong.items():
                self.problem(spec.name, letter, text)
                say(f"  {spec.name} fails the check of workload {letter}: {text}")
            self.letters[spec.name] = "".join(w for w in wanted if w not in wrong)
            if self.letters[spec.name].strip("f"):
                with contextlib.suppress(ServerGoneError):
                    self.drive(server, "a", 1)

    def check(self, port: int, kind: str, wanted: str) -> dict[str, str]:
        return check(port, kind, wanted)

    def drive(self, server: Server, letter: str, seconds: int) -> dict[str, Any]:
        a, load = self.args, self.workloads[letter]
        return drive(server.pid, server.port, load, seconds, a.client_cpu, a.nice)

    def seconds(self, letter: str) -> int:
        return int(self.args.seconds * self.workloads[letter].times)

    def plan(self) -> list[tuple[int, str, Spec]]:
        """Rounds over all servers, so that slow spells of the machine fall on each of them."""
        steps = []
        for k in range(self.args.rounds):
            turn = k % len(self.specs)
            for letter in self.args.workloads:
                if k >= self.at_most.get(letter, self.args.rounds):
                    continue
                for spec in self.specs[turn:] + self.specs[:turn]:
                    if letter in self.letters.get(spec.name, ""):
                        steps.append((k, letter, spec))
        return steps

    def cost(self, letter: str) -> float:
        return IDLE_SECONDS if letter == "f" else self.seconds(letter) + 0.5

    def one(self, letter: str, spec: Spec) -> tuple[dict[str, Any], str]:
        """Measure once.  Returns the figures and how to say them in a line."""
        a = self.args
        if letter == "f":
            port = self.ports.take()
            with running(spec, self.places, port, a.server_cpu, a.nice, idle=True) as fresh:
                run = measure_idle(fresh.pid, port, a.idle)
            each = run["bytes_per_connection"]
            return run, "none stayed open" if each is None else f"{each:,.0f} bytes each"
        server = self.servers[spec.name]
        if not server.alive():
            server.stop()
            server = self.start(spec)
        run = self.drive(server, letter, self.seconds(letter))
        if not server.alive():
            status, words = server.process.returncode, server.last_words()
            raise ServerGoneError(f"ended with status {status}: {words}")
        time.sleep(0.5 if letter in "eg" else 0.2)  # hundreds of closes are still to be handled
        return run, f"{run['rps']:,.0f} req/s, {run['cpu_us']:.2f} µs CPU"

    def run(self, save: Any) -> None:
        steps = self.plan()
        progress = Progress(len(steps), sum(self.cost(letter) for _, letter, _ in steps))
        for i, (k, letter, spec) in enumerate(steps):
            what = f"round {k + 1} of {self.args.rounds} · {letter} {self.workloads[letter].title}"
            what += f" · {spec.name}"
            if self.lost.get((spec.name, letter), 0) > 1:
                progress.done(f"{what} (given up)", self.cost(letter))
                continue
            progress.show(what, keep=False)
            try:
                run, text = self.one(letter, spec)
                run["round"] = k
                self.runs[letter].setdefault(spec.name, []).append(run)
                if run.get("foreign_cpu", 0) > self.args.noise:
                    text += f", foreign CPU {run['foreign_cpu']:.2f}!"
            except (
                ServerGoneError,
                StartError,
                OSError,
                ValueError,
                subprocess.SubprocessError,
            ) as e:
                text = f"FAILED: {str(e)[-200:]}"
                key = (spec.name, letter)
                self.lost[key] = self.lost.get(key, 0) + 1
                self.servers[spec.name].stop()  # started again when its turn comes
                self.problem(spec.name, letter, f"in round {k + 1}: {str(e)[-300:]}")
            failed = text.startswith("FAILED")
            progress.done(f"{what}: {text}", self.cost(letter), stay=failed)
            if i + 1 == len(steps) or steps[i + 1][0] != k:
                save()
        if progress.terminal:
            print()

    def stop_all(self) -> None:
        for server in self.servers.values():
            server.stop()


def options(about: str | None, workloads: dict[str, Workload]) -> argparse.ArgumentParser:
    letters = "; ".join(f"{k} {w.title}" for k, w in workloads.items())
    parser = argparse.ArgumentParser(description=about, epilog=f"Workloads: {letters}.")
    parser.add_argument("--servers", help="names with commas, * allowed (default: all)")
    parser.add_argument("--workloads", help="letters, e.g. abd (default: all)")
    parser.add_argument("--rounds", type=int, help="rounds over all servers (default: 9)")
    parser.add_argument("--seconds", type=int, help="length of one wrk run (default: 3)")
    parser.add_argument("--quick", action="store_true", help="two rounds of one second: to try it")
    parser.add_argument("--json", type=Path, help="results go there (default: bench/results/)")
    parser.add_argument("--page", type=Path, help="the page (default: in docs/ after a full run)")
    parser.add_argument("--report", action="store_true", help="only write the page from the JSON")
    parser.add_argument("--list", action="store_true", help="show servers, commands and workloads")
    parser.add_argument("--idle", type=int, default=5000, help="connections of workload f")
    parser.add_argument("--port", type=int, default=21000, help="first port to use")
    parser.add_argument("--server-cpu", default="0", help="core of the servers")
    parser.add_argument("--client-cpu", default="1", help="core of wrk")
    parser.add_argument("--nice", type=int, default=0, help="nice level, e.g. -19 (root)")
    parser.add_argument("--noise", type=float, default=0.10, help="foreign CPU that is flagged")
    return parser


def settle(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    workloads: dict[str, Workload],
    specs: list[Spec],
) -> None:
    """Fill in what was left out, and choose the servers."""
    args.partial = bool(args.servers or args.workloads or args.quick)
    args.rounds = args.rounds or (2 if args.quick else 9)
    args.seconds = args.seconds or (1 if args.quick else 3)
    args.workloads = args.workloads or "".join(workloads)
    if unknown := set(args.workloads) - set(workloads):
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    args.specs = specs
    if args.servers:
        patterns = args.servers.split(",")
        for pattern in patterns:
            if not any(fnmatch(s.name, pattern) for s in args.specs):
                parser.error(f"no such server: {pattern} (--list shows them)")
        args.specs = [s for s in args.specs if any(fnmatch(s.name, p) for p in patterns)]


def arguments() -> argparse.Namespace:
    parser = options(__doc__, WORKLOADS)
    parser.add_argument("--setup", action="store_true", help="only set up, failed peers again")
    parser.add_argument("--add", action="append", default=[], metavar="NAME=COMMAND",
                        help="one more server; {port} and {root} are filled in")  # fmt: skip
    args = parser.parse_args()
    settle(parser, args, WORKLOADS, SERVERS + [added(text) for text in args.add])
    args.partial = args.partial or bool(args.add)
    args.json = args.json or RESULTS / "latest.json"
    default = RESULTS / "performance.md" if args.partial and not args.report else PAGE
    args.page = args.page or default
    return args


def prepare_machine(args: argparse.Namespace) -> None:
    """Two cores or none, and as many open files as may be."""
    usable = os.sched_getaffinity(0)
    if not {int(args.server_cpu), int(args.client_cpu)} <= usable or not shutil.which("taskset"):
        say("note: not two cores (or no taskset): nothing is pinned, server and client compete")
        args.server_cpu = args.client_cpu = ""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < args.idle + 200:
        say(f"note: only {hard} open files are allowed: workload f needs more")


def run_all(
    bench: Bench, command: list[str], skipped: dict[str, str], versions: dict[str, str]
) -> bool:
    """Measure, and write the JSON after each round.  False when it was interrupted."""
    args = bench.args
    started = datetime.datetime.now(datetime.UTC)
    data: dict[str, Any] = {
        "date": started.strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(command),
        "quick": args.quick,
        "partial": args.partial,
        "finished": False,
        "rounds": args.rounds,
        "seconds": args.seconds,
        "noise": args.noise,
        "idle": args.idle,
        "pinned": bool(args.server_cpu),
        "revision": revision(),
        "machine": machine(),
        "versions": versions,
        "servers": {
            s.name: {"kind": s.kind, "command": s.command, "workloads": s.workloads, "note": s.note}
            for s in bench.specs
        },
        "skipped": skipped,
        "problems": bench.problems,
        "runs": bench.runs,
    }

    def save() -> None:
        data["minutes"] = (datetime.datetime.now(datetime.UTC) - started).total_seconds() / 60
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(data, indent=1) + "\n")

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        bench.start_all()
        bench.run(save)
        data["finished"] = True
    except KeyboardInterrupt:
        print("\ninterrupted: stopping the servers", flush=True)
    finally:
        bench.stop_all()
        save()
    if not data["finished"]:
        say(f"what was measured is in {args.json}; --report makes a page of it")
    return bool(data["finished"])


def pages(args: argparse.Namespace) -> int:
    try:
        data = json.loads(args.json.read_text())
    except FileNotFoundError:
        print(f"{args.json} is not there: measure first", file=sys.stderr)
        return 1
    write_page(data, args.page, HERE / "where_the_time_goes.md")
    say(f"wrote {args.page} and {args.page.with_suffix('.svg')}")
    return 0


def main() -> int:
    args = arguments()
    if args.list:
        for spec in args.specs:
            say(f"{spec.name:18} {spec.workloads:10} {spec.command}")
        return 0
    if args.report:
        return pages(args)
    wanted = {spec.needs for spec in args.specs}
    again = args.setup or os.environ.get("SYSTEM_PACKAGES") == "1"
    places, missing = setup_peers.prepare(say, wanted, again)
    skipped = {s.name: missing[s.needs] for s in args.specs if s.needs in missing}
    for name, why in skipped.items():
        say(f"skipped: {name}: {why}")
    if args.setup:
        return 0
    if not setup_peers.program("wrk"):
        print("wrk is needed: apt-get install wrk, or SYSTEM_PACKAGES=1 as root", file=sys.stderr)
        return 1
    specs = [s for s in args.specs if s.name not in skipped]
    if not specs:
        print("no server to measure", file=sys.stderr)
        return 1
    prepare_machine(args)
    if OURS in {s.name for s in specs}:
        say(f"ours: {Path(places['ours']).name}; results: {args.json}; page: {args.page}")
    command = ["bench/run.py", *sys.argv[1:]]
    if not run_all(Bench(args, specs, places), command, skipped, setup_peers.versions()):
        return 130
    return pages(args)


if __name__ == "__main__":
    sys.exit(main())
