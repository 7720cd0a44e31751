"""Evaluations as a whole: they tell architectures apart, repeat bit for bit, and fail with a type."""

import pytest
import torch
from torch import nn

from evaluator.evaluate import Job, classified, evaluate, score
from evaluator.outcome import CandidateFailure, FailureKind
from evaluator.profiles import profile
from evaluator.tasks.base import Split
from evaluator.train import Training, batches, train


def job(pattern: str, **changes: object) -> Job:
    return Job(**{"pattern": pattern, "preset": "mini", "profile": "smoke", "seed": 0, **changes})


def test_attention_beats_mlp_only_on_in_context_recall() -> None:
    """The profile must tell what can look back from what cannot, by far more than its noise."""
    task = ("in-context-recall",)
    hybrid = [evaluate(job("2(Mb+A+M)", profile="mad-mini", tasks=task, seed=s)) for s in (0, 1)]
    attention = [evaluate(job("2A+4M", profile="mad-mini", tasks=task, seed=s)) for s in (0, 1)]
    blind = [evaluate(job("6M", profile="mad-mini", tasks=task, seed=s)) for s in (0, 1)]
    best_blind = max(r.score() or 0 for r in blind)
    assert best_blind < 0.25  # chance is 1/6: values are uniform over six ids
    assert min(r.score() or 0 for r in attention) > best_blind + 0.1
    assert min(r.score() or 0 for r in hybrid) > best_blind + 0.2


def test_the_same_job_gives_the_same_bits_and_another_seed_does_not() -> None:
    torch.manual_seed(123)  # the caller's own random state must not matter, nor be touched
    before = torch.random.get_rng_state()
    one = evaluate(job("A+Mb+M"))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(7)
    two, other = evaluate(job("A+Mb+M")), evaluate(job("A+Mb+M", seed=1))
    assert one.metrics == two.metrics
    assert one.metrics != other.metrics


def test_a_narrowed_profile_gives_each_task_the_same_score() -> None:
    whole = {m.name: m.value for m in evaluate(job("A+M")).metrics}
    alone = {m.name: m.value for m in evaluate(job("A+M", tasks=("compression",))).metrics}
    assert alone["compression/loss"] == whole["compression/loss"]
    assert "in-context-recall/loss" not in alone


def test_sealed_scores_come_from_the_test_split_only() -> None:
    sealed = evaluate(job("A+M", sealed=True))
    assert {m.split for m in sealed.metrics} == {"test"}
    assert sealed.score("validation") is None
    assert sealed.score("test") != evaluate(job("A+M")).score("validation")


def test_what_was_spent_is_counted() -> None:
    spent = evaluate(job("A+M", tasks=("compression",))).spent
    training = profile("smoke").training
    assert spent.steps == training.steps
    assert spent.tokens == training.steps * training.batch * 8
    assert spent.flops > 0
    assert spent.seconds > 0


def test_failures_of_a_candidate_are_typed_and_unscored() -> None:
    invalid = evaluate(job("A{kv=3}+M"))
    assert (invalid.failure, invalid.score()) == (FailureKind.INVALID, None)
    assert "KV heads" in invalid.detail
    late = evaluate(job("A+M", timeout=1e-9))
    assert (late.failure, late.metrics) == (FailureKind.TIMEOUT, ())


class Broken(nn.Module):
    """Logits that blow up after some steps."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.factor = factor

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.weight * self.factor * nn.functional.one_hot(tokens, 4)
        return logits.float()


@pytest.mark.parametrize(
    ("factor", "kind"), [(float("nan"), FailureKind.NAN), (-1e4, FailureKind.DIVERGED)]
)
def test_a_loss_that_is_not_finite_or_runs_away_stops_training(
    factor: float, kind: FailureKind
) -> None:
    tokens = torch.arange(4).repeat(8, 2)
    with pytest.raises(CandidateFailure) as failure:
        train(Broken(factor), Split(tokens, tokens), Training(2, 4, 1e-3), 0, 4)
    assert failure.value.kind is kind


def test_logits_that_are_not_finite_are_not_scored() -> None:
    tokens = torch.arange(4).repeat(8, 2)
    with pytest.raises(CandidateFailure) as failure:
        score(Broken(float("inf")), Split(tokens, tokens), Training(1, 4, 1e-3))
    assert failure.value.kind is FailureKind.NAN


def test_memory_that_cannot_be_had_is_oom_and_a_bug_of_ours_is_not() -> None:
    with pytest.raises(CandidateFailure) as failure, classified():
        torch.empty(2**60)
    assert failure.value.kind is FailureKind.OOM
    with pytest.raises(RuntimeError, match="shape"), classified():
        torch.ones(2) @ torch.ones(3).reshape(3, 1).T


def test_batches_use_every_row_once_an_epoch_in_an_order_of_the_seed() -> None:
    split = Split(torch.arange(10)[:, None], torch.arange(10)[:, None])
    drawn = torch.cat([x for x, _ in batches(split, 4, 5, seed=0)]).flatten().tolist()
    assert sorted(drawn[:10]) == list(range(10)) == sorted(drawn[10:])
    again = torch.cat([x for x, _ in batches(split, 4, 5, seed=0)]).flatten().tolist()
    other = torch.cat([x for x, _ in batches(split, 4, 5, seed=1)]).flatten().tolist()
    assert drawn == again != other


def test_the_schedule_warms_up_and_ends_near_zero() -> None:
    training = Training(steps=100, batch=1, lr=1.0, schedule="cosine", warmup=10)
    rates = [training.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001
    assert Training(steps=9, batch=1, lr=0.5).rate(8) == 0.5


def test_a_budget_of_seconds_stops_training() -> None:
    tokens = torch.arange(4).repeat(8, 2)
    spent = train(Broken(1.0), Split(tokens, tokens), Training(10**6, 4, 1e-3, seconds=0.05), 0, 4)
    assert 0 < spent.steps < 10**6


def test_a_profile_is_known_by_all_that_its_scores_depend_on() -> None:
    smoke = profile("smoke")
    assert smoke.fingerprint == profile("smoke").fingerprint
    assert smoke.narrow(["compression"]).fingerprint != smoke.fingerprint
    with pytest.raises(ValueError, match="'compression'"):
        smoke.narrow(["compresion"])
    with pytest.raises(ValueError, match="'mad-mini'"):
        profile("mad-min")
