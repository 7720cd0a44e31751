"""What a person or a script sees: tables, live progress on stderr, the JSON last line on stdout.

Decides nothing; the rows come from `archwright.report`. Numbers are rounded here, for the eye only.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from archwright.campaign import Progress
from archwright.recipe import Recipe
from archwright.schedule import STOPPING
from archwright.setup import arms_of, references_of

# Where stdout is no terminal nobody wraps the lines, so tables may be as wide as they are.
out = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
err = Console(stderr=True, highlight=False)


def emit(data: Mapping[str, Any]) -> None:
    """Print one JSON object on one line of stdout."""
    sys.stdout.write(json.dumps(_finite(data), default=_plain) + "\n")


def _finite(value: Any) -> Any:
    """The value with null for numbers that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def table(rows: Sequence[Mapping[str, Any]], title: str, columns: Sequence[str] = ()) -> None:
    """Print rows as a table, with all their columns or the ones named."""
    if not rows:
        out.print(f"{title}: nothing to show")
        return
    names = columns or list(rows[0])
    grid = Table(
        title=Text(title),
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in names:
        numeric = isinstance(rows[0].get(name), int | float)
        grid.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(
            *(Text(shown(name, row.get(name))) for name in names)
        )  # brackets are no markup
    out.print(grid)


def shown(name: str, value: Any) -> str:
    """A column's value for the eye; money that is not known is said to be so, since it is not nothing."""
    return "unknown" if value is None and name in ("usd", "cost_usd") else cell(value)


def cell(value: Any) -> str:
    """A value for the eye: floats to four digits, nothing as a dash, and no control characters, which
    a model may have written and a terminal would obey."""
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
        case list() | dict():
            return json.dumps(value, default=_plain)
        case _:
            return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in str(value))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def details(row: Mapping[str, Any]) -> None:
    """Print one record, a field a line; lists of records as tables below it."""
    nested = {k: v for k, v in row.items() if isinstance(v, list) and v and isinstance(v[0], dict)}
    for key, value in row.items():
        if key not in nested:
            out.print(f"[bold]{key}[/bold]: ", end="")
            out.print(shown(key, value), markup=False, soft_wrap=True)
    for key, value in nested.items():
        table(value, key)


def conversation(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what was said, each with who said it above."""
    for row in rows:
        tool = f", {cell(row['tool'])}" if row["tool"] else ""
        out.print(Text(f"\n{row['turn']}. {row['who']}{tool}", style="bold"))
        out.print(cell(_told(row)), markup=False, soft_wrap=True)


def _told(row: Mapping[str, Any]) -> str:
    """A text; of a tool's call the arguments, one after the other, with their lines as lines."""
    try:
        found = json.loads(row["text"]) if row["who"] == "agent" and row["tool"] else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return str(row["text"])
    return "\n".join(f"{key}: {value}" for key, value in found.items()) or "no arguments"


BOARD = ("rank", "id", "architecture", "score", "tied", "params", "FLOPs", "agent", "n")


def leaderboard(rows: Sequence[Mapping[str, Any]]) -> None:
    """The leaderboard: results first, what the search saw below."""
    columns: tuple[str, ...] = ("rung", *BOARD) if any(row["rung"] for row in rows) else BOARD
    if any(row["bits_per_byte"] for row in rows):
        columns = tuple("bits a byte" if name == "FLOPs" else name for name in columns)
    if any(row["shortcuts"] for row in rows):
        columns = (*columns, "blind rules reach")
    data = (
        "; generated stand-ins: NOT the benchmark's data" if any(r["standin"] for r in rows) else ""
    )
    for sealed, title in (
        (True, "Results: fresh seeds, sealed split"),
        (False, "Seen by the search only (validation; it flatters whatever was chosen)"),
    ):
        chosen = [_board_row(row) for row in rows if row["sealed"] == sealed]
        if chosen:
            table(chosen, title + data, columns)


def _board_row(row: Mapping[str, Any]) -> dict[str, Any]:
    error = "±?" if row["stderr"] is None else f"±{row['stderr']:.4f}"
    return {
        **row,
        "id": row["candidate"],
        "score": f"{row['score']:.4f} {error}",
        "tied": "tied" if row["tied"] else "",
        "architecture": f"{row['pattern']}  {row['name'] or ''}".rstrip(),
        "FLOPs": None if row["flops_ratio"] is None else f"{row['flops_ratio']:.2f}x",
        "bits a byte": row["bits_per_byte"],
        "n": row["evaluations"],
        "blind rules reach": ladder(row["shortcuts"]),
    }


def ladder(shortcuts: Mapping[str, float]) -> str:
    """What rules that ignore the task's structure reach, to be read beside a score."""
    return ", ".join(f"{k.rpartition('shortcut_')[2]} {v:.3f}" for k, v in shortcuts.items())


def blind(shortcuts: Mapping[str, float]) -> None:
    """What rules that ignore the task's structure reach, where there are such rules."""
    if shortcuts:
        out.print(f"blind rules reach, on the same data: {ladder(shortcuts)}")


def outcome(summary: Mapping[str, Any]) -> None:
    """The closing sentences of a run."""
    best = summary["best"]
    if best is None:
        err.print(f"{summary['run']}: no candidate has a score")
        return
    kind = "best, confirmed" if best["sealed"] else "best so far, not confirmed"
    name = f" ({best['name']})" if best["name"] else ""
    out.print(
        f"{kind}: candidate {best['candidate']}{name} {best['pattern']}, found by {best['agent']}"
    )
    if best["standin"]:
        out.print("the data are generated stand-ins: compare these scores with no published ones")
    blind(best["shortcuts"])
    for control in summary["controls"]:
        out.print(_advantage(control))
    if summary["kind"] != "composition":
        for row in summary["submissions"]:
            out.print(_submissions(row), markup=False)
    for row in summary["rungs"]:
        out.print(_correlation(row))
    for row in summary["challenges"]:
        out.print(_challenge(row))
    for row in summary["drift"][1:]:
        out.print(_drift(row))
    for agent, reason in summary["stopped"].items():
        out.print(_stopped(agent, reason), markup=False)
    if summary["spend"]["calls"]:
        out.print(_spend(summary["spend"]))
    out.print(
        f"{summary['evaluations']} evaluations, {summary['failures']} failures, "
        f"{summary['seconds']:.0f} s; inspect: archwright inspect {summary['run']}"
    )


def _advantage(control: Mapping[str, Any]) -> str:
    """What the search gained over a control, and whether that can be told from nothing."""
    if control["advantage"] is None:
        return f"search advantage over {control['agent']}: the search has no confirmed candidate"
    text = f"search advantage over {control['agent']}: {control['advantage']:+.4f}"
    if control["low"] is None:
        return text
    verdict = "" if control["low"] > 0 else "; not better beyond the noise"
    return f"{text} [{control['low']:+.4f}, {control['high']:+.4f}]{verdict}"


def _submissions(row: Mapping[str, Any]) -> str:
    """How many of an agent's proposals were measured, and how they did against the references."""
    text = f"{row['agent']}: {row['measured']} of {row['asked']} proposals measured"
    if row["valid"] is not None:
        text += f", {row['valid']:.0%} [{row['valid_low']:.0%}, {row['valid_high']:.0%}]"
    seen = _normalised(row["normalised"], row["undefined"])
    confirmed = _normalised(row["confirmed"], row["confirmed_undefined"])
    return f"{text}; mean normalised score {seen} as the search saw it, {confirmed} confirmed"


def _normalised(value: float | None, undefined: str) -> str:
    return f"undefined ({undefined})" if value is None else f"{value:.3f}"


def _correlation(row: Mapping[str, Any]) -> str:
    """How well a rung foretold the next one."""
    value, low, high = row["correlation"], row["low"], row["high"]
    text = f"rank correlation of rung {row['rung']} with rung {row['next']}: "
    text += "not known" if value is None else f"{value:+.2f}"
    text += "" if low is None else f" [{low:+.2f}, {high:+.2f}]"
    return f"{text} over {row['candidates']} candidates"


def _challenge(row: Mapping[str, Any]) -> str:
    """What a script gained over the one it challenged, and whether that is more than noise."""
    if row["gain"] is None:
        return f"{row['arm']}: {row['verdict']}, {row['reason']}"
    return (
        f"{row['arm']}: candidate {row['candidate']} {row['verdict']}: {row['gain']:+.4f} "
        f"±{row['error']:.4f} bits a byte saved over candidate {row['against']}, better with probability "
        f"{row['probability']:.3f}"
    )


def _drift(row: Mapping[str, Any]) -> str:
    """What the baseline gained or lost since the start, which is the machine's doing."""
    text = f"baseline again at slot {row['slot']}: {row['gain']:+.4f} bits a byte since the start"
    if row["low"] is None:
        return text
    told = "drift" if row["low"] > 0 or row["high"] < 0 else "within the noise"
    return f"{text} [{row['low']:+.4f}, {row['high']:+.4f}], {told}"


def _stopped(agent: str, reason: str) -> str:
    return f"agent {agent} is stopped, the others go on: {reason}; its key has to be mended"


def _spend(spend: Mapping[str, Any]) -> str:
    usd = spend["usd"]
    cost = "unknown, as the price of a model is" if usd is None else f"${usd:.4f}"
    tokens = f"{spend['input_tokens']} input and {spend['output_tokens']} output tokens"
    return f"{spend['calls']} model calls, {tokens}; cost {cost}"


class Watcher:
    """Live progress on stderr: one redrawn line on a terminal, a line per change elsewhere."""

    def __init__(self, recipe: Recipe) -> None:
        quota = sum(arm.quota for arm in arms_of(recipe))
        self.expected = quota + sum(map(len, references_of(recipe).values()))
        self.live = Live(console=err, refresh_per_second=4) if err.is_terminal else None
        self.start = time.monotonic()
        self.shown: tuple[str, int, int] | None = None
        self.stopped: set[str] = set()  # the agents of whom that was said

    def __enter__(self) -> Watcher:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def __call__(self, progress: Progress) -> None:
        self._say_who_stopped(progress)
        line = self._line(progress)
        if self.live is not None:
            self.live.update(f"{line}  {progress.seconds:.0f} s{self._eta(progress)}")
            return
        mark = progress.phase, _complete(progress, promotions=True), progress.confirmed
        if mark != self.shown:
            err.print(f"{progress.seconds:6.0f} s  {line}", soft_wrap=True)
        self.shown = mark

    def _say_who_stopped(self, progress: Progress) -> None:
        for slot in progress.slots:
            if slot.failure in STOPPING and slot.node and slot.agent not in self.stopped:
                self.stopped.add(slot.agent)
                err.print(_stopped(slot.agent, slot.node.detail), markup=False, soft_wrap=True)

    def _line(self, progress: Progress) -> str:
        nodes = [s.node for s in progress.slots if s.node is not None]
        best = max(
            (n for n in nodes if n.score is not None), key=lambda n: n.standing, default=None
        )
        seen = (
            f"best seen {best.score:.4f} {best.pattern} ({best.agent})" if best else "no score yet"
        )
        done = f"{_complete(progress)}/{self.expected} slots"
        if promotions := sum(s.promotion for s in progress.slots):
            again = any(s.again for s in progress.slots)
            done += f", {promotions} {'groups of runs again' if again else 'promotions'}"
        if progress.phase == "confirm":
            left = progress.running + progress.queued
            done = f"{progress.confirmed}/{progress.confirmed + left} evaluations"
        return f"{progress.phase}: {done}, {progress.running} running; {seen}"

    def _eta(self, progress: Progress) -> str:
        complete = _complete(progress)
        if progress.phase != "search" or not complete:
            return ""
        left = (time.monotonic() - self.start) / complete * (self.expected - complete)
        return f", search ends in about {left:.0f} s"


def _complete(progress: Progress, promotions: bool = False) -> int:
    """How many slots are complete, without those of promotions unless asked for."""
    return sum(s.node is not None for s in progress.slots if promotions or not s.promotion)
