"""One run from its inputs to its answer: makes the folder, forks the child, watches it, ends its tree,
collects its results and removes the folder.

A keeper is a fork of the warm parent, inside the same confinement, and the subreaper of its run: whatever
the child starts stays below it. Runs no code of the candidate's.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox import child, collect, confine, folder, kernel, privileges, tree, wire
from sandbox.ended import Outcome
from sandbox.ground import Ground
from sandbox.limits import Limits
from sandbox.results import BadResult, printable

TICK = 0.05  # seconds between two looks
LOG = 16_000  # characters of the log that are kept, of its head and of its tail half each
PATIENCE = 60.0  # seconds for the supervisor to send the inputs


@dataclass
class Watch:
    """What is known of a run while it lasts."""

    place: Path
    limits: Limits
    pid: int
    output: int  # where its log is read
    confined: int  # where the child says, once, that it is
    uid: int | None  # its user id, where that is not ours
    bytes_before: int  # in its folder, with the inputs
    files_before: int
    began: float = field(default_factory=time.monotonic)
    log: bytearray = field(default_factory=bytearray)
    codes: dict[int, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def drain(self) -> None:
        """Read what the run printed, up to its limit and a little more."""
        while len(self.log) <= self.limits.output_bytes:
            try:
                part = os.read(self.output, 65536)
            except BlockingIOError:
                return
            if not part:
                return
            self.log += part

    def reached(self) -> tuple[Outcome, str] | None:
        """The limit that the run has reached, with the numbers, if any."""
        limits, use = self.limits, tree.use(os.getpid())
        try:
            with privileges.files_as(self.uid):
                size, files = folder.used(self.place, self.files_before + limits.scratch_files + 1)
        except OSError as error:
            return Outcome.SCRATCH, f"a folder is closed or too deep: {error.strerror}"
        size, files = size - self.bytes_before, files - self.files_before
        memory = use.memory + (size if self.place.is_mount() else 0)  # files of a tmpfs are memory
        for outcome, value, limit, unit in (
            (Outcome.TIMEOUT, self.seconds, limits.wall_seconds, "seconds"),
            (Outcome.OUTPUT, len(self.log), limits.output_bytes, "bytes printed"),
            (Outcome.MEMORY, memory, limits.memory_bytes, "bytes of memory"),
            (Outcome.PROCESSES, use.tasks, limits.processes, "processes and threads"),
            (Outcome.SCRATCH, size, limits.scratch_bytes, "bytes written"),
            (Outcome.SCRATCH, files, limits.scratch_files, "files and folders"),
            (Outcome.CPU, use.cpu, limits.cpu_seconds, "CPU seconds"),
        ):
            if value > limit:
                return outcome, f"{value:,.6g} {unit}; the limit is {limit:,.6g}"
        return None


def keep(link: socket.socket, request: dict[str, Any], ground: Ground) -> None:
    """Serve one request over its link. Raises OSError or WireError where the supervisor is gone."""
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    os.umask(0o027)
    link.settimeout(PATIENCE)
    _, inputs = wire.receive(link)
    place, uid = ground.slot(request["slot"]), ground.uid(request["slot"])
    if uid is not None:
        privileges.files_for(uid)
    folder.make(place)
    _write(place / "in", inputs)
    watch = start(request["task"], place, Limits(**request["limits"]), ground, uid)
    try:
        try:
            reason = follow(watch, link)
        finally:
            stubborn = tree.end(os.getpid(), codes=watch.codes)
        with privileges.files_as(uid):
            header, files = answer(watch, reason, request["results"])
    finally:
        folder.clear(place, uid)
    wire.send(link, {**header, "stubborn": stubborn}, files)


def start(task: str, place: Path, limits: Limits, ground: Ground, uid: int | None) -> Watch:
    """Fork the child that runs the task."""
    output, inner = os.pipe()
    confined, report = os.pipe()
    os.set_blocking(output, False)
    before = folder.used(place, limits.scratch_files)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child.prepare(place, inner, report, ground.threads)
            confine.child(ground.level, place, limits, uid)
            os.write(report, b"confined")
            os.close(report)
            code = child.main(task, place)
        except OSError as error:
            print(f"a run cannot be confined: {error}", file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(inner)
    os.close(report)
    return Watch(place, limits, pid, output, confined, uid, *before)


def follow(watch: Watch, link: socket.socket) -> tuple[Outcome, str] | None:
    """Wait until the child ends, or a limit is reached (then which), or nobody waits for it any more.

    Raises WireError in the last case. The log is read at each look only: who floods it waits.
    """
    parent = os.getppid()
    poll = select.poll()
    poll.register(os.pidfd_open(watch.pid), select.POLLIN)
    poll.register(link, select.POLLIN)
    while watch.pid not in watch.codes:
        ready = [descriptor for descriptor, _ in poll.poll(1000 * TICK)]
        if link.fileno() in ready or os.getppid() != parent:
            raise wire.WireError("the supervisor is gone")
        watch.drain()
        tree.reap(watch.codes)
        reason = watch.reached()
        if reason:
            return reason
    return None


def answer(
    watch: Watch, reason: tuple[Outcome, str] | None, declared: dict[str, int]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What the supervisor is told of a run that is over. Raises OSError if it was never confined."""
    seconds = watch.seconds
    watch.drain()
    if not os.read(watch.confined, 1):  # every writer is gone
        raise OSError(trimmed(bytes(watch.log)).strip() or "a run ended before it was confined")
    code = None if reason else watch.codes[watch.pid]
    outcome, detail = reason or watch.reached() or _of_code(code or 0, bytes(watch.log))
    files: dict[str, bytes] = {}
    if outcome is Outcome.OK:
        try:
            files = collect.collect(watch.place / "out", declared)
        except BadResult as error:
            outcome, detail = Outcome.BAD_RESULT, str(error)
    log = trimmed(bytes(watch.log[: watch.limits.output_bytes]))
    header = {"outcome": outcome, "code": code, "log": log, "seconds": seconds, "detail": detail}
    return header, files


def _of_code(code: int, log: bytes) -> tuple[Outcome, str]:
    """The outcome that an exit code stands for; after a crash the last line of the log says most."""
    if code == 0:
        return Outcome.OK, ""
    if code == child.CRASHED:
        lines = printable(log[-1000:].decode(errors="replace")).strip().splitlines()
        return Outcome.CRASHED, lines[-1] if lines else "it ended with code 1"
    if code == child.NO_MEMORY:
        return Outcome.MEMORY, "an allocation failed"
    kinds = {-signal.SIGXCPU: Outcome.CPU, -signal.SIGXFSZ: Outcome.SCRATCH}
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return kinds.get(code, Outcome.CRASHED), f"it {how}"


def trimmed(log: bytes) -> str:
    """The head and the tail of a log as printable text."""
    text = printable(log.decode(errors="replace"))
    if len(text) <= LOG:
        return text
    cut = len(text) - LOG
    return f"{text[: LOG // 2]}\n[... {cut} characters ...]\n{text[-LOG // 2 :]}"


def _write(place: Path, inputs: dict[str, bytes]) -> None:
    for name, data in inputs.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
