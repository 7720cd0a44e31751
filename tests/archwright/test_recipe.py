"""Recipes: what ships works, what is wrong is named with its place, every field is documented."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from archwright.recipe import RECIPES, Recipe, RecipeError, find, load, parse, with_model
from archwright.setup import agent_records, agent_specs, arms_of, check

ROOT = Path(__file__).parents[2]
MINIMAL: dict[str, Any] = {"name": "x", "agents": [{"name": "one", "proposer": "random"}]}
SHIPPED = sorted(path.stem for path in RECIPES.glob("*.yaml"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | {"space": {"layers": [6, 8]}}))
    return path


def refused(*arguments: Any) -> str:
    """The sentence with which a recipe is refused."""
    with pytest.raises(RecipeError) as caught:
        load(*arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


# ------------------------------------------------------------------------------------ what ships


def test_there_are_recipes_to_ship() -> None:
    assert {"quickstart", "compose-mad"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_is_ready_to_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "invented")
    monkeypatch.setenv("OPENAI_API_KEY", "invented")
    recipe = load(name)
    check(recipe)
    assert recipe.name == name, "the name of the file names its runs"
    assert recipe.description
    assert recipe.controls, "without a control a winner proves nothing"


def test_the_quickstart_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    check(load("quickstart"))
    with pytest.raises(RecipeError, match="ANTHROPIC_API_KEY"):
        check(load("compose-mad"))


def test_the_stored_recipe_is_read_back_as_it_was() -> None:
    recipe = load("compose-mad")
    assert parse(recipe.model_dump(mode="json")) == recipe


def test_a_recipe_is_found_by_name_and_by_path(file: Path) -> None:
    assert find("quickstart").name == "quickstart.yaml"
    assert find(file) == file and load(file).name == "x"
    message = refused("no-such-recipe")
    assert "no-such-recipe" in message and "quickstart" in message


# ---------------------------------------------------------------------------------- unknown, wrong

MISSPELLED = [
    ({"agnets": []}, "agnets", "agents"),
    ({"space": {"layer": 3}}, "space.layer", "layers"),
    ({"budget": {"evaluation": 3}}, "budget.evaluation", "evaluations"),
    ({"evaluation": {"profle": "mad"}}, "evaluation.profle", "profile"),
    ({"references": {"pattern": {}}}, "references.pattern", "patterns"),
    ({"confirm": {"seed": 3}}, "confirm.seed", "seeds"),
    ({"controls": [{"name": "c", "proposer": "random", "modl": 1}]}, "controls.0.modl", "model"),
    (
        {"agents": [MINIMAL["agents"][0], {"name": "b", "proposer": "random", "scafold": "x"}]},
        "agents.1.scafold",
        "scaffold",
    ),
]


@pytest.mark.parametrize(("change", "place", "near"), MISSPELLED)
def test_an_unknown_key_is_named_with_its_place_and_the_nearest(
    change: dict[str, Any], place: str, near: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(MINIMAL | change, "mine.yaml")
    message = str(caught.value)
    assert message.startswith("mine.yaml: ") and "\n" not in message
    assert f"unknown key {place!r}" in message
    assert re.findall(r"'([a-z_]+)'", message.partition("nearest")[2])[0] == near


WRONG = [
    ({"name": "a b"}, "name"),
    ({"name": "../up"}, "name"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**31}, "seed"),
    ({"agents": []}, "agents"),
    ({"space": {"layers": [8, 6]}}, "space"),
    ({"space": {"layers": 0}}, "space"),
    ({"space": {"layers": 257}}, "space"),
    ({"space": {"primitives": []}}, "space"),
    ({"budget": {"evaluations": 0}}, "budget.evaluations"),
    ({"budget": {"usd": -1}}, "budget.usd"),
    ({"budget": 5}, "budget"),
    ({"confirm": {"seeds": 1}}, "confirm.seeds"),
    ({"confirm": {"level": 1}}, "confirm.level"),
    ({"confirm": {"level": 0.5}}, "confirm.level"),
    ({"workers": 0}, "workers"),
    ({"lag": 0}, "lag"),
    ({"evaluation": {"timeout_seconds": 0}}, "evaluation.timeout_seconds"),
    ({"agents": [{"proposer": "random"}]}, "agents.0.name"),
]


@pytest.mark.parametrize(("change", "place"), WRONG)
def test_a_value_out_of_its_range_is_named_with_its_place(
    change: dict[str, Any], place: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(MINIMAL | change)
    assert f"field {place}:" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("role", ["agents", "controls"])
@pytest.mark.parametrize("taken", ["one", "references"])
def test_two_agents_of_one_name_are_refused(role: str, taken: str) -> None:
    more = [*MINIMAL.get(role, []), {"name": taken, "proposer": "random"}]
    with pytest.raises(RecipeError, match=f"{taken}.*twice"):
        parse(MINIMAL | {role: more})


def test_one_number_of_layers_is_a_range_of_one() -> None:
    assert parse(MINIMAL | {"space": {"layers": 5}}).space.layers == (5, 5)


UNUSABLE = [
    ({"space": {"primitives": ["A", "Zz"]}}, "Zz"),
    ({"space": {"preset": "minni"}}, "'mini'"),
    ({"evaluation": {"profile": "smok"}}, "'smoke'"),
    ({"evaluation": {"profile": "smoke", "tasks": ["compresion"]}}, "'compression'"),
    ({"references": {"patterns": {"bad": "A+Zz"}}}, "Zz"),
    ({"references": {"patterns": {"bad": "A{head=7}"}}}, "7"),
    ({"agents": [{"name": "a", "proposer": "randm"}]}, "'random'"),
    ({"agents": [{"name": "a", "proposer": "random", "scaffold": "gredy"}]}, "'greedy'"),
    ({"agents": [{"name": "a", "proposer": "random", "options": {"x": 1}}]}, "options"),
    ({"agents": [{"name": "a", "proposer": "no.such.module:Thing"}]}, "no.such.module"),
    ({"agents": [{"name": "a", "proposer": "agents.agent:Thing"}]}, "Thing"),
    ({"agents": [{"name": "a", "proposer": "llm"}]}, "model"),
    ({"agents": [{"name": "a", "proposer": "llm", "model": "some-model"}]}, "provider"),
    ({"prices": {"m": 3}, "agents": [{"name": "a", "proposer": "llm", "model": "openai:m@http://h/"}]}, "m"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "word"), UNUSABLE)
def test_what_could_only_fail_later_is_refused_before_anything_starts(
    change: dict[str, Any], word: str
) -> None:
    recipe = parse(MINIMAL | change)
    with pytest.raises(RecipeError) as caught:
        check(recipe)
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_a_money_budget_needs_a_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "invented")
    agent = {"name": "a", "proposer": "llm", "model": "openai:nobody-knows-me"}
    unpriced = MINIMAL | {"agents": [agent], "budget": {"usd": 1}}
    with pytest.raises(RecipeError, match="price"):
        check(parse(unpriced))
    check(parse(unpriced | {"prices": {"openai:nobody-knows-me": {"input": 1, "output": 2}}}))
    check(parse(unpriced | {"budget": {"calls": 5}}))


@pytest.mark.parametrize(
    "content", [b"[1, 2]", b"", b"name: [", b"a: b: c", b"\xff\xfe", b"name: !!python/name:os.x"]
)
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    assert "mine.yaml" in refused(path)


# ---------------------------------------------------------------------------------------- --set


def test_set_reaches_every_depth(file: Path) -> None:
    recipe = load(
        file,
        [
            "seed=7",
            "budget.evaluations=3",
            "space.layers=[2, 3]",
            "space.layers.1=4",
            "agents.0.name=other",
            "agents.0.options.deep.er=1",
            "controls=[{name: c, proposer: evolution}]",
            "controls.0.scaffold_options.population=2",
            "description=a = b",
            "evaluation.timeout_seconds=null",
        ],
    )
    assert (recipe.seed, recipe.budget.evaluations, recipe.space.layers) == (7, 3, (2, 4))
    assert recipe.agents[0].name == "other"
    assert recipe.agents[0].options == {"deep": {"er": 1}}
    assert recipe.controls[0].scaffold_options == {"population": 2}
    assert recipe.description == "a = b", "only the first = separates"
    assert recipe.evaluation.timeout_seconds is None


def test_the_later_set_wins(file: Path) -> None:
    assert load(file, ["seed=1", "seed=2"]).seed == 2


BAD_SETS = [
    ("seed", "key=value"),
    ("=3", "key=value"),
    ("name.x=1", "name"),
    ("agents.0.name.x=1", "name"),
    ("agents.1.name=x", "'1'"),
    ("agents.one.name=x", "'one'"),
    ("agents.-1.name=x", "'-1'"),
    ("agents.²=x", "²"),
    ("space.layers.0.x=1", "space.layers.0.x"),
    ("space.layers.0.x.y=1", "space.layers.0.x.y"),
    ("seed=[", "YAML"),
    ("spac.layers=3", "space"),
    ("space.layer=3", "layers"),
    ("agents.0.modl=x", "model"),
    ("seed=many", "seed"),
]


@pytest.mark.parametrize(("text", "word"), BAD_SETS)
def test_a_set_that_cannot_be_done_is_refused(file: Path, text: str, word: str) -> None:
    assert word in refused(file, [text])


# ------------------------------------------------------------------------------------ with_model


def test_a_model_goes_to_every_agent_that_asks_one() -> None:
    agents = [
        {"name": "a", "proposer": "llm", "model": "openai:old"},
        {"name": "b", "proposer": "random"},
        {"name": "c", "proposer": "llm"},
    ]
    recipe = with_model(parse(MINIMAL | {"agents": agents}), "openai:new")
    assert [agent.model for agent in recipe.agents] == ["openai:new", None, "openai:new"]
    assert [agent.name for agent in recipe.agents] == ["a", "b", "c"]


def test_a_model_replaces_a_search_without_one_and_keeps_the_controls() -> None:
    quickstart = load("quickstart")
    recipe = with_model(quickstart, "openai:new")
    assert [(a.proposer, a.model) for a in recipe.agents] == [("llm", "openai:new")]
    assert recipe.controls == quickstart.controls
    assert quickstart.agents[0].proposer == "evolution", "the original is as it was"


def test_a_model_for_a_recipe_whose_control_has_the_new_agents_name_is_no_clash() -> None:
    """Either it is refused in a sentence, or the names stay distinct: the ledger has one row each."""
    recipe = parse(MINIMAL | {"controls": [{"name": "llm", "proposer": "random"}]})
    try:
        names = [agent.name for agent in agent_records(with_model(recipe, "openai:new"))]
    except RecipeError:
        return
    assert len(names) == len(set(names))


# ---------------------------------------------------------------------------- what it is made into


def test_every_arm_has_the_same_quota_and_every_agent_its_role() -> None:
    controls = [{"name": "c", "proposer": "random"}, {"name": "d", "proposer": "evolution"}]
    agents = [*MINIMAL["agents"], {"name": "two", "proposer": "evolution"}]
    recipe = parse(MINIMAL | {"agents": agents, "controls": controls, "budget": {"evaluations": 9}})
    arms = arms_of(recipe)
    assert [arm.agents for arm in arms] == [("one", "two"), ("c",), ("d",)]
    assert {arm.quota for arm in arms} == {9}
    roles = {row.name: row.role for row in agent_records(recipe)}
    expected = {"references": "reference", "one": "search", "two": "search"}
    assert roles == expected | {"c": "control", "d": "control"}


def test_notes_reach_every_agent() -> None:
    specs = agent_specs(parse(MINIMAL), "prefer attention")
    assert {spec.notes for spec in specs} == {"prefer attention"}


# ------------------------------------------------------------------------------- documentation


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections in an annotation such as `Section` or `tuple[Section, ...]`."""
    inside = [annotation, *getattr(annotation, "__args__", ())]
    return [a for a in inside if isinstance(a, type) and issubclass(a, BaseModel)]


def fields(section: type[BaseModel], prefix: str = "") -> set[str]:
    """Dotted names of all fields; agents and controls are one section, named once, as agents'."""
    found: set[str] = set()
    for name, info in section.model_fields.items():
        inner = sections(info.annotation)
        plain = inner and inner[0] is info.annotation
        if not plain:  # a value or a list is a field; a section is only the prefix of its fields
            found.add(prefix + name)
        if inner and name != "controls":
            found |= fields(inner[0], f"{prefix}{name}.")
    return found


def test_every_field_is_documented_and_nothing_else_is() -> None:
    written = (ROOT / "runs" / "README.md").read_text()
    table = written.partition("| field |")[2]
    rows = set(re.findall(r"^\| `([a-z_.]+)` \|", table, flags=re.MULTILINE))
    known = fields(Recipe)
    assert {"name", "space.layers", "agents", "agents.options", "controls"} <= known
    assert known <= set(re.findall(r"`([a-z_.]+)`", written))
    assert rows <= known, "the README describes a field that does not exist"


def test_the_documented_defaults_are_the_defaults() -> None:
    """Of the fields whose default is a number or a word."""
    written = (ROOT / "runs" / "README.md").read_text()
    cells = dict(re.findall(r"^\| `([a-z_.]+)` \|.*\| ([^|]+) \|$", written, flags=re.MULTILINE))
    dump = parse(MINIMAL).model_dump()
    compared = 0
    for path, cell in cells.items():
        value: Any = dump
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float | str) and cell not in ("required", "empty"):
            assert yaml.safe_load(cell.replace(" .", " 0.")) in (value, str(value)), path
            compared += 1
    assert compared >= 8
