"""Check 10: the module is not one that is there already, by its canonical source and by what it computes.

The structure is a hash of the syntax tree with names in order of appearance: comments, layout, names and
docstrings do not matter. The behaviour is the output on a fixed probe with weights that depend on shapes
alone, projected to a few numbers; it knows copies that are written otherwise, as long as their weights
have the same shapes but for fused projections. The price: matrices of one shape are equal, so that two
equal branches side by side look like one of them.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from sandbox.contract import CLASS
from sandbox.gate.certificate import Finding
from sandbox.gate.errands import Call
from sandbox.gate.inside import patterned
from sandbox.gate.subject import Known, Subject
from search_space.primitives import CATALOGUE, Primitive

NUMBERS, PROBE = 64, (2, 40)
WIDTH, HEADS = 32, (8, 16, 32)
# Of the angle between two behaviours (unit vectors). Copies had up to 1e-6, the nearest two different
# modules .1 (docs/log.md).
SAME = 1e-3
BUILTIN = frozenset(dir(builtins))
KEPT = {"forward", "step", "init_state", "state_bytes", "self", "super", CLASS}


def check(subject: Subject) -> Finding:
    """Pass where no known mixer has the candidate's structure or behaviour. Raises Broken."""
    own = structure(subject.source)
    behaves = subject.behaviour = behaviour(subject)
    for known in subject.terms.known:
        if own and known.structure == own:
            return Finding(
                "fail", f"the same source as {known.name} but for names: propose another"
            )
        gap = angle(behaves, known.behaviour)
        if gap is not None and gap < SAME:
            return Finding(
                "fail", f"computes what {known.name} does (angle {gap:.1e}): propose another"
            )
    gaps = [(angle(behaves, k.behaviour), k.name) for k in subject.terms.known if k.behaviour]
    measured = [(gap, name) for gap, name in gaps if gap is not None]
    if not measured:
        return Finding("pass", "nothing comparable is known")
    gap, name = min(measured)
    return Finding(
        "pass", f"nearest of {len(measured)} known: {name}, angle {gap:.2g} (copies: < {SAME:g})"
    )


def behaviour(subject: Subject) -> tuple[float, ...]:
    """A unit vector of 64 numbers, or none where the output is nothing or not finite. Raises Broken."""
    shape = (*PROBE, WIDTH)
    answer = subject.ask([Call("probe")], {"x": _probe()}, weights="pattern", width=WIDTH)
    return projected(answer.y("probe", shape))


@lru_cache(maxsize=1)
def catalogue() -> tuple[Known, ...]:
    """The behaviours of the primitives, with heads of each usual size where they have heads.

    Computed in this process: they are ours.
    """
    found = []
    for code, kind in CATALOGUE.items():
        for options in [{"head": head} for head in HEADS] if "head" in kind.options() else [{}]:
            name = f"{code}{{head={options['head']}}}" if options else code
            found.append(Known(name, behaviour=projected(_of_primitive(kind, options))))
    return tuple(found)


@torch.no_grad()
def _of_primitive(kind: type[Primitive], options: Mapping[str, int]) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        primitive = kind(WIDTH, **options)
    patterned(primitive, WIDTH)
    x = _probe()
    kv = None
    if kind is CATALOGUE["Xa"]:  # reads an `A`'s keys and values, here of its own input
        source = CATALOGUE["A"](WIDTH, **options)
        patterned(source, WIDTH)
        primitive.attach(source)
        kv = source.forward_kv(x, None)[1]
    return primitive.forward_kv(x, kv)[0]


def _probe() -> Tensor:
    return torch.randn(*PROBE, WIDTH, generator=torch.Generator().manual_seed(1))


def projected(y: Tensor) -> tuple[float, ...]:
    """An output as a unit vector of 64 numbers; empty where it has no direction."""
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn(NUMBERS, y.numel(), generator=generator, dtype=torch.float64)
    vector = matrix @ y.flatten().double()
    size = vector.norm().item()
    return tuple((vector / size).tolist()) if size and math.isfinite(size) else ()


def angle(a: tuple[float, ...], b: tuple[float, ...]) -> float | None:
    """The angle between two behaviours, of either sign; None where one has none."""
    if len(a) != NUMBERS or len(b) != NUMBERS:
        return None
    one, two = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    return min((one - two).norm().item(), (one + two).norm().item())


def structure(source: str) -> str:
    """The hash of a source's canonical syntax tree; empty for a source that does not parse."""
    try:
        tree = _Canonical().visit(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


class _Canonical(ast.NodeTransformer):
    """Drops docstrings and annotations, and numbers names in the order in which they appear.

    Names that imports bind become the dotted names they stand for.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def _name(self, name: str) -> str:
        if name in KEPT or name in BUILTIN or name.startswith("__"):
            return name
        return self._names.setdefault(name, f"n{len(self._names)}")

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._names[alias.asname or alias.name.partition(".")[0]] = (
                alias.name if alias.asname else alias.name.partition(".")[0]
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self._names[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Name(self._name(node.id), node.ctx)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        value = self.visit(node.value)
        if isinstance(value, ast.Name) and value.id not in KEPT and not _numbered(value.id):
            return ast.Name(f"{value.id}.{node.attr}", node.ctx)
        own = isinstance(node.value, ast.Name) and node.value.id == "self" and node.attr not in KEPT
        return ast.Attribute(value, self._name(f"self.{node.attr}") if own else node.attr, node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self._name(node.arg))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt | None:
        if node.value is None:
            return None
        return ast.Assign([self.visit(node.target)], self.visit(node.value), lineno=0)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.stmt:
        node.name, node.returns, node.body = (
            self._name(node.name),
            None,
            _without_docstring(node.body),
        )
        return self.generic_visit(node)  # type: ignore[return-value]

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.stmt:
        node.name, node.body = self._name(node.name), _without_docstring(node.body)
        return self.generic_visit(node)  # type: ignore[return-value]

    def visit_Module(self, node: ast.Module) -> ast.Module:
        node.body = _without_docstring(node.body)
        return self.generic_visit(node)  # type: ignore[return-value]


def _numbered(name: str) -> bool:
    return name[0] == "n" and name[1:].isdigit()


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return (body[1:] or [ast.Pass()]) if is_text else body
