"""What the runs say: one row per server and workload, and its ratio to the run's floor."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

Data = dict[str, Any]


@dataclass
class Row:
    """One server under one workload, over all rounds."""

    name: str
    kind: str
    rounds: int
    rps: float
    p50: float | None
    p99: float | None
    cpu_min: float
    cpu_median: float
    cpu_max: float
    share: float  # of its core, median
    client: float  # of wrk's core, median
    noisy: int  # rounds with foreign CPU
    errors: int
    lost: bool  # a process of its tree ended
    ratio: float | None = None  # minimum over minimum of the floor
    low: float | None = None  # the same per round, lowest and highest
    high: float | None = None

    @property
    def spread(self) -> float:
        return self.cpu_max / self.cpu_min - 1 if self.cpu_min else 0

    @property
    def flags(self) -> str:
        return ("?" if self.noisy * 2 > self.rounds else "") + (
            "!" if self.errors or self.lost else ""
        )


def middle(runs: list[Data], key: str) -> float | None:
    values = [run[key] for run in runs if run[key] is not None]
    return statistics.median(values) if values else None


def kind_of(data: Data, name: str) -> str:
    return str(data["servers"][name]["kind"])


def floor_of(data: Data, letter: str) -> tuple[str, dict[int, float]] | None:
    """The best floor program of this workload, and its CPU per request in each round."""
    found = [
        (min(run["cpu_us"] for run in runs), name, {run["round"]: run["cpu_us"] for run in runs})
        for name, runs in data["runs"].get(letter, {}).items()
        if kind_of(data, name) == "floor" and runs
    ]
    if not found:
        return None
    _, name, per_round = min(found, key=lambda x: x[0])
    return name, per_round


def rows(data: Data, letter: str) -> list[Row]:
    """All servers of a workload, cheapest first."""
    floor = floor_of(data, letter)
    out = []
    for name, runs in data["runs"].get(letter, {}).items():
        if not runs:
            continue
        cpu = [run["cpu_us"] for run in runs]
        row = Row(
            name=name,
            kind=kind_of(data, name),
            rounds=len(runs),
            rps=middle(runs, "rps") or 0,
            p50=middle(runs, "p50_us"),
            p99=middle(runs, "p99_us"),
            cpu_min=min(cpu),
            cpu_median=statistics.median(cpu),
            cpu_max=max(cpu),
            share=middle(runs, "server_cpu") or 0,
            client=middle(runs, "client_cpu") or 0,
            noisy=sum(run["foreign_cpu"] > data["noise"] for run in runs),
            errors=sum(run["errors"] + run["non2xx"] for run in runs),
            lost=any(run["process_lost"] for run in runs),
        )
        if floor and min(floor[1].values()):
            each = [
                run["cpu_us"] / floor[1][run["round"]] for run in runs if floor[1].get(run["round"])
            ]
            row.ratio = row.cpu_min / min(floor[1].values())
            row.low, row.high = (min(each), max(each)) if each else (row.ratio, row.ratio)
        out.append(row)
    return sorted(out, key=lambda row: row.cpu_min)


def ours(found: list[Row]) -> Row | None:
    return next((row for row in found if row.kind == "ours"), None)


def best_peer(found: list[Row]) -> Row | None:
    return next((row for row in found if row.kind == "peer"), None)


@dataclass
class Idle:
    """Workload f of one server: medians over its rounds."""

    name: str
    kind: str
    each: float
    low: float
    high: float
    alive: int
    asked: int
    before: float  # resident bytes without the connections


def idle_rows(data: Data) -> list[Idle]:
    out = []
    for name, runs in data["runs"].get("f", {}).items():
        good = [run for run in runs if run["bytes_per_connection"] is not None]
        if good:
            each = [run["bytes_per_connection"] for run in good]
            out.append(
                Idle(
                    name,
                    kind_of(data, name),
                    statistics.median(each),
                    min(each),
                    max(each),
                    min(run["alive"] for run in good),
                    good[0]["asked"],
                    statistics.median(run["rss_before"] for run in good),
                )
            )
    return sorted(out, key=lambda row: row.each)
