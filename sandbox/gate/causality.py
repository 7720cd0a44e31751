"""Check 4: no output depends on a later token: by replacement, by gradient, and by running a prefix alone.

The three passes that are compared run in processes that know nothing of each other; a module that
remembers what it saw cannot make them agree.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sandbox.contract import Broken
from sandbox.gate.certificate import Finding, worst
from sandbox.gate.errands import Call
from sandbox.gate.passes import (
    BATCH,
    LENGTHS,
    MODES,
    all_calls,
    call,
    cases,
    cuts,
    inputs,
    shape,
    whole,
)
from sandbox.gate.subject import Answer, Subject, apart

EVALUATING = tuple(mode for mode in MODES if not mode.training)
POSITIONS = (0, 5, 40, 62)  # of the outputs whose gradient is taken, at length 64
GRADIENT = 1e-5  # of the largest gradient: what an FFT's round-off makes of nothing (docs/log.md)


def check(subject: Subject) -> Finding:
    """Pass where later tokens change nothing beyond round-off. Raises Broken."""
    changed = {name: _changed(subject, x) for name, x in inputs(subject).items()}
    other = subject.ask([*all_calls(), *_gradients()], changed)
    return worst([replaced(subject, other), prefix(subject), gradient(other)])


def replaced(subject: Subject, other: Answer) -> Finding:
    """In each row other tokens after a random cut, each row its own kind of other: the same before it."""
    found = []
    for mode, length, name in cases():
        a, b = (answer.y(name, shape(subject, length)) for answer in (whole(subject), other))
        for i, t in enumerate(cuts(subject, length).tolist()):
            gap = apart(b[i, : t + 1], a[i, : t + 1], of=a[i])
            found.append((gap / mode.allowed, gap, mode, length, t))
    share, gap, mode, length, t = max(found, key=lambda one: one[0])
    where = f"after position {t} of {length} ({mode.name})"
    if share > 1:
        return Finding(
            "fail",
            f"replacing tokens {where} changes an output up to there by {gap:.2g} of its size: the "
            "future leaks into the past",
        )
    return Finding("pass", f"replaced tokens: {share:.1e} of what is allowed")


def _changed(subject: Subject, x: Tensor) -> Tensor:
    """Rows whose tokens after the cut are drawn anew, larger, zero, shuffled, negated, or all the same."""
    x, length = x.clone(), x.shape[1]
    fresh = subject.normal(2000 + length, *x.shape)
    for i, t in enumerate((cuts(subject, length) + 1).tolist()):
        rest = x[i, t:]
        kinds = (fresh[i, t:], 5 * fresh[i, t:], 0 * rest, rest.flip(0), -rest, rest[:1] + 0 * rest)
        x[i, t:] = kinds[i % len(kinds)]
        if length - t == 1 and i % len(kinds) in (3, 5):  # one token has no other order
            x[i, t:] = fresh[i, t:]
    return x


def prefix(subject: Subject) -> Finding:
    """The prefix of a row alone, in a process of its own, equals the full pass there.

    In evaluation only: in training a dropout's mask depends on the shape.
    """
    xs, calls, alone = inputs(subject), [], {}
    places = [(n, i) for n in LENGTHS for i in range(0, BATCH, 2)]
    for n, i in places:
        key = f"{n} row {i}"
        alone[key] = xs[str(n)][i : i + 1, : int(cuts(subject, n)[i]) + 1]
        calls += [call(mode, key) for mode in EVALUATING]
    answer, share = subject.ask(calls, alone), 0.0
    for n, i in places:
        for mode in EVALUATING:
            key = f"{n} row {i}"
            a = answer.y(f"{mode.name} {key}", alone[key].shape)
            b = whole(subject).y(f"{mode.name} {n}", shape(subject, n))[i : i + 1]
            gap = apart(a, b[:, : a.shape[1]], of=b)
            if gap > mode.allowed:
                raise Broken(
                    f"the first {a.shape[1]} of {n} tokens alone ({mode.name}) give outputs that differ by "
                    f"{gap:.2g} of their size from those of all {n}: make an output depend on nothing "
                    "after it, the length included"
                )
            share = max(share, gap / mode.allowed)
    return Finding("pass", f"prefix alone: {share:.1e} of what is allowed")


def _gradients() -> list[Call]:
    return [
        Call(f"gradient {mode.name}", "gradient", "64", mode.training, False, POSITIONS)
        for mode in MODES[:2]
    ]


def gradient(answer: Answer) -> Finding:
    """The gradient of an output to the inputs after it is zero, in both modes."""
    largest = 0.0
    for one in _gradients():
        grads = answer.y(one.name, (len(POSITIONS), BATCH, 64))
        later = torch.stack([g[:, t + 1 :].max() for g, t in zip(grads, POSITIONS, strict=True)])
        share = (later / grads.amax((1, 2)).clamp_min(1e-12)).max().item()
        if not share <= GRADIENT:
            return Finding(
                "fail", f"{one.name}: {share:.2g} of an output's gradient is at later inputs"
            )
        largest = max(largest, share)
    return Finding("pass", f"gradient to later inputs: {largest:.1e} (allowed {GRADIENT:g})")
