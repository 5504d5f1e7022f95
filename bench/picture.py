"""The picture of the page: bars of CPU per request, as hand-written SVG."""

from __future__ import annotations

import math
from html import escape

from figures import Data, floor_of, rows
from load import heading

INK, DIM, GRID, PAPER = "#1f2328", "#59636e", "#d8dee4", "#ffffff"
COLOURS = {"ours": "#d9480f", "peer": "#8ba3bd", "reference": "#b9c2cc", "floor": "#dfe3e8"}
LETTERS = "abcdge"
WIDTH, LABEL, VALUE, GAP, MARGIN = 460, 128, 92, 34, 24
BAR, PITCH = 15, 22
FONT = "font-family='Helvetica, Arial, sans-serif'"


def text(x: float, y: float, words: str, size: int = 12, colour: str = INK, more: str = "") -> str:
    place = f"x='{x:.1f}' y='{y:.1f}' font-size='{size}' fill='{colour}'"
    return f"<text {place} {more}>{escape(words)}</text>"


def rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    place = f"x='{x:.1f}' y='{y:.1f}' width='{width:.1f}' height='{height:.1f}'"
    return f"<rect {place} fill='{colour}'/>"


def upright(x: float, top: float, bottom: float, colour: str) -> str:
    return f"<line x1='{x:.1f}' y1='{top:.1f}' x2='{x:.1f}' y2='{bottom:.1f}' stroke='{colour}'/>"


def number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def ticks(top: float, linear: bool) -> list[float]:
    if linear:
        step = 10 ** math.floor(math.log10(top))
        step = step / 2 if top / step < 3 else step
        return [i * step for i in range(int(top / step) + 1)]
    if top < 2:
        return [1 + i / 10 for i in range(int((top - 1) * 10 + 0.001) + 1)]
    return [m * 10**e for e in range(5) for m in (1, 2, 5) if m * 10**e <= top]


def panel(data: Data, letter: str, x: float, y: float) -> tuple[list[str], float]:
    """One workload: its bars, and its height."""
    found = rows(data, letter)
    floor = floor_of(data, letter)
    if floor:  # the other floor programs are variants of it: in the table, not here
        found = [r for r in found if r.kind != "floor"]
    values = [(r.ratio if floor and r.ratio else r.cpu_min) for r in found]
    if not values:
        return [], 0
    top = max(values) * 1.12
    plot, room = x + LABEL, WIDTH - LABEL - VALUE

    def at(value: float) -> float:
        """Logarithmic from the floor, or linear from zero where there is none."""
        if floor:
            return plot + room * math.log(max(value, 1.0)) / math.log(max(top, 1.2))
        return plot + room * value / top

    unit = "× the floor's CPU per request"
    if not floor:
        unit = "µs of CPU per request (linear: there is no floor program for it)"
    out = [
        text(x, y + 13, heading(letter), 14, more="font-weight='bold'"),
        text(x, y + 30, unit, 11, DIM),
    ]
    first, last = y + 42, y + 42 + PITCH * len(found)
    previous = -1e9
    for tick in ticks(top, linear=not floor):
        if at(tick) - previous < 30:
            continue
        previous = at(tick)
        line = INK if at(tick) == plot else GRID
        out.append(upright(at(tick), first - 4, last, line))
        label = f"{tick:g}" + ("×" if floor else "")
        out.append(text(at(tick), last + 13, label, 10, DIM, "text-anchor='middle'"))
    for i, (row, value) in enumerate(zip(found, values, strict=True)):
        top_y = first + i * PITCH
        middle = top_y + BAR - 3
        weight = "font-weight='bold'" if row.kind == "ours" else ""
        out.append(text(plot - 8, middle, row.name, 12, INK, f"text-anchor='end' {weight}"))
        length = max(2.0, at(value) - plot)
        out.append(rect(plot, top_y, length, BAR, COLOURS[row.kind]))
        words = number(value) + ("×" if floor else " µs") + row.flags
        if floor:
            words += f"  ({number(row.cpu_min)} µs)"
        out.append(text(plot + length + 6, middle, words, 11, INK, weight))
    return out, last + 20 - y


def draw(data: Data) -> str:
    """The whole picture: two columns of panels."""
    body: list[str] = []
    y = 76.0
    letters = [w for w in LETTERS if rows(data, w)]
    for i in range(0, len(letters), 2):
        tallest = 0.0
        for column, letter in enumerate(letters[i : i + 2]):
            lines, height = panel(data, letter, MARGIN + column * (WIDTH + GAP), y)
            body += lines
            tallest = max(tallest, height)
        y += tallest + 22
    width = 2 * MARGIN + 2 * WIDTH + GAP
    title = "Server CPU per request, whole process tree; shorter is better"
    m = data["machine"]
    caption = (
        f"minimum over {data['rounds']} rounds; logarithmic, the floor is 1×"
        f" · {m['cpu']}, Linux {m['kernel']}, Python {m['python']} · {data['date'][:10]}"
        + (" · quick run, only to try the tool" if data["quick"] else "")
    )
    legend = []
    x = MARGIN
    for kind, words in (
        ("ours", "theframework"),
        ("peer", "Python servers"),
        ("reference", "nginx, without Python"),
    ):
        legend.append(rect(x, y, 12, 12, COLOURS[kind]))
        legend.append(text(x + 18, y + 11, words, 12))
        x += 42 + 7 * len(words)
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{y + 34:.0f}'"
            f" viewBox='0 0 {width} {y + 34:.0f}' {FONT}>",
            f"<title>{escape(title)}</title>",
            f"<rect width='100%' height='100%' fill='{PAPER}'/>",
            text(MARGIN, 32, title, 18, more="font-weight='bold'"),
            text(MARGIN, 53, caption, 11, DIM),
            *body,
            *legend,
            "</svg>",
            "",
        ]
    )
