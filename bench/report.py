"""docs/performance.md and its picture, from the JSON of a run; nothing is measured here."""

from __future__ import annotations

from pathlib import Path

from figures import Data, Row, best_peer, floor_of, idle_rows, ours, rows
from load import heading
from picture import draw, number

EXPLAINED = {
    "a": "The least that a server can do: eleven bytes of text, keep-alive.",
    "b": "16 requests in one write. wrk's latencies mean little here: it times a whole batch.",
    "c": "The body is read whole into one Python object and its length answered;"
    " the floor programs only drain it.",
    "d": "A browser's request, about 1 KB of headers. Python reads two headers and one query value"
    " and answers `json.dumps` of a small object; the floor programs answer `hello world` and nginx"
    " a constant, so this ratio contains the work of the handler.",
    "e": "20,000 requests per second are possible: 1,000 connections, 50 ms each."
    " There is no floor program for it.",
    "g": "As the first, with 2,000 connections.",
}


def time_text(us: float | None) -> str:
    if us is None:
        return "–"
    return f"{us:.0f} µs" if us < 1000 else f"{us / 1000:.1f} ms"


def ratio_text(row: Row) -> str:
    if row.ratio is None or row.low is None or row.high is None:
        return "–"
    return f"{row.ratio:.2f} ({row.low:.2f}–{row.high:.2f})"


def name_text(row: Row) -> str:
    shown = f"**{row.name}**" if row.kind == "ours" else row.name
    return shown + (f" `{row.flags}`" if row.flags else "")


def table(head: list[str], lines: list[list[str]]) -> str:
    """A Markdown table; all columns but the first to the right."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


def load_table(data: Data, letter: str) -> str:
    head = ["server", "req/s", "p50", "p99", "CPU µs/req, min", "median", "spread"]
    with_floor = floor_of(data, letter) is not None
    if letter == "e":
        head.append("of the ideal rate")
    if letter == "c":
        head.append("MB/s")
    if with_floor:
        head.append("× floor (range over rounds)")
    head += ["its core", "wrk's core"]
    lines = []
    for row in rows(data, letter):
        line = [
            name_text(row),
            f"{row.rps:,.0f}",
            time_text(row.p50),
            time_text(row.p99),
            f"{row.cpu_min:.2f}",
            f"{row.cpu_median:.2f}",
            f"{100 * row.spread:.0f} %",
        ]
        if letter == "e":
            line.append(f"{100 * row.rps / 20000:.1f} %")
        if letter == "c":
            line.append(f"{row.rps * 1.048576:,.0f}")
        if with_floor:
            line.append(ratio_text(row))
        line += [f"{100 * row.share:.0f} %", f"{100 * row.client:.0f} %"]
        lines.append(line)
    return table(head, lines)


def idle_table(data: Data) -> str:
    lines = [
        [
            f"**{row.name}**" if row.kind == "ours" else row.name,
            f"{row.each:,.0f}",
            f"{row.low:,.0f}–{row.high:,.0f}",
            f"{row.alive:,} of {row.asked:,}",
            f"{row.before / 2**20:.1f} MiB",
        ]
        for row in idle_rows(data)
    ]
    head = ["server", "bytes per connection", "range", "stayed open", "resident without them"]
    return table(head, lines)


def vary_table(data: Data) -> str:
    same = {row.name: row for row in rows(data, "w")}
    lines = []
    for row in rows(data, "v"):
        other = same.get(row.name)
        if other:
            lines.append(
                [
                    name_text(row),
                    f"{other.cpu_min:.2f}",
                    f"{row.cpu_min:.2f}",
                    f"{100 * (row.cpu_min / other.cpu_min - 1):+.1f} %",
                    ratio_text(row),
                    f"{row.rps:,.0f}",
                ]
            )
    head = ["server", "same request, CPU µs", "each differs, CPU µs", "difference",
            "× floor (range over rounds)", "req/s, each differs"]  # fmt: skip
    return table(head, lines)


def summary(data: Data) -> str:
    lines = []
    for letter in "abcdge":
        found = rows(data, letter)
        mine, peer, floor = ours(found), best_peer(found), floor_of(data, letter)
        if not found:
            continue
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


def intro(data: Data) -> str:
    m, v = data["machine"], data["versions"]
    names = ", ".join(f"{name} {version}" for name, version in sorted(v.items()))
    out = [
        "# Performance",
        "<!-- Written by bench/run.py from the results of a run. To change the words, edit"
        " bench/report.py and bench/where_the_time_goes.md. -->",
        f"Measured on {data['date']}: {m['cpu']}, {m['cores']} cores, {m['memory']}, {m['system']},"
        f" Linux {m['kernel']}, Python {m['python']}, loopback."
        + (f" Revision {data['revision']}." if data["revision"] else ""),
        f"Command: `{data['command']}` (`make bench` runs it): {data['rounds']} rounds of"
        f" {data['seconds']} s (e: twice as long), {data.get('minutes', 0):.0f} minutes.",
        f"With: {names}.",
    ]
    if data["quick"]:
        out.append("> **A quick run, made to try the tool. Its figures are not to be quoted.**")
    if not data["finished"]:
        out.append("> **The run was interrupted; what is here is what it had.**")
    if not data["pinned"]:
        out.append("> **Nothing was pinned (fewer than two cores): client and server competed.**")
    all_rows = [row for letter in "abcdegvw" for row in rows(data, letter)]
    total, noisy = sum(r.rounds for r in all_rows), sum(r.noisy for r in all_rows)
    if noisy:
        out.append(
            f"> Other processes used more than {data['noise']:.2f} of a core in {noisy} of"
            f" {total} measurements. Minima suffer least; `?` marks the rows where it was most of"
            " them, and those are not to be quoted."
        )
    out.append(
        "One server process at work on one core, wrk with one thread on the other. All servers are"
        " up during the whole run and take turns, round after round, so that a slow spell of the"
        " machine falls on each of them. One thread of wrk is saturated before a fast server is:"
        " **compare CPU per request**, user and system time of the server's whole process tree, and"
        " of it the minimum over the rounds, since noise only adds. Requests per second and"
        " percentiles are medians over the rounds. *Spread* is how far the dearest round is above"
        " the cheapest.\n\n"
        "The *floor* is the cheapest of three C programs (`bench/floor/`) that receive and send but"
        " do not parse: they count blank lines and send a fixed answer. *× floor* is minimum over"
        " minimum, in brackets the lowest and highest of the same ratio taken round by round."
        " `!` after a name: errors, answers other than 2xx, or a process that ended."
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
        command = server["command"]
        for place in ("{venv}/", "{build}/", "{tmp}/"):
            command = command.replace(place, "")
        command = command.replace("{ours}", "theframework").replace("{nginx}", "nginx")
        note = f" ({server['note']})" if server["note"] else ""
        started.append(f"- {name}: `{command.replace('{port}', 'PORT').strip()}`{note}")
    out.append(
        "## How each was started\n\n"
        "In `bench/apps/`, pinned to one core; caps on connections and idle timeouts raised where a"
        f" server would otherwise refuse the load. Ours has `--max-connections` raised for the"
        f" {data['idle']:,} idle connections only.\n\n" + "\n".join(started)
    )
    return out


def write_page(data: Data, page: Path, where: Path) -> None:
    """Write the page, and the picture beside it under the same name."""
    picture = page.with_suffix(".svg")
    parts = [intro(data), f"![CPU per request]({picture.name})", "## In short\n\n" + summary(data)]
    for letter in "abcdge":
        if rows(data, letter):
            parts += [f"## {heading(letter)}", EXPLAINED[letter], load_table(data, letter)]
    if idle_rows(data):
        parts.append(
            "## Memory of an idle connection\n\n"
            f"Growth of resident memory by {data['idle']:,} keep-alive connections after one"
            " request each, fresh servers; the kernel's own memory is not counted. Median of up to"
            f" three rounds.\n\n{idle_table(data)}"
        )
    if rows(data, "v") and rows(data, "w"):
        parts.append(
            "## When every request differs\n\n"
            "A route with a path parameter, a query value and a header, all read by the handler and"
            " answered: once the same request over and over, once each request different in all"
            " three. A server that remembers nothing from one request to the next pays the same."
            f"\n\n{vary_table(data)}"
        )
    if where.exists():
        parts.append("## Where the time goes\n\n" + where.read_text().strip())
    parts += rest(data)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n")
    picture.write_text(draw(data))
