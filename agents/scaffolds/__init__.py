"""Scaffolds by short name; another is named in a recipe by import path (`package.module:Class`)."""

from agents.scaffolds.base import Decision, Scaffold
from agents.scaffolds.evolution import Evolution
from agents.scaffolds.greedy import Greedy
from agents.scaffolds.incumbent import Incumbent
from agents.scaffolds.map_elites import MapElites
from agents.scaffolds.mcts import Mcts
from agents.scaffolds.one_shot import OneShot
from agents.scaffolds.tournament import Tournament
from agents.scaffolds.workspace import Workspace

WITH_TOOLS = ("workspace",)  # whose slots are sessions: for models that write code, and nobody else
SCAFFOLDS: dict[str, type[Scaffold]] = {
    "one-shot": OneShot,
    "greedy": Greedy,
    "incumbent": Incumbent,
    "tournament": Tournament,
    "mcts": Mcts,
    "evolution": Evolution,
    "map-elites": MapElites,
    "workspace": Workspace,
}

__all__ = ["SCAFFOLDS", "WITH_TOOLS", "Decision", "Scaffold"]
