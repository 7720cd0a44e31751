"""Shared by all tests: one thread for torch, no time limit on hypothesis' examples (machines are shared),
and one sandbox for all that only run something in it."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from sandbox.run import Sandbox

torch.set_num_threads(1)
settings.register_profile("archwright", deadline=None, derandomize=True)
settings.load_profile("archwright")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made
