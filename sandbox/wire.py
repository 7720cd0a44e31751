"""Frames between supervisor and keeper: a JSON header with the sizes, then the bytes of its files.

Neither side trusts the other's sizes: each says how much it takes. Nothing is unpickled.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

HEADER = 4 << 20  # bytes of a header, at most
LENGTH = struct.Struct("!I")


class WireError(Exception):
    """The other side went away or sent what no one of ours sends."""


def send(link: socket.socket, header: dict[str, Any], files: Mapping[str, bytes]) -> None:
    """Send one message. Raises OSError where the other side is gone."""
    sizes = {name: len(data) for name, data in files.items()}
    head = json.dumps({**header, "sizes": sizes}).encode()
    link.sendall(LENGTH.pack(len(head)) + head)
    for data in files.values():
        link.sendall(data)


def receive(
    link: socket.socket, most: Mapping[str, int] | None = None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """One message: its header and files; ``most`` are the bytes taken of each, None for any.

    Raises WireError.
    """
    (length,) = LENGTH.unpack(_exactly(link, LENGTH.size))
    if length > HEADER:
        raise WireError(f"a header of {length} bytes")
    header = json.loads(_exactly(link, length))
    sizes = header.pop("sizes")
    wrong = [
        n for n, size in sizes.items() if most is not None and not 0 <= size <= most.get(n, -1)
    ]
    if wrong:
        raise WireError(f"files nobody asked for, or too large: {wrong}")
    return header, {name: _exactly(link, size) for name, size in sizes.items()}


def _exactly(link: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = link.recv(min(size - len(data), 1 << 20))
        if not part:
            raise WireError("the other side is gone")
        data += part
    return bytes(data)
