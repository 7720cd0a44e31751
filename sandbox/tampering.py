"""Sees whether a candidate's code changed the process around it: torch, the trainer, the clock.

Looks from inside that same process, so code that knows of it can deceive it: a courtesy to honest mistakes
and a net for plain cheats. What a score rests on is decided outside (`sandbox.scoring`).
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Iterator
from types import FunctionType, ModuleType

import torch
from torch.nn.modules import module as modules
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

OURS = ("evaluator", "search_space", "sandbox")
WATCHED = (
    "builtins", "json", "math", "pickle", "random", "time", "safetensors", "torch", "torch._tensor",
    "torch.autograd", "torch.fft", "torch.functional", "torch.linalg", "torch.nn", "torch.optim",
    "torch.random", "torch.serialization", "torch.special", *OURS,
)  # fmt: skip
DEEP = ("safetensors", "torch.autograd", "torch.nn", "torch.optim", *OURS)  # with all below them


class Watch:
    """What the watched modules hold at one time; `changed` names what is another object by now."""

    def __init__(self) -> None:
        self._before = dict(_objects())
        self._numbers = _numbers()

    def changed(self) -> list[str]:
        """The dotted names of what was replaced, removed, or added to a class, in order."""
        now, numbers = dict(_objects()), _numbers()
        replaced = [n for n, v in self._before.items() if now.get(n) is not v]
        added = [
            n for n in now.keys() - self._before.keys() if n.rpartition(".")[0] in self._before
        ]
        return replaced + sorted(added) + [n for n, v in self._numbers.items() if numbers[n] != v]


def _objects() -> Iterator[tuple[str, object]]:
    """Every function, class and method of the watched modules."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and _watched(name):
            for key, value in list(vars(module).items()):
                if callable(value):
                    yield f"{name}.{key}", value
                if isinstance(value, type) and value.__module__ == name:
                    yield from _methods(f"{name}.{key}", value)
    yield from _methods("torch.Tensor", torch.Tensor)
    yield from _methods("torch.TensorBase", torch._C.TensorBase)


def _methods(name: str, kind: type) -> Iterator[tuple[str, object]]:
    for key, value in list(vars(kind).items()):
        if callable(value) or isinstance(value, property | staticmethod | classmethod):
            yield f"{name}.{key}", value
        if isinstance(value, FunctionType):
            yield f"{name}.{key}.__code__", value.__code__


def _watched(name: str) -> bool:
    return name in WATCHED or any(name.startswith(f"{top}.") for top in DEEP)


def _numbers() -> dict[str, object]:
    """Global settings and registries, by what should be said of a change."""
    return {
        "handlers at exit": atexit._ncallbacks(),
        "threads": threading.active_count(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's number of threads": torch.get_num_threads(),
        "hooks on every module": len(modules._global_forward_hooks)
        + len(modules._global_forward_pre_hooks)
        + len(modules._global_backward_hooks),
        "hooks on every optimiser": len(_global_optimizer_pre_hooks)
        + len(_global_optimizer_post_hooks),
    }
