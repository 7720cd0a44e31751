"""The arrows between the packages, read from the source, and what importing them costs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("agents", "archwright", "evaluator", "sandbox", "search_space", "storage")
# What each package may import of ours; from storage, only the shared types unless it is archwright.
ARROWS = {
    "search_space": set(),
    "storage": set(),
    "evaluator": {"search_space"},
    "sandbox": {"search_space", "evaluator"},
    "agents": {"search_space", "storage.records"},
    "archwright": {"agents", "evaluator", "sandbox", "search_space", "storage"},
}
BARE = ("search_space", "evaluator")  # these must run on a machine with torch alone
SERVICES = {"ray", "sqlalchemy", "alembic", "anthropic", "openai", "pydantic", "typer", "jinja2"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The dotted name of every module that a file imports, anywhere in it; names taken from a package
    count as modules of it, as `from storage import queries` does."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrows"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(module: str, package: str) -> bool:
    within = {package, *ARROWS[package]}
    return any(module == name or module.startswith(f"{name}.") for name in within)


def test_the_table_has_every_package() -> None:
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert found == set(OURS) == set(ARROWS)


@pytest.mark.parametrize("package", OURS)
def test_a_package_imports_only_downwards(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sources(package)
        for module in imported(path)
        if module.partition(".")[0] in OURS and not allowed(module, package)
    ]
    assert wrong == []


@pytest.mark.parametrize("package", BARE)
def test_what_trains_needs_torch_alone(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sources(package)
        for module in imported(path)
        if module.partition(".")[0] in SERVICES
    ]
    assert wrong == []


def loaded(code: str) -> set[str]:
    """The top-level modules that are loaded after some code, in an interpreter of its own."""
    program = f"import sys\n{code}\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


def modules(package: str) -> list[str]:
    """Every module of a package by its dotted name, migrations aside: Alembic runs those."""
    paths = [p.relative_to(ROOT).with_suffix("") for p in sources(package)]
    names = [
        ".".join(p.parts).removesuffix(".__init__") for p in paths if "migrations" not in p.parts
    ]
    return [name for name in names if not name.endswith("__main__")]


def test_what_trains_loads_no_service() -> None:
    """What the source says is one thing; what arrives in the process, all told, another."""
    code = "\n".join(f"import {name}" for package in BARE for name in modules(package))
    found = loaded(code)
    assert "torch" in found
    assert found.isdisjoint(SERVICES | (set(OURS) - set(BARE)))


def test_the_shared_types_load_no_database() -> None:
    assert loaded("import storage.records").isdisjoint({"sqlalchemy", "alembic", "torch"})


def test_an_agent_loads_neither_database_nor_ray_nor_an_sdk() -> None:
    found = loaded("import agents.agent")
    assert found.isdisjoint({"ray", "sqlalchemy", "alembic", "anthropic", "openai"})


def test_the_help_loads_neither_torch_nor_ray() -> None:
    code = (
        "sys.argv = ['archwright', '--help']\nimport archwright.cli\n"
        "try:\n    archwright.cli.main()\nexcept SystemExit:\n    pass"
    )
    found = loaded(code)
    assert "typer" in found
    heavy = {"torch", "ray", "numpy", "scipy", "sqlalchemy", "alembic", "pydantic", "yaml"}
    assert found.isdisjoint(heavy | {"anthropic", "openai", "jinja2"})


@pytest.mark.parametrize("package", OURS)
def test_a_package_is_ours(package: str) -> None:
    """`openai-agents` installs a package `agents` too, and the two overwrite each other."""
    place = importlib.import_module(package).__file__
    assert place is not None
    assert Path(place).resolve() == (ROOT / package / "__init__.py").resolve()


@pytest.mark.parametrize("package", OURS)
def test_a_package_says_what_it_is_in_under_ten_lines(package: str) -> None:
    lines = (ROOT / package / "README.md").read_text().splitlines()
    assert 0 < len(lines) < 10


def test_every_module_says_what_it_does() -> None:
    files = [p for package in OURS for p in sources(package) if p.read_text().strip()]
    assert [str(p) for p in files if not ast.get_docstring(ast.parse(p.read_text()))] == []
