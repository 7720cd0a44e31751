"""Check 1: the file parses, imports only what a mixer needs, reaches for nothing else, and constructs.

Reading the source is advice to honest authors and a net for plain cheats; it keeps nobody in. That is the
sandbox's work.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sandbox.contract import CLASS, FILE, short
from sandbox.gate.certificate import Finding
from sandbox.gate.errands import Call
from sandbox.gate.subject import Subject

ALLOWED = {
    "__future__", "abc", "collections", "dataclasses", "einops", "enum", "functools", "itertools", "math",
    "numbers", "operator", "search_space", "torch", "typing",
}  # fmt: skip
# Of torch, what computes; the rest of it reads files, starts processes or looks into itself.
PARTS = {"autograd", "fft", "functional", "linalg", "nn", "special"}
CHECKPOINT = "torch.utils.checkpoint"
CALLS = {
    "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "globals", "input", "locals", "open",
    "setattr", "vars",
}  # fmt: skip
NAMES = {
    "_C", "_dynamo", "_inductor", "classes", "ctypes", "cuda", "data_ptr", "distributed", "f_back",
    "f_globals", "f_locals", "from_file", "gi_frame", "hub", "jit", "library", "load", "load_library",
    "load_state_dict", "multiprocessing", "native", "numpy", "ops", "os", "overrides", "package",
    "profiler", "save", "share_memory_", "sys", "tb_frame", "tofile", "untyped_storage", "utils",
}  # fmt: skip
DUNDERS = {"__call__", "__class__", "__doc__", "__init__", "__len__", "__name__", "__post_init__"}
SHOWN = 5  # complaints in a detail


def check(subject: Subject) -> Finding:
    """Pass where the source has no complaint and the module is constructed, used and leaves no trace.

    Raises Broken.
    """
    found = complaints(subject.source)
    if found:
        more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        return Finding("fail", "; ".join(found[:SHOWN]) + more)
    shape = (2, 8, subject.terms.width)
    calls = [Call("eval"), Call("train", "backward", training=True)]
    answer = subject.ask(calls, {"x": subject.normal(6, *shape)}, watch=True)
    answer.y("eval", shape), answer.y("train", shape)
    if answer.said.tampered:
        names = short(", ".join(map(str, answer.said.tampered)))
        return Finding("fail", f"changes its surroundings: {names}; leave them alone")
    return Finding("pass", f"{len(subject.source.splitlines())} lines; imports, constructs, runs")


def complaints(source: str) -> list[str]:
    """What a source may not have, one sentence each with its line; empty when there is nothing."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        return [f"{FILE} line {line}: not Python: {getattr(error, 'msg', error)}"]
    found = [(node.lineno, text) for node, text in _complaints(tree)]
    if not any(isinstance(node, ast.ClassDef) and node.name == CLASS for node in tree.body):
        found.append((1, f"there is no class {CLASS}: add it"))
    return [f"line {line}: {text}" for line, text in sorted(set(found))]


def _complaints(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    imported = _bound(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node, text) for alias in names for text in _module(alias.name))
            case ast.ImportFrom(module=module, names=names, level=level):
                if level:
                    yield node, f"relative import of {module}: there is one file"
                for alias in names if not level else ():
                    yield from ((node, text) for text in _module(f"{module}.{alias.name}"))
            case ast.Attribute(attr=name):
                yield from ((node, text) for text in _attribute(name))
            case ast.Name(id=name) if name in CALLS or (
                name.startswith("__") and name != "__name__"
            ):
                yield node, f"uses {name}: a mixer computes with tensors only"
            case ast.Constant(value=str(text)) if text.startswith("__") and text.endswith("__"):
                yield node, f"names {text}: a mixer needs no access to Python's inside"
        yield from _assigned(node, imported)


def _module(name: str) -> Iterator[str]:
    """Why a dotted import is not allowed, if it is not."""
    top, _, rest = name.partition(".")
    if top not in ALLOWED:
        yield f"imports {top}: allowed are {', '.join(sorted(ALLOWED - {'__future__'}))}"
    elif top == "torch" and not name.startswith(CHECKPOINT):
        part = rest.partition(".")[0]
        if part in NAMES or (part.startswith("_") and part != "_"):
            yield f"imports {name}: of torch, only what computes ({', '.join(sorted(PARTS))})"
    elif rest in NAMES or "native" in rest.split("."):
        yield f"imports {name}: a mixer computes with tensors only"


def _attribute(name: str) -> Iterator[str]:
    if name in NAMES:
        yield f"uses .{name}: a mixer reads no files and looks at nothing but its input"
    elif name.startswith("__") and name not in DUNDERS:
        yield f"uses .{name}: a mixer needs no access to Python's inside"


def _bound(tree: ast.Module) -> set[str]:
    """The names that imports bind."""
    return {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def _assigned(node: ast.AST, imported: set[str]) -> Iterator[tuple[ast.expr, str]]:
    """Assignments to attributes or items of what was imported: `F.softmax = ...`."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign | ast.Delete):
        targets = list(node.targets)
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    for target in targets:
        root: ast.expr = target
        while isinstance(root, ast.Attribute | ast.Subscript):
            root = root.value
        if root is not target and isinstance(root, ast.Name) and root.id in imported:
            yield target, f"changes {ast.unparse(target)}: leave other modules as they are"
