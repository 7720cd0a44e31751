"""Results that cross the border: declared files, validated from their bytes before anyone uses them.

Reads no file: the keeper opens them, within the sandbox (`sandbox.collect`). Never unpickles.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load

Kind = Literal["json", "safetensors", "text", "raw"]
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
DEPTH = 32  # of JSON, at most
CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class BadResult(Exception):
    """A declared result that is not there or is not what it should be; the sentence says which."""


@dataclass(frozen=True)
class File:
    """A declared result: its name in `out/`, how it is parsed, and bytes at most.

    Raises ValueError for a name that is not a plain one.
    """

    name: str
    kind: Kind
    max_bytes: int

    def __post_init__(self) -> None:
        plain(self.name)


def plain(name: str) -> str:
    """The name, if each of its parts is letters, digits, `.`, `_`, `-` and begins with no dot or dash."""
    if not all(NAME.fullmatch(part) for part in name.split("/")):
        raise ValueError(f"file name {name!r}: use letters, digits, '.', '_' and '-' only")
    return name


def parse(file: File, data: bytes) -> Any:
    """The content of a result: JSON, a dict of tensors, a string or bytes. Raises BadResult.

    Tensors may hold NaN: what it means there is for the caller to say. JSON may not.
    """
    try:
        match file.kind:
            case "json":
                return _json(data)
            case "safetensors":
                return load(data)
            case "text":
                return printable(data.decode())
            case "raw":
                return data
    except (ValueError, SafetensorError, RecursionError) as error:
        said = str(error)[:200]
        raise BadResult(f"{file.name} is no valid {file.kind}: {said}") from error


def printable(text: str) -> str:
    """The text without control characters, terminal escapes among them; lines and tabs stay."""
    return CONTROL.sub("", text.replace("\r\n", "\n"))


def _json(data: bytes) -> Any:
    value = json.loads(data, parse_constant=_no_constant)
    for depth, leaf in _leaves(value):
        if depth > DEPTH:
            raise ValueError(f"nested deeper than {DEPTH}")
        if isinstance(leaf, float) and not math.isfinite(leaf):
            raise ValueError("a number is not finite")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _leaves(value: Any) -> Iterator[tuple[int, Any]]:
    """Every value within, itself included, with its depth; does not recurse."""
    left = [(1, value)]
    while left:
        depth, one = left.pop()
        yield depth, one
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        left += [(depth + 1, x) for x in inner]
