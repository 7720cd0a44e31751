"""Check 3: finite outputs and gradients in fp32 and bf16, for large and tiny inputs; no dead parameter."""

from __future__ import annotations

import torch
from torch import Tensor

from sandbox.contract import Broken
from sandbox.gate.certificate import Finding
from sandbox.gate.errands import Call
from sandbox.gate.subject import Answer, Subject

SIZES = {"normal": 1.0, "large": 100.0, "tiny": 1e-3}
SHAPE = (4, 40)


def check(subject: Subject) -> Finding:
    """Pass where all is finite and every parameter has a gradient at inputs of unit size. Raises Broken."""
    shape = (*SHAPE, subject.terms.width)
    x = subject.normal(3, *shape)
    inputs = {name: x * size for name, size in SIZES.items()}
    calls = [
        Call(f"{name}{' bf16' if bf16 else ''}", "backward", name, True, bf16)
        for name in SIZES
        for bf16 in (False, True)
    ]
    answer = subject.ask(calls, inputs)
    for call in calls:
        _finite(answer, call.name, shape)
    names, sizes = _parameters(answer)
    dead = [name for name, size in zip(names, sizes.tolist(), strict=True) if size <= 0]
    if dead:
        return Finding("fail", f"no gradient reaches {', '.join(dead)}: use or remove them")
    return Finding(
        "pass",
        f"finite at input sizes {', '.join(f'{s:g}' for s in SIZES.values())} in fp32 and bf16; "
        f"gradients reach all {len(names)} parameters",
    )


def _finite(answer: Answer, name: str, shape: tuple[int, int, int]) -> None:
    fine = torch.isfinite
    for key, what in ((name, "output"), (f"{name}.x", "input's gradient")):
        if not fine(answer.y(key, shape)).all():
            raise Broken(f"{name} inputs: the {what} is not finite")
    names, sizes = _parameters(answer, name)
    bad = [n for n, size in zip(names, sizes, strict=True) if not fine(size)]
    if bad:
        raise Broken(f"{name} inputs: the gradient of {', '.join(bad)} is not finite")


def _parameters(answer: Answer, call: str = "normal") -> tuple[list[str], Tensor]:
    """The parameters' names and the largest size of each one's gradient."""
    names = answer.fact(call)
    if not isinstance(names, list):
        raise Broken(f"{call}: no list of parameters came back")
    return [str(name) for name in names], answer.y(f"{call}.p", (len(names),))
