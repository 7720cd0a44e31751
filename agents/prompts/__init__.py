"""Renders the prompts, one Jinja template per operator in this folder.

`analyze` is one, too, though no model is called for it: see `agents.analysis`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from search_space.pattern import Pattern


def render(template: str, **values: Any) -> str:
    """The template of that name with these values; a value that is missing is an error."""
    return _environment().get_template(f"{template}.j2").render(**values).strip()


def clean(text: str, limit: int) -> str:
    """Text from outside, as data on one line: control characters out, length bounded."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def fence(text: str, limit: int) -> str:
    """Text from outside between marks that it cannot close."""
    return f"<<<{clean(text, limit).replace('<<<', '<< <').replace('>>>', '>> >')}>>>"


def code(text: str, limit: int) -> str:
    """A file between marks that it cannot close, as it is but for control characters; what is cut off
    beyond ``limit`` characters is said."""
    shown = "".join(c for c in text[:limit] if c.isprintable() or c in "\n\t").rstrip("\n")
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    mark = "`" * max(3, longest + 1)
    rest = f"\n(cut here: {len(text) - limit:,} more characters)" if len(text) > limit else ""
    return f"{mark}python\n{shown}\n{mark}{rest}"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.globals.update(clean=clean, fence=fence, code=code, expand=_expand)
    return environment


def _expand(pattern: str) -> str:
    return "+".join(map(str, Pattern.parse(pattern).layers))
