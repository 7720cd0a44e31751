"""Replies that hold code: what is refused and repaired, what is left to the gate, on each provider's wire."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from driving import keys_for
from nodes import SPACE, node

from agents.agent import Agent, AgentSpec
from agents.llm.loopback import Loopback, ok
from agents.proposers import Writing
from agents.proposers.replies import FILE
from storage.records import Answer, View

Reply = dict[str, Any]
SOURCE = "class Mixer:\n    size = 1\n\n    def forward(self, x):\n        return x\n"
PARENT = node(0, "X+M", 0.5, source=SOURCE, name="mixer-1")
IMPROVING = View((PARENT,), turn=1)
MIXER = Writing("mixer.py", "Write a mixer.")
WORDS = {"hypothesis": "h", "reasoning": "r", "expected_effect": "e"}


def reply(source: object = "", *edits: tuple[str, str], **fields: object) -> Reply:
    blocks = [{"search": search, "replace": new} for search, new in edits]
    return {**WORDS, "source": source, "edits": blocks, **fields}


def writer(proposer: str, **options: object) -> AgentSpec:
    greedy = {"scaffold": "greedy", "scaffold_options": {"drafts": 1}}
    return AgentSpec("w", proposer, SPACE, options=options, writing=MIXER, **greedy)  # type: ignore[arg-type]


def proposed(
    *replies: object, view: View = IMPROVING, baseline: str = ""
) -> tuple[Answer, list[str]]:
    """The answer to the agent's slot, played by a script, and what the model was told in each repair."""
    spec = writer("scripted", replies=[[]] * view.turn + [list(replies)])
    agent = Agent(replace(spec, writing=replace(MIXER, baseline=baseline)))
    answer = asyncio.run(agent.propose(view, 0))
    said = [json.loads(call.request)["messages"][-1]["text"] for call in answer.calls[1:]]
    return answer, said


@pytest.mark.parametrize("wire", ["anthropic:m", "openai:m", "openai:m@{url}/v1"])
def test_edits_come_over_every_wire_and_one_that_does_not_match_is_repaired(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = [reply("", ("size = 2", "size = 3")), reply("", ("size = 1", "size = 3"))]
    with Loopback([ok(data) for data in replies]) as server:
        keys_for(server.url, monkeypatch)
        agent = Agent(writer("llm", model=wire.format(url=server.url)))
        answer = asyncio.run(agent.propose(IMPROVING, 0))
    assert answer.failure is None
    assert answer.source == SOURCE.replace("size = 1", "size = 3")
    assert (answer.pattern, answer.parents, answer.operator) == (None, (1,), "improve")
    first, second = server.received
    assert json.dumps(FILE.schema)[1:-1] in json.dumps(first.body)
    assert "the line nearest to its first is 'size = 1'" in json.dumps(second.body)
    most = {"max_tokens", "max_output_tokens"} & first.body.keys()
    assert [first.body[name] for name in most] == [16_000]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (reply(), "send either the whole mixer.py as source, with no edits, or edits"),
        (reply(SOURCE + "x = 1", ("size = 1", "size = 2")), "send either the whole mixer.py"),
        (reply("  \n"), "send either"),
        (reply(SOURCE), "is its parent's mixer.py but for layout and comments: change"),
        (reply("# other words\n" + SOURCE), "is its parent's mixer.py but for"),
        (reply("", ("size = 1", "size = 1")), "replaces a text by itself"),
        (reply("", ("size = 1", "size = 1  # one")), "is its parent's mixer.py but for"),
        (reply("", ("x", "y")), "occurs 3 times"),
        (reply("", edits="size = 2"), "'edits' must be a list of objects with the texts search"),
        (reply("", edits=[{"search": "size"}]), "'edits' must be a list"),
        (reply("", edits=[{"search": "size", "replace": 2}]), "'edits' must be a list"),
        (reply(7), "'source' must be a text, not 7"),
        ({**reply("x"), "hypothesis": None}, "'hypothesis' must be a text"),
        ({**WORDS, "pattern": "A+M"}, "'source' must be a text, not None"),
    ],
)
def test_a_reply_that_proposes_nothing_goes_back_and_then_fails(bad: Reply, said: str) -> None:
    answer, told = proposed(bad, bad, bad)
    assert (answer.source, answer.failure, len(answer.calls)) == (None, "invalid-reply", 3)
    assert all(said in text for text in told)
    assert said in answer.detail


@pytest.mark.parametrize("source", ["class Mixer(:\n", "import os\n", "x = 1\n", "\x00"])
def test_a_bad_file_is_no_bad_reply(source: str) -> None:
    """The gate says what is wrong with it, so that it counts and is debugged; the driver refuses NUL."""
    answer, told = proposed(reply(source))
    assert (answer.source, answer.failure, told) == (source, None, [])


def test_marks_around_the_code_are_not_the_code() -> None:
    answer, _ = proposed(reply("```python\nx = 1\n```\n"))
    assert answer.source == "x = 1\n"


def test_a_draft_edits_the_baseline_and_without_one_nothing() -> None:
    change = reply("", ("size = 1", "size = 2"))
    answer, told = proposed(change, reply("x = 1\n"), view=View())
    assert answer.source == "x = 1\n"
    assert "there is no mixer.py to edit yet: send the whole file" in told[0]
    answer, told = proposed(reply(SOURCE), change, view=View(), baseline=SOURCE)
    assert answer.source == SOURCE.replace("size = 1", "size = 2")
    assert "is its parent's mixer.py but for" in told[0]


def test_a_refused_file_is_sent_back_with_its_spaces() -> None:
    answer, _ = proposed(reply(SOURCE), reply("x = 1\n"))
    said = json.loads(answer.calls[1].request)["messages"][1]["text"]
    assert json.loads(said)["source"] == SOURCE
