"""Proposers by short name; another is named in a recipe by import path (`package.module:Class`)."""

from agents.proposers.base import Proposer, Request
from agents.proposers.classical import EvolutionProposer, FixedProposer, RandomProposer
from agents.proposers.model import ModelProposer, ScriptedProposer

PROPOSERS: dict[str, type[Proposer]] = {
    "random": RandomProposer,
    "evolution": EvolutionProposer,
    "fixed": FixedProposer,
    "llm": ModelProposer,
    "scripted": ScriptedProposer,
}

__all__ = ["PROPOSERS", "Proposer", "Request"]
