"""Runs beside written mixers, in the sandbox: trains the model round them, or computes its logits.

The two are tasks of separate runs. Training gets inputs and training labels, and leaves weights;
`logits` gets weights and token ids, and leaves float32 logits. Neither gets an evaluation label or the seed
of one, and neither scores: `sandbox.scoring` does, outside. The pickles read here are the supervisor's.

Training is two processes. The trainer has all of the model but the mixers' code: embedding, other layers,
head, the data, the loss, the optimiser, the clock and the count of steps, and runs no line of the
candidate's. The candidate's process (`sandbox.remote`), one for all its mixers, sees no token and no label.
It knows the CPU only.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from evaluator import memory
from evaluator.evaluate import SCORING_BATCH, classified
from evaluator.outcome import CandidateFailure, FailureKind
from evaluator.tasks.base import Split, Task
from evaluator.train import Training
from evaluator.train import train as train_model
from sandbox.apart import Apart, Ask, Gone, Reply
from sandbox.contract import FILE, load, told, written
from sandbox.remote import Remote, checkpoint, connect, put, refuse, serve
from sandbox.tampering import Watch
from search_space.model import Model
from search_space.pattern import Pattern
from search_space.presets import Preset
from search_space.primitives import CATALOGUE

ERRAND, DATA, WEIGHTS, LOGITS, SAID = (
    "errand.pkl",
    "data.safetensors",
    "weights.safetensors",
    "logits.safetensors",
    "said.json",
)


@dataclass(frozen=True)
class Proxy:
    """The model round written mixers: a pattern of their codes and the catalogue's, at a preset, with a
    task's head."""

    pattern: str
    preset: Preset
    task: Task

    def model(self, kinds: Mapping[str, type[nn.Module]]) -> Model:
        """A new model with mixers of these classes by code. Raises ValueError, and whatever the mixers'
        code raises."""
        mixers = {code: written(kind, self.task.length, code) for code, kind in kinds.items()}
        catalogue = {**CATALOGUE, **mixers}
        pattern = Pattern.parse(self.pattern, catalogue)
        head = self.task.head(self.preset.width)
        return Model(pattern, self.preset, self.task.vocab, head, catalogue)


@dataclass(frozen=True)
class TrainingErrand:
    """All that training gets beside its data: the model, how to train, and two seeds."""

    proxy: Proxy
    training: Training
    initialisation: int
    order: int
    seconds: float | None = None
    share: Fraction = Fraction(1)  # of the training that is done
    confined: bool = True  # not at level `process`


@dataclass(frozen=True, eq=False)
class LogitsErrand:
    """All that scoring gets beside the weights: token ids (N, L) by name."""

    proxy: Proxy
    tokens: dict[str, Tensor]


def train(folder: Path) -> None:
    """`errand.pkl`, `data.safetensors` and the mixers to `weights.safetensors` and `said.json`.

    The data are read when the candidate's process has been forked, and are closed to it.
    """
    errand: TrainingErrand = pickle.loads((folder / "in" / ERRAND).read_bytes())
    torch.set_num_threads(1)
    memory.keep_freed()
    mixers, weights = files(folder), dict[str, Tensor]()
    with Apart(partial(candidate, errand, mixers), [*mixers.values()], errand.confined) as other:
        try:
            data = load_file(folder / "in" / DATA)
            weights, said = trained(errand, mixers, data, other)
        except CandidateFailure as failure:
            said = {"failure": failure.kind, "detail": failure.detail}
        except Gone as error:
            said = {"failure": FailureKind.CRASH, "detail": str(error)}
    (folder / "out" / WEIGHTS).write_bytes(save(weights))
    (folder / "out" / SAID).write_text(json.dumps(said))


def files(folder: Path) -> dict[str, Path]:
    """The written mixers that a run was given, by code: that of `X` in `in/X/mixer.py`, and so each."""
    return {path.parent.name: path for path in sorted((folder / "in").glob(f"*/{FILE}"))}


def trained(
    errand: TrainingErrand, codes: Iterable[str], data: Mapping[str, Tensor], other: Apart
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights after training and what it took. Raises CandidateFailure and Gone."""
    deadline = None if errand.seconds is None else time.perf_counter() + errand.seconds
    torch.manual_seed(errand.initialisation)
    model = errand.proxy.model(dict.fromkeys(codes, Remote))
    connect(model, other)
    split = Split(data["inputs"], data["labels"])
    training = errand.training.of(len(split.inputs))
    vocab, stop = errand.proxy.task.vocab, training.until(errand.share)
    spent = train_model(model, split, training, errand.order, vocab, deadline, stop=stop)
    refuse(other.finish())
    return checkpoint(model), {"steps": spent.steps, "tokens": spent.tokens}


def candidate(errand: TrainingErrand, mixers: Mapping[str, Path], ask: Ask, reply: Reply) -> None:
    """Build the model, give its mixers' initial state, then answer for them until training is over."""
    watch, facts = Watch(), dict[str, Any]()
    try:
        with classified():
            torch.manual_seed(errand.initialisation)
            kinds = {code: load(path) for code, path in mixers.items()}
            serve(errand.proxy.model(kinds), errand.training.dtype, ask, reply)
    except CandidateFailure as failure:
        facts = {"failure": failure.kind, "detail": failure.detail}
    except Exception as error:  # noqa: BLE001 - the border: any error of written code is its own
        facts = {"failure": FailureKind.INVALID, "detail": told(error)}
    reply({**facts, "tampered": watch.changed()}, {})


@torch.no_grad()
def logits(folder: Path) -> None:
    """`in/errand.pkl`, the mixers and `in/weights.safetensors` to `out/logits.safetensors`, in fp32."""
    errand: LogitsErrand = pickle.loads((folder / "in" / ERRAND).read_bytes())
    torch.set_num_threads(1)
    outputs, said = dict[str, Tensor](), {"detail": ""}
    try:
        kinds = {code: load(path) for code, path in files(folder).items()}
        model = errand.proxy.model(kinds)
        put(model, load_file(folder / "in" / WEIGHTS))
        model.eval()
        for name, tokens in errand.tokens.items():
            parts = [model(part.long()).float() for part in tokens.split(SCORING_BATCH)]
            outputs[name] = torch.cat(parts).contiguous()
    except Exception as error:  # noqa: BLE001 - the same border
        outputs, said = {}, {"detail": told(error)}
    (folder / "out" / LOGITS).write_bytes(save(outputs))
    (folder / "out" / SAID).write_text(json.dumps(said))
