"""The isolation levels: which are allowed, and which hold on this machine, seen from attacks that fail.

* `bubblewrap`: namespaces, a file system of bounded size, Landlock, seccomp, rlimits, the keeper's watch.
  A run cannot see the machine's other processes or files at all.
* `landlock`: the same without namespaces, where containers forbid them. It does not stop: looking at names,
  sizes and times of files whose path is known (stat); bytes of files that were deleted but are held open,
  which escape the count of the folder (each is bounded by itself); learning which PIDs exist.
* `process`: a scrubbed environment, rlimits and the watch. It stops neither reading nor writing of the
  user's files, nor the network, nor signals to the supervisor. Only where asked for, and never as root.

No GPU is within reach at the first two. None stops kernel exploits, side channels or attacks on drivers.
Never lowered silently: a level that does not hold is an error unless a lower one was allowed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sandbox import canary, privileges
from sandbox.ended import Outcome, SandboxError
from sandbox.launch import Broker
from sandbox.limits import Limits
from sandbox.results import File

LEVELS = ("process", "landlock", "bubblewrap")  # rising
BANNER = (
    "UNSAFE SANDBOX: written code runs as you, with your files and your network; "
    "install bubblewrap and leave out --unsafe-sandbox"
)
SHORT = Limits(wall_seconds=20.0)
GONE = 1.0  # seconds within which nothing of a run is left
FIXES = {
    "bwrap is not installed": "apt-get install bubblewrap (or dnf, apk, pacman)",
    "namespace": "sysctl kernel.unprivileged_userns_clone=1, and an AppArmor profile for bwrap on Ubuntu",
    "uid map": "allow user namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    "syscall 444": "a kernel from 5.13 on, with landlock in its lsm= option",
    "no system-call table": "x86-64 or aarch64",
    "Permission denied: '": "install Python and this package where every user may read, not below a closed "
    "home such as /root; or use bubblewrap, or run as an ordinary user",
}


def allowed(require: str, level: str | None, unsafe: bool) -> list[str]:
    """The levels to try, best first. Raises ValueError for one that does not exist or is not allowed."""
    for name in (require, level or require):
        if name not in LEVELS:
            raise ValueError(f"sandbox level {name!r}: choose one of {', '.join(LEVELS)}")
    lowest = "process" if unsafe else require
    levels = [level] if level else list(LEVELS[LEVELS.index(lowest) :][::-1])
    if "process" in levels and not unsafe:
        raise ValueError(
            "sandbox level 'process' isolates nothing: ask for it with --unsafe-sandbox"
        )
    return levels


def start(levels: Sequence[str], workers: int, threads: int) -> Broker:
    """A broker at the first of the levels that holds. Raises SandboxError with what to do about each."""
    problems = []
    for level in levels:
        try:
            return _proven(level, workers, threads)
        except SandboxError as error:
            problems.append(f"{error}{_fix(str(error))}")
    raise SandboxError("; ".join(problems))


def _proven(level: str, workers: int, threads: int) -> Broker:
    if level == "process" and privileges.is_root():
        raise SandboxError("level process is not for root: run as an ordinary user")
    broker = Broker(level, workers, threads)
    try:
        worked = attacks_that_worked(broker)
        if worked and level != "process":
            raise SandboxError(f"level {level} does not hold, a run could {', '.join(worked)}")
    except SandboxError:
        broker.close()
        raise
    return broker


def attacks_that_worked(broker: Broker) -> list[str]:
    """The canary attacks that succeeded. Raises SandboxError where they could not even be tried."""
    before = len(broker.processes())
    with canary.Bait() as bait:
        result = File("canary.json", "json", 1 << 16)
        ended = broker.run("sandbox.canary:attack", {"plan.json": bait.plan()}, [result], SHORT)
        if ended.outcome is not Outcome.OK:
            raise SandboxError(f"level {broker.level} runs nothing: {ended.detail}")
        report = ended.files["canary.json"]
        worked = [name for name in canary.ATTACKS if report.get(name) is None]
        worked += bait.disturbed()
    deadline = time.monotonic() + GONE
    while len(broker.processes()) > before:
        if time.monotonic() > deadline:
            return [*worked, "leave a daemon behind"]
        time.sleep(0.01)
    return worked


def _fix(problem: str) -> str:
    fixes = [fix for said, fix in FIXES.items() if said in problem]
    return f" (mend it: {fixes[0]})" if fixes else ""
