"""What a prompt is made of: the sections under the templates' headings, with their length.

Reads the request as it was sent to whichever provider; knows no provider's format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

BYTES_PER_TOKEN = 3  # of prompt text; low, so that the budget is kept rather than missed
# In the order of the prompt, and for each place what may stand there, since a pattern and a file are asked
# for otherwise. What comes before any of them in a text is its opening.
HEADINGS = (
    {"# Grammar": "grammar", "# Contract": "contract"},
    {"# Layers you may use": "catalogue", "# Layers that exist": "catalogue"},
    {"# Rules": "rules"},
    {"# Notes of the user": "notes"},
    {"# Reply": "reply", "# Tools": "tools"},
    {"# Measured so far": "memory"},
    {"# Literature": "literature"},
    {"# Parents": "parents", "# Baseline": "baseline"},
    {"# Your task": "task"},
)
CODE = re.compile(
    r"^(`{3,})python\n.*?^\1$", re.MULTILINE | re.DOTALL
)  # as `agents.prompts.code` has it


def tokens(text: str) -> int:
    """An upper estimate of the tokens of a text."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def table(request: str) -> list[dict[str, Any]]:
    """One row per section of a request's JSON: name, characters, estimated tokens; last comes what is in
    none: schema, refused replies and their repairs, names."""
    parts = [part for text in _texts(_read(request)) for part in split(text)]
    rows = [_row(name, len(text), tokens(text)) for name, text in parts]
    rest = len(request) - sum(row["characters"] for row in rows)
    return [*rows, _row("rest", rest, -(-rest // BYTES_PER_TOKEN))]


def _read(request: str) -> Any:
    """The JSON of a request; nothing for one that a proposer of the user's own wrote otherwise."""
    try:
        return json.loads(request)
    except ValueError:
        return None


def split(text: str) -> list[tuple[str, str]]:
    """The sections of one text in order, none for a text without headings.

    Only the user's notes may hold lines like our headings: code is passed over, and all else is written by us
    or on one line. So the reply's section, which follows the notes, begins at the last such line, any other
    at the first.
    """
    starts, prose = [("opening", 0)], CODE.sub(lambda block: "-" * len(block[0]), text)
    for names in HEADINGS:
        at = starts[-1][1]
        found = list(re.finditer(rf"^({'|'.join(names)})$", prose[at:], re.MULTILINE))
        if found:
            match = found[-1 if "# Reply" in names else 0]
            starts.append((names[match[1]], at + match.start()))
    ends = [start for _, start in starts[1:]] + [len(text)]
    parts = [(name, text[start:end]) for (name, start), end in zip(starts, ends, strict=True)]
    return [part for part in parts if part[1]] if len(parts) > 1 else []


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    match value:
        case str():
            yield value
        case dict():
            for item in value.values():
                yield from _texts(item)
        case list():
            for item in value:
                yield from _texts(item)


def _row(name: str, characters: int, estimate: int) -> dict[str, Any]:
    return {"section": name, "characters": characters, "tokens": estimate}
