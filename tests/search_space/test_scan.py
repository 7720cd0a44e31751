"""The kernel of the recurrence against its plain form in double precision, all gradients included."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

from search_space.native import library, scan
from search_space.ops.linear import decayed_attention, linear_attention, retention

pytestmark = pytest.mark.usefixtures("instructions")
LENGTHS = (1, 2, 15, 17, 33, 128)
WITHIN = {torch.float32: 1e-5, torch.bfloat16: 8e-3}  # of the norm; bf16 has eight bits
BATCH, HEADS = 2, 4
Inputs = dict[str, Tensor | None]


@dataclass(frozen=True)
class Case:
    """Sizes, and which of the optional inputs there are."""

    groups: int
    key: int
    value: int
    per_channel: bool = False
    weighted: bool = False
    started: bool = False


CASES = (
    Case(1, 4, 8, weighted=True),  # as Mb at `small`
    Case(2, 5, 20, weighted=True, started=True),
    Case(4, 16, 17),  # as L
    Case(4, 8, 16, per_channel=True),  # as G
    Case(4, 3, 33, per_channel=True, started=True),
    Case(4, 1, 1, weighted=True, started=True),
)


def inputs(case: Case, length: int, dtype: torch.dtype) -> Inputs:
    """What `decayed_attention` takes; q, k and v are slices of one projection, as in a primitive."""
    torch.manual_seed(length)
    sizes = (case.groups * case.key, case.groups * case.key, HEADS * case.value, 3)
    projected = torch.randn(BATCH, length, sum(sizes)).to(dtype).split(sizes, -1)
    q, k, v = (
        t.unflatten(-1, (-1, size))
        for t, size in zip(projected, (case.key, case.key, case.value), strict=False)
    )
    shape = (BATCH, length, HEADS)
    return {
        "q": q,
        "k": k,
        "v": v,
        "g": -torch.exp(2 * torch.randn(*shape, case.key if case.per_channel else 1)),
        "state": torch.randn(BATCH, HEADS, case.key, case.value) if case.started else None,
        "weight": torch.rand(*shape, 1) if case.weighted else None,
    }


def graded(given: Inputs, impl: str) -> dict[str, Tensor]:
    """Output and last state, and the gradients of a sum of both whose weights are all different."""
    leaves = {name: t.detach().requires_grad_() for name, t in given.items() if t is not None}
    names = ("q", "k", "v", "g", "state", "weight")
    o, end = decayed_attention(*(leaves.get(n) for n in names[:5]), impl, leaves.get("weight"))  # type: ignore[arg-type]
    loss = sum(
        (t * torch.arange(t.numel()).view(t.shape).cos().bfloat16().to(t.dtype)).sum()
        for t in (o, end)
    )
    gradients = torch.autograd.grad(loss, list(leaves.values()))  # type: ignore[arg-type]
    return {"o": o, "end": end, **dict(zip(leaves, gradients, strict=True))}


def doubled(given: Inputs) -> Inputs:
    return {name: None if t is None else t.double() for name, t in given.items()}


@cache
def exactly(case: Case, length: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """From the same numbers, for the kernels of every instruction set."""
    return graded(doubled(inputs(case, length, dtype)), "naive")


def apart(a: Tensor, b: Tensor) -> float:
    """The distance of two tensors, as a part of the second's norm."""
    a, b = a.detach().double(), b.detach()
    return ((a - b).norm() / (1e-3 + b.norm())).item()


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_kernel_is_the_recurrence(case: Case, length: int, dtype: torch.dtype) -> None:
    ours, exact = graded(inputs(case, length, dtype), "chunk"), exactly(case, length, dtype)
    assert ours.keys() == exact.keys()
    for name, found in ours.items():
        assert found.dtype == (dtype if name in {"o", "q", "k", "v"} else torch.float32)
        assert found.shape == exact[name].shape
        assert apart(found, exact[name]) < WITHIN[dtype], name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_again_to_the_bit_and_from_contiguous_memory(case: Case) -> None:
    given = inputs(case, 33, torch.bfloat16)
    copies = {name: None if t is None else t.contiguous() for name, t in given.items()}
    results = [graded(these, "chunk") for these in (given, given, copies)]
    for name, found in results[0].items():
        assert all(torch.equal(found, other[name]) for other in results[1:]), name


def test_it_runs_where_it_says_and_torch_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """In double precision, in which `test_ops` tests the chunks, the kernel must not run."""
    ran: list[str] = []

    def counted(name: str, *_: object) -> None:
        ran.append(name)

    given = inputs(CASES[0], 17, torch.float32)
    large = inputs(Case(4, 128, 64), 17, torch.float32)
    monkeypatch.setattr(scan, "call", counted)
    for these, impl in ((doubled(given), "chunk"), (given, "naive"), (large, "chunk")):
        graded(these, impl)
    assert ran == []
    graded(given, "chunk")
    assert ran == ["scan_forward", "scan_backward"]
    with library.torch_only():
        graded(given, "chunk")
    assert len(ran) == 2


@pytest.mark.parametrize("per_channel", [True, False])
def test_no_decay_is_too_strong(per_channel: bool) -> None:
    given = inputs(Case(4, 5, 8, per_channel=per_channel, started=True), 33, torch.float32)
    assert given["g"] is not None
    given["g"] *= torch.tensor([0.0, 1.0, 80.0, 1e4])[:, None]
    given["g"][:, 7] = -1000.0
    ours, exact = graded(given, "chunk"), graded(doubled(given), "naive")
    for name, found in ours.items():
        assert found.isfinite().all()
        assert apart(found, exact[name]) < 1e-5, name


@pytest.mark.parametrize("name", ["q", "k", "v", "g", "weight", "state"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_seen_and_does_not_go_back_in_time(name: str, bad: float) -> None:
    given = inputs(Case(1, 4, 8, weighted=True, started=True), 33, torch.float32)
    clean, spoilt = graded(given, "chunk")["o"], given[name]
    assert spoilt is not None
    spoilt[:, 0 if name == "state" else 20] = bad
    o = graded(given, "chunk")["o"]
    first = 0 if name == "state" else 20
    assert not o[:, first].isfinite().all()
    assert torch.equal(o[:, :first], clean[:, :first])


def test_a_weight_of_zero_has_its_gradient() -> None:
    given = inputs(CASES[0], 33, torch.float32)
    assert given["weight"] is not None
    given["weight"][:, ::2] = 0
    assert graded(given, "chunk")["weight"][:, ::2].abs().min() > 0
    assert apart(graded(given, "chunk")["weight"], graded(doubled(given), "naive")["weight"]) < 1e-5


def test_decays_that_rows_and_tokens_share() -> None:
    """Views of one number, and outputs whose gradient is one too."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, BATCH, 17, HEADS, 8)
    for core in (linear_attention, retention):
        leaves = [t.clone().requires_grad_() for t in (q, k, v)]
        ours = torch.autograd.grad(core(*leaves)[0].sum(), leaves)
        double = [t.double().requires_grad_() for t in (q, k, v)]
        exact = torch.autograd.grad(core(*double, impl="naive")[0].sum(), double)
        assert all(apart(a, b) < 1e-5 for a, b in zip(ours, exact, strict=True))
    gradients = []
    for dtype in (torch.float32, torch.float64):
        shared = torch.full((1, 1, 1, 1), -0.3, dtype=dtype, requires_grad=True)
        g = shared.expand(1, 17, HEADS, 1)
        o, _ = decayed_attention(q.to(dtype), k.to(dtype), v.to(dtype), g, None, "chunk")
        gradients += torch.autograd.grad(o.square().sum(), shared)
    assert apart(*gradients) < 1e-5
