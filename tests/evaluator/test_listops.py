"""Properties of generated ListOps, against an interpreter and a generator in plain Python."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from typing import Any

import pytest
import torch
from evaluator_checks import assert_plausible, assert_uniform
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluator.tasks import IGNORE, ListOps, Split
from evaluator.tasks.base import SplitName
from evaluator.tasks.listops import apply, table_accuracy

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
OPERATORS = {10: min, 11: max, 12: lambda v: int(statistics.median(v)), 13: lambda v: sum(v) % 10}
SHORT: dict[str, Any] = {"length": 60, "shortest": 10, "max_depth": 4, "max_args": 5}


def rows_of(split: Split) -> list[tuple[list[int], int]]:
    """(tokens without padding, label) of each row, after checking where the label stands."""
    found = []
    for row, labels in zip(split.inputs.tolist(), split.labels.tolist(), strict=True):
        tokens = [token for token in row if token != 15]
        assert row == tokens + [15] * (len(row) - len(tokens)), "padding is on the right only"
        assert [i for i, y in enumerate(labels) if y != IGNORE] == [len(tokens) - 1]
        found.append((tokens, labels[len(tokens) - 1]))
    return found


def parsed(tokens: list[int]) -> Any:
    """A digit, or (operator, arguments)."""
    stack: list[Any] = [(None, [])]
    for token in tokens:
        if token in OPERATORS:
            stack.append((token, []))
        elif token == 14:
            done = stack.pop()
            stack[-1][1].append(done)
        else:
            stack[-1][1].append(token)
    ((_, [tree]),) = stack
    return tree


def value_of(tree: Any) -> int:
    if isinstance(tree, int):
        return tree
    return OPERATORS[tree[0]]([value_of(argument) for argument in tree[1]])


def nodes_of(tree: Any, depth: int = 1) -> list[tuple[Any, int]]:
    below = [] if isinstance(tree, int) else tree[1]
    return [(tree, depth)] + [node for argument in below for node in nodes_of(argument, depth + 1)]


def plain_tree(dice: random.Random, task: ListOps, depth: int = 1) -> Any:
    """A tree by the published rule, one node at a time."""
    if depth < task.max_depth and dice.random() <= 0.25:
        count = dice.randint(2, task.max_args)
        arguments = [plain_tree(dice, task, depth + 1) for _ in range(count)]
        return dice.choice(list(OPERATORS)), arguments
    return dice.randrange(10)


def size_of(tree: Any) -> int:
    return sum(1 if isinstance(node, int) else 2 for node, _ in nodes_of(tree))


@pytest.mark.parametrize("which", SPLITS)
@pytest.mark.parametrize("changes", [{}, SHORT, {**SHORT, "max_depth": 2, "max_args": 30}])
def test_an_interpreter_solves_it(changes: dict[str, Any], which: SplitName) -> None:
    task = ListOps(**{**changes, "train_size": 150, "eval_size": 150})
    split = task.split(which, 1)
    assert split.inputs.shape == split.labels.shape == (150, task.length)
    for tokens, label in rows_of(split):
        assert task.shortest < len(tokens) < task.length
        tree = parsed(tokens)
        assert value_of(tree) == label
        for node, depth in nodes_of(tree):
            if not isinstance(node, int):
                assert 2 <= len(node[1]) <= task.max_args
                assert depth < task.max_depth


@settings(max_examples=25, deadline=None)
@given(
    depth=st.integers(2, 8),
    args=st.integers(2, 12),
    shortest=st.integers(0, 6),
    spare=st.integers(2, 90),
    seed=st.integers(),
)
def test_any_setting_is_solvable(
    depth: int, args: int, shortest: int, spare: int, seed: int
) -> None:
    if shortest >= 4 and args == 2 and depth == 2:
        return  # two digits and their brackets are all there is
    length = max(shortest + spare, 5, shortest + 3)
    task = ListOps(max_depth=depth, max_args=args, shortest=shortest, length=length, eval_size=20)
    for tokens, label in rows_of(task.split("test", seed)):
        assert value_of(parsed(tokens)) == label


@pytest.mark.parametrize("changes", [SHORT, {**SHORT, "max_depth": 6, "length": 200}])
def test_the_distribution_is_that_of_the_published_rule(changes: dict[str, Any]) -> None:
    task, dice = ListOps(**changes, train_size=3000), random.Random(0)
    ours = [parsed(tokens) for tokens, _ in rows_of(task.split("train", 0))]
    theirs: list[Any] = []
    while len(theirs) < 3000:
        tree = plain_tree(dice, task)
        if task.shortest < size_of(tree) < task.length:
            theirs.append(tree)
    sizes = [[size_of(tree) for tree in trees] for trees in (ours, theirs)]
    assert_plausible(stats.ks_2samp(*sizes))
    for feature in (
        value_of,
        lambda tree: tree[0],
        lambda tree: len(tree[1]),
        lambda tree: sum(isinstance(argument, int) for argument in tree[1]),
        lambda tree: max(depth for _, depth in nodes_of(tree)),
    ):
        counts = [Counter(map(feature, trees)) for trees in (ours, theirs)]
        common = [key for key in counts[1] if counts[0][key] + counts[1][key] > 20]
        table = [[count[key] for key in common] for count in counts]
        if len(common) > 1:
            assert_plausible(stats.chi2_contingency(table))


def test_operators_and_digits_are_uniform_at_every_depth() -> None:
    trees = [parsed(t) for t, _ in rows_of(ListOps(**SHORT, train_size=2000).split("train", 1))]
    nodes = [node for tree in trees for node in nodes_of(tree)]
    for level in (1, 2, 3):
        assert_uniform((n[0] for n, depth in nodes if depth == level and not isinstance(n, int)), 4)
    for level in (2, 3, 4):
        assert_uniform((n for n, depth in nodes if depth == level and isinstance(n, int)), 10)


def test_a_split_is_a_pure_function_and_splits_are_disjoint() -> None:
    task, seen = ListOps(**SHORT, train_size=3000, eval_size=3000), set[tuple[int, ...]]()
    for seed in (0, 1):
        for which in SPLITS:
            once, again = (task.split(which, seed) for _ in range(2))
            assert torch.equal(once.inputs, again.inputs)
            assert torch.equal(once.labels, again.labels)
            rows = {tuple(tokens) for tokens, _ in rows_of(once) if len(tokens) > 16}
            assert rows and not rows & seen
            seen |= rows


# Shortcuts


def test_the_published_shortcut_ladder() -> None:
    task = ListOps(train_size=7000, eval_size=7000)
    train, test = task.split("train", 0), task.split("test", 0)
    ladder = task.shortcuts(train, test)
    assert ladder["majority"] == pytest.approx(0.170, abs=0.02)
    assert ladder["root"] == pytest.approx(0.364, abs=0.02)
    # of 7,000 lists five seeds gave .465 to .482, of 40,000 one gave .484; .490 is the spec's
    assert ladder["root_digits"] == pytest.approx(0.490, abs=0.03)
    figures = task.figures({}, train, test)
    assert figures == {f"shortcut_{rule}": value for rule, value in ladder.items()}


def test_shortcuts_agree_with_plain_tables() -> None:
    task = ListOps(**SHORT, train_size=800, eval_size=500)
    splits = [task.split(which, 0) for which in ("train", "test")]
    known, asked = ([(parsed(t), y) for t, y in rows_of(split)] for split in splits)

    def own(tree: Any) -> int:
        digits = [argument for argument in tree[1] if isinstance(argument, int)]
        return OPERATORS[tree[0]](digits) if digits else -1

    def table(clue: Any) -> float:
        counts: dict[Any, Counter[int]] = {}
        overall = Counter(label for _, label in known)
        for tree, label in known:
            counts.setdefault(clue(tree), Counter())[label] += 1

        def best(counter: Counter[int]) -> int:
            return min(counter, key=lambda label: (-counter[label], label))

        right = [best(counts.get(clue(tree), overall)) == label for tree, label in asked]
        return sum(right) / len(right)

    assert task.shortcuts(*splits) == pytest.approx(
        {
            "majority": table(lambda tree: 0),
            "root": table(lambda tree: tree[0]),
            "root_digits": table(lambda tree: (tree[0], own(tree))),
        }
    )


def test_an_unseen_clue_gets_the_commonest_label() -> None:
    known, labels = torch.tensor([0, 1, 1]), torch.tensor([3, 5, 5])
    assert table_accuracy(known, torch.tensor([2, 0]), labels, torch.tensor([5, 3])) == 1.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([10, 11, 12, 13]), st.lists(st.integers(0, 9), min_size=1, max_size=7)
        ),
        min_size=1,
        max_size=9,
    )
)
def test_apply_is_python(cases: list[tuple[int, list[int]]]) -> None:
    arguments = torch.tensor([values + [9] * (7 - len(values)) for _, values in cases])
    count = torch.tensor([len(values) for _, values in cases])
    found = apply(torch.tensor([operator for operator, _ in cases]), arguments, count)
    assert found.tolist() == [OPERATORS[operator](values) for operator, values in cases]


# The head, and settings


def test_the_head_averages_up_to_each_position_and_no_further() -> None:
    head = ListOps().head(6)
    hidden = torch.randn(3, 9, 6)
    logits = head(hidden)
    assert logits.shape == (3, 9, 10)
    for i in range(9):
        assert torch.allclose(logits[:, i], head.linear(hidden[:, : i + 1].mean(1)), atol=1e-6)
    changed = hidden.clone()
    changed[:, 5:] = 7.0  # what comes later, padding say, has no effect
    assert torch.equal(head(changed)[:, :5], logits[:, :5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_depth": 1}, "max_depth must be a whole number of at least 2, not 1; raise it."),
        ({"max_args": 1.5}, "max_args must be a whole number of at least 2, not 1.5; raise it."),
        ({"shortest": -1}, "shortest must be a whole number of at least 0, not -1; raise it."),
        (
            {"shortest": 1999},
            "length must exceed shortest + 1 = 2000, both being excluded, not 2000",
        ),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        ListOps(**changes)
    assert str(caught.value).startswith(f"lra-listops: {message}")


def test_lengths_that_never_come_up_are_refused() -> None:
    task = ListOps(max_depth=2, max_args=3, eval_size=5)
    with pytest.raises(ValueError, match=r"lists of 501 to 1999 tokens must come up, not 'none in"):
        task.split("test", 0)
