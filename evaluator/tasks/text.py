"""Byte language modelling: predict each next byte of a UTF-8 corpus, scored in bits per byte.

It reads a corpus, cuts it and draws windows; it downloads, cleans and tokenises nothing. A corpus has
a name (`NAMED`) or is the path of a file, or of a folder whose `.txt` files are joined in the order of
their paths. Its sha256, and never its path, is part of the task's identity.

Bits per byte here are not those of a long document: a window's first byte is read without context, and
its later ones with less than `length` bytes of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from evaluator.tasks.base import Split, SplitName, Task, generator_of

BLOCKS = 100  # of equal size; a rest of below 100 bytes at the corpus's end is left out
KINDS: dict[SplitName, tuple[int, ...]] = {  # a block's number modulo 10
    "train": (0, 1, 2, 3, 4, 5, 6, 7),
    "validation": (8,),
    "test": (9,),
}


@dataclass(frozen=True, kw_only=True)
class Text(Task):
    """Next-byte prediction in windows of `length` bytes; every position is scored.

    The corpus is cut into 100 contiguous blocks. Of each ten in a row the first eight are for training,
    the ninth for validation and the tenth for test: interleaved, so that all splits see all parts of a
    book. No window crosses a block. Training windows start anywhere in the training blocks, with replacement.
    Evaluation windows tile their blocks, one byte shared, so that each byte is predicted at most once;
    `eval_size` is an upper limit, and where there are more windows some are drawn.
    """

    name: str = field(default="text", init=False)
    vocab: int = field(default=256, init=False)
    length: int = 256
    train_size: int = 8192
    eval_size: int = 512
    corpus: str = "pydoc-topics"

    def identity(self) -> str:
        """The settings with the corpus's sha256 in place of its name or path.

        Raises ValueError like `read_corpus`.
        """
        return json.dumps({**asdict(self), "corpus": self.provenance()["sha256"]}, sort_keys=True)

    def provenance(self) -> dict[str, str]:
        """The corpus as it was named, and its sha256. Raises ValueError like `read_corpus`."""
        return {"corpus": self.corpus, "sha256": self._read().sha256}

    def score_of(self, metrics: Mapping[str, float]) -> float:
        """The share of a byte's 8 bits that the model saves: 1 - bits per byte / 8, at least 0."""
        return max(0.0, 1 - bits_per_byte(metrics) / 8)

    def figures(
        self, metrics: Mapping[str, float], train: Split, held_out: Split
    ) -> dict[str, float]:
        """Bits per byte."""
        return {"bits_per_byte": bits_per_byte(metrics)}

    def training_text(self, seed: int) -> Tensor:
        """The training blocks, (bytes,) uint8: of each ten the first eight, the tens in random order."""
        runs = self._read().data[: self._block() * BLOCKS].view(BLOCKS // 10, -1)
        order = torch.randperm(len(runs), generator=generator_of(self.identity(), "order", seed))
        return runs[order, : len(KINDS["train"]) * self._block()].flatten()

    def _draw(self, which: SplitName, rows: int, generator: torch.Generator) -> Split:
        data, block = self._read().data, self._block()
        blocks = torch.tensor([i for i in range(BLOCKS) if i % 10 in KINDS[which]]) * block
        if which == "train":
            start = blocks[torch.randint(len(blocks), (rows,), generator=generator)]
            start += torch.randint(block - self.length, (rows,), generator=generator)
        else:
            tiles = torch.arange(0, block - self.length, self.length)
            start = (blocks.unsqueeze(1) + tiles).flatten()
            start = start[torch.randperm(len(start), generator=generator)[:rows]]
        windows = data[start.unsqueeze(1) + torch.arange(self.length + 1)].long()
        return Split(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())

    def _block(self) -> int:
        return len(self._read().data) // BLOCKS

    def _read(self) -> Corpus:
        corpus = read_corpus(self.corpus)
        least, size = BLOCKS * (self.length + 1), len(corpus.data)
        rule = f"corpus {self.corpus} must have at least {least} bytes for windows of {self.length}"
        self._require(size >= least, rule, size, "lengthen it or name another corpus")
        return corpus


def bits_per_byte(metrics: Mapping[str, float]) -> float:
    """Mean cross-entropy in bits, from `Scorer.result`."""
    return metrics["loss"] / math.log(2)


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text that has been read: data (bytes,) uint8, and the sha256 of those bytes."""

    data: Tensor
    sha256: str


@lru_cache(maxsize=4)  # one reading per process, so that a file that changes has no effect half-way
def read_corpus(corpus: str) -> Corpus:
    """The corpus of that name or path.

    Raises ValueError where it is missing, empty or not UTF-8.
    """
    data = NAMED[corpus]() if corpus in NAMED else _read_path(corpus)
    if not data:
        raise ValueError(f"corpus {corpus}: it must hold text, not 0 bytes; name another.")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"corpus {corpus}: it must be UTF-8, not byte {data[error.start]:#04x} at offset "
            f"{error.start}; convert it (iconv -t UTF-8)."
        ) from None
    tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return Corpus(tensor, hashlib.sha256(data).hexdigest())


def _read_path(corpus: str) -> bytes:
    path = Path(corpus).expanduser()
    if path.is_file():
        return path.read_bytes()
    if not path.is_dir():
        names = ", ".join(NAMED)
        start = "" if path.is_absolute() else f" (it starts at {Path.cwd()})"
        raise ValueError(
            f"corpus: it must be {names}, a file or a folder, not {corpus!r}; correct the path{start}."
        )
    files = sorted(file for file in path.rglob("*.txt") if file.is_file())
    if not files:
        raise ValueError(f"corpus {corpus}: the folder must hold .txt files, not none; add some.")
    return b"\n".join(file.read_bytes() for file in files)


def _pydoc_topics() -> bytes:
    """Python's own help on its language, topic after topic; its bytes depend on Python's version."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ValueError(
            "corpus pydoc-topics: this Python must have pydoc_data, not be stripped of it; "
            "install Python's standard library in full, or name a text file."
        ) from None
    return "\n".join(topics.values()).encode()


def _kjv() -> bytes:
    """The King James Bible, a verse and its reference a line, as Debian's program prints it.

    The package keeps its text compressed in a format of its own, which that program alone reads.
    """
    program = shutil.which("bible")
    if program is None:
        raise ValueError(
            "corpus kjv: the program `bible` must be installed, not missing from PATH; "
            "run `apt-get install bible-kjv`, or name a text file."
        )
    command = [program, "-f", "gen1:1-rev22:21"]  # -f: no headings, no line breaks within a verse
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise ValueError(
            f"corpus kjv: {program} must print the text, not fail ({said}); "
            "run `apt-get install --reinstall bible-kjv bible-kjv-text`, or name a text file."
        )
    return done.stdout


NAMED: dict[str, Callable[[], bytes]] = {"pydoc-topics": _pydoc_topics, "kjv": _kjv}
