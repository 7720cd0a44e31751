"""`Xa`: attention that reads the keys and values of the nearest earlier attention layer.

Cross-layer attention, Brandon et al. 2024 (2405.12981); YOCO, Sun et al. 2024 (2405.05254). It keeps no
cache of its own and has no key and value projections, so it has half the parameters of `A`.
"""

from __future__ import annotations

from torch import Tensor, nn

from search_space.ops.attention import KV
from search_space.primitives.attention import AttentionLayer
from search_space.primitives.base import Cost, Primitive
from search_space.primitives.norm import Norm


class CrossLayerAttention(AttentionLayer):
    """softmax(QK'/sqrt(P) + mask) V with its own Q and the K, V and mask of `A`, `W` or `La` before it."""

    code, title, source = "Xa", "cross-layer attention", "CLA 2405.12981; YOCO 2405.05254"

    def __init__(
        self,
        d_model: int,
        *,
        head: int = 64,
        heads: int | None = None,
        qk_norm: bool = False,
        rope_base: float = 10_000.0,
    ) -> None:
        """The heads as in `A`; the KV heads are those of the layer it reads. ``qk_norm`` norms the
        queries alone. Raises ValueError as `A` does."""
        super().__init__(d_model, head, heads, None, qk_norm, rope_base)
        self.query = nn.Linear(d_model, self.inner, bias=False)
        self.attached = False

    def attach(self, source: Primitive | None) -> Primitive | None:
        if not isinstance(source, AttentionLayer):
            raise ValueError(
                "Xa reads the keys and values of an earlier attention layer and there is none: put A, W "
                "or La before it (a member of a fusion does not count)"
            )
        if source.head != self.head or self.heads % source.kv:
            raise ValueError(
                f"Xa has {self.heads} heads of size {self.head} and cannot read the {source.kv} KV heads "
                f"of size {source.head} of the {source.code} before it: give both the same head="
            )
        seen = (source.kv, source.window, source.sink)
        if self.attached and seen != (self.kv, self.window, self.sink):
            raise ValueError(
                "Xa shares its weights with an earlier layer that reads other KV heads or another window: "
                "write the layers out instead of repeating them with '*'"
            )
        self.attached, (self.kv, self.window, self.sink) = True, seen
        return source

    def forward(self, x: Tensor, kv: KV | None = None) -> Tensor:
        return self.forward_kv(x, kv)[0]

    def forward_kv(self, x: Tensor, kv: KV | None) -> tuple[Tensor, KV | None]:
        return self._attend(self.query(x), _given(kv)), kv

    def init_state(self, batch: int) -> int:
        """The number of tokens so far."""
        return 0

    def step_kv(self, x: Tensor, state: int, kv: KV | None) -> tuple[Tensor, int, KV | None]:
        return self._attend_one(self.query(x[:, None]), _given(kv), state), state + 1, kv

    def cost(self, length: int) -> Cost:
        seen = min(length, self.window + self.sink) if self.window else length
        weights = 2 * self.out.out_features * self.heads * self.head
        norms = self.head if isinstance(self.q_norm, Norm) else 0
        read = Cost(0, 0, 0, 0, 2 * self.kv * self.head * seen)  # another layer's cache
        return self._cost(length, weights, norms, 0, seen) + read


def _given(kv: KV | None) -> KV:
    if kv is None:
        raise ValueError("Xa is called with the keys and values that it reads: forward(x, kv)")
    return kv
