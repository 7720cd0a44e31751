"""Compiles the kernels at installation (`search_space/native/build.py`), or for a wheel."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Kernels(BuildHookInterface):  # type: ignore[misc]
    """hatchling's hook: what could be compiled goes into the wheel, which is then this platform's."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        module = runpy.run_path(str(Path(self.root, "search_space", "native", "build.py")))
        made = module["build"]()
        build_data["artifacts"] += [str(path.relative_to(self.root)) for path in made]
        if made:
            build_data["pure_python"], build_data["infer_tag"] = False, True
