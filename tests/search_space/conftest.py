"""One thread for the tests of this folder: at these sizes a second one only waits."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
