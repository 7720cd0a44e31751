"""Short digests of papers, from a folder of the user's, and which of them bear on a prompt, by BM25.

A digest is one `.md` or `.txt` file, shown under its name, whole or not at all. Nothing is fetched or
summarised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from agents.prompts import clean
from agents.prompts.sections import tokens

SUFFIXES = (".md", ".txt")
LONGEST = 6_000  # characters of a digest


@dataclass(frozen=True)
class Digest:
    """A digest as a prompt shows it: the file's name, and its text on one line."""

    name: str
    text: str


def load(folder: Path) -> tuple[Digest, ...]:
    """The digests of a folder in the order of their names. Raises ValueError when there are none."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
        found = [Digest(clean(p.name, 100), clean(p.read_text("utf-8"), LONGEST)) for p in files]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"literature: cannot read {folder} ({error}): mend or drop it") from error
    if not any(digest.text for digest in found):
        raise ValueError(
            f"literature: {folder} has no {' or '.join(SUFFIXES)} file with text in it: add paper "
            "digests, or drop the field"
        )
    return tuple(digest for digest in found if digest.text)


def relevant(digests: tuple[Digest, ...], query: str, budget_tokens: int) -> list[Digest]:
    """The digests that share words with the query, most relevant first, as many as fit into the budget;
    of equally relevant ones the first by name. One that does not fit is passed over."""
    kept, room = [], budget_tokens
    for digest in _ranked(digests, query) if digests else []:
        size = tokens(f"- {digest.name}: <<<{digest.text}>>>\n")
        if size <= room:
            kept.append(digest)
            room -= size
    return kept


def _ranked(digests: tuple[Digest, ...], query: str) -> list[Digest]:
    words = _words([query])[0]
    index = _index(digests) if words else None
    if index is None:  # bm25s fails on nothing, be it the query or what is searched
        return []
    scores = index.get_scores(words)
    found = [(-float(score), i) for i, score in enumerate(scores) if score > 0]
    return [digests[i] for _, i in sorted(found)]


@lru_cache(maxsize=4)
def _index(digests: tuple[Digest, ...]) -> Any:
    """The index of all digests; None where there is not one word in them."""
    import bm25s

    words = _words([f"{digest.name} {digest.text}" for digest in digests])
    if not any(words):
        return None
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    return index


def _words(texts: Sequence[str]) -> list[list[str]]:
    if not any(texts):
        return [[] for _ in texts]
    import bm25s  # .5 s, so not before there is something to rank

    words: list[list[str]] = bm25s.tokenize(
        list(texts), stopwords="en", return_ids=False, show_progress=False
    )
    return words
