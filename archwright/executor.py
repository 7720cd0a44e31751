"""Where work runs: Ray (workers and agent actors), or this process, behind one small interface.

Knows neither ledger nor candidates. This is the worker's border: whatever a task raises comes back as
a `Fault`, which the driver retries and never scores.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from agents.agent import Agent, AgentSpec
from agents.llm import KEYS
from evaluator import memory
from storage.records import View


@dataclass(frozen=True)
class Fault:
    """A task that ended without a result, through no fault of a candidate's."""

    detail: str


class Executor(Protocol):
    """Handles are opaque; ``wait`` returns those that are done, ``result`` what they came to.

    At most ``workers`` tasks are submitted at a time; what agents are asked is not counted.
    """

    workers: int

    def add_agent(self, spec: AgentSpec) -> None: ...
    def propose(self, agent: str, view: View, seed: int) -> Any: ...
    def submit(self, task: Callable[..., Any], *args: Any) -> Any: ...
    def wait(self, handles: Sequence[Any], timeout: float) -> list[Any]: ...
    def result(self, handle: Any) -> Any: ...
    def close(self) -> None: ...


class LocalExecutor:
    """Runs everything in this process, one piece of work at each ``wait``.

    ``pick`` chooses the next among the handles waited for; tests use it to finish work in any order.
    """

    def __init__(
        self, workers: int = 1, pick: Callable[[Sequence[int]], int] = lambda handles: handles[0]
    ) -> None:
        self.workers, self.pick = workers, pick
        self._agents: dict[str, Agent] = {}
        self._work: list[Callable[[], Any]] = []

    def add_agent(self, spec: AgentSpec) -> None:
        self._agents[spec.name] = Agent(spec)

    def propose(self, agent: str, view: View, seed: int) -> int:
        return self._add(lambda: asyncio.run(self._agents[agent].propose(view, seed)))

    def submit(self, task: Callable[..., Any], *args: Any) -> int:
        return self._add(lambda: task(*args))

    def _add(self, work: Callable[[], Any]) -> int:
        self._work.append(work)
        return len(self._work) - 1

    def wait(self, handles: Sequence[int], timeout: float) -> list[int]:
        return [self.pick(handles)] if handles else []

    def result(self, handle: int) -> Any:
        try:
            return self._work[handle]()
        except Exception as error:  # noqa: BLE001  (the worker's border)
            return Fault(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        self._agents.clear()


def gpu_share(gpus: float, workers: int) -> float:
    """The part of a GPU for each worker so that all fit at once, none across two; 0 where there is none.

    Rounded down to Ray's ten-thousandths.
    """
    return math.floor(10_000 / math.ceil(workers / gpus)) / 10_000 if gpus else 0.0


class Worker:
    """A process that runs one task after another, within its share of the machine's memory."""

    def __init__(self, workers: int | None) -> None:
        """``workers`` share the machine; None for one per core of it."""
        memory.bound(workers)

    def run(self, task: Callable[..., Any], *args: Any) -> tuple[Any, bool]:
        """What the task came to, and whether this process can be trusted with another one."""
        return task(*args), not memory.exhausted()


class KeyedAgent(Agent):
    """An agent in a process of its own, which alone gets the keys; ``keys``: variable -> value.

    They come as an argument, since Ray writes the environments that it is asked for to its log and to
    command lines; and a variable set by the process itself is not in its /proc/PID/environ.
    """

    def __init__(self, spec: AgentSpec, keys: Mapping[str, str]) -> None:
        os.environ.update(keys)
        super().__init__(spec)


class RayExecutor:
    """Ray actors: one for each worker, with a core and a share of a GPU where there are any, which stays
    for the run; and one for each agent.

    A worker in which a task broke, or memory ran out, is replaced: half-imported modules, kernels that
    could not be compiled and CUDA's errors stay with a process and would fail whoever comes next.

    ``address`` joins a running cluster; None starts a local Ray, which ``close`` stops again. Its
    processes inherit this environment without the keys of models: who evaluates has no use for them.
    """

    # Bytes; what crosses is small but for checkpoints, which may spill to disk; Ray's default is gigabytes.
    OBJECT_STORE = 200 * 2**20

    def __init__(self, workers: int, address: str | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its default will change
        import ray

        self._ray: Any = ray  # its overloads do not cover a task that is only known at run time
        self._agents: dict[str, Any] = {}
        self._sharing = None if address else workers
        self._idle: list[Any] = []
        self._busy: dict[Any, Any] = {}  # handle -> worker
        local = {} if address else self._local(workers)
        with without(KEYS) as self._keys:
            ray.init(
                address or "local",  # not whatever other Ray runs on this machine
                log_to_driver=False,
                include_dashboard=False,
                logging_level=logging.ERROR,
                **local,
            )
        # A worker that finds no core would wait for ever: those that have one keep it.
        self.workers = min(workers, int(self._ray.cluster_resources().get("CPU", 1)))
        self._share = gpu_share(self._ray.cluster_resources().get("GPU", 0.0), self.workers)

    def _local(self, workers: int) -> dict[str, Any]:
        return {"num_cpus": workers, "object_store_memory": self.OBJECT_STORE}

    def add_agent(self, spec: AgentSpec) -> None:
        actor = self._ray.remote(num_cpus=0, max_restarts=3, max_concurrency=64)(KeyedAgent)
        self._agents[spec.name] = actor.remote(spec, self._keys)

    def propose(self, agent: str, view: View, seed: int) -> Any:
        return self._agents[agent].propose.remote(view, seed)

    def submit(self, task: Callable[..., Any], *args: Any) -> Any:
        worker = self._idle.pop() if self._idle else self._start()
        handle = worker.run.remote(task, *args)
        self._busy[handle] = worker
        return handle

    def _start(self) -> Any:
        return self._ray.remote(num_cpus=1, num_gpus=self._share)(Worker).remote(self._sharing)

    def wait(self, handles: Sequence[Any], timeout: float) -> list[Any]:
        done, _ = self._ray.wait(list(handles), num_returns=1, timeout=timeout)
        return list(done)

    def result(self, handle: Any) -> Any:
        worker = self._busy.pop(handle, None)
        try:
            result = self._ray.get(handle)
        except Exception as error:  # noqa: BLE001  (the worker's border)
            result = Fault(f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}")
        if worker is None:  # an agent was asked
            return result
        result, sound = (result, False) if isinstance(result, Fault) else result
        self._idle.append(worker) if sound else self._ray.kill(worker)
        return result

    def close(self) -> None:
        self._idle.clear()
        self._busy.clear()
        self._ray.shutdown()


@contextmanager
def without(variables: Sequence[str]) -> Iterator[dict[str, str]]:
    """An environment without these variables for a while; gives those that there were."""
    kept = {name: os.environ.pop(name) for name in variables if name in os.environ}
    try:
        yield kept
    finally:
        os.environ.update(kept)
