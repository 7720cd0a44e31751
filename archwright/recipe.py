"""The recipe: what a campaign is, as YAML checked by pydantic. Every field is in `runs/README.md`.

Reads, overrides and validates; it starts nothing. Unknown keys are errors that name the nearest key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from search_space.pattern import nearest

HERE = Path(__file__).parent
RECIPES = HERE / "recipes" if (HERE / "recipes").is_dir() else HERE.parent / "runs"

MODEL_PROPOSERS = ("llm", "best-of-n")  # those that `model` and --llm are for
RECORDED = "recorded"  # answers from the ledger of an earlier run
CODERS = ("llm", "scripted", RECORDED)  # those that hold sessions with tools
# Those that write source code, by the kind of campaign.
MODELS = (*MODEL_PROPOSERS, "scripted", RECORDED)
WRITERS = {"module": ("grammar", "fixed", *MODELS), "script": ("knobs", "fixed", *MODELS)}
DEFAULT_CODES = ("A", "M", "Mb")


class RecipeError(ValueError):
    """A recipe that cannot be used, in one sentence with the place, the rule and the way out."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WrittenSection(Section):
    """A primitive that an earlier run wrote; all but ``ledger`` is filled in when a run begins."""

    ledger: str
    source: str = ""
    params: int = 0
    flops_per_token: float = 0.0
    state: int = 0

    @field_validator("ledger")
    @classmethod
    def _named(cls, value: str) -> str:
        if not re.fullmatch(r"ledger:.+/[0-9]{1,9}", value):
            raise ValueError(
                "a written primitive is ledger:RUN/ID, a run's folder or name and a candidate of it, "
                f"not {value!r}"
            )
        return value

    @property
    def run(self) -> str:
        """The run's folder or name."""
        return self.ledger.removeprefix("ledger:").rpartition("/")[0]

    @property
    def candidate(self) -> int:
        """The candidate's id in that run."""
        return int(self.ledger.rpartition("/")[2])


class SpaceSection(Section):
    """What is searched."""

    primitives: tuple[str, ...] = DEFAULT_CODES
    written: dict[str, WrittenSection] = {}
    layers: tuple[int, int] = (6, 8)
    preset: str = "mini"
    options: bool = False

    @model_validator(mode="before")
    @classmethod
    def _with_origins(cls, data: Any) -> Any:
        """``primitives`` as codes, those of `{X: ledger:RUN/ID}` also in ``written``; such a mapping in
        place of the list adds to the default."""
        given = data.get("primitives") if isinstance(data, dict) else None
        if isinstance(given, dict):
            given = [*DEFAULT_CODES, given]
        if not isinstance(given, list):
            return data
        origins = {k: v for item in given if isinstance(item, dict) for k, v in item.items()}
        codes = [code for item in given for code in (item if isinstance(item, dict) else [item])]
        written = {code: {"ledger": origin} for code, origin in origins.items()}
        return {**data, "primitives": codes, "written": {**data.get("written", {}), **written}}

    @field_validator("layers", mode="before")
    @classmethod
    def _one_depth(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _ordered(self) -> SpaceSection:
        if not 1 <= self.layers[0] <= self.layers[1] <= 256:
            raise ValueError(
                f"layers is [smallest, largest] between 1 and 256, not {list(self.layers)}"
            )
        if not self.primitives:
            raise ValueError("primitives needs at least one code, e.g. [A, M]")
        return self

    @model_validator(mode="after")
    def _coded(self) -> SpaceSection:
        for code in self.written:
            if not re.fullmatch(r"[A-Z][a-z]*", code):
                raise ValueError(
                    f"primitives: a code is a capital letter, then lower-case letters, not {code!r}"
                )
            if (times := self.primitives.count(code)) != 1:
                raise ValueError(
                    f"primitives has the written {code} {times} times: give each a code of its own"
                )
        return self


class SandboxSection(Section):
    """Where written code runs, and the secret that keeps it from what it is scored on."""

    require_sandbox: Literal["process", "landlock", "bubblewrap"] = "landlock"
    unsafe_sandbox: bool = False
    salt: int | None = Field(default=None, ge=0)


class ModuleSection(SandboxSection):
    """What written modules are held to."""

    pattern: str = "3(X+M)"
    mode: Literal["fixed", "configurable"] = "fixed"
    max_cost: Literal["auto", "linear", "nlogn", "quadratic"] = "auto"
    budget: float = Field(default=2.0, gt=0)
    gate_seconds: float = Field(default=30.0, gt=0)


class ScriptSection(SandboxSection):
    """What training scripts start from, what they may use, and what it takes to replace the best one."""

    baseline: str | None = None
    seconds: float = Field(default=300, gt=0)
    max_params: int = Field(default=10_000_000, ge=1)
    repeats: int = Field(default=3, ge=2)
    block: int = Field(default=8, ge=1)


class EvaluationSection(Section):
    """How a candidate is scored."""

    profile: str = "mad-mini"
    tasks: tuple[str, ...] = ()
    timeout_seconds: float | None = Field(default=600, gt=0)


class AgentSection(Section):
    """One agent, of the search or a control."""

    name: str
    proposer: str
    scaffold: str | None = None
    model: str | None = None
    options: dict[str, Any] = {}
    scaffold_options: dict[str, Any] = {}


class BudgetSection(Section):
    """When the search ends: whatever is reached first."""

    evaluations: int = Field(default=16, ge=1)
    seconds: float | None = Field(default=None, gt=0)
    calls: int | None = Field(default=None, ge=0)
    usd: float | None = Field(default=None, ge=0)


class RungsSection(Section):
    """How far candidates are trained before the best of them go on; one rung trains all in full."""

    count: int = Field(default=1, ge=1)
    eta: int = Field(default=3, ge=2)

    @property
    def last(self) -> int:
        """The rung at which training is complete."""
        return self.count - 1


class ReferencesSection(Section):
    """Fixed patterns measured beside the search; they also give the noise floor."""

    patterns: dict[str, str] = {}
    seeds: int = Field(default=2, ge=1)


class ConfirmSection(Section):
    """The sealed confirmation at the end."""

    finalists: int = Field(default=3, ge=0)
    seeds: int = Field(default=3, ge=2)
    level: float = Field(default=0.95, gt=0.5, lt=1)


class Recipe(Section):
    """A campaign, complete."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    seed: int = Field(default=0, ge=0, lt=2**31)
    kind: Literal["composition", "module", "script"] = "composition"
    evaluation: EvaluationSection = EvaluationSection()
    module: ModuleSection = Field(default=ModuleSection(), validate_default=True)
    script: ScriptSection = ScriptSection()
    space: SpaceSection = SpaceSection()
    agents: tuple[AgentSection, ...] = Field(min_length=1)
    controls: tuple[AgentSection, ...] = ()
    budget: BudgetSection = BudgetSection()
    rungs: RungsSection = RungsSection()
    references: ReferencesSection = ReferencesSection()
    confirm: ConfirmSection = ConfirmSection()
    literature: str | None = None
    workers: int | None = Field(default=None, ge=1)
    lag: int | None = Field(default=None, ge=1)
    reproducible: bool = True
    prices: dict[str, Any] = {}

    @property
    def sandbox(self) -> SandboxSection:
        """Where the written code of this kind of campaign runs."""
        return self.script if self.kind == "script" else self.module

    @field_validator("module")
    @classmethod
    def _cost_class(cls, module: ModuleSection, found: ValidationInfo) -> ModuleSection:
        """The Long Range Arena is for sub-quadratic models, unless a recipe says otherwise."""
        evaluation = found.data.get("evaluation")
        if module.max_cost != "auto" or evaluation is None:
            return module
        long = evaluation.profile.startswith("lra-")
        return module.model_copy(update={"max_cost": "nlogn" if long else "quadratic"})

    @model_validator(mode="after")
    def _distinct(self) -> Recipe:
        names = [agent.name for agent in (*self.agents, *self.controls)] + ["references"]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"agent name {sorted(twice)[0]!r} is used twice: rename one")
        return self

    @property
    def sandboxed(self) -> bool:
        """Whether candidates may hold written code, so that all are trained and scored in the sandbox."""
        return self.kind != "composition" or bool(self.space.written)


def load(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file or of a shipped name, with `key.path=value` overrides. Raises RecipeError."""
    path = find(source)
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise RecipeError(f"recipe {path}: cannot be read as YAML ({_flat(error)})") from error
    if not isinstance(data, dict):
        raise RecipeError(f"recipe {path}: must be a mapping of fields, e.g. `name: my-search`")
    for override in overrides:
        _override(data, override)
    return parse(data, str(path))


def parse(data: Mapping[str, Any], place: str = "recipe") -> Recipe:
    """The recipe of a mapping. Raises RecipeError."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{place}: {_sentence(error)}") from error


def with_model(recipe: Recipe, model: str) -> Recipe:
    """The recipe with this model for its agents that ask one, and for such controls as name none; where no
    agent asks one, one that does replaces them."""
    data = recipe.model_dump(mode="json")
    if not any(agent["proposer"] in MODEL_PROPOSERS for agent in data["agents"]):
        scaffold = "incumbent" if recipe.kind == "script" else None
        data["agents"] = [{"name": "llm", "proposer": "llm", "scaffold": scaffold}]
    nameless = [control for control in data["controls"] if control["model"] is None]
    for agent in (*data["agents"], *nameless):
        if agent["proposer"] in MODEL_PROPOSERS:
            agent["model"] = model
    return parse(data, "recipe with --llm")


def find(source: str | Path) -> Path:
    """The file of a recipe: a path, or the name of a shipped one. Raises RecipeError."""
    shipped = {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}
    if str(source) in shipped:
        return shipped[str(source)]
    path = Path(source)
    if not path.is_file():
        raise RecipeError(
            f"no recipe {str(source)!r}: give a YAML file or one of {', '.join(shipped)}"
        )
    return path


def _override(data: dict[str, Any], text: str) -> None:
    """Set one `key.path=value` in the data, the value read as YAML."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise RecipeError(f"--set {text!r}: write key=value, e.g. budget.evaluations=20")
    *parents, last = path.split(".")
    node: Any = data
    for key in parents:
        node = _child(node, key, text)
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {text!r}: the value is not YAML ({_flat(error)})") from error
    if isinstance(node, list):
        node[_index(node, last, text)] = parsed
    else:
        node[last] = parsed


def _child(node: Any, key: str, text: str) -> Any:
    child = node[_index(node, key, text)] if isinstance(node, list) else node.setdefault(key, {})
    if not isinstance(child, dict | list):
        raise RecipeError(f"--set {text!r}: {key} is a value, it has no fields: shorten the path")
    return child


def _index(node: list[Any], key: str, text: str) -> int:
    if not (key.isascii() and key.isdigit()) or int(key) >= len(node):
        raise RecipeError(f"--set {text!r}: {key!r} is no position in a list of {len(node)}")
    return int(key)


def _sentence(error: ValidationError) -> str:
    """The first problem of a validation error, in one sentence."""
    problem = error.errors()[0]
    place = ".".join(map(str, problem["loc"])) or "the recipe"
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        known = _fields_at(problem["loc"][:-1])
        return f"unknown key {place!r}: the nearest known keys are {nearest(key, known)}"
    message = problem["msg"].removeprefix("Value error, ")
    value = "" if problem["type"] in ("missing", "value_error") else f", not {problem['input']!r}"
    return f"field {place}: {message}{value}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """The names of the fields of the section at a place of the recipe."""
    section: type[BaseModel] = Recipe
    for key in location:
        if key in section.model_fields:  # else a place in a list or a mapping of sections
            section = _section(section.model_fields[str(key)].annotation)
    return list(section.model_fields)


def _section(annotation: Any) -> type[BaseModel]:
    """The section in an annotation such as `Section`, `tuple[Section, ...]` or `dict[str, Section]`."""
    inside = (annotation, *getattr(annotation, "__args__", ()))
    return next(a for a in inside if isinstance(a, type) and issubclass(a, BaseModel))


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())
