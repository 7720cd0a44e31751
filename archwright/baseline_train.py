"""The `train.py` that script campaigns start from: a small causal transformer on bytes, for one CPU core.

Its knobs are the constants at its head, one a line. What a script must have is in `sandbox.script`.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

LEARNING_RATE = 4e-3  # the highest
WARM_UP = 0.05  # share of the time in which it rises
DECAY = 0.6  # share of the time, at the end, in which it falls
WEIGHT_DECAY = 0.05
BETA_2 = 0.98
CLIP = 1.0  # the gradient's norm, at most
BATCH = 8  # windows a step
WINDOW = 128  # bytes in each
DEPTH = 2  # blocks
HEADS = 3
HALF_HEAD = 16  # half the width of a head
EXPANSION = 3  # of the width, in the middle of a feed-forward layer
DROPOUT = 0.0


class Block(nn.Module):
    """Attention, then a feed-forward layer, each on normalised inputs and added to them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        inner = EXPANSION * width
        self.feed = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.mix(self.norms[0](x)).unflatten(-1, (3 * HEADS, 2 * HALF_HEAD)).transpose(1, 2)
        q, k, v = parts.chunk(3, dim=1)
        heads = scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
        x = x + self.drop(self.out(heads.transpose(1, 2).flatten(2)))
        return x + self.drop(self.feed(self.norms[1](x)))


class Net(nn.Module):
    """Token ids (B, L) to logits (B, L, 256)."""

    def __init__(self) -> None:
        super().__init__()
        width = 2 * HEADS * HALF_HEAD
        self.token = nn.Embedding(256, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(DEPTH)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.token(tokens))))


def turned(x: Tensor) -> Tensor:
    """Rotary positions (arXiv 2104.09864) on (B, H, L, D), D even."""
    half = x.shape[-1] // 2
    rates = 10_000 ** (-torch.arange(half) / half)
    angles = torch.arange(x.shape[-2]).unsqueeze(1) * rates
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


def build(length: int) -> nn.Module:
    """A new model of texts of up to so many bytes."""
    return Net()


def train(model: nn.Module, text: Tensor, seconds: float) -> None:
    """AdamW on random windows until the time is over."""
    start, spent = time.perf_counter(), 0.0
    optimiser = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, (0.9, BETA_2), weight_decay=WEIGHT_DECAY
    )
    reach = torch.arange(WINDOW + 1)
    while spent < 1:
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * scale(spent)
        starts = torch.randint(len(text) - WINDOW, (BATCH, 1))
        windows = text[starts + reach].long()
        logits = model(windows[:, :-1])
        loss = cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        spent = (time.perf_counter() - start) / seconds


def scale(spent: float) -> float:
    """The learning rate's share of the highest after that share of the time."""
    falling = max(0.0, (spent - 1 + DECAY) / DECAY) if DECAY else 0.0
    return min(1.0, spent / WARM_UP if WARM_UP else 1.0) * (1 + math.cos(math.pi * falling)) / 2
