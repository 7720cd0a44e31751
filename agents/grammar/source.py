"""A genome's `mixer.py`, by the template `mixer.j2`, and the genome of a source that was made so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agents.grammar.genome import SETTINGS, Genome

HEADER = re.compile(r'"""Token mixer: (.*?)\."""')
NONE = "none"
STEP = 16  # widths are its multiples (sandbox/settings.py)


@dataclass(frozen=True)
class Standard:
    """A recipe's learning rate, depth and width, from which a genome's settings depart."""

    lr: float
    depth: int
    width: int

    def settings(self, lr: str, shape: str) -> str:
        """The literal of these genes."""
        depth = {"same": self.depth, "deeper": 2 * self.depth, "wider": max(1, self.depth // 2)}
        width = self.width * (self.depth / depth[shape]) ** 0.5
        width = self.width if shape == "same" else max(STEP, STEP * round(width / STEP))
        rate = self.lr * {"same": 1, "half": 0.5, "double": 2}[lr]
        return f'{{"lr": {rate:.3g}, "depth": {depth[shape]}, "width": {width:g}}}'


@lru_cache(maxsize=1024)
def source(genome: Genome, standard: Standard | None = None) -> str:
    """The text of the genome's `mixer.py`; equal genomes have equal texts.

    One with settings needs the ``standard`` that they depart from.
    """
    template = _environment().get_template("mixer.j2")
    genes = {gene: None if p == NONE else p for gene, p in genome.choices}
    own = {gene: p for gene, p in genome.choices if gene in SETTINGS}
    settings = standard.settings(**own) if standard and own else None
    return template.render(header=str(genome), settings=settings, **genes)


def read(text: str) -> Genome | None:
    """The genome in a source's first line; None for one that the grammar did not write."""
    found = HEADER.match(text)
    pairs = [word.partition("=") for word in found.group(1).split()] if found else []
    try:
        return Genome(tuple((gene, production) for gene, _, production in pairs))
    except ValueError:
        return None


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        keep_trailing_newline=True,
    )
