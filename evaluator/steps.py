"""How optimiser steps are launched: one after another, or on CUDA as replays of one captured step.

Small models on a GPU wait for Python more than for the device; a replay is one launch for the whole
step. Knows no model, task or schedule: what a step computes is `evaluator.train.train_step`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

Step = Callable[[Tensor, Tensor], Tensor]  # inputs and labels (B, L) to the loss before the step
Launch = Callable[[], object]

WARMUP = 3  # steps before the capture: libraries and the optimiser's state come up in them


def cuda_graph(step: Launch) -> Launch:
    """Capture a step on the current stream, without running it. Raises RuntimeError."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    # The outer context: torch's own does not give the stream back when the end of a capture raises.
    with torch.cuda.stream(stream), torch.cuda.graph(graph, stream=stream):
        step()
    return graph.replay


class Eager:
    """Steps launched one after another."""

    reason = ""  # as in `Graphed`: no graph was asked for, so none was refused

    def __init__(self, step: Step, optimiser: Optimizer) -> None:
        self._step, self._optimiser = step, optimiser

    def __call__(self, inputs: Tensor, labels: Tensor, rate: float) -> Tensor:
        """Take a step on inputs and labels (B, L) at a learning rate; returns the loss before it."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        return self._step(inputs, labels)


class Graphed:
    """The same steps, from the fourth on as replays of one CUDA graph of the whole step.

    All batches must have one shape. The first steps count like any other and a capture runs nothing,
    so the weights go the way of `Eager`, but for a rate in single precision. A step that waits for the
    device, or whose capture fails, is launched eagerly to the end, and ``reason`` says why. ``capture``
    turns a launch into its replay: tests without a GPU bring their own. Call it in `side_stream`.
    """

    def __init__(
        self,
        step: Step,
        optimiser: Optimizer,
        device: torch.device,
        capture: Callable[[Launch], Launch] = cuda_graph,
    ) -> None:
        self.reason = ""
        self._step, self._optimiser, self._capture = step, optimiser, capture
        self._rate, self._loss = torch.zeros((), device=device), torch.zeros((), device=device)
        self._replay: Launch | None = None
        self._taken = 0
        # A restored optimiser has the settings that it was saved with.
        self._set(lr=self._rate, capturable=False)

    def __call__(self, inputs: Tensor, labels: Tensor, rate: float) -> Tensor:
        """Take a step on inputs and labels (B, L) at a learning rate; returns the loss before it."""
        if not self._taken:
            self._inputs, self._labels = torch.empty_like(inputs), torch.empty_like(labels)
        self._inputs.copy_(inputs)
        self._labels.copy_(labels)
        self._rate.fill_(rate)
        self._launch()
        self._taken += 1
        return self._loss.clone()

    def _launch(self) -> None:
        if self._taken == WARMUP and not self.reason:
            self._record()
        if self._replay is not None:
            self._replay()
        elif self._taken == WARMUP - 1:
            self.reason = waits(self._static)
        else:
            self._static()

    def _static(self) -> None:
        """A step that reads and writes the same memory each time."""
        self._loss.copy_(self._step(self._inputs, self._labels))

    def _record(self) -> None:
        self._set(capturable=True)  # not before: torch warns when such an optimiser steps eagerly
        try:
            self._replay = self._capture(self._static)
        except RuntimeError as error:  # what torch raises for all that cannot be captured
            self.reason = f"not captured: {(str(error) or type(error).__name__).splitlines()[0]}"
        self._set(capturable=False)

    def _set(self, **settings: object) -> None:
        for group in self._optimiser.param_groups:
            group.update(settings)


def waits(step: Launch) -> str:
    """Run a step and say where it made Python wait for the device; empty when nowhere.

    Such a step cannot be captured, and is better not tried: after a failed capture torch up to 2.13
    keeps the memory of the attempt, and up to 2.11 believes it to go on (pytorch/pytorch 180395, 190308).
    """
    if not torch.cuda.is_available():
        step()
        return ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found = [w for w in caught if "called a synchronizing CUDA operation" in str(w.message)]
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in found]
    return f"waits for the device at {places[0]}" if places else ""


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """On CUDA a stream other than the default, which cannot be captured; on the CPU nothing."""
    if device.type != "cuda":
        yield
        return
    main, side = torch.cuda.current_stream(device), _stream(device)
    side.wait_stream(main)
    try:
        with torch.cuda.stream(side):
            yield
    finally:  # after a failure too: what is freed now must not be used again before the work is done
        main.wait_stream(side)


@lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for each process: the allocator keeps memory apart by stream."""
    return torch.cuda.Stream(device)
