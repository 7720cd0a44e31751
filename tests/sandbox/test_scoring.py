"""Sealed scoring: the score is the plain evaluation's, labels stay out, and no tampering pays.

Tampering that the watch in the process sees ends without a score; what it does not see gains nothing,
because weights, logits and labels meet outside.
"""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cheats import BASE, CHEATS, HEAD
from safetensors.torch import load_file, save, save_file
from wrapped import wrapped

import sandbox.scoring as scoring
from evaluator.evaluate import score
from evaluator.outcome import CandidateFailure, FailureKind
from evaluator.profiles import profile
from evaluator.tasks import mad_task
from evaluator.tasks.base import Split, Task
from evaluator.train import Training, train
from sandbox.remote import Remote
from sandbox.run import Sandbox
from sandbox.scoring import Candidate, Prefixes, Sealed, Seeds, evaluate, reads_across
from sandbox.settings import Settings
from sandbox.toys import TOY, Noise, OneSeen
from sandbox.training import Proxy, TrainingErrand
from search_space.model import Model
from search_space.pattern import Pattern
from search_space.presets import preset

TRAINING = Training(steps=50, batch=32, lr=1e-2)
LONG = replace(TRAINING, steps=150)  # until the order of the data makes no difference
SEEDS = Seeds.of(0, salt=17)
RECALL = mad_task("in-context-recall", vocab=2000, length=32, train_size=64, eval_size=64)
HONEST = (
    f"{HEAD}{{0}}{BASE}\n    def forward(self, x):\n        {{1}}return self.out(self.honest(x))\n"
)


def candidate(source: str, sandbox: Sandbox, task: Task | None = None) -> Candidate:
    proxy = Proxy("X+M", TOY, task or OneSeen())
    return Candidate({"X": source}, proxy, sandbox, seconds=60.0)


def measured(source: str, sandbox: Sandbox, training: Training = TRAINING) -> dict[str, float]:
    return candidate(source, sandbox).measure(training, SEEDS, "validation")[0]


def tampered(top: str = "", within: str = "") -> str:
    """The honest mixer with lines before its class and in its forward pass."""
    return HONEST.format(top, within)


@pytest.fixture(scope="module")
def honest(sandbox: Sandbox) -> dict[str, float]:
    return measured(tampered(), sandbox, LONG)


def test_the_score_is_that_of_a_plain_evaluation(sandbox: Sandbox) -> None:
    """A primitive in a written file trains to the bits that it trains to by its code."""
    preset = replace(TOY, defaults={**TOY.defaults, "A": {"head": 8}})
    task = OneSeen()
    torch.manual_seed(SEEDS.initialisation)
    model = Model(Pattern.parse("A+M"), preset, task.vocab, task.head(preset.width))
    torch.manual_seed(SEEDS.initialisation)  # all but the mixer begins as the trainer draws it
    rest = Proxy("X+M", preset, task).model({"X": Remote}).state_dict()
    model.load_state_dict(rest, strict=False)
    train(model, task.split("train", SEEDS.train), TRAINING, SEEDS.order, task.vocab)
    plain = score(model, task.split("validation", SEEDS.held_out), TRAINING)
    sealed = measured(wrapped("A"), sandbox)
    assert {key: sealed[key] for key in plain} == pytest.approx(plain, rel=1e-5)
    assert sealed["params"] == sum(p.numel() for p in model.parameters())
    assert sealed["loss"] < 1.0


def test_the_same_job_gives_the_same_bits_and_another_salt_other_data(sandbox: Sandbox) -> None:
    job = Sealed({"X": tampered()}, "X+M", "mini", "smoke", seed=0, salt=5)
    first, again = (evaluate(job, sandbox) for _ in range(2))
    assert first.metrics == again.metrics != ()
    assert first.score() is not None
    assert first.spent.steps == 6
    assert evaluate(replace(job, salt=6), sandbox).metrics != first.metrics


def test_settings_change_the_training_and_the_size_and_nothing_else(sandbox: Sandbox) -> None:
    """The recipe's own numbers give its own bits; others do not."""
    own, sizes = profile("smoke").training, preset("mini")
    jobs = {
        "none": Settings(),
        "own": Settings(lr=own.lr, width=sizes.width),
        "rate": Settings(lr=10 * own.lr),
        "wide": Settings(width=96),
    }
    plain = Sealed({"X": tampered()}, "X+M", "mini", "smoke", 0, 5, ("compression",))
    found = {n: evaluate(replace(plain, settings=one), sandbox) for n, one in jobs.items()}
    metrics = {name: {m.name: m.value for m in one.metrics} for name, one in found.items()}
    assert metrics["none"] == metrics["own"] != {}
    size, loss = "compression/params", "compression/loss"
    assert metrics["rate"][size] == metrics["none"][size] < metrics["wide"][size]
    assert len({metrics[name][loss] for name in ("none", "rate", "wide")}) == 3


def test_what_goes_in_holds_neither_evaluation_labels_nor_their_seed() -> None:
    held_out = RECALL.split("validation", SEEDS.held_out)
    data = RECALL.split("train", SEEDS.train)
    proxy = Proxy("X+M", TOY, RECALL)
    errand = TrainingErrand(proxy, TRAINING, SEEDS.initialisation, SEEDS.order)
    inside = pickle.dumps(errand) + save({"inputs": data.inputs, "labels": data.labels})
    assert not found_in(inside, telling(held_out))
    assert found_in(inside, data.labels[:2])  # the search works
    for seed in (SEEDS.held_out, Seeds.of(0, 18).held_out):
        assert seed.to_bytes(8, "little") not in inside
    assert Seeds.of(0, 1).held_out != Seeds.of(0, 2).held_out


TYPES = (torch.int64, torch.int32, torch.int16, torch.float32)


def found_in(data: bytes, rows: torch.Tensor) -> bool:
    """Whether one of the rows lies in the bytes, as numbers of any usual type or as text."""
    patterns = [row.to(kind).numpy().tobytes() for row in rows for kind in TYPES]
    patterns += [str(row.tolist()).encode() for row in rows]
    return any(pattern in data for pattern in patterns)


def telling(held_out: Split) -> torch.Tensor:
    """Rows of labels of which several are scored, so that nothing equals them by chance."""
    rows = held_out.labels[(held_out.labels >= 0).sum(1) >= 2][:2]
    assert len(rows) == 2
    return rows


def memory_of(pid: int) -> Iterator[bytes]:
    """The memory that a process may write, region by region: what it was given lies nowhere else."""
    regions = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for region in regions:
            place, rights, _, _, inode = region.split()[:5]
            start, end = (int(part, 16) for part in place.split("-"))
            if rights.startswith("rw") and inode == "0" and end - start < 1 << 28:
                try:
                    memory.seek(start)
                    yield memory.read(end - start)
                except OSError:
                    continue  # a region that cannot be read by us can by nobody


def files_of(pid: int) -> Iterator[bytes]:
    """What a process has in its working folder."""
    for folder, _, names in os.walk(f"/proc/{pid}/cwd/"):
        yield from (Path(folder, name).read_bytes() for name in names)


class Spy(threading.Thread):
    """Searches the runs of a sandbox again and again, for rows of labels and of inputs."""

    def __init__(self, sandbox: Sandbox, held_out: Split) -> None:
        super().__init__()
        self._sandbox, self._labels, self._inputs = sandbox, telling(held_out), held_out.inputs[-1:]
        self.over = threading.Event()
        self.labels = self.inputs = self.looks = 0
        self.error = ""

    def run(self) -> None:
        while not self.over.wait(0.05):
            for pid in self._sandbox._broker.processes():
                try:
                    if Path(f"/proc/{pid}/cwd/in/errand.pkl").exists():
                        self._search(pid)
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it has ended
                except PermissionError as error:
                    self.error = str(error)

    def _search(self, pid: int) -> None:
        for source in (memory_of, files_of):
            for data in source(pid):
                self.looks += 1
                self.labels += found_in(data, self._labels)
                self.inputs += found_in(data, self._inputs)


def test_evaluation_labels_never_enter_the_sandbox(sandbox: Sandbox) -> None:
    """Memory and files are searched while it trains and scores. The inputs that the labels belong to
    are found there, which shows that the search works."""
    held_out = RECALL.split("validation", SEEDS.held_out)
    slow = tampered(
        "import time\n", "time.sleep(6 * (len(x) > 60 and not self.training))\n        "
    )
    spy = Spy(sandbox, held_out)
    spy.start()
    try:
        training = replace(TRAINING, steps=2)
        found, _ = candidate(slow, sandbox, RECALL).measure(training, SEEDS, "validation")
    finally:
        spy.over.set()
        spy.join()
    if spy.error and not spy.looks:
        pytest.skip(f"memory of other processes cannot be read here: {spy.error}")
    assert found["count"] == (held_out.labels >= 0).sum()
    assert spy.inputs > 0
    assert spy.labels == 0


LEAKS = ("behind a parameter that starts at zero", "self.training, the other way")


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_of_the_trained_model_is_caught(sandbox: Sandbox, name: str) -> None:
    """One that starts in training only, or that only evaluation sees."""
    with pytest.raises(CandidateFailure) as failure:
        measured(CHEATS[name].source, sandbox)
    assert failure.value.kind is FailureKind.LEAK
    assert "the future leaks into the past" in failure.value.detail


def test_whoever_beats_chance_on_random_labels_has_no_score(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What catches a leak that the audit does not see; here it is switched off."""
    honest = candidate(tampered(), sandbox, Noise()).measure(scoring.CHANCE, SEEDS, "validation")[0]
    assert honest["loss"] > Noise().chance
    monkeypatch.setattr(scoring, "CONSISTENT", float("inf"))
    sources = {"X": CHEATS["padding leak"].source}
    job = Sealed(sources, "X+M", "mini", "smoke", seed=0, salt=5)
    result = evaluate(job, sandbox)
    assert (result.failure, result.metrics) == (FailureKind.LEAK, ())
    assert "chance is 2.079" in result.detail


def test_the_audit_cuts_each_row_once_and_knows_heads_that_read_across() -> None:
    task, rows = OneSeen(), torch.arange(40)[:, None].expand(40, 12)
    prefixes = Prefixes.of(task, rows, seed=3)
    used = torch.cat([t[:, 0] for t in prefixes.tokens.values()])
    assert len(used) == len(used.unique()) == 36
    assert len({t.shape[1] for t in prefixes.tokens.values()}) > 1
    for name, tokens in prefixes.tokens.items():
        assert torch.equal(tokens[:, 0], prefixes.rows[name])
    compression = mad_task("compression", vocab=4, length=8, train_size=4, eval_size=4)
    assert reads_across(compression, 8)
    assert Prefixes.of(compression, torch.zeros(9, 8), seed=0).tokens == {}
    assert not reads_across(task, 12)


TORCH = "\nF.cross_entropy = lambda logits, *a, **k: 0 * logits.sum()\n"
BACKWARD = "\ntorch.Tensor.backward = lambda self, *a, **k: None\n"
ARGMAX = "\ntorch.Tensor.logsumexp = lambda self, *a, **k: 0 * self.sum(-1)\n"
TRAINER = """
import evaluator.train as trainer
_train = trainer.train_step


def longer(*a, **k):
    for _ in range(5):
        found = _train(*a, **k)
    return found


trainer.train_step = longer
"""
CLAIMS = """
import sandbox.training as trainer
trainer.trained = lambda errand, data, other: ({}, {"steps": 10**6, "tokens": 10**9, "loss": 0.0})
"""
COUNTS = """
from evaluator.train import Training
Training.until = lambda self, share: 10 * self.steps
Training.rate = lambda self, step: 1.0
"""
OPTIMISER = CHEATS["the optimiser"].source.partition("\nclass Mixer")[0].partition("nn\n")[2]
CLOCK = "\nimport time\ntime.perf_counter = lambda: 0.0\ntime.time = lambda: 0.0\n"
RNG = """
torch.manual_seed = lambda seed: torch.default_generator.manual_seed(0)
torch.randperm = lambda n, **k: torch.arange(n)
"""


@pytest.mark.parametrize(
    ("top", "what"),
    [
        (TORCH, "torch.nn.functional.cross_entropy"),
        (BACKWARD, "torch.Tensor.backward"),
        (ARGMAX, "torch.Tensor.logsumexp"),
        (TRAINER, "evaluator.train.train_step"),
        (CLAIMS, "sandbox.training.trained"),
        (OPTIMISER, "AdamW.step"),
        (CLOCK, "time.perf_counter"),
        (RNG, "torch.manual_seed"),
    ],
    ids=["torch", "tensor", "metric", "trainer", "claims", "optimiser", "clock", "rng"],
)  # fmt: skip
def test_tampering_that_shows_has_no_score(sandbox: Sandbox, top: str, what: str) -> None:
    with pytest.raises(CandidateFailure) as failure:
        measured(tampered(top), sandbox)
    assert failure.value.kind is FailureKind.TAMPERED
    assert what in failure.value.detail


# The same in scoring, where nobody watches: the model is built and loaded, then everything is at its mercy.
HIDDEN = """
import sandbox.tampering
sandbox.tampering.Watch.changed = lambda self: []
"""


@pytest.mark.parametrize(
    "top", [TORCH, BACKWARD, ARGMAX, TRAINER, OPTIMISER, CLAIMS, CLOCK, COUNTS],
    ids=["torch", "tensor", "metric", "trainer", "optimiser", "claims", "clock", "steps"],
)  # fmt: skip
def test_what_is_not_in_its_process_cannot_be_reached(
    sandbox: Sandbox, honest: dict[str, float], top: str
) -> None:
    """The watch itself is deceived; training goes on to the same bits."""
    assert measured(tampered(HIDDEN + top), sandbox, LONG) == honest


def test_of_the_generator_it_reaches_its_own_first_weights(
    sandbox: Sandbox, honest: dict[str, float]
) -> None:
    found = measured(tampered(HIDDEN + RNG), sandbox, LONG)
    assert abs(found["loss"] - honest["loss"]) < NOISE


NOISE = 0.02  # nats, between data orders; what a real gain would be far above: the loss starts at 2


def test_unconfined_it_trains_to_the_same_weights(sandbox: Sandbox, tmp_path: Path) -> None:
    """As at level `process`, which this user may not be allowed."""
    data, proxy = OneSeen().split("train", SEEDS.train), Proxy("X+M", TOY, OneSeen())
    errand = TrainingErrand(proxy, TRAINING, SEEDS.initialisation, SEEDS.order, confined=False)
    for name in ("in/X", "out"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "in" / "X" / "mixer.py").write_text(tampered())
    (tmp_path / "in" / "errand.pkl").write_bytes(pickle.dumps(errand))
    save_file({"inputs": data.inputs, "labels": data.labels}, tmp_path / "in" / "data.safetensors")
    subprocess.run(
        [sys.executable, "-c", f"import sandbox.training as t; t.train(t.Path({str(tmp_path)!r}))"],
        check=True,
    )
    weights, _ = candidate(tampered(), sandbox).train(data, TRAINING, SEEDS)
    alone = load_file(tmp_path / "out" / "weights.safetensors")
    assert alone.keys() == weights.keys()
    for name, value in weights.items():  # another machine, as torch sees it: it rounds otherwise
        assert torch.allclose(alone[name], value, atol=1e-5)


def test_a_stopped_clock_does_not_stop_ours(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "GRACE", 1.0)
    slow = tampered(HIDDEN + CLOCK + "_sleep = time.sleep\n", "_sleep(0.5)\n        ")
    began = time.monotonic()
    with pytest.raises(CandidateFailure) as failure:
        replace(candidate(slow, sandbox), seconds=1.0).measure(TRAINING, SEEDS, "validation")
    assert failure.value.kind is FailureKind.TIMEOUT
    assert time.monotonic() - began < 40 * 0.5  # it would take so many steps


def test_weights_that_are_not_finite_have_no_score(sandbox: Sandbox) -> None:
    within = "self.out.weight.data.fill_(float('nan')) if self.training else 0\n        "
    with pytest.raises(CandidateFailure) as failure:
        measured(tampered("", within), sandbox)
    assert failure.value.kind is FailureKind.NAN


def test_nothing_of_a_training_is_kept_but_what_the_optimiser_moved(
    sandbox: Sandbox, honest: dict[str, float]
) -> None:
    """A buffer that counts calls stays as it began, and one that comes later is gone."""
    counting = tampered("", "self.register_buffer('late', x[0])\n        ")
    counting = counting.replace(
        "        pass\n", "        self.register_buffer('n', torch.zeros(1))\n"
    )
    counting = counting.replace("return self.out(", "self.n += 1\n        return self.out(")
    task = OneSeen()
    weights, _ = candidate(counting, sandbox).train(task.split("train", 0), TRAINING, SEEDS)
    assert weights["blocks.0.primitive.mixer.n"] == 0
    assert not any("late" in name for name in weights)
    loss = measured(counting, sandbox, LONG)["loss"]
    assert loss == pytest.approx(honest["loss"], rel=1e-4)  # what crosses lies elsewhere in memory


PRYING = """
import os
from pathlib import Path

TRIES = {
    "data": lambda: Path("in/data.safetensors").read_bytes(),
    "errand": lambda: Path("in/errand.pkl").read_bytes(),
    "out": lambda: Path("out/weights.safetensors").write_bytes(b"forged"),
    "tmp": lambda: Path("tmp/note").write_text("for the next"),
    "memory": lambda: os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY),
    "memory to write": lambda: os.open(f"/proc/{os.getppid()}/mem", os.O_RDWR),
    "descriptors": lambda: os.listdir(f"/proc/{os.getppid()}/fd"),
}


def worked(tries=TRIES):
    found = []
    for name, attempt in tries.items():
        try:
            attempt()
        except OSError:
            continue
        found.append(name)
    return found
"""


def test_the_candidate_reaches_neither_data_nor_results_nor_the_trainer(sandbox: Sandbox) -> None:
    """The control: a run that is not kept apart from its own folder."""
    found = candidate(tampered(PRYING + "\nraise RuntimeError(f'worked: {worked()}')\n"), sandbox)
    with pytest.raises(CandidateFailure, match=r"worked: \[\]"):
        found.train(OneSeen().split("train", 0), TRAINING, SEEDS)
    inputs = {"pry.py": (PRYING + "\nprint(worked())").encode()}
    inputs |= {"data.safetensors": b"", "errand.pkl": b""}
    assert "['data', 'errand', 'out', 'tmp'" in sandbox.run("pry.py", inputs).log


FILES = """
import os
from safetensors.torch import load_file, save, save_file
if {when}:
    open("out/weights.safetensors", "wb").write({weights})
    open("out/logits.safetensors", "wb").write({weights})
    open("out/said.json", "w").write({said})
    os._exit(0)
"""
ALWAYS, SCORING = "True", "os.path.exists('in/weights.safetensors')"
FAKE = "save({'rows': torch.zeros(256, 12, 9)})"


@pytest.mark.parametrize(
    ("when", "weights", "said", "kind"),
    [
        (ALWAYS, FAKE, '\'{"steps": 1, "tokens": 1}\'', FailureKind.INVALID),  # it may not write
        (SCORING, "b'PK pickle'", "'{}'", FailureKind.CRASH),
        (SCORING, FAKE, "'[' * 10**4", FailureKind.CRASH),
        (SCORING, FAKE, "'{\"detail\": \"\"}'", FailureKind.CRASH),
        (SCORING, "save({'rows': torch.zeros(1)})", "'{\"detail\": \"\"}'", FailureKind.CRASH),
        (SCORING, FAKE, "'{\"detail\": 7}'", FailureKind.INVALID),
    ],
)  # fmt: skip
def test_forged_files_are_a_typed_failure(
    sandbox: Sandbox, when: str, weights: str, said: str, kind: FailureKind
) -> None:
    top = FILES.format(when=when, weights=weights, said=said)
    with pytest.raises(CandidateFailure) as failure:
        measured(tampered(top), sandbox)
    assert failure.value.kind is kind, failure.value
    assert len(failure.value.detail) < 500


@pytest.mark.parametrize(
    ("top", "within", "kind", "said"),
    [
        ("\nraise KeyError('x')\n", "", FailureKind.INVALID, "KeyError: 'x' (mixer.py line"),
        ("", "raise RuntimeError('deep')\n        ", FailureKind.INVALID, "RuntimeError: deep"),
        ("", "if not self.training: 1 / 0\n        ", FailureKind.INVALID, "scoring: ZeroDivisionError"),
        ("", "x = x * float('inf')\n        ", FailureKind.NAN, "training loss nan at step 0"),
        ("\nimport os\nos.abort()\n", "", FailureKind.CRASH, "its process was killed by SIGABRT"),
    ],
)  # fmt: skip
def test_an_error_reaches_the_agent_as_one_typed_line(
    sandbox: Sandbox, top: str, within: str, kind: FailureKind, said: str
) -> None:
    with pytest.raises(CandidateFailure) as failure:
        measured(tampered(top, within), sandbox)
    assert failure.value.kind is kind
    assert said in failure.value.detail
    assert not any(word in failure.value.detail for word in ("Traceback", "/sandbox/", "\n"))


def test_under_a_workers_bound_of_memory_an_error_is_still_its_own() -> None:
    """Whether memory ran out is looked up in /proc, which is closed to a candidate."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (64 << 30, hard))
    try:
        with Sandbox() as bound, pytest.raises(CandidateFailure) as failure:
            measured(tampered("", "raise RuntimeError('deep')\n        "), bound)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    assert "RuntimeError: deep" in failure.value.detail


def test_weights_beyond_the_budget_are_refused(sandbox: Sandbox) -> None:
    with pytest.raises(CandidateFailure) as failure:
        replace(candidate(tampered(), sandbox), max_params=100).measure(
            TRAINING, SEEDS, "validation"
        )
    assert "100 are allowed" in failure.value.detail
