"""An agent: a scaffold and a proposer over a space. Ray runs it as an actor; so can a plain call.

Stateless: it is given a view and a seed and returns an answer. It never trains and never writes.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.literature import Digest
from agents.proposers import PROPOSERS, Proposer, Request, Writing
from agents.scaffolds import SCAFFOLDS, Scaffold
from agents.workspace.workbench import Workbench
from search_space.pattern import nearest
from search_space.space import Space
from storage.records import Answer, Money, View


@dataclass(frozen=True)
class AgentSpec:
    """All that an agent is made of. ``proposer`` and ``scaffold`` are short names or import paths;
    ``options`` and ``scaffold_options`` are their constructor arguments."""

    name: str
    proposer: str
    space: Space
    scaffold: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    scaffold_options: Mapping[str, Any] = field(default_factory=dict)
    goal: str = ""
    notes: str = ""
    literature: tuple[Digest, ...] = ()
    writing: Writing | None = None
    bench: Workbench | None = None


class Agent:
    """Answers what to evaluate next."""

    def __init__(self, spec: AgentSpec) -> None:
        """Raises ValueError for a name or an option that does not exist."""
        self.spec = spec
        self.proposer: Proposer = make(spec.proposer, PROPOSERS, spec.options, "proposer")
        self.scaffold_name = spec.scaffold or self.proposer.scaffold
        self.scaffold: Scaffold = make(
            self.scaffold_name, SCAFFOLDS, spec.scaffold_options, "scaffold"
        )

    def quote(self, view: View, seed: int) -> Money | None:
        """The most that `propose` with the same arguments can cost; None when no model is called."""
        return self.proposer.quote(self._request(view, seed))

    async def propose(self, view: View, seed: int) -> Answer:
        """The answer for the slot with this view and seed."""
        return await self.proposer.propose(self._request(view, seed))

    def _request(self, view: View, seed: int) -> Request:
        decision = self.scaffold.next(view, random.Random(f"scaffold {seed}"))
        spec = self.spec
        told = spec.goal, spec.notes, spec.literature, spec.writing, spec.bench
        return Request(decision, view, spec.space, seed, *told)


def make(name: str, known: Mapping[str, type[Any]], options: Mapping[str, Any], what: str) -> Any:
    """The object of a short name or an import path. Raises ValueError naming the way out."""
    if ":" in name:
        kind = _imported(name, what)
    elif name in known:
        kind = known[name]
    else:
        raise ValueError(
            f"unknown {what} {name!r}: the nearest are {nearest(name, known)}, "
            "or name a class as package.module:Class"
        )
    try:
        return kind(**options)
    except TypeError as error:
        raise ValueError(f"{what} {name} refused its options ({error}): change them") from error


def _imported(path: str, what: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot import the {what} {path!r} ({error}): check the path") from error
