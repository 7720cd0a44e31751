"""A typed grammar of token mixers, and the source code of each: module writing without a model."""

from agents.grammar.genome import Genome, cross, draw, mutate
from agents.grammar.source import Standard, read, source

__all__ = ["Genome", "Standard", "cross", "draw", "mutate", "read", "source"]
