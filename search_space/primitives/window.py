"""`W`: attention within a sliding window, and optionally to the first tokens (attention sinks).

Longformer, Beltagy et al. 2020 (2004.05150); StreamingLLM, Xiao et al. 2023 (2309.17453), except that
positions stay those of the text: StreamingLLM counts them within the cache, for models trained without.
"""

from __future__ import annotations

from torch import Tensor

from search_space.ops.attention import KV
from search_space.primitives.attention import Attention, joined


class WindowAttention(Attention):
    """Attention in which a token sees itself, the ``window`` - 1 before it and the first ``sink``."""

    code, title, source = "W", "sliding-window attention", "Longformer 2004.05150; 2309.17453"

    def __init__(
        self,
        d_model: int,
        *,
        window: int = 1024,
        sink: int = 0,
        head: int = 64,
        heads: int | None = None,
        kv: int | None = None,
        qk_norm: bool = False,
        rope_base: float = 10_000.0,
    ) -> None:
        """The heads as in `A`. Raises ValueError for a window under 1 or a sink beyond the window."""
        super().__init__(
            d_model, head=head, heads=heads, kv=kv, qk_norm=qk_norm, rope_base=rope_base
        )
        if window < 1 or not 0 <= sink <= window:
            raise ValueError(
                f"W: a window of {window} tokens and {sink} sinks: window= is at least 1, "
                "and sink= from 0 to the window"
            )
        self.window, self.sink = window, sink

    def init_state(self, batch: int) -> tuple[KV, int]:
        """The cache and the number of tokens so far, which the cache forgets."""
        return super().init_state(batch), 0

    def step_kv(
        self, x: Tensor, state: tuple[KV, int], kv: KV | None
    ) -> tuple[Tensor, tuple[KV, int], KV | None]:
        cache, position = state
        query, new = self._project(x[:, None], position)
        cache = self._trim(joined(cache, new))
        return self._attend_one(query, cache, position), (cache, position + 1), cache

    def _trim(self, cache: KV) -> KV:
        """Forget the token that has left the window: the first one after the sinks."""
        if cache.keys.shape[2] <= self.window + self.sink:
            return cache
        keys, values = (
            t[:, :, [*range(self.sink), *range(self.sink + 1, t.shape[2])]] for t in cache[:2]
        )
        return KV(keys, values)
