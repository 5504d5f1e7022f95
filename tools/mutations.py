#!/usr/bin/env python3
"""Plant each mutation of crates/simulator/mutations in a copy of the sources, one at a time, and
see whether the simulator finds it.

    tools/mutations.py                  all of them; exit status 1 if one is not found
    tools/mutations.py close timer-     those whose names begin so
    tools/mutations.py --page FILE      also write the table of docs/mutations.md

The seeds are not chosen: each run begins at a random one. Needs `patch` and cargo.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATCHES = ROOT / "crates" / "simulator" / "mutations"
PROFILE = "checked"
# No seed takes as long as this.
HANGS_S = 30


@dataclass
class Verdict:
    name: str
    seeds: int | None
    text: str

    @property
    def is_found(self) -> bool:
        return self.seeds is not None


class Planter:
    """A copy of the sources with a build directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self.build = folder / "build"
        self.programs = folder / "programs"
        self.programs.mkdir(parents=True, exist_ok=True)
        self.tree.mkdir(parents=True, exist_ok=True)
        # As they are now: somebody may go on working while this runs.
        names = ["Cargo.toml", "Cargo.lock", "clippy.toml"]
        paths = [ROOT / name for name in names if (ROOT / name).exists()]
        paths += [path for path in sorted((ROOT / "crates").rglob("*")) if path.is_file()]
        self.sources = {
            path.relative_to(ROOT): path.read_bytes()
            for path in paths
            if path.suffix in (".rs", ".toml", ".lock")
        }
        for path in self.tree.rglob("*"):
            if path.is_file() and path.relative_to(self.tree) not in self.sources:
                path.unlink()
        self.restore()

    def restore(self) -> None:
        """Make the copy equal to the sources; what is equal keeps its time, for cargo."""
        for path, content in self.sources.items():
            target = self.tree / path
            if target.exists() and target.read_bytes() == content:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    def plant(self, patch: Path) -> Path | str:
        """Build the simulator with one mutation: its program, or what went wrong."""
        applied = subprocess.run(
            ["patch", "--quiet", "-p1", "-i", str(patch)],
            cwd=self.tree,
            capture_output=True,
            text=True,
        )
        if applied.returncode != 0:
            return f"the patch does not apply: {applied.stdout.strip()}"
        return self.compile(patch.stem)

    def compile(self, name: str) -> Path | str:
        command = ["cargo", "build", "--quiet", "--locked", "--profile", PROFILE]
        built = subprocess.run(
            [*command, "-p", "theframework-simulator", "--target-dir", str(self.build)],
            cwd=self.tree,
            capture_output=True,
            text=True,
        )
        if built.returncode != 0:
            lines = [line for line in built.stderr.splitlines() if line.startswith("error")]
            return f"it does not compile: {lines[0] if lines else built.stderr[-200:]}"
        program = self.programs / name
        shutil.copy2(self.build / PROFILE / "simulate", program)
        return program


@dataclass
class Hunt:
    """A simulator with a mutation, looking for it."""

    name: str
    first: int
    process: subprocess.Popen[str]
    program: Path
    began: float

    def verdict(self, seconds: float) -> Verdict:
        try:
            out, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, _ = self.process.communicate()
            self.program.unlink()
            return self.hung(out)
        self.program.unlink()
        failed = re.search(r"seed (\d+) FAILED: (.*?)\nto see", out, re.DOTALL)
        if failed is None:
            if self.process.returncode == 0:
                return Verdict(self.name, None, "not found")
            return Verdict(self.name, 1, f"the program died: status {self.process.returncode}")
        text = failed[2].split(":\n", 1)[-1]
        text = " ".join(text.split()).removeprefix("violation: ")
        return Verdict(self.name, int(failed[1]) - self.first + 1, text[:150])

    def hung(self, out: str) -> Verdict:
        """It was stopped: it hangs in one seed, or there were too many for the time."""
        lines = re.findall(r"^ *([\d.]+) s  (\d+) seeds", out, re.MULTILINE)
        progress = [(float(seconds), int(seeds)) for seconds, seeds in lines]
        last_s, done = progress[-1] if progress else (0.0, 0)
        came_s = min((seconds for seconds, seeds in progress if seeds == done), default=0.0)
        if last_s - came_s < HANGS_S:
            return Verdict(self.name, None, f"not found in {done} seeds; no time for more")
        return Verdict(self.name, done + 1, "the server never comes back")


def hunt(program: Path, seeds: int) -> Hunt:
    first = random.SystemRandom().randrange(1_000_000, 1_000_000_000)
    process = subprocess.Popen(
        [program, "--first", str(first), "--seeds", str(seeds), "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return Hunt(program.name, first, process, program, time.monotonic())


def run(patches: list[Path], folder: Path, seeds: int, seconds: float) -> list[Verdict]:
    planter = Planter(folder)
    print("building without a mutation …", flush=True)
    clean = planter.compile("clean")
    if isinstance(clean, str):
        sys.exit(f"the sources as they are: {clean}")
    sane_hunt = hunt(clean, seeds)
    first = sane_hunt.first
    sane = sane_hunt.verdict(seconds * 4)
    if sane.is_found:
        sys.exit(f"without any mutation the {sane.seeds}th seed from {first} fails: {sane.text}")
    verdicts: list[Verdict] = []
    running: Hunt | None = None

    def finish(hunted: Hunt) -> None:
        verdict = hunted.verdict(seconds)
        verdicts.append(verdict)
        found = f"{verdict.seeds:>5} seeds" if verdict.is_found else "NOT FOUND  "
        print(
            f"{len(verdicts):>3}/{len(patches)} {found}  {verdict.name}: {verdict.text}", flush=True
        )

    for patch in patches:
        program = planter.plant(patch)
        planter.restore()
        if running is not None:
            finish(running)
            running = None
        if isinstance(program, str):
            verdicts.append(Verdict(patch.stem, None, program))
            print(
                f"{len(verdicts):>3}/{len(patches)} NOT PLANTED  {patch.stem}: {program}",
                flush=True,
            )
        else:
            running = hunt(program, seeds)
    if running is not None:
        finish(running)
    return verdicts


def page(verdicts: list[Verdict]) -> str:
    lines = [
        "# Planted mutations",
        "",
        "Each is a patch of the shipped sources in `crates/simulator/mutations`, built into the",
        "simulator and hunted from a random seed. Written by",
        "`tools/mutations.py --page docs/mutations.md`.",
        "",
        "| mutation | seeds it took | what gave it away |",
        "| --- | ---: | --- |",
    ]
    for verdict in verdicts:
        seeds = "not found" if verdict.seeds is None else str(verdict.seeds)
        lines.append(f"| {verdict.name} | {seeds} | {verdict.text.replace('|', '/')} |")
    found = sum(verdict.is_found for verdict in verdicts)
    return "\n".join([*lines, "", f"Found: {found} of {len(verdicts)}.", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="beginnings of names; all without")
    parser.add_argument("--seeds", type=int, default=4000, help="seeds to try at most")
    parser.add_argument("--seconds", type=float, default=120, help="time for one hunt at most")
    parser.add_argument("--folder", type=Path, default=ROOT / "target" / "mutations")
    parser.add_argument("--page", type=Path, help="write the table there")
    options = parser.parse_args()
    patches = [
        path
        for path in sorted(PATCHES.glob("*.patch"))
        if not options.names or any(path.stem.startswith(name) for name in options.names)
    ]
    if not patches:
        parser.error(f"no mutation begins with {' or '.join(options.names)}")
    verdicts = run(patches, options.folder, options.seeds, options.seconds)
    if options.page is not None:
        options.page.write_text(page(verdicts))
    missed = [verdict.name for verdict in verdicts if not verdict.is_found]
    print(f"found {len(verdicts) - len(missed)} of {len(verdicts)}")
    for name in missed:
        print(f"not found: {name}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
