"""Checks 8 and 9: how work and memory grow with the length, and what a mixer costs against the budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from sandbox.contract import Broken
from sandbox.gate.certificate import Finding
from sandbox.gate.decoding import state_bytes
from sandbox.gate.errands import Call
from sandbox.gate.subject import Answer, Subject
from sandbox.gate.work import Work
from search_space.primitives import Cost

SHORT, WIDTH = 128, 16  # measured at 128, 256 and 512 tokens
ALLOWED = ("linear", "nlogn", "quadratic")  # what a campaign may allow
CLASSES = (*ALLOWED, "more than quadratic")
# The share of the work at 4 L that grows as L squared, by a parabola through the three points. L log L
# alone has .17, with projections beside it less; a quadratic term that reaches .3 there is half at 10 L.
SHARES = {"linear": 0.03, "nlogn": 0.2}
STEEPEST = 4.6  # growth from 2 L to 4 L; a square has 4


def scaling(subject: Subject) -> Finding:
    """Pass where neither work nor memory grows faster than the terms allow. Raises Broken."""
    lengths = (SHORT, 2 * SHORT, 4 * SHORT)
    inputs = {str(n): subject.normal(n, 1, n, WIDTH) for n in lengths}
    calls = [Call(name, "work", name, True) for name in inputs]
    answer = subject.ask(calls, inputs, width=WIDTH, max_len=4 * SHORT)
    works = [work_of(answer, name) for name in inputs]
    work, memory = [w.flops + w.elements for w in works], [w.saved for w in works]
    found = max((growth(work), growth(memory)), key=CLASSES.index)
    said = (
        f"work {', '.join(f'{n:,}' for n in work)} ({growth(work)}) and memory kept for training "
        f"{', '.join(f'{n:,}' for n in memory)} bytes ({growth(memory)}) at lengths "
        f"{', '.join(map(str, lengths))}"
    )
    if CLASSES.index(found) > CLASSES.index(subject.terms.max_cost):
        return Finding("fail", f"{said}; allowed is {subject.terms.max_cost}")
    return Finding("pass", said)


def growth(costs: Sequence[int]) -> str:
    """The class of costs measured at L, 2 L and 4 L."""
    one, two, four = costs
    if not four:
        return "linear"
    curvature = (four - 3 * two + 2 * one) / 6  # times L squared
    share = 16 * curvature / four
    if four > STEEPEST * two:
        return "more than quadratic"
    return next((name for name, most in SHARES.items() if share <= most), "quadratic")


def work_of(answer: Answer, name: str) -> Work:
    """The work that a call counted. Raises Broken."""
    fact = answer.fact(name)
    try:
        work = Work(**fact)
        sound = all(isinstance(n, int) and n >= 0 for n in (work.flops, work.elements, work.saved))
    except TypeError:
        sound = False
    if not sound:
        raise Broken(f"{name}: no count of its work came back")
    return work


def budget(subject: Subject) -> Finding:
    """Pass where parameters and FLOPs per token at the campaign's size are within its budget."""
    allowed = subject.terms.budget
    if allowed is None:
        return Finding("skip", "no budget was given")
    x = subject.normal(5, 2, allowed.length, allowed.width)
    calls = [Call("weights", "weights"), Call("work", "work", "one", training=True)]
    calls += [Call("steps", "step"), Call("steps of one", "step", "one")]
    sizes = {"width": allowed.width, "max_len": allowed.length}
    answer = subject.ask(calls, {"x": x, "one": x[:1]}, **sizes)
    flops = work_of(answer, "work").flops / allowed.length
    params = elements(answer, "weights")
    subject.cost = cost_of(params, flops, state(answer, allowed.length * allowed.width))
    said = (
        f"{params:,} weights of {allowed.params:,}, {flops:,.0f} FLOPs a token of "
        f"{allowed.flops_per_token:,.0f}"
    )
    most = 1 + allowed.tolerance
    if params > most * allowed.params or flops > most * allowed.flops_per_token:
        return Finding("fail", f"{said}: over the budget at width {allowed.width}, make it smaller")
    return Finding("pass", said)


def state(answer: Answer, inputs: int) -> int:
    """Elements, of four bytes, that decoding keeps for a sequence; without `step` those are its inputs.

    Raises Broken.
    """
    two, one = answer.fact("steps"), answer.fact("steps of one")
    return inputs if two is None else -(-state_bytes(two, one) // 4)


def cost_of(params: int, flops: float, kept: int) -> Cost:
    """As a primitive states it; a step of decoding is taken to work as much as a token of a whole pass."""
    return Cost(params, flops, kept, flops, params + kept)


def elements(answer: Answer, call: str) -> int:
    """Elements of all tensors that a call returned: what a checkpoint can carry counts as a weight."""
    answer.fact(call)
    kept: list[Tensor] = [v for k, v in answer.outputs.items() if k.startswith(f"{call}.")]
    return sum(math.prod(value.shape) for value in kept)
