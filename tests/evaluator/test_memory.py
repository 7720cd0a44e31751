"""Memory of a worker: real processes at real limits, and the trees of control groups as Linux lays them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluator import memory
from evaluator.evaluate import Job, evaluate, fit_one
from evaluator.outcome import FailureKind
from evaluator.profiles import profile
from evaluator.train import Training

MIB = 2**20
PRELUDE = """
import json, os, re, resource
import torch
from evaluator import memory
from evaluator.evaluate import Job, evaluate

def size(of):
    return 1024 * int(re.search(of + r":\\s*(\\d+)", open("/proc/self/status").read())[1])

def leave(room):  # bytes from what this process has to its limit
    resource.setrlimit(resource.RLIMIT_DATA, (size("VmData") + room, -1))
"""


def process(code: str) -> Any:
    """The JSON that some code prints, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}\n{code}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_a_model_that_outgrows_its_share_step_by_step_is_a_typed_failure() -> None:
    """Layers of 100 MB, of which the first few still fit; and then the optimiser, and then a step."""
    for room in (300, 1500):
        found = process(
            f"leave({room} * 2**20)\n"
            "result = evaluate(Job('2(A+Mb+M)', '350M', 'smoke', 0))\n"
            "limit, _ = resource.getrlimit(resource.RLIMIT_DATA)\n"
            "print(json.dumps([result.failure, result.detail, result.metrics, memory.exhausted(),"
            " memory.readable(limit)]))"
        )
        failure, detail, metrics, exhausted, limit = found
        assert (failure, metrics, exhausted) == ("oom", [], True)
        assert f"must stay within {limit}, not take another " in detail
        assert detail.endswith("MiB; use a smaller preset or pattern, or fewer workers.")


@pytest.mark.parametrize("warm", [False, True])
def test_near_its_limit_an_evaluation_ends_in_its_score_or_in_oom(warm: bool) -> None:
    """Anything may fail first there: torch, oneDNN's compiler, an import, Python itself. Native code that
    does not look at what it was given may end the process; that is no score and no error either."""
    found = process(
        "job = Job('A+Mb+M', 'mini', 'smoke', 0)\n"
        f"if {warm}: evaluate(job)\n"
        "ends = []\n"
        "for step in range(23):\n"
        "    reader, writer = os.pipe()\n"
        "    if os.fork() == 0:\n"
        f"        leave(step * 2**{17 if warm else 21})\n"
        "        try:\n"
        "            result = evaluate(job)\n"
        "            end = result.failure, result.score()\n"
        "        except BaseException as error:\n"
        "            end = 'raised', repr(error)\n"
        "        os.write(writer, json.dumps(end).encode())\n"
        "        os._exit(0)\n"
        "    os.close(writer)\n"
        "    with open(reader) as pipe: ends.append(pipe.read())\n"
        "    os.wait()\n"
        "print(json.dumps(ends))"
    )
    ends = [json.loads(text) for text in found if text]
    true = evaluate(Job("A+Mb+M", "mini", "smoke", 0)).score()
    assert len(ends) >= 20
    assert warm or ["oom", None] in ends  # what a warm process has freed may be all that it needs
    assert all(end in (["oom", None], [None, true]) for end in ends), ends


def test_data_that_do_not_fit_are_said_so_too() -> None:
    found = process(
        "leave(80 * 2**20)\n"
        "result = evaluate(Job('M', 'mini', 'mqar', 0))\n"
        "print(json.dumps([result.failure, result.detail, result.metrics]))"
    )
    assert found[0] == "oom" and found[2] == []


def test_an_ordinary_evaluation_under_the_bound_has_the_bits_of_one_without() -> None:
    found = process(
        "memory.bound(2)\n"
        "result = evaluate(Job('A+Mb+M', 'mini', 'smoke', 3))\n"
        "limit = resource.getrlimit(resource.RLIMIT_DATA)\n"
        "print(json.dumps([result.score(), memory.exhausted(), limit]))"
    )
    if torch.cuda.is_available():
        pytest.skip("no bound with CUDA")
    true = evaluate(Job("A+Mb+M", "mini", "smoke", 3)).score()
    assert found == [true, False, [memory.share(2), -1]]


def test_a_bound_never_raises_a_limit_that_is_there() -> None:
    for soft, hard in ((1500 * MIB, 1500 * MIB), (1500 * MIB, -1)):
        found = process(
            f"resource.setrlimit(resource.RLIMIT_DATA, ({soft}, {hard}))\nmemory.bound(1)\n"
            "print(json.dumps(resource.getrlimit(resource.RLIMIT_DATA)))"
        )
        assert found == [soft, hard]


def test_freed_blocks_stay_with_the_process() -> None:
    """Pages that one block touched are there for the next one, and need not be faulted in."""
    code = (
        "{}\n"
        "import ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.malloc.restype = ctypes.c_void_p\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    block = ctypes.c_void_p(libc.malloc(100 * 2**20))\n"
        "    libc.memset(block, 1, 100 * 2**20)\n"
        "    libc.free(block)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "print(json.dumps([faults(), faults()]))"
    )
    first, again = process(code.format(""))
    assert again > first / 2, "a mapping of its own each time"
    first, again = process(code.format("memory.keep_freed()"))
    assert again < first / 4


def test_shares_add_up_to_less_than_the_machine() -> None:
    for workers in (1, 3, 64):
        assert 0.8 * memory.machine() < workers * memory.share(workers) <= 0.9 * memory.machine()
    assert memory.share() == memory.share(len(os.sched_getaffinity(0)))


GROUPS = [
    ("0::/a/b\n", {"a/b/memory.max": "700", "a/memory.max": "max"}, [700]),
    ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "500", "memory.max": "900"}, [500, 900]),
    ("0::/\n", {"memory.max": "300"}, [300]),  # as seen in a container
    ("0::/../b\n", {"memory.max": "300"}, [300]),
    (
        "4:cpu,memory:/x\n1:cpu:/y\n0::/\n",
        {"memory/x/memory.limit_in_bytes": "800", "memory/memory.limit_in_bytes": "900"},
        [800, 900],
    ),
    ("1:cpu:/x\n", {"memory/x/memory.limit_in_bytes": "800"}, []),
    ("", {}, []),
]  # fmt: skip


@pytest.mark.parametrize(("membership", "files", "limits"), GROUPS)
def test_limits_of_control_groups_are_found(
    tmp_path: Path, membership: str, files: dict[str, str], limits: list[int]
) -> None:
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(f"{text}\n")
    assert sorted(memory._group_limits(tmp_path / "cgroup", tmp_path / "fs")) == limits
    assert list(memory._group_limits(tmp_path / "nothing", tmp_path / "fs")) == []


@pytest.mark.parametrize(
    ("error", "asked", "spent"),
    [
        (RuntimeError("can't allocate memory: you tried to allocate 9437184 bytes."), "another 9 MiB", 1),
        (MemoryError(), "more", 1),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU"), "2.50 GiB", 0),
    ],
)  # fmt: skip
def test_a_refusal_says_what_was_asked_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, asked: str, spent: int
) -> None:
    monkeypatch.setattr(memory, "_refusals", [])
    sentence = memory.refused(error)
    assert f"{asked}; use a smaller preset or pattern, or fewer workers." in sentence
    assert sentence.count(". ") == 0
    assert memory.exhausted() == bool(spent), "torch recovers from a GPU's want of memory"


def test_sizes_are_readable() -> None:
    sizes = (3, 2048, 5 * MIB, 1023.4 * MIB, 12.75 * 2**30)
    assert [memory.readable(x) for x in sizes] == [
        "3 bytes",
        "2 KiB",
        "5 MiB",
        "1023 MiB",
        "12.75 GiB",
    ]


def test_all_the_trainings_of_a_sweep_would_need_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that does not fit ends it; of other failures the others are tried."""
    tried: list[Training] = []

    def counting(*arguments: Any) -> Any:
        tried.append(arguments[3])
        return fit_one(*arguments)

    monkeypatch.setattr("evaluator.evaluate.fit_one", counting)
    assert len(profile("mqar").trainings) == 4
    huge = evaluate(Job(f"M{{hidden={2**50}}}", "mini", "mqar", 0))
    assert (huge.failure, huge.metrics, len(tried)) == (FailureKind.OOM, (), 1)
