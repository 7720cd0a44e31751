"""What a task is: settings that turn (split, seed) into token ids and labels, and an output head.

It does not train, score or cache, and it imports nothing but torch. Batches, devices and files are
the trainer's business: a split is two CPU tensors.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

IGNORE = -100  # the label of a position that is not scored; torch's own default `ignore_index`

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True, eq=False)  # == on tensors has no single truth value
class Split:
    """One split of a task.

    inputs: (N, L) int64 token ids in [0, vocab). labels: (N, L) int64 ids, IGNORE where not scored.
    A task whose splits would be gigabytes may use narrower integers, which trainer and scorer widen
    batch by batch.
    """

    inputs: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> Split:
        """The same split on `device`."""
        return Split(self.inputs.to(device), self.labels.to(device))


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A task's settings; a subclass adds its own, checks them and writes `_draw`.

    vocab: number of token ids, for inputs and logits alike. length: the published sequence length,
    in tokens (what a model sees is `input_length`). train_size, eval_size: examples in the training
    split and in each of the two evaluation splits. Raises ValueError where the settings are
    impossible.
    """

    name: str
    vocab: int
    length: int
    train_size: int
    eval_size: int

    def __post_init__(self) -> None:
        for setting in ("vocab", "length", "train_size", "eval_size"):
            value = getattr(self, setting)
            ok = type(value) is int and value >= 1
            self._require(ok, f"{setting} must be a whole number of at least 1", value, "raise it")

    @property
    def input_length(self) -> int:
        """Tokens per example that the model sees: the L of `Split`."""
        return self.length

    @property
    def outputs(self) -> int:
        """Logits for each position: what the head makes of a hidden state, by default one for each id."""
        return self.vocab

    def split(self, which: SplitName, seed: int) -> Split:
        """The examples of one split, on the CPU: a pure function of (settings, which, seed).

        Raises ValueError for an unknown split. The bytes are torch's generator's, so they are
        promised for one torch version, not across all of them.
        """
        names = get_args(SplitName)
        self._require(which in names, f"split must be one of {', '.join(names)}", which, "name one")
        rows = self.train_size if which == "train" else self.eval_size
        return self._draw(which, rows, generator_of(self.identity(), which, seed))

    def identity(self) -> str:
        """Canonical text of the name and every setting: equal tasks, and only they, share it."""
        return json.dumps(asdict(self), sort_keys=True)

    def head(self, d_model: int) -> nn.Module:
        """The output layer, (B, L, D) -> (B, L, outputs) logits; an untied linear map by default."""
        return nn.Linear(d_model, self.outputs, bias=False)

    def score_of(self, metrics: Mapping[str, float]) -> float:
        """The task's score from `Scorer.result`: from 0 to 1, higher is better; accuracy by default."""
        return metrics["accuracy"]

    def figures(
        self, metrics: Mapping[str, float], train: Split, held_out: Split
    ) -> dict[str, float]:
        """Further figures to keep beside ``metrics``, which were measured on ``held_out``."""
        return {}

    def provenance(self) -> dict[str, str]:
        """Which data a task that does not generate its own reads: a name, a digest.

        Raises ValueError where they are missing or damaged, so it is a check before a campaign too.
        """
        return {}

    @abstractmethod
    def _draw(self, which: SplitName, rows: int, generator: torch.Generator) -> Split:
        """`rows` examples whose only randomness is `generator`'s."""

    def _require(self, ok: bool, rule: str, value: object, way_out: str) -> None:
        if not ok:
            raise ValueError(f"{self.name}: {rule}, not {value!r}; {way_out}.")


def generator_of(*parts: str | int) -> torch.Generator:
    """A CPU generator seeded by a hash of `parts`, so that different streams are unrelated.

    Hashing keeps neighbouring seeds, and the splits of one seed, from sharing a stream, as adding
    offsets to the seed would not. torch's CPU generator reads only the low 32 bits of its seed
    (2.13), so two given streams still coincide with chance 2^-32.
    """
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, "big") >> 1  # 63 bits: torch wants a signed 64-bit integer
    return torch.Generator().manual_seed(seed)
