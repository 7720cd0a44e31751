"""Compiles the kernels beside their source, for each instruction set: `python -m search_space.native.build`.

The installation runs it by itself (`hatch_build.py`), where torch need not be there. Without a compiler,
or on another processor, nothing is made and torch's operators do the work: the same to rounding, slower.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
SETS = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3"}  # torch's names, the compiler's
OPTIONS = (
    *("-std=c++17", "-O3", "-shared", "-fPIC", "-fno-math-errno", "-ffp-contract=fast"),
    *("-fno-strict-aliasing", "-fno-tree-slp-vectorize", "-mprefer-vector-width=512"),
)


def library(instructions: str) -> Path:
    """Where the kernels for an instruction set are, if they were made from what the source is now."""
    texts = [path.read_bytes() for path in sorted(HERE.glob("*.[ch]*"))]
    digest = sha256(b"\0".join([*texts, repr(OPTIONS).encode()])).hexdigest()
    return HERE / f"kernels-{SETS[instructions]}-{digest[:12]}.so"


def build() -> list[Path]:
    """Make the libraries and return those that could be made; says on standard error why others could not."""
    compiler = shlex.split(
        os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or ""
    )
    made = [library(name) for name in SETS if _compiled(compiler, name)]
    for path in HERE.glob("kernels-*.so"):
        if path not in made:
            path.unlink()
    return made


def _compiled(compiler: list[str], name: str) -> bool:
    sources = sorted(map(str, HERE.glob("*.cpp")))
    made = HERE / f"{name}-{os.getpid()}.new"
    command = [*compiler, *OPTIONS, f"-march={SETS[name]}", *sources, "-o", str(made)]
    problem = _problem(command) if compiler else "there is no C++ compiler"
    if problem:
        print(f"kernels: none for {name}, torch's operators are used: {problem}", file=sys.stderr)
        made.unlink(missing_ok=True)
        return False
    made.replace(library(name))  # whoever has the old one loaded keeps it
    return True


def _problem(command: list[str]) -> str:
    """What went wrong; empty when nothing did."""
    try:
        run = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return run.stderr[-500:] or f"exit {run.returncode}" if run.returncode else ""


if __name__ == "__main__":
    print(*build(), sep="\n")
