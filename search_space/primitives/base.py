"""What every primitive shares: the signature of its forward pass and the statement of its own cost.

Holds no primitive itself; each has a file of its own beside this one.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from search_space.ops.attention import KV
from search_space.ops.chunks import Impl
from search_space.pattern import Options, nearest


@dataclass(frozen=True)
class Cost:
    """What one primitive (or a whole model) costs at context length L.

    FLOPs are two per multiply-add of the contractions (matrix products, convolutions, the state's
    update and read-out of a recurrence) and those of an FFT; other element-wise work is not counted.
    ``flops_per_token`` is the forward pass over one sequence of L tokens divided by L, without causal
    halving, as `torch.utils.flop_counter` counts it where it does. ``state`` counts the elements that
    decoding keeps per sequence (KV cache and recurrent state together) after L tokens; ``step_flops``
    and ``step_reads`` are one sequence's decoding step to token L: FLOPs, and elements read, which are
    the weights that the step uses, once per application, and the state.
    """

    params: int
    flops_per_token: float
    state: int
    step_flops: float
    step_reads: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.params + other.params,
            self.flops_per_token + other.flops_per_token,
            self.state + other.state,
            self.step_flops + other.step_flops,
            self.step_reads + other.step_reads,
        )

    def state_bytes(self, itemsize: int = 2) -> int:
        """Bytes of decoding state per sequence, by default in a two-byte type (bf16)."""
        return self.state * itemsize

    def step_bytes(self, itemsize: int = 2) -> int:
        """Bytes read per decoding step of one sequence, by default in a two-byte type (bf16)."""
        return self.step_reads * itemsize


class Primitive(nn.Module):
    """A causal map of a sequence, ``forward(x: (B, L, D)) -> (B, L, D)``, that states its own cost.

    Options are the keyword-only arguments of ``__init__``; their annotations are their types.
    """

    code: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]

    def cost(self, length: int) -> Cost:
        """The cost by formula; a test compares it with the built module."""
        raise NotImplementedError

    def init_state(self, batch: int) -> Any:
        """The state before the first token, for `step`."""
        raise NotImplementedError

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One decoding step: x (B, D) and the state to y (B, D) and the next state."""
        raise NotImplementedError

    def attach(self, source: Primitive | None) -> Primitive | None:
        """Take note of the layer whose keys and values come by, and say whose do from here on.

        The builder calls it once per application, in order. Raises ValueError from a primitive that
        cannot read them.
        """
        return source

    def forward_kv(self, x: Tensor, kv: KV | None) -> tuple[Tensor, KV | None]:
        """`forward` that also hands the nearest attention layer's keys and values down the layers."""
        return self(x), kv

    def step_kv(self, x: Tensor, state: Any, kv: KV | None) -> tuple[Tensor, Any, KV | None]:
        """`step` that also hands the nearest attention layer's cache down the layers."""
        y, state = self.step(x, state)
        return y, state, kv

    @classmethod
    def options(cls) -> dict[str, type]:
        """The options this primitive takes in a pattern, with their types."""
        return {name: p.annotation for name, p in cls._keywords().items()}

    @classmethod
    def _keywords(cls) -> dict[str, inspect.Parameter]:
        signature = inspect.signature(cls.__init__, eval_str=True)
        return {
            p.name: p
            for p in signature.parameters.values()
            if p.kind is inspect.Parameter.KEYWORD_ONLY
        }

    @classmethod
    def check_options(cls, options: Options) -> None:
        """Raise ValueError when ``options`` names an unknown option, or has a value of a wrong type or a
        number that is neither positive nor the default."""
        known = cls._keywords()
        for key, value in options:
            if not known:
                raise ValueError(
                    f"primitive {cls.code} takes no options, not {key!r}: leave it out"
                )
            if key not in known:
                raise ValueError(
                    f"primitive {cls.code} has no option {key!r}: the nearest are {nearest(key, known)}"
                )
            kind, default = known[key].annotation, known[key].default
            if not _fits(value, kind):
                raise ValueError(
                    f"option {key} of primitive {cls.code} is of type {_name(kind)}, "
                    f"not {value!r}: change the value"
                )
            if _is_number(value) and value != default and float(value) <= 0:
                raise ValueError(
                    f"option {key} of primitive {cls.code} is positive, not {value!r}: change the value"
                )


class Recurrent(Primitive):
    """A primitive whose `mix` serves for training, for prefilling and for decoding."""

    def mix(self, x: Tensor, state: Any, impl: Impl) -> tuple[Tensor, Any]:
        """x (B, L, D) and the state before it, None at the start, to y (B, L, D) and the state after."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, None, "chunk")[0]

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.mix(x[:, None], state, "naive")  # for one token the recurrence is cheapest
        return y[:, 0], state


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fits(value: object, kind: Any) -> bool:
    kinds = getattr(kind, "__args__", (kind,))
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (isinstance(value, int) and float in kinds)


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))
