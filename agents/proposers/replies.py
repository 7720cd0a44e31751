"""What a model may reply: an architecture as a pattern, or a file as source or edits, and how it is read.

What is refused here is the reply: a field that is missing, an edit that does not match, a change of
nothing. It goes back to the model, since there is no candidate yet. What is wrong with a file, be it a
syntax error, is not looked for: the gate is the one judge of files. It says so with its certificate, which
`debug` is given, and in the ledger a broken file is an invalid submission, not a repair nobody sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agents.edits import Edit, EditError, edited, same
from agents.proposers.base import Request
from search_space.pattern import Pattern, PatternError

LONGEST = 4_000  # characters kept of each field that is prose or a pattern
Fields = dict[str, str]


class BadReply(ValueError):
    """A structured reply that breaks a rule; the message is what the model is told."""


@dataclass(frozen=True)
class Form:
    """A kind of reply: its JSON schema, how it is read, and its usual limits.

    ``read`` gives an answer's fields, and raises BadReply. ``output_tokens`` bound a reply unless the
    recipe does, ``repeated`` the characters of a refused one that are sent back with the error.
    """

    schema: dict[str, Any]
    read: Callable[[Mapping[str, Any], Request], Fields]
    output_tokens: int
    repeated: int


def form_of(request: Request) -> Form:
    """The reply that this request wants."""
    return PATTERN if request.writing is None else FILE


def _schema(**proposal: dict[str, Any]) -> dict[str, Any]:
    """An object of what is proposed between what is thought of it; all of it required, since not every
    provider's structured output knows optional fields."""
    properties = {
        "hypothesis": _text("one sentence that a measurement can support or reject"),
        "reasoning": _text("why it should hold"),
        **proposal,
        "expected_effect": _text("what the score should do, and by how much"),
    }
    return _object(properties)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    closed = {"required": list(properties), "additionalProperties": False}
    return {"type": "object", "properties": properties, **closed}


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _prose(data: Mapping[str, Any], *more: str) -> Fields:
    """The fields that are texts, cut where they are long. Raises BadReply for one that is none."""
    names = ("hypothesis", "reasoning", *more, "expected_effect")
    for name in names:
        if not isinstance(data.get(name), str):
            raise BadReply(f"field {name!r} must be a text, not {data.get(name)!r:.60}")
    return {name: data[name][:LONGEST] for name in names}


# ---------------------------------------------------------------------------------------- a pattern


def _pattern(data: Mapping[str, Any], request: Request) -> Fields:
    fields = _prose(data, "pattern")
    try:
        pattern = request.space.read(fields["pattern"])
    except PatternError as error:
        raise BadReply(str(error)) from error
    if any(Pattern.parse(p.pattern) == pattern for p in request.decision.parents):
        raise BadReply(f"pattern {fields['pattern']!r} is its parent's: change something")
    return {**fields, "pattern": str(pattern)}


# ------------------------------------------------------------------------------------------- a file


def _file(data: Mapping[str, Any], request: Request) -> Fields:
    writing = request.writing
    assert writing is not None, "`form_of` chose this form by it"
    fields, source, edits = _prose(data), _source(data), _edits(data)
    if bool(source) == bool(edits):
        raise BadReply(
            f"send either the whole {writing.file} as source, with no edits, or edits, with an empty source"
        )
    known = [node.source for node in request.decision.parents] or [writing.baseline]
    source = source or _changed(known[0], edits, writing.file)
    if any(same(source, other) for other in known if other):
        raise BadReply(
            f"this is its parent's {writing.file} but for layout and comments: change something"
        )
    return {**fields, "source": source}


def _source(data: Mapping[str, Any]) -> str:
    """The file in a reply, without the marks that models like to put around code. Raises BadReply."""
    source = data.get("source")
    if not isinstance(source, str):
        raise BadReply(
            f"field 'source' must be a text, not {source!r:.60}: empty where you send edits"
        )
    lines = source.strip().splitlines()
    marked = len(lines) > 1 and lines[0].startswith("```") and lines[-1] == "```"
    return "\n".join([*lines[1:-1], ""]) if marked else source if lines else ""


def _edits(data: Mapping[str, Any]) -> list[Edit]:
    """The edits in a reply. Raises BadReply."""
    found = data.get("edits")
    try:
        edits = [Edit(**item) for item in found] if isinstance(found, list) else None
    except TypeError:
        edits = None
    if edits is None or not all(isinstance(t, str) for e in edits for t in (e.search, e.replace)):
        raise BadReply("field 'edits' must be a list of objects with the texts search and replace")
    return edits


def _changed(source: str, edits: list[Edit], file: str) -> str:
    """The source after the edits. Raises BadReply."""
    if not source:
        raise BadReply(f"there is no {file} to edit yet: send the whole file as source")
    try:
        return edited(source, edits)
    except EditError as error:
        raise BadReply(f"edits of {file}: {error}") from error


PATTERN = Form(
    _schema(pattern=_text("the whole architecture in the grammar")),
    read=_pattern,
    output_tokens=4_000,
    repeated=4_000,
)
FILE = Form(
    _schema(
        source=_text("the whole new file; empty where you send edits"),
        edits={
            "type": "array",
            "description": "changes to the file you were shown (of two, the first), in order; each search "
            "text must be copied exactly and stand there exactly once; empty where you send the source",
            "items": _object({"search": {"type": "string"}, "replace": {"type": "string"}}),
        },
    ),
    read=_file,
    output_tokens=16_000,
    repeated=20_000,
)
