"""Renders the prompts, one Jinja template per operator in this folder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agents.memory import clean, line
from search_space.pattern import Pattern


def render(template: str, **values: Any) -> str:
    """The template of that name with these values; a value that is missing is an error."""
    return _environment().get_template(f"{template}.j2").render(**values).strip()


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.globals.update(line=line, clean=clean, expand=_expand)
    return environment


def _expand(pattern: str) -> str:
    return "+".join(map(str, Pattern.parse(pattern).layers))
