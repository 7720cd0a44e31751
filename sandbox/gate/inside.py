"""Runs beside the candidate, in the sandbox: builds the mixer, does the calls, writes the raw outputs.

Judges nothing: the candidate can change what happens in this process, so what it says is compared outside
with what other processes say. Reads a pickle, which the supervisor wrote; writes safetensors and JSON.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from sandbox.contract import FILE, Decodes, construct, load, told
from sandbox.gate.errands import Build, Call, Errand, Said
from sandbox.gate.work import counted
from sandbox.tampering import Watch

ERRAND, OUTPUTS, SAID = "errand.pkl", "outputs.safetensors", "said.json"
MOVED = 0.1  # of a parameter's own size, and at least .1 of .5: what "moved" weights move by

Found = tuple[dict[str, Tensor], Any]  # tensors by name, facts for JSON


def run(folder: Path) -> None:
    """The task of one process: `in/errand.pkl` and `in/mixer.py` to `out/`."""
    errand: Errand = pickle.loads((folder / "in" / ERRAND).read_bytes())
    outputs, said = answer(errand, folder / "in" / FILE)
    (folder / "out" / OUTPUTS).write_bytes(save(outputs))
    (folder / "out" / SAID).write_text(json.dumps(asdict(said)))


def answer(errand: Errand, path: Path) -> tuple[dict[str, Tensor], Said]:
    """Do an errand for the candidate at ``path``. Errors of its code are answers too."""
    torch.set_num_threads(1)
    shift(errand.build.clock)
    watch = Watch() if errand.build.watch else None
    outputs: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    errors: dict[str, str] = {}
    try:
        mixer = built(path, errand.build)
    except Exception as error:  # noqa: BLE001 - the border: any error of written code is its answer
        return {}, Said(error=told(error))
    for call in errand.calls:
        try:
            tensors, facts[call.name] = perform(mixer, call, errand.inputs)
        except Exception as error:  # noqa: BLE001 - the same border
            errors[call.name] = told(error)
        else:
            outputs |= {f"{call.name}{key}": plain(value) for key, value in tensors.items()}
    return outputs, Said(facts, errors, tuple(watch.changed()) if watch else ())


def plain(value: Tensor) -> Tensor:
    """A tensor as it crosses the border: float32, whole, on the CPU."""
    return value.detach().to("cpu", torch.float32).contiguous().clone()


def shift(seconds: float) -> None:
    """Move this process's clock, as Python tells it."""
    if seconds:
        real = {name: getattr(time, name) for name in ("time", "localtime", "gmtime", "time_ns")}
        time.time = lambda: real["time"]() + seconds
        time.time_ns = lambda: real["time_ns"]() + int(seconds * 1e9)
        for name in ("localtime", "gmtime"):
            original = real[name]
            setattr(time, name, lambda s=None, f=original: f(time.time() if s is None else s))


def built(path: Path, build: Build) -> nn.Module:
    """The mixer with its weights. Raises Broken, and whatever the candidate's code raises."""
    mixer = construct(load(path), build.width, build.max_len, build.seed)
    with torch.no_grad():
        if build.weights == "moved":
            move(mixer)
        elif build.weights == "pattern":
            patterned(mixer, build.width)
    return mixer


def move(mixer: nn.Module) -> None:
    """Add seeded noise to every parameter: a tenth of its root mean square, or of .5 if that is more."""
    generator = torch.Generator().manual_seed(11)
    for parameter in mixer.parameters():
        size = parameter.square().mean().sqrt().clamp_min(0.5)
        parameter.add_(MOVED * size * torch.randn(parameter.shape, generator=generator))


def patterned(mixer: nn.Module, width: int) -> None:
    """Set every parameter to its pattern. Call it without gradients."""
    for parameter in mixer.parameters():
        parameter.copy_(pattern(parameter, width))


def pattern(parameter: Tensor, width: int) -> Tensor:
    """Numbers that depend on the shape alone, repeating every ``width`` rows: what fuses projections
    into one matrix, or names and orders them otherwise, gets the same."""
    rows = parameter.shape[0] if parameter.dim() else 1
    columns = max(1, parameter.numel() // max(1, rows))
    i = torch.arange(rows, dtype=torch.float64)[:, None] % width
    j = torch.arange(columns, dtype=torch.float64)[None]
    wave = torch.sin(12.9898 * (i + 1) + 78.233 * (j + 1) + 0.37 * (i + 1) * (j + 1))
    return (wave * math.sqrt(2 / columns)).reshape(parameter.shape).to(parameter.dtype)


def perform(mixer: nn.Module, call: Call, inputs: dict[str, Tensor]) -> Found:
    """One call, in its mode and type, with torch's generator at the same place each time."""
    mixer.train(call.training)
    torch.manual_seed(0)
    x = inputs[call.x].clone() if call.x in inputs else torch.empty(0)
    with torch.set_grad_enabled(call.training), torch.autocast("cpu", torch.bfloat16, call.bf16):
        return HOW[call.how](mixer, x, call)


def forward(mixer: nn.Module, x: Tensor, call: Call) -> Found:
    y = mixer(x)
    return {"": y}, str(y.dtype)


def repeat(mixer: nn.Module, x: Tensor, call: Call) -> Found:
    """The last of so many calls with one input."""
    for _ in range(call.more[0]):
        torch.manual_seed(0)
        y = mixer(x)
    return {"": y}, None


def gradient(mixer: nn.Module, x: Tensor, call: Call) -> Found:
    """|dy_t / dx| for each asked position t: (positions, B, L), the largest over the width."""
    x.requires_grad_()
    with torch.enable_grad():
        y = mixer(x).float()
        weights = torch.linspace(-1, 1, y.shape[-1])
        grads = [
            torch.autograd.grad((y[:, t] * weights).sum(), x, retain_graph=True)[0]
            for t in call.more
        ]
    return {"": torch.stack(grads).abs().amax(-1)}, None


def backward(mixer: nn.Module, x: Tensor, call: Call) -> Found:
    """The output, the input's gradient, and the largest gradient of each parameter, -1 without one."""
    x.requires_grad_()
    mixer.zero_grad(set_to_none=True)
    y = mixer(x)
    weights = torch.linspace(-1, 1, y.numel()).view_as(y).cos()
    (y.float() * weights).sum().backward()
    names = [name for name, p in mixer.named_parameters() if p.requires_grad]
    sizes = [
        p.grad.abs().max() if p.grad is not None else torch.tensor(-1.0)
        for p in mixer.parameters()
        if p.requires_grad
    ]
    assert x.grad is not None
    return {"": y, ".x": x.grad, ".p": torch.stack(sizes) if sizes else torch.empty(0)}, names


def step(mixer: nn.Module, x: Tensor, call: Call) -> Found:
    """Decoding over x (B, L, D), and the bytes of the state after it, for the whole batch."""
    if not hasattr(mixer, "step"):
        return {}, None
    decoder = cast(Decodes, mixer)
    state, outputs = decoder.init_state(x.shape[0]), []
    for token in x.unbind(1):
        y, state = decoder.step(token, state)
        outputs.append(y)
    declared = None
    with suppress(AttributeError):
        declared = int(decoder.state_bytes(x.shape[1]))
    return {"": torch.stack(outputs, 1)}, {"bytes": held(state), "declared": declared}


def held(state: Any) -> int:
    """Bytes of all tensors of a state."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(held(part) for part in state.values())
    return sum(held(part) for part in state) if isinstance(state, tuple | list) else 0


def work(mixer: nn.Module, x: Tensor, call: Call) -> Found:
    return {}, asdict(counted(mixer, x))


def weights(mixer: nn.Module, x: Tensor, call: Call) -> Found:
    """Every tensor of the state that a checkpoint keeps."""
    return {f".{name}": value for name, value in mixer.state_dict().items()}, None


HOW: dict[str, Callable[[nn.Module, Tensor, Call], Found]] = {
    "forward": forward,
    "repeat": repeat,
    "gradient": gradient,
    "backward": backward,
    "step": step,
    "work": work,
    "weights": weights,
}
