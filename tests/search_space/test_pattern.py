"""The grammar: what a text means, that the canonical print means the same, and where an error points."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import count

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search_space import Layer, Pattern, PatternError
from search_space.pattern import nearest, read_value
from search_space.references import REFERENCES

# ------------------------------------------------ an independent reading of the grammar, as a tree


@dataclass(frozen=True)
class Term:
    """``times`` copies of a unit, or with ``shared`` one copy applied so often."""

    unit: str | tuple[Term, ...]
    times: int = 1
    shared: bool = False

    def __str__(self) -> str:
        unit = (
            self.unit if isinstance(self.unit, str) else "(" + "+".join(map(str, self.unit)) + ")"
        )
        return (f"{self.times}*" if self.shared else str(self.times) * (self.times > 1)) + unit

    def layers(self, fresh: count[int]) -> list[tuple[str, int]]:
        """Each layer's text and the copy of weights it uses."""
        if self.shared:
            return self._once(fresh) * self.times
        return [layer for _ in range(self.times) for layer in self._once(fresh)]

    def _once(self, fresh: count[int]) -> list[tuple[str, int]]:
        if isinstance(self.unit, str):
            return [(self.unit, next(fresh))]
        return [layer for term in self.unit for layer in term.layers(fresh)]


PLAIN = st.sampled_from(["A", "M", "Mb", "La"])
OPTIONS = st.sampled_from(
    ["", "", "", "{kv=2}", "{act=gelu,hidden=8}", "{ratio=1.5}", "{gated=true}"]
)
CODE = st.builds("{}{}".format, PLAIN, OPTIONS)
FUSION = st.builds(
    "[{}]{}".format,
    st.lists(CODE, min_size=2, max_size=3).map("|".join),
    st.sampled_from(["", "{fuse=sub}"]),
)
UNIT = st.one_of(PLAIN, PLAIN, CODE, FUSION)
TIMES = st.integers(1, 4)
TERM = st.recursive(
    st.builds(Term, UNIT, TIMES, st.booleans()),
    lambda inner: st.builds(
        Term, st.lists(inner, min_size=1, max_size=3).map(tuple), TIMES, st.booleans()
    ),
    max_leaves=6,
)
TERMS = st.lists(TERM, min_size=1, max_size=4)


def written(terms: list[Term]) -> tuple[str, list[tuple[str, int]]]:
    """The text of a list of terms and what it means."""
    fresh: count[int] = count()
    layers = [layer for term in terms for layer in term.layers(fresh)]
    assume(len(layers) <= 48)
    return "+".join(map(str, terms)), layers


def renumbered(layers: list[tuple[str, int]]) -> list[tuple[str, int]]:
    numbers: dict[int, int] = {}
    return [(text, numbers.setdefault(weights, len(numbers))) for text, weights in layers]


def meaning(pattern: Pattern) -> list[tuple[str, int]]:
    return [(str(layer), layer.weights) for layer in pattern.layers]


grammar = settings(max_examples=150, deadline=None)


@grammar
@given(TERMS)
def test_a_text_means_its_layers_and_its_sharing(terms: list[Term]) -> None:
    text, layers = written(terms)
    assert meaning(Pattern.parse(text)) == renumbered(layers)


@grammar
@given(TERMS)
def test_the_canonical_print_means_the_same_and_is_not_longer(terms: list[Term]) -> None:
    text, _ = written(terms)
    pattern = Pattern.parse(text)
    again = Pattern.parse(str(pattern))
    assert again == pattern
    assert again.hash == pattern.hash
    assert str(again) == str(pattern)
    assert len(str(pattern)) <= len(text)


@grammar
@given(TERMS, TERMS)
def test_hashes_are_equal_exactly_when_the_layers_are(one: list[Term], two: list[Term]) -> None:
    first, second = Pattern.parse(written(one)[0]), Pattern.parse(written(two)[0])
    same = meaning(first) == meaning(second)
    assert (first.hash == second.hash) == same
    assert (str(first) == str(second)) == same
    assert (first == second) == same


@grammar
@given(st.lists(st.sampled_from(["A", "M", "Mb"]), min_size=1, max_size=30), st.randoms())
def test_every_way_to_write_a_list_gives_one_pattern(
    codes: list[str], random: random.Random
) -> None:
    ways = ["".join(codes), " ".join(codes), ",".join(codes), " - ".join(codes), "+\n".join(codes)]
    ways.append(
        "".join(code + random.choice(["", "+", ", ", "-"]) for code in codes[:-1]) + codes[-1]
    )
    assert {Pattern.parse(way) for way in ways} == {Pattern.of(codes)}
    assert Pattern.of(codes).counts == {c: codes.count(c) for c in dict.fromkeys(codes)}


@grammar
@given(st.text(alphabet="AMb2*()[]|{}=, +-kv1", max_size=12))
def test_any_other_text_is_a_pattern_error(text: str) -> None:
    try:
        pattern = Pattern.parse(text)
    except PatternError as error:
        assert "column" in str(error)
    else:
        assert Pattern.parse(str(pattern)) == pattern


# ------------------------------------------------------------------------------ by hand


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("AAMMbA", "2A+M+Mb+A"),
        ("A+M+A+M+A+M", "3(A+M)"),
        ("2A+4M", "2A+4M"),
        ("(A+M)+(A+M)+M", "2(A+M)+M"),
        ("3*A+A", "3*A+A"),
        ("2(3*A)", "2(3*A)"),
        ("1A", "A"),
        ("1*A", "A"),
        ("A{kv=2,head=8}", "A{head=8,kv=2}"),
        ("A{ head = 8 }", "A{head=8}"),
        ("2[A|Mb]{fuse=sub}+M", "2[A|Mb]{fuse=sub}+M"),
        ("D{gated=true}+D{gated=false}", "D{gated=true}+D{gated=false}"),
    ],
)
def test_the_canonical_form_by_hand(text: str, canonical: str) -> None:
    assert str(Pattern.parse(text)) == canonical


def test_sharing_is_part_of_the_identity() -> None:
    copies, shared = Pattern.parse("3(A+M)"), Pattern.parse("3*(A+M)")
    assert [x.weights for x in copies.layers] == [0, 1, 2, 3, 4, 5]
    assert [x.weights for x in shared.layers] == [0, 1, 0, 1, 0, 1]
    assert copies.hash != shared.hash
    assert copies != shared


def test_only_the_sharing_of_weights_counts_not_their_numbers() -> None:
    layers = Pattern.parse("2*A+M").layers
    assert Pattern(tuple(replace(x, weights=9 - x.weights) for x in layers)) == Pattern(layers)


def test_the_hash_does_not_depend_on_the_process() -> None:
    code = "from search_space import Pattern; print(Pattern.parse('2A+4M{act=gelu}').hash)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == Pattern.parse("AA+4M{act=gelu}").hash


def test_options_are_typed() -> None:
    (layer,) = Pattern.parse("A{a=1,b=1.5,c=true,d=gelu,e=false}").layers
    assert layer == Layer("A", (("a", 1), ("b", 1.5), ("c", True), ("d", "gelu"), ("e", False)))
    assert [type(read_value(x)) for x in ("1", "1.5", "true", "True")] == [int, float, bool, str]
    assert len({Pattern.parse(f"A{{k={v}}}") for v in ("1", "1.0", "1.", "true", "1.5", "x")}) == 4
    assert Pattern.parse("A{k=nan}") == Pattern.parse("A{k=nan}")  # a word, for want of a number


@grammar
@given(st.floats(min_value=0, allow_infinity=False), st.booleans())
def test_any_number_survives_the_print(number: float, whole: bool) -> None:
    pattern = Pattern((Layer("A", (("k", float(int(number)) if whole else number),)),))
    again = Pattern.parse(str(pattern))
    assert again == pattern
    assert again.layers == pattern.layers


@pytest.mark.parametrize(
    ("text", "column", "rule"),
    [
        ("", 1, "at least one layer"),
        ("   ", 1, "at least one layer"),
        ("2A+?M", 4, "unexpected '?'"),
        ("a", 1, "unexpected 'a'"),
        ("2A+", 4, "expected a layer code, found the end"),
        ("A++M", 2, "one separator"),
        ("A+ +M", 2, "one separator"),
        ("2", 2, "expected a layer code, found the end"),
        ("2*", 3, "expected a layer code, found the end"),
        ("(A+M", 5, "to close the '(' of column 1"),
        ("A+(M+(A)", 9, "to close the '(' of column 3"),
        ("A)", 2, "unexpected ')'"),
        ("()", 2, "expected a layer code"),
        ("[A]", 1, "two or more members"),
        ("[A|Mb", 6, "to close the '[' of column 1"),
        ("[A|2M]", 4, "expected a layer code, found '2'"),
        ("A|M", 2, "unexpected '|'"),
        ("0A", 1, "1 to 256 layers"),
        ("M+257A", 3, "1 to 256 layers"),
        ("999999999999999999999A", 1, "1 to 256 layers"),
        ("16(16(2A))", 1, "1 to 256 layers"),
        ("A{kv}", 2, "key=value"),
        ("A{}", 2, "key=value"),
        ("A{kv=1,kv=2}", 2, "given twice"),
        ("A{kv=1", 2, "unexpected '{'"),
        ("{kv=1}", 1, "expected a layer code"),
    ],
)
def test_errors_point_at_the_column(text: str, column: int, rule: str) -> None:
    with pytest.raises(PatternError) as error:
        Pattern.parse(text)
    assert rule in str(error.value)
    assert re.search(rf"column {column}: ", str(error.value)), str(error.value)
    assert repr(text) in str(error.value)


def test_an_unknown_code_names_the_nearest() -> None:
    with pytest.raises(PatternError, match=r"column 4: unknown code 'Mc'.*'Mb'"):
        Pattern.parse("2A+Mc", codes=["A", "M", "Mb"])
    with pytest.raises(PatternError, match="column 4: unknown code 'Z'"):
        Pattern.parse("[A|Z]", codes=["A", "M"])
    assert nearest("Zzz", ["A", "M"]) == "'A', 'M'"


def test_the_limits() -> None:
    assert len(Pattern.parse("256A")) == 256
    assert str(Pattern.parse("128A+128A")) == "256A"
    with pytest.raises(PatternError, match="not 257"):
        Pattern.parse("256A+M")
    with pytest.raises(PatternError, match="not 0"):
        Pattern(())


def test_a_long_pattern_prints_in_reasonable_time() -> None:
    codes = random.Random(0).choices(["A", "M", "Mb"], k=256)
    assert Pattern.parse(str(Pattern.of(codes))) == Pattern.of(codes)


@pytest.mark.parametrize("name", REFERENCES)
def test_references_keep_their_meaning_when_printed(name: str) -> None:
    pattern = Pattern.parse(REFERENCES[name].pattern)
    assert len(str(pattern)) <= len(REFERENCES[name].pattern)
    assert Pattern.parse(str(pattern)) == pattern
