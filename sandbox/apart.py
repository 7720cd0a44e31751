"""A candidate's code in a process of its own, beside the trainer that forks it: it is asked, and it answers.

The trainer's memory, its files and its results are out of the candidate's reach: Landlock keeps it to reading
programs and its own sources, and to writing nothing. What crosses are bytes of JSON and safetensors, bounded
and parsed as results are (`sandbox.results`). Level `process` keeps nothing apart (`sandbox.levels`).
It knows neither training nor models: `sandbox.training` does.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from sandbox import kernel, landlock
from sandbox.paths import DEVICES, MACHINE, OWN, readable
from sandbox.results import BadResult, File, parse

FACTS, TENSORS = File("facts", "json", 1 << 20), File("tensors", "safetensors", 1 << 30)
READY = b"confined"

Facts = dict[str, Any]
Tensors = Mapping[str, Tensor]
Ask = Callable[[], dict[str, Tensor] | None]  # the next question, None when there is no more
Reply = Callable[[Facts, Tensors], None]


class Gone(Exception):
    """The candidate's process ended, or said what is no answer; the sentence says which."""


class Apart:
    """The other process, as its parent sees it; a context manager that ends it.

    ``serve(ask, reply)`` runs there. ``sources`` are the files outside of programs that it may read;
    ``confined`` is False at level `process` only. Raises OSError where it cannot be confined.
    """

    def __init__(
        self, serve: Callable[[Ask, Reply], None], sources: Sequence[Path], confined: bool
    ) -> None:
        (down, self._down), (self._up, up) = Pipe(duplex=False), Pipe(duplex=False)
        self._pid = os.fork()
        if self._pid == 0:
            self._down.close()
            self._up.close()
            _inside(serve, down, up, sources if confined else None)
        down.close()
        up.close()
        try:
            ready = self._up.recv_bytes(len(READY))
        except (EOFError, OSError):
            ready = b""
        if ready != READY:
            self.end()
            raise OSError("a candidate's process cannot be confined apart from its trainer")

    def ask(self, question: Tensors) -> tuple[Facts, dict[str, Tensor]]:
        """Facts and tensors for these tensors. Raises Gone."""
        try:
            self._down.send_bytes(save(dict(question)))
        except OSError as error:
            raise Gone(self._ended()) from error
        return self.answer()

    def answer(self) -> tuple[Facts, dict[str, Tensor]]:
        """The next answer, the first of which needs no question. Raises Gone."""
        try:
            facts = parse(FACTS, self._up.recv_bytes(FACTS.max_bytes))
            tensors = _aligned(parse(TENSORS, self._up.recv_bytes(TENSORS.max_bytes)))
        except BadResult as error:
            raise Gone(str(error)) from error
        except (EOFError, OSError) as error:
            raise Gone(self._ended()) from error
        if not isinstance(facts, dict):
            raise Gone("its answer is none of ours")
        return facts, tensors

    def finish(self) -> Facts:
        """What it says when there are no more questions. Raises Gone."""
        self._down.close()
        return self.answer()[0]

    def end(self) -> int:
        """Kill the process and give its exit code; what it started is ended with the run."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            self._pid = 0
        return self._code

    def _ended(self) -> str:
        code = self.end()
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process ended with code {code}"

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _inside(
    serve: Callable[[Ask, Reply], None],
    down: Connection,
    up: Connection,
    sources: Sequence[Path] | None,
) -> None:
    """The life of the forked process; does not return."""
    code = 1
    try:
        if sources is not None:
            _confine(sources)
        up.send_bytes(READY)
        serve(lambda: _question(down), lambda facts, tensors: _reply(up, facts, tensors))
        code = 0
    finally:
        os._exit(code)


def _confine(sources: Sequence[Path]) -> None:
    """Read programs and the sources, write nothing. Raises OSError."""
    own = [Path(f"/proc/{os.getpid()}/{name}") for name in OWN]
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    landlock.restrict([*readable(), *MACHINE, *own, *sources], [], DEVICES)


def _question(down: Connection) -> dict[str, Tensor] | None:
    try:
        return _aligned(load(down.recv_bytes()))
    except EOFError:
        return None


def _aligned(tensors: Tensors) -> dict[str, Tensor]:
    """Copies where torch puts its own: kernels round otherwise at other addresses."""
    return {name: value.clone() for name, value in tensors.items()}


def _reply(up: Connection, facts: Facts, tensors: Tensors) -> None:
    up.send_bytes(json.dumps(facts).encode())
    whole = {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    up.send_bytes(save(whole))  # which takes neither views nor what shares memory
