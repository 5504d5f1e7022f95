#!/usr/bin/env python3
"""Measure the Rust face beside native servers and the floor programs in one run (README.md)."""

from __future__ import annotations

import argparse
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

NATIVE = Path(__file__).resolve().parent
sys.path.insert(0, str(NATIVE.parent))

import load  # noqa: E402
import page  # noqa: E402
import setup_peers  # noqa: E402
from run import RESULTS, ROOT, Bench, options, prepare_machine, run_all, say, settle  # noqa: E402
from servers import BUILD, Server, Spec, running  # noqa: E402

PAGE = ROOT / "docs" / "performance-rust.md"
COUNTED = "adj"  # the workloads whose allocations are counted
MESSAGE = {"message": "Hello, World!", "number": 7}


def specs_of(file: Path) -> list[Spec]:
    return [Spec(needs="", **entry) for entry in json.loads(file.read_text())]


def check(port: int, kind: str, wanted: str) -> dict[str, str]:
    """Does it answer as the workloads need it to?  Returns {workload: what is wrong}."""
    hello = load.request("GET", "/hello")

    def split() -> None:  # after a whole request, one in three pieces on the same connection
        with load.connect(port) as s:
            s.sendall(hello)
            load.expect(load.read_answer(s), b"hello world")
            for part in (hello[:20], hello[20:-2], hello[-2:]):
                s.sendall(part)
                time.sleep(0.02)
            load.expect(load.read_answer(s), b"hello world")

    def headers() -> None:
        answer = load.fetch(port, "/hello", *[f"X-H{i}: {'v' * 35}" for i in range(19)])
        load.expect(answer, b"hello world")

    def message() -> None:
        answer = load.fetch(port, "/json")
        right = answer.status == 200 and "content-type: application/json" in answer.head
        if kind == "floor":
            load.expect(answer, b"hello world")
        elif not right or json.loads(answer.body) != MESSAGE:
            raise ValueError(f"{answer.status} {answer.body[:60]!r} {answer.head!r}")

    tests = {"a": split, "c": lambda: load.upload(port, "/len"), "d": headers, "j": message}
    simple = "".join(letter for letter in wanted if letter in "abfg")
    return load.check(port, "floor", simple) | load.what_fails(tests, wanted)


class NativeBench(Bench):
    """The bench of bench/run.py, with its own workloads, and allocations counted."""

    workloads: ClassVar[dict[str, load.Workload]] = page.WORKLOADS
    at_most: ClassVar[dict[str, int]] = {"f": 3, "m": 1}

    def check(self, port: int, kind: str, wanted: str) -> dict[str, str]:
        return check(port, kind, wanted)

    def cost(self, letter: str) -> float:
        return 2.5 * len(COUNTED) if letter == "m" else super().cost(letter)

    def one(self, letter: str, spec: Spec) -> tuple[dict[str, Any], str]:
        if letter != "m":
            return super().one(letter, spec)
        found = self.allocations(spec)
        return found, ", ".join(f"{w} {found[w]:.2f} allocations" for w in COUNTED if w in found)

    def allocations(self, spec: Spec) -> dict[str, Any]:
        """Allocations per request, on a fresh server that was warmed up."""
        a, wrong = self.args, self.problems.get(spec.name, {})
        with tempfile.TemporaryDirectory() as folder:
            counts = Path(folder) / "counts"
            counts.write_bytes(bytes(4096))
            env = {"LD_PRELOAD": self.places["counter"], "MALLOC_COUNT_FILE": str(counts)}
            port, found = self.ports.take(), {}
            with running(spec, self.places, port, a.server_cpu, a.nice, env=env) as server:
                for letter in COUNTED:
                    if letter in spec.workloads and letter not in wrong:
                        found[letter] = self.allocations_of(server, letter, counts)
        return found

    def allocations_of(self, server: Server, letter: str, counts: Path) -> float:
        def so_far() -> int:
            return int(struct.unpack("Q", counts.read_bytes()[:8])[0])

        self.drive(server, letter, 1)
        before = so_far()
        if not before:
            raise ValueError("no allocation was seen, not even at its start")
        requests = self.drive(server, letter, 1)["requests"]
        return (so_far() - before) / int(requests)


def versions() -> dict[str, str]:
    """Versions of all that is measured with; of the Rust peers, what build.sh resolved."""
    found = setup_peers.program_versions()
    for name, command in {
        "h2o": ["h2o", "-v"],
        "rustc": ["rustc", "-V"],
    }.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError:
            continue
        if match := re.search(r"\b(\d+\.\d+[\w.]*)", done.stdout):
            found[name] = match[1]
    lock = NATIVE / "apps" / "Cargo.lock"
    wanted = set()
    for manifest in (NATIVE / "apps").glob("*/Cargo.toml"):
        wanted |= set(re.findall(r'^([\w-]+) = .*"=', manifest.read_text(), re.M))
    if lock.exists():
        for name, version in re.findall(r'name = "(.+)"\nversion = "(.+)"', lock.read_text()):
            if name in wanted:
                found[name] = version
    return found


def arguments() -> argparse.Namespace:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser = options(__doc__, page.WORKLOADS)
    parser.add_argument("--peers", type=Path, default=BUILD / "native",
                        help="where build.sh put them (bench/build/native)")  # fmt: skip
    parser.add_argument("--ours", type=Path, default=target / "release" / "examples" / "bench",
                        help="the built example `bench` of the crate theframework")  # fmt: skip
    parser.add_argument("--table", type=Path, default=NATIVE / "peers.json",
                        help="the servers (peers.json, or knobs.json)")  # fmt: skip
    args = parser.parse_args()
    settle(parser, args, page.WORKLOADS, specs_of(args.table))
    args.partial = args.partial or args.table.name != "peers.json"
    args.json = args.json or RESULTS / f"native-{args.table.stem}.json"
    partial = args.partial and not args.report
    args.page = args.page or (RESULTS / "performance-rust.md" if partial else PAGE)
    return args


def recorded(words: list[str]) -> list[str]:
    """The command for the page: without options that name places on this machine."""
    places, out, skip = ("--peers", "--ours", "--json", "--page"), [], False
    for word in words:
        if skip or word.partition("=")[0] in places:
            skip = word in places
        else:
            out.append(word)
    return ["bench/native/bench.py", *out]


def usable(args: argparse.Namespace, places: dict[str, str]) -> tuple[list[Spec], dict[str, str]]:
    """The servers whose programs are there, and why the others are skipped."""
    specs, skipped = [], {}
    counter = Path(places["counter"]).exists()
    for spec in args.specs:
        command = spec.command.split()[0]
        if setup_peers.program(command.format(**places)):
            letters = spec.workloads if counter else spec.workloads.replace("m", "")
            specs.append(replace(spec, workloads=letters))
        else:
            skipped[spec.name] = f"{Path(command).name} is not there"
            say(f"skipped: {spec.name}: {skipped[spec.name]}")
    return specs, skipped


def pages(args: argparse.Namespace) -> int:
    try:
        data = json.loads(args.json.read_text())
    except FileNotFoundError:
        print(f"{args.json} is not there: measure first", file=sys.stderr)
        return 1
    page.write_page(data, args.page)
    say(f"{page.tables(data)}\n\nwrote {args.page}")
    return 0


def main() -> int:
    args = arguments()
    if args.list:
        for spec in args.specs:
            say(f"{spec.name:20} {spec.workloads:10} {spec.command}")
        return 0
    if args.report:
        return pages(args)
    if not setup_peers.program("wrk"):
        print("wrk is needed: apt-get install wrk", file=sys.stderr)
        return 1
    for why in setup_peers.floor_programs(say).values():
        say(f"a floor program {why}")
    peers = args.peers.resolve()
    places = {
        "ours": str(args.ours.resolve()),
        "peers": str(peers),
        "counter": str(peers / "malloc_count.so"),
        "build": str(BUILD),
        "nginx": setup_peers.program("nginx") or "nginx",
        "h2o": setup_peers.program("h2o") or "h2o",
    }
    specs, skipped = usable(args, places)
    if not specs:
        print("no server to measure", file=sys.stderr)
        return 1
    prepare_machine(args)
    say(f"results: {args.json}; page: {args.page}")
    if not run_all(NativeBench(args, specs, places), recorded(sys.argv[1:]), skipped, versions()):
        return 130
    return pages(args)


if __name__ == "__main__":
    sys.exit(main())
