"""The Long Range Arena tasks that read public data, on small copies in the public layouts."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
import zlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evaluator.tasks import IGNORE, LraImage, LraPathfinder, LraRetrieval, LraText, Split
from evaluator.tasks import lra as lra_module
from evaluator.tasks.base import SplitName
from evaluator.tasks.lra import Archive, Loaded, unquoted
from evaluator.tasks.png import grey_images

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
KINDS: tuple[type[Loaded], ...] = (LraText, LraRetrieval, LraImage, LraPathfinder)


def packed(folder: Path, name: str, files: dict[str, bytes]) -> Archive:
    """Write a .tar.gz of the files; the archive's true size and md5."""
    with tarfile.open(folder / name, "w:gz") as tar:
        for path, body in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    data = (folder / name).read_bytes()
    return Archive(name, len(data), hashlib.md5(data).hexdigest(), "https://example.org")


def examples(split: Split) -> set[tuple[bytes, int]]:
    """(ids, label) of each row, cut at the labelled place."""
    found = set()
    for row, labels in zip(split.inputs.tolist(), split.labels.tolist(), strict=True):
        ((place, label),) = [(i, y) for i, y in enumerate(labels) if y != IGNORE]
        assert not any(row[place + 1 :]), "padding is zeros after the label"
        found.add((bytes(row[: place + 1]), label))
    return found


# Text


@pytest.fixture
def imdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        f"aclImdb/{split}/{mood}/{i}_1.txt": f"{split} {mood} {i}".encode()
        for split in ("train", "test")
        for mood in ("pos", "neg")
        for i in range(20)
    }
    extra = {"aclImdb/train/unsup/0_0.txt": b"no", "aclImdb/README": b"no"}
    monkeypatch.setattr(lra_module, "IMDB", packed(tmp_path, "imdb.tar.gz", files | extra))
    return tmp_path


def test_reviews_are_read_and_no_split_overlaps(imdb: Path) -> None:
    task = LraText(root=str(imdb), length=32)
    found = {which: examples(task.split(which, 0)) for which in SPLITS}
    assert {which: len(rows) for which, rows in found.items()} == {
        "train": 36,
        "validation": 4,
        "test": 40,
    }
    assert not found["train"] & found["validation"]
    assert all(text.startswith(b"test") for text, _ in found["test"])
    assert all((b"pos" in text) == bool(label) for rows in found.values() for text, label in rows)
    assert len({label for _, label in found["validation"]}) == 2


def test_long_rows_are_cut_and_fewer_rows_are_drawn_by_seed(imdb: Path) -> None:
    task = LraText(root=str(imdb), length=9, train_size=10)
    split = task.split("train", 0)
    assert split.inputs.shape == (10, 9)
    assert (split.labels[:, -1] != IGNORE).all()
    assert torch.equal(split.inputs, task.split("train", 0).inputs)
    assert not torch.equal(split.inputs, task.split("train", 1).inputs)


def test_the_data_and_not_their_folder_are_the_identity(
    imdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = imdb / "copy"
    elsewhere.mkdir()
    (elsewhere / "imdb.tar.gz").write_bytes((imdb / "imdb.tar.gz").read_bytes())
    monkeypatch.setenv("ARCHWRIGHT_LRA", str(elsewhere))
    by_setting, by_variable = LraText(root=str(imdb)), LraText()
    assert by_setting.identity() == by_variable.identity()
    assert len(by_variable.provenance()["sha256"]) == 64
    assert by_variable.figures({}, *[by_variable.split("test", 0)] * 2) == {}
    assert by_variable.identity() != LraText(standin=True).identity()


def test_a_missing_archive_is_refused_with_its_address(tmp_path: Path) -> None:
    task = LraText(root=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"^lra-text: .* must be there, not missing; get it from"
    ) as e:
        task.provenance()
    assert "aclImdb_v1.tar.gz" in str(e.value) and "https://" in str(e.value)


def test_size_and_digest_are_checked(imdb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = lra_module.IMDB
    altered = Archive(true.name, true.size, "0" * 32, true.url)
    monkeypatch.setattr(lra_module, "IMDB", altered)
    with pytest.raises(ValueError, match=f"md5 of .* must be {'0' * 32}, not {true.md5}; get it"):
        LraText(root=str(imdb)).provenance()
    monkeypatch.setattr(lra_module, "IMDB", Archive(true.name, 7, true.md5, true.url))
    with pytest.raises(ValueError, match=f"must have 7 bytes, not {true.size}; get it from"):
        LraText(root=str(imdb)).provenance()


@pytest.mark.parametrize("kind", KINDS)
def test_nowhere_to_look_is_one_sentence(
    kind: type[Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARCHWRIGHT_LRA", raising=False)
    with pytest.raises(ValueError, match=r"variable ARCHWRIGHT_LRA, not ''; put .*https://"):
        kind().split("train", 0)


# Image


def test_pictures_are_read_as_grey_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shake = torch.Generator().manual_seed(0)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    raw = {name: torch.randint(256, (4, 3073), generator=shake) for name in names}
    for records in raw.values():
        records[:, 0] %= 10
    files = {
        f"cifar-10-batches-bin/{name}": bytes(records.flatten().tolist())
        for name, records in raw.items()
    }
    monkeypatch.setattr(lra_module, "CIFAR", packed(tmp_path, "cifar.tar.gz", files))
    task = LraImage(root=str(tmp_path))
    sizes = [len(task.split(which, 0).inputs) for which in SPLITS]
    assert sizes == [18, 2, 4]
    wanted = set()
    for record in raw["test_batch.bin"].tolist():
        pixels = zip(record[1:1025], record[1025:2049], record[2049:], strict=True)
        grey = [int((0.2989 * r + 0.5870 * g + 0.1140 * b) / 255 * 255.5) for r, g, b in pixels]
        wanted.add((bytes(grey), record[0]))
    assert examples(task.split("test", 0)) == wanted


# Retrieval


def test_pairs_are_read_from_literals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lra_release" / "lra_release" / "tsv_data"
    folder.mkdir(parents=True)
    long = bytes(range(256)) * 20
    lines = {
        "train": [(1.0, b"a\ttab", b'it\'s "so"'), (0.0, long, b"x"), (0.0, b"", b"y")],
        "eval": [(1.0, b"b", b"c")],
        "test": [(0.0, b"d\n", b"e\\n")],
    }
    for part, rows in lines.items():
        text = "".join(f"{label}\t1\t2\t{one!r}\t{two!r}\n" for label, one, two in rows)
        (folder / f"new_aan_pairs.{part}.tsv").write_text(text)
    counts = {"train": 3, "validation": 1, "test": 1}
    monkeypatch.setattr(lra_module, "AAN_ROWS", counts)
    task = LraRetrieval(root=str(tmp_path))
    first = long[:4000].replace(b"\xff", b"?")
    assert examples(task.split("train", 0)) == {
        (b'a\ttab\xffit\'s "so"', 1),
        (first + b"\xffx", 0),
        (b"\xffy", 0),
    }
    assert examples(task.split("test", 0)) == {(b"d\n\xffe\\n", 0)}
    monkeypatch.setattr(lra_module, "AAN_ROWS", {**counts, "test": 2})
    lra_module.published.cache_clear()
    with pytest.raises(ValueError, match=r"new_aan_pairs.test.tsv must have 2 rows, not 1; get"):
        task.provenance()


def test_a_literal_is_decoded_only_as_far_as_needed() -> None:
    assert unquoted(repr(b"\x01" * 50).encode(), 7) == b"\x01" * 7
    assert unquoted(b"plain", 3) == b"pla"
    assert unquoted(repr(b"ab\\").encode(), 9) == b"ab\\"


def test_a_missing_release_is_refused(tmp_path: Path) -> None:
    for kind in (LraRetrieval, LraPathfinder):
        with pytest.raises(
            ValueError, match=r"must be there, not missing; put lra_release/ .* there"
        ):
            kind(root=str(tmp_path)).provenance()


# Pathfinder, and PNG


def png(image: Tensor, filters: list[int]) -> bytes:
    """An 8-bit greyscale PNG with the given filter of each line, by the specification."""
    height, width = image.shape
    padded = torch.zeros(height + 1, width + 1, dtype=torch.int64)
    padded[1:, 1:] = image
    lines = b""
    for y, kind in enumerate(filters, 1):
        out = []
        for x in range(1, width + 1):
            a, b, c = (int(padded[p]) for p in ((y, x - 1), (y - 1, x), (y - 1, x - 1)))
            nearest = min((a, b, c), key=lambda v: abs(a + b - c - v))
            out.append((int(padded[y, x]) - (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
        lines += bytes([kind, *out])

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    packed = zlib.compress(lines)
    data = chunk(b"IDAT", packed[:9]) + chunk(b"IDAT", packed[9:])
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"tEXt", b"k\0v") + data + chunk(b"IEND", b"")


def test_all_filters_of_png_are_undone() -> None:
    shake = torch.Generator().manual_seed(0)
    images = torch.randint(256, (8, 10, 7), generator=shake)
    images[4:] //= 100  # flat ones, where predictions tie
    filters = torch.randint(5, (8, 10), generator=shake).tolist()
    files = [png(image, kinds) for image, kinds in zip(images, filters, strict=True)]
    assert torch.equal(grey_images(files, 7, 10).long(), images)
    assert grey_images([], 7, 10).shape == (0, 10, 7)


@pytest.mark.parametrize("damage", ["empty", "cut", "size", "filter"])
def test_what_is_no_such_png_is_refused(damage: str) -> None:
    file = png(torch.zeros(4, 4, dtype=torch.int64), [0] * 4)
    if damage == "filter":
        file = png(torch.zeros(4, 4, dtype=torch.int64), [0] * 4)
        lines = zlib.compress(bytes([9, 0, 0, 0, 0] * 4))
        body = struct.pack(">I", len(lines)) + b"IDAT" + lines + b"crc."
        file = file[:33] + body  # signature and IHDR, then other lines
    broken = {"empty": b"", "cut": file[:50], "size": file, "filter": file}[damage]
    side = 5 if damage == "size" else 4
    with pytest.raises(ValueError, match=r"^png: .* must be .*, not .*; .*\.$"):
        grey_images([broken], side, side)


def test_pathfinder_is_read_from_lists_and_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "pathfinder32" / "curv_contour_length_14"
    (root / "metadata").mkdir(parents=True)
    shake = torch.Generator().manual_seed(0)
    wanted: dict[str, set[tuple[bytes, int]]] = {which: set() for which in SPLITS}
    for number in range(2):
        (root / "imgs" / str(number)).mkdir(parents=True)
        lines = []
        for i in range(10):
            image, label = torch.randint(256, (32, 32), generator=shake), i % 2
            file = png(image, [i % 5] * 32)
            empty = (number, i) == (1, 9)  # as one in the release is
            (root / "imgs" / str(number) / f"sample_{i}.png").write_bytes(b"" if empty else file)
            lines.append(f"imgs/{number} sample_{i}.png {i} {label} 1.8 1 2 3")
            if not empty:
                which = {8: "validation", 9: "test"}.get(i, "train")
                wanted[which].add((bytes(image.flatten().tolist()), label))
        (root / "metadata" / f"{number}.npy").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(lra_module, "PATHFINDER_ROWS", 20)
    task = LraPathfinder(root=str(tmp_path))
    assert {which: examples(task.split(which, 0)) for which in SPLITS} == wanted
    monkeypatch.setattr(lra_module, "PATHFINDER_ROWS", 21)
    lra_module.published.cache_clear()
    with pytest.raises(ValueError, match="must have 21 rows, not 20; get"):
        task.provenance()


# Stand-ins


@pytest.mark.parametrize("kind", KINDS)
def test_a_stand_in_has_the_form_of_the_data_and_says_what_it_is(kind: type[Loaded]) -> None:
    task = kind(standin=True, train_size=120, eval_size=120)
    seen: set[tuple[bytes, int]] = set()
    for which in SPLITS:
        split = task.split(which, 0)
        assert split.inputs.shape == split.labels.shape == (120, task.length)
        assert torch.equal(split.inputs, task.split(which, 0).inputs)
        rows = examples(split)
        assert {label for _, label in rows} == set(range(task.classes))
        if kind is not LraRetrieval:  # whose few words make rows that recur
            assert not rows & seen
        seen |= rows
    assert task.provenance().keys() == {"standin"}
    assert task.figures({}, split, split) == {"standin": 1.0}
    assert '"standin": true' in task.identity()


def test_stand_ins_can_be_told_apart() -> None:
    """Their rules, applied by hand, give their labels."""
    for text, label in examples(LraText(standin=True, eval_size=50).split("test", 0)):
        good = any(word in text.decode() for word in ("superb", "moving", "joy", "clever", "warm"))
        assert good == bool(label)
    topics = ("parser", "tagger", "speech", "corpus", "syntax", "lexicon")
    for text, label in examples(LraRetrieval(standin=True, eval_size=50).split("test", 0)):
        one, other = (
            [t for t in topics if t in part] for part in text.decode("latin-1").split("ÿ")
        )
        assert (one == other) == bool(label)
    for image, label in examples(LraPathfinder(standin=True, eval_size=50).split("test", 0)):
        picture = torch.tensor(list(image)).view(32, 32)
        rows = [int((picture[:, x] == 255).nonzero()[0]) // 16 for x in (0, 31)]
        assert (rows[0] == rows[1]) == bool(label)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="length must be a whole number of at least 1, not 0"):
        LraText(length=0)
