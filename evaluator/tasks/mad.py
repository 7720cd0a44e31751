"""The six synthetic tasks of MAD, and the grid of 66 settings (Poli et al. 2024, arXiv 2403.17844).

Every task is drawn for all rows at once. It does not train or score, and it is not mad-lab's data:
the rules are the paper's, the bytes are ours. Baselines are the small proxy (800 training
examples); `mad_grid` uses the paper's 12,800. A *scored* position is one whose label is not IGNORE.

Known traps in comparing with published MAD numbers (from mad-lab, the authors' code):
- They are macro accuracies (mean over classes), averaged over batches. We report micro and macro,
  each over the whole split.
- They are chosen on test: the sweep keeps the best of six runs by test accuracy, and there is no
  validation split. We choose on validation.
- The paper says cosine decay, but mad-lab returns its schedule under a key that Lightning does not
  read, so the learning rate stays constant. Our schedule is the profile's, and is recorded.
- Training accuracy is not comparable with evaluation accuracy: the recall tasks train on every next
  token, most of which nobody can predict, and are evaluated on the answers only.
- Compression scores the closing id too, which is always the same: 1/L of its micro accuracy is
  free.
- Memorization has a ceiling of 1 at V = 256, but not in the grid: the training rows hold 4,096
  keys, so a share exp(-4096 / (V/2)) of the facts is never shown: .02 at V = 2048, .13 at 4096, .37
  at 8192.

Where ours departs from mad-lab, each on purpose:
- In noisy recall the slot that is never noise is one of those before the question; mad-lab's may be
  the question's own, which can leave nothing to ask about.
- In fuzzy recall the probe is always planted (mad-lab's place for it can lie behind the last pair),
  its place is uniform over the pairs, padding is never a label, and evaluation scores the probe's
  answer only (mad-lab also scores keys that happen to repeat). Tuples are drawn directly; mad-lab
  lists them all.
- Selective copying draws its blanks from the seeded generator (mad-lab: from numpy's global one).
- Memorization's facts never change with the seed (mad-lab: with its configuration's), and pair key
  i of the lower half with one id of the upper half; at even V one id is left over.
- Compression's decoder is ours in detail: RMS norms and two hidden layers, all of the model's
  width.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from evaluator.tasks.base import IGNORE, Split, SplitName, Task, generator_of
from search_space.primitives.norm import Norm

LONGEST = 3  # ids in the longest key or value tuple of fuzzy recall


@dataclass(frozen=True, kw_only=True)
class InContextRecall(Task):
    """Repeat the value that a key had earlier in the same sequence.

    `length` / 2 (key, value) pairs; keys are the lower half of the ids, values the upper half. A
    key repeats its value within the sequence; the last pair's key is uniform over the distinct keys
    seen. The model sees all tokens but the last and predicts the next one. Training scores every
    position, evaluation the value of each repeated key.
    """

    name: str = field(default="in-context-recall", init=False)
    vocab: int = 16
    length: int = 128
    train_size: int = 800
    eval_size: int = 1280

    def __post_init__(self) -> None:
        super().__post_init__()
        pairs_fit = self.length >= 4 and self.length % 2 == 0
        self._require(pairs_fit, "length must be even and at least 4", self.length, "add a token")
        ids, rule = self._clean_ids, "keys and values need at least 4 ids that are not noise"
        self._require(ids >= 4, rule, ids, "raise vocab")

    @property
    def input_length(self) -> int:
        """Tokens the model sees: all but the last."""
        return self.length - 1

    @property
    def _clean_ids(self) -> int:
        return self.vocab  # keys and values; noisy recall has fewer

    def _draw(self, which: SplitName, rows: int, generator: torch.Generator) -> Split:
        slots = self.length // 2 - 1  # the last pair is the question
        keys = torch.randint(self._clean_ids // 2, (rows, slots), generator=generator)
        values = torch.randint(
            self._clean_ids // 2, self._clean_ids, (rows, slots), generator=generator
        )
        noise = self._noise(rows, slots, generator)
        slot = torch.arange(slots)
        first = first_equal(torch.where(noise, -1 - slot, keys))  # noise equals nothing
        asked = uniform_choice((first == slot) & ~noise, generator)  # (rows, 1)
        pairs = torch.stack([keys, values.gather(1, first)], -1)  # (rows, slots, 2)
        question = pairs.gather(1, asked.unsqueeze(-1).expand(-1, -1, 2))
        pairs = torch.where(noise.unsqueeze(-1), self._noise_ids(pairs, generator), pairs)
        tokens = torch.cat([pairs, question], 1).flatten(1)  # (rows, length)
        if which == "train":
            return Split(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        scored = torch.cat([first < slot, torch.ones(rows, 1, dtype=torch.bool)], 1)
        labels = tokens.masked_fill(~spread_over_values(scored), IGNORE)
        return Split(tokens[:, :-1].contiguous(), labels[:, 1:].contiguous())

    def _noise(self, rows: int, slots: int, generator: torch.Generator) -> Tensor:
        """(rows, slots) bool: which slots hold noise instead of a pair."""
        return torch.zeros(rows, slots, dtype=torch.bool)

    def _noise_ids(self, pairs: Tensor, generator: torch.Generator) -> Tensor:
        """Ids shaped like `pairs`, to stand in the noise slots."""
        return pairs


@dataclass(frozen=True, kw_only=True)
class NoisyRecall(InContextRecall):
    """In-context recall among noise: the last `noise_vocab` ids of the vocabulary mean nothing.

    Each slot but one, chosen at random, and but the question is noise with probability `noise`: two
    uniform noise ids. Evaluation never scores noise; training does, like every next token.
    """

    name: str = field(default="noisy-recall", init=False)
    vocab: int = 32
    noise: float = 0.2
    noise_vocab: int = 16

    def __post_init__(self) -> None:
        ok = isinstance(self.noise, int | float) and 0 <= self.noise < 1
        self._require(ok, "noise must be at least 0 and below 1", self.noise, "lower it")
        # 0 and 0.0 are one setting, so they must have one identity
        object.__setattr__(self, "noise", float(self.noise))
        rule = "noise_vocab must be a whole number of at least 1"
        ok = type(self.noise_vocab) is int and self.noise_vocab >= 1
        self._require(ok, rule, self.noise_vocab, "or use in-context-recall")
        super().__post_init__()

    @property
    def _clean_ids(self) -> int:
        return self.vocab - self.noise_vocab

    def _noise(self, rows: int, slots: int, generator: torch.Generator) -> Tensor:
        noise = torch.rand(rows, slots, generator=generator) < self.noise
        kept = torch.randint(slots, (rows, 1), generator=generator)
        return noise.scatter(1, kept, False)

    def _noise_ids(self, pairs: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randint(self._clean_ids, self.vocab, pairs.shape, generator=generator)


@dataclass(frozen=True, kw_only=True)
class FuzzyRecall(Task):
    """In-context recall whose keys and values are ordered tuples of distinct ids.

    Values have 1 to 3 ids; keys 1 to 3 in training and exactly 3 in evaluation, all sizes uniform.
    Keys are the lower half of the ids below the pad id `vocab` - 1, values the upper half. One pair
    is asked again at the end; the pad id fills the left. `length` + 1 tokens, of which the model
    sees all but the last. Training scores every next token but pads, evaluation the ids of the last
    value.
    """

    name: str = field(default="fuzzy-recall", init=False)
    vocab: int = 16
    length: int = 128
    train_size: int = 800
    eval_size: int = 1280

    def __post_init__(self) -> None:
        super().__post_init__()
        smallest = 2 * LONGEST + 1
        rule = f"vocab must hold {LONGEST} keys, {LONGEST} values and a pad: at least {smallest}"
        self._require(self.vocab >= smallest, rule, self.vocab, "raise it")
        rule = f"length must hold the longest pair twice, less one: at least {4 * LONGEST - 1}"
        self._require(self.length >= 4 * LONGEST - 1, rule, self.length, "raise it")

    def _draw(self, which: SplitName, rows: int, generator: torch.Generator) -> Split:
        shortest_key = 1 if which == "train" else LONGEST
        slots = self.length // (shortest_key + 1)  # more pairs than this never fit
        cells, used = self._pairs(rows, slots, shortest_key, generator)
        sizes = used.sum(-1)  # (rows, slots)
        # Slot 0 is the pair to be asked. A slot is kept if even the longest pair would fit there,
        # so that being kept tells nothing of its own size.
        starts = sizes.cumsum(1) - sizes
        kept = starts + 2 * LONGEST <= self.length + 1 - sizes[:, :1]
        order = asked_last(kept, generator)  # (rows, slots + 1)
        used = torch.cat([kept, kept[:, :1]], 1).unsqueeze(-1) & take(used, order)
        tokens = self._right_aligned(take(cells, order).flatten(1), used.flatten(1))
        labels = tokens[:, 1:].masked_fill(tokens[:, 1:] == self.vocab - 1, IGNORE)
        if which != "train":
            answer = used[:, -1, LONGEST:].sum(-1, keepdim=True)  # ids in the asked value
            labels.masked_fill_(torch.arange(self.length) < self.length - answer, IGNORE)
        return Split(tokens[:, :-1].contiguous(), labels.contiguous())

    def _pairs(
        self, rows: int, slots: int, shortest_key: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """(rows, slots, 6) ids, three for the key and three for the value, and which are used.

        Equal keys in a row share the value of the first of them, its size included.
        """
        half = (self.vocab - 1) // 2
        ids = (half, self.vocab - 1 - half)  # how many keys, how many values
        key, value = (distinct_ids((rows, slots), n, generator) for n in ids)
        drawn = [
            torch.randint(shortest, LONGEST + 1, (rows, slots, 1), generator=generator)
            for shortest in (shortest_key, 1)
        ]
        key_used, value_used = (torch.arange(LONGEST) < size for size in drawn)
        # A tuple as one number: digits in base half + 1, where 0 is "no id".
        digits = torch.where(key_used, key + 1, 0)
        first = first_equal((digits * (half + 1) ** torch.arange(LONGEST)).sum(-1))
        cells = torch.cat([key, half + take(value, first)], -1)
        return cells, torch.cat([key_used, take(value_used, first)], -1)

    def _right_aligned(self, cells: Tensor, used: Tensor) -> Tensor:
        """The used cells of each row in order, pads on their left: (rows, length + 1)."""
        width = self.length + 1
        place = width - used.sum(1, keepdim=True) + used.cumsum(1) - 1
        place = torch.where(used, place, width)  # unused cells go to a column that is cut off
        tokens = torch.full((len(cells), width + 1), self.vocab - 1)
        return tokens.scatter_(1, place, cells)[:, :width]


@dataclass(frozen=True, kw_only=True)
class SelectiveCopying(Task):
    """Repeat, in order, the `tokens` content ids that stand scattered among blanks.

    Content ids are all below the blank id `vocab` - 2; each blank falls before a uniformly chosen
    content id. Then the copy id `vocab` - 1 and `tokens` blanks, where the answer is scored; there
    is no teacher forcing, and training and evaluation score alike.
    """

    name: str = field(default="selective-copying", init=False)
    vocab: int = 16
    length: int = 256
    tokens: int = 16
    train_size: int = 800
    eval_size: int = 1280

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.vocab >= 4, "vocab must be at least 4", self.vocab, "raise it")
        ok = type(self.tokens) is int and self.tokens >= 1
        self._require(ok, "tokens must be a whole number of at least 1", self.tokens, "raise it")
        rule = f"length must exceed 2 x tokens + 1 = {2 * self.tokens + 1}, to hold a blank"
        way_out = "lengthen it or copy fewer tokens"
        self._require(self.length > 2 * self.tokens + 1, rule, self.length, way_out)

    def _draw(self, which: SplitName, rows: int, generator: torch.Generator) -> Split:
        blanks = self.length - 2 * self.tokens - 1
        content = torch.randint(self.vocab - 2, (rows, self.tokens), generator=generator)
        gaps = torch.randint(self.tokens, (rows, blanks), generator=generator)
        per_gap = torch.zeros_like(content).scatter_add_(1, gaps, torch.ones_like(gaps))
        place = torch.arange(self.tokens) + per_gap.cumsum(1)  # of each content id
        inputs = torch.full((rows, self.length), self.vocab - 2).scatter_(1, place, content)
        inputs[:, -self.tokens - 1] = self.vocab - 1
        labels = torch.full((rows, self.length), IGNORE)
        labels[:, -self.tokens :] = content
        return Split(inputs, labels)


@dataclass(frozen=True, kw_only=True)
class Compression(Task):
    """Put a random sequence into one vector: `length` - 1 uniform ids, then the id `vocab` - 1.

    The label of each position is its own input, but `head` decodes them all from the last
    position's encoding. So this head reads across positions, unlike every other task's: a prefix
    has no logits.
    """

    name: str = field(default="compression", init=False)
    vocab: int = 16
    length: int = 32
    train_size: int = 800
    eval_size: int = 1280

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.vocab >= 3, "vocab must be at least 3", self.vocab, "raise it")
        self._require(self.length >= 2, "length must be at least 2", self.length, "raise it")

    def head(self, d_model: int) -> nn.Module:
        """The decoder from the last position: (B, length, D) -> (B, length, vocab) logits."""
        return LastPositionDecoder(d_model, self.vocab, self.length)

    def _draw(self, which: SplitName, rows: int, generator: torch.Generator) -> Split:
        inputs = torch.randint(self.vocab - 1, (rows, self.length), generator=generator)
        inputs[:, -1] = self.vocab - 1
        return Split(inputs, inputs.clone())


class LastPositionDecoder(nn.Module):
    """Adds a code per position to the last position's encoding; an MLP gives each id's logits."""

    code: Tensor

    def __init__(self, d_model: int, vocab: int, length: int) -> None:
        super().__init__()
        self.register_buffer("code", sinusoidal_code(length, d_model), persistent=False)
        self.mlp = nn.Sequential(
            Norm(d_model),
            nn.Linear(d_model, d_model),
            nn.GELU(),
            Norm(d_model),
            nn.Linear(d_model, d_model),
            nn.GELU(),
            Norm(d_model),
            nn.Linear(d_model, vocab),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, length, D) -> (B, length, vocab)."""
        logits: Tensor = self.mlp(hidden[:, -1:] + self.code.to(hidden.dtype))
        return logits


@dataclass(frozen=True, kw_only=True)
class Memorization(Task):
    """Learn a fixed table: key, insert id `vocab` - 1, key, insert id, ...

    The value of the key is scored at the insert position, in every split. The table is a bijection
    between the two halves of the other ids, the same for every seed and split: nothing in the
    sequence tells the answer, only training does.
    """

    name: str = field(default="memorization", init=False)
    vocab: int = 256
    length: int = 32
    train_size: int = 256
    eval_size: int = 1280

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.vocab >= 5, "vocab must be at least 5", self.vocab, "raise it")
        self._require(self.length % 2 == 0, "length must be even", self.length, "add a token")

    def table(self) -> Tensor:
        """(keys,) int64: the value id of each key id."""
        keys = (self.vocab - 1) // 2
        return keys + torch.randperm(keys, generator=generator_of("memorization", self.vocab))

    def _draw(self, which: SplitName, rows: int, generator: torch.Generator) -> Split:
        table = self.table()
        keys = torch.randint(len(table), (rows, self.length // 2), generator=generator)
        inputs = torch.stack([keys, torch.full_like(keys, self.vocab - 1)], -1).flatten(1)
        labels = torch.stack([torch.full_like(keys, IGNORE), table[keys]], -1).flatten(1)
        return Split(inputs, labels)


_CLASSES: dict[str, type[Task]] = {
    "in-context-recall": InContextRecall,
    "noisy-recall": NoisyRecall,
    "fuzzy-recall": FuzzyRecall,
    "selective-copying": SelectiveCopying,
    "compression": Compression,
    "memorization": Memorization,
}
MAD_TASKS: tuple[str, ...] = tuple(_CLASSES)


def mad_task(name: str, **settings: Any) -> Task:
    """The MAD task called `name` at its baseline, with `settings` changed.

    Raises ValueError for an unknown name or setting, naming the nearest, and for impossible
    settings.
    """
    if name not in _CLASSES:
        raise ValueError(_unknown("MAD", "task", name, MAD_TASKS))
    known = tuple(f.name for f in fields(_CLASSES[name]) if f.init)
    for setting in settings:
        if setting not in known:
            raise ValueError(_unknown(name, "setting", setting, known))
    return _CLASSES[name](**settings)


def _unknown(place: str, kind: str, value: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
    way_out = f"did you mean {near[0]!r}?" if near else "use one of those."
    return f"{place}: a {kind} must be one of {', '.join(known)}, not {value!r}; {way_out}"


# One setting is varied at a time around the baseline: appendix on task difficulty of the paper, and
# `configs/tasks/*.yml` of athms/mad-lab, which agree. Noisy recall's vocabularies include its 16
# noise ids.
_SIZES: dict[str, tuple[float, ...]] = {"train_size": (6400, 3200, 1600, 800)}
_RECALL: dict[str, tuple[float, ...]] = {
    "vocab": (32, 64, 128),
    "length": (256, 512, 1024),
    **_SIZES,
}
_GRID: dict[str, dict[str, tuple[float, ...]]] = {
    "in-context-recall": _RECALL,
    "noisy-recall": {**_RECALL, "vocab": (48, 80, 144), "noise": (0.4, 0.6, 0.8)},
    "fuzzy-recall": _RECALL,
    "selective-copying": {**_RECALL, "length": (512, 1024), "tokens": (32, 64, 96)},
    "compression": {**_RECALL, "length": (64, 128, 256)},
    "memorization": {"vocab": (512, 1024, 2048, 4096, 8192)},
}


def mad_grid() -> tuple[Task, ...]:
    """The paper's 66 settings: 11, 14, 11, 13, 11 and 6 for the tasks in the order of `MAD_TASKS`.

    The baseline trains on 12,800 examples (memorization on 256). Each task's baseline comes first.
    """
    grid: list[Task] = []
    for name, changes in _GRID.items():
        base = {} if name == "memorization" else {"train_size": 12_800}
        grid.append(mad_task(name, **base))
        for setting, values in changes.items():
            grid += [mad_task(name, **{**base, setting: value}) for value in values]
    return tuple(grid)


def first_equal(codes: Tensor) -> Tensor:
    """(N, P) integers -> (N, P) int64: the first index in the row that holds the same integer.

    By a stable sort: comparing all pairs would need P x P memory, and P is 512 in the grid.
    """
    ordered, index = codes.sort(dim=1, stable=True)
    new = torch.ones_like(codes, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    place = torch.arange(codes.shape[1])
    group_start = torch.where(new, place, 0).cummax(1).values
    return torch.empty_like(index).scatter_(1, index, index.gather(1, group_start))


def uniform_choice(allowed: Tensor, generator: torch.Generator) -> Tensor:
    """(N, P) bool with a True in every row -> (N, 1) int64: the index of one, uniformly chosen."""
    scores = torch.rand(allowed.shape, generator=generator)
    return scores.masked_fill(~allowed, -1.0).argmax(1, keepdim=True)


def asked_last(kept: Tensor, generator: torch.Generator) -> Tensor:
    """(N, P) bool, True from slot 0 on -> (N, P + 1) int64: which slot to put at each place.

    Slot 0 changes places with a uniformly chosen kept slot, and is put once more at the end.
    """
    place = uniform_choice(kept, generator)
    order = torch.arange(kept.shape[1]).repeat(len(kept), 1)
    order[:, :1] = place
    order.scatter_(1, place, 0)
    return torch.cat([order, torch.zeros_like(place)], 1)


def take(cells: Tensor, slots: Tensor) -> Tensor:
    """(N, P, C) cells and (N, Q) slots -> (N, Q, C): the cells of those slots."""
    return cells.gather(1, slots.unsqueeze(-1).expand(-1, -1, cells.shape[-1]))


def spread_over_values(pairs: Tensor) -> Tensor:
    """(N, P) bool per pair -> (N, 2 P) bool per token, True at the value only."""
    return torch.stack([torch.zeros_like(pairs), pairs], -1).flatten(1)


def distinct_ids(shape: tuple[int, int], ids: int, generator: torch.Generator) -> Tensor:
    """(*shape, LONGEST) int64: ordered tuples of distinct ids below `ids`, all equally likely.

    The i-th draw is a rank among the ids - i that are left; stepping over the taken ids in
    ascending order turns it into an id. Any prefix of a tuple is then a uniform shorter tuple.
    """
    drawn: list[Tensor] = []
    for i in range(LONGEST):
        rank = torch.randint(ids - i, shape, generator=generator)
        taken = torch.stack(drawn, -1).sort(-1).values.unbind(-1) if drawn else ()
        for other in taken:
            rank += rank >= other
        drawn.append(rank)
    return torch.stack(drawn, -1)


def sinusoidal_code(length: int, width: int) -> Tensor:
    """(length, width) float32: sines, then cosines, of position / 10000^(i / half).

    Source: Vaswani et al. 2017, section 3.5, with sines and cosines side by side, not interleaved.
    """
    half = (width + 1) // 2
    rate = 10_000.0 ** (-torch.arange(half) / half)
    angle = torch.arange(length).unsqueeze(1) * rate
    return torch.cat([angle.sin(), angle.cos()], 1)[:, :width]
