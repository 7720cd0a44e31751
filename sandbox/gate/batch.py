"""Check 5: a row's output does not depend on its neighbours in the batch, nor on there being any."""

from __future__ import annotations

from sandbox.contract import Broken
from sandbox.gate.certificate import Finding
from sandbox.gate.passes import (
    BATCH,
    EVAL,
    LENGTHS,
    all_calls,
    call,
    cases,
    inputs,
    shape,
    whole,
)
from sandbox.gate.subject import Subject, apart

KEPT = (0, 3, 4)  # rows; the others are replaced


def check(subject: Subject) -> Finding:
    """Pass where kept rows are unmoved by other neighbours, in every mode, and by having none."""
    xs, others = inputs(subject), [i for i in range(BATCH) if i not in KEPT]
    for n in LENGTHS:
        xs[str(n)][others] = 3 * subject.normal(3000 + n, len(others), n, subject.terms.width)
    answer, most = subject.ask(all_calls(), xs), 0.0
    for mode, length, name in cases():
        a, b = (one.y(name, shape(subject, length))[list(KEPT)] for one in (answer, whole(subject)))
        gap = apart(a, b)
        if gap > mode.allowed:
            raise Broken(
                f"{mode.name} at length {length}: with other neighbours in the batch a row's output "
                f"differs by {gap:.2g} of its size: compute each row from itself alone"
            )
        most = max(most, gap / mode.allowed)
    return Finding(
        "pass", f"other neighbours: {most:.1e} of what is allowed; alone: {alone(subject):.1e}"
    )


def alone(subject: Subject) -> float:
    """The largest difference of a row that is a batch of its own. Raises Broken beyond round-off."""
    rows = {str(n): inputs(subject)[str(n)][1:2] for n in LENGTHS}
    answer = subject.ask([call(EVAL, key) for key in rows], rows)
    gaps = [
        apart(
            answer.y(f"eval {n}", rows[n].shape),
            whole(subject).y(f"eval {n}", shape(subject, int(n)))[1:2],
        )
        for n in rows
    ]
    if max(gaps) > EVAL.allowed:
        raise Broken(
            f"a row alone differs by {max(gaps):.2g} of its size from the same row in a batch"
        )
    return max(gaps)
