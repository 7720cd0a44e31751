"""`archwright gate`: what it prints, its exit codes, and wrong input in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from archwright.cli import app

PLAIN = """
import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, d_model, max_len, causal):
        super().__init__()
        self.value, self.out = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)

    def forward(self, x):
        return self.out(self.value(x).cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None])
"""
LEAK = PLAIN.replace(".cumsum(1)", ".flip(1).cumsum(1).flip(1)")


def called(*arguments: str) -> tuple[int, list[str], str]:
    """Exit code, the lines of stdout, and stderr."""
    done = CliRunner().invoke(app, ["gate", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize(("source", "code"), [(PLAIN, 0), (LEAK, 1)])
def test_the_certificate_is_one_json_line_with_all_checks(
    tmp_path: Path, source: str, code: int
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(source)
    exit_code, lines, _ = called(str(file), "--json")
    found = json.loads(lines[-1])
    assert exit_code == code
    assert found["verdict"] == ("fail" if code else "pass")
    assert len(found["checks"]) == 11
    assert all(row.keys() == {"name", "verdict", "detail", "seconds"} for row in found["checks"])
    failed = {row["name"] for row in found["checks"] if row["verdict"] == "fail"}
    assert failed == ({"causality"} if code else set())


def test_for_the_eye_it_is_a_table(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Mixer(")
    exit_code, lines, _ = called(str(file))
    assert exit_code == 1
    text = " ".join(" ".join(lines).split())
    assert text.startswith(f"{file}: fail, in sandbox level")
    assert "source fail" in text
    assert "line 1: not Python" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.py"], "No such file or directory: 'nowhere.py'"),
        (["."], ". is a folder: name the file with the mixer in it"),
        (["large.py"], "a mixer's file has at most"),
        (["latin.py"], "is no UTF-8 text at byte 0"),
        (["good.py", "--max-cost", "cubic"], "--max-cost 'cubic': the nearest are"),
        (["good.py", "--require-sandbox", "vm"], "sandbox level 'vm'"),
    ],
)
def test_wrong_input_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin.py").write_bytes(b"\xff\xfe")
    Path("good.py").write_text(PLAIN)
    Path("large.py").write_text("#" * 300_000)
    exit_code, lines, error = called(*arguments)
    assert (exit_code, lines) == (2, [])
    assert said in error
    assert error.count("\n") == 1
