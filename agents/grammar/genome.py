"""Genomes: which production of the grammar a mixer takes for each of its genes; drawn, mutated, crossed.

A mixer is [short convolution] -> core -> [normaliser] -> [output gate] -> projection. What genes there are
follows from the core: attention by feature maps, softmax attention, a long convolution, a recurrence, or a
statistic of all tokens so far. Where a campaign lets a file set learning rate and size, two genes more say
how, against the recipe's. Writes no code (`agents.grammar.source` does).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

Genes = Mapping[str, tuple[str, ...]]

AROUND: Genes = {
    "gate": ("none", "sigmoid", "silu"),  # on what goes into the core
    "norm": ("none", "layer", "rms"),
    "output": ("none", "sigmoid", "silu", "tanh"),  # the gate on what comes out
    "start": ("drawn", "zero"),  # the last projection's weights
}
CONV: Genes = {"conv": ("none", "2", "3", "4", "2-silu", "4-silu")}  # its kernel
ATTENTION: Genes = {
    "heads": ("1", "2", "4"),
    "window": ("none", "4", "8", "16"),
    "projections": ("one", "three"),
    "mask": ("drawn", "cached", "buffer"),
}
FEATURES: Genes = {
    "feature": ("elu", "relu", "softplus", "softmax", "square", "exp", "identity"),
    "decay": ("none", "fixed", "learned", "data"),
    "sum": ("none", "one"),  # whether the weights of a position sum to one
}
SOFTMAX: Genes = {"positions": ("none", "table", "slope"), "dropout": ("none", "0.1")}
BIAS: Genes = {"bias": ("no", "yes")}
CORES: dict[str, Genes] = {
    "features": {**CONV, **ATTENTION, **FEATURES, **AROUND, **BIAS},
    "softmax": {**CONV, **ATTENTION, **SOFTMAX, **AROUND, **BIAS},
    "convolution": {**CONV, "filter": ("table", "decays"), **AROUND, **BIAS},
    "recurrence": {"keep": ("fixed", "gated"), **AROUND, **BIAS},
    "statistic": {**CONV, "of": ("mean", "maximum", "logsumexp"), **AROUND, **BIAS},
}
SETTINGS: Genes = {
    "lr": ("same", "half", "double"),
    "shape": ("same", "deeper", "wider"),  # depth against width, at about as many parameters
}
STYLE = frozenset(
    {"projections", "mask", "bias"}
)  # how the same is written: inherited, not mutated


@dataclass(frozen=True)
class Genome:
    """(gene, production) pairs in the grammar's order, the core first, settings last where there are any.

    Raises ValueError for others.
    """

    choices: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        found = dict(self.choices)
        genes = {"core": tuple(CORES), **CORES.get(found.get("core", ""), {})}
        if found.keys() & SETTINGS.keys():
            genes |= SETTINGS
        if list(found) != list(genes) or any(found[gene] not in genes[gene] for gene in genes):
            raise ValueError(f"{self}: not in the grammar (agents/grammar/genome.py)")

    def __str__(self) -> str:
        return " ".join(f"{gene}={production}" for gene, production in self.choices)

    def differences(self, other: Genome) -> list[str]:
        """What this one has otherwise, as `gene old -> new`."""
        before = dict(other.choices)
        changed = [(g, p) for g, p in self.choices if before.get(g) != p]
        return [f"{gene} {before.get(gene, 'absent')} -> {p}" for gene, p in changed]


def draw(rng: random.Random, settings: bool = False) -> Genome:
    """A core, then a production for each of its genes, each uniform; of the settings too, if asked for."""
    core = rng.choice(tuple(CORES))
    found = {gene: rng.choice(options) for gene, options in SETTINGS.items()} if settings else {}
    return _with(core, found, rng)


def mutate(parent: Genome, rng: random.Random) -> Genome:
    """Another production for one gene, or another core, which keeps the genes that it shares."""
    found = dict(parent.choices)
    gene = rng.choice([gene for gene in found if gene not in STYLE])
    options = tuple(CORES) if gene == "core" else {**CORES[found["core"]], **SETTINGS}[gene]
    found[gene] = rng.choice([option for option in options if option != found[gene]])
    return _with(found["core"], found, rng)


def cross(one: Genome, two: Genome, rng: random.Random) -> Genome:
    """Each gene from either parent that has it; the core first, which says what genes there are."""
    pairs = dict(one.choices), dict(two.choices)
    core = rng.choice(pairs)["core"]
    genes = [gene for gene in (*CORES[core], *SETTINGS) if _in(gene, pairs)]
    found = {gene: rng.choice([p[gene] for p in pairs if gene in p]) for gene in genes}
    return _with(core, found, rng)


def _in(gene: str, genomes: tuple[dict[str, str], ...]) -> bool:
    return any(gene in genome for genome in genomes)


def _with(core: str, found: Mapping[str, str], rng: random.Random) -> Genome:
    """The genome of a core with the productions found, and drawn ones where there are none."""
    chosen = {
        g: found[g] if g in found else rng.choice(options) for g, options in CORES[core].items()
    }
    settings = ((gene, found[gene]) for gene in SETTINGS if gene in found)
    return Genome((("core", core), *chosen.items(), *settings))
