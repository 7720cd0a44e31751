"""Finds the compiled kernels and calls them; knows no kernel. Without them torch's operators do the work."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor

from search_space.native.build import SETS, library

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
NO_MEMORY = 1
_ours = ContextVar("_ours", default=True)  # see `torch_only`


class _Rows(ctypes.Structure):
    """`Tensor` of the kernels: data, and the strides of batch, head and time."""

    _fields_ = [(name, ctypes.c_int64) for name in ("data", "batch", "head", "time")]


@cache
def kernels() -> ctypes.CDLL | None:
    """The kernels for the instruction set that torch uses here; None where they were not compiled."""
    instructions = torch.backends.cpu.get_cpu_capability()
    if instructions not in SETS:
        return None
    try:
        return ctypes.CDLL(str(library(instructions)))
    except OSError:
        return None


@contextmanager
def torch_only() -> Iterator[None]:
    """No kernels of ours meanwhile, for whoever counts torch's operators or compares with them."""
    token = _ours.set(False)
    try:
        yield
    finally:
        _ours.reset(token)


def takes(*tensors: Tensor) -> bool:
    """Whether there are kernels for these tensors: on the CPU, of one type, which is fp32 or bf16."""
    first = tensors[0].dtype
    same = all(t.device.type == "cpu" and t.dtype is first for t in tensors)
    return same and first in NAMES and _ours.get() and kernels() is not None


def rows(t: Tensor) -> Tensor:
    """``t`` with channels, its last dimension, side by side; copied only where they are not."""
    return t if t.stride(-1) == 1 else t.contiguous()


def heads_of(t: Tensor, shape: Sequence[int]) -> Tensor:
    """Memory for heads (B, H, L, P), those of a token side by side as in a projection, in the type of t."""
    _, heads, length, size = shape
    return t.new_empty_strided(tuple(shape), (length * heads * size, size, heads * size, 1))


def like(t: Tensor) -> Tensor:
    """Memory for as many heads (B, H, L, P), in that order."""
    return heads_of(t, t.shape)


def call(name: str, sizes: Sequence[int], *tensors: Tensor) -> None:
    """Run a kernel. Tensors of four dimensions are passed with their strides, others must be contiguous.

    Who calls knows that the shapes fit. Raises MemoryError as torch's allocator would, and RuntimeError
    within `torch_only`, where nobody should come here.
    """
    if not _ours.get():
        raise RuntimeError(
            f"{name}: our kernels are left out here; call the operator of search_space.ops"
        )
    function = getattr(kernels(), f"{name}_{NAMES[tensors[0].dtype]}")
    status = function((ctypes.c_int64 * len(sizes))(*sizes), *map(_argument, tensors))
    if status == NO_MEMORY:
        raise MemoryError(f"{name}: cannot allocate memory")
    if status:
        raise RuntimeError(f"{name}: no kernel for sizes {tuple(sizes)}")


def _argument(t: Tensor) -> Any:
    if t.dim() != 4:
        return ctypes.c_void_p(t.data_ptr())
    return _Rows(t.data_ptr(), *t.stride()[:3])
