"""Sessions with tools: nothing leads out of the workspace, no limit is passed, every end has its type.

Models are played over real HTTP or by the shipped script; gate and probe are doubles here, the rest is real.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from driving import keys_for

from agents.llm.loopback import Behaviour, Loopback, Received, Tokens, refusal, text, use
from agents.llm.transcript import Said, conversation
from agents.prompts import sections
from agents.proposers import Request, Writing
from agents.proposers.model import ModelProposer, ScriptedProposer
from agents.proposers.recorded import RecordedProposer
from agents.scaffolds import Decision
from agents.scaffolds.base import Limits
from agents.workspace.workbench import FAIL, PASS, Report
from archwright.recipe import parse
from archwright.workbench import SandboxedBench
from search_space.space import Space
from storage.records import Allowance, Answer, Money, Node, View

RECIPE = parse(
    {
        "name": "w",
        "kind": "module",
        "evaluation": {"profile": "smoke", "tasks": ["compression"]},
        "agents": [{"name": "a", "proposer": "scripted", "scaffold": "workspace"}],
    }
)
WORDS = {"hypothesis": "h", "reasoning": "r", "expected_effect": "e"}
SUBMIT = {"submit": WORDS}
MOST_OUTPUT = 300
PRICE = {"input": 1.0, "output": 5.0}
USUAL, AMPLE = Limits(30, 400_000, 900.0), Limits(30, 10**7, 900.0)
WIRES = ("anthropic:m", "openai:m", "openai:m@{url}/v1")


@dataclass(frozen=True)
class Bench(SandboxedBench):
    """The rules of a workspace are the real ones; gate and probe pass what says that it is good."""

    asked: list[tuple[str, str]] = field(default_factory=list)

    def gate(self, source: str) -> Report:
        self.asked.append(("gate", source))
        return Report(PASS if "good" in source else FAIL, "causality: it says so")

    def probe(self, source: str, seed: int, seconds: float) -> Report:
        self.asked.append(("probe", source))
        return Report(PASS, f"score {len(source)} with seed {seed}")


def request(limits: Limits = USUAL, parent: str = "", **view: Any) -> Request:
    nodes = (
        [Node(0, "a", 1, "X", "draft", "", (), "accepted", 0.5, source=parent)] if parent else []
    )
    decision = Decision("improve" if parent else "draft", tuple(nodes), "because", limits)
    return Request(
        decision,
        View(**view),
        Space(("A",), 1, 1, "mini"),
        seed=7,
        writing=Writing("mixer.py", "the contract"),
        bench=Bench(RECIPE),
    )


def played(turns: Sequence[Any], asked: Request | None = None) -> Answer:
    """What a script of turns comes to."""
    return asyncio.run(ScriptedProposer(replies=[list(turns)]).propose(asked or request()))


def told(answer: Answer) -> list[Said]:
    return conversation((call.request, call.reply) for call in answer.calls)


def results(answer: Answer) -> list[str]:
    return [turn.text for turn in told(answer) if turn.who == "tool"]


def write(text: str, path: str = "mixer.py") -> dict[str, Any]:
    return {"write": {"path": path, "text": text}}


# --------------------------------------------------------------------------------- the usual way


def test_a_session_writes_examines_mends_tries_and_submits() -> None:
    asked = request()
    answer = played(
        [
            {"list": {}},
            write("bad = 1\n") | {"run_gate": {}},
            {"edit": {"path": "mixer.py", "search": "bad", "replace": "good"}, "run_gate": {}},
            {"run_probe": {}, "read": {"path": "mixer.py"}},
            SUBMIT,
        ],
        asked,
    )
    assert (answer.failure, answer.source, answer.operator) == (None, "good = 1\n", "draft")
    assert (answer.hypothesis, answer.reasoning, answer.expected_effect) == ("h", "r", "e")
    assert isinstance(asked.bench, Bench)
    assert [what for what, _ in asked.bench.asked] == ["gate", "gate", "probe"]
    found = results(answer)
    assert found[2].startswith("fail\ncausality") and found[4].startswith("pass\n")
    assert found[5:] == ["pass\nscore 9 with seed 7", "good = 1\n"]
    assert [call.attempt for call in answer.calls] == [0, 1, 2, 3, 4]


def test_it_starts_from_its_parents_file_and_must_change_it() -> None:
    changed = {"edit": {"path": "mixer.py", "search": "1", "replace": "2"}}
    answer = played([SUBMIT, {"write": {"path": "mixer.py", "text": "x = 1  # no\n"}} | SUBMIT,
                     changed | SUBMIT], request(parent="x = 1\n"))  # fmt: skip
    assert [text.startswith("refused: mixer.py does what") for text in results(answer)[:3:2]] == [
        True, True]  # fmt: skip
    assert (answer.source, answer.parents) == ("x = 2  # no\n", (1,))


def test_the_prompt_says_what_there_is_and_every_character_is_in_a_section() -> None:
    answer = played([write("x = 1\n") | SUBMIT])
    rows = sections.table(answer.calls[0].request)
    assert {"contract", "rules", "tools", "task"} <= {row["section"] for row in rows}
    assert sum(row["characters"] for row in rows) == len(answer.calls[0].request)
    system, task = (turn.text for turn in told(answer)[:2])
    assert "`run_probe`: " in system and "# Reply" not in system
    assert "You have 30 turns, 400,000 tokens" in task


# ------------------------------------------------------------------------ nothing leads out of it

HOSTILE = (
    "../secret.txt",
    "../../../../../../etc/passwd",
    "a/../../secret.txt",
    "mixer.py/../../secret.txt",
    "./secret.txt",
    "/etc/passwd",
    "//etc/passwd",
    "{place}/secret.txt",
    "/proc/self/environ",
    "/dev/zero",
    "~/secret.txt",
    "file:///etc/passwd",
    "secret.txt\0.py",
    "\0",
    "",
    ".",
    "..",
    "-rf",
    ".ssh/id",
    "a//b",
    "x" * 300,
    "C:\\secret.txt",
    "..\\secret.txt",
    "secret\n.txt",
    "ﬁle.py",
    "material/examples.txt",
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a secret, links to it, a fifo that would hang, and a file above."""
    inner = tmp_path / "inner"
    inner.mkdir()
    for folder in (tmp_path, inner):
        (folder / "secret.txt").write_text("the secret 4711")
    (inner / "link.py").symlink_to(inner / "secret.txt")
    (inner / "hard.py").hardlink_to(inner / "secret.txt")
    (inner / "folder").symlink_to(tmp_path)
    os.mkfifo(inner / "fifo.py")
    monkeypatch.chdir(inner)
    return inner


def everything(folder: Path) -> dict[str, Any]:
    """Every entry below a folder: what it is and what is in it, links as links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kept = path.is_file() and not path.is_symlink()
        found[str(path)] = (path.lstat().st_mode, path.read_text() if kept else None)
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_leads_elsewhere_is_refused_by_every_tool(place: Path, name: str) -> None:
    before, path = everything(place.parent), name.replace("{place}", str(place))
    edit = {"edit": {"path": path, "search": "the", "replace": "no"}}
    turns = [{"read": {"path": path}}, write("planted", path), edit]
    if name == "material/examples.txt":
        turns = turns[1:]  # which may be read
    answer = played([*turns, write("x = 1\n") | SUBMIT], replace(request()))
    said = results(answer)[: len(turns)]
    assert all(text.startswith("refused: ") for text in said), said
    assert not any("4711" in call.request or "root:" in call.request for call in answer.calls)
    assert everything(place.parent) == before


@pytest.mark.parametrize("name", ["link.py", "hard.py", "fifo.py", "folder/secret.txt"])
def test_what_lies_on_the_disk_under_a_good_name_is_neither_read_nor_written(
    place: Path, name: str
) -> None:
    before = everything(place.parent)
    answer = played([{"read": {"path": name}}, write("planted", name), {"list": {}},
                     write("x = 1\n") | SUBMIT])  # fmt: skip
    assert results(answer)[0].startswith(f"refused: there is no file {name!r}")
    assert answer.failure is None
    assert everything(place.parent) == before


def test_too_much_is_refused_and_what_was_there_stays() -> None:
    turns: list[Any] = [write("x = 1\n"), *(write("n", f"n{i}.txt") for i in range(51))]
    turns += [{"list": {}}, write("y" * (2 << 20)), write("z" * (1 << 20), "n1.txt"), SUBMIT]
    answer = played(turns, request(Limits(90, 10**9, 900.0)))
    *written, over, again, listed, larger, other = results(answer)
    assert not any(text.startswith("refused: ") for text in written)
    assert over == again == "refused: 51 files were written: write 50 at most"
    assert len(listed.splitlines()) == 51, "fifty files and the examples"
    assert "bytes were written" in larger and "bytes were written" in other
    assert answer.source == "x = 1\n"


def test_a_long_file_is_read_in_part_and_that_is_said() -> None:
    answer = played([write("y" * 50_000, "y.txt"), {"read": {"path": "y.txt"}},
                     write("x = 1\n") | SUBMIT])  # fmt: skip
    assert results(answer)[1].endswith("y\n(cut here: 10,000 more characters)")


# --------------------------------------------------------------------------------- odd behaviour

ODD: list[tuple[Any, str]] = [
    ({"launch": {}}, "refused: there is no tool 'launch'"),
    ({"read": {}}, "refused: read takes path, not nothing"),
    ({"read": {"path": "mixer.py", "mode": "w"}}, "refused: read takes path, not path, mode"),
    ({"read": {"path": ["mixer.py"]}}, "refused: read: path must be a text, not ['mixer.py']"),
    ({"read": 3}, "refused: read takes path, not what is no JSON object"),
    ({"write": {"path": "mixer.py", "text": None}}, "refused: write: text must be a text"),
    ({"edit": {"path": "mixer.py", "search": "q", "replace": "p"}}, "does not occur"),
    ({"run_gate": {}}, "refused: there is no mixer.py yet"),
    ({"run_probe": {}}, "refused: there is no mixer.py yet"),
    (SUBMIT, "refused: there is no mixer.py yet"),
    ({"submit": {"hypothesis": "h"}}, "refused: submit takes hypothesis, reasoning, expected"),
]


@pytest.mark.parametrize(("turn", "said"), ODD)
def test_a_wrong_call_is_answered_with_what_is_wrong_and_the_session_goes_on(
    turn: Any, said: str
) -> None:
    first = [write("x = 1\n")] if "edit" in turn else []
    answer = played([*first, turn, write("x = 2\n") | SUBMIT])
    assert said in results(answer)[len(first)]
    assert (answer.failure, answer.source) == (None, "x = 2\n")


def test_three_turns_in_a_row_that_come_to_nothing_end_it() -> None:
    answer = played([write("x = 1\n"), {"launch": {}}, {"read": {}}, {"list": {}}, {"a": {}},
                     {"b": {}}, {"launch": {}}, SUBMIT])  # fmt: skip
    assert (answer.failure, len(answer.calls)) == ("invalid-reply", 7)
    assert "there is no tool 'launch'" in answer.detail


def test_a_model_that_does_the_same_for_ever_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [use(("write", {"path": "mixer.py", "text": "x"})), *[use(("list", {}))] * 20]
    for wire in WIRES:
        answer, _ = over_http(wire, monkeypatch, turns)
        assert (answer.failure, len(answer.calls)) == ("invalid-reply", 5)
        assert "the turn before once more" in answer.detail


def test_a_model_that_only_talks_is_stopped_and_what_it_said_is_kept() -> None:
    answer = played(["I would rather chat.", write("x = 1\n"), "Still.", "Chatting.", "On."])
    assert (answer.failure, len(answer.calls)) == ("malformed", 5)
    said = [turn.text for turn in told(answer) if turn.who == "agent" and not turn.tool]
    assert said == ["I would rather chat.", "Still.", "Chatting.", "On."]


def test_a_refusal_ends_it_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, _ = over_http("anthropic:m", monkeypatch, [use(("list", {})), refusal()])
    assert (answer.failure, len(answer.calls)) == ("refusal", 2)


# ------------------------------------------------------------------------------------ the limits


def over_http(
    wire: str,
    patch: pytest.MonkeyPatch,
    script: Any,
    limits: Limits = AMPLE,
    **view: Any,
) -> tuple[Answer, Loopback]:
    """A session with a model at a server, and the server."""
    with Loopback(script) as server:
        keys_for(server.url, patch)
        proposer = model(wire.format(url=server.url))
        answer = asyncio.run(proposer.propose(request(limits, **view)))
    return answer, server


def model(name: str) -> ModelProposer:
    return ModelProposer(name, max_output_tokens=MOST_OUTPUT, prices={name: PRICE})


@dataclass
class Endless:
    """Writes another file each time, and bills as much as can be: a token a byte, the longest reply."""

    seconds: float = 0.0
    billed: list[int] = field(default_factory=list)

    def __call__(self, received: Received) -> Behaviour:
        time.sleep(self.seconds)
        self.billed.append(len(received.content) + MOST_OUTPUT)
        calls = [("write", {"path": "mixer.py", "text": f"good = {len(self.billed)}\n"})]
        if len(self.billed) == 1:
            calls.append(("run_gate", {}))
        tokens = Tokens(len(received.content), 0, 0, MOST_OUTPUT, 0)
        return use(*calls, tokens=tokens)

    @property
    def usd(self) -> float:
        outputs = MOST_OUTPUT * len(self.billed)
        return ((sum(self.billed) - outputs) * PRICE["input"] + outputs * PRICE["output"]) / 1e6


@pytest.mark.parametrize("wire", WIRES)
def test_the_limit_of_turns_holds(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, server = over_http(wire, monkeypatch, Endless(), Limits(3, 10**7, 900.0))
    assert len(server.received) == len(answer.calls) == 3
    assert "[turn 2 of 3; " in answer.calls[2].request


@pytest.mark.parametrize("limit", [30_000, 60_000])
def test_the_limit_of_tokens_holds_and_is_used(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = Endless()
    over_http("anthropic:m", monkeypatch, endless, Limits(99, limit, 900.0))
    assert sum(endless.billed) <= limit
    assert sum(endless.billed) + 2 * endless.billed[-1] > limit, "what can be afforded is done"


@pytest.mark.parametrize("cap", [0.03, 0.06])
def test_what_the_campaign_has_left_in_money_holds_and_is_used(
    cap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = Endless()
    answer, _ = over_http("openai:m", monkeypatch, endless, allowance=Allowance(usd=cap))
    last = endless.billed[-1] * PRICE["output"] / 1e6
    assert endless.usd <= cap < endless.usd + 2 * last
    costs = [call.cost_usd for call in answer.calls]
    assert sum(cost or 0 for cost in costs) == pytest.approx(endless.usd)


def test_what_the_campaign_has_left_in_calls_and_seconds_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for allowance in (Allowance(calls=2), Allowance(calls=2, seconds=900.0)):
        _, server = over_http("anthropic:m", monkeypatch, Endless(), allowance=allowance)
        assert len(server.received) == 2
    answer, server = over_http(
        "anthropic:m", monkeypatch, Endless(0.3), allowance=Allowance(seconds=0.1)
    )
    assert (answer.failure, len(server.received)) == ("budget", 1)
    assert answer.detail == "nothing was submitted; seconds: 0.1 are over"


def test_when_the_time_is_over_no_tool_runs_but_a_submission_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = Limits(30, 10**7, 0.1)

    def late(received: Received) -> Behaviour:
        time.sleep(0.3)
        return use(
            ("run_gate", {}), ("write", {"path": "mixer.py", "text": "x"}), ("submit", WORDS)
        )

    answer, server = over_http("anthropic:m", monkeypatch, late, limits)
    assert (answer.failure, len(server.received)) == ("budget", 1), "nothing was written"
    asked = request(limits, parent="good = 1\n")
    assert isinstance(asked.bench, Bench)
    assert not asked.bench.asked


def test_a_limit_leaves_what_last_passed_the_gate_if_the_model_knew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for turns, failure, source in (
        (1, "budget", None),
        (2, None, "good = 1\n"),
        (5, None, "good = 1\n"),
    ):
        answer, _ = over_http("anthropic:m", monkeypatch, Endless(), Limits(turns, 10**7, 900.0))
        assert (answer.failure, answer.source, len(answer.calls)) == (failure, source, turns)


def test_a_limit_does_not_submit_the_parent_again() -> None:
    limits = Limits(2, 10**7, 900.0)
    answer = played([{"run_gate": {}}, {"list": {}}], request(limits, parent="good = 1\n"))
    assert (answer.failure, results(answer)) == ("budget", ["pass\ncausality: it says so"])


def test_a_quote_is_the_most_and_no_more_than_there_is() -> None:
    proposer, limits = model("openai:m"), Limits(30, 100_000, 900.0)
    whole = proposer.quote(request(limits))
    assert whole == Money(30, pytest.approx(100_000 * PRICE["output"] / 1e6))
    some = proposer.quote(request(limits, allowance=Allowance(calls=4, usd=0.1)))
    assert some == Money(4, 0.1)
    least = proposer.quote(request(limits, allowance=Allowance(calls=0, usd=0.0)))
    assert least is not None and least.calls == 1 and least.usd is not None
    assert 0 < least.usd < 0.1, "the first call is needed in any case"


# ------------------------------------------------------------------------------ what is kept of it


class Idle(Bench):
    """Nothing may be examined or trained in a replay."""

    def gate(self, source: str) -> Report:
        raise AssertionError("a gate ran")

    def probe(self, source: str, seed: int, seconds: float) -> Report:
        raise AssertionError("a probe ran")


def whole() -> list[Behaviour]:
    return [
        use(("list", {}), ("write", {"path": "mixer.py", "text": "bad = 1\n"})),
        text("Let me think."),
        use(("run_gate", {})),
        use(("edit", {"path": "mixer.py", "search": "bad", "replace": "good"}), ("run_gate", {})),
        use(("run_probe", {}), ("submit", {"hypothesis": "h"})),
        use(("submit", WORDS)),
    ]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("turns", [3, 5, 30])
def test_a_session_is_replayed_from_its_record_and_nothing_runs(
    wire: str, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(turns, 10**7, 900.0)
    with Loopback(whole()) as server:
        keys_for(server.url, monkeypatch)
        name = wire.format(url=server.url)
        then = asyncio.run(model(name).propose(request(limits)))
    again = RecordedProposer(model(name), [then.calls], "here")
    asked = replace(request(limits), bench=Idle(RECIPE))
    now = asyncio.run(again.propose(asked))
    assert now == (replace(then, detail=now.detail) if then.failure else then)
    assert (then.failure, then.source) == {3: ("budget", None)}.get(turns, (None, "good = 1\n"))
    # As if time had ended it: nobody knows but the record.
    shorter = RecordedProposer(model(name), [then.calls[:2]], "here")
    assert asyncio.run(shorter.propose(asked)).failure == "budget"


def test_the_transcript_is_whole_and_the_same_on_every_wire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for wire in WIRES:
        answer, _ = over_http(wire, monkeypatch, whole())
        said = [(turn.who, turn.tool, plain(turn)) for turn in told(answer)]
        found.append([row for row in said if row[0] != "user"])
    assert found[0][1:] == found[1][1:] == found[2][1:]
    assert found[0][0][0] == "system"
    kinds = [(who, tool) for who, tool, _ in found[0][1:]]
    assert kinds[:4] == [("agent", "list"), ("agent", "write"), ("tool", "list"), ("tool", "write")]
    assert ("agent", "", "Let me think.") in found[0]
    assert kinds[-1] == ("agent", "submit")
    assert ("tool", "run_gate", "fail\ncausality: it says so") in found[0]


def plain(turn: Said) -> Any:
    """Arguments as JSON says them, whatever their layout."""
    return json.loads(turn.text) if turn.who == "agent" and turn.tool else turn.text
