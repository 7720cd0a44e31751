"""The gate: honest modules pass, planted cheats are caught by the check that is named, nothing crashes it.

`python tests/sandbox/false_alarms.py` is the long form of the honest part: 200 modules.
"""

from __future__ import annotations

import ast
import math

import pytest
import torch
from cheats import BASE, CHEATS, HEAD
from honest import honest
from wrapped import wrapped

from sandbox.gate import CHECKS, Budget, Certificate, Known, Terms, certify
from sandbox.gate.copies import angle, catalogue, structure
from sandbox.gate.cost import growth
from sandbox.gate.source import complaints
from sandbox.gate.work import counted
from sandbox.run import Sandbox
from search_space.primitives import CATALOGUE

HONEST = (23, 7, 8)  # a long convolution, another after a short one, attention that starts at zero


def others(code: str) -> tuple[Known, ...]:
    """The catalogue without a primitive, and without what equals it on a short probe."""
    same = {"A", "W", "Xa"} if code in ("A", "Xa") else {code}
    return tuple(known for known in catalogue() if known.name.partition("{")[0] not in same)


def verdicts(certificate: Certificate) -> dict[str, str]:
    return {row.name: row.verdict for row in certificate.rows}


def failures(certificate: Certificate) -> dict[str, str]:
    return {row.name: row.detail for row in certificate.rows if row.verdict == "fail"}


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_primitive_passes(sandbox: Sandbox, code: str) -> None:
    found = certify(wrapped(code), sandbox, Terms(known=others(code)))
    assert failures(found) == {}
    skipped = {name for name, verdict in verdicts(found).items() if verdict == "skip"}
    by_nature = {"M": {"learns"}, "E": {"learns"}, "Xa": {"step"}}  # mix no tokens; wrapped without
    assert skipped == {"budget"} | by_nature.get(code, set())
    assert found.level == sandbox.level
    assert list(verdicts(found)) == list(CHECKS)


@pytest.mark.parametrize("number", HONEST)
def test_honest_modules_pass(sandbox: Sandbox, number: int) -> None:
    assert failures(certify(honest(number), sandbox, Terms(known=catalogue()))) == {}


def test_no_honest_source_is_complained_of() -> None:
    assert [n for n in range(200) if complaints(honest(n))] == []
    assert len({structure(honest(n)) for n in range(200)}) > 150  # they are many, not one


@pytest.mark.parametrize("name", CHEATS)
def test_a_planted_cheat_is_caught(sandbox: Sandbox, name: str) -> None:
    cheat = CHEATS[name]
    found = verdicts(certify(cheat.source, sandbox, checks=cheat.caught))
    assert found == dict.fromkeys(cheat.caught, "fail")


def test_the_honest_part_of_the_cheats_passes(sandbox: Sandbox) -> None:
    """So that it is the cheating that is caught."""
    source = f"{HEAD}{BASE}\n    def forward(self, x):\n        return self.out(self.honest(x))\n"
    assert failures(certify(source, sandbox)) == {}


def mixer(body: str, init: str = "pass") -> str:
    """A module whose forward pass and constructor have these lines."""
    return (
        f"import torch\nfrom torch import nn\nimport torch.nn.functional as F\n\n\n"
        f"class Mixer(nn.Module):\n    def __init__(self, d_model, max_len, causal):\n"
        f"        super().__init__()\n        self.w = nn.Linear(d_model, d_model)\n        {init}\n\n"
        f"    def forward(self, x):\n        {body}\n"
    )


SELF = "return self.w(x)"
STEPPED = """
    def init_state(self, batch):
        return torch.zeros(batch, 3)

    def step(self, x, state):
        return {0}, state

    def state_bytes(self, length):
        return {1}
"""


@pytest.mark.parametrize(
    ("source", "check", "said"),
    [
        ("class Mixer(nn.Module:\n", "source", "line 1: not Python"),
        ("import torch\n", "source", "there is no class Mixer"),
        ("class Mixer: pass\n", "source", "has no class Mixer(nn.Module)"),
        (mixer(SELF, "raise ValueError('no')"), "source", "ValueError: no (mixer.py line 10)"),
        (mixer(SELF, "f = F; f.gelu = f.relu"), "source", "torch.nn.functional.gelu"),
        (mixer(SELF, "torch.set_default_dtype(torch.float64)"), "source", "default dtype"),
        (mixer("return self.w(x)[:, :, :7]"), "shapes", "shape (1, 1, 7), not (1, 1, 16)"),
        (mixer("return self.w(x).sum(1)"), "shapes", "not (1, 1, 16)"),
        (mixer("return self.w(x) if len(x) < 3 else x[:2]"), "shapes", "not (3, 1, 16)"),
        (mixer("return self.w(x) / (x.shape[1] > 1)"), "shapes", "not finite"),
        (mixer("return self.w(x).exp()"), "finite", "large inputs: the output is not finite"),
        (mixer("return (0 * self.w(x)).sqrt()"), "finite", "gradient is not finite"),
        (mixer(SELF, "self.v = nn.Linear(2, 2)"), "finite", "no gradient reaches v.weight, v.bias"),
        (mixer("return self.w(x).detach()"), "finite", "does not require grad"),
        (mixer(SELF) + STEPPED.format("self.w(x) + 1", 12), "step", "step() differs"),
        (mixer(SELF) + STEPPED.format("self.w(x)", 16), "step", "state 12 bytes"),
        (mixer("return self.w(x) + torch.Generator().seed() % 7"), "determinism", "keep nothing"),
    ],
)  # fmt: skip
def test_a_fault_is_named_in_one_short_line(
    sandbox: Sandbox, source: str, check: str, said: str
) -> None:
    detail = failures(certify(source, sandbox, checks=(check,)))[check]
    assert said in detail
    assert len(detail) < 500
    assert "\n" not in detail
    assert not any(word in detail for word in ("Traceback", "/sandbox/", "inside.py"))


def test_seeded_randomness_is_no_fault(sandbox: Sandbox) -> None:
    source = mixer("return self.w(x) + self.training * torch.rand(())")
    assert failures(certify(source, sandbox, checks=("determinism", "causality", "batch"))) == {}


HOSTILE = {
    "no answer": "import os\nos._exit(0)\n",
    "a crash": "import os\nos.abort()\n",
    "no tensors": "open('out/outputs.safetensors', 'wb').write(b'x')\nimport os\nos._exit(0)\n",
    "an answer of another kind": (
        "import os, torch\nfrom safetensors.torch import save\n"
        "open('out/outputs.safetensors', 'wb').write(save({'x': torch.ones(1)}))\n"
        "open('out/said.json', 'w').write('{\"facts\": 3, \"errors\": [], \"more\": 1}')\nos._exit(0)\n"
    ),
    "tampered of another kind": (
        "import os, torch\nfrom safetensors.torch import save\n"
        "open('out/outputs.safetensors', 'wb').write(save({'eval': torch.ones(2, 8, 32)}))\n"
        "open('out/said.json', 'w').write('{\"tampered\": 7}')\nos._exit(0)\n"
    ),
    "facts of another kind": (
        "import os, torch\nfrom safetensors.torch import save\n"
        "open('out/outputs.safetensors', 'wb').write(save({'two': torch.ones(1)}))\n"
        "facts = '{\"two\": 1, \"one\": [], \"128\": {\"flops\": \"many\"}, \"normal\": 7}'\n"
        "open('out/said.json', 'w').write('{\"facts\": ' + facts + '}')\nos._exit(0)\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_process_that_answers_nonsense_fails_every_check(sandbox: Sandbox, name: str) -> None:
    checks = tuple(CHECKS)[1:]  # the source alone would end it
    terms = Terms(budget=Budget(32, 32, 1000, 1e9))
    found = certify(HOSTILE[name] + mixer(SELF), sandbox, terms, checks)
    assert verdicts(found) == dict.fromkeys(checks, "fail")


def test_who_hangs_is_asked_once(sandbox: Sandbox) -> None:
    found = certify(mixer("while True: pass"), sandbox, Terms(seconds=1.0))
    assert verdicts(found) == {"source": "fail"} | dict.fromkeys(tuple(CHECKS)[1:], "skip")
    assert "timeout" in found.rows[0].detail
    assert {row.detail for row in found.rows[1:]} == {"it ran out of time before"}


def test_who_cannot_be_constructed_is_asked_once(sandbox: Sandbox) -> None:
    found = certify("import torch\n", sandbox)
    assert verdicts(found) == {"source": "fail"} | dict.fromkeys(tuple(CHECKS)[1:], "skip")


def test_cost_is_held_against_what_is_allowed(sandbox: Sandbox) -> None:
    outer = mixer("return self.w(x) + (x[:, :, None] * x[:, None]).tril().mean(1) * 1e-3")
    loop = mixer(
        "return torch.stack([self.w(x[:, : t + 1]).mean(1) for t in range(x.shape[1])], 1)"
    )
    window = mixer("return self.w(x) + F.pad(x, (0, 0, 3, 0)).unfold(1, 4, 1).mean(-1)")
    for source, cost in ((loop, "quadratic"), (window, "linear"), (wrapped("H"), "nlogn")):
        row = certify(source, sandbox, Terms(max_cost=cost), ("scaling",)).rows[0]
        assert (row.verdict, f"({cost})" in row.detail) == ("pass", True), row
    for source, cost in ((loop, "nlogn"), (wrapped("A"), "nlogn"), (outer, "linear")):
        assert failures(certify(source, sandbox, Terms(max_cost=cost), ("scaling",)))


@pytest.mark.parametrize(
    ("cost", "kind"),
    [
        (lambda n: 7 * n + 900, "linear"),
        (lambda n: 50 * n + n * math.log2(n), "linear"),
        (lambda n: n * math.log2(n), "nlogn"),
        (lambda n: 3 * n + 2 * n * math.log2(n), "nlogn"),
        (lambda n: 100 * n + n * n, "quadratic"),
        (lambda n: n * n, "quadratic"),
        (lambda n: 5 * n * n + n**3, "more than quadratic"),
    ],
)
def test_growth_is_told_from_three_points(cost: object, kind: str) -> None:
    assert callable(cost)
    assert growth([int(cost(n)) for n in (128, 256, 512)]) == kind


@pytest.mark.parametrize(
    "line",
    [
        "from search_space.native.attention import attention",
        "from search_space.native import library",
        "from search_space.ops.rotary import native",
        "import search_space.ops.rotary as rotary; rotary.native.applies",
    ],
)
def test_the_source_may_not_call_our_kernels_by_itself(line: str) -> None:
    assert any("native" in complaint for complaint in complaints(f"{line}\n" + mixer(SELF)))


@pytest.mark.parametrize("code", ["A", "L", "R"])
def test_our_kernels_hide_no_work(code: str) -> None:
    """A mixer may use the catalogue, whose kernels are not torch's operators."""
    primitive = CATALOGUE[code](32, head=8)  # type: ignore[call-arg]
    work = counted(primitive, torch.randn(2, 48, 32))
    assert work.flops == pytest.approx(2 * 48 * primitive.cost(48).flops_per_token)


def test_the_budget_counts_what_a_checkpoint_can_carry(sandbox: Sandbox) -> None:
    source = mixer(SELF, "self.register_buffer('table', torch.zeros(d_model, 100))")
    params = 64 * 64 + 64 + 64 * 100
    for most, verdict in ((params, "pass"), (params // 2, "fail")):
        terms = Terms(budget=Budget(64, 32, most, 2 * 64 * 64))
        assert verdicts(certify(source, sandbox, terms, ("budget",))) == {"budget": verdict}
    tight = Terms(budget=Budget(64, 32, params, 64 * 64))
    assert "FLOPs" in failures(certify(source, sandbox, tight, ("budget",)))["budget"]


def test_a_copy_is_known_by_what_it_computes(sandbox: Sandbox) -> None:
    found = certify(wrapped("D"), sandbox, Terms(known=catalogue()), ("copy",))
    assert "computes what D{head=8} does" in failures(found)["copy"]
    first = certify(honest(8), sandbox, checks=("copy",))
    one = mixer(
        "return self.u(self.v(x).relu())",
        "del self.w; self.u, self.v = (nn.Linear(d_model, d_model, bias=False) for _ in range(2))",
    )
    two = mixer(
        "up, down = self.both.weight.chunk(2); return F.linear(F.linear(x, up).relu(), down)",
        "del self.w; self.both = nn.Linear(d_model, 2 * d_model, bias=False)",
    )
    prints = [certify(text, sandbox, checks=("copy",)) for text in (one, two)]
    gap = angle(prints[0].behaviour, prints[1].behaviour)
    assert gap is not None and gap < 1e-5
    assert prints[0].structure != prints[1].structure
    known = Terms(known=(Known("the first", behaviour=first.behaviour),))
    assert failures(certify(honest(8), sandbox, known, ("copy",)))
    assert failures(certify(honest(4), sandbox, known, ("copy",))) == {}


def test_the_structure_ignores_names_comments_and_layout() -> None:
    source = honest(1)
    renamed = ast.unparse(ast.parse(source))  # without comments and layout
    for old, new in (
        ("self.heads", "self.groups"),
        ("scores", "s"),
    ):
        assert old in renamed
        renamed = renamed.replace(old, new)
    assert renamed != source
    assert structure(renamed) == structure(source)
    assert structure(source.replace("F.pad", "F.rad")) != structure(source)
    assert structure("max(1, 2)") != structure("min(1, 2)")
    assert structure("def f(:") == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import os", "imports os"),
        ("from torch import load", "imports torch.load"),
        ("import torch.utils.cpp_extension", "imports torch.utils"),
        ("from . import x", "relative import"),
        ("open('x')", "uses open"),
        ("eval('1')", "uses eval"),
        ("__builtins__", "uses __builtins__"),
        ("torch.load('x')", "uses .load"),
        ("torch.hub", "uses .hub"),
        ("().__class__.__subclasses__()", "uses .__subclasses__"),
        ("getattr(torch, '__dict__')", "names __dict__"),
        ("F.relu = F.gelu", "changes F.relu"),
        ("torch.nn.functional.relu += 1", "changes torch.nn.functional.relu"),
        ("del torch.Tensor.add", "changes torch.Tensor.add"),
        ("x = torch.ones(1).numpy()", "uses .numpy"),
    ],
)  # fmt: skip
def test_the_source_may_only_compute(line: str, said: str) -> None:
    clean = mixer(SELF)
    assert complaints(clean) == []
    (found,) = complaints(f"{clean}\n\n{line}\n")
    assert said in found
    assert found.startswith("line 16: ")


def test_allowed_imports_are_allowed() -> None:
    lines = "import math, einops\nfrom torch.utils.checkpoint import checkpoint\nimport torch.fft\n"
    assert complaints(lines + mixer(SELF)) == []
