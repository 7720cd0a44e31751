"""`archwright bench`: measured figures, each beside its target where it has one.

Judges, but fails nothing: a figure depends on how busy the machine is. What measures is beside it:
`bench_evaluator`, `bench_agents`, `bench_scaffolds` and `bench_sandbox`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from archwright import bench_agents, bench_evaluator, bench_sandbox, bench_scaffolds
from evaluator import bench
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


def evaluator(quick: bool) -> dict[str, Any]:
    """What `evaluator.bench.bench` returns, and the JSON keys of `archwright bench evaluator`.

    ``campaign``: its profile and what `bench_evaluator.utilisation` says. ``figures``: rows of
    ``figure`` (its name), ``value``, ``low``, ``high`` and ``n`` where it was measured repeatedly,
    ``target`` and whether it ``holds``, None where there is none. ``seconds``: what all took.
    """
    began = time.perf_counter()
    found = bench.bench(bench.QUICK if quick else bench.FULL)
    found["campaign"] = bench_evaluator.campaign(
        bench_evaluator.recipe(4, "smoke") if quick else bench_evaluator.recipe(10, "mad-mini")
    )
    found["seconds"] = time.perf_counter() - began
    return {**found, "figures": figures(found)}


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


def scaffolds(quick: bool) -> dict[str, Any]:
    """What `bench_scaffolds.bench` returns, and the JSON keys of `archwright bench scaffolds`.

    ``figures``: a row a policy, with its regret and the interval's reach after some numbers of
    evaluations, the gain over random search with its interval, and the verdict at the last of them.
    ``seconds``: what all took.
    """
    began = time.perf_counter()
    found = bench_scaffolds.bench(bench_scaffolds.QUICK if quick else bench_scaffolds.FULL)
    found["seconds"] = time.perf_counter() - began
    return {**found, "figures": [policy_row(policy) for policy in found["policies"]]}


def policy_row(policy: dict[str, Any]) -> dict[str, Any]:
    """A policy's regret curve on one line."""
    *_, last = policy["curve"]
    regrets = {
        f"regret@{point['evaluations']}": "{mean:.4f} ±{reach:.4f}".format(
            **point["regret"], reach=point["regret"]["high"] - point["regret"]["mean"]
        )
        for point in policy["curve"]
    }
    return {
        "proposer": policy["proposer"],
        "scaffold": policy["scaffold"],
        "n": policy["searches"],
        **regrets,
        "less than random's by": "{mean:+.4f} [{low:+.4f}, {high:+.4f}]".format(**last["gain"]),
        "verdict": last["verdict"],
    }


def sandbox(quick: bool) -> dict[str, Any]:
    """What `bench_sandbox.bench` returns, and the JSON keys of `archwright bench sandbox`.

    ``figures``: rows as those of `evaluator`. ``seconds``: what all took.
    """
    began = time.perf_counter()
    found = bench_sandbox.bench(bench_sandbox.QUICK if quick else bench_sandbox.FULL)
    found["seconds"] = time.perf_counter() - began
    rows = [row("seconds of `import torch` in a new interpreter", found["cold_seconds"])]
    for level, figures in found["levels"].items():
        if "error" not in figures:
            rows += [
                row(f"{level}: seconds to a task's first line", figures["start"], "< 0.1"),
                row(f"{level}: seconds to its result", figures["round_trip"]),
                row(f"{level}: seconds from expiry to the answer", figures["kill"], "< 1"),
            ]
    return {**found, "figures": rows}


BENCHES: dict[str, Callable[[bool], dict[str, Any]]] = {
    "evaluator": evaluator,
    "agents": agents,
    "scaffolds": scaffolds,
    "sandbox": sandbox,
}


def figures(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of the evaluator as rows, a target beside each that has one."""
    peak, mlp, one, many = (found[key] for key in ("peak", "mlp", "evaluation", "campaign"))
    rows = [row(f"peak of one core, {name}, GFLOP/s", peak[name], key="high") for name in peak]
    for training in found["training"]:
        name = f"training {training['pattern']}"
        rows += [
            row(f"{name}: plain, tokens/s", training["plain"]),
            row(f"{name}: ours, tokens/s", training["fast"]),
            row(f"{name}: ours to plain", training["ratio"], "> 2.2"),
            row(f"{name}: share of the bf16 peak", training["share_of_peak"]),
        ]
    rows += [row(f"M, its {name}: share of the bf16 peak", mlp[name], "> 0.6") for name in mlp]
    for name, shares in (
        (f"evaluation of {one['pattern']}", one["shares"]),
        ("campaign", many["shares"]),
    ):
        rows += [
            row(f"{name}: {key}", shares[key], "< 0.01" if key == "data" else None)
            for key in shares
        ]
    return [
        *rows,
        row("campaign: seconds of an evaluation", many["evaluation_seconds"]),
        row("campaign: seconds between evaluations", many["gap_seconds"]),
        row("campaign: workers busy", many["busy"], "> 0.95"),
        row("campaign: workers busy, before the tail", many["busy_before_tail"], "> 0.95"),
        row("campaign: orchestration, first imports included", many["orchestration"], "< 0.03"),
        row(
            "campaign: orchestration of a five-second evaluation",
            many["orchestration_of_five_seconds"],
            "< 0.03",
        ),
        row("campaign: candidates per hour", many["candidates_per_hour"]),
        row("campaign: peak memory of a worker, GiB", many["peak_bytes"] / 2**30, "< 1"),
    ]


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
