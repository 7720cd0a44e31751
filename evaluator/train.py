"""Trains one model on one task's training split: AdamW, a schedule, clipping, a budget.

Bit-reproducible on one CPU machine at a fixed thread count: the seed fixes initialisation and data
order. It scores nothing (`evaluator.evaluate` does) and never reads validation or test data. How a
step is launched on a GPU is in `evaluator.steps`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluator.outcome import CandidateFailure, FailureKind, Spent
from evaluator.steps import Eager, Graphed, side_stream
from evaluator.tasks.base import IGNORE, Split
from search_space.model import Model
from search_space.primitives.moe import MixtureOfExperts

DIVERGED = 10.0  # times ln(vocabulary), the loss of a model that knows nothing
BALANCE = 0.01  # weight of the experts' load-balance loss: Switch Transformers (2101.03961, eq. 4)
CHECK_EVERY = 50  # steps on CUDA, where looking at a loss waits for the device


@dataclass(frozen=True)
class Training:
    """How a profile trains.

    ``steps`` and ``seconds`` are budgets: the first reached ends training; ``seconds`` makes a score
    depend on the machine, so profiles leave it unset. ``epochs`` states the steps in passes over the
    training split, with ``steps`` = 0. Raises ValueError for impossible settings.
    """

    steps: int
    batch: int
    lr: float
    epochs: int = 0
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    clip: float = 1.0
    dtype: Literal["fp32", "bf16"] = "fp32"
    seconds: float | None = None

    def __post_init__(self) -> None:
        one = (self.steps > 0) != (self.epochs > 0) and min(self.steps, self.epochs) == 0
        self._require(
            one, "steps or epochs, one of them, must be positive", (self.steps, self.epochs)
        )
        self._require(self.batch >= 1, "batch must be at least 1", self.batch)
        self._require(self.lr > 0, "lr must be positive", self.lr)
        self._require(
            self.weight_decay >= 0, "weight_decay must not be negative", self.weight_decay
        )
        self._require(self.clip > 0, "clip must be positive", self.clip)
        ok = self.warmup >= 0 and (self.warmup < self.steps or not self.steps)
        self._require(ok, f"warmup must be from 0 to below steps = {self.steps}", self.warmup)

    def _require(self, ok: bool, rule: str, value: object) -> None:
        if not ok:
            raise ValueError(f"training: {rule}, not {value!r}; change the profile.")

    def of(self, rows: int) -> Training:
        """The same with its epochs turned into steps, for a training split of so many rows."""
        if not self.epochs:
            return self
        return replace(self, steps=max(1, round(self.epochs * rows / self.batch)), epochs=0)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * progress))

    def until(self, share: Fraction) -> int:
        """The step at which this share of the training is done, at least 1."""
        return math.ceil(self.steps * share)


def adamw(model: nn.Module, training: Training) -> torch.optim.AdamW:
    """The optimiser of a training that has not begun."""
    return torch.optim.AdamW(
        model.parameters(), lr=training.lr, weight_decay=training.weight_decay, fused=True
    )


def train(
    model: nn.Module,
    split: Split,
    training: Training,
    seed: int,
    vocab: int,
    deadline: float | None = None,
    optimiser: torch.optim.Optimizer | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Spent:
    """Train in place and return what it took, FLOPs left at zero (the caller knows the model's cost).

    A part of a training goes from step ``start`` up to step ``stop``, by default to its end, with the
    rates and the data of the whole: parts that hand on model and ``optimiser`` give the bits of one
    straight run. ``deadline`` is a time of `time.perf_counter`; a budget of seconds bounds each part.
    Raises CandidateFailure (nan, diverged, timeout), on CUDA up to `CHECK_EVERY` - 1 steps after the
    one it is about.
    """
    optimiser = optimiser or adamw(model, training)
    stop = training.steps if stop is None else stop
    began, step, tokens = time.perf_counter(), start, 0
    device = split.inputs.device
    take = launcher(model, optimiser, training, device)
    losses = Losses(vocab, CHECK_EVERY if device.type == "cuda" else 1, start)
    model.train()
    with side_stream(device):
        for inputs, labels in batches(split, training.batch, stop, seed, start):
            losses.add(take(inputs, labels, training.rate(step)))
            step, tokens, now = step + 1, tokens + inputs.numel(), time.perf_counter()
            if deadline is not None and now > deadline:
                raise CandidateFailure(FailureKind.TIMEOUT, f"out of time after {step} steps")
            if training.seconds is not None and now - began >= training.seconds:
                break
        losses.check()
    return Spent(step - start, tokens, 0.0, time.perf_counter() - began, take.reason)


def launcher(
    model: nn.Module, optimiser: torch.optim.Optimizer, training: Training, device: torch.device
) -> Eager | Graphed:
    """What takes the steps of a training: one by one on the CPU, on CUDA from a graph."""
    experts = any(isinstance(module, MixtureOfExperts) for module in model.modules())
    step = partial(train_step, model, optimiser, training=training, experts=experts)
    return Graphed(step, optimiser, device) if device.type == "cuda" else Eager(step, optimiser)


def train_step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    training: Training,
    experts: bool = True,
) -> Tensor:
    """One optimiser step on a batch (B, L); returns the task's loss before it, the balance left out.

    ``experts`` is False for a model without any, which spares the search for them.
    """
    with autocast(training.dtype, inputs.device):
        logits = model(inputs)
    loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
    optimiser.zero_grad(set_to_none=True)
    (loss + balance(model) if experts else loss).backward()
    nn.utils.clip_grad_norm_(model.parameters(), training.clip)
    optimiser.step()
    return loss.detach()


def balance(model: nn.Module) -> Tensor | float:
    """What the latest forward pass adds to the loss so that experts share the load; 0 without an `E`."""
    return BALANCE * model.balance_loss() if isinstance(model, Model) else 0.0


def autocast(dtype: str, device: torch.device) -> torch.autocast:
    """bf16 autocast, or none for fp32.

    On CUDA without its cache of cast weights, which must not reach into or out of a captured step.
    """
    cached = device.type != "cuda"
    return torch.autocast(device.type, torch.bfloat16, dtype == "bf16", cache_enabled=cached)


class Losses:
    """Checks training losses ``every`` so many steps, from step ``start`` on, since to look is to wait."""

    def __init__(self, vocab: int, every: int, start: int = 0) -> None:
        self._vocab, self._every, self._first = vocab, every, start
        self._pending: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """Take the next step's loss. Raises CandidateFailure as `check` does."""
        self._pending.append(loss)
        if len(self._pending) == self._every:
            self.check()

    def check(self) -> None:
        """Look at the losses since the last time. Raises CandidateFailure for the first bad one."""
        losses = torch.stack(self._pending).tolist() if self._pending else []
        for step, loss in enumerate(losses, self._first):
            check_loss(loss, self._vocab, step)
        self._first += len(losses)
        self._pending.clear()


def check_loss(loss: float, vocab: int, step: int) -> None:
    """Raise CandidateFailure when a training loss is not finite or has run away."""
    if not math.isfinite(loss):
        raise CandidateFailure(FailureKind.NAN, f"training loss {loss} at step {step}")
    if loss > DIVERGED * math.log(vocab):
        raise CandidateFailure(
            FailureKind.DIVERGED,
            f"training loss {loss:.3g} at step {step} is over {DIVERGED:g} x ln({vocab})",
        )


def batches(
    split: Split, size: int, steps: int, seed: int, start: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """``steps`` batches of ``size`` rows: epoch after epoch, each in an order drawn from the seed.

    The first ``start`` of them are left out: drawn like the others, but not gathered.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, device = len(split.inputs), split.inputs.device
    size = min(size, rows)
    order = torch.empty(0, dtype=torch.int64, device=device)
    for step in range(steps):
        if len(order) < size:  # the rest of an epoch opens the next one, so no row is left out
            # The order is the CPU's everywhere; from pinned memory the copy waits for nothing.
            epoch = torch.randperm(rows, generator=generator, pin_memory=device.type == "cuda")
            order = torch.cat((order, epoch.to(device, non_blocking=True)))
        index, order = order[:size], order[size:]
        if step >= start:
            inputs, labels = (t.index_select(0, index) for t in (split.inputs, split.labels))
            yield inputs.long(), labels.long()
