"""Measures the evaluator on one core: `python -m evaluator.bench [--quick]`, JSON as the last line.

Machines are shared and noisy, so figures are ratios where they can be, rates are per second of a core and
not of the clock, and what is compared takes turns in one run, each way of training in a process of its
own. It measures the CPU, with torch alone; what a campaign adds is `archwright.bench`'s. It judges nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluator.evaluate import Job, drawn, evaluate
from evaluator.stages import watched
from evaluator.tasks.base import IGNORE, Split
from evaluator.train import Training, adamw, autocast, batches, train
from search_space.model import Block, Model, layer_cost, make_primitive, pattern_cost
from search_space.native.library import torch_only
from search_space.ops import linear
from search_space.ops.attention import KV
from search_space.ops.chunks import Impl, decays, grouped
from search_space.pattern import Pattern
from search_space.presets import preset
from search_space.primitives import attention, mamba2
from search_space.primitives.norm import EPSILON, Norm
from search_space.primitives.short_conv import ShortConv

VOCAB, LR, SEED = 16, 1e-3, 0
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Rates = dict[str, list[float]]


@dataclass(frozen=True)
class Sizes:
    """What is measured and how often: ``rounds`` of ``steps`` training steps on batches of ``batch`` rows,
    and four times as many of products, the large one (n, k) times (k, m); the stages of a ``job``."""

    preset: str
    patterns: tuple[str, ...]
    batch: int
    length: int
    rounds: int
    steps: int
    product: tuple[int, int, int]
    job: Job

    @property
    def tokens(self) -> int:
        """Of a batch."""
        return self.batch * self.length


FULL = Sizes(
    preset="small",
    patterns=("5(Mb+M+A)+M", "8(A+M)"),
    batch=32,
    length=128,
    rounds=5,
    steps=3,
    product=(4096, 1024, 1024),
    job=Job("2(Mb+A+M)", "mini", "mad-mini", 0),
)
QUICK = Sizes(
    preset="mini",
    patterns=("A+M",),
    batch=4,
    length=16,
    rounds=2,
    steps=2,
    product=(64, 64, 64),
    job=Job("A+M", "mini", "smoke", 0),
)


@dataclass(frozen=True)
class Figure:
    """One quantity, measured ``n`` times."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        return cls(statistics.median(values), min(values), max(values), len(values))


def bench(sizes: Sizes = FULL) -> dict[str, Any]:
    """The figures of one run; each `Figure` is its median, low, high and n.

    ``torch``, ``cpu``: version and instruction set. ``peak``: GFLOP/s of one core in large products, by
    type. ``training``: for each pattern its ``params``, tokens/s of one core in the ``plain`` loop and in
    the ``fast`` one, which is a worker's, their ``ratio``, the fast one's ``share_of_peak`` (model FLOPs
    over the bf16 peak), and ``plain_loss`` and ``fast_loss`` after the same steps. ``mlp``: the share of
    the bf16 peak that an `M` ``layer`` reaches forward and backward, and its ``products`` alone.
    ``evaluation``: the ``job``'s pattern, preset and profile, its ``seconds`` and ``shares`` by stage.
    ``seconds``: what the benchmark took.
    """
    began = time.perf_counter()
    with process(plain_process) as plain, process(worker) as fast:
        say("the peak of one core, and the products of an M layer")
        rates = fast.submit(products, sizes).result()
        peaks = {name: Figure.of(rates[name]) for name in DTYPES}
        rows = [compare(pattern, sizes, plain, fast, peaks["bf16"]) for pattern in sizes.patterns]
        say(f"the stages of one evaluation of {sizes.job.pattern}")
        evaluation = fast.submit(split, sizes.job).result()
    return {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "peak": {name: asdict(peak) for name, peak in peaks.items()},
        "training": rows,
        "mlp": {name: asdict(share(rates[name], peaks["bf16"])) for name in ("layer", "products")},
        "evaluation": evaluation,
        "seconds": time.perf_counter() - began,
    }


def say(text: str) -> None:
    """Progress, for whoever watches."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def share(rates: Sequence[float], peak: Figure) -> Figure:
    """Rates in GFLOP/s as shares of the best that a peak has."""
    return Figure.of([rate / peak.high for rate in rates])


# ------------------------------------------------------------------------------------ two processes


def process(initialise: Callable[[], None]) -> ProcessPoolExecutor:
    """A process that lives as long as the context: allocator and threads are set once in one."""
    return ProcessPoolExecutor(1, get_context("spawn"), initialise)


def plain_process() -> None:
    """One thread, and all else as it comes."""
    torch.set_num_threads(1)


def worker() -> None:
    """Whatever an evaluation does to the process that it runs in; on the CPU also where there is CUDA."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    evaluate(Job("A", "mini", "smoke", 0))


# ------------------------------------------------------------------------------------------ training


@dataclass(frozen=True)
class Lap:
    """Some training steps: their speed, and the loss after them, by which one sees that two ways train
    the same model."""

    tokens_per_second: float
    loss: float


def compare(
    pattern: str, sizes: Sizes, plain: ProcessPoolExecutor, fast: ProcessPoolExecutor, peak: Figure
) -> dict[str, Any]:
    """Both ways to train a pattern, in turns."""
    laps = []
    for number in range(sizes.rounds):
        say(f"training {pattern}, round {number + 1} of {sizes.rounds}")
        one = plain.submit(lap, plain_steps, pattern, sizes).result()
        laps.append((one, fast.submit(lap, fast_steps, pattern, sizes).result()))
    ours, theirs = ([pair[i].tokens_per_second for pair in laps] for i in (1, 0))
    cost = pattern_cost(Pattern.parse(pattern), preset(sizes.preset), sizes.length)
    flops = 3 * cost.flops_per_token / 1e9
    return {
        "pattern": pattern,
        "params": cost.params,
        "plain": asdict(Figure.of(theirs)),
        "fast": asdict(Figure.of(ours)),
        "ratio": asdict(Figure.of([b / a for a, b in zip(theirs, ours, strict=True)])),
        "share_of_peak": asdict(share([flops * rate for rate in ours], peak)),
        "plain_loss": laps[-1][0].loss,
        "fast_loss": laps[-1][1].loss,
    }


Steps = Callable[[int, int], object]  # trains from one step to another


def lap(way: Callable[[Model, Split, Sizes], Steps], pattern: str, sizes: Sizes) -> Lap:
    """A new model, the same every time, trained one way; the first step is not timed."""
    torch.manual_seed(SEED)
    model, data = Model(Pattern.parse(pattern), preset(sizes.preset), VOCAB), echo(sizes)
    run = way(model, data, sizes)
    run(0, 1)
    taken = seconds(lambda: run(1, 1 + sizes.steps))
    with torch.no_grad():
        loss = plain_loss(model, data.inputs[: sizes.batch], data.labels[: sizes.batch])
    return Lap(sizes.steps * sizes.tokens / taken, loss.item())


def echo(sizes: Sizes) -> Split:
    """Random tokens whose labels are the tokens before them: only who looks back can learn that."""
    generator = torch.Generator().manual_seed(SEED)
    tokens = torch.randint(VOCAB, (4 * sizes.batch, sizes.length), generator=generator)
    labels = tokens.roll(1, 1)
    labels[:, 0] = IGNORE
    return Split(tokens, labels)


def fast_steps(model: Model, data: Split, sizes: Sizes) -> Steps:
    """What a worker does."""
    training = Training(steps=1 + sizes.steps, batch=sizes.batch, lr=LR, dtype="bf16")
    optimiser = adamw(model, training)
    return lambda start, stop: train(
        model, data, training, SEED, VOCAB, None, optimiser, start, stop
    )


def plain_steps(model: Model, data: Split, sizes: Sizes) -> Steps:
    """The same as a textbook has it: fp32, torch's own modules, none of our training code. The recurrent
    cores stay in chunks, by autograd: a loop over time would be no match."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0, fused=True)

    def run(start: int, stop: int) -> None:
        with library():
            for inputs, labels in batches(data, sizes.batch, stop, SEED, start):
                optimiser.zero_grad()
                plain_loss(model, inputs, labels).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()

    return run


def plain_loss(model: Model, inputs: Tensor, labels: Tensor) -> Tensor:
    """The loss of a batch (B, L) in fp32."""
    return F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten(), ignore_index=IGNORE)


@contextmanager
def library() -> Iterator[None]:
    """torch's own modules, and autograd, in place of ours that compute the same."""
    with ExitStack() as undo:
        undo.enter_context(torch_only())
        undo.enter_context(patch.object(attention, "rotated", library_rotation))
        undo.enter_context(patch.object(linear._Inside, "apply", library_scores))
        undo.enter_context(patch.object(mamba2, "ssd", library_ssd))
        undo.enter_context(patch.object(attention, "causal_attention", library_attention))
        undo.enter_context(patch.object(Norm, "forward", library_norm))
        undo.enter_context(patch.object(ShortConv, "mix", library_convolution))
        yield


def library_attention(q: Tensor, kv: KV) -> Tensor:
    """torch's fused kernel in place of `causal_attention`, without a window."""
    keys, values = (grouped(t, q.shape[1], 1) for t in (kv.keys, kv.values))
    return F.scaled_dot_product_attention(q, keys, values, is_causal=True)


def library_rotation(x: Tensor, head: int, base: float, start: int = 0) -> Tensor:
    """Head by head, in place of `rotated`."""
    heads = x.unflatten(-1, (2, -1, head // 2)).permute(0, 3, 1, 2, 4).flatten(3)
    frequency = base ** (-torch.arange(0, head, 2) / head)
    angle = torch.arange(start, start + x.shape[1])[:, None] * frequency
    cos, sin, (one, two) = angle.cos(), angle.sin(), heads.chunk(2, -1)
    return torch.cat((one * cos - two * sin, one * sin + two * cos), -1)


def library_ssd(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None, impl: Impl
) -> tuple[Tensor, Tensor]:
    """As the listing in 2405.21060 has it, the inputs weighted beforehand, in place of `ssd`."""
    return linear.decayed_attention(C, B, x * dt[..., None], (dt * A)[..., None], state, impl)


def library_scores(q: Tensor, k: Tensor, v: Tensor, c: Tensor, keys: Tensor) -> Tensor:
    """What is inside a chunk, as that listing has it, in place of `_Inside`; no key has a weight."""
    scores = grouped(q @ k.transpose(-1, -2), v.shape[2]) * decays(c[..., 0, :])
    return scores @ v


def library_norm(norm: Norm, x: Tensor) -> Tensor:
    """In place of `Norm.forward`."""
    return F.rms_norm(x, norm.weight.shape, norm.weight, EPSILON)


def library_convolution(conv: ShortConv, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """In place of `ShortConv.mix` at the start of a sequence; the state after it is not made."""
    seen = F.pad(x.transpose(1, 2), (conv.past, 0))
    y = F.conv1d(seen, conv.weight.t()[:, None], conv.bias, groups=conv.channels)
    return y.transpose(1, 2), x.new_zeros(0)


# ------------------------------------------------------------------------------------------ products


def products(sizes: Sizes) -> Rates:
    """GFLOP/s, in turns, of large products by type, of an `M` layer, forward and backward, and of that
    layer's products alone."""
    works = {name: large_product(sizes.product, dtype) for name, dtype in DTYPES.items()}
    works |= {"layer": mlp_layer(sizes), "products": mlp_products(sizes)}
    for _, work in works.values():
        work()  # kernels are made at the first call
    rates: Rates = {name: [] for name in works}
    for _ in range(4 * sizes.rounds):
        for name, (flops, work) in works.items():
            rates[name].append(flops / seconds(work) / 1e9)
    return rates


Work = tuple[float, Callable[[], object]]  # its FLOPs, and how to do it


def large_product(size: tuple[int, int, int], dtype: torch.dtype) -> Work:
    """(n, k) times (k, m) in a type."""
    n, k, m = size
    a, b = torch.randn(n, k).to(dtype), torch.randn(k, m).to(dtype)
    return 2.0 * n * k * m, lambda: a @ b


def mlp(sizes: Sizes) -> tuple[float, Block]:
    """The residual block of an `M` layer and its FLOPs, forward and backward, as `layer_cost` has them."""
    (layer,), size = Pattern.parse("M").layers, preset(sizes.preset)
    flops = 3 * layer_cost(layer, size, sizes.length).flops_per_token * sizes.tokens
    return flops, Block(make_primitive(layer, size.width, size), size.width)


def mlp_layer(sizes: Sizes) -> Work:
    """An `M` layer with its norm and residual, as training runs it."""
    flops, block = mlp(sizes)
    x = torch.randn(sizes.batch, sizes.length, preset(sizes.preset).width, requires_grad=True)
    gradient = torch.randn_like(x)

    def work() -> None:
        x.grad = None
        block.zero_grad()
        with autocast("bf16", x.device):
            y, _ = block(x)
        y.backward(gradient)

    return flops, work


def mlp_products(sizes: Sizes) -> Work:
    """The six products of an `M` layer, forward and backward, in bf16 with nothing between them."""
    flops, block = mlp(sizes)
    up, down = (weight.detach().bfloat16() for weight in block.primitive.parameters())
    x, h = (torch.randn(sizes.tokens, weight.shape[1]).bfloat16() for weight in (up, down))

    def work() -> None:
        F.linear(x, up)  # (tokens, hidden)
        y = F.linear(h, down)  # (tokens, width)
        for given, gradient, weight in ((x, h, up), (h, y, down)):
            gradient @ weight  # the gradient of what was given
            gradient.t() @ given  # and that of the weight

    return flops, work


def seconds(work: Callable[[], object]) -> float:
    """Seconds of the processor that a call takes: those of the clock for one thread on a free core, and
    what else runs on a shared machine is not counted."""
    start = time.process_time()
    work()
    return time.process_time() - start


# ------------------------------------------------------------------------------------ one evaluation


def split(job: Job) -> dict[str, Any]:
    """The stages of one evaluation whose data are not drawn yet."""
    drawn.cache_clear()
    with watched() as stages:
        evaluate(job)
    whole = sum(stages.seconds.values())
    return {
        "pattern": job.pattern,
        "preset": job.preset,
        "profile": job.profile,
        "seconds": whole,
        "shares": {stage: taken / whole for stage, taken in stages.seconds.items()},
    }


def main() -> None:
    """The command line of `python -m evaluator.bench`."""
    parser = argparse.ArgumentParser("python -m evaluator.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny: the figures mean nothing")
    print(json.dumps(bench(QUICK if parser.parse_args().quick else FULL)))


if __name__ == "__main__":
    main()
