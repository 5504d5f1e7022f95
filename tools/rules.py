#!/usr/bin/env python3
"""Take each rule of tests/rules.py out of a copy of the sources, one at a time, and see whether the
tests of its rows fail.

    tools/rules.py                    all of them; exit status 1 if one is not noticed
    tools/rules.py host- bare-lf      those whose names begin so
    tools/rules.py --page FILE        also write docs/http-rules.md there

Needs .venv (`make build`) and cargo.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mutations import Planter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.requirements import ROWS  # noqa: E402
from tests.rules import RULES, Rule  # noqa: E402

PYTHON = ROOT / ".venv" / "bin" / "python"
LIBRARY = "lib_framework_core.so"
MODULE = "_framework_core.abi3.so"
TESTS = "tests/test_http_requirements.py"


@dataclass
class Verdict:
    rule: Rule
    # Rows whose test passed although the rule was out.
    unnoticed: list[str]
    text: str

    @property
    def is_noticed(self) -> bool:
        return not self.unnoticed


class RulePlanter(Planter):
    """The copy of the sources, built into a package that the tests can use."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.site = folder / "site"

    def without(self, rule: Rule) -> str | None:
        """Build the package without a rule; says what went wrong."""
        self.restore()
        target = self.tree / rule.path
        if not rule.path.startswith("python/"):
            text = target.read_text()
            if text.count(rule.old) != 1:
                return f"its text stands {text.count(rule.old)} times in {rule.path}"
            target.write_text(text.replace(rule.old, rule.new))
        trouble = self.package()
        if trouble is None and rule.path.startswith("python/"):
            target = self.site / Path(rule.path).relative_to("python")
            text = target.read_text()
            target.write_text(text.replace(rule.old, rule.new))
        return trouble

    def package(self) -> str | None:
        env = {
            **os.environ,
            "PYO3_PYTHON": str(PYTHON),
            "PYO3_BUILD_EXTENSION_MODULE": "1",
            "RUSTFLAGS": "-Awarnings",
        }
        command = ["cargo", "build", "--quiet", "--locked", "-p", "theframework-python"]
        built = subprocess.run(
            [*command, "--target-dir", str(self.build)],
            cwd=self.tree,
            env=env,
            capture_output=True,
            text=True,
        )
        if built.returncode != 0:
            lines = [line for line in built.stderr.splitlines() if line.startswith("error")]
            return f"it does not compile: {lines[0] if lines else built.stderr[-200:]}"
        package = self.site / "theframework"
        shutil.rmtree(self.site, ignore_errors=True)
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / "python" / "theframework", package, ignore=ignored)
        shutil.copy2(self.build / "debug" / LIBRARY, package / MODULE)
        return None

    def failing(self, rows: tuple[str, ...], drivers: str) -> tuple[set[str], str]:
        """The tests of these rows that fail with the package, and the first reason."""
        names = [ROWS[row].test or f"test_requirement[{{}}-{row}]" for row in rows]
        tests = []
        for driver in drivers.split(","):
            for name in names:
                whole = name.format(driver) if "{}" in name else f"{name}[{driver}]"
                tests.append(f"{TESTS}::{whole}")
        env = {**os.environ, "PYTHONPATH": str(self.site), "COLUMNS": "250"}
        pytest = [str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command = [*pytest, "--drivers", drivers, *tests]
        ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        failed = set(re.findall(r"^(?:FAILED|ERROR) (\S+)", ran.stdout, re.MULTILINE))
        if ran.returncode not in (0, 1):
            sys.exit(f"pytest ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
        why = re.search(r"^(?:FAILED|ERROR) \S+ - (.*)", ran.stdout, re.MULTILINE)
        return {test for test in tests if test not in failed}, why[1] if why else ""


def run(rules: list[Rule], folder: Path, drivers: str) -> list[Verdict]:
    planter = RulePlanter(folder)
    print("building with every rule …", flush=True)
    trouble = planter.package()
    if trouble is not None:
        sys.exit(f"the sources as they are: {trouble}")
    rows = tuple(dict.fromkeys(row for rule in rules for row in rule.rows))
    passing, why = planter.failing(rows, drivers)
    if len(passing) != len(rows) * len(drivers.split(",")):
        sys.exit(f"with every rule, {len(passing)} tests of {len(rows)} rows pass: {why}")
    verdicts = []
    for number, rule in enumerate(rules, 1):
        trouble = planter.without(rule)
        if trouble is not None:
            verdict = Verdict(rule, list(rule.rows), trouble)
        else:
            passing, why = planter.failing(rule.rows, drivers)
            verdict = Verdict(rule, sorted(passing), why)
        verdicts.append(verdict)
        word = "noticed    " if verdict.is_noticed else "NOT NOTICED"
        print(f"{number:>3}/{len(rules)} {word} {rule.name}: {verdict.text[:110]}", flush=True)
    return verdicts


def page(verdicts: list[Verdict], drivers: str) -> str:
    noticed = sum(verdict.is_noticed for verdict in verdicts)
    lines = [
        "# HTTP rules, taken out one by one",
        "",
        "Each line is a change of a source file that takes a rule of [http.md](http.md) out, and",
        "the rows whose tests were run without it, on " + " and on ".join(drivers.split(",")) + ".",
        "The changes stand in `tests/rules.py`; this page is written by",
        "`tools/rules.py --page docs/http-rules.md`.",
        "",
        "| rule | file | rows that fail without it |",
        "| --- | --- | --- |",
    ]
    for verdict in verdicts:
        rule = verdict.rule
        rows = ", ".join(rule.rows) if verdict.is_noticed else f"not noticed: {verdict.text}"
        lines.append(f"| {rule.name} | `{rule.path}` | {rows} |")
    return "\n".join([*lines, "", f"Noticed: {noticed} of {len(verdicts)}.", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="beginnings of names; all without")
    parser.add_argument("--drivers", default="io_uring,poll")
    parser.add_argument("--folder", type=Path, default=ROOT / "target" / "rules")
    parser.add_argument("--page", type=Path, help="write the table there")
    options = parser.parse_args()
    rules = [
        rule
        for rule in RULES
        if not options.names or any(rule.name.startswith(name) for name in options.names)
    ]
    if not rules:
        parser.error(f"no rule begins with {' or '.join(options.names)}")
    verdicts = run(rules, options.folder, options.drivers)
    if options.page is not None:
        options.page.write_text(page(verdicts, options.drivers))
    missed = [verdict for verdict in verdicts if not verdict.is_noticed]
    print(f"noticed {len(verdicts) - len(missed)} of {len(verdicts)}")
    for verdict in missed:
        print(f"not noticed: {verdict.rule.name}: {' '.join(verdict.unnoticed)} {verdict.text}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
