"""Check 2: shapes at awkward batches, lengths and widths; a length beyond max_len fails cleanly or works."""

from __future__ import annotations

from itertools import product

import torch

from sandbox.contract import Broken
from sandbox.gate.certificate import Finding
from sandbox.gate.errands import Call
from sandbox.gate.subject import Answer, Subject

WIDTHS, BATCHES, LENGTHS = (16, 32, 48), (1, 3), (1, 2, 17, 64)


def check(subject: Subject) -> Finding:
    """Pass where every output has its input's shape and is finite. Raises Broken."""
    longest = subject.terms.max_len
    sizes = list(product(BATCHES, (*LENGTHS, longest)))
    for width in WIDTHS:
        inputs = {f"{b}x{n}": subject.normal(width + n, b, n, width) for b, n in sizes}
        inputs["beyond"] = subject.normal(width, 1, longest + 5, width)
        answer = subject.ask([Call(key, x=key) for key in inputs], inputs, width=width)
        for b, n in sizes:
            _finite(answer, f"{b}x{n}", (b, n, width))
        if "beyond" not in answer.said.errors:
            _finite(answer, "beyond", (1, longest + 5, width))
    return Finding(
        "pass",
        f"{len(sizes)} batches and lengths up to {longest} at widths {', '.join(map(str, WIDTHS))}; "
        f"length {longest + 5} is {'refused' if 'beyond' in answer.said.errors else 'taken'}",
    )


def _finite(answer: Answer, name: str, shape: tuple[int, int, int]) -> None:
    y = answer.y(name, shape)
    if not torch.isfinite(y).all():
        raise Broken(f"batch x length {name} at width {shape[2]}: the output is not finite")
