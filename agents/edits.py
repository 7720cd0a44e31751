"""Edits to a file as a model sends them: search/replace blocks, each of which must match exactly once.

What does not match is an error that says why, never a change that was not made. It reads and writes no file.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 160  # characters of a text that an error quotes


class EditError(ValueError):
    """An edit that cannot be made; the message is what its author is told."""


@dataclass(frozen=True)
class Edit:
    """Put ``replace`` where ``search`` stands."""

    search: str
    replace: str


def edited(text: str, edits: Sequence[Edit]) -> str:
    """The text after the edits, each made in what the one before it left. Raises EditError."""
    for number, edit in enumerate(edits, 1):
        place = f"edit {number} of {len(edits)}"
        count = _occurrences(text, edit.search)
        if count != 1:
            raise EditError(f"{place}: {_mismatch(text, edit.search, count)}")
        if edit.search == edit.replace:
            raise EditError(f"{place}: it replaces a text by itself: change something or drop it")
        text = text.replace(edit.search, edit.replace)
    return text


def _occurrences(text: str, search: str) -> int:
    """How often a text occurs, overlaps counted; an empty one never does."""
    return len(re.findall(f"(?={re.escape(search)})", text)) if search else 0


def _mismatch(text: str, search: str, count: int) -> str:
    if not search:
        return "its search text is empty: copy the lines that it replaces"
    if count:
        return (
            f"its search text occurs {count} times, it must occur once: copy more of the lines around "
            "the one you mean"
        )
    line = next((line for line in search.splitlines() if line.strip()), search)
    near = difflib.get_close_matches(line, text.splitlines(), n=1, cutoff=0.3)
    hint = f"; the line nearest to its first is {near[0].strip()[:SHOWN]!r}" if near else ""
    return (
        "its search text does not occur, spaces and line breaks included: copy it exactly from the "
        f"file{hint}"
    )


def same(one: str, two: str) -> bool:
    """Whether two sources are one program: equal but for layout and comments."""
    return one == two or (_tree(one) or one) == (_tree(two) or two)


def _tree(source: str) -> str:
    """The syntax tree of a source as text; empty for one that does not parse."""
    try:
        return ast.dump(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
