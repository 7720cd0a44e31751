"""`H`: the Hyena operator, long convolutions with implicit filters: Poli et al. 2023 (2302.10866).

A filter's value at distance t is a small network's output at features of t, under a window that decays
with t. Unlike the authors' code, both are functions of t in tokens and not of t / L, so a filter does
not depend on the length of the sequence, and decoding equals the forward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_space.ops.chunks import Impl
from search_space.ops.convolution import convolution_flops, long_convolution
from search_space.primitives.base import Cost, Recurrent
from search_space.primitives.short_conv import ShortConv

BANDS = 8  # of the filters' positional features, a sine and a cosine each
State = tuple[Tensor, Tensor, Tensor]  # short convolution; past inputs of the long ones; filters


class Hyena(Recurrent):
    """z <- x_i (h_i * z + b_i z) for order - 1 gates x_i, between two projections."""

    code, title, source = "H", "Hyena", "2302.10866"

    def __init__(
        self, d_model: int, *, order: int = 2, conv: int = 3, filter: int = 16, span: int = 512
    ) -> None:
        """``order`` as the authors' code counts it: order + 1 projections and order - 1 long
        convolutions. ``filter`` units of the filters' network; ``span``: tokens in which the slowest
        channel's window falls to 1/e. Raises ValueError for an order under 2 or a size under 1."""
        super().__init__()
        if order < 2 or min(conv, filter, span) < 1:
            raise ValueError(
                f"H: order={order}, conv={conv}, filter={filter} and span={span}: order= is at least 2, "
                "the others at least 1"
            )
        self.long = (order - 1) * d_model  # channels of all long convolutions
        self.in_proj = nn.Linear(d_model, (order + 1) * d_model, bias=False)
        self.conv = ShortConv((order + 1) * d_model, conv)
        self.filter = nn.Sequential(
            nn.Linear(2 * BANDS, filter), Sine(), nn.Linear(filter, filter), Sine(),
            nn.Linear(filter, self.long, bias=False),
        )  # fmt: skip
        self.bias = nn.Parameter(torch.ones(self.long))
        self.span = span
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def init_state(self, batch: int) -> State:
        zeros = self.out_proj.weight.new_zeros
        return self.conv.init_state(batch), zeros(batch, 0, self.long), zeros(0, self.long)

    def mix(self, x: Tensor, state: State | None, impl: Impl) -> tuple[Tensor, State]:
        past, seen, filters = state or self.init_state(x.shape[0])
        length, d = x.shape[1:]
        gates, past = self.conv.mix(self.in_proj(x), past)
        z, *xs = gates.split(d, dim=-1)
        new = torch.arange(seen.shape[1], seen.shape[1] + length, device=x.device)
        filters = torch.cat((filters, self.filters(new)))
        inputs = []
        z = xs.pop(0) * z
        for i, gate in enumerate(xs):
            one = slice(i * d, (i + 1) * d)
            inputs.append(torch.cat((seen[..., one], z), 1))
            y = long_convolution(inputs[-1], filters[:, one], length, impl)
            z = gate * (y + self.bias[one] * z)
        return self.out_proj(z), (past, torch.cat(inputs, -1), filters)

    def filters(self, t: Tensor) -> Tensor:
        """The filters at distances t (T), (T, channels): windows of unit energy, from 4 tokens to span."""
        t = t.to(self.bias.dtype)[:, None]
        band = torch.arange(BANDS, device=t.device, dtype=t.dtype) / BANDS
        angle = t * 10_000.0**-band
        decay = torch.linspace(0, 1, self.long, device=t.device, dtype=t.dtype)
        tokens = 4.0 * (self.span / 4.0) ** decay
        window = (-t / tokens).exp() * (2 / tokens).sqrt()
        return self.filter(torch.cat((angle.sin(), angle.cos()), -1)) * window

    def cost(self, length: int) -> Cost:
        d, network = (
            self.out_proj.out_features,
            [m for m in self.filter if isinstance(m, nn.Linear)],
        )
        weights = d * (self.in_proj.out_features + d)
        filter_weights = sum(m.in_features * m.out_features for m in network)
        units = network[0].out_features
        own = weights + self.conv.params + self.long
        state, table = self.conv.state + self.long * length, self.long * length
        outside = 2 * weights + self.conv.flops + 2 * filter_weights
        return Cost(
            params=own + filter_weights + 2 * units,
            flops_per_token=outside + self.long * convolution_flops(length) / length,
            state=state,
            step_flops=outside + 2 * self.long * length,
            step_reads=own + filter_weights + 2 * units + state + table,
        )


class Sine(nn.Module):
    """sin(x), the activation of the filters' network (SIREN, 2006.09661)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sin()
