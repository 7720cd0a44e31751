"""Generated stand-ins for the four tasks of the Long Range Arena whose data must be downloaded.

They have the form of the real data and a little to learn, so that profiles and tests run without it.
They resemble it in nothing else: their scores compare with no other. Each function gives one row of at
most ``length`` ids; pictures are the largest square that fits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Example = tuple[bytes, int]  # a row's ids, and its label

GOOD = ("superb", "moving", "a joy", "clever", "warm")
BAD = ("dreadful", "stale", "a bore", "clumsy", "cold")
PLAIN = ("the film", "was", "and", "its ending", "I thought", "a scene", "with", "the cast", "then")
TOPICS = ("parser", "tagger", "speech", "corpus", "syntax", "lexicon")


def review(label: int, length: int, generator: torch.Generator) -> bytes:
    """Some twenty words, the judging ones of which are good for label 1 and bad for 0."""
    words = [pick(PLAIN, generator) for _ in range(16)]
    words += [pick(GOOD if label else BAD, generator) for _ in range(4)]
    order = torch.randperm(len(words), generator=generator).tolist()
    return " ".join(words[i] for i in order).encode()[:length]


def pair(label: int, length: int, generator: torch.Generator) -> bytes:
    """Two short documents, with 0xff between them, that are on one topic only for label 1."""
    one, other = torch.randperm(len(TOPICS), generator=generator)[:2].tolist()
    topics = (TOPICS[one], TOPICS[one if label else other])
    texts = [f"{pick(PLAIN, generator)} {topic} {pick(PLAIN, generator)}" for topic in topics]
    return "\xff".join(texts).encode("latin-1")[:length]


def grating(label: int, length: int, generator: torch.Generator) -> bytes:
    """A noisy wave in one of ten directions, the label, with a random phase."""
    angle, phase = math.pi * label / 10, 2 * math.pi * torch.rand(1, generator=generator)
    axis = torch.arange(math.isqrt(length))
    across = math.cos(angle) * axis + math.sin(angle) * axis.unsqueeze(1)
    wave = 128 + 80 * torch.sin(0.8 * across + phase)
    noise = 20 * torch.randn(wave.shape, generator=generator)
    return pixels((wave + noise).clamp(0, 255))


def paths(label: int, length: int, generator: torch.Generator) -> bytes:
    """Two paths across, one above the other, and two end marks, both on one path for label 1."""
    side = math.isqrt(length)
    image, across = torch.zeros(side, side), torch.arange(1, side - 1)
    heights = []
    for centre in (side // 4, side - 1 - side // 4):
        steps = torch.randint(-1, 2, across.shape, generator=generator)
        reach = side // 4 - 2  # so that the paths stay apart, and the marks in the picture
        heights.append((centre + steps.cumsum(0)).clamp(centre - reach, centre + reach))
        image[heights[-1], across] = 150.0
    start = int(torch.randint(2, (1,), generator=generator))
    end = start if label else 1 - start
    for height, x in ((int(heights[start][0]), 1), (int(heights[end][-1]), side - 2)):
        image[height - 1 : height + 2, x - 1 : x + 2] = 255.0
    return pixels(image)


def pixels(image: Tensor) -> bytes:
    """(H, W) numbers from 0 to 255 -> H x W bytes, line by line."""
    return bytes(image.to(torch.uint8).flatten().tolist())


def pick(words: tuple[str, ...], generator: torch.Generator) -> str:
    """One of the words, uniformly."""
    return words[int(torch.randint(len(words), (1,), generator=generator))]
