"""A candidate's workspace: the files that an agent wrote, and material to read. Checks names and sizes.

Does not look into the code: that is the gate's. Its files become a run's inputs as they are, with the
material in `material/`, and come last on the import path, so that none shadows a module of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sandbox.results import plain

MODULE, SCRIPT = "mixer.py", "train.py"  # the file that each kind of candidate must have
MATERIAL = "material"
FILES, BYTES = 50, 1 << 20  # of an agent's, at most

CONTRACT = f"""\
# What you may write
* A module: `{MODULE}` with `class Mixer(nn.Module)`:
  `__init__(self, d_model: int, max_len: int, causal: bool, **options)`, `forward(x: (B, L, D)) -> (B, L, D)`,
  and, if you like, `step(x, state)` with `init_state(batch)`.
* A script: `{SCRIPT}`, run with this folder as its working directory; leave the declared results in `out/`.
Read from `in/`; write to `out/` and `tmp/` only. There is no network and no socket: a DataLoader must have
`num_workers=0`. Changing modes, owners and times of files does nothing.
"""


@dataclass(frozen=True)
class Workspace:
    """Written files (name -> text) and material (name -> bytes), which the contract is always part of.

    Raises ValueError for a name that is no plain one, for too many files or for too much text.
    """

    files: Mapping[str, str]
    material: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.files, *self.material):
            plain(name)
        taken = [name for name in self.files if name.split("/")[0] == MATERIAL]
        if taken:
            raise ValueError(f"file {taken[0]!r}: {MATERIAL}/ holds what was given; choose another")
        if len(self.files) > FILES:
            raise ValueError(f"{len(self.files)} files were written: write {FILES} at most")
        size = sum(len(text.encode()) for text in self.files.values())
        if size > BYTES:
            raise ValueError(f"{size} bytes were written: write {BYTES} at most")

    def inputs(self) -> dict[str, bytes]:
        """What `sandbox.run.Sandbox.run` takes."""
        given = {"README.md": CONTRACT.encode(), **self.material}
        written = {name: text.encode() for name, text in self.files.items()}
        return written | {f"{MATERIAL}/{name}": data for name, data in given.items()}
