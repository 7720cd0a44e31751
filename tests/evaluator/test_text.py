"""Properties of byte language modelling: what is read, how it is cut, and how it is scored."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
import torch
from evaluator_checks import assert_uniform
from torch import Tensor

from evaluator.metrics import accuracy
from evaluator.tasks import Split, Text
from evaluator.tasks import text as text_module
from evaluator.tasks.base import SplitName
from evaluator.tasks.text import read_corpus

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """10,000 characters of three bytes each, so that every window tells its place."""
    path = tmp_path / "corpus.txt"
    path.write_text("".join(chr(0x4E00 + i) for i in range(10_000)), encoding="utf-8")
    return path


def places(split: Split, data: bytes) -> list[int]:
    """Where each window, with the byte after it, stands in the corpus."""
    windows = torch.cat([split.inputs, split.labels[:, -1:]], 1)
    assert torch.equal(split.labels[:, :-1], split.inputs[:, 1:])
    found = [data.find(bytes(window)) for window in windows.tolist()]
    assert min(found) >= 0
    return found


def blocks_of(split: Split, data: bytes, size: int) -> set[int]:
    starts = places(split, data)
    last = split.inputs.shape[1]
    assert all(start // size == (start + last) // size for start in starts), "crosses a block"
    return {start // size for start in starts}


def test_splits_are_disjoint_blocks_and_no_window_crosses_one(corpus: Path) -> None:
    task = Text(corpus=str(corpus), length=30, train_size=4000, eval_size=500)
    data = corpus.read_bytes()
    used = {which: blocks_of(task.split(which, 0), data, 300) for which in SPLITS}
    assert used["validation"] == set(range(8, 100, 10))
    assert used["test"] == set(range(9, 100, 10))
    assert used["train"] == set(range(100)) - used["validation"] - used["test"]


def test_training_windows_start_anywhere(corpus: Path) -> None:
    task = Text(corpus=str(corpus), length=280, train_size=8000)
    starts = places(task.split("train", 1), corpus.read_bytes())
    assert_uniform((start % 300 for start in starts), 20)  # the last of them ends with its block
    assert_uniform((start // 300 for start in starts), 80)


def test_evaluation_predicts_each_byte_of_its_blocks_at_most_once(corpus: Path) -> None:
    data = corpus.read_bytes()
    task = Text(corpus=str(corpus), length=23, eval_size=10_000)
    starts = places(task.split("test", 0), data)
    predicted = [start + 1 + i for start in starts for i in range(23)]
    assert len(predicted) == len(set(predicted)) == 10 * 13 * 23  # 299 bytes have one before them
    some = Text(corpus=str(corpus), length=23, eval_size=40)
    drawn = places(some.split("test", 0), data)
    assert len(set(drawn)) == 40 and set(drawn) < set(starts)


def test_a_split_is_a_pure_function_of_settings_split_and_seed(corpus: Path) -> None:
    task = Text(corpus=str(corpus), train_size=50)
    for which in SPLITS:
        once, again = (task.split(which, 5) for _ in range(2))
        assert torch.equal(once.inputs, again.inputs)
        assert once.inputs.dtype == torch.int64 and once.inputs.is_contiguous()
    assert not torch.equal(task.split("train", 5).inputs, task.split("train", 6).inputs)


def test_the_digest_and_not_the_path_is_the_identity(corpus: Path) -> None:
    twin = corpus.with_name("twin.txt")
    twin.write_bytes(corpus.read_bytes())
    other = corpus.with_name("other.txt")
    other.write_bytes(b"x" + corpus.read_bytes())
    one, two, three = (Text(corpus=str(path)) for path in (corpus, twin, other))
    assert one.provenance()["sha256"] == hashlib.sha256(corpus.read_bytes()).hexdigest()
    assert one.identity() == two.identity() != three.identity()
    assert torch.equal(one.split("train", 0).inputs, two.split("train", 0).inputs)


def test_a_folder_is_its_txt_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "z.txt").write_text("last")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "a.md").write_text("no")
    assert bytes(read_corpus(str(tmp_path)).data.tolist()) == b"first\nlast"


def test_pydoc_topics_are_there() -> None:
    found = read_corpus("pydoc-topics")
    assert len(found.data) > 300_000
    assert b'The "assert" statement' in bytes(found.data[:5000].tolist())
    assert Text().split("validation", 0).inputs.shape[1] == 256


# Score


def uniform_logits(split: Split) -> Tensor:
    return torch.zeros(*split.inputs.shape, 256)


def test_bits_per_byte_and_the_score_it_gives() -> None:
    task = Text(eval_size=8, length=32)
    split = task.split("validation", 0)
    metrics = accuracy(uniform_logits(split), split.labels)
    assert task.figures(metrics, split, split) == {"bits_per_byte": pytest.approx(8)}
    assert task.score_of(metrics) == pytest.approx(0)
    sure = 100 * torch.nn.functional.one_hot(split.labels, 256).float()
    assert task.score_of(accuracy(sure, split.labels)) == pytest.approx(1)
    half = uniform_logits(split)
    half[:, :, 128:] = -math.inf  # the corpus is all ASCII here: seven bits a byte
    half[half.isinf()] = -1e9
    metrics = accuracy(half, split.labels)
    assert task.figures(metrics, split, split)["bits_per_byte"] == pytest.approx(7)
    assert task.score_of(metrics) == pytest.approx(1 / 8)
    assert task.score_of({"loss": 100.0}) == 0.0


# What cannot be read


def test_a_missing_corpus_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"must be pydoc-topics, kjv, a file .*not '/no/such';"):
        Text(corpus="/no/such").split("train", 0)


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the folder must hold \.txt files, not none; add some"):
        Text(corpus=str(tmp_path)).identity()
    (tmp_path / "empty.txt").touch()
    for place in (tmp_path, tmp_path / "empty.txt"):
        read_corpus.cache_clear()
        with pytest.raises(ValueError, match="must hold text, not 0 bytes; name another"):
            Text(corpus=str(place)).identity()


def test_what_is_not_utf8_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(ValueError, match=r"must be UTF-8, not byte 0xe9 at offset 3; convert it"):
        Text(corpus=str(tmp_path / "latin.txt")).provenance()


def test_a_corpus_too_short_for_the_windows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("a" * 25_000)
    task = Text(corpus=str(tmp_path / "short.txt"))
    for use in (task.provenance, task.identity, lambda: task.split("train", 0)):
        with pytest.raises(ValueError, match="at least 25700 bytes for windows of 256, not 25000;"):
            use()


def program(folder: Path, script: str) -> None:
    path = folder / "bible"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_kjv_is_what_the_program_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"kjv: the program `bible` .* `apt-get install bible-kjv`"
    ):
        text_module._kjv()
    program(tmp_path, "echo Cannot open data file >&2; exit 255")
    with pytest.raises(
        ValueError, match=r"must print the text, not fail \(Cannot open data file\)"
    ):
        text_module._kjv()
    program(tmp_path, 'echo "$@"')
    assert text_module._kjv() == b"-f gen1:1-rev22:21\n"
