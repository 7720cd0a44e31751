"""What a script candidate is, and what runs beside one in the sandbox: its training, or its logits.

One file, `train.py`, with

    def build(length: int) -> nn.Module: ...
        # A new model: token ids (B, L) int64, the bytes of a text, for L from 1 to length, to logits
        # (B, L, 256) of the next byte at each place. No place sees a later one, no row another row.
    def train(model: nn.Module, text: Tensor, seconds: float) -> None: ...
        # Trains it in place on text (N,) uint8 and returns within so many seconds of the clock.

What is kept of training are the model's parameters and buffers (its `state_dict`), of which there is a
limit; in other processes they are loaded into a model that `build` makes anew, and its logits are scored, in
fp32 and in evaluation mode. What the script prints, its own loss among it, is not read. One CPU thread;
torch's generator is seeded before, and the order of the text's parts changes with the seed. There is
no network, and no other text.

The two tasks here run in processes of their own. Neither gets a byte of held-out text as a label or a seed
of it; scoring is outside (`sandbox.script_scoring`). An error is the script's own and ends the process.
"""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path
from typing import Protocol, cast

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from evaluator import memory
from evaluator.evaluate import SCORING_BATCH

FILE, TEXT, SETTINGS = "train.py", "text.bin", "settings.json"
WEIGHTS, TOKENS, LOGITS = "weights.safetensors", "tokens.safetensors", "logits.safetensors"


class Script(Protocol):
    """A `train.py` that has been loaded."""

    def build(self, length: int) -> nn.Module: ...

    def train(self, model: nn.Module, text: Tensor, seconds: float) -> None: ...


def train(folder: Path) -> None:
    """`train.py`, `text.bin` and `settings.json` (seed, length, seconds) to `weights.safetensors`.

    The seconds run from here on: importing and building count.
    """
    start = time.perf_counter()
    settings = json.loads((folder / "in" / SETTINGS).read_text())
    memory.keep_freed()
    text = torch.frombuffer(bytearray((folder / "in" / TEXT).read_bytes()), dtype=torch.uint8)
    script = _loaded(folder)
    torch.manual_seed(settings["seed"])
    model = script.build(settings["length"])
    script.train(model, text, settings["seconds"] - (time.perf_counter() - start))
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    (folder / "out" / WEIGHTS).write_bytes(save(weights))


@torch.no_grad()
def logits(folder: Path) -> None:
    """`train.py`, `weights.safetensors` and `tokens.safetensors` (ids (N, L) by name) to
    `logits.safetensors`, fp32 (N, L, 256) by the same names."""
    settings = json.loads((folder / "in" / SETTINGS).read_text())
    model = _loaded(folder).build(settings["length"])
    model.load_state_dict(load_file(folder / "in" / WEIGHTS))
    model.float().eval()
    found = {
        name: torch.cat([model(part.long()).float() for part in tokens.split(SCORING_BATCH)])
        for name, tokens in load_file(folder / "in" / TOKENS).items()
    }
    (folder / "out" / LOGITS).write_bytes(save({k: v.contiguous() for k, v in found.items()}))


def _loaded(folder: Path) -> Script:
    spec = importlib.util.spec_from_file_location("train", folder / "in" / FILE)
    assert spec is not None and spec.loader is not None, "its name ends in .py"
    module = importlib.util.module_from_spec(spec)
    torch.set_num_threads(1)
    spec.loader.exec_module(module)
    for name in ("build", "train"):
        if not callable(getattr(module, name, None)):
            raise SystemExit(f"{FILE} has no function {name}: add it")
    return cast(Script, module)
