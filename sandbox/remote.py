"""A mixer in a process of its own, within a model of the trainer's: hidden states out, hidden states back.

The trainer's side is `Remote`, which holds the weights; the candidate's is `serve`, which runs the mixers.
What the candidate says there are a mixer's own affairs: its outputs, its gradients (which an autograd
function of its own may define) and its first weights. It sees no token, label or loss, and a step moves its
weights as far as the optimiser does. Neither side trains: `sandbox.training` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from evaluator.outcome import CandidateFailure, FailureKind
from evaluator.train import autocast
from sandbox.apart import Apart, Ask, Facts, Gone, Reply
from sandbox.contract import Broken, short
from search_space.model import Model

X, Y, CALL, PLACE = (
    "/x",
    "/y",
    "/call",
    "/place",
)  # beside the names of weights, which have no slash


# ------------------------------------------------------------------------------- the trainer's side


class Remote(nn.Module):
    """A mixer whose passes are computed elsewhere. Its trained weights are parameters here, the rest of its
    state is as it began: nothing of a training is kept in buffers."""

    def __init__(self, d_model: int, max_len: int, causal: bool) -> None:
        super().__init__()
        self.held = nn.ParameterList()

    def connect(self, other: Apart, place: int, state: Mapping[str, Tensor], trained: Any) -> None:
        """Take over the initial state of the mixer of block ``place``; ``trained`` names its parameters."""
        self.other, self.place, self.state = other, place, dict(state)
        floats = [name for name, value in state.items() if value.is_floating_point()]
        named = trained if isinstance(trained, list) else []
        self.names = [name for name in floats if f"{place}/{name}" in named]
        self.held.extend(nn.Parameter(state[name]) for name in self.names)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Pass.apply(self, x, *self.held)
        return y

    def ahead(self, x: Tensor) -> tuple[Tensor, int]:
        """The output for x (B, L, D), and a number for the way back. Raises CandidateFailure and Gone."""
        weights = zip(self.names, self.held, strict=True)
        facts, found = self._ask({X: x, PLACE: torch.tensor(self.place), **dict(weights)})
        y, call = found.get(Y), facts.get("call")
        if y is None or y.shape != x.shape or not y.is_floating_point() or type(call) is not int:
            got = "none" if y is None else f"{y.dtype} {tuple(y.shape)}"
            raise CandidateFailure(
                FailureKind.INVALID, f"an output of a mixer for {tuple(x.shape)} is {got}"
            )
        return y, call

    def back(self, call: int, dy: Tensor, x: Tensor) -> list[Tensor | None]:
        """The gradients of x and of the weights. Raises CandidateFailure and Gone."""
        _, found = self._ask({Y: dy, CALL: torch.tensor(call)})
        wanted = dict(zip((X, *self.names), (x, *self.held), strict=True))
        for name, gradient in found.items():
            if name not in wanted or gradient.shape != wanted[name].shape:
                raise Gone(f"a gradient of {short(name)} is of another shape")
        return [found[n].to(w.dtype) if n in found else None for n, w in wanted.items()]

    def _ask(self, question: Mapping[str, Tensor]) -> tuple[Facts, dict[str, Tensor]]:
        facts, found = self.other.ask(question)
        refuse(facts)
        return facts, found


class _Pass(torch.autograd.Function):
    """One pass of a mixer, there and back."""

    @staticmethod
    def forward(ctx: Any, remote: Remote, x: Tensor, *weights: Tensor) -> Tensor:
        y, ctx.call = remote.ahead(x)
        ctx.remote, ctx.x = remote, x.detach()
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.remote.back(ctx.call, dy, ctx.x)


def connect(model: Model, other: Apart) -> None:
    """Connect the mixers of a model with those of the candidate's. Raises CandidateFailure and Gone."""
    facts, state = other.answer()
    refuse(facts)
    for place, remote in _mixers(model).items():
        own = {n.partition("/")[2]: v for n, v in state.items() if n.startswith(f"{place}/")}
        remote.connect(other, place, own, facts.get("trained"))


def checkpoint(model: Model) -> dict[str, Tensor]:
    """All that a checkpoint keeps, under the names of a model with its mixers in place."""
    remotes = {name: m for name, m in model.named_modules() if isinstance(m, Remote)}
    around = {
        name: value
        for name, value in state_of(model).items()
        if not name.startswith(tuple(f"{place}." for place in remotes))
    }
    for place, remote in remotes.items():
        moved = dict(zip(remote.names, remote.held, strict=True))
        around |= {f"{place}.{name}": value for name, value in {**remote.state, **moved}.items()}
    return {name: value.detach().clone() for name, value in around.items()}


def refuse(said: Mapping[str, Any]) -> None:
    """Raise CandidateFailure for what a process says went wrong."""
    if said.get("tampered"):
        raise CandidateFailure(FailureKind.TAMPERED, f"training changed {short(said['tampered'])}")
    if "failure" in said:
        kind = str(said["failure"])
        known = kind in list(FailureKind)
        raise CandidateFailure(
            FailureKind(kind) if known else FailureKind.CRASH, short(said.get("detail"))
        )


# ----------------------------------------------------------------------------- the candidate's side


def serve(model: Model, dtype: str, ask: Ask, reply: Reply) -> None:
    """Give the mixers' initial state, then answer for them until there are no more questions.

    Raises Broken, and whatever the candidate's code raises.
    """
    mixers = _mixers(model.train())
    states = {f"{p}/{n}": v for p, mixer in mixers.items() for n, v in state_of(mixer).items()}
    trained = [name for name, value in states.items() if value.requires_grad]
    reply({"trained": trained}, states)
    passes: dict[int, tuple[Tensor, dict[str, Tensor]]] = {}
    number = 0
    while (question := ask()) is not None:
        if X in question:
            mixer = mixers[int(question.pop(PLACE))]
            number += 1
            passes[number] = ahead(mixer, question, dtype)
            reply({"call": number}, {Y: passes[number][0]})
        else:
            reply({}, back(*passes.pop(int(question[CALL])), question[Y]))


def ahead(
    mixer: nn.Module, question: dict[str, Tensor], dtype: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and what it is to be derived by. Raises Broken."""
    x = question.pop(X).requires_grad_()
    parameters = {name: p for name, p in mixer.named_parameters() if name in question}
    if parameters.keys() != question.keys():
        raise Broken(f"its weights are not those that it had: {min(question.keys() ^ parameters)}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if not torch.equal(
                parameter, question[name]
            ):  # a layer applied again needs it untouched
                parameter.copy_(question[name])
    with autocast(dtype, x.device):
        y = mixer(x)
    if not isinstance(y, Tensor):
        raise Broken(f"forward gives a {type(y).__name__}, not a tensor")
    return y, {X: x, **parameters}


def back(y: Tensor, inputs: Mapping[str, Tensor], dy: Tensor) -> dict[str, Tensor]:
    """The gradients that there are, by name."""
    if not y.requires_grad:
        return {}
    found = torch.autograd.grad(y, list(inputs.values()), dy.to(y.dtype), allow_unused=True)
    return {n: gradient for n, gradient in zip(inputs, found, strict=True) if gradient is not None}


# ------------------------------------------------------------------------------------------- both


def _mixers(model: Model) -> dict[int, Any]:
    """The mixers of a model, by the number of their block."""
    parts = [getattr(block, "primitive", None) for block in model.blocks]
    mixers = [getattr(part, "mixer", None) for part in parts]
    return {place: mixer for place, mixer in enumerate(mixers) if mixer is not None}


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that a checkpoint keeps, each under one name."""
    kept = model.state_dict(keep_vars=True)
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: value for name, value in named if name in kept}


@torch.no_grad()
def put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Set a model's state. Raises Broken where the names or shapes are others."""
    state = state_of(model)
    odd = state.keys() ^ weights.keys()
    odd |= {n for n in state.keys() & weights.keys() if state[n].shape != weights[n].shape}
    if odd:
        raise Broken(f"its weights are not those that it had: {short(min(odd))}")
    for name, value in state.items():
        value.copy_(weights[name])
