"""Set-up: the peers' virtual environment, the floor programs, the system's programs.

Each component that cannot be had is skipped by name, and the run goes on without it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from servers import BUILD, HERE, OURS, VENV

SYSTEM_PACKAGES = [
    "wrk", "nginx-light", "gcc", "libc6-dev", "liburing-dev", "libev-dev", "libuv1", "python3-dev",
]  # fmt: skip
FLAGS = ["-O2", "-march=native", "-Wall", "-Wextra"]
Say = Callable[[str], None]


def quiet(command: list[str], timeout: int = 600) -> str:
    """Run it; empty on success, else the last line that tells why."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        return str(e)
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    telling = [line for line in lines if "rror" in line] or lines
    return (telling or [f"{command[0]} failed"])[0][:200]


def program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def system_packages(say: Say) -> None:
    """With SYSTEM_PACKAGES=1 and as root only: what comes from Debian."""
    if os.environ.get("SYSTEM_PACKAGES") != "1":
        return
    if os.geteuid() != 0 or not program("apt-get"):
        say("SYSTEM_PACKAGES=1 needs root and apt-get; going on without")
        return
    say("installing " + " ".join(SYSTEM_PACKAGES))
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=120"]
    wrong = quiet([*apt, "update"]) or quiet([*apt, "install", "-y", *SYSTEM_PACKAGES])
    if wrong:
        say(f"apt-get: {wrong}")


def floor_programs(say: Say) -> dict[str, str]:
    """Build the C floor programs where their sources are newer; {component: why not}."""
    BUILD.mkdir(exist_ok=True)
    missing = {}
    compiler = os.environ.get("CC") or program("gcc") or program("cc") or "gcc"
    for component, name, libraries in (
        ("floor-uring", "uring_limit", ["-luring"]),
        ("floor-epoll", "epoll_limit", []),
    ):
        source, target = HERE / "floor" / f"{name}.c", BUILD / name
        newest = max(source.stat().st_mtime, (HERE / "floor" / "common.h").stat().st_mtime)
        if target.exists() and target.stat().st_mtime >= newest:
            continue
        say(f"building {name}")
        wrong = quiet([compiler, *FLAGS, "-o", str(target), str(source), *libraries])
        if wrong:
            target.unlink(missing_ok=True)
            hint = " (liburing-dev is needed)" if "liburing" in wrong or "-luring" in wrong else ""
            missing[component] = f"does not build: {wrong}{hint}"
    return missing


def requirements() -> list[str]:
    text = (HERE / "requirements.txt").read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def python_peers(say: Say, again: bool) -> dict[str, str]:
    """Install the peers into bench/.venv, one after another; {component: why not}.

    A peer that is there is left alone; one that failed is tried again with `again`.
    """
    python, stamp = VENV / "bin" / "python", VENV / "peers.json"
    lines = requirements()
    known: dict[str, str] = {}
    if not python.exists():
        say("making bench/.venv for the peers")
        wrong = quiet([sys.executable, "-m", "venv", "--clear", str(VENV)])
        if wrong:
            return {peer(line): f"no virtual environment: {wrong}" for line in lines}
        wrong = quiet([str(python), "-m", "pip", "install", "-q", "setuptools<80", "wheel"])
        if wrong:
            say(f"setuptools: {wrong}")
    elif stamp.exists():
        known = json.loads(stamp.read_text())
    for line in lines:
        if known.get(line) == "" or (line in known and not again):
            continue
        say(f"installing {line}")
        known[line] = quiet([str(python), "-m", "pip", "install", "-q", *line.split()])
        stamp.write_text(json.dumps(known, indent=1))
    return {peer(line): f"does not install: {known[line]}" for line in lines if known[line]}


def peer(line: str) -> str:
    """The component's name: that of the first package of its line."""
    return re.split(r"[\[=<> ]", line, maxsplit=1)[0]


def prepare(say: Say, wanted: set[str], again: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Set everything up: the places for the commands, and {component: why it is missing}."""
    system_packages(say)
    missing: dict[str, str] = {}
    if any(w.startswith("floor") for w in wanted):
        missing |= floor_programs(say)
    if wanted - {"nginx", "theframework", "floor-uring", "floor-epoll", ""}:
        missing |= python_peers(say, again)
    nginx = program("nginx")
    if not nginx:
        missing["nginx"] = "not installed (SYSTEM_PACKAGES=1 as root installs it)"
    ours = Path(sys.executable).parent / "theframework"
    if not ours.exists():
        ours = HERE.parent / ".venv" / "bin" / "theframework"
    if not ours.exists():
        missing["theframework"] = "not built: no .venv/bin/theframework (make build)"
    places = {
        "ours": str(ours),
        "venv": str(VENV / "bin"),
        "build": str(BUILD),
        "nginx": nginx or "nginx",
        "root": str(HERE.parent),
    }
    return places, missing


def program_versions() -> dict[str, str]:
    """Versions of the programs that are not Python."""
    found = {}
    for name, command in {
        "wrk": ["wrk", "-v"],
        "nginx": [program("nginx") or "nginx", "-v"],
        "gcc": ["gcc", "--version"],
    }.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError:
            continue
        match = re.search(r"\b(\d+\.\d+[\w.]*)", done.stdout + done.stderr)
        if match:
            found[name] = match[1]
    return found


def versions() -> dict[str, str]:
    """Versions of all that is measured with."""
    found = program_versions()
    named = {peer(word).lower() for line in requirements() for word in line.split()}
    for python, wanted in ((VENV / "bin" / "python", named), (Path(sys.executable), {OURS})):
        if not python.exists():
            continue
        done = subprocess.run(
            [str(python), "-m", "pip", "list", "--format=json"], capture_output=True, text=True
        )
        if done.returncode == 0:
            for package in json.loads(done.stdout):
                if package["name"].lower() in wanted:
                    found[package["name"]] = package["version"]
    return found
