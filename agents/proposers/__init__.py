"""Proposers by short name; another is named in a recipe by import path (`package.module:Class`)."""

from agents.proposers.base import Proposer, Request, Writing
from agents.proposers.bayes import BayesProposer
from agents.proposers.best_of_n import BestOfN
from agents.proposers.classical import EvolutionProposer, FixedProposer, RandomProposer
from agents.proposers.grammar import GrammarProposer
from agents.proposers.knobs import KnobsProposer
from agents.proposers.model import ModelProposer, ScriptedProposer
from agents.proposers.recorded import RecordedProposer

PROPOSERS: dict[str, type[Proposer]] = {
    "random": RandomProposer,
    "evolution": EvolutionProposer,
    "bayes": BayesProposer,
    "fixed": FixedProposer,
    "grammar": GrammarProposer,
    "knobs": KnobsProposer,
    "llm": ModelProposer,
    "best-of-n": BestOfN,
    "scripted": ScriptedProposer,
    "recorded": RecordedProposer,
}

__all__ = ["PROPOSERS", "Proposer", "Request", "Writing"]
