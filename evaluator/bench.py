"""Measures the evaluator: `python -m evaluator.bench [PATTERN]`, one JSON object as the last line.

Everything is a ratio of things measured in one run, because machines are shared and noisy. It compares
our training step with a plain fp32 eager loop on the same model, and says where the time goes.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluator.evaluate import Job, device, evaluate
from evaluator.profiles import profile
from evaluator.tasks import mad_task
from evaluator.tasks.base import IGNORE, Split
from evaluator.train import Training, adamw, autocast, batches, train_step
from search_space.model import Model, pattern_cost
from search_space.pattern import Pattern
from search_space.presets import preset

PATTERN, PRESET, BATCH, WARM, STEPS = "5(Mb+M+A)+M", "small", 32, 3, 8


def bench(pattern: str = PATTERN) -> dict[str, Any]:
    """Throughput of one thread on ``pattern`` at preset `small`, length 128, and of `mad-mini`."""
    torch.set_num_threads(1)
    task = mad_task("in-context-recall")
    data = task.split("train", 0)
    fast = replace(profile("mad").training, batch=BATCH)
    peaks = {"fp32": matmul_peak(torch.float32), "bf16": matmul_peak(torch.bfloat16)}
    plain_seconds = plain_step_seconds(pattern, data, task.vocab)
    split = step_split(pattern, data, task.vocab, fast)
    tokens = BATCH * task.input_length
    cost = pattern_cost(Pattern.parse(pattern), preset(PRESET), task.input_length)
    flops = 3 * cost.flops_per_token * tokens
    return {
        "pattern": pattern,
        "preset": PRESET,
        "device": str(device()),
        "matmul_peak_gflops": peaks,
        "plain_tokens_per_second": tokens / plain_seconds,
        "tokens_per_second": tokens / split["step"],
        "speed_up": plain_seconds / split["step"],
        "share_of_matmul_peak": flops / split["step"] / 1e9 / peaks[fast.dtype],
        "first_step_seconds": split.pop("first"),
        "split": {k: v / split["step"] for k, v in split.items() if k != "step"},
        "mad_mini": mini(),
    }


def matmul_peak(dtype: torch.dtype, n: int = 1024) -> float:
    """GFLOP/s of the best of some n x n products on one thread."""
    a, b = torch.randn(n, n, dtype=dtype), torch.randn(n, n, dtype=dtype)
    return 2 * n**3 / min(seconds(lambda: a @ b) for _ in range(10)) / 1e9


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def plain_step_seconds(pattern: str, data: Split, vocab: int) -> float:
    """Median seconds of a step as a tutorial would write it: fp32, eager, default AdamW."""
    torch.manual_seed(0)
    model = Model(Pattern.parse(pattern), preset(PRESET), vocab)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(inputs: Tensor, labels: Tensor) -> None:
        loss = F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    times = [seconds(lambda x=x, y=y: step(x, y)) for x, y in batches(data, BATCH, WARM + STEPS, 0)]  # type: ignore[misc]
    return statistics.median(times[WARM:])


def step_split(pattern: str, data: Split, vocab: int, training: Training) -> dict[str, float]:
    """Median seconds of our own step and of its parts; ``first`` is the first step, compiling included."""
    torch.manual_seed(0)
    model = Model(Pattern.parse(pattern), preset(PRESET), vocab)
    if training.compiled:
        model.compile_blocks()
    optimiser = adamw(model, training)
    rows: dict[str, list[float]] = {
        "step": [],
        "data": [],
        "forward": [],
        "backward": [],
        "rest": [],
    }
    drawn = batches(data, BATCH, 2 * (WARM + STEPS), 0)
    for _ in range(WARM + STEPS):
        start = time.perf_counter()
        inputs, labels = next(drawn)
        rows["data"].append(time.perf_counter() - start)
        rows["step"].append(
            seconds(lambda: train_step(model, optimiser, inputs, labels, training))  # noqa: B023
        )
        parts = _parts(model, *next(drawn), training)
        rows["forward"].append(parts[0])
        rows["backward"].append(parts[1])
        rows["rest"].append(rows["step"][-1] - sum(parts))  # optimiser, clipping, zeroing
    return {"first": rows["step"][0], **{k: statistics.median(v[WARM:]) for k, v in rows.items()}}


def _parts(
    model: nn.Module, inputs: Tensor, labels: Tensor, training: Training
) -> tuple[float, float]:
    """Seconds of a forward pass with the loss, and of its backward pass."""
    start = time.perf_counter()
    with autocast(training.dtype, inputs.device):
        logits = model(inputs)
    loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
    forward = time.perf_counter() - start
    return forward, seconds(lambda: loss.backward())  # noqa: PLW0108


def mini(pattern: str = "2(Mb+A+M)") -> dict[str, float]:
    """A whole evaluation at `mad-mini`: its seconds, tokens, share spent on data, and peak memory."""
    whole = profile("mad-mini")
    start = time.perf_counter()
    for task in whole.tasks:
        task.split("train", 1), task.split("validation", 1)
    drawing = time.perf_counter() - start
    result = evaluate(Job(pattern, "mini", "mad-mini", 0))
    spent = result.spent
    return {
        "seconds": spent.seconds,
        "candidates_per_hour_and_core": 3600 / spent.seconds,
        "tokens_per_second": spent.tokens / spent.seconds,
        "data_share": drawing / spent.seconds,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    print(json.dumps(bench(*sys.argv[1:])))
