"""What a module candidate is (`RULES`), and how its file becomes a module. Loading happens in the sandbox
only. Nothing here judges a candidate; `sandbox.gate` does.
"""

from __future__ import annotations

import importlib.util
import traceback
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from sandbox.results import printable
from search_space.primitives import Primitive

FILE, CLASS, CODE = "mixer.py", "Mixer", "X"
LONGEST = 300  # characters of an error that are passed on
# As authors are told it, be they people or models.
RULES = """One file, `mixer.py`, with

    class Mixer(nn.Module):
        def __init__(self, d_model: int, max_len: int, causal: bool, **options): ...
        def forward(self, x): ...           # (B, L, D) -> (B, L, D) for L from 1 to max_len
        # Optional, for decoding token by token; the first two together:
        def init_state(self, batch): ...    # the state before the first token
        def step(self, x, state): ...       # x (B, D) and the state to y (B, D) and the next state
        def state_bytes(self, length): ...  # what one sequence keeps after so many tokens

d_model is a multiple of 16. A mixer is a function of its weights and its input: nothing stays between
calls, no row sees another row, with `causal` no position sees a later one, and randomness in training
comes from torch's generator. It is called with unit-size inputs, in fp32 or under bf16 autocast."""


class Decodes(Protocol):
    """What a mixer offers that decodes."""

    def init_state(self, batch: int) -> Any: ...

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]: ...

    def state_bytes(self, length: int) -> int: ...


class Broken(Exception):
    """The candidate's own fault, in one sentence."""


def load(path: Path) -> type[nn.Module]:
    """The class `Mixer` of a file. Raises Broken, and whatever the file's own code raises."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise Broken(f"{path.name} is no Python file: write {FILE}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kind = getattr(module, CLASS, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise Broken(f"{path.name} has no class {CLASS}(nn.Module): add it")
    return kind


def construct(
    kind: type[nn.Module], d_model: int, max_len: int, seed: int, causal: bool = True
) -> nn.Module:
    """A new mixer whose initial weights come from the seed."""
    torch.manual_seed(seed)
    return kind(d_model=d_model, max_len=max_len, causal=causal)


def written(kind: type[nn.Module], max_len: int, name: str = CODE) -> type[Primitive]:
    """The primitive of a mixer's class, for patterns such as `2(X+M)`. It states no cost."""

    class Written(Primitive):
        code, title, source = name, "written mixer", FILE

        def __init__(self, d_model: int) -> None:
            super().__init__()
            self.mixer = kind(d_model=d_model, max_len=max_len, causal=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.mixer(x)

        def init_state(self, batch: int) -> Any:
            return cast(Decodes, self.mixer).init_state(batch)

        def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
            return cast(Decodes, self.mixer).step(x, state)

    return Written


def short(said: object) -> str:
    """Whatever a candidate said, in one line without control characters, cut where it is long."""
    text = " ".join(printable(str(said)).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def told(error: BaseException) -> str:
    """An error of the candidate's code in one line: its type, its text, and the lines of its own file."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [str(frame.lineno) for frame in frames if Path(frame.filename).name == FILE]
    place = f" ({FILE} line {', '.join(lines)})" if lines else ""
    text = short(error)
    return (text if isinstance(error, Broken) else f"{type(error).__name__}: {text}") + place
