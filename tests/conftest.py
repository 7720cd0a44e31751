"""Shared by all tests: one thread for torch, no time limit on hypothesis' examples (machines are shared)."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("archwright", deadline=None, derandomize=True)
settings.load_profile("archwright")
