"""Where the seconds of an evaluation go: data, forward, backward, optimiser, scoring, rest.

Watches `evaluate` from outside, by wrappers and a hook that last as long as the context; what is watched
knows nothing of it, and its scores keep their bits. For CPUs only: on CUDA a stage ends when its work is
launched, not when it is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

import evaluator.evaluate
import evaluator.train
from search_space.model import Model

STAGES = ("data", "forward", "backward", "optimiser", "scoring", "rest")


class Stages:
    """A stopwatch that is always in one stage, so that ``seconds`` by stage add up to the whole."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.stage, self.since = "rest", time.perf_counter()

    def enter(self, stage: str) -> str:
        """Go over to a stage; returns the one that it ends."""
        now, before = time.perf_counter(), self.stage
        self.seconds[before] += now - self.since
        self.stage, self.since = stage, now
        return before

    def timed(
        self, stage: str, work: Callable[..., Any], then: str | None = None
    ) -> Callable[..., Any]:
        """``work`` as a stage; after it comes ``then``, by default what was before it."""

        def run(*args: Any, **more: Any) -> Any:
            before = self.enter(stage)
            try:
                return work(*args, **more)
            finally:
                self.enter(then or before)

        return run


@contextmanager
def watched() -> Iterator[Stages]:
    """Times the stages of whatever is evaluated in this thread within the context.

    Forward is from the model's call to the backward pass, so it holds the loss; the optimiser's stage
    starts where that ends and holds clipping. Data is drawing the splits and gathering batches.
    """
    stages = Stages()

    def forward(model: Model, tokens: Tensor) -> Tensor:
        if stages.stage != "scoring":
            stages.enter("forward")
        return model_forward(model, tokens)

    def gathered(*args: Any, **more: Any) -> Iterator[Any]:
        going = batches(*args, **more)
        return iter(stages.timed("data", lambda: next(going, None)), None)

    def stepped(*_: Any) -> None:
        stages.enter("rest")

    model_forward, batches = Model.forward, evaluator.train.batches
    drawn = stages.timed("data", evaluator.evaluate.drawn)
    score = stages.timed("scoring", evaluator.evaluate.score)
    backward = stages.timed("backward", Tensor.backward, then="optimiser")
    with ExitStack() as undo:
        undo.enter_context(patch.object(evaluator.train, "batches", gathered))
        undo.enter_context(patch.object(evaluator.evaluate, "drawn", drawn))
        undo.enter_context(patch.object(evaluator.evaluate, "score", score))
        undo.enter_context(patch.object(Model, "forward", forward))
        undo.enter_context(patch.object(Tensor, "backward", backward))
        undo.callback(register_optimizer_step_post_hook(stepped).remove)
        yield stages
    stages.enter("rest")
