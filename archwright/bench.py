"""`archwright bench`: measured figures, each beside its target where it has one.

Judges, but fails nothing: a figure depends on how busy the machine is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from archwright import bench_agents
from search_space.pattern import nearest


def measure(what: str, quick: bool = False) -> dict[str, Any]:
    """The figures of a benchmark by its name; ``quick`` runs it at sizes that mean nothing.

    Raises ValueError for a name that is none.
    """
    if what not in BENCHES:
        raise ValueError(
            f"there is no benchmark {what!r}: the nearest are {nearest(what, BENCHES)}"
        )
    return BENCHES[what](quick)


def agents(quick: bool) -> dict[str, Any]:
    """What `bench_agents.bench` returns, and the JSON keys of `archwright bench agents`.

    ``figures``: rows of ``figure`` (its name), ``value``, ``target`` and whether it ``holds``, None
    where there is none. ``seconds``: what all took.
    """
    began = time.perf_counter()
    found = bench_agents.bench(bench_agents.QUICK if quick else bench_agents.FULL)
    found["seconds"] = time.perf_counter() - began
    default, short = found["campaigns"]
    return {
        **found,
        "figures": [
            row("evaluators idle, at the default lag", default["idle"], "< 0.05"),
            row("evaluators idle, at one slot a worker", short["idle"]),
            row("calls in flight, at most", float(default["calls_in_flight_at_most"])),
            row("seconds between evaluations, at the default lag", default["gap_seconds"]),
            row("seconds between evaluations, at one slot a worker", short["gap_seconds"]),
            row("seconds of the campaign, at the default lag", default["wall_seconds"]),
            row("seconds of the campaign, at one slot a worker", short["wall_seconds"]),
            row("seconds to start the agents", found["start_up_seconds"]),
        ],
    }


BENCHES: dict[str, Callable[[bool], dict[str, Any]]] = {"agents": agents}


def row(
    name: str, measured: dict[str, Any] | float, target: str | None = None, key: str = "median"
) -> dict[str, Any]:
    """A figure with its spread, where it has one, beside its target and whether that holds."""
    spread = measured if isinstance(measured, dict) else {key: measured}
    value, holds = spread[key], None
    if target is not None:
        sign, bound = target.split()
        holds = value < float(bound) if sign == "<" else value > float(bound)
    sides = {side: spread.get(side) for side in ("low", "high", "n")}
    return {"figure": name, "value": value, **sides, "target": target, "holds": holds}
