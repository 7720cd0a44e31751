"""What lives while a sandbox does, and what is left when it, a run or the supervisor ends."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from identities import OURS, run_as
from orphans import FAMILY, folder_of, gone

from sandbox.launch import environment
from sandbox.run import File, Limits, Outcome, Sandbox

KEY = "ARCHWRIGHT_TEST_KEY"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    os.environ[KEY] = "a-key-that-nobody-may-see"
    with Sandbox() as made:
        yield made
    del os.environ[KEY]


def test_ten_runs_at_a_time_keep_apart(sandbox: Sandbox) -> None:
    """Each computes from its own input, in a folder and with names that all ten use."""
    source = (
        b"import pathlib, time, torch\n"
        b"n = int(pathlib.Path('in/n').read_text())\n"
        b"for name in ('tmp/x', 'out/r'): pathlib.Path(name).write_text(str(n))\n"
        b"time.sleep(.3)\n"
        b"assert sorted(map(str, pathlib.Path('tmp').iterdir())) == ['tmp/x']\n"
        b"total = int(torch.arange(n + 1).sum()) + int(pathlib.Path('tmp/x').read_text()) - n\n"
        b"pathlib.Path('out/r').write_text(str(total))\n"
    )

    def one(n: int) -> str:
        ended = sandbox.run("a.py", {"a.py": source, "n": str(n).encode()}, [File("r", "text", 99)])
        assert ended.outcome is Outcome.OK, ended
        return str(ended.files["r"])

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(one, range(10)))
    assert found == [str(n * (n + 1) // 2) for n in range(10)]


def test_wall_clock_takes_the_whole_tree(sandbox: Sandbox) -> None:
    before = set(sandbox._broker.processes())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            sandbox.run, "f.py", {"f.py": FAMILY.encode()}, limits=Limits(wall_seconds=3.0)
        )
        started: set[int] = set()
        earlier = None
        while (started != earlier or len(started) < 5) and not waiting.done():
            time.sleep(0.3)  # daemons are forked twice: those between are gone by the second look
            earlier, started = started, set(sandbox._broker.processes()) - before
        assert len(started) == 5  # the keeper, the script and its three daemons
        ended = waiting.result()
    assert ended.outcome is Outcome.TIMEOUT
    assert gone(sorted(started), 1.0) == []


@pytest.mark.parametrize("victim", ["supervisor", "broker"])
@pytest.mark.parametrize(("who", "level"), [("root", "bubblewrap"), ("user", "landlock")])
def test_a_kill_leaves_no_child(who: str, level: str, victim: str) -> None:
    """SIGKILL, while a run with three daemons goes on. One level for each user, to save time."""
    if who not in OURS:
        pytest.skip("only root can be root")
    script = Path(__file__).with_name("orphans.py")
    done = run_as(who, [sys.executable, str(script), level, victim], timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["started"] >= 6
    assert found["left"] == []
    assert found["folder_left"] is (victim == "broker")  # nobody else was there to remove it


def test_the_warm_parent_holds_no_secret(sandbox: Sandbox) -> None:
    """Neither it nor the broker has a variable of ours but those that are named."""
    value = os.environ[KEY].encode()
    pids = [sandbox._broker._process.pid, *sandbox._broker.processes()]
    seen = [environ_of(pid) for pid in pids]
    if os.getuid() == 0:  # they are closed to their own user
        assert any(seen), "nothing could be read"
    assert not [text for text in seen if value in text]
    names = {"PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "ATEN_CPU_CAPABILITY"}
    names |= {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS"}
    names |= {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"}
    assert environment(1).keys() <= names


def environ_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def test_the_warm_parent_is_isolated_itself(sandbox: Sandbox) -> None:
    """Under a filter, without new privileges, and of root's power only what ends runs."""
    fields = [status_of(pid) for pid in sandbox._broker.processes()]
    warm = [f for f in fields if f["Name"].startswith("python")]
    assert warm
    for found in warm:
        assert found["Seccomp"] == "2"
        assert found["NoNewPrivs"] == "1"
        assert int(found["CapEff"], 16) & ~0b111100000 == 0


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_a_closed_sandbox_leaves_nothing() -> None:
    sandbox = Sandbox()
    folder = folder_of(sandbox._broker._process.pid)
    started = sandbox._broker.processes()
    assert folder.exists()
    sandbox.close()
    assert gone(started, 1.0) == []
    assert not folder.exists()
