"""The pattern grammar: text such as ``2A+4M`` or ``5(Mb+M+A)+M`` to an expanded layer list and back.

Parses, expands, prints the canonical form and hashes. It does not know what a primitive computes or
which options it takes (`search_space.primitives` does), and it imports no torch.

    pattern = term { ("+" | "-" | "," | " ") term }
    term    = [count] unit | count "*" unit       # 3(A+M): three copies; 3*(A+M): one copy, applied 3 times
    unit    = code [options] | "(" pattern ")" | "[" member { "|" member } "]" [options]
    member  = code [options]
    options = "{" key "=" value { "," key "=" value } "}"
    code    = capital letter, then lower-case letters    # so "AAMMbA" parses too
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property, lru_cache

MAX_LAYERS = 256

Value = bool | int | float | str
Options = tuple[tuple[str, Value], ...]


class PatternError(ValueError):
    """A text outside the grammar; the message gives the column, the rule, the value and the way out."""


@dataclass(frozen=True)
class Layer:
    """One residual layer of an expanded pattern.

    ``code`` names the primitive; a fusion has an empty code and two or more ``parts``.
    ``weights`` numbers the copy of weights: layers of one pattern with equal numbers share them.
    """

    code: str
    options: Options = ()
    parts: tuple[Layer, ...] = ()
    weights: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple((k, _whole(v)) for k, v in self.options))

    def __str__(self) -> str:
        body = self.code or "[" + "|".join(map(str, self.parts)) + "]"
        if not self.options:
            return body
        return body + "{" + ",".join(f"{k}={_print_value(v)}" for k, v in self.options) + "}"


@dataclass(frozen=True, eq=False)
class Pattern:
    """An expanded layer list of 1 to 256 layers; equal lists are equal however they were written."""

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.layers) <= MAX_LAYERS:
            raise PatternError(
                f"a pattern has 1 to {MAX_LAYERS} layers, not {len(self.layers)}: change the counts"
            )
        object.__setattr__(self, "layers", _renumber(self.layers))

    @classmethod
    def parse(cls, text: str, codes: Collection[str] | None = None) -> Pattern:
        """Parse ``text``; with ``codes``, a code outside them is an error that names the nearest.

        Raises PatternError.
        """
        return _parsed(text, None if codes is None else tuple(codes))

    @classmethod
    def of(cls, codes: Sequence[str]) -> Pattern:
        """The pattern of plain, unshared layers with these codes, as the proposers make them."""
        return cls(tuple(Layer(code, weights=i) for i, code in enumerate(codes)))

    def __str__(self) -> str:
        return self.canonical

    def __len__(self) -> int:
        return len(self.layers)

    def __eq__(self, other: object) -> bool:
        """By the hash, since to Python the options k=1 and k=true are equal."""
        return isinstance(other, Pattern) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    @cached_property
    def canonical(self) -> str:
        """The shortest run-length print; among equally short ones the first in string order."""
        return _shortest(tuple((str(x), x.weights) for x in self.layers))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the expanded layers with options and sharing, as 64 hex digits."""
        return hashlib.sha256(json.dumps([_plain(x) for x in self.layers]).encode()).hexdigest()

    @property
    def counts(self) -> dict[str, int]:
        """Number of layers by primitive code; a fusion counts under its bracketed codes."""
        counts: dict[str, int] = {}
        for layer in self.layers:
            name = layer.code or "[" + "|".join(p.code for p in layer.parts) + "]"
            counts[name] = counts.get(name, 0) + 1
        return counts


@lru_cache(
    maxsize=4096
)  # a pattern does not change, and a search reads the same texts over and over
def _parsed(text: str, codes: tuple[str, ...] | None) -> Pattern:
    return Pattern(tuple(_Parser(text, codes).pattern()))


def _plain(layer: Layer) -> list[object]:
    return [layer.code, layer.options, [_plain(p) for p in layer.parts], layer.weights]


def _renumber(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Number the copies of weights 0, 1, ... in order of first use."""
    numbers: dict[int, int] = {}
    return tuple(replace(x, weights=numbers.setdefault(x.weights, len(numbers))) for x in layers)


def _print_value(value: Value) -> str:
    if isinstance(value, float):  # without exponent, whose sign is outside the grammar
        return f"{Decimal(repr(value)):f}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_value(text: str) -> Value:
    """An option's value: true/false, an integer (2.0 is one), a finite number, else the word itself."""
    if text in ("true", "false"):
        return text == "true"
    if text.isdecimal():
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return text
    return _whole(number) if math.isfinite(number) else text


def _whole(value: Value) -> Value:
    """2 for 2.0, which is the same to every option: one value, one print, one hash."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def nearest(name: str, known: Collection[str]) -> str:
    """``'A', 'M'``: up to three known names nearest to ``name``, for error sentences."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or sorted(known)
    return ", ".join(repr(k) for k in close[:16])


# ---------------------------------------------------------------------------------------- printing

Word = tuple[
    tuple[str, int], ...
]  # a layer list to print: each layer's own text and weights number


class _Scope:
    """A word printed on its own, with where each copy of weights begins and ends in it."""

    def __init__(self, word: Word) -> None:
        self.word = word
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}
        for i, (_, weights) in enumerate(word):
            self.first.setdefault(weights, i)
            self.last[weights] = i

    def closed(self, start: int, end: int) -> bool:
        """Whether no copy of weights used in [start, end) is used outside of it."""
        return all(self.first[w] >= start and self.last[w] < end for _, w in self.word[start:end])


@lru_cache(maxsize=4096)
def _shortest(word: Word) -> str:
    """The shortest print of a renumbered word: a shortest path over its positions."""
    scope = _Scope(word)
    best: list[tuple[int, str] | None] = [(0, "")] + [None] * len(word)
    for start in range(len(word)):
        here = best[start]
        if here is None:
            continue
        for end, text in _terms(scope, start):
            joined = f"{here[1]}+{text}" if here[1] else text
            best[end] = min(best[end] or (len(joined), joined), (len(joined), joined))
    final = best[-1]
    assert final is not None, "every pattern of the grammar can be printed in it"
    return final[1]


def _terms(scope: _Scope, start: int) -> Iterator[tuple[int, str]]:
    """Every single term that can be printed from ``start``, as (end, text)."""
    if scope.closed(start, start + 1):
        yield start + 1, scope.word[start][0]
    for period, ends in _copies(scope, start):
        unit = _unit(scope.word[start : start + period])
        for end in ends:
            yield end, f"{(end - start) // period}{unit}"
    for period in range(1, (len(scope.word) - start) // 2 + 1):
        shared = _shared_end(scope, start, period)
        if shared:
            unit = _unit(scope.word[start : start + period])
            yield shared, f"{(shared - start) // period}*{unit}"


def _unit(word: Word) -> str:
    text = _shortest(_renumber_word(word))
    return text if len(word) == 1 else f"({text})"


def _copies(scope: _Scope, start: int) -> Iterator[tuple[int, list[int]]]:
    """(period, ends) of every repeat from ``start`` whose copies have weights of their own.

    A unit that is itself a repeat is passed over: 2(3A) is never shorter than 6A.
    """
    reach: dict[int, int] = {}
    for period in range(1, (len(scope.word) - start) // 2 + 1):
        if any(period % p == 0 and reach[p] >= start + period for p in reach):
            continue
        ends = list(_copy_ends(scope, start, period))
        if ends:
            reach[period] = ends[-1]
            yield period, ends


def _copy_ends(scope: _Scope, start: int, period: int) -> Iterator[int]:
    word = scope.word
    texts = [text for text, _ in word[start : start + period]]
    unit = None
    for at in range(start + period, len(word) - period + 1, period):
        if word[at][0] != texts[0] or [text for text, _ in word[at : at + period]] != texts:
            return
        if unit is None:
            unit = _renumber_word(word[start : start + period])
            if not scope.closed(start, start + period):
                return
        if _renumber_word(word[at : at + period]) != unit or not scope.closed(at, at + period):
            return
        yield at + period


def _shared_end(scope: _Scope, start: int, period: int) -> int | None:
    """Where one unit from ``start``, applied two or more times with shared weights, ends; if it does."""
    word = scope.word
    unit = word[start : start + period]
    end = max(scope.last[w] for _, w in unit) + 1
    count, rest = divmod(end - start, period)
    if rest or count < 2 or min(scope.first[w] for _, w in unit) < start:
        return None
    return end if word[start:end] == unit * count else None


def _renumber_word(word: Word) -> Word:
    numbers: dict[int, int] = {}
    return tuple((text, numbers.setdefault(w, len(numbers))) for text, w in word)


# ----------------------------------------------------------------------------------------- parsing

_TOKEN = re.compile(
    r"(?P<count>\d+)|(?P<code>[A-Z][a-z]*)|(?P<options>\{[^}]*\})|(?P<mark>[()\[\]|*])"
    r"|(?P<separator>[+,\- \t\n]+)"
)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int  # counted from 1

    @property
    def shown(self) -> str:
        return repr(self.text) if self.text else "the end"


class _Parser:
    """Recursive descent over the tokens of one pattern; weights are numbered as units are made."""

    def __init__(self, text: str, codes: Collection[str] | None) -> None:
        self.text, self.codes = text, codes
        self.tokens = list(self._tokens())
        self.at = 0
        self.copies = 0

    def error(self, column: int, problem: str) -> PatternError:
        return PatternError(f"pattern {self.text!r}, column {column}: {problem}")

    def _tokens(self) -> Iterator[_Token]:
        end = len(self.text.rstrip())
        at = len(self.text) - len(self.text.lstrip())
        if end == 0:
            raise self.error(1, "a pattern has at least one layer: write codes such as '2A+4M'")
        while at < end:
            match = _TOKEN.match(self.text, at)
            if match is None:
                raise self.error(
                    at + 1,
                    f"unexpected {self.text[at]!r}: use codes (capital, then lower-case letters), "
                    "counts, '+', '*', '( )', '[A|B]' and '{key=value}'",
                )
            yield _Token(str(match.lastgroup), match.group(), at + 1)
            at = match.end()
        yield _Token("end", "", end + 1)

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, mark: str, why: str) -> None:
        token = self.take()
        if token.text != mark:
            raise self.error(token.column, f"expected {mark!r} {why}, found {token.shown}")

    def pattern(self) -> list[Layer]:
        layers = self.terms()
        if self.token.kind != "end":
            raise self.error(self.token.column, f"unexpected {self.token.text!r}: remove it")
        return layers

    def terms(self) -> list[Layer]:
        layers = self.term()
        while self.token.kind not in ("end",) and self.token.text not in (")", "]", "|"):
            self.separator()
            layers += self.term()
        return layers

    def separator(self) -> None:
        if self.token.kind == "separator":
            token = self.take()
            if sum(c in "+-," for c in token.text) > 1:
                raise self.error(token.column, f"one separator between layers, not {token.text!r}")

    def term(self) -> list[Layer]:
        column, count, shared = self.token.column, 1, False
        if self.token.kind == "count":
            count = int(self.take().text[:9])  # nine digits are enough to be refused below
            if self.token.text == "*":
                shared = bool(self.take())
        unit = self.unit()
        if not 1 <= count * len(unit) <= MAX_LAYERS:
            raise self.error(
                column,
                f"a term has 1 to {MAX_LAYERS} layers, not {count} x {len(unit)}: change the count",
            )
        return [layer for _ in range(count) for layer in (unit if shared else self.copy(unit))]

    def copy(self, unit: list[Layer]) -> list[Layer]:
        """The unit with weights of its own."""
        fresh = _renumber(unit)
        base = self.copies
        self.copies += len(fresh)
        return [replace(x, weights=base + x.weights) for x in fresh]

    def unit(self) -> list[Layer]:
        token = self.token
        if token.text == "(":
            self.take()
            layers = self.terms()
            self.expect(")", f"to close the '(' of column {token.column}")
            return layers
        if token.text == "[":
            return [self.fusion()]
        return self.copy([self.layer()])

    def layer(self) -> Layer:
        token = self.take()
        if token.kind != "code":
            raise self.error(
                token.column,
                f"expected a layer code, found {token.shown}: write e.g. 'A'",
            )
        if self.codes is not None and token.text not in self.codes:
            raise self.error(
                token.column,
                f"unknown code {token.text!r}: the nearest known codes are {nearest(token.text, self.codes)}",
            )
        return Layer(token.text, self.options())

    def fusion(self) -> Layer:
        opening = self.take()
        parts = [self.layer()]
        while self.token.text == "|":
            self.take()
            parts.append(self.layer())
        self.expect("]", f"or '|' to close the '[' of column {opening.column}")
        if len(parts) < 2:
            raise self.error(opening.column, "a fusion has two or more members: write '[A|Mb]'")
        return self.copy([Layer("", self.options(), tuple(parts))])[0]

    def options(self) -> Options:
        if self.token.kind != "options":
            return ()
        token = self.take()
        pairs = [self.option(item, token.column) for item in token.text[1:-1].split(",")]
        if len(dict(pairs)) != len(pairs):
            raise self.error(token.column, f"an option is given twice in {token.text}: keep one")
        return tuple(sorted(pairs))

    def option(self, item: str, column: int) -> tuple[str, Value]:
        match = re.fullmatch(r"\s*([a-z_]+)\s*=\s*([A-Za-z0-9_.]+)\s*", item)
        if match is None:
            raise self.error(
                column, f"an option is written key=value, not {item!r}: e.g. '{{kv=4}}'"
            )
        return match.group(1), read_value(match.group(2))
