"""A running broker from the supervisor's side: started at one level, asked for runs, closed.

Believes nothing about the level: whether it holds is `sandbox.levels`' to prove.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sandbox import tree, wire
from sandbox.ended import Ended, Outcome, SandboxError
from sandbox.limits import Limits
from sandbox.privileges import SLOTS
from sandbox.results import BadResult, File, parse, plain

# Variables that a run may see: where programs are, how text is read, which kernels compute.
READING = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
KERNELS = ("ATEN_CPU_CAPABILITY", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
START = 120.0  # seconds for a warm parent to import torch on a busy machine
SLOT = 1 << 30  # bytes of a run's folder where it is a file system of its own
GRACE = 60.0  # seconds over a run's own within which its keeper answers


class Broker:
    """One broker with its warm parent. ``workers`` runs at a time, more wait; each uses ``threads``.

    Raises ValueError for a number of workers that it cannot keep apart, SandboxError where it does not start.
    """

    def __init__(self, level: str, workers: int, threads: int) -> None:
        if not 1 <= workers <= SLOTS:
            raise ValueError(f"{workers} workers of a sandbox: choose 1 to {SLOTS}")
        self.level = level
        self._slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(workers):
            self._slots.put(slot)
        folder = Path(tempfile.mkdtemp(prefix="archwright-sandbox-"))
        folder.chmod(0o711)  # a run's own user passes through, and lists nothing
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the broker)
        self._control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        config = {
            "level": level,
            "supervisor": os.getpid(),
            "control": inner.fileno(),
            "folder": str(folder),
            "slots": workers,
            "slot_bytes": SLOT,
            "threads": threads,
        }
        with inner:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-m", "sandbox.broker", json.dumps(config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[inner.fileno()],
                env=environment(threads),
                cwd="/",
                start_new_session=True,  # a Ctrl-C is for the supervisor, which closes it
            )
        self._await()

    def _await(self) -> None:
        self._control.settimeout(START)
        try:
            ready = self._control.recv(16)
        except OSError:
            ready = b""
        if ready != b"ready":
            said = self._said()
            self.close()
            raise SandboxError(f"level {self.level} does not start: {said or 'it said nothing'}")

    def run(
        self, task: str, inputs: Mapping[str, bytes], results: Sequence[File], limits: Limits
    ) -> Ended:
        """One run, as `sandbox.run.Sandbox.run` says."""
        for name in inputs:
            plain(name)
        slot = self._slots.get()
        try:
            header, files = self._ask(slot, task, inputs, results, limits)
        finally:
            self._slots.put(slot)  # a keeper finds out if something was left there
        return self._ended(header, files, results)

    def _ask(
        self,
        slot: int,
        task: str,
        inputs: Mapping[str, bytes],
        results: Sequence[File],
        limits: Limits,
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        declared = {file.name: file.max_bytes for file in results}
        request = {"slot": slot, "task": task, "limits": asdict(limits), "results": declared}
        link, inner = socket.socketpair()
        with link:
            link.settimeout(limits.wall_seconds + GRACE)
            try:
                with inner:
                    socket.send_fds(self._control, [json.dumps(request).encode()], [inner.fileno()])
                wire.send(link, {}, inputs)
                return wire.receive(link, declared)
            except (OSError, wire.WireError) as error:
                said = self._said() or error
                raise SandboxError(f"a run's keeper did not answer: {said}") from error

    def _ended(
        self, header: dict[str, Any], files: dict[str, bytes], results: Sequence[File]
    ) -> Ended:
        outcome, detail, parsed = Outcome(header["outcome"]), header["detail"], {}
        if header["stubborn"]:
            raise SandboxError(f"processes {header['stubborn']} of a run would not die")
        if outcome is Outcome.OK:
            try:
                parsed = {file.name: parse(file, files[file.name]) for file in results}
            except BadResult as error:
                outcome, detail, parsed = Outcome.BAD_RESULT, str(error), {}
        code, log, seconds = header["code"], header["log"], header["seconds"]
        return Ended(outcome, code, parsed, log, seconds, self.level, detail)

    def processes(self) -> list[int]:
        """All living processes below the broker: the warm parent, and what runs."""
        return [process.pid for process in tree.descendants(self._process.pid)]

    def _said(self) -> str:
        """The last line that the broker or the warm parent left in their own log."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:500] if lines else ""

    def close(self) -> None:
        """End all that runs, and the broker, which removes its folder."""
        self._control.close()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._errors.close()


def environment(threads: int) -> dict[str, str]:
    """The only variables that broker, warm parent and runs ever have."""
    kept = {name: os.environ[name] for name in (*READING, *KERNELS) if name in os.environ}
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        **kept,
        **dict.fromkeys(pools, str(threads)),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
