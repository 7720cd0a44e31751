"""Whether a run's protocol and data are still those that it began with. Reads, decides nothing else.

A run whose corpus, data set or profile has changed is neither resumed nor replayed: its scores would not
compare with those it has.
"""

from __future__ import annotations

from collections.abc import Mapping

from archwright.candidates import profile_label
from archwright.recipe import Recipe
from archwright.setup import profile_of


def check_unchanged(recipe: Recipe, label: str, facts: Mapping[str, str]) -> None:
    """Compare the profile's ``label`` and the ``facts`` of a run's data with what they would be now.

    Raises ValueError that says what has changed, or which data are missing.
    """
    now = profile_label(recipe)
    if now == label:
        return
    for name, task in profile_of(recipe).named():
        for fact, text in task.provenance().items():
            then = facts.get(f"{name}/{fact}", text)
            if then != text:
                raise ValueError(
                    f"the data of profile {recipe.evaluation.profile} have changed since the run ({name}: "
                    f"{fact} was {then}, is now {text}): put the former ones back, or start a new run"
                )
    raise ValueError(
        f"the profile {recipe.evaluation.profile} has changed since the run ({label} is now {now}): "
        "check out the commit in the run's environment table, or start a new run"
    )
