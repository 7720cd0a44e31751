"""The search space: patterns of primitives, their models and their costs. Imports nothing of ours."""

from search_space.pattern import Layer, Pattern, PatternError

__all__ = ["Layer", "Pattern", "PatternError"]
