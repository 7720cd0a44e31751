"""The shipped recipe of eleven model agents, as a user runs it: real Ray, the real SDKs over real HTTP.

Only the models are at a loopback, and the candidates small. Some of the providers misbehave and repeat
the key that they were sent, so that it can be looked for everywhere afterwards.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ledgers
import pytest
from typer.testing import CliRunner

from agents.llm.loopback import Behaviour, Loopback, Received, ok, status
from archwright.cli import app
from archwright.recipe import RecipeError, load
from archwright.setup import check
from storage import blobs
from storage.ledger import BLOBS

ARCHWRIGHT = Path(sys.executable).with_name("archwright")
ANTHROPIC, OPENAI = "sk-ant-secret-4711", "sk-proj-secret-0815"
KEYS = (ANTHROPIC, OPENAI)
TOGETHER = 5  # calls that must be open at once before any is answered
PATIENCE = 60.0  # seconds after which one is answered all the same
SMALL = {
    "space.preset": "mini",
    "space.layers": "[2, 4]",
    "evaluation.profile": "smoke",
    "evaluation.tasks": "[compression]",
    "budget.evaluations": "16",
    "references.patterns": "{llama: A+M}",
    "confirm": "{finalists: 1, seeds: 2}",
    "workers": "2",
}
Row = dict[str, Any]


def said(pattern: str, words: str = "h") -> Behaviour:
    return ok({"hypothesis": words, "reasoning": words, "expected_effect": "+", "pattern": pattern})


class Providers:
    """Answers nobody before ``TOGETHER`` calls are open; each model's first answers are its faults."""

    def __init__(self) -> None:
        self.open, self.together = 0, threading.Event()
        self.lock, self.asked = threading.Lock(), Counter[str]()
        self.patterns = map("+".join, itertools.product(["A", "M", "Mb"], repeat=4))

    def __call__(self, request: Received) -> Behaviour:
        model = request.body["model"]
        with self.lock:
            self.open += 1
            if self.open >= TOGETHER:
                self.together.set()
            turn, self.asked[model] = self.asked[model], self.asked[model] + 1
            fine = said(next(self.patterns))
        self.together.wait(PATIENCE)
        return self._fault(model, turn, _key(request)) or fine

    def _fault(self, model: str, turn: int, key: str) -> Behaviour | None:
        if model == "gpt-6-luna":
            return status(401, message=f"invalid key {key}")
        if model == "gpt-6-astra" and turn < 3:
            return status(500, message=f"Traceback: environ = {{'KEY': '{key}'}}")
        if model == "claude-haiku-5-5" and turn == 0:
            return said(f"A+{key}", f"I was called with {key}")  # no pattern: repaired
        if model == "gpt-6-sol" and turn == 0:
            return said("A+2Mb", f"I was called with {key}")
        return None


def _key(request: Received) -> str:
    return request.headers.get("x-api-key") or request.headers["authorization"].split()[1]


@dataclass
class Seen:
    """What /proc showed of the processes that a command started: commands and environments."""

    commands: dict[int, set[str]] = field(default_factory=dict)
    environments: list[tuple[str, bytes]] = field(default_factory=list)

    def look(self, root: int) -> None:
        for pid in _descendants(root):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue  # it has ended
            self.commands.setdefault(pid, set()).add(command)
            self.environments.append((command, environment))


def _descendants(root: int) -> set[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


@dataclass(frozen=True)
class Ended:
    folder: Path
    server: Loopback
    seen: Seen
    summary: Row
    out: str
    err: str
    ray: Path  # its session, logs and all

    def rows(self, query: str) -> list[Row]:
        return ledgers.rows(self.folder, query)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    folder = tmp_path_factory.mktemp("eleven")
    ray = Path(tempfile.mkdtemp(prefix="ray"))  # a short path: sockets go into it
    settings = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    try:
        with (
            Loopback(Providers()) as server,
            (folder / "out").open("w") as out_file,
            (folder / "err").open("w") as err_file,
        ):
            process = subprocess.Popen(
                [ARCHWRIGHT, "run", "eleven-agents", "--out", "run", "--json", *settings],
                cwd=folder,
                env=_environment(server.url, ray),
                stdout=out_file,
                stderr=err_file,
                start_new_session=True,
            )
            seen = Seen()
            while process.poll() is None:
                seen.look(process.pid)
                time.sleep(1)
            out, err = ((folder / name).read_text() for name in ("out", "err"))
            assert process.returncode == 0, err[-2000:]
        yield Ended(folder / "run", server, seen, json.loads(out.splitlines()[-1]), out, err, ray)
    finally:
        shutil.rmtree(ray, ignore_errors=True)


def _environment(url: str, ray: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.upper().endswith(("_PROXY", "_API_KEY"))}
    return {
        **kept,
        "OMP_NUM_THREADS": "1",
        "RAY_TMPDIR": str(ray),
        "ANTHROPIC_API_KEY": ANTHROPIC,
        "OPENAI_API_KEY": OPENAI,
        "ANTHROPIC_BASE_URL": url,
        "OPENAI_BASE_URL": f"{url}/v1",
    }


def test_every_agent_of_the_recipe_is_an_actor_of_its_own(ended: Ended) -> None:
    agents = load("eleven-agents").agents
    assert len(agents) == 11
    assert len({(agent.model, agent.scaffold) for agent in agents}) == 11
    assert {agent.scaffold for agent in agents} == {"greedy", "mcts"}
    asked = {
        row["name"]
        for row in ended.rows("SELECT name FROM agent JOIN proposal p ON agent.id = agent_id")
    }
    assert asked == {*(agent.name for agent in agents), "random", "references"}
    actors = [pid for pid, names in ended.seen.commands.items() if "ray::KeyedAgent" in str(names)]
    assert len(actors) == len(asked)


def test_their_calls_overlap_and_evaluations_go_on_meanwhile(ended: Ended) -> None:
    assert ended.server.most_in_flight >= TOGETHER
    overlapping = ended.rows(
        """SELECT e.id FROM evaluation e JOIN proposal p ON p.asked < e.finished AND p.answered > e.started
        JOIN llm_call l ON l.proposal_id = p.id WHERE NOT e.sealed"""
    )
    assert overlapping
    assert ended.summary["status"] == "done"
    assert ended.rows("SELECT DISTINCT state FROM evaluation") == [{"state": "done"}]


def test_faults_stop_nobody_else_and_are_said(ended: Ended) -> None:
    assert ended.summary["stopped"].keys() == {"luna-greedy"}
    failures = Counter(row["failure"] for row in ended.rows("SELECT failure FROM proposal"))
    assert failures["auth"] == 1
    assert failures.keys() <= {None, "auth", "server_error"}
    attempts = ended.rows("SELECT MAX(attempt) AS n FROM llm_call WHERE model LIKE '%haiku%'")
    assert attempts == [{"n": 1}], "what was no pattern was repaired"


def places(ended: Ended) -> Iterator[tuple[str, bytes]]:
    """All that the run has left and said, by where it is."""
    yield "stdout", ended.out.encode()
    yield "stderr", ended.err.encode()
    for path in (*ended.folder.rglob("*"), *ended.ray.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path), path.read_bytes()
    for row in ended.rows("SELECT sha256 FROM artifact"):
        yield f"blob {row['sha256']}", blobs.get(ended.folder / BLOBS, row["sha256"])
    for pid, commands in ended.seen.commands.items():
        yield f"command of {pid}", str(commands).encode()
    for command, environment in ended.seen.environments:
        if (
            "archwright run" not in command
        ):  # a child that is its parent's image until it is another's
            yield f"environment of {command}", environment


def commands(ended: Ended) -> Iterator[list[str]]:
    run = str(ended.folder)
    for what in ("leaderboard", "agents", "failures", "spend", "calls", "decisions"):
        yield ["inspect", run, what]
    for row in ended.rows("SELECT id FROM llm_call"):
        yield ["inspect", run, "calls", str(row["id"])]
    yield ["sql", run, "SELECT * FROM proposal"]
    yield ["replay", run, "--calls"]


def test_the_keys_are_nowhere(ended: Ended) -> None:
    used = {_key(request) for request in ended.server.received}
    assert used == set(KEYS), "both were in use"
    echoed = [body for _, body in ended.server.answered if any(k.encode() in body for k in KEYS)]
    assert len(echoed) >= 4, "and came back"
    searched = list(places(ended))
    assert any("session_" in place for place, _ in searched), "Ray's logs among them"
    assert any("ray::Worker" in text.decode() for place, text in searched if "command" in place)
    assert [place for place, text in searched if any(k.encode() in text for k in KEYS)] == []


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["for-people", "json"])
def test_no_command_shows_a_key(ended: Ended, options: list[str]) -> None:
    shown = ""
    for arguments in commands(ended):
        done = CliRunner().invoke(app, [*arguments, *options])
        assert done.exit_code == 0, (arguments, done.output)
        shown += done.output
    assert "[key]" in shown, "what was echoed is shown without it"
    assert not re.search("|".join(KEYS), shown)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["ANTHROPIC_API_KEY"], "OPENAI_API_KEY for astra-greedy, .*, luna-greedy: export them"),
        (
            ["OPENAI_API_KEY"],
            "ANTHROPIC_API_KEY for opus-greedy, opus-mcts, .*, haiku-mcts: export",
        ),
        ([], "ANTHROPIC_API_KEY for opus-greedy, .*; OPENAI_API_KEY for .*drop those agents"),
    ],
)
def test_a_missing_key_is_said_with_the_agents_that_need_it(
    monkeypatch: pytest.MonkeyPatch, keys: list[str], words: str
) -> None:
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in keys:
        monkeypatch.setenv(name, ANTHROPIC)
    with pytest.raises(RecipeError, match=words) as error:
        check(load("eleven-agents"))
    assert ANTHROPIC not in str(error.value)
