"""A genome's `mixer.py`, by the template `mixer.j2`, and the genome of a source that was made so."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agents.grammar.genome import Genome

HEADER = re.compile(r'"""Token mixer: (.*?)\."""')
NONE = "none"


@lru_cache(maxsize=1024)
def source(genome: Genome) -> str:
    """The text of the genome's `mixer.py`; equal genomes have equal texts."""
    template = _environment().get_template("mixer.j2")
    genes = {gene: None if p == NONE else p for gene, p in genome.choices}
    return template.render(header=str(genome), **genes)


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
