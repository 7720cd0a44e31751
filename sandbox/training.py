"""Runs beside a written mixer, in the sandbox: trains the model round it, or computes its logits.

The two are tasks of separate processes. Training gets inputs and training labels, and leaves weights;
`logits` gets weights and token ids, and leaves float32 logits. Neither gets an evaluation label or the seed
of one, and neither scores: `sandbox.scoring` does, outside. The pickles read here are the supervisor's.
It knows the CPU only.
"""

from __future__ import annotations

import json
import pickle
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from evaluator import memory
from evaluator.evaluate import SCORING_BATCH, classified
from evaluator.outcome import CandidateFailure, FailureKind
from evaluator.tasks.base import Split, Task
from evaluator.train import Training, adamw
from evaluator.train import train as train_model
from sandbox.contract import CODE, FILE, load, told, written
from sandbox.tampering import Watch
from search_space.model import Model
from search_space.pattern import Pattern
from search_space.presets import Preset
from search_space.primitives import CATALOGUE

ERRAND, WEIGHTS, LOGITS, SAID = (
    "errand.pkl",
    "weights.safetensors",
    "logits.safetensors",
    "said.json",
)


@dataclass(frozen=True)
class Proxy:
    """The model round a mixer: a pattern in which `X` is the mixer, at a preset, with a task's head."""

    pattern: str
    preset: Preset
    task: Task

    def model(self, mixer: Path) -> Model:
        """A new model. Raises ValueError, and whatever the mixer's code raises."""
        catalogue = {**CATALOGUE, CODE: written(load(mixer), self.task.length)}
        pattern = Pattern.parse(self.pattern, catalogue)
        head = self.task.head(self.preset.width)
        return Model(pattern, self.preset, self.task.vocab, head, catalogue)


@dataclass(frozen=True, eq=False)
class TrainingErrand:
    """All that training gets: the model, its data with training labels, how to train, and two seeds."""

    proxy: Proxy
    split: Split
    training: Training
    initialisation: int
    order: int
    seconds: float | None = None
    share: Fraction = Fraction(1)  # of the training that is done


@dataclass(frozen=True, eq=False)
class LogitsErrand:
    """All that scoring gets beside the weights: token ids (N, L) by name."""

    proxy: Proxy
    tokens: dict[str, Tensor]


def train(folder: Path) -> None:
    """`in/errand.pkl` and `in/mixer.py` to `out/weights.safetensors` and `out/said.json`."""
    errand: TrainingErrand = pickle.loads((folder / "in" / ERRAND).read_bytes())
    torch.set_num_threads(1)
    memory.keep_freed()
    watch, weights = Watch(), dict[str, Tensor]()
    try:
        with classified():
            weights, said = trained(errand, folder / "in" / FILE)
    except CandidateFailure as failure:
        said = {"failure": failure.kind, "detail": failure.detail}
    except Exception as error:  # noqa: BLE001 - the border: any error of written code is its own
        said = {"failure": FailureKind.INVALID, "detail": told(error)}
    said["tampered"] = watch.changed()
    (folder / "out" / WEIGHTS).write_bytes(save(weights))
    (folder / "out" / SAID).write_text(json.dumps(said))


def trained(errand: TrainingErrand, mixer: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights after training and what it took. Raises CandidateFailure, and the mixer's errors."""
    deadline = None if errand.seconds is None else time.perf_counter() + errand.seconds
    torch.manual_seed(errand.initialisation)
    model = errand.proxy.model(mixer)
    training = errand.training.of(len(errand.split.inputs))
    optimiser, vocab = adamw(model, training), errand.proxy.task.vocab
    data, stop = errand.split, training.until(errand.share)
    spent = train_model(model, data, training, errand.order, vocab, deadline, optimiser, stop=stop)
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return weights, {"steps": spent.steps, "tokens": spent.tokens}


@torch.no_grad()
def logits(folder: Path) -> None:
    """`in/errand.pkl`, `in/mixer.py` and `in/weights.safetensors` to `out/logits.safetensors`, in fp32."""
    errand: LogitsErrand = pickle.loads((folder / "in" / ERRAND).read_bytes())
    torch.set_num_threads(1)
    outputs, said = dict[str, Tensor](), {"detail": ""}
    try:
        model = errand.proxy.model(folder / "in" / FILE)
        model.load_state_dict(load_file(folder / "in" / WEIGHTS))
        model.eval()
        for name, tokens in errand.tokens.items():
            parts = [model(part.long()).float() for part in tokens.split(SCORING_BATCH)]
            outputs[name] = torch.cat(parts).contiguous()
    except Exception as error:  # noqa: BLE001 - the same border
        outputs, said = {}, {"detail": told(error)}
    (folder / "out" / LOGITS).write_bytes(save(outputs))
    (folder / "out" / SAID).write_text(json.dumps(said))
