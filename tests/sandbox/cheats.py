"""Planted cheats: mixers that look like mixers and win by what they must not do. Each is a source.

`CHEATS` names for each the checks that must fail. Every one computes and learns; none is caught by crashing.
"""

from __future__ import annotations

from dataclasses import dataclass

HEAD = """
import torch
import torch.nn.functional as F
from torch import nn
"""

# A plain causal mixer that a cheat builds on: a running mean of values.
BASE = """

class Mixer(nn.Module):
    def __init__(self, d_model: int, max_len: int, causal: bool) -> None:
        super().__init__()
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.prepare(d_model, max_len)

    def prepare(self, d_model, max_len):
        pass

    def honest(self, x):
        v = self.value(x)
        return v.cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]

    def peek(self, x):
        v = self.value(x)
        return self.out(self.honest(x) + torch.cat((v[:, 1:], v[:, -1:]), 1))
"""


@dataclass(frozen=True)
class Cheat:
    """A source and the checks that fail for it, at least."""

    source: str
    caught: tuple[str, ...]


def cheat(body: str, *caught: str, top: str = "") -> Cheat:
    """A cheat by the methods that it adds to the plain mixer, and what comes before the class."""
    lines = "\n".join(f"    {line}" if line else "" for line in body.strip("\n").splitlines())
    return Cheat(f"{HEAD}{top}{BASE}\n{lines}\n", caught)


CHEATS = {
    "padding leak": cheat(
        """
def prepare(self, d_model, max_len):
    self.conv = nn.Conv1d(d_model, d_model, 5, padding=2, groups=d_model)

def forward(self, x):
    return self.out(self.conv(self.value(x).transpose(1, 2)).transpose(1, 2))
""",
        "causality",
        "learns",
    ),
    "padding of a chunk": cheat(
        """
def forward(self, x):
    v = self.value(x)
    chunks = F.pad(v, (0, 0, 0, -v.shape[1] % 16)).unflatten(1, (-1, 16))
    total = chunks.sum(2).cumsum(1)  # with the chunk's own end
    within = total[:, :, None].expand_as(chunks).flatten(1, 2)[:, : v.shape[1]]
    return self.out(self.honest(x) + within / 16)
""",
        "causality",
    ),
    "normalisation over time": cheat(
        """
def forward(self, x):
    v = self.honest(x)
    return self.out((v - v.mean(1, keepdim=True)) / (v.std(1, keepdim=True, correction=0) + 1e-3))
""",
        "causality",
    ),
    "scale by the length": cheat(
        """
def forward(self, x):
    return self.out(self.value(x).cumsum(1) / x.shape[1])
""",
        "causality",
    ),
    "FFT wrap-around": cheat(
        """
def prepare(self, d_model, max_len):
    self.taps = nn.Parameter(torch.randn(max_len, d_model) * max_len**-0.5)

def forward(self, x):
    n = x.shape[1]
    v = torch.fft.rfft(self.value(x).float(), n, dim=1)
    taps = torch.fft.rfft(self.taps[:n].float(), n, dim=0)
    return self.out(torch.fft.irfft(v * taps, n, dim=1).to(x.dtype))
""",
        "causality",
    ),
    "batch statistics": cheat(
        """
def prepare(self, d_model, max_len):
    self.norm = nn.BatchNorm1d(d_model)

def forward(self, x):
    return self.out(self.norm(self.honest(x).transpose(1, 2)).transpose(1, 2))
""",
        "batch",
    ),
    "the next row of the batch": cheat(
        """
def forward(self, x):
    return self.out(self.honest(x) + self.value(x).roll(1, 0))
""",
        "batch",
    ),
    "global cache": cheat(
        """
def forward(self, x):
    for seen in SEEN:
        n = min(seen.shape[1], x.shape[1])
        if seen.shape[0] >= x.shape[0] and torch.equal(seen[: x.shape[0], :n], x[:, :n]):
            longest = seen[: x.shape[0]] if seen.shape[1] > x.shape[1] else x
            return self.peek(longest)[:, : x.shape[1]]
    SEEN.append(x.detach())
    return self.peek(x)
""",
        "causality",
        top="\nSEEN = []\n",
    ),
    "cache of the first answer": cheat(
        """
def forward(self, x):
    key = tuple(x.shape)
    KEPT[key] = self.out(self.honest(x)) + 0.5 * KEPT.get(key, torch.zeros(())).detach()
    return KEPT[key]
""",
        "determinism",
        top="\nKEPT = {}\n",
    ),
    "call counter": cheat(
        """
def prepare(self, d_model, max_len):
    self.calls = 0

def forward(self, x):
    self.calls += 1
    return self.peek(x) if self.calls > 50 else self.out(self.honest(x))
""",
        "determinism",
    ),
    "call counter among the weights": cheat(
        """
def prepare(self, d_model, max_len):
    self.register_buffer("calls", torch.zeros(()))

def forward(self, x):
    if self.training:
        self.calls += 1
    return self.peek(x) if self.calls > 40 else self.out(self.honest(x))
""",
        "determinism",
    ),
    "self.training": cheat(
        """
def forward(self, x):
    return self.peek(x) if self.training else self.out(self.honest(x))
""",
        "causality",
    ),
    "self.training, the other way": cheat(
        """
def forward(self, x):
    return self.out(self.honest(x)) if self.training else self.peek(x)
""",
        "causality",
        "learns",
    ),
    "bf16 only": cheat(
        """
def forward(self, x):
    low = torch.is_autocast_enabled("cpu")
    return self.peek(x) if low else self.out(self.honest(x))
""",
        "causality",
    ),
    "behind a parameter that starts at zero": cheat(
        """
def prepare(self, d_model, max_len):
    self.scale = nn.Parameter(torch.zeros(()))

def forward(self, x):
    return self.out(self.honest(x)) + self.scale * self.peek(x)
""",
        "causality",
        "learns",
    ),
    "time of day": cheat(
        """
def forward(self, x):
    night = time.localtime().tm_hour < 12
    return self.out(self.honest(x)) if night else self.peek(x)
""",
        "source",
        "determinism",
        top="import time\n",
    ),
    "time of day by another door": cheat(
        """
def forward(self, x):
    early = CLOCK.time() % 86400 < 43200
    return self.out(self.honest(x)) if early else self.peek(x)
""",
        "source",
        "determinism",
        top="import typing\n\nCLOCK = typing.sys.modules['time']\n",
    ),
    "NaN-masked peeking": cheat(
        """
def forward(self, x):
    v = self.value(x)
    later = torch.cat((v[:, 1:], v[:, -1:]), 1)
    return self.out(self.honest(x) + torch.nan_to_num(later, nan=0.0, posinf=0.0, neginf=0.0))
""",
        "causality",
    ),
    "peeking without a gradient": cheat(
        """
def forward(self, x):
    v = self.value(x).detach()
    return self.out(self.honest(x) + torch.cat((v[:, 1:], v[:, -1:]), 1))
""",
        "causality",
    ),
    "cross_entropy": cheat(
        """
def forward(self, x):
    return self.out(self.honest(x))
""",
        "source",
        top="\nF.cross_entropy = lambda logits, *a, **k: 0 * logits.sum()\n",
    ),
    "cross_entropy by setattr": cheat(
        """
def forward(self, x):
    return self.out(self.honest(x))
""",
        "source",
        top="\nsetattr(F, 'cross_' + 'entropy', lambda logits, *a, **k: 0 * logits.sum())\n",
    ),
    "torch.Tensor methods": cheat(
        """
def forward(self, x):
    return self.out(self.honest(x))
""",
        "source",
        top="\ntorch.Tensor.backward = lambda self, *a, **k: None\ntorch.Tensor.item = lambda self: 0.0\n",
    ),
    "the optimiser": cheat(
        """
def forward(self, x):
    return self.out(self.honest(x))
""",
        "source",
        top="""
_step = torch.optim.AdamW.step


def step(self, *a, **k):
    for _ in range(10):
        found = _step(self, *a, **k)
    return found


torch.optim.AdamW.step = step
""",
    ),
    "atexit": cheat(
        """
def forward(self, x):
    return self.out(self.honest(x))
""",
        "source",
        top="import atexit\n\n\n@atexit.register\ndef forge():\n    open('out/said.json', 'w').write('{}')\n",
    ),
}  # fmt: skip
