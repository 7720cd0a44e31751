"""Mode `configurable` on nested lists: a file's settings are held to the recipe's budget, trained with,
kept, and told; and what a campaign reports of its agents' submissions. In this process; the sandbox is real.
"""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_written import HONEST, Row, reading, recipe, rows, run

from archwright import console, inspection, report, written
from archwright.campaign import Campaign
from archwright.executor import LocalExecutor
from archwright.recipe import RecipeError, load, parse
from archwright.replay import replay
from archwright.setup import agent_specs, check
from sandbox.contract import load as mixer_of
from sandbox.contract import written as primitive
from sandbox.gate import Budget
from sandbox.settings import Settings
from search_space.model import Model
from search_space.presets import preset
from search_space.primitives import CATALOGUE, Cost

LISTOPS: Row = {
    "module": {"pattern": "2(X+M)", "mode": "configurable"},
    "evaluation": {"profile": "lra-listops-smoke", "tasks": []},
}


def setting(values: str) -> str:
    return HONEST.replace(
        "from torch import nn\n", f"from torch import nn\n\nSETTINGS = {values}\n"
    )


DEEP = setting('{"lr": 0.01, "depth": 3, "width": 48}')
SOURCES = {
    "deep": DEEP,
    "faster": DEEP.replace("0.01", "0.02"),  # the same mixer
    "again": DEEP.replace("self.value", "self.entry"),
    "unknown": setting('{"heads": 2}'),
    "outside": setting('{"lr": 5}'),
    "over": setting('{"depth": 8, "width": 128}'),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    options = {"sources": list(SOURCES.values())}
    agent = {"name": "writer", "proposer": "fixed", "options": options}
    budget = {"evaluations": len(SOURCES)}
    chosen = recipe(
        agents=[agent],
        budget=budget,
        references={"patterns": {"h": "2(H+M)"}, "seeds": 1},
        **LISTOPS,
    )
    return run(tmp_path_factory.mktemp("configurable") / "run", chosen)


def slot(ended: Campaign, name: str) -> Any:
    return ended.slots[1 + list(SOURCES).index(name)]  # after the reference's


def test_settings_are_part_of_what_a_candidate_is(ended: Campaign) -> None:
    deep, faster, again = (slot(ended, name).candidate for name in ("deep", "faster", "again"))
    assert deep != faster
    assert again == deep
    found = dict(rows(ended.folder, "SELECT id, pattern || ' ' || name FROM candidate"))
    assert found[deep].startswith("3(X+M) mixer-")
    assert found[deep].endswith(" lr=0.01 depth=3 width=48")
    assert found[faster].endswith(" lr=0.02 depth=3 width=48")


def test_the_same_mixer_with_another_rate_is_no_copy_and_scores_otherwise(ended: Campaign) -> None:
    loss = (
        "SELECT value FROM measurement m JOIN evaluation e ON e.id = m.evaluation_id "
        "WHERE metric = 'lra-listops/loss' AND NOT sealed AND candidate_id = "
    )
    values = [rows(ended.folder, f"{loss}{slot(ended, n).candidate}") for n in ("deep", "faster")]
    assert all(values)
    assert values[0] != values[1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unknown", "SETTINGS has no 'heads'"),
        ("outside", "lr is a number from 1e-05 to 0.1, not 5"),
        ("over", "8(X+M) at width 128 is over the recipe's budget without a mixer"),
    ],
)
def test_settings_out_of_bounds_are_failed_proposals(ended: Campaign, name: str, said: str) -> None:
    where = f"SELECT status, failure, detail FROM proposal WHERE id = {slot(ended, name).proposal}"
    [(status, failure, detail)] = rows(ended.folder, where)
    assert (status, failure) == ("failed", "invalid-source")
    assert said in detail


def test_the_cost_is_counted_again_at_the_new_size(ended: Campaign, tmp_path: Path) -> None:
    (tmp_path / "mixer.py").write_text(DEEP)
    size = Settings(width=48).size(preset("mini"))
    catalogue = {**CATALOGUE, "X": primitive(mixer_of(tmp_path / "mixer.py"), size.length)}
    model = Model(written.pattern_of("3(X+M)"), size, 7, catalogue=catalogue)
    counted = sum(p.numel() for p in model.parameters()) - 2 * 7 * size.width
    query = f"SELECT params FROM candidate WHERE id = {slot(ended, 'deep').candidate}"
    assert rows(ended.folder, query) == [(counted,)]


def cost_of(budget: Budget) -> Cost:
    return Cost(budget.params, budget.flops_per_token, 0, 0, 0)


@pytest.mark.parametrize("text", ["2(X+M)", "A+M+3(X+M)", "2X+4M"])
def test_whatever_the_settings_the_whole_model_has_the_recipes_budget(text: str) -> None:
    chosen = recipe(module={"pattern": text, "mode": "configurable", "budget": 3.0})
    size, plain = preset("mini"), written.allowance(chosen, Settings())
    pattern = written.pattern_of(text)
    whole = written.cost_in(pattern, size, cost_of(plain))
    for settings in (Settings(width=48), Settings(width=80), Settings(depth=2, width=48)):
        budget, own = written.allowance(chosen, settings), settings.pattern(pattern)
        found = written.cost_in(own, settings.size(size), cost_of(budget))
        mixers = sum(layer.code == "X" for layer in own.layers)
        assert whole.params - mixers < found.params <= whole.params
        assert found.flops_per_token == pytest.approx(whole.flops_per_token)
        assert budget.width == settings.size(size).width


def test_a_resumed_run_changes_nothing_and_a_replay_has_the_same_bits(ended: Campaign) -> None:
    before = rows(ended.folder, "SELECT * FROM measurement")
    Campaign.open(ended.folder).run(LocalExecutor(1))
    assert rows(ended.folder, "SELECT * FROM measurement") == before
    with reading(ended.folder) as db:
        again = replay(db, ended.folder, slot(ended, "faster").candidate)
    assert again["match"]


def test_in_mode_fixed_a_file_with_settings_is_refused() -> None:
    chosen = recipe(module={"pattern": "2(X+M)"})
    with pytest.raises(
        ValueError, match=r"SETTINGS \(lr=0.01 depth=3 width=48\).*fixed: take them"
    ):
        written.module(DEEP, chosen)
    assert written.module(HONEST, chosen).pattern == "2(X+M)"


def test_where_layers_share_weights_the_mode_is_refused() -> None:
    with pytest.raises(RecipeError, match="share weights"):
        check(recipe(module={"pattern": "2*(X+M)", "mode": "configurable"}))


def test_the_grammar_departs_from_the_recipes_own_settings() -> None:
    agent = {"name": "g", "proposer": "grammar"}
    chosen = recipe(agents=[agent], **LISTOPS)
    [spec] = [spec for spec in agent_specs(chosen) if spec.name == "g"]
    assert spec.options == {"settings": {"lr": 4e-3, "depth": 2, "width": 64}}
    fixed = recipe(agents=[agent], module={"mode": "fixed"})
    assert all(not spec.options for spec in agent_specs(fixed) if spec.name == "g")


# ------------------------------------------------------------------------------------- the reports


def test_the_blind_rules_of_the_runs_own_data_stand_beside_every_score(ended: Campaign) -> None:
    with reading(ended.folder) as db:
        board, by_task, blind_rules = report.leaderboard(db), report.tasks(db), report.shortcuts(db)
    rules = {"majority", "root", "root_digits"}
    for row in board:
        assert row["shortcuts"].keys() == {f"lra-listops/shortcut_{rule}" for rule in rules}
    blind = {(r["agent"], r["sealed"]): r["score"] for r in by_task if r["role"] == "blind rule"}
    assert blind.keys() == {(rule, sealed) for rule in rules for sealed in (True, False)}
    kept = (
        "SELECT AVG(value) FROM measurement WHERE metric = 'lra-listops/shortcut_root' AND split = "
    )
    assert rows(ended.folder, f"{kept}'test'") == [(pytest.approx(blind["root", True]),)]
    assert blind["root", True] != blind["root", False]
    assert blind_rules == {
        f"lra-listops/shortcut_{rule}": pytest.approx(blind[rule, False]) for rule in rules
    }


def test_failed_refused_and_repeated_proposals_count_against_an_agent(ended: Campaign) -> None:
    with reading(ended.folder) as db:
        [row] = report.submissions(db)
    states = [state.status for state in ended.slots[1:]]
    assert states[: len(SOURCES)] == ["accepted"] * 2 + ["duplicate"] + ["failed"] * 3
    assert (row["agent"], row["asked"], row["measured"]) == ("writer", len(states), 2)
    assert row["valid"] == pytest.approx(2 / len(states))
    assert row["valid_low"] < row["valid"] < row["valid_high"]


def test_references_stand_in_the_same_table_and_the_best_is_1(ended: Campaign) -> None:
    with reading(ended.folder) as db:
        by_task, [writer] = report.tasks(db), report.submissions(db)
    found = {(row["agent"], row["sealed"]): row for row in by_task}
    assert {who for who, _ in found} == {"h", "writer", "majority", "root", "root_digits"}
    assert (found["h", True]["runs"], found["h", False]["runs"]) == (2, 1)
    scored = (
        "SELECT value FROM measurement WHERE metric = 'lra-listops/score' AND split = 'validation'"
    )
    values = [value for (value,) in rows(ended.folder, scored)]
    own = found["writer", False]
    assert (own["runs"], len(values)) == (2, 3)
    assert own["score"] == pytest.approx(sum(values[1:]) / 2)
    assert own["best"] == max(values[1:])
    for sealed, row in ((False, found["h", False]), (True, found["h", True])):
        own = found["writer", sealed]
        assert (row["normalised"] is None) == bool(row["undefined"])
        assert row["normalised"] in (None, pytest.approx(1))
        shown = writer["confirmed" if sealed else "normalised"]
        assert shown == own["normalised"]


def test_the_run_ends_by_saying_so(ended: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(console, "out", said)
    with reading(ended.folder) as db:
        summary = report.summary(db, "here")
        console.leaderboard(report.leaderboard(db))
    console.outcome(summary)
    text = said.file.getvalue()  # type: ignore[attr-defined]
    assert (
        f"writer: 2 of {len(ended.slots) - 1} proposals measured, {2 / (len(ended.slots) - 1):.0%} ["
        in text
    )
    assert "mean normalised score " in text
    assert "blind rules reach, on the same data: majority 0." in text
    assert "root_digits 0." in text.partition("best, confirmed")[0]


@pytest.mark.parametrize("what", ["submissions", "tasks"])
def test_the_tables_can_be_inspected(ended: Campaign, what: str) -> None:
    with reading(ended.folder) as db:
        assert inspection.rows(db, ended.folder, what, None, "agent", 1)


# ----------------------------------------------------------------------------------- the long range


def test_the_long_range_arena_is_for_sub_quadratic_mixers_unless_the_recipe_says_otherwise() -> (
    None
):
    plain = {"name": "x", "kind": "module", "agents": [{"name": "g", "proposer": "grammar"}]}
    long = plain | {"evaluation": {"profile": "lra-listops-mini"}}
    assert parse(plain).module.max_cost == "quadratic"
    assert parse(long).module.max_cost == "nlogn"
    assert parse(long | {"module": {"max_cost": "quadratic"}}).module.max_cost == "quadratic"
    assert written.terms_of(parse(long), ()).max_cost == "nlogn"
    stored = parse(long).model_dump(mode="json")
    assert parse(stored) == parse(long)
    assert load("design-listops").module.max_cost == "nlogn"
    assert asdict(written.terms_of(load("design-listops"), ()))["known"] == ()
