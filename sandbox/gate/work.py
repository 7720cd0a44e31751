"""Counts what a forward pass costs: operations of every kind, and memory that training would keep.

Sees torch's operators below Python, so a loop or an element-wise square counts as a matrix product does.
What is computed outside torch it does not see; so our kernels, which a mixer may reach, are off meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from search_space.native.library import torch_only

FFT = ("_fft_r2c", "_fft_c2r", "_fft_c2c")
FREE = ("view", "_unsafe_view", "expand", "transpose", "permute", "slice", "select", "unsqueeze",
        "squeeze", "split", "split_with_sizes", "unbind", "alias", "detach", "t", "as_strided",
        "_reshape_alias", "unfold")  # fmt: skip


@dataclass(frozen=True)
class Work:
    """``flops`` of contractions and FFTs, ``elements`` read and written by all else, ``saved`` bytes that
    the backward pass keeps."""

    flops: int
    elements: int
    saved: int


def counted(mixer: nn.Module, x: Tensor) -> Work:
    """The work of one forward pass in training mode. Raises whatever the mixer raises."""
    mixer.train()
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch_only(),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        Counter() as counter,
    ):
        y = mixer(x.requires_grad_())
    del y
    return Work(counter.flops, counter.elements, sum(storages.values()))


class Counter(TorchDispatchMode):
    """Adds up what each operator costs."""

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.elements = 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name, formula = func.__name__.partition(".")[0], _formula(func)
        if formula is not None:
            self.flops += int(formula(*args, **(kwargs or {}), out_val=result))
        elif name in FFT:
            self.flops += _fft(args, result)
        elif name not in FREE:
            self.elements += sum(_elements(value) for value in (args, result))
        return result


def _formula(func: Any) -> Callable[..., Any] | None:
    return flop_registry.get(func._overloadpacket)


def _elements(values: Any) -> int:
    return sum(leaf.numel() for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _fft(args: Any, result: Tensor) -> int:
    """2.5 n log2 n real operations per transform of n points, as the catalogue counts them."""
    larger = max(args[0].numel(), result.numel())
    points = math.prod(max(args[0].shape[d], result.shape[d]) for d in args[1])
    return int(2.5 * larger * math.log2(max(2, points)))
