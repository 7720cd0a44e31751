"""Four tasks of the Long Range Arena that are read from a copy of the public data (arXiv 2011.04006).

`lra-text`, `lra-retrieval`, `lra-image` and `lra-pathfinder`; `lra-listops` is generated elsewhere.
Nothing is downloaded: the folder is the setting `root` or the environment variable ARCHWRIGHT_LRA, and
what is missing there is named by an error. A digest of what was read is part of each task's identity.
With `standin` set a task generates small substitutes instead (`standins`), and every result says so.

The files are those that their publishers offer. The two archives are checked by size and by their
published md5. No digest was ever published for the other two, whose rows are counted; their sha256 is
kept with each measurement all the same.

Where this departs from the authors' code, each on purpose:
- Validation is never the test set, as it is in their text task: every tenth training review is held
  out. Their image task holds out the last tenth of the training images, and so does this.
- Pathfinder's images are split 8 : 1 : 1 by their number, not by a shuffle that nobody can repeat.
- Retrieval is one sequence, document, separator, document, and not two towers joined at the end; its
  scores compare with no published ones.
- Models are causal and their states are averaged; theirs see both ways and mostly read one position.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import torch

from evaluator.tasks.base import Split, SplitName
from evaluator.tasks.classify import Classification, labelled_last
from evaluator.tasks.png import grey_images
from evaluator.tasks.standins import Example, grating, pair, paths, review

VARIABLE = "ARCHWRIGHT_LRA"
SEPARATOR = b"\xff"  # no byte of UTF-8 text
Examples = dict[SplitName, list[Example]]


@dataclass(frozen=True)
class Archive:
    """A file as its publisher offers it."""

    name: str
    size: int
    md5: str
    url: str


IMDB = Archive(
    "aclImdb_v1.tar.gz",
    84_125_825,
    "7c2ac02c03563afcf9b574c7e56c153a",
    "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
)
CIFAR = Archive(
    "cifar-10-binary.tar.gz",
    170_052_171,
    "c32a1d4ab5d03f1284b67883e8d87530",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
)
RELEASE = "https://storage.googleapis.com/long-range-arena/lra_release.gz"
AAN_ROWS: dict[SplitName, int] = {"train": 147_086, "validation": 18_090, "test": 17_437}
PATHFINDER_ROWS = 200_000
TENTHS: dict[int, SplitName] = {**dict.fromkeys(range(8), "train"), 8: "validation", 9: "test"}


@dataclass(frozen=True, kw_only=True)
class Loaded(Classification):
    """A classification of byte sequences that are read from disk.

    `train_size` and `eval_size` are upper limits: of more rows than that, a seed draws some. `root` is
    the folder of the data, where it is not the environment's. Ids are bytes, and shorter rows end in
    zeros.
    """

    vocab: int = field(default=256, init=False)
    root: str = ""
    standin: bool = False

    def identity(self) -> str:
        """The settings with the data's sha256 in place of their folder. Raises like `provenance`."""
        return json.dumps({**asdict(self), "root": self.provenance()}, sort_keys=True)

    def provenance(self) -> dict[str, str]:
        """The data's sha256, or that they are a stand-in.

        Raises ValueError where the data are missing, or are not the published ones.
        """
        if self.standin:
            return {"standin": "generated; not the data of the Long Range Arena"}
        return {"sha256": published(type(self), self.folder())[1]}

    def figures(
        self, metrics: Mapping[str, float], train: Split, held_out: Split
    ) -> dict[str, float]:
        """`standin` = 1 beside every score that is not of the real data."""
        return {"standin": 1.0} if self.standin else {}

    def folder(self) -> Path:
        """Where the data are. Raises ValueError where nobody says."""
        place = self.root or os.environ.get(VARIABLE, "")
        rule = f"its data's folder must be in the environment variable {VARIABLE}"
        way_out = f"put {self.wanted()} there, or try the machinery with profile lra-standins"
        self._require(bool(place), rule, place, way_out)
        return Path(place).expanduser()

    @staticmethod
    @abstractmethod
    def make(label: int, length: int, generator: torch.Generator) -> bytes:
        """A row of the stand-in, of at most ``length`` ids."""

    @classmethod
    @abstractmethod
    def wanted(cls) -> str:
        """What must lie in the folder, and where it comes from."""

    @classmethod
    @abstractmethod
    def read(cls, folder: Path) -> Examples:
        """All rows of the data. Raises ValueError where they are missing or not the published ones."""

    def _draw(self, which: SplitName, rows: int, generator: torch.Generator) -> Split:
        if self.standin:
            labels = torch.randint(self.classes, (rows,), generator=generator).tolist()
            examples = [(self.make(label, self.length, generator), label) for label in labels]
        else:
            examples = published(type(self), self.folder())[0][which]
        order = torch.randperm(len(examples), generator=generator)[:rows].tolist()
        return self._packed([examples[i] for i in order])

    def _packed(self, examples: list[Example]) -> Split:
        cut = [ids[: self.length] or b"\0" for ids, _ in examples]
        raw = b"".join(ids.ljust(self.length, b"\0") for ids in cut)
        tokens = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(-1, self.length)
        lengths = torch.tensor([len(ids) for ids in cut])
        return labelled_last(tokens, lengths, torch.tensor([label for _, label in examples]))


@lru_cache(maxsize=2)  # a worker meets few of them, and each takes minutes to read and gigabytes
def published(kind: type[Loaded], folder: Path) -> tuple[Examples, str]:
    """All rows of a task's data, and the sha256 of rows and labels in order."""
    examples, sha256 = kind.read(folder), hashlib.sha256()
    for which, rows in examples.items():
        sha256.update(f"{which} {len(rows)}".encode())
        for ids, label in rows:
            sha256.update(f" {label} {len(ids)} ".encode() + ids)
    return examples, sha256.hexdigest()


@dataclass(frozen=True, kw_only=True)
class LraText(Loaded):
    """Is a film review favourable? IMDB (Maas et al. 2011), as bytes."""

    name: str = field(default="lra-text", init=False)
    classes: int = field(default=2, init=False)
    length: int = 4096
    train_size: int = 22_500
    eval_size: int = 25_000
    make = staticmethod(review)

    @classmethod
    def wanted(cls) -> str:
        return f"{IMDB.name} ({IMDB.url})"

    @classmethod
    def read(cls, folder: Path) -> Examples:
        """aclImdb/{train,test}/{pos,neg}/*.txt of the archive, in the order of their names."""
        reviews = {
            name: body
            for name, body in members(cls.name, folder, IMDB)
            if name.count("/") == 3 and name.split("/")[2] in ("pos", "neg")
        }
        found: Examples = {"train": [], "validation": [], "test": []}
        for number, name in enumerate(sorted(reviews)):
            held_out: SplitName = "validation" if number % 10 == 9 else "train"
            which = "test" if name.split("/")[1] == "test" else held_out
            found[which].append((reviews[name], int(name.split("/")[2] == "pos")))
        return found


@dataclass(frozen=True, kw_only=True)
class LraImage(Loaded):
    """Which of ten things does a picture show? CIFAR-10 in greyscale, pixel by pixel, line by line."""

    name: str = field(default="lra-image", init=False)
    classes: int = field(default=10, init=False)
    length: int = 1024
    train_size: int = 45_000
    eval_size: int = 10_000
    make = staticmethod(grating)

    @classmethod
    def wanted(cls) -> str:
        return f"{CIFAR.name} ({CIFAR.url})"

    @classmethod
    def read(cls, folder: Path) -> Examples:
        """The .bin files of the archive; the last tenth of the training images is for validation."""
        files = {Path(name).name: body for name, body in members(cls.name, folder, CIFAR)}
        train = [row for i in range(1, 6) for row in cls._rows(files[f"data_batch_{i}.bin"])]
        kept = len(train) * 9 // 10
        test = cls._rows(files["test_batch.bin"])
        return {"train": train[:kept], "validation": train[kept:], "test": test}

    @staticmethod
    def _rows(file: bytes) -> list[Example]:
        """Records of a label byte and 1,024 bytes each of red, green and blue.

        Greys are the authors': the weights of ITU-R 601, cut to whole numbers as TensorFlow does.
        """
        records = torch.frombuffer(bytearray(file), dtype=torch.uint8).view(-1, 3073)
        weights = torch.tensor([0.2989, 0.5870, 0.1140], dtype=torch.float64)
        colours = records[:, 1:].view(-1, 3, 1024).double()
        grey = (weights.view(3, 1) * colours).sum(1) * (255.5 / 255)
        return [
            (bytes(row), label)
            for row, label in zip(grey.int().tolist(), records[:, 0].tolist(), strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class LraRetrieval(Loaded):
    """Do two papers cite each other? ACL Anthology Network, 4,000 bytes of each, 0xff between them."""

    name: str = field(default="lra-retrieval", init=False)
    classes: int = field(default=2, init=False)
    length: int = 8001
    train_size: int = AAN_ROWS["train"]
    eval_size: int = AAN_ROWS["validation"]
    make = staticmethod(pair)

    @classmethod
    def wanted(cls) -> str:
        return f"lra_release/ ({RELEASE}, unpacked)"

    @classmethod
    def read(cls, folder: Path) -> Examples:
        """tsv_data/new_aan_pairs.{train,eval,test}.tsv of the release."""
        found: Examples = {}
        for which, rows in AAN_ROWS.items():
            part = "eval" if which == "validation" else which
            path = located(cls, folder, f"tsv_data/new_aan_pairs.{part}.tsv")
            with path.open("rb") as lines:
                found[which] = [cls._row(path, line) for line in lines]
            counted(cls.name, path, rows, len(found[which]))
        return found

    @classmethod
    def _row(cls, path: Path, line: bytes) -> Example:
        """A label, two numbers and two texts, a tab between them."""
        fields = line.rstrip(b"\r\n").split(b"\t")
        if len(fields) != 5 or fields[0] not in (b"0", b"1", b"0.0", b"1.0"):
            raise misshapen(cls, path, "a label and four more fields in each line", line)
        texts = (unquoted(text, 4000) for text in fields[3:])
        return SEPARATOR.join(texts), int(float(fields[0]))


@dataclass(frozen=True, kw_only=True)
class LraPathfinder(Loaded):
    """Are two marks on one dashed path? Pathfinder, 32 x 32, the hard set (contour length 14)."""

    name: str = field(default="lra-pathfinder", init=False)
    classes: int = field(default=2, init=False)
    length: int = 1024
    train_size: int = 160_000
    eval_size: int = 20_000
    make = staticmethod(paths)

    @classmethod
    def wanted(cls) -> str:
        return f"lra_release/ ({RELEASE}, unpacked)"

    @classmethod
    def read(cls, folder: Path) -> Examples:
        """pathfinder32/curv_contour_length_14: lists in metadata/<number>.npy, images in imgs/."""
        root = located(cls, folder, "pathfinder32/curv_contour_length_14")
        lists = [path for path in (root / "metadata").glob("*.npy") if path.stem.isdigit()]
        found: Examples = {"train": [], "validation": [], "test": []}
        listed = 0
        for path in sorted(lists, key=lambda path: int(path.stem)):
            rows = cls._listed(root, path)
            kept = [i for i, (file, _) in enumerate(rows) if file]  # the release has an empty file
            try:
                images = grey_images([rows[i][0] for i in kept], 32, 32).flatten(1).tolist()
            except ValueError as error:
                raise ValueError(f"{cls.name}: in {path}: {error}") from error
            for i, image in zip(kept, images, strict=True):
                found[TENTHS[(listed + i) % 10]].append((bytes(image), rows[i][1]))
            listed += len(rows)
        counted(cls.name, root, PATHFINDER_ROWS, listed)
        return found

    @classmethod
    def _listed(cls, root: Path, path: Path) -> list[Example]:
        """The image file and the label of each line of a list: folder, file, number, label, and more."""
        found = []
        for line in path.read_bytes().splitlines():
            words = line.decode(errors="replace").split()
            if len(words) < 4 or words[3] not in ("0", "1"):
                raise misshapen(cls, path, "an image and its label in each line", line)
            image = root / words[0] / words[1]
            if not image.is_file():
                raise misshapen(cls, path, "images that are there", line)
            found.append((image.read_bytes(), int(words[3])))
        return found


def members(task: str, folder: Path, archive: Archive) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each file in an archive, after its size and md5 were found right.

    Nothing is unpacked to disk. Raises ValueError.
    """
    path = folder / archive.name
    way_out = f"get it from {archive.url}"
    if not path.is_file():
        raise ValueError(f"{task}: {path} must be there, not missing; {way_out}.")
    size = path.stat().st_size
    if size != archive.size:
        raise ValueError(f"{task}: {path} must have {archive.size} bytes, not {size}; {way_out}.")
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if md5 != archive.md5:
        raise ValueError(f"{task}: the md5 of {path} must be {archive.md5}, not {md5}; {way_out}.")
    with tarfile.open(path) as tar:
        for member in tar:
            if (body := tar.extractfile(member)) is not None:
                yield member.name, body.read()


def located(kind: type[Loaded], folder: Path, name: str) -> Path:
    """A file or folder of the release, however much of the release's own nesting was kept.

    Raises ValueError.
    """
    places = [folder / nesting / name for nesting in ("", "lra_release", "lra_release/lra_release")]
    for place in places:
        if place.exists():
            return place
    raise ValueError(
        f"{kind.name}: {places[0]} must be there, not missing; put {kind.wanted()} there."
    )


def counted(task: str, place: Path, rows: int, found: int) -> None:
    """Raise ValueError where a data set has not its published number of rows."""
    if rows != found:
        raise ValueError(
            f"{task}: {place} must have {rows} rows, not {found}; get {RELEASE} again."
        )


def misshapen(kind: type[Loaded], path: Path, rule: str, line: bytes) -> ValueError:
    """The error for a line of the release that is not as published."""
    return ValueError(
        f"{kind.name}: {path} must have {rule}, not {line[:60]!r}; get {RELEASE} again."
    )


def unquoted(text: bytes, limit: int) -> bytes:
    """The first ``limit`` bytes of a field, which the release writes as a Python literal, b'...'.

    Four characters write a byte at most, so that only the beginning is decoded; a byte 0xff, the
    separator, becomes a question mark.
    """
    if text[:2] in (b"b'", b'b"'):
        text = (
            text[2:-1][: 4 * limit].decode("unicode_escape", "ignore").encode("latin-1", "replace")
        )
    return text[:limit].replace(SEPARATOR, b"?")
