"""The recurrent cores: the parallel form equals the recurrence, in outputs, states and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tiny import close
from torch import Tensor
from torch.nn import functional as F

from search_space.native import library
from search_space.ops.attention import KV, causal_attention
from search_space.ops.chunks import chunk_size
from search_space.ops.convolution import long_convolution
from search_space.ops.delta import delta_rule, gated_delta_rule
from search_space.ops.linear import gla, linear_attention, retention
from search_space.ops.rotary import rotated
from search_space.ops.scan import selective_scan
from search_space.ops.ssd import ssd


@pytest.fixture(autouse=True)
def no_kernels() -> Iterator[None]:
    """What is tested here is torch's way; `test_scan` and `test_native` test the kernels."""
    with library.torch_only():
        yield


LENGTHS = (1, 32, 63, 100, 257)  # 32 and below are one chunk
BATCH, HEADS, KEY, VALUE, INNER, STATE = 2, 4, 6, 5, 7, 3


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def qkv(length: int) -> tuple[Tensor, ...]:
    shape = (BATCH, length, HEADS)
    return normal(*shape, KEY), F.normalize(normal(*shape, KEY), dim=-1), normal(*shape, VALUE)


def beta(length: int) -> Tensor:
    return torch.rand(BATCH, length, HEADS, dtype=torch.float64) * 2


def decay(*shape: int) -> Tensor:
    """Log-decays from almost none to all in one token."""
    return -torch.exp(2 * normal(*shape))


def ssd_inputs(length: int) -> tuple[Tensor, ...]:
    x, dt = normal(BATCH, length, HEADS, VALUE), F.softplus(normal(BATCH, length, HEADS))
    B, C = normal(2, BATCH, length, 2, STATE)  # two groups of heads
    return x, dt, decay(HEADS), B, C


def scan_inputs(length: int) -> tuple[Tensor, ...]:
    u, delta = normal(BATCH, length, INNER), F.softplus(normal(BATCH, length, INNER))
    B, C = normal(2, BATCH, length, STATE)
    return u, delta, decay(INNER, STATE), B, C, normal(INNER)


Op = Callable[..., tuple[Tensor, Tensor]]
Inputs = Callable[[int], tuple[Tensor, ...]]
MATRIX = (BATCH, HEADS, KEY, VALUE)
# operator, its inputs, the shape of its state, and which inputs run over time
OPS: dict[str, tuple[Op, Inputs, tuple[int, ...], str]] = {
    "linear_attention": (linear_attention, qkv, MATRIX, "111"),
    "gla": (gla, lambda n: (*qkv(n), decay(BATCH, n, HEADS, KEY)), MATRIX, "1111"),
    "delta_rule": (delta_rule, lambda n: (*qkv(n), beta(n)), MATRIX, "1111"),
    "gated_delta_rule": (
        gated_delta_rule,
        lambda n: (*qkv(n), beta(n), decay(BATCH, n, HEADS)),
        MATRIX,
        "11111",
    ),
    "retention": (retention, qkv, MATRIX, "111"),
    "ssd": (ssd, ssd_inputs, (BATCH, HEADS, STATE, VALUE), "11011"),
    "selective_scan": (selective_scan, scan_inputs, (BATCH, STATE, INNER), "110110"),
}


@pytest.fixture(params=OPS)
def op(request: pytest.FixtureRequest) -> tuple[Op, Inputs, tuple[int, ...], str]:
    torch.manual_seed(0)
    return OPS[request.param]


def graded(op: Op, inputs: list[Tensor], impl: str) -> tuple[list[Tensor], list[Tensor]]:
    """(output, final state), and the gradients of a random combination of both."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    results = op(*leaves, impl=impl)
    generator = torch.Generator().manual_seed(2)
    loss = sum(
        (r * torch.randn(r.shape, generator=generator, dtype=r.dtype)).sum() for r in results
    )
    return list(results), list(torch.autograd.grad(loss, leaves))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("fresh", [True, False], ids=["from-zero", "from-a-state"])
def test_chunk_equals_naive_in_outputs_states_and_gradients(
    op: Any, length: int, fresh: bool
) -> None:
    function, inputs, shape, _ = op
    given = [] if fresh else [normal(*shape)]
    arguments = [*inputs(length), *given]
    results = [graded(function, arguments, impl) for impl in ("naive", "chunk")]
    for naive, chunk in zip(*(outputs + grads for outputs, grads in results), strict=True):
        assert naive.shape == chunk.shape
        assert close(chunk, naive)


@pytest.mark.parametrize("impl", ["naive", "chunk"])
def test_two_halves_with_the_carried_state_equal_the_whole(op: Any, impl: str) -> None:
    function, inputs, _, over_time = op
    arguments = inputs(100)
    whole, final = function(*arguments, impl=impl)
    first, second = (
        [t[:, cut] if timed == "1" else t for t, timed in zip(arguments, over_time, strict=True)]
        for cut in (slice(0, 41), slice(41, None))
    )
    y1, state = function(*first, impl=impl)
    y2, state = function(*second, state, impl=impl)
    assert close(torch.cat((y1, y2), 1), whole)
    assert close(state, final)


def test_the_default_state_is_zero(op: Any) -> None:
    function, inputs, shape, _ = op
    arguments = inputs(20)
    for a, b in zip(
        function(*arguments),
        function(*arguments, torch.zeros(shape, dtype=torch.float64)),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_single_precision_stays_near_double(op: Any) -> None:
    function, inputs, _, _ = op
    arguments = inputs(257)
    exact, single = function(*arguments), function(*(t.float() for t in arguments))
    for a, b in zip(single, exact, strict=True):
        assert a.dtype == torch.float32
        assert close(a.double(), b, 1e-4)  # decays of e^-1000 next to e^-0.01 cost a few digits


@pytest.mark.parametrize("impl", ["naive", "chunk"])
def test_bf16_in_bf16_out_with_a_wide_state(op: Any, impl: str) -> None:
    function, inputs, _, _ = op
    y, state = function(*(t.bfloat16() for t in inputs(40)), impl=impl)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert y.isfinite().all()


@pytest.mark.parametrize("strength", [1e-6, 1.0, 50.0, 1e4])
def test_no_decay_is_too_strong_for_single_precision(strength: float) -> None:
    """Where a product of factors with a quotient of cumulative products would be 0 / 0."""
    torch.manual_seed(0)
    q, k, v = (t.float() for t in qkv(100))
    g = -strength * torch.rand(BATCH, 100, HEADS, KEY)
    u, delta, A, B, C, D = (t.float() for t in scan_inputs(100))
    for function, inputs in (
        (gla, [q, k, v, g]),
        (gated_delta_rule, [q, k, v, beta(100).float(), g[..., 0]]),
        (selective_scan, [u, delta, strength * A, B, C, D]),
    ):
        naive, chunk = (graded(function, inputs, impl) for impl in ("naive", "chunk"))
        for a, b in zip(chunk[0] + chunk[1], naive[0] + naive[1], strict=True):
            assert a.isfinite().all()
            assert strength > 100 or close(a, b, 1e-4)


def test_retention_is_gla_with_the_papers_decays() -> None:
    torch.manual_seed(0)
    q, k, v = qkv(50)
    gamma = torch.tensor([1 - 2.0 ** (-5 - h) for h in range(HEADS)], dtype=torch.float64)
    g = gamma.log()[:, None].expand(BATCH, 50, HEADS, KEY)
    for a, b in zip(retention(q, k, v), gla(q, k, v, g), strict=True):
        assert close(a, b)


def test_delta_rule_recalls_what_it_stored() -> None:
    """With unit keys that do not overlap and beta 1, a key gets back the last value stored under it."""
    k = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 0, 3]][None, :, None]
    v = torch.arange(5.0, dtype=torch.float64)[None, :, None, None]
    y, state = delta_rule(k, k, v, torch.ones(1, 5, 1, dtype=torch.float64))
    assert torch.allclose(y.flatten(), torch.arange(5.0, dtype=torch.float64))
    assert torch.allclose(state.flatten(), torch.tensor([3.0, 1.0, 2.0, 4.0], dtype=torch.float64))


def test_selective_scan_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    inputs = [t.requires_grad_() for t in (*scan_inputs(20), normal(BATCH, STATE, INNER))]
    assert torch.autograd.gradcheck(selective_scan, inputs, fast_mode=True)


@pytest.mark.parametrize("length", LENGTHS)
def test_long_convolution_equals_its_sum_and_does_not_wrap(length: int) -> None:
    torch.manual_seed(0)
    u, h = (
        normal(BATCH, length, INNER).requires_grad_(),
        normal(length, INNER).requires_grad_(),
    )
    last = (length + 1) // 2
    results = []
    for impl in ("naive", "chunk"):
        y = long_convolution(u, h, last, impl)  # type: ignore[arg-type]
        weights = torch.arange(y.numel(), dtype=y.dtype).view_as(y).cos()
        results.append([y, *torch.autograd.grad((y * weights).sum(), (u, h))])
    for a, b in zip(*results, strict=True):
        assert close(a, b)


@pytest.mark.parametrize("length", LENGTHS)
def test_causal_attention_equals_the_fused_kernel_with_shared_heads(length: int) -> None:
    torch.manual_seed(0)
    leaves = [normal(BATCH, heads, length, 4).requires_grad_() for heads in (4, 2, 2)]
    wide = [leaves[0], *(t.repeat_interleave(2, 1) for t in leaves[1:])]
    fused = F.scaled_dot_product_attention(*wide, is_causal=True)
    ours = causal_attention(leaves[0], KV(leaves[1], leaves[2]))
    weights = torch.arange(fused.numel(), dtype=fused.dtype).view_as(fused).cos()
    results = [[y, *torch.autograd.grad((y * weights).sum(), leaves)] for y in (fused, ours)]
    for a, b in zip(*results, strict=True):
        assert close(b, a)


@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.parametrize("head", [2, 8])
def test_rotated_turns_pairs_of_channels_as_complex_numbers(head: int, start: int) -> None:
    torch.manual_seed(0)
    x, half = normal(BATCH, 5, HEADS * head), head // 2
    pairs = torch.complex(*(t.unflatten(-1, (HEADS, half)) for t in x.chunk(2, -1)))
    angle = torch.arange(start, start + 5)[:, None] * 100.0 ** (-torch.arange(half) / half)
    turned = (pairs * torch.polar(torch.ones_like(angle), angle)[:, None]).transpose(1, 2)
    ours = rotated(x, head, 100.0, start)
    assert close(ours, torch.cat((turned.real, turned.imag), -1), 1e-6)  # angles are in fp32


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("window", "sink"), [(1, 0), (1, 1), (8, 0), (8, 3), (64, 64), (300, 2)])
def test_windowed_attention_equals_the_masked_square(length: int, window: int, sink: int) -> None:
    torch.manual_seed(0)
    leaves = [normal(BATCH, heads, length, 4).requires_grad_() for heads in (4, 2, 2)]
    results = []
    for impl in ("naive", "chunk"):
        y = causal_attention(leaves[0], KV(leaves[1], leaves[2], window, sink), impl)  # type: ignore[arg-type]
        weights = torch.arange(y.numel(), dtype=y.dtype).view_as(y).cos()
        results.append([y, *torch.autograd.grad((y * weights).sum(), leaves)])
    for a, b in zip(*results, strict=True):
        assert close(a, b)


def test_a_window_shows_exactly_its_tokens_and_the_sinks() -> None:
    q, k = torch.zeros(1, 1, 12, 2), torch.zeros(1, 1, 12, 2)
    v = torch.eye(12)[None, None]  # equal scores: the output is the share of each token seen
    seen = causal_attention(q, KV(k, v, window=4, sink=2))[0, 0] > 0
    for i in range(12):
        assert {j for j in range(12) if seen[i, j]} == {
            j for j in range(i + 1) if i - j < 4 or j < 2
        }


def test_chunk_sizes_are_powers_of_two() -> None:
    keys = (1, 4, 16, 32, 63, 64, 128, 256)
    assert [chunk_size(n, 128) for n in keys] == [16, 16, 16, 16, 16, 32, 64, 64]
    assert [chunk_size(n, 32) for n in keys] == [32, 32, 32, 32, 32, 32, 64, 64]  # one chunk


def test_ssd_bears_steps_from_nothing_to_hundreds() -> None:
    """A step of 0 writes nothing; its own gradient is left at 0 by the chunks, the others are exact."""
    torch.manual_seed(0)
    x, dt, A, B, C = ssd_inputs(100)
    dt = dt * torch.tensor([0.0, 1e-6, 1.0, 300.0], dtype=torch.float64)
    inputs = [x, dt, A * 1e-3, B, C]
    (naive, of_naive), (chunk, of_chunk) = (graded(ssd, inputs, i) for i in ("naive", "chunk"))
    of_naive[1][..., 0] = 0
    for a, b in zip(chunk + of_chunk, naive + of_naive, strict=True):
        assert close(a, b)
