"""A typed grammar of token mixers, and the source code of each: module writing without a model."""

from agents.grammar.genome import Genome, cross, draw, mutate
from agents.grammar.source import read, source

__all__ = ["Genome", "cross", "draw", "mutate", "read", "source"]
