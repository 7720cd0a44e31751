"""How well agents submit: the share of their proposals that were measured, and their scores task by task.

Reads the ledger; ranks nobody (`archwright.standings` does) and prints nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from scipy import stats
from sqlalchemy.orm import Session

from archwright.normalisation import Scale
from storage import queries
from storage.models import Proposal

Row = dict[str, Any]
Rows = list[Row]
Runs = Mapping[str, Sequence[float]]  # scores by task, one for each run

SCORE, SHORTCUT = "/score", "/shortcut_"  # of the metrics' names, after that of their task
ALL = "all tasks"


@dataclass(frozen=True)
class Subject:
    """Whose scores a row is of: an agent with all that it proposed, or one reference."""

    name: str
    role: str
    candidates: set[int]


def rates(db: Session, level: float, by_task: Rows) -> Rows:
    """For each agent how many of its proposals ended, how many of those became measured candidates, that
    share, its interval (Wilson's) at the level, and its mean normalised scores in the rows of `tasks`.

    What failed as a proposal, at the gate or in training counts against an agent, and so does a duplicate
    of its own. What is still under way does not count at all.
    """
    ended = [e for e in queries.evaluations(db) if not e.sealed and e.state in ("done", "failed")]
    known = {e.candidate_id for e in ended}
    measured = {e.candidate_id for e in ended if e.state == "done"}
    everything = queries.proposals(db)
    return [
        {"agent": agent.name, "role": agent.role}
        | _rate([p for p in everything if p.agent_id == agent.id], known, measured, level)
        | _means(
            [row for row in by_task if (row["agent"], row["role"]) == (agent.name, agent.role)]
        )
        for agent in queries.agents(db)
        if agent.role != "reference"
    ]


def _rate(proposals: Sequence[Proposal], known: set[int], measured: set[int], level: float) -> Row:
    """``known`` are the candidates that have been evaluated, ``measured`` those that have a score."""
    lost = sum(p.status in ("failed", "duplicate") for p in proposals)
    accepted = [p.candidate_id for p in proposals if p.status == "accepted"]
    ended, valid = lost + sum(c in known for c in accepted), sum(c in measured for c in accepted)
    share, low, high = None, None, None
    if ended:
        share = valid / ended
        low, high = stats.binomtest(valid, ended).proportion_ci(level, method="wilson")
    numbers = {"asked": ended, "measured": valid, "valid": share}
    return numbers | {"valid_low": low, "valid_high": high}


def _means(own: Rows) -> Row:
    """An agent's mean normalised scores over the tasks, as the search saw them and confirmed."""
    last = {row["sealed"]: row for row in own}
    nothing = {"normalised": None, "undefined": "no run"}
    seen, confirmed = (last.get(sealed, nothing) for sealed in (False, True))
    return {
        "normalised": seen["normalised"],
        "undefined": seen["undefined"],
        "confirmed": confirmed["normalised"],
        "confirmed_undefined": confirmed["undefined"],
    }


def tasks(db: Session, rung: int) -> Rows:
    """Raw and normalised scores at a rung by agent or reference and task, with the number of runs behind
    them: those on the sealed split first, then what the search saw. Where there are several tasks, the mean
    over all of them follows. Blind rules on the same data stand at the end of their split."""
    subjects, table = list(_subjects(db)), queries.runs(db, SCORE, rung)
    blind = queries.means(db, lambda name: SHORTCUT in name)
    rows: Rows = []
    for sealed in (True, False):
        found = {c: runs for (c, kind), runs in table.items() if kind == sealed}
        for subject, runs, scales in _scaled(subjects, found):
            rows += _rows(subject, runs, scales, sealed)
        rows += _blind([means for (_, kind), means in blind.items() if kind == sealed], sealed)
    return rows


def _subjects(db: Session) -> Iterator[Subject]:
    """The agents in the recipe's order, each reference by itself."""
    found: dict[int, dict[int, str]] = {agent.id: {} for agent in queries.agents(db)}
    for p in queries.proposals(db):
        if p.candidate is not None:
            found[p.agent_id][p.candidate.id] = p.candidate.name or p.candidate.pattern
    for agent in queries.agents(db):
        names = found[agent.id]
        if agent.role == "reference":
            yield from (Subject(name, agent.role, {id_}) for id_, name in names.items())
        else:
            yield Subject(agent.name, agent.role, set(names))


def _scaled(
    subjects: Sequence[Subject], found: Mapping[int, Runs]
) -> Iterator[tuple[Subject, Runs, dict[str, Scale]]]:
    """Whoever has runs, with the scales of all tasks."""
    own = [(s, _together([found[c] for c in s.candidates & found.keys()])) for s in subjects]
    references = [runs for subject, runs in own if subject.role == "reference" and runs]
    scales = {
        task: Scale.of(scores, [runs[task] for runs in references])
        for task, scores in _together(found.values()).items()
    }
    return ((subject, runs, scales) for subject, runs in own if runs)


def _together(parts: Iterable[Runs]) -> dict[str, list[float]]:
    """The runs of several candidates."""
    runs: dict[str, list[float]] = defaultdict(list)
    for part in parts:
        for task, scores in part.items():
            runs[task] += scores
    return runs


def _rows(subject: Subject, runs: Runs, scales: Mapping[str, Scale], sealed: bool) -> Iterator[Row]:
    who = {"agent": subject.name, "role": subject.role, "sealed": sealed}
    rows = [who | _row(task, scores, scales[task]) for task, scores in runs.items()]
    yield from rows
    if len(rows) > 1:
        yield who | _mean(rows)


def _row(task: str, scores: Sequence[float], scale: Scale) -> Row:
    return {
        "task": task,
        "runs": len(scores),
        "score": fmean(scores),
        "best": max(scores),
        "normalised": scale.mean(scores),
        "undefined": scale.undefined(scores),
    }


def _mean(rows: Rows) -> Row:
    """The mean over the tasks; no normalised score where one of them has none."""
    known = [row["normalised"] for row in rows if row["normalised"] is not None]
    missing = len(rows) - len(known)
    return {
        "task": ALL,
        "runs": rows[0]["runs"],
        "score": fmean(row["score"] for row in rows),
        "best": None,
        "normalised": None if missing else fmean(known),
        "undefined": f"{missing} of {len(rows)} tasks" if missing else "",
    }


def _blind(found: Sequence[Mapping[str, float]], sealed: bool) -> Iterator[Row]:
    """What rules that ignore a task's structure reach, over the data of all candidates."""
    for name in dict.fromkeys(name for means in found for name in means):
        task, _, rule = name.partition(SHORTCUT)
        values = [means[name] for means in found if name in means]
        row = {"task": task, "runs": len(values), "score": fmean(values), "best": max(values)}
        nothing = {"normalised": None, "undefined": "no agent"}
        yield {"agent": rule, "role": "blind rule", "sealed": sealed} | row | nothing
