"""What a run is given and what comes of it, whatever the level; attacks are in test_attacks."""

from __future__ import annotations

import json

from sandbox.run import File, Limits, Outcome, Sandbox

WRITES = """
import json, pathlib
import torch
from safetensors.torch import save_file
json.dump({"sum": float(torch.ones(3).sum())}, open("out/a.json", "w"))
save_file({"w": torch.arange(4)}, "out/w.safetensors")
pathlib.Path("out/t.txt").write_text(pathlib.Path("in/data/seen.txt").read_text())
print("done")
"""


def test_a_script_leaves_its_declared_results(sandbox: Sandbox) -> None:
    files = [
        File("a.json", "json", 100),
        File("w.safetensors", "safetensors", 1000),
        File("t.txt", "text", 10),
    ]
    inputs = {"train.py": WRITES.encode(), "data/seen.txt": b"seen"}
    ended = sandbox.run("train.py", inputs, files)
    assert (ended.outcome, ended.code, ended.log) == (Outcome.OK, 0, "done\n"), ended
    assert ended.files["a.json"] == {"sum": 3.0}
    assert ended.files["w.safetensors"]["w"].tolist() == [0, 1, 2, 3]
    assert ended.files["t.txt"] == "seen"


def test_a_function_is_called_with_its_folder(sandbox: Sandbox) -> None:
    source = (
        b"def f(folder): (folder / 'out' / 'x').write_bytes((folder / 'in' / 'y').read_bytes())"
    )
    ended = sandbox.run("m:f", {"m.py": source, "y": b"\0\1"}, [File("x", "raw", 2)])
    assert ended.files == {"x": b"\0\1"}


def test_an_error_is_the_programs_own_without_our_frames(sandbox: Sandbox) -> None:
    ended = sandbox.run("m:f", {"m.py": b"def f(folder): raise ValueError('\\x1b[31mno')"})
    assert (ended.outcome, ended.code, ended.detail) == (Outcome.CRASHED, 1, "ValueError: no")
    assert "m.py" in ended.log
    assert "sandbox/" not in ended.log
    assert "\x1b" not in ended.log


def test_wall_clock_ends_a_run(sandbox: Sandbox) -> None:
    ended = sandbox.run(
        "a.py", {"a.py": b"import time; time.sleep(60)"}, limits=Limits(wall_seconds=0.2)
    )
    assert (ended.outcome, ended.code) == (Outcome.TIMEOUT, None)
    assert "the limit is 0.2" in ended.detail


def test_a_missing_result_is_no_crash(sandbox: Sandbox) -> None:
    ended = sandbox.run("a.py", {"a.py": b""}, [File("a.json", "json", 100)])
    assert ended.outcome is Outcome.BAD_RESULT
    assert "a.json" in ended.detail
    assert ended.files == {}


def test_ended_is_json(sandbox: Sandbox) -> None:
    """But for its files: it goes to the ledger."""
    ended = sandbox.run("a.py", {"a.py": b"print('x')"})
    assert json.loads(json.dumps([ended.outcome, ended.log, ended.level]))[1] == "x\n"
