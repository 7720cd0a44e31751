"""What a Ray task asks for: a core, and a share of a GPU where there is one; Ray is started for real."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archwright.environment import PER_GPU, default_workers
from archwright.executor import RayExecutor, gpu_share


@given(st.integers(1, 16), st.integers(1, 200))
def test_all_workers_fit_on_the_gpus_at_once_and_none_across_two(gpus: int, workers: int) -> None:
    share = gpu_share(gpus, workers)
    assert 0 < share <= 1
    assert gpus * math.floor(1 / share + 1e-9) >= workers
    assert share == round(share, 4), "Ray counts in ten-thousandths"


def test_without_a_gpu_nobody_asks_for_one() -> None:
    assert gpu_share(0.0, 4) == 0.0


@pytest.mark.parametrize(("gpus", "workers"), [(0, 48), (1, PER_GPU), (2, 2 * PER_GPU), (8, 48)])
def test_default_workers_are_few_for_each_gpu_and_never_more_than_cores(
    gpus: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(48))
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert default_workers() == workers


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayExecutor]:
    """Three workers on two GPUs that Ray is told to believe in."""
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 2}')
    made = RayExecutor(3)
    yield made
    made.close()


def test_as_many_tasks_as_workers_run_at_once_and_each_sees_one_gpu(
    executor: RayExecutor, tmp_path: Path
) -> None:
    def meet(number: int) -> str:
        """Which GPU a task sees, once all have come: none can wait for another to end."""
        (tmp_path / str(number)).touch()
        while len(list(tmp_path.iterdir())) < 3:
            time.sleep(0.05)
        return os.environ["CUDA_VISIBLE_DEVICES"]

    waiting = [executor.submit(meet, number) for number in range(3)]
    done: list[object] = []
    while waiting:
        found = executor.wait(waiting, timeout=200)
        assert found, "the tasks do not fit at once"
        done += [executor.result(handle) for handle in found]
        waiting = [handle for handle in waiting if handle not in found]
    assert sorted(map(str, done)) in (["0", "0", "1"], ["0", "1", "1"])
