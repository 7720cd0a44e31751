"""Run folders by path or by name. Opens nothing."""

from __future__ import annotations

from pathlib import Path


def run_folder(run: Path) -> Path:
    """A run folder as given, or by its name under runs/."""
    return run if run.exists() or not (Path("runs") / run).exists() else Path("runs") / run
