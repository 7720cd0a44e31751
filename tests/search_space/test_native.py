"""Our kernels against torch's operators in double precision, gradients included, and how they are made."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import CASES, make
from torch import Tensor
from torch.nn import functional as F

from search_space.native import attention, build, convolution, library
from search_space.ops.attention import KV, causal_attention
from search_space.ops.linear import gla, linear_attention
from search_space.ops.rotary import rotated
from search_space.primitives.norm import EPSILON, Norm
from search_space.primitives.short_conv import ShortConv

LENGTHS = (1, 2, 15, 16, 17, 63, 64, 65, 130)
WITHIN = {torch.float32: 2e-6, torch.bfloat16: 8e-3}  # of the whole; bf16 has eight bits
Way = Callable[..., Tensor]


def results(way: Way, leaves: list[Tensor]) -> list[Tensor]:
    """The output and the gradients of a sum of it whose weights are all different."""
    y = way(*leaves)
    weights = torch.arange(y.numel(), dtype=torch.float64).view(y.shape).cos().to(y.dtype)
    return [y, *torch.autograd.grad((y * weights).sum(), leaves)]


def same(ours: list[Tensor], theirs: list[Tensor], within: float) -> None:
    """Within a part of the largest of them: some gradients are only the rounding of others."""
    largest = max(torch.linalg.vector_norm(t).item() for t in theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert torch.linalg.vector_norm(a - b) <= within * largest


def checked(way: Way, exact: Way, leaves: list[Tensor]) -> None:
    """A way in the type of the leaves against an exact one in double precision, from the same numbers."""
    double = [t.detach().double().requires_grad_() for t in leaves]
    same(results(way, leaves), results(exact, double), WITHIN[leaves[0].dtype])


def heads(count: int, length: int, size: int, dtype: torch.dtype) -> Tensor:
    """Heads (2, count, length, size) as a projection has them: those of a token side by side, amid others."""
    return (
        torch.randn(2, length, 3, count, size).to(dtype)[:, :, 1].transpose(1, 2).requires_grad_()
    )


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    ("size", "kv", "window", "sink"),
    [
        (4, 4, 0, 0),
        (8, 2, 0, 0),
        (16, 1, 0, 0),
        (8, 4, 1, 0),
        (8, 2, 5, 2),
        (4, 4, 33, 20),
        (8, 4, 70, 70),
    ],
)
def test_attention(
    size: int, kv: int, window: int, sink: int, length: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    leaves = [heads(count, length, size, dtype) for count in (4, kv, kv)]
    assert attention.applies(*leaves)

    def way(impl: str) -> Way:
        return lambda q, k, v: causal_attention(q, KV(k, v, window, sink), impl)  # type: ignore[arg-type]

    checked(way("chunk"), way("naive"), leaves)


@pytest.mark.usefixtures("instructions")
def test_attention_bears_scores_that_overflow_an_exponential() -> None:
    torch.manual_seed(0)
    leaves = [(40 * torch.randn(2, 4, 33, 8)).requires_grad_() for _ in range(3)]
    ours = results(lambda q, k, v: causal_attention(q, KV(k, v)), leaves)
    assert all(t.isfinite().all() for t in ours)
    double = [t.detach().double().requires_grad_() for t in leaves]
    exact = results(lambda q, k, v: causal_attention(q, KV(k, v), "naive"), double)
    same(ours[:1], exact[:1], 1e-4)  # a score of 2,000 has four digits after the point


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("what", ["query", "key", "value"])
def test_attention_keeps_what_is_not_a_number_from_earlier_queries(what: str) -> None:
    tensors = {name: torch.randn(1, 2, 40, 8) for name in ("query", "key", "value")}
    tensors[what][:, :, 32:] = torch.nan
    y = causal_attention(tensors["query"], KV(tensors["key"], tensors["value"]))
    assert torch.equal(y.isnan().any(-1), tensors[what].isnan().any(-1))


@pytest.mark.usefixtures("instructions")
def test_a_norm_keeps_what_is_not_a_number_in_its_row() -> None:
    x = torch.randn(9, 7)
    x[3, 2], x[5, 6] = torch.nan, torch.inf
    leaves = [x.requires_grad_()]
    y, dx = results(Norm(7), leaves)
    for t in (y, dx):
        assert t.isnan().any(-1).tolist() == [row in (3, 5) for row in range(9)]


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("width", [1, 7, 16, 64, 160])
def test_norm(width: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = (torch.randn(3, 5, width) * torch.tensor([1e-3, 1.0, 50.0])[:, None, None]).to(dtype)
    norm = Norm(width)
    torch.nn.init.normal_(norm.weight)
    leaves = [x.requires_grad_(), norm.weight]
    checked(lambda x, _: norm(x), lambda x, w: F.rms_norm(x, (width,), w, EPSILON), leaves)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize(("head", "start"), [(2, 0), (8, 3), (16, 0)])
def test_rotated(head: int, start: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    projection = torch.randn(2, 19, 5 * head).to(dtype)[..., head : 4 * head].requires_grad_()
    checked(*2 * [lambda x: rotated(x, head, 100.0, start)], [projection])


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("length", [1, 3, 4, 33])
@pytest.mark.parametrize(("kernel", "bias"), [(1, True), (4, True), (4, False), (7, True)])
def test_the_short_convolution(kernel: int, bias: bool, length: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    conv = ShortConv(21, kernel, bias=bias)
    x = torch.randn(3, length, 60).to(dtype)[..., 20:41].requires_grad_()
    exact = copy.deepcopy(conv).double()
    double = x.detach().double().requires_grad_()
    ours = results(lambda x, *_: conv.mix(x, None)[0], [x, *conv.parameters()])
    same(
        ours,
        results(lambda x, *_: exact.mix(x, None)[0], [double, *exact.parameters()]),
        WITHIN[dtype],
    )


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("case", CASES)
def test_every_primitive_is_the_same_with_kernels_and_without(case: str) -> None:
    def ran() -> list[Tensor]:
        torch.manual_seed(0)
        primitive, x = make(case, torch.float32), torch.randn(2, 37, 32, requires_grad=True)
        kv = KV(*torch.randn(2, 2, 4, 37, 8)) if case == "Xa" else None
        y, _ = primitive.forward_kv(x, kv)
        return [y, *torch.autograd.grad(y.square().sum(), [x, *primitive.parameters()])]

    with_kernels, again = ran(), ran()
    assert all(map(torch.equal, with_kernels, again))
    with library.torch_only():
        same(with_kernels, ran(), 2e-5)


def misfits() -> dict[str, Callable[[], object]]:
    """Calls whose shapes do not fit each other."""
    q, k, x = torch.randn(2, 4, 9, 8), torch.randn(2, 2, 9, 8), torch.randn(2, 9, 4, 8)

    def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return causal_attention(q, KV(k, v))

    return {
        "a norm of another width": lambda: Norm(8)(torch.randn(2, 4096)),
        "a convolution of other channels": lambda: ShortConv(8, 4).mix(
            torch.randn(2, 9, 4096), None
        ),
        "a convolution's bias of other channels": lambda: convolution.convolution(
            torch.randn(2, 9, 8), torch.randn(3, 8), torch.randn(5)
        ),
        "more keys than values": lambda: attended(q, k, k[:, :, :5]),
        "fewer keys than queries": lambda: attended(q, k[:, :, :5], k[:, :, :5]),
        "another batch": lambda: attended(q, k.repeat(3, 1, 1, 1), k.repeat(3, 1, 1, 1)),
        "three heads for four": lambda: attended(q, *2 * [torch.randn(2, 3, 9, 8)]),
        "keys of another size": lambda: attended(q, *2 * [torch.randn(2, 4, 9, 4)]),
        "channels that make no heads": lambda: rotated(torch.randn(2, 9, 20), 8, 100.0),
        "a scan of other keys": lambda: linear_attention(x[..., :4], x, x),
        "a scan of another state": lambda: linear_attention(x, x, x, torch.randn(2, 3, 8, 8)),
        "decays of other channels": lambda: gla(x, x, x, -torch.rand(2, 9, 4, 3)),
    }


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("what", misfits())
def test_shapes_that_do_not_fit_never_reach_a_kernel(what: str) -> None:
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        misfits()[what]()


@pytest.mark.usefixtures("instructions")
def test_weights_need_not_be_contiguous_and_windows_may_be_endless() -> None:
    norm, conv = Norm(8), ShortConv(8, 3)
    norm.weight = torch.nn.Parameter(torch.randn(16)[::2])
    conv.weight = torch.nn.Parameter(torch.randn(8, 3).t())
    conv.bias = torch.nn.Parameter(torch.randn(16)[::2])
    x, q = torch.randn(2, 9, 8), torch.randn(2, 4, 40, 8)

    def ran() -> list[Tensor]:
        seen = [causal_attention(q, KV(q, q, window, 1)) for window in (1 << 31, 1 << 40)]
        sinks = causal_attention(q, KV(q, q, 3, 1 << 31))
        return [norm(x), conv.mix(x, None)[0], *seen, sinks]

    ours = ran()
    with library.torch_only():
        same(ours, ran(), 2e-6)


@pytest.mark.usefixtures("instructions")
def test_outputs_may_be_changed_in_place() -> None:
    """But for attention's, which its gradient needs, as with torch's fused kernel."""
    x = torch.randn(2, 9, 32, requires_grad=True)
    v = x.unflatten(-1, (4, 8))
    for y in (rotated(x, 8, 100.0), linear_attention(v, v, v)[0]):
        y.mul_(2).sum().backward()


@pytest.mark.usefixtures("instructions")
def test_nobody_reaches_a_kernel_where_they_are_left_out() -> None:
    q = torch.randn(1, 2, 9, 8)
    with library.torch_only(), pytest.raises(RuntimeError, match="left out here"):
        attention.attention(q, q, q, 0, 0)


def test_other_types_and_large_heads_are_torchs() -> None:
    for head, dtype in ((8, torch.float64), (64, torch.float32), (8, torch.float16)):
        t = torch.zeros(1, 1, 2, head, dtype=dtype)
        assert not attention.applies(t, t, t)
    meta = torch.zeros(1, 1, 2, 8, device="meta")
    assert not attention.applies(meta, meta, meta)
    a, b = torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 2, 8, dtype=torch.bfloat16)
    assert not attention.applies(a, b, b)


@pytest.mark.usefixtures("instructions")
def test_a_kernel_that_finds_no_memory_says_so() -> None:
    t, endless = torch.zeros(1, 1, 1, 8), 1 << 45
    with pytest.raises(MemoryError, match="cannot allocate memory"):
        library.call("attention_forward", (1, 1, 1, endless, 8, endless, 0), t, t, t, t, t[0, 0, 0])


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_the_installation_made_them() -> None:
    instructions = torch.backends.cpu.get_cpu_capability()
    assert instructions not in build.SETS or library.kernels() is not None


def test_without_a_compiler_nothing_is_made_and_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    stale = build.library("AVX2")
    stale.touch()
    assert build.build() == []
    assert "no C++ compiler" in capsys.readouterr().err
    for compiler in (f"{sys.executable} -I", "/nowhere/g++"):
        monkeypatch.setenv("CXX", compiler)
        assert build.build() == []
        assert "none for AVX512" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_kernels_of_another_source_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(build, "HERE", tmp_path)
    names = set()
    for source in ("int one();", "int two();"):
        (tmp_path / "a.cpp").write_text(source)
        names.add(build.library("AVX2"))
    monkeypatch.setattr(build, "OPTIONS", ("-O0",))
    assert len(names | {build.library("AVX2")}) == 3


def test_they_are_not_used_where_torch_does_not_use_such_instructions() -> None:
    code = "from search_space.native.library import kernels; print(kernels())"
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "None"
