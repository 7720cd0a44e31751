"""`docs/extending.md` as its reader follows it: its files written, its commands run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search_space.pattern import Pattern

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = "".join(re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
}


def shell(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-ec", commands], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("reader")
    for name, text in FILES.items():
        (made / name).write_text(text)
    return made


def test_the_page_does_what_it_says(folder: Path) -> None:
    assert FILES.keys() == {"mine.py", "mine.yaml"}
    done = shell(COMMANDS, folder)
    assert done.returncode == 0, done.stderr[-2000:]
    found = proposals(folder)
    assert len(found) >= 6
    for row in found:
        layers = [str(layer) for layer in Pattern.parse(row["pattern"]).layers]
        assert layers == layers[::-1]
    operators = [row["operator"] for row in found]
    assert set(operators[::3]) == {"draft"}
    assert "improve" in operators
    assert re.fullmatch(r"slot \d+ is the best", found[operators.index("improve")]["reason"])


def proposals(folder: Path) -> list[dict[str, Any]]:
    query = """SELECT c.pattern, p.operator, p.reason FROM proposal p JOIN agent a ON a.id = p.agent_id
        JOIN candidate c ON c.id = p.candidate_id WHERE a.name = 'mirrored'
        ORDER BY slot"""
    done = shell(f'archwright sql mine-run "{query}" --json', folder)
    said = json.loads(done.stdout.splitlines()[-1])
    return [dict(zip(said["columns"], row, strict=True)) for row in said["rows"]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("agents.0.options.trys=5", "proposer mine:Mirrored refused its options"),
        ("agents.0.scaffold=mine:Restart", "cannot import the scaffold 'mine:Restart'"),
        ("agents.0.proposer=ours:Mirrored", "cannot import the proposer 'ours:Mirrored'"),
    ],
)
def test_a_mistake_is_said_in_one_sentence_before_anything_runs(
    folder: Path, change: str, words: str
) -> None:
    done = shell(f"PYTHONPATH=. archwright run mine.yaml --out wrong --set {change}", folder)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert words in sentence
    assert not (folder / "wrong").exists()
