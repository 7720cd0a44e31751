"""Properties of the MAD tasks, attacked by plain Python readers and by fixed-seed statistics."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
import torch
from evaluator_checks import answers, assert_plausible, assert_uniform, scores_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from evaluator.metrics import accuracy
from evaluator.tasks import IGNORE, MAD_TASKS, Split, mad_task
from evaluator.tasks.base import SplitName
from evaluator.tasks.mad import (
    Memorization,
    SelectiveCopying,
    distinct_ids,
    first_equal,
    mad_grid,
    uniform_choice,
)

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
SMALL: dict[str, dict[str, Any]] = {  # reduced in every direction, as a mini profile would
    "in-context-recall": {"vocab": 8, "length": 16},
    "noisy-recall": {"vocab": 12, "length": 20, "noise_vocab": 4, "noise": 0.5},
    "fuzzy-recall": {"vocab": 11, "length": 40},
    "selective-copying": {"vocab": 6, "length": 20, "tokens": 4},
    "compression": {"vocab": 8, "length": 8},
    "memorization": {"vocab": 16, "length": 8},
}


# All six tasks


@pytest.mark.parametrize("name", MAD_TASKS)
@pytest.mark.parametrize("small", [False, True])
def test_shapes_types_and_ranges(name: str, small: bool) -> None:
    task = mad_task(name, **SMALL[name] if small else {})
    for which in SPLITS:
        split = task.split(which, 0)
        rows = task.train_size if which == "train" else task.eval_size
        for ids in (split.inputs, split.labels):
            assert ids.shape == (rows, task.input_length)
            assert ids.dtype == torch.int64
            assert ids.is_contiguous()
        assert split.inputs.min() >= 0 and split.inputs.max() < task.vocab
        scored = split.labels[split.labels != IGNORE]
        assert scored.min() >= 0 and scored.max() < task.vocab
        assert (split.labels != IGNORE).any(1).all(), "a row without a label"


def test_baselines_are_the_documented_ones() -> None:
    baseline = {
        name: (t.vocab, t.length, t.train_size, t.eval_size)
        for name in MAD_TASKS
        for t in [mad_task(name)]
    }
    assert baseline == {
        "in-context-recall": (16, 128, 800, 1280),
        "noisy-recall": (32, 128, 800, 1280),
        "fuzzy-recall": (16, 128, 800, 1280),
        "selective-copying": (16, 256, 800, 1280),
        "compression": (16, 32, 800, 1280),
        "memorization": (256, 32, 256, 1280),
    }


@pytest.mark.parametrize("name", MAD_TASKS)
def test_a_split_is_a_pure_function_of_settings_split_and_seed(name: str) -> None:
    task = mad_task(name)
    torch.manual_seed(1)
    once = task.split("validation", 7)
    torch.manual_seed(2)  # global state must not matter, nor be touched
    state = torch.get_rng_state()
    again = mad_task(name).split("validation", 7)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(once.inputs, again.inputs)
    assert torch.equal(once.labels, again.labels)
    for seed in (8, -7, 7 + 2**32, 7 + 2**64):
        assert not torch.equal(once.inputs, task.split("validation", seed).inputs)


@pytest.mark.parametrize("name", MAD_TASKS)
def test_splits_and_neighbouring_seeds_share_no_row(name: str) -> None:
    task = mad_task(name, train_size=1280)
    seen: set[tuple[int, ...]] = set()
    for seed in (0, 1):
        for which in SPLITS:
            rows = {tuple(row) for row in task.split(which, seed).inputs.tolist()}
            assert len(rows) == 1280
            assert not rows & seen
            seen |= rows


def test_a_setting_changes_the_stream() -> None:
    one = mad_task("noisy-recall", noise=0.2).split("train", 0).inputs
    other = mad_task("noisy-recall", noise=0.2, eval_size=7).split("train", 0).inputs
    assert not torch.equal(one, other)
    whole, fraction = (mad_task("noisy-recall", noise=n) for n in (0, 0.0))
    assert whole == fraction and whole.identity() == fraction.identity()


@pytest.mark.parametrize("name", MAD_TASKS)
def test_heads_give_logits_per_position(name: str) -> None:
    task = mad_task(name, **SMALL[name])
    for width in (6, 7):
        logits = task.head(width)(torch.randn(3, task.input_length, width))
        assert logits.shape == (3, task.input_length, task.vocab)


def test_generation_needs_torch_alone() -> None:
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "from evaluator.tasks import MAD_TASKS, mad_task\n"
        "for name in MAD_TASKS: mad_task(name, eval_size=4).split('test', 0)\n"
        "from evaluator.tasks import LraImage, LraText, ListOps, Mqar, Text\n"
        "for kind in (LraImage, LraText): kind(standin=True, eval_size=4).split('test', 0)\n"
        "for kind in (ListOps, Mqar, Text): kind(eval_size=4).split('test', 0)\n"
        "bad = {'ray', 'sqlalchemy', 'scipy', 'pydantic', 'anthropic'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    # -W ignore: torch warns once that numpy is missing, which is the point
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


# In-context and noisy recall


def dictionary_reader(keys: int) -> Callable[[list[int]], list[int]]:
    """Reads slots of two left to right; after a known key it predicts the value seen with it."""

    def read(row: list[int]) -> list[int]:
        table: dict[int, int] = {}
        predictions = [0] * len(row)
        for i in range(0, len(row), 2):
            if row[i] < keys:
                predictions[i] = table.get(row[i], 0)
                if i + 1 < len(row):
                    table[row[i]] = row[i + 1]
        return predictions

    return read


RECALLS = [
    ("in-context-recall", {}, 8),
    ("in-context-recall", {"vocab": 9, "length": 10}, 4),
    ("in-context-recall", {"vocab": 4, "length": 4}, 2),
    ("noisy-recall", {}, 8),
    ("noisy-recall", {"noise": 0.8, "vocab": 48}, 16),
]


@pytest.mark.parametrize(("name", "changes", "keys"), RECALLS)
@pytest.mark.parametrize("which", ["validation", "test"])
def test_a_dictionary_solves_recall(
    name: str, changes: dict[str, Any], keys: int, which: SplitName
) -> None:
    task = mad_task(name, **changes)
    scores = scores_of(task.split(which, 3), task.vocab, dictionary_reader(keys))
    assert scores["accuracy"] == scores["macro_accuracy"] == 1.0


@pytest.mark.parametrize(("name", "changes", "keys"), RECALLS)
def test_recall_scores_each_repeated_key_and_nothing_else(
    name: str, changes: dict[str, Any], keys: int
) -> None:
    split = mad_task(name, **changes).split("validation", 4)
    for row, labels in zip(split.inputs.tolist(), split.labels.tolist(), strict=True):
        seen: set[int] = set()
        for i, (token, label) in enumerate(zip(row, labels, strict=True)):
            repeated = i % 2 == 0 and token < keys and token in seen
            assert (label != IGNORE) == repeated
            if repeated and i + 1 < len(row):
                assert label == row[i + 1]
            if i % 2 == 0:
                seen.add(token)
        assert labels[-1] != IGNORE


@pytest.mark.parametrize("name", ["in-context-recall", "noisy-recall"])
def test_recall_trains_on_every_next_token(name: str) -> None:
    split = mad_task(name).split("train", 0)
    assert torch.equal(split.labels[:, :-1], split.inputs[:, 1:])
    assert (split.labels != IGNORE).all()


def test_recall_keys_and_new_values_are_uniform_and_independent() -> None:
    rows = mad_task("in-context-recall").split("train", 5).inputs.tolist()
    assert_uniform((key for row in rows for key in row[0:126:2]), 8)
    tables = [dict(zip(row[0:126:2], row[1:126:2], strict=True)) for row in rows]
    assert_uniform((value for table in tables for value in table.values()), 8)
    assert_uniform((tuple(row[:2]) for row in rows), 64)
    assert_uniform((row[1] for row in rows), 8)


def test_the_question_is_uniform_over_distinct_keys_not_over_pairs() -> None:
    rows = (
        mad_task("in-context-recall", length=8, eval_size=20_000).split("test", 0).inputs.tolist()
    )
    lopsided = [(row[6], row[0], row[4]) for row in rows if row[0] == row[2] != row[4]]
    assert_uniform((asked == frequent for asked, frequent, _ in lopsided), 2)
    assert all(asked in (frequent, rare) for asked, frequent, rare in lopsided)


def test_noise_has_its_share_its_ids_and_no_place_in_the_question() -> None:
    task = mad_task("noisy-recall", eval_size=2000)
    inputs = task.split("validation", 1).inputs
    first, second = inputs[:, 0::2], inputs[:, 1::2]
    noise = first >= 16
    assert torch.equal(noise[:, :-1], second >= 16)
    assert not noise[:, -1].any()
    drawn = 2000 * 62  # of the 63 slots before the question one is spared
    assert_plausible(stats.binomtest(int(noise.sum()), drawn, 0.2))
    assert_plausible(stats.chisquare(noise[:, :-1].sum(0).tolist()))
    assert_uniform(first[noise].tolist(), 16)
    assert_uniform(zip(first[noise].tolist(), second[noise[:, :-1]].tolist(), strict=True), 256)


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(2, 20).map(lambda half: 2 * half),
    clean=st.integers(4, 20),
    noise_vocab=st.integers(1, 20),
    noise=st.floats(0, 1, exclude_max=True),
    seed=st.integers(),
)
def test_any_noisy_recall_is_solvable(
    length: int, clean: int, noise_vocab: int, noise: float, seed: int
) -> None:
    vocab = clean + noise_vocab
    task = mad_task(
        "noisy-recall",
        length=length,
        vocab=vocab,
        noise_vocab=noise_vocab,
        noise=noise,
        eval_size=20,
    )
    scores = scores_of(task.split("test", seed), vocab, dictionary_reader(clean // 2))
    assert scores["accuracy"] == 1.0


# Fuzzy recall


def fuzzy_pairs(tokens: list[int], vocab: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The (key, value) tuples of a row, by cutting where a value id is followed by a key id."""
    half, pairs = (vocab - 1) // 2, []
    key: list[int] = []
    value: list[int] = []
    for token in (t for t in tokens if t != vocab - 1):
        if token < half and value:
            pairs.append((tuple(key), tuple(value)))
            key, value = [], []
        (key if token < half else value).append(token)
    return [*pairs, (tuple(key), tuple(value))]


def fuzzy_reader(vocab: int) -> Callable[[list[int]], list[int]]:
    """Predicts the next id of the value last seen with the key tuple just read."""

    def read(row: list[int]) -> list[int]:
        predictions = []
        for i in range(len(row)):
            *before, (key, value) = fuzzy_pairs(row[: i + 1], vocab)
            known = dict(before).get(key, ())
            predictions.append(known[len(value)] if len(value) < len(known) else 0)
        return predictions

    return read


def whole_rows(split: Split) -> list[list[int]]:
    """The tokens with the last one put back."""
    return torch.cat([split.inputs, split.labels[:, -1:]], 1).tolist()


@pytest.mark.parametrize("changes", [{}, {"vocab": 7, "length": 11}, {"vocab": 32, "length": 30}])
def test_a_dictionary_of_tuples_solves_fuzzy_recall(changes: dict[str, int]) -> None:
    task = mad_task("fuzzy-recall", eval_size=200, **changes)
    scores = scores_of(task.split("validation", 2), task.vocab, fuzzy_reader(task.vocab))
    assert scores["accuracy"] == scores["macro_accuracy"] == 1.0


@pytest.mark.parametrize("changes", [{}, {"vocab": 7, "length": 11}, {"vocab": 128, "length": 64}])
@pytest.mark.parametrize("which", SPLITS)
def test_fuzzy_rows_are_consistent_and_ask_a_planted_pair(
    changes: dict[str, int], which: SplitName
) -> None:
    task = mad_task("fuzzy-recall", train_size=300, eval_size=300, **changes)
    split = task.split(which, 9)
    for row, labels in zip(whole_rows(split), answers(split), strict=True):
        pads = row.count(task.vocab - 1)
        assert pads <= 5 or len(row) < 20, "room for another pair was left"
        assert row[:pads] == [task.vocab - 1] * pads
        *before, asked = fuzzy_pairs(row, task.vocab)
        assert asked in before
        for key, value in before:
            assert dict(before)[key] == value, "a key with two values"
            assert len(set(key)) == len(key) and 1 <= len(value) <= 3
            assert len(set(value)) == len(value) and 1 <= len(key) <= 3
            assert which == "train" or len(key) == 3
        expected = row[max(pads, 1) :] if which == "train" else list(asked[1])
        assert labels == expected


def test_fuzzy_tuples_and_sizes_are_uniform() -> None:
    task = mad_task("fuzzy-recall", vocab=7, train_size=3000, eval_size=3000)
    trained = [fuzzy_pairs(row, 7)[-1] for row in whole_rows(task.split("train", 0))]
    assert_uniform(((len(key), len(value)) for key, value in trained), 9)
    for size, tuples in ((1, 3), (2, 6), (3, 6)):
        assert_uniform((key for key, _ in trained if len(key) == size), tuples)
        assert_uniform((value for _, value in trained if len(value) == size), tuples)
    asked = [fuzzy_pairs(row, 7)[-1] for row in whole_rows(task.split("test", 0))]
    assert_uniform((key for key, _ in asked), 6)
    assert_uniform((len(value) for _, value in asked), 3)
    # each row's first pair: neither the layout nor the planting may prefer a size
    first = [fuzzy_pairs(row, 7)[0] for row in whole_rows(task.split("train", 1))]
    assert_uniform(((len(key), len(value)) for key, value in first), 9)


def test_the_end_of_a_fuzzy_row_cuts_no_size_more_than_another() -> None:
    sizes: list[int] = []
    for row in whole_rows(mad_task("fuzzy-recall", length=24, train_size=8000).split("train", 0)):
        *before, asked = fuzzy_pairs(row, 16)
        before.remove(asked)  # its size decides how many others fit
        sizes += [len(key) for key, _ in before]
    assert_uniform(sizes, 3)


def test_the_fuzzy_probe_is_planted_anywhere() -> None:
    task = mad_task("fuzzy-recall", vocab=128, eval_size=2000)  # so large that keys do not repeat
    shake = torch.Generator().manual_seed(0)
    places = []
    for row in whole_rows(task.split("validation", 0)):
        *before, asked = fuzzy_pairs(row, 128)
        place = before.index(asked) + torch.rand(1, generator=shake).item()
        places.append(place / len(before))
    assert_plausible(stats.kstest(places, "uniform"))


@pytest.mark.parametrize("ids", [3, 4, 5])
def test_distinct_ids_gives_every_ordered_tuple_alike(ids: int) -> None:
    drawn = distinct_ids((200, 100), ids, torch.Generator().manual_seed(ids)).flatten(0, 1).tolist()
    assert_uniform(map(tuple, drawn), len(list(permutations(range(ids), 3))))
    assert_uniform((tuple(d[:2]) for d in drawn), ids * (ids - 1))


# Selective copying


def copying_reader(vocab: int) -> Callable[[list[int]], list[int]]:
    """Collects the content until the copy id, then says it in order."""

    def read(row: list[int]) -> list[int]:
        end = row.index(vocab - 1)
        content = [t for t in row[:end] if t < vocab - 2]
        return [0] * (end + 1) + content

    return read


COPIES = [{}, {"tokens": 96}, {"vocab": 4, "length": 12, "tokens": 5}, {"length": 4, "tokens": 1}]


@pytest.mark.parametrize("changes", COPIES)
@pytest.mark.parametrize("which", SPLITS)
def test_copying_answers_in_order(changes: dict[str, int], which: SplitName) -> None:
    task = SelectiveCopying(**changes)
    tokens = task.tokens
    split = task.split(which, 1)
    assert scores_of(split, task.vocab, copying_reader(task.vocab))["accuracy"] == 1.0
    assert ((split.labels != IGNORE).sum(1) == tokens).all()
    assert (split.inputs[:, -tokens:] == task.vocab - 2).all(), "the answer stands in the input"
    assert (split.inputs[:, -tokens - 1] == task.vocab - 1).all()
    assert (split.inputs == task.vocab - 1).sum() == len(split.inputs)
    assert (split.inputs[:, -tokens - 2] < task.vocab - 2).all(), "a blank after the last content"


def test_copying_spreads_blanks_evenly() -> None:
    split = mad_task("selective-copying", train_size=2000).split("train", 2)
    body = split.inputs[:, :-17]
    place = (body != 14).nonzero()[:, 1].view(2000, 16)
    before = torch.full((2000, 1), -1)
    blanks = place.diff(dim=1, prepend=before) - 1  # per gap
    assert_plausible(stats.chisquare(blanks.sum(0).tolist()))
    # one gap's blanks are binomial: independent blanks, not an even partition
    counts = Counter(blanks.flatten().tolist())
    pooled = [
        sum(n for size, n in counts.items() if size in r) for r in (range(13), range(13, 999))
    ]
    share = stats.binom.cdf(12, 223, 1 / 16)
    assert_plausible(stats.binomtest(pooled[0], 32_000, share))
    assert_uniform(split.labels[split.labels != IGNORE].tolist(), 14)


# Compression


@pytest.mark.parametrize("which", SPLITS)
def test_compression_labels_are_its_inputs(which: SplitName) -> None:
    split = mad_task("compression").split(which, 0)
    assert torch.equal(split.inputs, split.labels)
    assert split.inputs.data_ptr() != split.labels.data_ptr()
    assert (split.inputs[:, -1] == 15).all()
    assert_uniform(split.inputs[:, :-1].flatten().tolist(), 15)


def test_the_compression_head_reads_the_last_position_only() -> None:
    head = mad_task("compression").head(24)
    hidden = torch.randn(4, 32, 24)
    changed = hidden.clone()
    changed[:, :-1] = 1e3
    logits = head(hidden)
    assert torch.equal(logits, head(changed))
    assert not torch.allclose(logits[:, 0], logits[:, 1]), "positions are not told apart"
    changed = hidden.clone()
    changed[:, -1] += 1
    assert (head(changed) != logits).any(-1).all()


def test_the_compression_head_learns_from_free_encodings() -> None:
    """Its MLP can decode several different sequences, so the task is not capped by its head."""
    torch.manual_seed(0)
    task = mad_task("compression", vocab=5, length=6, train_size=4)
    split, head = task.split("train", 0), task.head(32)
    code = nn.Parameter(torch.randn(4, 1, 32))
    optimiser = torch.optim.Adam([*head.parameters(), code], lr=5e-3)
    for _ in range(200):
        loss = nn.functional.cross_entropy(head(code).flatten(0, 1), split.labels.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert accuracy(head(code).detach(), split.labels)["accuracy"] == 1.0


def test_the_code_of_the_compression_head_travels_but_is_not_saved() -> None:
    head = mad_task("compression").head(8)
    assert "code" not in head.state_dict()
    assert head.to(torch.float64)(torch.randn(2, 32, 8, dtype=torch.float64)).dtype == torch.float64


# Memorization


def test_memorization_is_one_table_for_every_seed_split_and_length() -> None:
    known: dict[int, int] = {}
    for seed in (0, 1):
        for which in SPLITS:
            for length in (8, 32):
                split = mad_task("memorization", length=length).split(which, seed)
                assert (split.inputs[:, 1::2] == 255).all()
                assert (split.labels[:, 0::2] == IGNORE).all()
                pairs = torch.stack([split.inputs[:, 0::2], split.labels[:, 1::2]], -1)
                for key, value in pairs.flatten(0, 1).tolist():
                    assert known.setdefault(key, value) == value
    assert sorted(known) == list(range(127))
    assert sorted(known.values()) == list(range(127, 254))


@pytest.mark.parametrize("vocab", [5, 6, 255, 256, 8192])
def test_the_memorization_table_is_a_bijection_of_the_halves(vocab: int) -> None:
    table = Memorization(vocab=vocab).table()
    keys = (vocab - 1) // 2
    assert sorted(table.tolist()) == list(range(keys, 2 * keys))
    assert vocab < 100 or not torch.equal(table, table.sort().values)


def test_memorization_keys_are_uniform() -> None:
    inputs = mad_task("memorization").split("train", 3).inputs
    assert_uniform(inputs[:, 0::2].flatten().tolist(), 127)


@pytest.mark.parametrize("vocab", [2048, 4096, 8192])
def test_the_documented_ceiling_of_memorization(vocab: int) -> None:
    task = mad_task("memorization", vocab=vocab)
    shown = set(task.split("train", 0).labels[:, 1::2].flatten().tolist())
    asked = task.split("test", 0).labels[:, 1::2].flatten().tolist()
    ceiling = sum(value in shown for value in asked) / len(asked)
    assert ceiling == pytest.approx(1 - math.exp(-4096 / (vocab / 2)), abs=0.02)


# Settings


def test_the_grid_has_the_papers_66_settings() -> None:
    grid = mad_grid()
    assert Counter(task.name for task in grid) == dict(
        zip(MAD_TASKS, (11, 14, 11, 13, 11, 6), strict=True)
    )
    assert len({task.identity() for task in grid}) == 66
    for task in grid:
        base = mad_task(task.name, train_size=256 if task.name == "memorization" else 12_800)
        changed = [key for key, value in vars(task).items() if value != vars(base)[key]]
        assert len(changed) == (0 if task == base else 1)
    assert all(task.eval_size == 1280 for task in grid)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("in-context-recall", {"length": 127}, "length must be even and at least 4, not 127"),
        ("in-context-recall", {"length": 2}, "length must be even and at least 4, not 2"),
        ("in-context-recall", {"vocab": 3}, "at least 4 ids that are not noise, not 3"),
        (
            "in-context-recall",
            {"vocab": 16.0},
            "vocab must be a whole number of at least 1, not 16.0",
        ),
        ("in-context-recall", {"train_size": 0}, "train_size must be a whole number of at least 1"),
        ("noisy-recall", {"noise": 1.0}, "noise must be at least 0 and below 1, not 1.0"),
        ("noisy-recall", {"noise": -0.1}, "noise must be at least 0 and below 1, not -0.1"),
        ("noisy-recall", {"noise": math.nan}, "noise must be at least 0 and below 1, not nan"),
        ("noisy-recall", {"noise": "lots"}, "noise must be at least 0 and below 1, not 'lots'"),
        ("noisy-recall", {"noise_vocab": 0}, "noise_vocab must be a whole number of at least 1"),
        ("noisy-recall", {"vocab": 16}, "at least 4 ids that are not noise, not 0"),
        ("fuzzy-recall", {"vocab": 6}, "at least 7, not 6"),
        ("fuzzy-recall", {"length": 10}, "at least 11, not 10"),
        ("selective-copying", {"length": 33}, r"must exceed 2 x tokens \+ 1 = 33, to hold a blank"),
        ("selective-copying", {"tokens": 0}, "tokens must be a whole number of at least 1, not 0"),
        ("selective-copying", {"vocab": 3}, "vocab must be at least 4, not 3"),
        ("compression", {"vocab": 2}, "vocab must be at least 3, not 2"),
        ("compression", {"length": 1}, "length must be at least 2, not 1"),
        ("memorization", {"vocab": 4}, "vocab must be at least 5, not 4"),
        ("memorization", {"length": 31}, "length must be even, not 31"),
    ],
)
def test_impossible_settings_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .*{message}.*; .*\\.$"):
        mad_task(name, **changes)


def test_unknown_names_and_settings_name_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'selectiv-coping'; did you mean 'selective-copying'\?"):
        mad_task("selectiv-coping")
    with pytest.raises(ValueError, match=r"a setting must be .*'lenght'; did you mean 'length'\?"):
        mad_task("compression", lenght=3)
    with pytest.raises(ValueError, match=r"'zzz'; use one of those\."):
        mad_task("zzz")
    with pytest.raises(ValueError, match="split must be one of train, validation, test, not 'dev'"):
        mad_task("compression").split("dev", 0)  # type: ignore[arg-type]


# Helpers


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9).flatmap(
        lambda width: st.lists(
            st.lists(st.integers(-3, 3), min_size=width, max_size=width), min_size=1, max_size=5
        )
    )
)
def test_first_equal_is_list_index(rows: list[list[int]]) -> None:
    assert first_equal(torch.tensor(rows)).tolist() == [[r.index(x) for x in r] for r in rows]


def test_uniform_choice_takes_allowed_places_alike() -> None:
    allowed = torch.tensor([[False, True, True, False, True]]).expand(9000, -1)
    chosen: Tensor = uniform_choice(allowed, torch.Generator().manual_seed(0)).squeeze(1)
    assert set(chosen.tolist()) == {1, 2, 4}
    assert_uniform(chosen.tolist(), 3)
