"""docs/performance-rust.md from the JSON of a run; nothing is measured here."""

from __future__ import annotations

from pathlib import Path

from figures import Data, best_peer, floor_of, idle_rows, ours, rows
from load import WORKLOADS as PYTHON
from load import Workload
from picture import number
from report import idle_table, name_text, ratio_text, table, time_text

# Letters mean the same as in bench/run.py; d asks for text here, and j is for JSON.
WORKLOADS = {
    "a": PYTHON["a"],
    "b": PYTHON["b"],
    "c": Workload("POST of 1 MiB, 16 connections", "/len", 16, ("upload.lua",)),
    "d": Workload("GET hello with 20 headers, 64 connections", script=("browser.lua",)),
    "f": PYTHON["f"],
    "g": PYTHON["g"],
    "j": Workload("GET JSON, 64 connections", "/json"),
    "m": Workload("allocations per request"),
}
LETTERS = "abcdjg"

EXPLAINED = {
    "a": "The least that a server can do: eleven bytes of text, keep-alive.",
    "b": "16 requests in one write. wrk's latencies mean little here: it times a whole batch.",
    "c": "The length of the body is answered. The peers count its pieces as they come and the floor"
    " programs drain it; ours hands the handler the whole body.",
    "d": "A browser's request, about 1 KB of headers, of which the handler reads none.",
    "j": "A struct of two fields through each framework's usual JSON (serde_json). The floor"
    " programs answer `hello world`, so this ratio contains the work of the handler.",
    "g": "As the first, with 2,000 connections.",
}


def heading(letter: str) -> str:
    title = WORKLOADS[letter].title
    return title[0].upper() + title[1:]


def load_table(data: Data, letter: str) -> str:
    head = ["server", "CPU µs/req, min", "median", "max", "× floor (range over rounds)", "req/s",
            "p50", "p99", "its core", "wrk's core"]  # fmt: skip
    lines = [
        [
            name_text(row),
            f"{row.cpu_min:.2f}",
            f"{row.cpu_median:.2f}",
            f"{row.cpu_max:.2f}",
            ratio_text(row),
            f"{row.rps:,.0f}",
            time_text(row.p50),
            time_text(row.p99),
            f"{100 * row.share:.0f} %",
            f"{100 * row.client:.0f} %",
        ]
        for row in rows(data, letter)
    ]
    return table(head, lines)


def summary(data: Data) -> str:
    lines = []
    for letter in LETTERS:
        found = rows(data, letter)
        mine, peer, floor = ours(found), best_peer(found), floor_of(data, letter)
        if found:
            lines.append(
                [
                    heading(letter),
                    f"{min(floor[1].values()):.2f}" if floor else "–",
                    f"**{mine.cpu_min:.2f}**{mine.flags}" if mine else "–",
                    ratio_text(mine) if mine else "–",
                    f"{peer.name}{peer.flags} {number(peer.cpu_min)}" if peer else "–",
                    f"{peer.cpu_min / mine.cpu_min:.2f}" if peer and mine else "–",
                ]
            )
    head = ["CPU per request, µs", "floor", "theframework", "× floor (range)", "best peer",
            "peer / ours"]  # fmt: skip
    return table(head, lines)


def allocation_table(data: Data) -> str:
    lines = []
    for name, runs in sorted(data["runs"].get("m", {}).items(), key=lambda x: x[1][0].get("a", 0)):
        shown = f"**{name}**" if data["servers"][name]["kind"] == "ours" else name
        each = [f"{runs[0][letter]:.2f}" if letter in runs[0] else "–" for letter in "adj"]
        lines.append([shown, *each])
    return table(["server", "hello", "20 headers", "JSON"], lines)


def intro(data: Data) -> str:
    m = data["machine"]
    names = ", ".join(f"{name} {version}" for name, version in sorted(data["versions"].items()))
    out = [
        "# Performance of the Rust face",
        "<!-- Written by bench/native/bench.py from the results of a run. To change the words, edit"
        " bench/native/page.py. -->",
        f"Measured on {data['date']}: {m['cpu']}, {m['cores']} cores, {m['memory']}, {m['system']},"
        f" Linux {m['kernel']}, loopback."
        + (f" Revision {data['revision']}." if data["revision"] else ""),
        f"Command: `{data['command']}` (`make bench-rust` runs it): {data['rounds']} rounds of"
        f" {data['seconds']} s, {data.get('minutes', 0):.0f} minutes.",
        f"With: {names}.",
    ]
    if data["quick"] or data["rounds"] < 3:
        out.append("> **A quick run, made to try the tool. Its figures are not to be quoted.**")
    if not data["finished"]:
        out.append("> **The run was interrupted; what is here is what it had.**")
    if not data["pinned"]:
        out.append("> **Nothing was pinned (fewer than two cores): client and server competed.**")
    measured = [row for letter in LETTERS for row in rows(data, letter)]
    total, noisy = sum(r.rounds for r in measured), sum(r.noisy for r in measured)
    if noisy:
        out.append(
            f"> Other processes used more than {data['noise']:.2f} of a core in {noisy} of"
            f" {total} measurements. Minima suffer least; `?` marks the rows where it was most of"
            " them, and those are not to be quoted."
        )
    out.append(
        "One server with one thread at work on one core, wrk with one thread on the other. All"
        " servers are up during the whole run and take turns, round after round, so that a slow"
        " spell of the machine falls on each of them. One thread of wrk costs as much per request"
        " as a fast server, so requests per second mostly measure wrk: **compare CPU per request**,"
        " user and system time of the server's process, and of it the minimum over the rounds,"
        " since noise only adds. Requests per second and percentiles are medians over the rounds."
        "\n\n"
        "The *floor* is the cheapest of three C programs (`bench/floor/`) that receive and send but"
        " do not parse: they count blank lines and send a fixed answer. *× floor* is minimum over"
        " minimum, in brackets the lowest and highest of the same ratio taken round by round."
        " `!` after a name: errors, answers other than 2xx, or a process that ended. Peers are"
        " frameworks and libraries in Rust; the raw-* servers are loops over httparse without any,"
        " nginx and h2o run no application: for comparison only."
    )
    return "\n\n".join(out)


def rest(data: Data) -> list[str]:
    """What was left out, and how each server was started."""
    out = []
    left = [f"- {name}: {why}" for name, why in data["skipped"].items()]
    left += [
        f"- {name}, {'start' if letter == 'start' else 'workload ' + letter}: {why}"
        for name, found in data["problems"].items()
        for letter, why in found.items()
    ]
    if left:
        out.append("## Not measured, or failed\n\n" + "\n".join(left))
    started = []
    for name, server in data["servers"].items():
        command = server["command"].replace("{port}", "PORT").replace("{ours}", "bench")
        line = " ".join(Path(word).name.strip("{}") for word in command.split())
        note = f" ({server['note']})" if server["note"] else ""
        started.append(f"- {name}: `{line}`{note}")
    out.append(
        "## How each was started\n\n"
        "Pinned to one core. The peers are in `bench/native/apps/`, built by"
        " `bench/native/build.sh`: release, fat LTO, one codegen unit, panics abort. Ours is"
        " `crates/server/examples/bench.rs`: the same, but panics unwind. Caps on connections and"
        " idle timeouts are raised where a server would otherwise refuse the load.\n\n"
        + "\n".join(started)
    )
    return out


def measured_parts(data: Data, *, words: bool) -> list[str]:
    parts = []
    for letter in LETTERS:
        if rows(data, letter):
            parts.append(f"## {heading(letter)}")
            parts += [EXPLAINED[letter]] if words else []
            parts.append(load_table(data, letter))
    if idle_rows(data):
        parts.append("## Memory of an idle connection")
        parts.append(
            f"Growth of resident memory by {data['idle']:,} keep-alive connections after one"
            " request each, fresh servers; the kernel's own memory is not counted. Median of up to"
            " three rounds."
        )
        parts.append(idle_table(data))
    if data["runs"].get("m"):
        parts.append("## Allocations per request")
        parts.append("Calls of libc's malloc, calloc and realloc, once warm; other allocators are"
                     " not seen, nor is memory that a server maps itself.")  # fmt: skip
        parts.append(allocation_table(data))
    return parts


def tables(data: Data) -> str:
    return "\n\n".join(["## In short", summary(data), *measured_parts(data, words=False)])


def write_page(data: Data, page: Path) -> None:
    parts = [intro(data), "## In short", summary(data), *measured_parts(data, words=True)]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join([*parts, *rest(data)]) + "\n")
