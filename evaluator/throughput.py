"""How many candidates an hour this machine evaluates: random patterns, several processes at a time.

    python -m evaluator.throughput --profile mad --preset small --layers 16 --candidates 150 --concurrent 8

Needs torch alone, and takes the first GPU where there is one. There its processes take turns unless
NVIDIA's MPS is up (`nvidia-cuda-mps-control -d`), under which their kernels overlap. The start of the
processes counts. It says nothing of the candidates' worth, nor of where the time goes. The target, the
150 candidates above in ten minutes on one H200, has not been measured.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from evaluator.evaluate import Job, device, evaluate
from evaluator.outcome import Result
from evaluator.profiles import profile
from search_space.pattern import Pattern
from search_space.presets import preset


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate and print a line for each candidate; the last line is one JSON object."""
    options = parser().parse_args(arguments)
    profile(options.profile).named(options.task), preset(options.preset)
    work, results, began = jobs(options), list[Result](), time.perf_counter()
    with ProcessPoolExecutor(options.concurrent, get_context("spawn")) as pool:
        for job, result in zip(work, pool.map(evaluate, work), strict=True):
            results.append(result)
            outcome = result.failure or f"{result.score():.3f}"
            print(f"{job.pattern}  {outcome}  {result.spent.seconds:.1f} s", flush=True)
    print(json.dumps({**vars(options), **summary(results, time.perf_counter() - began)}))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m evaluator.throughput")
    made.add_argument("--profile", default="mad")
    made.add_argument("--task", action="append", default=[], help="only this task; repeatable")
    made.add_argument("--preset", default="small")
    made.add_argument("--codes", default="A,M,Mb", help="primitives to draw from")
    made.add_argument("--layers", type=int, default=16)
    made.add_argument("--candidates", type=int, default=150)
    made.add_argument("--concurrent", type=int, default=8, help="processes")
    made.add_argument("--seed", type=int, default=0, help="of the patterns and the evaluations")
    return made


def jobs(options: argparse.Namespace) -> list[Job]:
    """The evaluations: patterns drawn layer by layer. Raises ValueError for an unknown code."""
    rng, codes = random.Random(options.seed), options.codes.split(",")
    drawn = (
        Pattern.of([rng.choice(codes) for _ in range(options.layers)])
        for _ in range(options.candidates)
    )
    tasks = tuple(options.task)
    return [Job(str(p), options.preset, options.profile, options.seed, tasks) for p in drawn]


def summary(results: Sequence[Result], seconds: float) -> dict[str, Any]:
    """Rates over wall seconds; the failures by kind, and the tasks not graphed on a GPU by reason."""
    there = device().type == "cuda"
    eager = Counter(text for r in results for name, text in r.facts if name.endswith("/eager"))
    return {
        "device": torch.cuda.get_device_name() if there else "cpu",
        "seconds": seconds,
        "candidates_per_hour": 3600 * len(results) / seconds,
        "tokens_per_second": sum(r.spent.tokens for r in results) / seconds,
        "failures": Counter(r.failure for r in results if r.failure),
        "eager": eager,
    }


if __name__ == "__main__":
    main()
