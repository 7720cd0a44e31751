"""What a dry run counts for written modules: their own model, and each rung from the start."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from archwright.estimate import probed, search
from archwright.recipe import Recipe, parse
from evaluator.rungs import most


def recipe(kind: str, **changes: Any) -> Recipe:
    plain = {"name": "x", "kind": kind, "agents": [{"name": "g", "proposer": "grammar"}]}
    return parse(plain | {"budget": {"evaluations": 9}} | changes)


@pytest.mark.parametrize(
    ("text", "found"), [("3(X+M)", "3(A+M)"), ("2*(X+M)+Mb", "2*(A+M)+Mb"), ("X", "A")]
)
def test_the_model_that_is_timed_is_the_modules_with_attention_in_it(text: str, found: str) -> None:
    space = {"primitives": ["Mb"], "layers": 5}
    module = {"module": {"pattern": text}, "space": space}
    assert str(probed(recipe("module", **module))) == found
    assert str(probed(recipe("composition", **module))) == "5Mb"


def test_written_code_is_trained_from_the_start_at_each_rung() -> None:
    """Rungs at a third and in full, of 9 candidates and of those that go on."""
    rungs, on = {"rungs": {"count": 2, "eta": 3}}, most(9, 3)
    third = Fraction(1, 3)
    assert search(recipe("composition", **rungs)) == (9 + on, 9 * third + on * (1 - third))
    assert search(recipe("module", **rungs)) == (9 + on, 9 * third + on)
