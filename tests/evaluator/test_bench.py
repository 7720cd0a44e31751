"""The benchmark of the evaluator measures what it says: the same model both ways, the right types, the
stated FLOPs. How fast anything is, is not for tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.flop_counter import FlopCounterMode

from evaluator import bench
from evaluator.bench import QUICK, Figure, fast_steps, lap, library_attention, plain_steps
from search_space.model import Model
from search_space.ops.attention import KV, causal_attention
from search_space.pattern import Pattern
from search_space.presets import preset
from search_space.primitives import attention

SMALL = replace(QUICK, batch=16)


def losses(way: Any, pattern: str, steps: tuple[int, ...] = (1, 20, 60)) -> list[float]:
    return [lap(way, pattern, replace(SMALL, steps=n)).loss for n in steps]


@pytest.mark.parametrize("pattern", ["A+M", "Mb+M+A+M"])
def test_both_ways_train_the_same_model(pattern: str) -> None:
    """Their losses stay together, within what bf16 does to them, while they fall by far more."""
    plain, fast = losses(plain_steps, pattern), losses(fast_steps, pattern)
    assert plain != fast
    assert fast == pytest.approx(plain, abs=0.01)
    assert plain[0] - plain[-1] > 0.5


def test_the_data_cannot_be_learned_without_looking_back() -> None:
    """So a way that lost its attention would not have the same losses."""
    blind, seeing = losses(fast_steps, "2M", (60,)), losses(fast_steps, "A+M", (60,))
    assert blind[0] > seeing[0] + 0.5


@contextmanager
def recorded() -> Iterator[set[torch.dtype]]:
    """The types that linear layers give in the context."""
    types: set[torch.dtype] = set()

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            types.add(output.dtype)

    hook = register_module_forward_hook(note)
    try:
        yield types
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("way", "dtype"), [(plain_steps, torch.float32), (fast_steps, torch.bfloat16)]
)
def test_each_way_computes_in_its_type(way: Any, dtype: torch.dtype) -> None:
    model = Model(Pattern.parse("A+Mb+M"), preset("mini"), bench.VOCAB)
    run = way(model, bench.echo(QUICK), QUICK)
    with recorded() as types:
        run(0, 1)
    assert types == {dtype}


def test_only_the_plain_way_has_the_fused_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fused = bench.F.scaled_dot_product_attention

    def counted(*args: Any, **more: Any) -> Tensor:
        calls.append("fused")
        return fused(*args, **more)

    monkeypatch.setattr(bench.F, "scaled_dot_product_attention", counted)
    lap(fast_steps, "A+M", QUICK)
    assert calls == []
    lap(plain_steps, "A+M", QUICK)
    assert len(calls) == 1 + QUICK.steps
    assert attention.causal_attention is causal_attention


@pytest.mark.parametrize("length", [1, 63, 100])
def test_the_fused_attention_is_ours(length: int) -> None:
    def ran(way: Callable[[Tensor, KV], Tensor]) -> list[Tensor]:
        torch.manual_seed(0)
        sizes = ((2, 4, length, 8), (2, 2, length, 8), (2, 2, length, 8))
        q, k, v = (torch.randn(size, requires_grad=True) for size in sizes)
        y = way(q, KV(k, v))
        y.backward(torch.randn(y.shape))  # not like y, whose layout differs
        return [y, *(t.grad for t in (q, k, v) if t.grad is not None)]

    for ours, theirs in zip(ran(causal_attention), ran(library_attention), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_every_product_does_the_flops_that_are_stated_for_it() -> None:
    sizes = (bench.large_product((8, 16, 24), torch.float32), bench.mlp_layer(QUICK))
    for flops, work in (*sizes, bench.mlp_products(QUICK)):
        with FlopCounterMode(display=False) as counter:
            work()
        # The layer's norm may make a product of its own, of one row.
        assert counter.get_total_flops() == pytest.approx(flops, rel=0.01)
        assert flops > 0


@pytest.mark.parametrize("dtype", bench.DTYPES.values(), ids=str)
def test_a_peak_is_of_its_type(dtype: torch.dtype) -> None:
    _, work = bench.large_product((8, 16, 24), dtype)
    found = work()
    assert isinstance(found, Tensor)
    assert (found.dtype, found.shape) == (dtype, (8, 24))


def test_every_quantity_is_measured_in_every_round() -> None:
    rates = bench.products(QUICK)
    assert set(rates) == {*bench.DTYPES, "layer", "products"}
    assert {len(values) for values in rates.values()} == {4 * QUICK.rounds}
    assert min(min(values) for values in rates.values()) > 0


def test_a_share_is_of_the_best_of_the_peak() -> None:
    peak = Figure.of([3.0, 1.0, 4.0, 2.0])
    assert peak == Figure(2.5, 1.0, 4.0, 4)
    assert bench.share([1.0, 2.0, 1.0], peak) == Figure(0.25, 0.25, 0.5, 3)


def test_the_command_prints_one_json_object_and_its_progress_apart() -> None:
    command = [sys.executable, "-m", "evaluator.bench", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert all(text.startswith("bench: ") for text in done.stderr.splitlines())
    (row,) = found["training"]
    assert row["pattern"] == "A+M"
    assert row["fast_loss"] == pytest.approx(row["plain_loss"], abs=0.01)
    for figure in (row["ratio"], row["share_of_peak"], *found["peak"].values()):
        assert 0 < figure["low"] <= figure["median"] <= figure["high"]
    assert row["ratio"]["n"] == QUICK.rounds
    assert sum(found["evaluation"]["shares"].values()) == pytest.approx(1)
