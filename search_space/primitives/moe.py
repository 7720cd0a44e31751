"""`E`: a mixture-of-experts MLP with top-k token-choice routing and a load-balance loss.

Shazeer et al. 2017 (1701.06538); the loss as in Switch Transformers, Fedus et al. 2021 (2101.03961, eq. 4).
No capacity limit: no token is dropped, so a token's output depends on itself alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_space.primitives.base import Cost, Primitive
from search_space.primitives.mlp import ACTIVATIONS


class MixtureOfExperts(Primitive):
    """The sum of the ``topk`` experts the router likes best, weighted by its probabilities.

    ``balance_loss`` is the load-balance loss of the latest forward pass in training, 1 when the load is
    even, else None; a trainer adds it with a weight (the paper's is .01). `Model.balance_loss` sums it.
    """

    code, title, source = "E", "mixture-of-experts MLP", "1701.06538, 2101.03961"

    balance_loss: Tensor | None = None

    def __init__(
        self,
        d_model: int,
        *,
        experts: int = 8,
        topk: int = 2,
        ratio: float = 4.0,
        hidden: int | None = None,
        act: str = "relu",
    ) -> None:
        """``hidden`` units per expert, by default round(ratio * d_model). Raises ValueError on an
        unknown ``act`` or a ``topk`` beyond the experts."""
        super().__init__()
        if act not in ACTIVATIONS or not 1 <= topk <= experts:
            raise ValueError(
                f"E: topk={topk} of {experts} experts with act={act!r}: topk= is from 1 to the experts, "
                f"act= one of {', '.join(ACTIVATIONS)}"
            )
        hidden = hidden or round(ratio * d_model)
        self.experts, self.topk, self.act = experts, topk, act
        self.router = nn.Linear(d_model, experts, bias=False)
        wide = hidden * (2 if act == "swiglu" else 1)
        self.up = nn.Parameter(torch.empty(experts, d_model, wide))
        self.down = nn.Parameter(torch.empty(experts, hidden, d_model))
        for weight in (self.up, self.down):  # as nn.Linear starts: uniform up to 1 / sqrt(inputs)
            nn.init.uniform_(weight, -(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, -2)  # (T, D)
        probability = self.router(tokens).float().softmax(-1)
        weight, chosen = probability.topk(self.topk, dim=-1)
        if self.topk > 1:  # of one expert the weight itself must stay, or the router learns nothing
            weight = weight / weight.sum(-1, keepdim=True)
        load = torch.bincount(chosen.flatten(), minlength=self.experts)
        learning = self.training and torch.is_grad_enabled()
        self.balance_loss = self._balance(probability, load) if learning else None
        y = self._experts(tokens, chosen, load)
        return (weight[..., None].to(y.dtype) * y).sum(1).view_as(x)

    def _balance(self, probability: Tensor, load: Tensor) -> Tensor:
        """E times the sum over experts of (share of the load) x (mean probability)."""
        share = load / load.sum()
        return self.experts * (share * probability.mean(0)).sum()

    def _experts(self, tokens: Tensor, chosen: Tensor, load: Tensor) -> Tensor:
        """The chosen experts' outputs, (T, topk, D): tokens sorted by expert, one product for each."""
        order = chosen.flatten().argsort(stable=True)
        parts = tokens[order // self.topk].split(load.tolist())
        outputs = [
            self._expert(part, up, down)
            for part, up, down in zip(parts, self.up, self.down, strict=True)
        ]
        return torch.cat(outputs)[order.argsort()].unflatten(0, (-1, self.topk))

    def _expert(self, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        h = x @ up
        if self.act == "swiglu":
            gate, h = h.chunk(2, dim=-1)
            return (F.silu(gate) * h) @ down
        return ACTIVATIONS[self.act](h) @ down

    def init_state(self, batch: int) -> None:
        return None

    def step(self, x: Tensor, state: None) -> tuple[Tensor, None]:
        return self(x), None

    def __getstate__(self) -> dict[str, Any]:
        """Without the loss: a tensor inside a graph can be neither copied nor pickled."""
        return {k: v for k, v in self.__dict__.items() if k != "balance_loss"}

    def cost(self, length: int) -> Cost:
        router = self.router.weight.numel()
        weights = self.up.numel() + self.down.numel()
        used = router + weights // self.experts * self.topk
        return Cost(router + weights, 2 * used, 0, 2 * used, used)
