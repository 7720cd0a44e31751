"""The tools of a session, and the files that they work on.

The files are a mapping from names to texts, held to the rules of a candidate's workspace. They lie on no
disk, so that no name, however it is written, leads out of them: there is nothing outside. The file itself
is run by nobody here; gate and probe are the workbench's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from agents.edits import Edit, EditError, edited, same
from agents.llm.types import Tool, ToolCall
from agents.workspace.meter import Meter
from agents.workspace.workbench import PASS, Workbench

SHOWN = 40_000  # characters of a file that are read at a time
LONGEST = 4_000  # characters kept of each text of a submission
MATERIAL = "material/"
REFUSED = "refused: "  # how the answer to a call begins that was not carried out
GATE, PROBE, SUBMIT = "run_gate", "run_probe", "submit"


class Refused(ValueError):
    """A call that is not carried out; the message is what the model is told."""


@dataclass
class Desk:
    """One session's files and what has come of them.

    ``file`` is the one that is submitted, ``start`` what is in it at first, if anything; ``seed`` that of the
    probes. ``passed`` is the changed source that last passed the gate, ``submitted`` an answer's fields.
    """

    file: str
    start: str
    seed: int
    bench: Workbench
    meter: Meter
    files: dict[str, str] = field(default_factory=dict)
    passed: str = ""
    submitted: dict[str, str] | None = None

    def __post_init__(self) -> None:
        self.given = {f"{MATERIAL}{name}": text for name, text in self.bench.material.items()}
        if self.start:
            self.files[self.file] = self.start

    async def do(self, call: ToolCall) -> str:
        """What a tool answers. Raises Refused for a call that is not carried out."""
        if call.name not in TOOLS:
            raise Refused(f"there is no tool {call.name!r:.60}: there are {', '.join(TOOLS)}")
        return await TOOLS[call.name].run(self, **_arguments(call))

    # ---------------------------------------------------------------------------------- the files

    async def list(self) -> str:
        found = {**self.given, **self.files}
        return (
            "\n".join(f"{name}: {len(text):,} characters" for name, text in found.items()) or "none"
        )

    async def read(self, path: str) -> str:
        text = self._file(path)
        rest = len(text) - SHOWN
        return text[:SHOWN] + (f"\n(cut here: {rest:,} more characters)" if rest > 0 else "")

    async def write(self, path: str, text: str) -> str:
        self._put(path, text)
        return f"{path}: {len(text):,} characters"

    async def edit(self, path: str, search: str, replace: str) -> str:
        try:
            self._put(path, edited(self._file(path), [Edit(search, replace)]))
        except EditError as error:
            raise Refused(f"{path}: {error}") from error
        return f"{path}: changed"

    def _file(self, path: str) -> str:
        found = {**self.given, **self.files}
        if path not in found:
            raise Refused(f"there is no file {path!r:.120}: `list` names those there are")
        return found[path]

    def _put(self, path: str, text: str) -> None:
        files = {**self.files, path: text}
        try:
            self.bench.check(files)
        except ValueError as error:
            raise Refused(f"{error}"[:LONGEST]) from error
        self.files = files

    # --------------------------------------------------------------------------- what others do

    async def run_gate(self) -> str:
        source = self._source()
        report = await asyncio.to_thread(self.bench.gate, source)
        if report.verdict == PASS and not self._unchanged(source):
            self.passed = source
        return str(report)

    async def run_probe(self) -> str:
        given = self._source(), self.seed, self.meter.seconds_left
        return str(await asyncio.to_thread(self.bench.probe, *given))

    async def submit(self, hypothesis: str, reasoning: str, expected_effect: str) -> str:
        source = self._source()
        if self._unchanged(source):
            raise Refused(f"{self.file} does what it did at the start: change something")
        prose = {"hypothesis": hypothesis, "reasoning": reasoning}
        prose["expected_effect"] = expected_effect
        cut = {name: text[:LONGEST] for name, text in prose.items()}
        self.submitted = {**cut, "source": source}
        return "submitted"

    def _unchanged(self, source: str) -> bool:
        return bool(self.start) and same(source, self.start)

    def _source(self) -> str:
        if not self.files.get(self.file):
            raise Refused(f"there is no {self.file} yet: write it")
        return self.files[self.file]


def _arguments(call: ToolCall) -> dict[str, str]:
    """The arguments of a call, all of them texts. Raises Refused."""
    wanted, found = TOOLS[call.name].arguments, call.arguments
    if found is None or found.keys() != wanted.keys():
        got = (
            "what is no JSON object" if found is None else f"{', '.join(found)[:200] or 'nothing'}"
        )
        raise Refused(f"{call.name} takes {', '.join(wanted) or 'no arguments'}, not {got}")
    wrong = [name for name, value in found.items() if not isinstance(value, str)]
    if wrong:
        raise Refused(f"{call.name}: {wrong[0]} must be a text, not {found[wrong[0]]!r:.60}")
    return found


@dataclass(frozen=True)
class _Kind:
    description: str
    arguments: dict[str, str]  # name -> what it is
    run: Callable[..., Awaitable[str]]


_PATH = {"path": "a file's name, such as notes.txt"}
TOOLS: dict[str, _Kind] = {
    "list": _Kind("Names and sizes of your files.", {}, Desk.list),
    "read": _Kind("The text of a file.", _PATH, Desk.read),
    "write": _Kind("Write a file, whole.", {**_PATH, "text": "all of it"}, Desk.write),
    "edit": _Kind(
        "Change a file in one place.",
        {
            **_PATH,
            "search": "the text to replace, copied exactly; it must stand there exactly once",
            "replace": "what to put in its place",
        },
        Desk.edit,
    ),
    GATE: _Kind("Have the gate examine your file: its certificate.", {}, Desk.run_gate),
    PROBE: _Kind(
        "Have your file trained for a short part of the training, on data drawn for it alone: a rough score, "
        "which does not count.",
        {},
        Desk.run_probe,
    ),
    SUBMIT: _Kind(
        "Submit your file as it stands, which ends the session.",
        {
            "hypothesis": "one sentence that a measurement can support or reject",
            "reasoning": "why it should hold",
            "expected_effect": "what the score should do, and by how much",
        },
        Desk.submit,
    ),
}


def offered() -> tuple[Tool, ...]:
    """The tools as a model is told of them."""
    return tuple(Tool(name, kind.description, _schema(kind)) for name, kind in TOOLS.items())


def _schema(kind: _Kind) -> dict[str, Any]:
    texts = {name: {"type": "string", "description": what} for name, what in kind.arguments.items()}
    return {
        "type": "object",
        "properties": texts,
        "required": list(texts),
        "additionalProperties": False,
    }
