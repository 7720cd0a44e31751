"""The catalogue: every primitive in this folder by its code. Add a file and it is found."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from search_space.primitives.base import Cost, Primitive


def _discover() -> Iterator[type[Primitive]]:
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Primitive) and "code" in vars(value):
                yield value


CATALOGUE: dict[str, type[Primitive]] = {p.code: p for p in _discover()}

__all__ = ["CATALOGUE", "Cost", "Primitive"]
