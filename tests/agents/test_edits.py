"""Edits: what does not match exactly once is an error that says why, and nothing is changed silently."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents.edits import Edit, EditError, edited, same

TEXT = "def f(x):\n    y = x\n    return y\n"


def test_edits_are_made_in_order_each_in_what_the_one_before_left() -> None:
    changes = [Edit("y = x", "y = x + 1"), Edit("x + 1\n    return y", "x + 2\n    return -y")]
    assert edited(TEXT, changes) == "def f(x):\n    y = x + 2\n    return -y\n"


@example("aaa", "aa", "b")
@given(st.text("ab\n", max_size=12), st.text("ab\n", max_size=4), st.text("abc\n", max_size=4))
def test_an_edit_is_one_replacement_or_an_error(text: str, search: str, replace: str) -> None:
    places = [i for i in range(len(text)) if text.startswith(search, i)] if search else []
    if len(places) == 1 and search != replace:
        [at] = places
        changed = text[:at] + replace + text[at + len(search) :]
        assert edited(text, [Edit(search, replace)]) == changed
    else:
        with pytest.raises(EditError, match=r"^edit 1 of 1: "):
            edited(text, [Edit(search, replace)])


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (Edit("z = x", "z"), "does not occur.*nearest to its first is 'y = x'"),
        (Edit("  y = x\n return", "z"), "does not occur, spaces and line breaks included"),
        (Edit("y", "z"), "occurs 2 times, it must occur once: copy more of the lines"),
        (Edit("", "z"), "search text is empty"),
        (Edit("y = x", "y = x"), "replaces a text by itself"),
    ],
)
def test_an_error_says_what_to_do(edit: Edit, said: str) -> None:
    with pytest.raises(EditError, match=f"^edit 2 of 2: .*{said}"):
        edited(TEXT, [Edit("def f", "def g"), edit])


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        ("def f(x):  # the same\n\n    y = (x)\n    return y", True),
        ("def g(x):\n    y = x\n    return y\n", False),
        ("def f(x:\n", False),
    ],
)
def test_layout_and_comments_are_no_change(other: str, equal: bool) -> None:
    assert same(TEXT, other) is equal
    assert same(other, other)
