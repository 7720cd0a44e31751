"""Seeds: every random draw of a campaign comes from one of these, and the ledger holds them."""

from __future__ import annotations

import hashlib
import json


def derive(seed: int, *purpose: str | int) -> int:
    """A 31-bit seed for one purpose, a hash of both: purposes share no stream."""
    digest = hashlib.blake2b(json.dumps([seed, *purpose]).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
