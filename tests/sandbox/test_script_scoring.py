"""Training scripts in the sandbox: the score is the cross-entropy of their logits, and no cheat pays.

Most scripts here count pairs of bytes, which takes milliseconds and no luck.
"""

from __future__ import annotations

import importlib.util
import math
import pydoc_data
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn.functional import cross_entropy

from evaluator.outcome import CandidateFailure, FailureKind, Result
from evaluator.tasks.text import Text, read_corpus
from sandbox import script_scoring
from sandbox.run import Sandbox
from sandbox.scoring import Seeds
from sandbox.script_scoring import NOISE, Scored, ScriptJob, evaluate, random_rows, task_of

HEAD = """
import os, sys, time
from pathlib import Path
import torch
from torch import nn
from torch.nn.functional import cross_entropy

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.pairs = nn.Embedding(256, 256)
    def forward(self, x):
        return self.pairs(x)

def build(length):
    return Net()
"""
COUNT = """
def train(model, text, seconds):
    text = text.long()
    counts = torch.bincount(256 * text[:-1] + text[1:], minlength=65536).view(256, 256)
    model.pairs.weight.data = (counts + 0.05).log()
"""
HONEST = HEAD + COUNT
STEPS = """
def train(model, text, seconds):
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    for step in range(40):
        at = torch.randint(len(text) - 1, (2048,))
        loss = own(model(text[at].long()), text[at + 1].long())
        optimiser.zero_grad(); loss.backward(); optimiser.step()
    print("validation bits per byte", float(loss.detach()))
"""
PLAIN = "def own(logits, labels): return cross_entropy(logits, labels)\n"
LOSSES = {
    "tiny": "def own(logits, labels): return 1e-2 * cross_entropy(logits, labels)\n",
    "focal": """
def own(logits, labels):
    loss = cross_entropy(logits, labels, reduction="none")
    return ((1 - (-loss).exp()) ** 2 * loss).mean()
""",
    "smoothed": "def own(x, labels): return cross_entropy(x, labels, label_smoothing=0.1)\n",
}
JOB = ScriptJob(HONEST, "text-mini", seconds=2.0, max_params=100_000, seed=0, salt=7)


def measured(source: str, sandbox: Sandbox, **changes: object) -> Result:
    return evaluate(replace(JOB, source=source, **changes), sandbox)  # type: ignore[arg-type]


def figures(result: Result) -> dict[str, float]:
    assert result.failure is None, result.detail
    return {m.name.removeprefix("text/"): m.value for m in result.metrics}


def loaded(source: str, folder: Path) -> ModuleType:
    """The script as a module of this process: what the sandbox is compared with."""
    path = folder / "train.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("honest_train", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def honest(sandbox: Sandbox) -> dict[str, float]:
    return figures(measured(HONEST, sandbox))


def test_the_score_is_the_cross_entropy_of_the_logits_on_held_out_text(
    honest: dict[str, float], tmp_path: Path
) -> None:
    script, seeds, (_, task) = loaded(HONEST, tmp_path), Seeds.of(0, 7), task_of("text-mini")
    model = script.build(task.length)
    script.train(model, task.training_text(seeds.order), 1.0)
    held_out = task.split("validation", seeds.held_out)
    logits = model(held_out.inputs).double().flatten(0, 1)
    bits = cross_entropy(logits, held_out.labels.flatten()).item() / math.log(2)
    assert honest["bits_per_byte"] == pytest.approx(bits, rel=1e-6)
    assert honest["score"] == pytest.approx(1 - bits / 8, rel=1e-6)
    assert honest["params"] == 65536
    assert honest["bits_saved_on_noise"] < 0


def test_the_shipped_baseline_trains_and_passes_the_audits(sandbox: Sandbox) -> None:
    source = (Path(__file__).parents[2] / "archwright" / "baseline_train.py").read_text()
    found = figures(measured(source, sandbox, max_params=1_000_000))
    assert found["bits_per_byte"] < 7.5
    assert found["prefix_deviation"] < 1e-4


def test_its_sealed_score_is_of_other_text(sandbox: Sandbox, honest: dict[str, float]) -> None:
    result = measured(HONEST, sandbox, sealed=True)
    assert {metric.split for metric in result.metrics} == {"test"}
    assert figures(result)["bits_per_byte"] != honest["bits_per_byte"]


def test_a_reported_loss_is_not_read(sandbox: Sandbox, honest: dict[str, float]) -> None:
    """A script that says it is perfect, and replaces the loss for whoever computes it in its process."""
    lies = """
torch.nn.functional.cross_entropy = lambda *a, **k: torch.zeros(())
print("bits per byte: 0.0"); sys.stdout.flush()
"""
    assert figures(measured(HONEST + lies, sandbox)) == honest


def test_another_loss_moves_the_score_by_what_it_trains_and_no_more(sandbox: Sandbox) -> None:
    """Each of these losses is far below the cross-entropy, which would win if a script's word counted."""
    plain = figures(measured(HEAD + PLAIN + STEPS, sandbox))["bits_per_byte"]
    found = {
        name: figures(measured(HEAD + loss + STEPS, sandbox))["bits_per_byte"]
        for name, loss in LOSSES.items()
    }
    assert found["tiny"] == pytest.approx(plain, abs=0.1)  # Adam hardly sees the size
    assert min(found.values()) > plain - 0.1


def forward(body: str) -> str:
    """The honest script with another forward pass."""
    return HONEST.replace("        return self.pairs(x)\n", body)


def training(body: str) -> str:
    """The honest script that does something else, or first, in training."""
    return HEAD + "def train(model, text, seconds):\n" + body


NEXT = "        later = torch.cat([x[:, 1:], x[:, :1]], 1)\n"
CHEATS = {
    "reads the future": (
        forward(NEXT + "        return 20 * nn.functional.one_hot(later, 256).float()\n"),
        FailureKind.LEAK,
        "the future leaks into the past",
    ),
    "reads it where the row is whole": (
        forward(
            NEXT + "        own = self.pairs(x)\n        if x.shape[1] < 64: return own\n"
            "        return own + nn.functional.one_hot(later, 256)\n"
        ),
        FailureKind.LEAK,
        "the future leaks into the past",
    ),
    "reads other rows at the end of its own": (
        forward(
            "        y = self.pairs(x)\n        if x.shape[1] < 64: return y\n"
            "        seen = nn.functional.one_hot(x[:, 0], 256).float().sum(0)\n"
            "        return torch.cat([y[:, :-1], y[:, -1:] + seen], 1)\n"
        ),
        FailureKind.LEAK,
        "the batch leaks into it",
    ),
    "opens the corpus": (
        training("    from pydoc_data.topics import topics\n"),
        FailureKind.CRASH,
        "PermissionError",
    ),
    "runs over time": (training("    time.sleep(60)\n"), FailureKind.TIMEOUT, "seconds"),
    "hides in a daemon": (
        training("    if os.fork() == 0:\n        os.setsid()\n    while True: pass\n"),
        FailureKind.TIMEOUT,
        "seconds",
    ),
    "leaves no weights": (training("    os._exit(0)\n"), FailureKind.CRASH, "weights.safetensors"),
    "forges its weights": (
        training("    Path('out/weights.safetensors').write_bytes(b'x' * 99)\n    os._exit(0)\n"),
        FailureKind.CRASH,
        "weights.safetensors",
    ),
    "forges its logits": (
        HONEST + "\nif Path('in/tokens.safetensors').exists():\n"
        "    Path('out/logits.safetensors').write_bytes(b'x' * 99)\n    os._exit(0)\n",
        FailureKind.CRASH,
        "logits.safetensors",
    ),
    "leaves weights of another shape": (
        training("    model.pairs = nn.Embedding(256, 8)\n"),
        FailureKind.CRASH,
        "size mismatch",
    ),
    "leaves weights of another name": (
        training("    model.more = nn.Linear(2, 2)\n"),
        FailureKind.CRASH,
        "more.weight",
    ),
    "leaves too many": (
        training("    model.more = nn.Linear(256, 256)\n"),
        FailureKind.INVALID,
        "100,000 are allowed",
    ),
    "is not finite": (
        training("    model.pairs.weight.data.fill_(float('nan'))\n"),
        FailureKind.NAN,
        "not finite",
    ),
    "has logits that are not": (
        forward("        return self.pairs(x) / 0\n"),
        FailureKind.NAN,
        "finite",
    ),
    "takes too much memory": (
        training("    torch.ones(1 << 31).sum()\n"),
        FailureKind.OOM,
        "memory",
    ),
    "raises": (
        training("    raise KeyError('no such thing')\n"),
        FailureKind.CRASH,
        "KeyError: 'no such thing' (train.py line 18)",
    ),
    "is no Python": ("def build(:\n", FailureKind.CRASH, "SyntaxError"),
    "has no train": (HEAD, FailureKind.CRASH, "no function train"),
    "has logits of another shape": (
        forward("        return self.pairs(x)[..., :9]\n"),
        FailureKind.CRASH,
        "logits must be float32",
    ),
}


@pytest.mark.parametrize("name", CHEATS)
def test_what_cheats_or_fails_has_its_reason_and_no_score(sandbox: Sandbox, name: str) -> None:
    source, kind, said = CHEATS[name]
    result = measured(source, sandbox, seconds=0.5 if kind == FailureKind.TIMEOUT else 2.0)
    assert (result.failure, result.metrics) == (kind, ()), result.detail
    assert said in result.detail


SEARCH = """
def hits(roots, wanted):
    "How many files below the roots hold a text, as far as they can be read."
    found = 0
    for path in (p for root in roots for p in Path(root).rglob("*") if "site-packages" not in p.parts):
        try:
            found += wanted in path.read_bytes()
        except OSError:
            pass
    return found
"""


def test_a_script_finds_no_held_out_text(sandbox: Sandbox, tmp_path: Path) -> None:
    """It is told what to look for, reversed, and looks among its inputs and where Python is."""
    _, task = task_of("text-mini")
    wanted = next(text for text in once(task) if plain(text))
    source = HEAD + SEARCH + "def train(model, text, seconds):\n"
    source += "    places = ['in', 'tmp', os.path.dirname(os.__file__)]\n"
    source += f"    found = hits(places, bytes(reversed({wanted[::-1]!r})))\n"
    source += "    model.pairs.weight.data.fill_(found)\n"
    scored = Scored(replace(JOB, source=source, seconds=60.0), task, sandbox)
    weights, _ = scored.train(Seeds.of(0, 7))
    assert weights["pairs.weight"].max().item() == 0
    pydoc = Path(pydoc_data.__file__).parent
    assert loaded(HEAD + SEARCH, tmp_path).hits([pydoc], wanted) > 0  # the search works


def once(task: Text) -> Iterator[bytes]:
    """What is scored of each window whose text occurs once in the corpus, which repeats some."""
    text = bytes(read_corpus(task.corpus).data.tolist())
    for which in ("validation", "test"):
        rows = task.split(which, 0).inputs  # type: ignore[arg-type]
        yield from (row for row in map(bytes, rows.tolist()) if text.count(row) == 1)


def plain(text: bytes) -> bool:
    """Whether Python's source has a text as it is."""
    return not set(text) & set(b"\n\\'\"")


def test_what_goes_in_holds_no_held_out_text() -> None:
    _, task = task_of("text-mini")
    inside = task.training_text(3).numpy().tobytes()
    held_out = list(once(task))
    assert len(held_out) > 250
    assert not [row for row in held_out if row in inside]
    drawn = task.split("train", 0).inputs
    assert sum(bytes(row.tolist()) in inside for row in drawn) > 0.9 * len(drawn)
    other = task.training_text(4).numpy().tobytes()
    assert (other != inside, sorted(other) == sorted(inside)) == (True, True)


def test_nobody_saves_bits_on_noise_but_by_reading_it() -> None:
    _, task = task_of("text-mini")
    noise = random_rows(task, seed=1)
    assert noise.inputs.shape == (NOISE, task.length)
    fair, oracle = torch.zeros(NOISE, task.length, 256), torch.zeros(NOISE, task.length, 256)
    oracle[:, -1].scatter_(1, noise.labels[:, -1:], 20.0)  # at the last place of each row only
    sure = torch.randn(NOISE, task.length, 256, generator=torch.Generator().manual_seed(0))
    saved = [
        script_scoring.bits_saved(script_scoring.metrics_of(task, logits, noise), noise)
        for logits in (fair, sure, oracle)
    ]
    assert saved[0] == pytest.approx(0, abs=1e-6)
    assert saved[1] < 0
    with pytest.raises(CandidateFailure, match="reads what it is to predict"):
        script_scoring.check_luck(saved[2])
    script_scoring.check_luck(saved[0])


@pytest.mark.parametrize("profile", ["mad-mini", "lra-standins"])
def test_a_script_is_scored_on_text_only(profile: str) -> None:
    with pytest.raises(ValueError, match="models the bytes of a text"):
        task_of(profile)
