#!/usr/bin/env python3
"""Where the time of our server goes, under load.

perf samples its whole process tree with the software clock, which virtual machines have too, and
strace counts its system calls; each is left out where it is not installed. One Markdown file per
workload goes to bench/results/.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from load import WORKLOADS, ServerGoneError, cpu_seconds, heading, measure, process_tree
from servers import HERE, OURS, SERVERS, Ports, Server, Spec, StartError, added, running
from setup_peers import program

RESULTS = HERE / "results"


def attach(command: list[str], after: float) -> subprocess.Popen[str]:
    tool = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(after)
    return tool


def detach(tool: subprocess.Popen[str]) -> str:
    """Stop it as Ctrl-C would, so that it writes what it has; what it complained of."""
    tool.send_signal(signal.SIGINT)
    try:
        return tool.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        tool.kill()
        return tool.communicate()[1]


def symbols(server: Server, letter: str, seconds: int, cpu: str, top: int) -> str:
    """The dearest symbols, user space first, with each one's share of all samples."""
    pids = process_tree(server.pid)
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/perf.data"
        tool = attach(
            ["perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "-o", data,
             "-p", ",".join(map(str, pids))],
            0.5,
        )  # fmt: skip
        user0, system0 = cpu_seconds(pids)
        run = measure(server.pid, server.port, letter, seconds, cpu)
        user1, system1 = cpu_seconds(pids)
        complaint = detach(tool)
        report = subprocess.run(
            ["perf", "report", "-i", data, "--stdio", "--no-children", "--sort", "symbol,dso",
             "-t", "\t"],
            capture_output=True, text=True,
        )  # fmt: skip
    found = []
    for line in report.stdout.splitlines():
        # 12.34%<tab>[.] symbol<tab>object<tab>more
        match = re.match(r"\s*([\d.]+)%\s*\t\[(.)\] ([^\t]*?)\s*\t([^\t]*)", line)
        if match:
            found.append((float(match[1]), match[2], match[3], Path(match[4].strip()).name))
    if not found:
        return f"perf gave nothing: {(report.stderr or complaint).strip()[-300:]}\n"
    user = [f for f in found if f[1] != "k"]
    objects: dict[str, float] = {}
    for share, _, _, where in user:
        objects[where] = objects.get(where, 0) + share
    per_request = run["cpu_us"]
    spent = (user1 - user0) + (system1 - system0)
    lines = [
        f"{run['requests']:,} requests, {per_request:.2f} µs of CPU each while sampled,"
        f" {100 * (user1 - user0) / spent:.0f} % of it in user space.\n",
        "| object | share of all samples | µs per request |",
        "| --- | --: | --: |",
    ]
    lines += [
        f"| {where} | {share:.1f} % | {share / 100 * per_request:.2f} |"
        for where, share in sorted(objects.items(), key=lambda x: -x[1])
        if share >= 0.1
    ]
    kernel = sum(share for share, kind, _, _ in found if kind == "k")
    lines.append(f"| the kernel | {kernel:.1f} % | {kernel / 100 * per_request:.2f} |")
    for title, part, count in (
        ("user-space symbol", user, top),
        ("kernel symbol", [f for f in found if f[1] == "k"], top // 2),
    ):
        lines += ["", f"| {title} | object | share | µs per request |", "| --- | --- | --: | --: |"]
        lines += [
            f"| `{name}` | {where} | {share:.2f} % | {share / 100 * per_request:.3f} |"
            for share, _, name, where in part[:count]
        ]
    return "\n".join(lines) + "\n"


def system_calls(server: Server, letter: str, seconds: int, cpu: str) -> str:
    """System calls per request, by name.  Under strace all is slower; the counts are not."""
    pids = process_tree(server.pid)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "strace"
        command = ["strace", "-c", "-f", "-o", str(out)]
        for pid in pids:
            command += ["-p", str(pid)]
        tool = attach(command, 0.7)
        run = measure(server.pid, server.port, letter, seconds, cpu)
        complaint = detach(tool)
        text = out.read_text() if out.exists() else ""
    lines = [
        f"{run['requests']:,} requests under strace.\n",
        "| system call | calls | per request |",
        "| --- | --: | --: |",
    ]
    calls = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", text, re.M)
    if not calls:
        return f"strace gave nothing: {(complaint or text).strip()[-300:]}\n"
    for count, name in sorted(calls, key=lambda x: -int(x[0])):
        lines.append(f"| {name} | {int(count):,} | {int(count) / run['requests']:.4f} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", default="abd", help="letters as in bench/run.py")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--top", type=int, default=30, help="symbols shown")
    parser.add_argument("--server", default=OURS, help="a name of bench/run.py --list")
    parser.add_argument("--add", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--server-cpu", default="0")
    parser.add_argument("--client-cpu", default="1")
    args = parser.parse_args()
    specs = {spec.name: spec for spec in SERVERS + [added(text) for text in args.add]}
    spec: Spec | None = specs.get(args.server)
    if not spec or set(args.workloads) - set(WORKLOADS) - {"f"}:
        parser.error("no such server or workload")
    ours = Path(sys.executable).parent / OURS
    places = {
        "ours": str(ours if ours.exists() else HERE.parent / ".venv" / "bin" / OURS),
        "venv": str(HERE / ".venv" / "bin"),
        "build": str(HERE / "build"),
        "nginx": program("nginx") or "nginx",
        "root": str(HERE.parent),
    }
    tools = {name: shutil.which(name) for name in ("perf", "strace")}
    for name, found in tools.items():
        if not found:
            print(f"skipped: {name} is not installed", flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    ports = Ports(23000)
    for letter in args.workloads:
        page = RESULTS / f"profile-{spec.name}-{letter}.md"
        parts = [f"# {spec.name}: {heading(letter)}\n"]
        try:
            with running(spec, places, ports.take(), args.server_cpu, 0) as server:
                measure(server.pid, server.port, letter, 1, args.client_cpu)
                if tools["perf"]:
                    print(f"{letter}: sampling for {args.seconds} s", flush=True)
                    parts.append(symbols(server, letter, args.seconds, args.client_cpu, args.top))
                if tools["strace"]:
                    print(f"{letter}: counting system calls for {args.seconds} s", flush=True)
                    parts.append("## System calls\n")
                    parts.append(system_calls(server, letter, args.seconds, args.client_cpu))
        except (StartError, ServerGoneError, OSError) as e:
            print(f"{spec.name}: {e}", file=sys.stderr)
            return 1
        page.write_text("\n".join(parts))
        print(f"wrote {page}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
