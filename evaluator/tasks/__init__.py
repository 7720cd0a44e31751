"""Tasks: what a candidate is trained on and scored by. No training, no scoring, no files here."""

from evaluator.tasks.base import IGNORE, Split, Task
from evaluator.tasks.mad import MAD_TASKS, mad_task

__all__ = ["IGNORE", "MAD_TASKS", "Split", "Task", "mad_task"]
