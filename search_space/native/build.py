"""Compiles the kernels beside their source, for each instruction set: `python -m search_space.native.build`.

The installation runs it by itself (`hatch_build.py`), where torch need not be there. Without a compiler,
or on another processor, nothing is made and torch's operators do the work: the same to rounding, slower.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SETS = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3"}  # torch's names, the compiler's
OPTIONS = (
    *("-std=c++17", "-O3", "-shared", "-fPIC", "-fno-math-errno", "-ffp-contract=fast"),
    *("-fno-strict-aliasing", "-fno-tree-slp-vectorize", "-mprefer-vector-width=512"),
)


def library(instructions: str) -> Path:
    """Where the kernels for an instruction set are, if they were made."""
    return HERE / f"kernels-{SETS[instructions]}.so"


def build() -> list[Path]:
    """Make the libraries and return those that could be made; says on standard error why others could not."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        print("kernels: no C++ compiler, so torch's operators are used", file=sys.stderr)
        return []
    return [library(name) for name in SETS if _compiled(compiler, name)]


def _compiled(compiler: str, name: str) -> bool:
    sources = sorted(map(str, HERE.glob("*.cpp")))
    made = library(name).with_suffix(".new")
    command = [compiler, *OPTIONS, f"-march={SETS[name]}", *sources, "-o", str(made)]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    if run.returncode:
        print(f"kernels: none for {name}: {run.stderr[-500:]}", file=sys.stderr)
        return False
    made.replace(library(name))  # whoever has the old one loaded keeps it
    return True


if __name__ == "__main__":
    print(*build(), sep="\n")
