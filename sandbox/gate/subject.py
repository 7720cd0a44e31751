"""The candidate under examination: asks it, each time in a fresh process, and compares what comes back.

Everything here runs outside the sandbox; a candidate is met only through the tensors that it returns.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sandbox.contract import FILE, Broken, short
from sandbox.gate.errands import Build, Call, Errand, Said
from sandbox.gate.inside import ERRAND, OUTPUTS, SAID
from sandbox.limits import Limits
from sandbox.results import File
from sandbox.run import Ended, Outcome, Sandbox
from search_space.primitives import Cost

LIMITS = Limits(memory_bytes=2 << 30, output_bytes=1 << 16)
RESULTS = (File(OUTPUTS, "safetensors", 64 << 20), File(SAID, "json", 1 << 20))
TASK = "sandbox.gate.inside:run"


@dataclass(frozen=True)
class Budget:
    """What a campaign gives a mixer: the size at which it is measured, and what it may cost there.

    ``params`` and ``flops_per_token`` are upper bounds, each with the relative ``tolerance``.
    """

    width: int
    length: int
    params: int
    flops_per_token: float
    tolerance: float = 0.05


@dataclass(frozen=True)
class Known:
    """A mixer that is there already: its name and its prints (`sandbox.gate.copies`)."""

    name: str
    structure: str = ""
    behaviour: tuple[float, ...] = ()


@dataclass(frozen=True)
class Terms:
    """What a campaign asks of a mixer, and the toy sizes at which it is examined.

    ``max_cost`` is linear, nlogn or quadratic; each process has ``seconds``. ``seed`` draws inputs and cuts.
    By default it comes of the source, so that anyone finds the same again; a campaign gives one that no
    candidate knows.
    """

    width: int = 32
    max_len: int = 96
    max_cost: str = "quadratic"
    budget: Budget | None = None
    known: tuple[Known, ...] = ()
    seed: int | None = None
    seconds: float = 30.0


@dataclass(frozen=True, eq=False)
class Answer:
    """What one process said, validated as far as it was asked for."""

    said: Said
    outputs: Mapping[str, Tensor] = field(default_factory=dict)

    def fact(self, name: str) -> Any:
        """What a call said beside its tensors. Raises Broken."""
        self._came(name)
        return self.said.facts.get(name)

    def y(self, name: str, shape: Sequence[int]) -> Tensor:
        """The output of a call, of this shape, in double precision. Raises Broken."""
        self._came(name.partition(".")[0])
        value = self.outputs.get(name)
        if value is None:
            raise Broken(f"{name}: no output came back")
        if tuple(value.shape) != tuple(shape) or value.dtype != torch.float32:
            raise Broken(f"{name}: an output of shape {tuple(value.shape)}, not {tuple(shape)}")
        return value.double()

    def _came(self, name: str) -> None:
        if self.said.error:
            raise Broken(short(self.said.error))
        if name in self.said.errors:
            raise Broken(f"{name}: {short(self.said.errors[name])}")


class Subject:
    """A candidate's source with the sandbox it may run in and the terms it is examined under."""

    def __init__(self, source: str, sandbox: Sandbox, terms: Terms) -> None:
        self.source, self.sandbox, self.terms = source, sandbox, terms
        self.level = ""
        self.hung = False  # a process of it ran out of time, and so would the next
        self.whole: Answer | None = None  # `sandbox.gate.passes`
        self.behaviour: tuple[float, ...] | None = None  # `sandbox.gate.copies`
        self.cost: Cost | None = None  # `sandbox.gate.cost`

    @cached_property
    def seed(self) -> int:
        """Of everything drawn for this candidate."""
        if self.terms.seed is not None:
            return self.terms.seed
        return int.from_bytes(hashlib.sha256(self.source.encode()).digest()[:4], "big")

    def generator(self, purpose: int) -> torch.Generator:
        """A stream of numbers for one purpose."""
        return torch.Generator().manual_seed(self.seed + purpose)

    def normal(self, purpose: int, *shape: int) -> Tensor:
        """Standard normal numbers for one purpose."""
        return torch.randn(shape, generator=self.generator(purpose))

    def ask(self, calls: Sequence[Call], inputs: Mapping[str, Tensor], **build: Any) -> Answer:
        """What a fresh process answers to these calls."""
        terms = self.terms
        sizes = {"width": terms.width, "max_len": terms.max_len}
        errand = Errand(Build(**{**sizes, **build}), tuple(calls), dict(inputs))
        files = {FILE: self.source.encode(), ERRAND: pickle.dumps(errand)}
        limits = replace(LIMITS, wall_seconds=terms.seconds, cpu_seconds=terms.seconds)
        ended = self.sandbox.run(TASK, files, RESULTS, limits)
        self.level = ended.level
        self.hung = self.hung or ended.outcome in (Outcome.TIMEOUT, Outcome.CPU)
        return answer_of(ended)


def answer_of(ended: Ended) -> Answer:
    """The answer of a run, also of one that ended badly or wrote something else than was asked."""
    if ended.outcome is not Outcome.OK:
        return Answer(Said(error=f"the process ended: {ended.outcome} {ended.detail}".strip()))
    try:
        said = Said(**ended.files[SAID])
        sound = all(isinstance(part, dict) for part in (said.facts, said.errors))
        sound = sound and isinstance(said.tampered, list | tuple)
    except TypeError:
        sound = False
    if not sound:
        return Answer(Said(error="the process wrote no answer of ours"))
    return Answer(said, ended.files[OUTPUTS])


def apart(a: Tensor, b: Tensor, of: Tensor | None = None) -> float:
    """The largest difference relative to the size (root mean square) of b, or of what it is part of; 0
    for two zeros."""
    difference = (a - b).abs().max().item() if a.numel() else 0.0
    if difference == 0:
        return 0.0
    size = (b if of is None else of).square().mean().sqrt().item()
    return difference / size if size and difference == difference else float("inf")
