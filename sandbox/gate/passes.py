"""The forward passes that several checks compare, each in a process of its own, in every mode and type.

A rule that holds only for evaluation, only for training, only in one type or at one length is no rule, so
all of them are passed: lengths that are a multiple of every chunk, of none, and below any.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sandbox.gate.errands import Call
from sandbox.gate.subject import Answer, Subject, apart

BATCH, LENGTHS = 6, (90, 64, 11)

# Largest differences between two honest passes, relative to the output's size, that are still round-off:
# over the catalogue and 200 random modules the worst was a quarter of these (docs/log.md).
FP32, BF16 = 1e-4, 0.1


@dataclass(frozen=True)
class Mode:
    """How a mixer is called."""

    name: str
    training: bool
    bf16: bool

    @property
    def allowed(self) -> float:
        """The difference that round-off may make."""
        return BF16 if self.bf16 else FP32


MODES = (
    Mode("eval", False, False),
    Mode("train", True, False),
    Mode("bf16 eval", False, True),
    Mode("bf16 train", True, True),
)
EVAL, EARLY = MODES[0], "11 with an early change"


def call(mode: Mode, x: str, name: str = "") -> Call:
    """The forward call of an input in a mode."""
    return Call(name or f"{mode.name} {x}", "forward", x, mode.training, mode.bf16)


def all_calls() -> list[Call]:
    """Every length in every mode."""
    return [call(mode, str(length)) for length in LENGTHS for mode in MODES]


def cases() -> Iterator[tuple[Mode, int, str]]:
    """The mode, the length and the call's name of `all_calls`."""
    for length in LENGTHS:
        for mode in MODES:
            yield mode, length, f"{mode.name} {length}"


def inputs(subject: Subject) -> dict[str, Tensor]:
    """Standard normal inputs (6, L, D) for each length."""
    width = subject.terms.width
    return {str(n): subject.normal(n, BATCH, n, width) for n in LENGTHS}


def shape(subject: Subject, length: int) -> tuple[int, int, int]:
    """The shape of those inputs and of their outputs."""
    return BATCH, length, subject.terms.width


def whole(subject: Subject) -> Answer:
    """The passes over the inputs as they are, and one with other tokens before the last; made once."""
    if subject.whole is None:
        calls, xs = [*all_calls(), call(EVAL, EARLY)], inputs(subject)
        early = subject.normal(7, BATCH, 10, subject.terms.width)
        subject.whole = subject.ask(calls, {**xs, EARLY: torch.cat((early, xs["11"][:, -1:]), 1)})
    return subject.whole


def mixes(subject: Subject) -> bool:
    """Whether any output depends on an earlier token. Raises Broken."""
    a, b = (whole(subject).y(f"eval {x}", shape(subject, 11)) for x in ("11", EARLY))
    return apart(a[:, -1], b[:, -1]) > 1e-6


def cuts(subject: Subject, length: int) -> Tensor:
    """For each row a position, random from 0 to L - 2: (6)."""
    return torch.randint(length - 1, (BATCH,), generator=subject.generator(1000 + length))
