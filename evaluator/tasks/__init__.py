"""Tasks: what a candidate is trained on and scored by. No training, no scoring here."""

from evaluator.tasks.base import IGNORE, Split, Task
from evaluator.tasks.listops import ListOps
from evaluator.tasks.lra import LraImage, LraPathfinder, LraRetrieval, LraText
from evaluator.tasks.mad import MAD_TASKS, mad_task
from evaluator.tasks.mqar import Mqar
from evaluator.tasks.text import Text

__all__ = [
    "IGNORE",
    "MAD_TASKS",
    "ListOps",
    "LraImage",
    "LraPathfinder",
    "LraRetrieval",
    "LraText",
    "Mqar",
    "Split",
    "Task",
    "Text",
    "mad_task",
]
