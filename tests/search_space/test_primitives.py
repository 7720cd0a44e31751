"""Every primitive of the catalogue: decoding equals the forward pass, and its cost is what it says."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import (
    CASES,
    WIDTH,
    close,
    decode,
    elements,
    make,
    run,
    source_kv,
)
from torch.utils.flop_counter import FlopCounterMode

from search_space.ops.chunks import chunk_size
from search_space.ops.convolution import fft_size
from search_space.pattern import Pattern
from search_space.primitives import CATALOGUE
from search_space.primitives.base import Recurrent
from search_space.primitives.moe import MixtureOfExperts
from search_space.primitives.norm import Norm
from search_space.primitives.short_conv import ShortConv


def tokens(batch: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, length, WIDTH, generator=generator, dtype=torch.float64)


def test_the_cases_cover_the_catalogue() -> None:
    assert {Pattern.parse(case).layers[0].code for case in CASES} == set(CATALOGUE)
    assert [*"ADEGHLMRW", "La", "Mb", "Ms", "Xa"] == sorted(CATALOGUE, key=lambda c: (len(c), c))


@pytest.mark.parametrize("case", CASES)
def test_decoding_token_by_token_equals_the_forward_pass(case: str) -> None:
    primitive, x = make(case), tokens(2, 37)
    kv = source_kv(primitive, 2, 37)
    with torch.no_grad():
        assert close(decode(primitive, x, kv)[0], run(primitive, x, kv), 1e-6)  # RoPE is in fp32


@pytest.mark.parametrize("case", CASES)
def test_the_future_does_not_change_the_past(case: str) -> None:
    """Neither in the outputs nor in the gradients; through an FFT but for round-off."""
    primitive, x = make(case).eval(), tokens(2, 40).requires_grad_()
    kv = source_kv(primitive, 2, 40)
    y = run(primitive, x, kv)
    (grad,) = torch.autograd.grad(y[:, 24].square().sum(), x)
    assert grad[:, 25:].abs().max() <= (1e-15 if case.startswith("H") else 0)
    assert grad[:, 24].abs().max() > 0
    changed = torch.cat((x[:, :25], -3 * x[:, 25:]), 1)
    assert close(run(primitive, changed, kv)[:, :25], y[:, :25], 1e-12)


@pytest.mark.parametrize("case", CASES)
def test_a_sequence_does_not_depend_on_its_batch(case: str) -> None:
    primitive, x = make(case), tokens(3, 20)
    kv, one = source_kv(primitive, 3, 20), source_kv(primitive, 3, 20)
    if one is not None:
        one = one._replace(keys=one.keys[1:2], values=one.values[1:2])
    assert close(run(primitive, x[1:2], one), run(primitive, x, kv)[1:2], 1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if isinstance(make(c), Recurrent)])
@pytest.mark.parametrize("impl", ["naive", "chunk"])
def test_mixing_in_two_halves_equals_the_whole(case: str, impl: str) -> None:
    primitive, x = make(case), tokens(2, 50)
    assert isinstance(primitive, Recurrent)
    first, state = primitive.mix(x[:, :19], None, impl)  # type: ignore[arg-type]
    second, _ = primitive.mix(x[:, 19:], state, impl)  # type: ignore[arg-type]
    assert close(torch.cat((first, second), 1), primitive(x), 1e-6)


def graded(primitive: Recurrent, x: torch.Tensor, impl: str) -> list[torch.Tensor]:
    """Outputs, and the gradients of the input and of every parameter."""
    leaf = x.clone().requires_grad_()
    y, _ = primitive.mix(leaf, None, impl)  # type: ignore[arg-type]
    weights = torch.arange(y.numel(), dtype=y.dtype).view_as(y).cos()
    return [y, *torch.autograd.grad((y * weights).sum(), [leaf, *primitive.parameters()])]


@pytest.mark.parametrize("case", [c for c in CASES if isinstance(make(c), Recurrent)])
@pytest.mark.parametrize("length", [1, 63, 100, 257])
def test_the_fast_path_equals_the_naive_one_in_gradients_too(case: str, length: int) -> None:
    primitive = make(case)
    assert isinstance(primitive, Recurrent)
    both = (graded(primitive, tokens(2, length), impl) for impl in ("naive", "chunk"))
    for naive, fast in zip(*both, strict=True):
        assert close(fast, naive, 1e-9)


@pytest.mark.parametrize("case", ["E", "E{topk=1,act=swiglu}", "E{experts=3,topk=3}"])
@pytest.mark.parametrize("length", [1, 63])
def test_sorted_experts_equal_every_expert_on_every_token(case: str, length: int) -> None:
    """The sum over all experts, weighted by 0 where the router did not choose them."""
    primitive, x = make(case), tokens(2, length)
    assert isinstance(primitive, MixtureOfExperts)
    chances = primitive.router(x).float().softmax(-1).double()  # routed in fp32
    best, chosen = chances.topk(primitive.topk, dim=-1)
    best = best / best.sum(-1, keepdim=True) if primitive.topk > 1 else best
    weights = torch.zeros_like(chances).scatter(-1, chosen, best)
    every = [primitive._expert(x, u, d) for u, d in zip(primitive.up, primitive.down, strict=True)]
    naive = sum(w[..., None] * y for w, y in zip(weights.unbind(-1), every, strict=True))
    parameters = list(primitive.parameters())
    grads = [torch.autograd.grad(y.square().sum(), parameters) for y in (naive, primitive(x))]
    assert close(primitive(x), naive, 1e-6)
    for slow, fast in zip(*grads, strict=True):
        assert close(fast, slow, 1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 63, 32), (5, 4, 2, 7)])
def test_the_norm_equals_torchs_in_outputs_and_gradients(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    norm = Norm(shape[-1]).double()
    norm.weight.data.normal_()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    theirs = torch.nn.functional.rms_norm(x, norm.weight.shape, norm.weight, 1e-6)
    results = [
        [y, *torch.autograd.grad(y.sin().sum(), (x, norm.weight))] for y in (theirs, norm(x))
    ]
    for a, b in zip(*results, strict=True):
        assert close(b, a, 1e-12)


@pytest.mark.parametrize("length", [1, 2, 63, 100])
@pytest.mark.parametrize("kernel", [1, 4])
def test_shifted_sums_equal_a_padded_convolution(length: int, kernel: int) -> None:
    torch.manual_seed(0)
    conv = ShortConv(6, kernel).double()
    x = torch.randn(2, length, 6, dtype=torch.float64, requires_grad=True)
    padded = torch.nn.functional.pad(x.transpose(1, 2), (kernel - 1, 0))
    theirs = torch.nn.functional.conv1d(padded, conv.weight.T[:, None], conv.bias, groups=6)
    leaves = (x, conv.weight, conv.bias)
    results = [
        [y, *torch.autograd.grad(y.sin().sum(), leaves)]
        for y in (theirs.transpose(1, 2), conv.mix(x, None)[0])
    ]
    for a, b in zip(*results, strict=True):
        assert close(b, a, 1e-12)


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_those_of_the_module(case: str) -> None:
    primitive = make(case)
    assert primitive.cost(64).params == sum(p.numel() for p in primitive.parameters())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [1, 5, 23])
def test_state_is_what_decoding_holds(case: str, length: int) -> None:
    """Per sequence: what a table shared by the batch holds (Hyena's filters) is no state."""
    primitive = make(case)
    with torch.no_grad():
        held = [
            elements(
                decode(primitive, tokens(batch, length), source_kv(primitive, batch, length))[1]
            )
            for batch in (1, 2)
        ]
    assert primitive.cost(length).state == held[1] - held[0]
    assert primitive.cost(length).state_bytes() == 2 * (held[1] - held[0])


def convolved(case: str) -> int:
    """FLOPs per token of the short convolution, a sum of shifted inputs: 2 x kernel x channels."""
    channels = {"Mb": 48 + 2 * 4, "Ms": 40, "D": 3 * WIDTH, "H": 3 * WIDTH}
    kernel = {"Mb": 4, "Ms": 4, "D": 4, "H": 3}
    other = {"Mb{groups=3,conv=1}": 2 * (48 + 2 * 3 * 4), "H{order=3,filter=4}": 2 * 3 * 4 * WIDTH}
    code = case.partition("{")[0]
    return other.get(case, 2 * kernel.get(code, 0) * channels.get(code, 0))


def unseen(case: str, length: int) -> float:
    """FLOPs per token that the counter does not know, counted here by hand."""
    return convolved(case) + _unseen(case, length)


def _unseen(case: str, length: int) -> float:
    inner, size = 40, chunk_size(8, length)
    filled = math.ceil(length / size) * size
    if case.startswith(
        "D"
    ):  # the triangular solve: size^2 / 2 multiply-adds for each of K + V columns
        return filled * size * (8 + 8) * (WIDTH // 8) / length
    if case.startswith("Ms"):  # the state's update; the read-out is a product
        states = 16 if "state=16" in case else 4
        padded = (
            math.ceil(length / 16) * 16
        )  # the read-out of the filling is counted, and is not a cost
        return (4 * length - 2 * padded) * states * inner / length
    if case.startswith("H"):
        n = fft_size(length)
        channels = WIDTH * (2 if "order=3" in case else 1)
        return channels * (3 * 2.5 * n * math.log2(n) + 6 * (n // 2 + 1)) / length
    return 0.0


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [1, 64, 100])
def test_flops_are_those_of_the_counter(case: str, length: int) -> None:
    primitive, x = make(case), tokens(1, length)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(primitive, x, source_kv(primitive, 1, length))
    counted = counter.get_total_flops() / length + unseen(case, length)
    assert primitive.cost(length).flops_per_token == pytest.approx(counted, rel=1e-9)


def unseen_step(case: str, length: int) -> float:
    """FLOPs of a step's recurrence, which is written out element by element."""
    state = {"L": WIDTH * 9, "G": WIDTH * 4, "R": WIDTH * 4, "Mb": 48 * 4, "Ms": 40 * 4}
    if case.startswith("D"):
        return 6 * WIDTH * 8
    if case.startswith("H"):
        return 2 * length * WIDTH * (2 if "order=3" in case else 1)
    doubled = 2 if "key_ratio=1" in case else 4 if "state=16" in case else 1
    return 4 * doubled * state.get(case.partition("{")[0], 0)


@pytest.mark.parametrize("case", CASES)
def test_step_flops_are_those_of_the_counter(case: str) -> None:
    primitive, x, length = make(case), tokens(1, 21), 21
    kv = source_kv(primitive, 1, length)
    with torch.no_grad():
        past = kv and kv._replace(keys=kv.keys[:, :, :20], values=kv.values[:, :, :20])
        _, state = decode(primitive, x[:, :20], past)
        with FlopCounterMode(display=False) as counter:
            primitive.step_kv(x[:, 20], state, kv)
    counted = counter.get_total_flops() + convolved(case) + unseen_step(case, length)
    assert primitive.cost(length).step_flops == pytest.approx(counted, rel=1e-9)


def test_a_step_reads_weights_and_state_once() -> None:
    for case in CASES:
        cost = make(case).cost(40)
        if case[0] not in "EHX":
            assert cost.step_reads == cost.params + cost.state
    experts, cost = make("E{topk=1}"), make("E{topk=1}").cost(40)
    router = experts.router.weight.numel()  # type: ignore[union-attr, operator]
    assert cost.step_reads == router + (cost.params - router) // 4
    assert make("Xa").cost(40).step_reads == 2 * WIDTH**2 + 2 * WIDTH * 40  # the cache of the A
    hyena = make("H").cost(40)
    assert hyena.step_reads == hyena.params + hyena.state + 40 * WIDTH  # the filters' table
    assert hyena.step_bytes() == 2 * hyena.step_reads


@pytest.mark.parametrize("case", CASES)
def test_it_trains_in_bf16_autocast_and_every_parameter_learns(case: str) -> None:
    primitive = make(case, torch.float32)
    x, kv = tokens(2, 33).float(), source_kv(primitive, 2, 33)
    kv = kv and kv._replace(keys=kv.keys.float(), values=kv.values.float())
    exact = run(primitive, x, kv)
    with torch.autocast("cpu", torch.bfloat16):
        y = run(primitive, x, kv)
    assert close(y.float(), exact, 0.1)
    (y.float() * torch.randn_like(y, dtype=torch.float32)).sum().backward()
    for name, parameter in primitive.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("A{head=5}", "width 32 is not a multiple of the head size 5"),
        ("A{kv=3}", "cannot share 3 KV heads"),
        ("W{window=0}", "option window of primitive W is positive, not 0"),
        ("W{sink=9}", "sink= from 0 to the window"),
        ("W{windw=3}", "no option 'windw': the nearest are 'window'"),
        ("La{head=5}", "La: width 32"),
        ("La{rank=2.5}", "option rank of primitive La"),
        ("M{act=tanh}", "act= is one of relu, gelu, swiglu"),
        ("E{topk=5}", "topk= is from 1 to the experts"),
        ("E{act=tanh}", "act= one of"),
        ("Mb{head=7}", "head= must divide the inner width"),
        ("Ms{state=0}", "option state of primitive Ms is positive"),
        ("Mb{groups=0}", "option groups of primitive Mb is positive"),
        ("A{head=0}", "option head of primitive A is positive"),
        ("R{key_ratio=0}", "option key_ratio of primitive R is positive"),
        ("G{key_ratio=0.01}", "the others are at least 1"),
        ("L{head=5}", "change head="),
        ("R{key_ratio=0.1}", "key_ratio * head be even"),
        ("D{gated=1}", "option gated of primitive D is of type bool, not 1"),
        ("D{conv=0}", "option conv of primitive D is positive"),
        ("H{order=1}", "order= is at least 2"),
    ],
)
def test_wrong_options_say_what_to_change(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        make(text)
    assert sentence in str(error.value)
    assert f"layer 1 ({text})" in str(error.value)


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_primitive_names_its_source(code: str) -> None:
    primitive = CATALOGUE[code]
    assert primitive.title and primitive.source and primitive.__doc__
    assert all(kind is not None for kind in primitive.options().values())
