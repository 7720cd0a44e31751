"""Reads small greyscale PNG images, many of one size at once, with zlib and torch alone.

Only what Pathfinder's files are: 8 bits, one channel, not interlaced (PNG specification, sections 5
and 9). Checksums of chunks are not verified; the digest of the data set is the caller's business.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def grey_images(files: Sequence[bytes], width: int, height: int) -> Tensor:
    """The images in the files' bytes: (N, height, width) uint8.

    Raises ValueError for a file that is not such an image of that size.
    """
    if not files:
        return torch.zeros(0, height, width, dtype=torch.uint8)
    raw = b"".join(_scanlines(file, width, height) for file in files)
    lines = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(-1, height, width + 1).int()
    kind, pixels = lines[:, :, 0], lines[:, :, 1:]
    if len(kind) and kind.max() > 4:
        raise ValueError(
            f"png: a line's filter must be 0 to 4, not {int(kind.max())}; save it anew."
        )
    image = torch.zeros(
        len(files), height + 1, width + 1, dtype=torch.int32
    )  # zeros above and left
    for y in range(height):
        for x in range(width):
            left, up, corner = image[:, y + 1, x], image[:, y, x + 1], image[:, y, x]
            guesses = (torch.zeros_like(up), left, up, (left + up) // 2, _paeth(left, up, corner))
            guess = torch.stack(guesses, 1).gather(1, kind[:, y, None].long()).squeeze(1)
            image[:, y + 1, x + 1] = (pixels[:, y, x] + guess) & 255
    return image[:, 1:, 1:].to(torch.uint8)


def _paeth(left: Tensor, up: Tensor, corner: Tensor) -> Tensor:
    """Of three neighbours the one nearest to left + up - corner; left before up before corner."""
    to_left, to_up, to_corner = (
        (up - corner).abs(),
        (left - corner).abs(),
        (left + up - 2 * corner).abs(),
    )
    up_or_corner = torch.where(to_up <= to_corner, up, corner)
    return torch.where((to_left <= to_up) & (to_left <= to_corner), left, up_or_corner)


def _scanlines(file: bytes, width: int, height: int) -> bytes:
    """The inflated lines, each with its filter byte. Raises ValueError."""
    chunks = dict.fromkeys((b"IHDR", b"IDAT"), b"")
    for kind, body in _chunks(file):
        if kind in chunks:
            chunks[kind] += body
    wanted = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    try:
        lines = zlib.decompress(chunks[b"IDAT"])
    except zlib.error:
        lines = b""
    if chunks[b"IHDR"] != wanted or len(lines) != height * (width + 1):
        rule = f"an image must be greyscale of 8 bits, {width} x {height}, not interlaced"
        raise ValueError(
            f"png: {rule}, not {len(file)} bytes of something else; get the file again."
        )
    return lines


def _chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, data) of each whole chunk; none where the signature is missing."""
    at = len(SIGNATURE) if file.startswith(SIGNATURE) else len(file)
    while at + 12 <= len(file):
        (size,) = struct.unpack(">I", file[at : at + 4])
        yield file[at + 4 : at + 8], file[at + 8 : at + 8 + size]
        at += 12 + size
