"""Reference architectures by name, with their source; every leaderboard can carry them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """A published pattern at the depth it was published for."""

    name: str
    pattern: str
    source: str


_AIRA = "arXiv 2605.15871"
_COMPOSER = "arXiv 2510.00379"
_HYBRIDS = "arXiv 2510.04800"

REFERENCES = {
    reference.name: reference
    for reference in (
        Reference("llama", "8(A+M)", "Llama: attention and MLP alternate, arXiv 2302.13971"),
        Reference("mamba", "8(Mb+M)", "Mamba-2 and MLP alternate, arXiv 2405.21060"),
        Reference("sandwich", "3A+5(A+M)+3M", "Press et al. 2020, arXiv 1911.03864"),
        Reference("composite-6", "2A+4M", _COMPOSER),
        Reference("composite-16", "2A+5M+2A+3M+A+3M", _COMPOSER),
        Reference("composer-hybrid", "2Mb+M+3A", _COMPOSER),
        # One block in six has attention, in the middle: never at the front, they find.
        Reference("hybrid-inter", "3(Mb+M)+(A+M)+2(Mb+M)", _HYBRIDS),
        Reference("hybrid-intra", "3(Mb+M)+([A|Mb]+M)+2(Mb+M)", _HYBRIDS),
        Reference("former-A", "(A+M)+(2A+2M)+4(A+M)+2M", _AIRA),
        Reference("former-B", "2A+5(A+M)+4M", _AIRA),
        Reference("former-C", "(2A+M)+3(A+M)+(2A+M)+4A", _AIRA),
        Reference("former-D", "5(2A+M)+A", _AIRA),
        Reference("hybrid-A", "2Mb+M+11Mb+2M", _AIRA),
        Reference("hybrid-B", "3(2Mb+M+A)+2Mb+2M", _AIRA),
        Reference("hybrid-C", "2Mb+A+2(Mb+A)+M+2(A+Mb+A+M)", _AIRA),
        Reference("hybrid-D", "2Mb+M+2(Mb+M)+A+M+Mb+M+A+M+Mb+M+A", _AIRA),
        Reference("hybrid-E", "5(Mb+M+A)+M", _AIRA),
    )
}
