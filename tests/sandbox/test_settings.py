"""What a file may set: read and never run, within its ranges. That it is trained with: test_scoring."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.settings import RANGES, RULES, Settings, read, unit
from search_space.pattern import Pattern

VALUES = st.fixed_dictionaries(
    {},
    optional={
        "lr": st.floats(1e-5, 1e-1),
        "depth": st.integers(1, 32),
        "width": st.integers(1, 64).map(lambda n: 16 * n),
    },
)


@given(VALUES)
def test_whatever_is_within_the_ranges_is_read_as_it_was_written(values: dict[str, float]) -> None:
    text = f'"""A mixer."""\nimport torch\n\nSETTINGS: dict = {values!r}\nx = 1\n'
    assert read(text).given == values
    assert read(text) == read(f"SETTINGS = {values!r}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{'rate': 1e-3}", "no 'rate': the nearest are"),
        ("{1: 1}", "no 1"),
        ("{'lr': 0.2}", "lr is a number from 1e-05 to 0.1, not 0.2"),
        ("{'lr': True}", "lr is a number"),
        ("{'lr': '0.01'}", "lr is a number"),
        ("{'lr': 1e999}", "lr is a number"),
        ("{'depth': 0}", "depth is a whole number from 1 to 32, not 0"),
        ("{'depth': 2.0}", "depth is a whole number"),
        ("{'depth': None}", "depth is a whole number"),
        ("{'width': 40}", "a multiple of 16, not 40"),
        ("{'width': 2048}", "from 16 to 1024"),
        ("[('lr', 0.01)]", "must be set once, to a literal"),
        ("dict(lr=0.01)", "must be set once, to a literal"),
        ("{'lr': 10 ** -2}", "must be set once, to a literal"),
        ("{**{'lr': 0.01}}", "must be set once, to a literal"),
        ("{'lr': 0.01}\nSETTINGS = {}", "must be set once"),
        ("{'lr': 0.01}\ndel SETTINGS", "must be set once"),
        ("{'lr': 0.01}\nfor SETTINGS in []: pass", "must be set once"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="SETTINGS") as caught:
        read(f"SETTINGS = {text}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reading_runs_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    text = f"open({str(trace)!r}, 'w').write('')\nSETTINGS = {{'lr': open({str(trace)!r}, 'w')}}"
    with pytest.raises(ValueError, match="literal"):
        read(text)
    assert not trace.exists()


@pytest.mark.parametrize("text", ["", "import torch\n", "SETTINGS = {}", "class (", "-" * 100_000])
def test_a_file_that_sets_nothing_or_is_none_has_the_recipes(text: str) -> None:
    assert read(text) == Settings()
    assert not read(text).given


@pytest.mark.parametrize(
    ("pattern", "depth", "found"),
    [
        ("2(X+M)", 3, "3(X+M)"),
        ("2(X+M)", 1, "X+M"),
        ("X", 4, "4X"),
        ("A+M+3(X+M)", 2, "2(A+M+3(X+M))"),
        ("2X+4M", 1, "2X+4M"),
        ("2(X+A{kv=2})", 3, "3(X+A{kv=2})"),
    ],
)
def test_depth_is_how_often_the_shortest_unit_is_repeated(
    pattern: str, depth: int, found: str
) -> None:
    given_, codes = Pattern.parse(pattern), ("A", "M", "X")
    assert Settings(depth=depth).pattern(given_) == Pattern.parse(found, codes)
    own = len(given_) // len(unit(given_))
    assert Settings(depth=own).pattern(given_) == given_ == Settings().pattern(given_)


def test_where_layers_share_weights_there_is_no_depth_to_set() -> None:
    with pytest.raises(ValueError, match="share weights"):
        unit(Pattern.parse("2*(X+M)"))


def test_the_ranges_are_those_that_authors_are_told() -> None:
    said = " ".join(RULES.split())
    assert "lr from 1e-5 to 0.1; depth, from 1 to 32" in said
    assert "a multiple of 16 from 16 to 1024" in said
    ends = {key: (low, high) for key, (_, low, high) in RANGES.items()}
    assert ends == {"lr": (1e-5, 0.1), "depth": (1, 32), "width": (16, 1024)}
