"""Random honest mixers: sources from a small typed grammar, one for each number. None of them cheats.

A mixer is [short convolution] -> core -> [norm] -> [gate] -> projection. The cores are attention by
feature maps (decay, normaliser, window), softmax attention (window, positions), a long convolution by
FFT, a recurrence token by token with `step`, and a causal mean. The styles are those that models and
people write in: masks as buffers or cached, dropout, projections that start at zero, positions from a table.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

HEAD = '''"""A token mixer, number {number}."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn


@lru_cache(maxsize=8)
def causal(length: int) -> torch.Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


class Mixer(nn.Module):
    def __init__(self, d_model: int, max_len: int, causal: bool, **options) -> None:
        super().__init__()
        self.heads = {heads}
        self.size = d_model // {heads}
'''

FEATURES = {
    "elu": "F.elu({0}) + 1",
    "relu": "F.relu({0}) + 0.02",
    "softplus": "F.softplus({0})",
    "softmax": "{0}.softmax(-1)",
    "square": "{0} * {0} + 0.02",
    "exp": "{0}.clamp(-8, 8).exp()",
    "identity": "{0} * {0}.shape[-1] ** -0.5",
}
GATES = {"sigmoid": "torch.sigmoid({0})", "silu": "F.silu({0})", "tanh": "1 + torch.tanh({0})"}


@dataclass
class Lines:
    """The lines of the class while they are written."""

    init: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    name: list[str] = field(default_factory=list)  # what was chosen


def honest(number: int) -> str:
    """The source of the mixer with this number."""
    draw, lines = random.Random(number), Lines()
    heads = draw.choice((1, 2, 4))
    core = draw.choice((features, features, softmax, softmax, convolution, recurrence, mean))
    if core is not recurrence and draw.random() < 0.5:
        short_convolution(draw, lines)
    core(draw, lines)
    finish(draw, lines, plain=core is recurrence)
    text = HEAD.format(number=f"{number}: {', '.join(lines.name)}", heads=heads)
    init = "\n".join(f"        {line}" for line in lines.init)
    body = "\n".join(f"        {line}" for line in lines.body)
    return f"{text}{init}\n\n    def forward(self, x):\n{body}\n" + "".join(lines.methods)


def short_convolution(draw: random.Random, lines: Lines) -> None:
    kernel = draw.choice((2, 3, 4))
    lines.name.append(f"convolution {kernel}")
    lines.init.append(f"self.conv = nn.Conv1d(d_model, d_model, {kernel}, groups=d_model)")
    lines.body.append(f"x = self.conv(F.pad(x.transpose(1, 2), ({kernel - 1}, 0))).transpose(1, 2)")
    if draw.random() < 0.5:
        lines.body.append("x = F.silu(x)")


def projections(draw: random.Random, lines: Lines) -> None:
    """q, k, v (B, H, L, P), from one matrix or three."""
    bias = draw.random() < 0.3
    if draw.random() < 0.5:
        lines.init.append(f"self.qkv = nn.Linear(d_model, 3 * d_model, bias={bias})")
        lines.body.append("q, k, v = self.qkv(x).chunk(3, dim=-1)")
    else:
        for letter in "qkv":
            own = bias and letter != "k"  # beside a softmax a key's bias has no effect
            lines.init.append(f"self.{letter} = nn.Linear(d_model, d_model, bias={own})")
        lines.body.append("q, k, v = self.q(x), self.k(x), self.v(x)")
    lines.body.append(
        "q, k, v = (t.unflatten(-1, (self.heads, self.size)).transpose(1, 2) for t in (q, k, v))"
    )


def mask(draw: random.Random, lines: Lines) -> None:
    """``seen`` (L, L): causal, perhaps within a window; drawn up, buffered or cached."""
    lines.body.append("length = x.shape[1]")
    style = draw.choice(("tril", "cached", "buffer"))
    if style == "buffer":
        lines.init.append(
            "self.register_buffer('mask', torch.ones(max_len, max_len).tril().bool(), persistent=False)"
        )
    lines.body.append(
        {
            "tril": "seen = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()",
            "cached": "seen = causal(length)",
            "buffer": "seen = self.mask[:length, :length]",
        }[style]
    )
    if draw.random() < 0.3:
        window = draw.choice((4, 8, 16))
        lines.name.append(f"window {window}")
        lines.body.append(f"seen = seen & ~torch.ones_like(seen).tril(-{window})")


def features(draw: random.Random, lines: Lines) -> None:
    """Attention by feature maps: ((phi(q) phi(k)') * decay) v, perhaps over the sum of the weights."""
    projections(draw, lines)
    mask(draw, lines)
    feature = draw.choice(sorted(FEATURES))
    decay = draw.choice(("none", "fixed", "learned", "data"))
    lines.name += [f"features {feature}", f"decay {decay}"]
    lines.body.append(f"q, k = {FEATURES[feature].format('q')}, {FEATURES[feature].format('k')}")
    lines.body.append("scores = q @ k.transpose(-1, -2)")
    if decay == "data":
        lines.init.append("self.forget = nn.Linear(d_model, self.heads)")
        lines.body += [
            "total = F.logsigmoid(self.forget(x).float() + 2).cumsum(1).transpose(1, 2)",
            "gap = total[..., :, None] - total[..., None, :]",
            "scores = scores * gap.masked_fill(~seen, -math.inf).exp()",
        ]
    elif decay == "none":
        lines.body.append("scores = scores.masked_fill(~seen, 0.0)")
    else:
        rate = "torch.linspace(-3, -1, self.heads).exp()"
        if decay == "learned":
            lines.init.append(f"self.rate = nn.Parameter({rate}.log())")
            rate = "self.rate.exp()"
        lines.body += [
            "position = torch.arange(length, dtype=torch.float32)",
            "gap = (position[:, None] - position).clamp_min(0)",
            f"decay = (-{rate}[:, None, None] * gap).exp()",
            "scores = (scores * decay).masked_fill(~seen, 0.0)",
        ]
    if feature != "identity" and draw.random() < 0.6:
        lines.name.append("normalised")
        lines.body.append("scores = scores / (scores.sum(-1, keepdim=True) + 1e-4)")
    lines.body.append("y = (scores.to(v.dtype) @ v).transpose(1, 2).flatten(2)")


def softmax(draw: random.Random, lines: Lines) -> None:
    """Softmax attention, with positions from a table, by a slope or none; perhaps with dropout."""
    position = draw.choice(("none", "table", "slope"))
    if position == "table":
        lines.init.append("self.positions = nn.Parameter(0.1 * torch.randn(max_len, d_model))")
        lines.body.append("x = x + self.positions[: x.shape[1]]")
    projections(draw, lines)
    mask(draw, lines)
    lines.name += ["softmax", f"positions {position}"]
    lines.body.append("scores = q @ k.transpose(-1, -2) * self.size**-0.5")
    if position == "slope":
        lines.init.append("self.slope = nn.Parameter(torch.ones(self.heads, 1, 1) / 4)")
        lines.body += [
            "place = torch.arange(length, dtype=torch.float32)",
            "scores = scores - self.slope * (place[:, None] - place).clamp_min(0)",
        ]
    lines.body.append("weights = scores.masked_fill(~seen, -math.inf).softmax(-1).to(v.dtype)")
    if draw.random() < 0.2:
        lines.name.append("dropout")
        lines.init.append("self.drop = nn.Dropout(0.1)")
        lines.body.append("weights = self.drop(weights)")
    lines.body.append("y = (weights @ v).transpose(1, 2).flatten(2)")


def convolution(draw: random.Random, lines: Lines) -> None:
    """A long convolution by FFT, padded to twice the length; its filter a table or a sum of decays."""
    lines.name.append("long convolution")
    lines.init.append("self.value = nn.Linear(d_model, d_model)")
    if draw.random() < 0.5:
        lines.init.append(
            "self.filter = nn.Parameter(torch.randn(max_len, d_model) * max_len**-0.5)"
        )
        lines.body.append("taps = self.filter[: x.shape[1]]")
    else:
        lines.init += [
            "self.rates = nn.Parameter(torch.linspace(-4, 0, d_model))",
            "self.size_of = nn.Parameter(torch.randn(d_model))",
        ]
        lines.body += [
            "t = torch.arange(x.shape[1], dtype=torch.float32)[:, None]",
            "taps = self.size_of * (-t * self.rates.exp()).exp()",
        ]
    lines.body += [
        "n = 2 * x.shape[1]",
        "v = self.value(x).float()",
        "spectrum = torch.fft.rfft(v, n, dim=1) * torch.fft.rfft(taps.float(), n, dim=0)",
        "y = torch.fft.irfft(spectrum, n, dim=1)[:, : x.shape[1]].to(x.dtype)",
    ]


STEP = """
    def init_state(self, batch):
        return self.value.weight.new_zeros(batch, self.value.out_features)

    def step(self, x, state):
        state = self.update(x, state)
        return self.read(x, state), state

    def state_bytes(self, length):
        return 4 * self.value.out_features

    def update(self, x, state):
        {update}

    def read(self, x, state):
        return self.out({read})
"""


def recurrence(draw: random.Random, lines: Lines) -> None:
    """h_t = a_t h_{t-1} + (1 - a_t) v_t, token by token, with a fixed or gated a; offers `step`."""
    gated = draw.random() < 0.5
    lines.name.append("gated recurrence" if gated else "recurrence")
    lines.init.append("self.value = nn.Linear(d_model, d_model)")
    lines.init.append(
        "self.keep = nn.Linear(d_model, d_model)"
        if gated
        else "self.keep = nn.Parameter(torch.linspace(-1, 3, d_model))"
    )
    a = "torch.sigmoid(self.keep(x))" if gated else "torch.sigmoid(self.keep)"
    update = f"a = {a}\n        return a * state + (1 - a) * self.value(x)"
    read = "state"
    if draw.random() < 0.5:
        lines.init.append("self.gate = nn.Linear(d_model, d_model)")
        read = "F.silu(self.gate(x)) * state"
    lines.methods.append(STEP.format(update=update, read=read))
    lines.body += [
        "state, outputs = self.init_state(x.shape[0]), []",
        "for token in x.unbind(1):",
        "    state = self.update(token, state)",
        "    outputs.append(self.read(token, state))",
        "return torch.stack(outputs, 1)",
    ]


def mean(draw: random.Random, lines: Lines) -> None:
    """The mean of all values so far, or their maximum, beside the token itself."""
    kind = draw.choice(("mean", "maximum", "logsumexp"))
    lines.name.append(kind)
    lines.init.append("self.value = nn.Linear(d_model, d_model)")
    lines.body += [
        "v = self.value(x)",
        {
            "mean": "y = v.float().cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]",
            "maximum": "y = v.cummax(1).values",
            "logsumexp": "y = v.float().logcumsumexp(1)",
        }[kind],
        "y = (y - v).to(x.dtype)",
    ]


def finish(draw: random.Random, lines: Lines, plain: bool) -> None:
    """Norm, gate and projection."""
    bias = draw.random() < 0.3
    lines.init.append(f"self.out = nn.Linear(d_model, d_model, bias={bias})")
    if draw.random() < 0.2:
        lines.name.append("starts at zero")
        lines.init.append("nn.init.zeros_(self.out.weight)")
    if plain:
        return
    if draw.random() < 0.4:
        kind = draw.choice(("LayerNorm", "RMSNorm"))
        lines.name.append(kind)
        lines.init.append(f"self.norm = nn.{kind}(d_model)")
        lines.body.append("y = self.norm(y)")
    if draw.random() < 0.5:
        gate = draw.choice(sorted(GATES))
        lines.name.append(f"gate {gate}")
        lines.init.append("self.gate = nn.Linear(d_model, d_model)")
        lines.body.append(f"y = {GATES[gate].format('self.gate(x)')} * y")
    lines.body.append("return self.out(y.to(self.out.weight.dtype))")
