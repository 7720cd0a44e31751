"""Built models: fusion, shared weights, keys and values across layers, decoding, training, cost."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tiny import TINY, close, elements
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from search_space.aira import training_flops
from search_space.model import Model, pattern_cost
from search_space.pattern import Pattern
from search_space.presets import PRESETS, preset
from search_space.primitives import CATALOGUE
from search_space.primitives.attention import Attention
from search_space.primitives.short_conv import ShortConv
from search_space.references import REFERENCES

VOCAB = 11
PATTERNS = [
    "A+M", "[A|Mb]+M", "[A|Mb]{fuse=sub}", "[A|Mb]{fuse=concat}", "[G|H{order=3}]+[W|D]",
    "3*(A+M)", "2(2*A+M)", "A+Xa+M+Xa", "3*(A+Xa)", "W{sink=2}+M+2Xa", "La+Xa+A{kv=2}+Xa",
    "A+[Mb|Ms]+Xa", "A+2*(Xa+M)", "2*(E+A)+E", "L+G+D+R+H+Ms",
]  # fmt: skip


def build(text: str, dtype: torch.dtype = torch.float32) -> Model:
    torch.manual_seed(0)
    return Model(Pattern.parse(text, CATALOGUE), TINY, VOCAB).to(dtype)


def ids(batch: int, length: int) -> torch.Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("text", PATTERNS)
def test_it_trains_one_step(text: str) -> None:
    model, tokens = build(text), ids(4, 33)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.roll(-1, 1).flatten())
        optimiser.zero_grad()
        (loss + 0.01 * model.balance_loss()).backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("text", PATTERNS)
def test_decoding_equals_the_forward_pass(text: str) -> None:
    model, tokens = build(text, torch.float64), ids(2, 21)
    with torch.no_grad():
        state, logits = model.init_state(2), []
        for token in tokens.unbind(1):
            y, state = model.step(token, state)
            logits.append(y)
        assert close(torch.stack(logits, 1), model(tokens), 1e-5)
    with torch.no_grad():
        one = model.init_state(1)
        for token in tokens[:1].unbind(1):
            _, one = model.step(token, one)
    cost = pattern_cost(Pattern.parse(text), TINY, 21)
    assert cost.state == elements(state) - elements(one)


@pytest.mark.parametrize("text", [p for p in PATTERNS if not set("HDG") & set(p) and "Ms" not in p])
def test_the_cost_of_a_pattern_is_the_models(text: str) -> None:
    model, cost = build(text).double(), pattern_cost(Pattern.parse(text), TINY, 48)  # all torch's
    outside = sum(p.numel() for part in (model.embedding, model.head) for p in part.parameters())
    assert cost.params == sum(p.numel() for p in model.parameters()) - outside
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.hidden(ids(1, 48))
    parts = (part for block in model._applied() for part in block.modules())
    shifted = sum(2 * p.weight.numel() for p in parts if isinstance(p, ShortConv))  # not products
    counted = counter.get_total_flops() / 48 + shifted
    assert cost.flops_per_token == pytest.approx(counted, rel=1e-9)


def test_shared_weights_cost_their_parameters_once() -> None:
    once, shared, copies = (
        pattern_cost(Pattern.parse(t), TINY) for t in ("A+M", "3*(A+M)", "3(A+M)")
    )
    assert once.params == shared.params < copies.params
    assert shared.flops_per_token == copies.flops_per_token == 3 * once.flops_per_token
    assert shared.state == copies.state == 3 * once.state
    assert shared.step_reads == copies.step_reads


def test_the_future_does_not_change_the_past() -> None:
    for text in PATTERNS:
        model, tokens = build(text, torch.float64).eval(), ids(2, 30)
        changed = torch.cat((tokens[:, :17], (tokens[:, 17:] + 1) % VOCAB), 1)
        with torch.no_grad():
            assert close(model(changed)[:, :17], model(tokens)[:, :17], 1e-12)


def test_cross_layer_attention_reads_the_nearest_attention_layer() -> None:
    """Of A+Xa with Xa's own query made A's, both layers attend alike: a W between them changes that."""
    model = build("A+W{window=2}+Xa", torch.float64)
    first, window, cross = (block.primitive for block in model._applied())
    x = torch.randn(1, 20, TINY.width, dtype=torch.float64)
    assert isinstance(window, Attention)
    cross.load_state_dict(
        {"query.weight": window.qkv.weight[: window.inner], "out.weight": window.out.weight}
    )
    y, kv = window.forward_kv(x, first.forward_kv(x, None)[1])
    again, passed = cross.forward_kv(x, kv)
    assert close(again, y, 1e-14)
    assert passed is kv


@pytest.mark.parametrize(
    ("text", "layer", "sentence"),
    [
        ("Xa+A", 1, "put A, W or La before it"),
        ("2M+Xa", 3, "put A, W or La before it"),
        ("[A|Mb]+Xa", 2, "a member of a fusion does not count"),
        ("A+[Xa|Mb]", 2, "a member of a fusion"),
        ("A+Xa{head=16}", 2, "give both the same head="),
        ("A{heads=3}+Xa", 2, "cannot read the 3 KV heads"),
        ("A+2*(Xa+W)", 4, "write the layers out"),
        ("A+[A|Mb|M]", 2, "change head="),
        ("[A|Mb]{fuse=mul}", 1, "fuse=add, sub or concat"),
        ("[A|Mb]{kv=2}", 1, "no option 'kv'"),
    ],
)
def test_what_cannot_be_built_says_why(text: str, layer: int, sentence: str) -> None:
    for attempt in (lambda: build(text), lambda: pattern_cost(Pattern.parse(text), TINY)):
        with pytest.raises(ValueError) as error:
            attempt()
        assert str(error.value).startswith(f"layer {layer} (")
        assert sentence in str(error.value)


def test_the_balance_loss_is_of_the_latest_training_pass() -> None:
    model, tokens = build("2E"), ids(2, 16)
    assert model.balance_loss() == 0
    model(tokens)
    loss = model.balance_loss()
    assert isinstance(loss, torch.Tensor)
    assert 1.9 < loss.item() < 4  # about 1 for each layer when the load is even
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.balance_loss() == 0
        assert torch.equal(again(tokens), model(tokens))
    model.eval()(tokens)
    assert model.balance_loss() == 0


def test_the_balance_loss_evens_the_load() -> None:
    model, tokens = build("E{topk=1}"), ids(8, 32)
    with torch.no_grad():  # every token to the first expert
        model.blocks[0].primitive.router.weight[1:] *= 0.01  # type: ignore[union-attr, operator, index]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        model(tokens)
        loss = model.balance_loss()
        assert isinstance(loss, torch.Tensor)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


# ------------------------------------------------------------------------------ presets, aira


@pytest.mark.parametrize("name", ["small", "mini"])
@pytest.mark.parametrize("code", CATALOGUE)
def test_layers_of_the_proxies_have_about_equal_parameters(name: str, code: str) -> None:
    size = preset(name)
    with_a, text = (2, "A+Xa") if code == "Xa" else (1, code)
    norms = size.width * (with_a + 1)
    layer = (
        pattern_cost(Pattern.parse(text), size).params - norms - (with_a - 1) * 4 * size.width**2
    )
    assert layer / size.width**2 == pytest.approx(2 if code == "Xa" else 4, rel=0.1)


@pytest.mark.parametrize(
    ("name", "text", "millions"),
    [
        ("350M", "14(A+M)", 350),
        ("1B", "16(A+M)", 1000),
        ("3B", "28(A+M)", 3000),
        ("350M-hybrid", "4(A+M+Mb+M)+A+M", 350),
        ("1B-hybrid", "7(A+M+Mb+M)+A+M", 1000),
        ("3B-hybrid", "10(A+M+Mb+M)", 3000),
    ],
)
def test_presets_at_scale_hold_what_their_name_says(name: str, text: str, millions: int) -> None:
    pattern, size = Pattern.parse(text), preset(name)
    assert len(pattern) == size.layers
    assert pattern_cost(pattern, size).params / 1e6 == pytest.approx(millions, rel=0.07)


@pytest.mark.parametrize("name", PRESETS)
def test_every_primitive_builds_at_every_preset(name: str) -> None:
    cost = pattern_cost(Pattern.parse("A+Xa+" + "+".join(CATALOGUE)), preset(name))
    assert min(cost.params, cost.flops_per_token, cost.state, cost.step_flops) > 0


@pytest.mark.parametrize("name", REFERENCES)
def test_references_build_at_small(name: str) -> None:
    assert pattern_cost(Pattern.parse(REFERENCES[name].pattern), preset("small")).params > 0


def test_aira_formulas_by_hand() -> None:
    size = preset("1B")  # d 2048, 8 KV heads of 64, SwiGLU of 8192, context 8192
    assert training_flops(Pattern.parse("A"), size) == (
        6 * (2 * 2048**2 + 2 * 2048 * 512) + 12 * 8192 * 2048
    )
    assert training_flops(Pattern.parse("2M"), size) == 2 * 18 * 2048 * 8192
    d_in, d_conv = 2 * 4096 + 2 * 128 + 64, 4096 + 2 * 128
    assert training_flops(Pattern.parse("Mb"), size) == 6 * (
        2048 * d_in + d_conv * 4 + 2 * 4096 * 128 + 4096 * 2048
    )
    # As three forward passes of our own count, but for attention's square and Mamba's chunks.
    assert training_flops(Pattern.parse("M"), preset("small")) == pytest.approx(
        3 * pattern_cost(Pattern.parse("M"), preset("small")).flops_per_token
    )


def test_aira_refuses_what_the_paper_does_not_count() -> None:
    for text in ("G", "W", "[A|Mb]"):
        with pytest.raises(ValueError, match="the formula set aira has A, M and Mb, not"):
            training_flops(Pattern.parse(text), preset("small"))
