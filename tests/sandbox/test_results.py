"""Declared results from their bytes: what is taken and what is not; and the folder's own care."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from sandbox import folder
from sandbox.collect import collect
from sandbox.results import BadResult, File, parse, plain, printable
from sandbox.workspace import Workspace


def taken(kind: str, data: bytes) -> object:
    return parse(File("r", kind, 1 << 20), data)  # type: ignore[arg-type]


def test_what_is_valid_comes_through() -> None:
    assert taken("json", b'{"a": [1, 2.5, null, "x"]}') == {"a": [1, 2.5, None, "x"]}
    assert taken("text", "é\n\tx".encode()) == "é\n\tx"
    assert taken("raw", b"\0") == b"\0"
    tensors = taken("safetensors", save({"w": torch.ones(2, dtype=torch.bfloat16)}))
    assert isinstance(tensors, dict)
    assert tensors["w"].dtype == torch.bfloat16


HEAD = json.dumps({"w": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}).encode()
WRONG = [
    ("json", b""),
    ("json", b"[1"),
    ("json", b"NaN"),
    ("json", b"[-Infinity]"),
    ("json", b'{"a": 1e999}'),
    ("json", b"[" * 33 + b"]" * 33),
    ("json", b"[" * 100_000),
    ("json", b"9" * 5000),
    ("json", b"\xff"),
    ("text", b"\xff"),
    ("safetensors", b""),
    ("safetensors", b"\x80\x04K\x01."),
    ("safetensors", struct.pack("<Q", 1 << 40)),
    ("safetensors", struct.pack("<Q", len(HEAD)) + HEAD),
    ("safetensors", struct.pack("<Q", len(HEAD)) + HEAD + bytes(64)),
]


@pytest.mark.parametrize(("kind", "data"), WRONG)
def test_what_is_not_is_one_sentence(kind: str, data: bytes) -> None:
    with pytest.raises(BadResult, match=r"^r is no valid ") as caught:
        taken(kind, data)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../b", ".x", "-x", "", "a//b", "a\0b", "x" * 101]
)
def test_a_name_that_is_no_plain_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="use letters"):
        plain(name)
    with pytest.raises(ValueError, match="use letters"):
        File(name, "raw", 1)


def test_control_bytes_are_gone() -> None:
    assert printable("a\x1b[31mb\x07\x9b\r\nc\td") == "ab\nc\td"


def test_the_collector_takes_plain_files_only(tmp_path: Path) -> None:
    """As `test_attacks` has it, where Landlock would stop most of them before."""
    (tmp_path / "good").write_bytes(b"123")
    (tmp_path / "twice").write_bytes(b"1")
    os.link(tmp_path / "twice", tmp_path / "again")
    (tmp_path / "link").symlink_to(tmp_path / "good")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 40)
    assert collect(tmp_path, {"good": 3}) == {"good": b"123"}
    for name in ("twice", "link", "fifo", "folder", "hole", "missing"):
        with pytest.raises(BadResult, match=name):
            collect(tmp_path, {name: 3})
    with pytest.raises(BadResult, match="more than 2"):
        collect(tmp_path, {"good": 2})
    (tmp_path / "out").symlink_to(tmp_path)
    with pytest.raises(BadResult, match="out/ cannot be opened"):
        collect(tmp_path / "out", {"good": 3})


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such: some disks take milliseconds to remove a folder."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=place) as made:
        yield Path(made)


def test_a_folder_is_emptied_however_deep_or_closed(quick_folder: Path) -> None:
    home = Path.cwd()
    os.chdir(quick_folder)
    for _ in range(5000):
        Path("d").mkdir()
        os.chdir("d")
    os.chdir(home)
    closed = quick_folder / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "inner" / "x").write_text("x")
    (quick_folder / "link").symlink_to(home)
    (closed / "inner").chmod(0)
    closed.chmod(0)
    folder.empty(quick_folder)
    assert list(quick_folder.iterdir()) == []
    assert Path.cwd() == home


def test_a_folder_is_measured_up_to_a_bound(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(bytes(10_000))
    size, files = folder.used(tmp_path, 100)
    assert files == 2
    assert size >= 10_000
    for n in range(20):
        (tmp_path / f"{n}").touch()
    assert folder.used(tmp_path, 5)[1] == 5
    deep = tmp_path.joinpath(*["d"] * (folder.DEEPEST + 1))
    deep.mkdir(parents=True)
    with pytest.raises(OSError, match="within each other"):
        folder.used(tmp_path, 1000)


def test_a_workspace_checks_what_was_written() -> None:
    made = Workspace({"mixer.py": "x"}, {"sample.json": b"[]"}).inputs()
    assert made["mixer.py"] == b"x"
    assert made["material/sample.json"] == b"[]"
    assert b"class Mixer" in made["material/README.md"]
    for files in ({"../x": ""}, {"material/README.md": ""}, {"a.py": "x" * (2 << 20)}):
        with pytest.raises(ValueError):
            Workspace(files)
    with pytest.raises(ValueError, match="at most"):
        Workspace({f"{n}.py": "" for n in range(99)})
