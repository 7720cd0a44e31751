"""Steps as replays: the same trajectory as one launch after another, and what happens if that fails.

Without a GPU a replay runs the step again from the same buffers, which is what a graph does; all but
the capture itself is then the code that runs on one. The tests that capture are for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluator.checkpoint import capture, pack, restore, unpack
from evaluator.evaluate import Job, evaluate
from evaluator.metrics import Scorer
from evaluator.outcome import CandidateFailure, FailureKind, Spent
from evaluator.profiles import profile
from evaluator.steps import WARMUP, Eager, Graphed, Launch, side_stream
from evaluator.tasks.base import Split
from evaluator.train import BALANCE, Losses, Training, adamw, batches, train, train_step
from search_space.model import Model
from search_space.pattern import Pattern
from search_space.presets import preset
from search_space.primitives import CATALOGUE
from search_space.primitives.moe import MixtureOfExperts

CPU, LR = torch.device("cpu"), 2.0**-8  # exact in single precision, so that bits can be compared
TRAINING = Training(steps=12, batch=8, lr=LR, weight_decay=0.1)
RATES = [LR / 2 ** (step % 3) for step in range(TRAINING.steps)]
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="captures on a GPU")


def model_of(pattern: str, device: torch.device = CPU) -> Model:
    torch.manual_seed(0)
    return Model(Pattern.parse(pattern), preset("mini"), 16).to(device)


def data(device: torch.device = CPU) -> Split:
    tokens = torch.randint(16, (40, 33), generator=torch.Generator().manual_seed(1))
    return Split(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()).to(device)


def again(step: Launch) -> Launch:
    """In the place of a capture: the replay of a step is the step."""
    return step


def refused(step: Launch) -> Launch:
    raise RuntimeError("operation not permitted when stream is capturing\nmore")


class Run:
    """A training under one way to launch, in one or several parts."""

    def __init__(self, pattern: str, launcher: Callable[..., Any], device: torch.device = CPU):
        self.device, self.launcher, self.losses = device, launcher, list[float]()
        self.model = model_of(pattern, device)
        self.optimiser = adamw(self.model, TRAINING)

    def go(self, start: int = 0, stop: int = TRAINING.steps) -> Run:
        step = partial(train_step, self.model, self.optimiser, training=TRAINING)
        take = self.launcher(step, self.optimiser)
        with side_stream(self.device):
            for number, batch in enumerate(
                batches(data(self.device), TRAINING.batch, stop, 0, start), start
            ):
                self.losses.append(take(*batch, RATES[number]).item())
        self.reason: str = take.reason
        return self

    @property
    def state(self) -> list[Tensor]:
        moments = [t for s in self.optimiser.state.values() for t in s.values()]
        return [*self.model.state_dict().values(), *moments]


def graphed(step: Any, optimiser: Any) -> Graphed:
    return Graphed(step, optimiser, CPU, again)


def same(one: Run, two: Run) -> bool:
    pairs = zip(one.state, two.state, strict=True)
    return one.losses == two.losses and all(torch.equal(a, b) for a, b in pairs)


# --------------------------------------------------------------------------------- replayed or not


@pytest.mark.parametrize("pattern", ["A+Mb+M", "2*(A+M)", "E+A"])
def test_replays_go_the_way_of_single_steps(pattern: str) -> None:
    one, two = Run(pattern, Eager).go(), Run(pattern, graphed).go()
    assert len(set(one.losses)) == TRAINING.steps, "every step does something"
    assert same(one, two)
    assert (one.reason, two.reason) == ("", "")


def test_a_refused_capture_goes_on_step_by_step_and_says_so() -> None:
    two = Run("A+M", lambda step, optimiser: Graphed(step, optimiser, CPU, refused)).go()
    assert same(Run("A+M", Eager).go(), two)
    assert two.reason == "not captured: operation not permitted when stream is capturing"


def test_a_bug_of_ours_in_a_capture_is_not_a_refusal() -> None:
    def broken(step: Launch) -> Launch:
        raise TypeError("ours")

    with pytest.raises(TypeError, match="ours"):
        Run("M", lambda step, optimiser: Graphed(step, optimiser, CPU, broken)).go()


def test_a_capture_comes_once_after_the_warm_up_and_finds_what_torch_demands() -> None:
    """A graph holds addresses: inputs, labels and rate must stay where the capture saw them."""
    weight = nn.Parameter(torch.ones(3))
    optimiser = torch.optim.AdamW([weight], lr=0.1, fused=True)
    seen: list[tuple[Any, ...]] = []
    captured: list[int] = []

    def step(inputs: Tensor, labels: Tensor) -> Tensor:
        (group,) = optimiser.param_groups
        assert not group["capturable"], "or torch warns at an eager step"
        where = (inputs.data_ptr(), labels.data_ptr(), group["lr"].data_ptr())
        seen.append((where, inputs.tolist(), labels.tolist(), group["lr"].item()))
        return inputs.float().sum()

    def record(launch: Launch) -> Launch:
        captured.append(len(seen))
        assert optimiser.param_groups[0]["capturable"]
        return launch

    optimiser.param_groups[0]["capturable"] = True  # as a checkpoint may have it
    take = Graphed(step, optimiser, CPU, record)
    batches = [torch.full((1, 2), i) for i in range(6)]
    losses = [take(x, x + 1, 0.5**i) for i, x in enumerate(batches)]
    assert captured == [WARMUP]
    assert len({where for where, *_ in seen}) == 1
    expected = [([[i, i]], [[i + 1, i + 1]], 0.5**i) for i in range(6)]
    assert [(x, y, rate) for _, x, y, rate in seen] == expected
    assert [loss.item() for loss in losses] == [2 * i for i in range(6)], "no loss is written over"


@pytest.mark.parametrize("first", [Eager, graphed])
@pytest.mark.parametrize("then", [Eager, graphed])
def test_a_checkpoint_goes_on_under_either_launcher(first: Any, then: Any) -> None:
    straight, begun = Run("A+Mb", Eager).go(), Run("A+Mb", first).go(stop=5)
    saved = unpack(pack({"x": {0: capture(begun.model, begun.optimiser, 5)}}))["x"][0]
    rest = Run("A+Mb", then)
    assert restore(rest.model, rest.optimiser, saved) == 5
    rest.losses = begun.losses
    assert same(straight, rest.go(start=5))


# ------------------------------------------------------------------------------- losses looked at late


@pytest.mark.parametrize(
    ("losses", "kind", "step"),
    [
        ([1.0] * 7 + [float("nan")] * 5, FailureKind.NAN, 7),
        ([1.0, float("inf")], FailureKind.NAN, 1),
        ([1.0, 99.0, float("nan")], FailureKind.DIVERGED, 1),
    ],
)
@pytest.mark.parametrize("every", [1, 5, 50])
def test_a_bad_loss_is_found_late_but_with_its_kind_and_step(
    losses: list[float], kind: FailureKind, step: int, every: int
) -> None:
    watched, taken = Losses(16, every, start=100), 0
    with pytest.raises(CandidateFailure, match=f"at step {100 + step}") as failure:
        for loss in losses:
            taken += 1
            watched.add(torch.tensor(loss))
        watched.check()
    assert failure.value.kind is kind
    assert taken <= step + every


def test_good_losses_pass_and_may_be_none() -> None:
    watched = Losses(16, 3)
    watched.check()
    for _ in range(7):
        watched.add(torch.tensor(2.0))
    watched.check()


# ------------------------------------------------------------------------------------ balanced experts


def test_the_balance_reaches_the_router_and_is_no_part_of_the_loss() -> None:
    """Experts whose output is zero give the router no gradient; what it gets is the balance's."""
    model = model_of("E")
    (experts,) = (m for m in model.modules() if isinstance(m, MixtureOfExperts))
    nn.init.zeros_(experts.down)
    router, (inputs, labels) = experts.router.weight, next(batches(data(), 8, 1, 0))
    task = F.cross_entropy(model(inputs).flatten(0, 1), labels.flatten())
    (alone,) = torch.autograd.grad(task, router, retain_graph=True)
    (wanted,) = torch.autograd.grad(torch.as_tensor(BALANCE * model.balance_loss()), router)
    assert not alone.any()
    loss = train_step(model, adamw(model, TRAINING), inputs, labels, replace(TRAINING, clip=1e9))
    assert router.grad is not None
    assert torch.allclose(router.grad, wanted, rtol=1e-4, atol=1e-10)
    assert wanted.abs().max() > 1e-6
    assert loss == task


@pytest.mark.parametrize("pattern", ["E", "[E|A]", "2*(E+M)"])
def test_training_balances_experts_wherever_they_are(pattern: str) -> None:
    """As above: only the balance can move a router whose experts say nothing."""
    model = model_of(pattern)
    (experts,) = (m for m in model.modules() if isinstance(m, MixtureOfExperts))
    nn.init.zeros_(experts.down).requires_grad_(False)
    before = experts.router.weight.detach().clone()
    train(model, data(), Training(1, 8, LR), 0, 16)
    assert not torch.equal(before, experts.router.weight)


def test_costs_add_up_and_keep_the_first_reason() -> None:
    total = Spent(1, 2, 3.0, 4.0, "") + Spent(1, 2, 3.0, 4.0, "a") + Spent(eager="b")
    assert total == Spent(2, 4, 6.0, 8.0, "a")


# ------------------------------------------------------------------------------------------ on a GPU


def on_cuda(step: Any, optimiser: Any) -> Graphed:
    return Graphed(step, optimiser, torch.device("cuda"))


@on_gpu
@pytest.mark.parametrize("code", sorted(set(CATALOGUE) - {"E", "Xa"}))
def test_every_primitive_is_captured_and_trains_as_without(code: str) -> None:
    device = torch.device("cuda")
    one, two = Run(code, Eager, device).go(), Run(code, on_cuda, device).go()
    assert two.reason == ""
    assert one.losses == pytest.approx(two.losses, rel=1e-3)


@on_gpu
def test_experts_wait_for_the_device_and_run_step_by_step() -> None:
    device = torch.device("cuda")
    two = Run("E+A", on_cuda, device).go()
    assert "waits for the device at" in two.reason
    assert Run("E+A", Eager, device).go().losses == pytest.approx(two.losses, rel=1e-3)


@on_gpu
def test_a_capture_that_fails_leaves_stream_and_training_as_they_were() -> None:
    """The step waits in the capture only, so that no probe sees it coming."""
    device = torch.device("cuda")
    run = Run("A+M", on_cuda, device)

    def launcher(step: Any, optimiser: Any) -> Graphed:
        def stumbling(inputs: Tensor, labels: Tensor) -> Tensor:
            loss: Tensor = step(inputs, labels)
            if torch.cuda.is_current_stream_capturing():
                loss.item()
            return loss

        return on_cuda(stumbling, optimiser)

    run.launcher, before = launcher, torch.cuda.current_stream()
    run.go()
    assert run.reason.startswith("not captured:")
    assert torch.cuda.current_stream() == before
    assert Run("A+M", Eager, device).go().losses == pytest.approx(run.losses, rel=1e-3)
    assert Run("A+M", on_cuda, device).go().reason == "", "the process can still capture"


@on_gpu
def test_rungs_on_a_gpu_go_on_where_they_stopped() -> None:
    job = Job("A+Mb+M", "mini", "mad-mini", 0, ("in-context-recall",))
    straight = evaluate(job)
    first = evaluate(replace(job, share=Fraction(1, 3)))
    rest = evaluate(replace(job, checkpoint=first.checkpoint))
    assert dict(rest.facts) == {}
    assert straight.score() == pytest.approx(rest.score(), abs=0.05)


@on_gpu
def test_a_loss_that_is_not_finite_is_found_on_a_gpu_too() -> None:
    model = model_of("A+M", torch.device("cuda"))
    nn.init.constant_(model.norm.weight, float("nan"))
    with pytest.raises(CandidateFailure, match="at step 0") as failure:
        train(model, data(torch.device("cuda")), TRAINING, 0, 16)
    assert failure.value.kind is FailureKind.NAN


@on_gpu
def test_scores_are_the_same_on_both_devices() -> None:
    logits = torch.randn(64, 9, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(7, (64, 9), generator=torch.Generator().manual_seed(1))
    found = []
    for device in ("cpu", "cuda"):
        scorer = Scorer()
        scorer.update(logits.to(device), labels.to(device))
        found.append(scorer.result())
    assert found[0] == pytest.approx(found[1], rel=1e-12)


@on_gpu
def test_a_fact_says_which_task_was_not_graphed() -> None:
    tasks = profile("smoke").named()
    facts = dict(evaluate(Job("E+A", "mini", "smoke", 0)).facts)
    assert set(facts) == {f"{label}/eager" for label, _ in tasks}
