"""`python tests/sandbox/false_alarms.py [N] [FIRST]`: how many of N honest modules each check fails, as JSON.

Minutes for the 200 that count; the tests take three of them.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import Counter

from honest import honest

from sandbox.gate import Terms, certify
from sandbox.gate.copies import catalogue
from sandbox.run import Sandbox


def main(modules: int = 200, first: int = 0) -> None:
    """Print a line for each false alarm, and the counts last."""
    alarms: Counter[str] = Counter()
    seconds, terms = [], Terms(known=catalogue())
    with Sandbox() as sandbox:
        for number in range(first, first + modules):
            start = time.monotonic()
            found = certify(honest(number), sandbox, terms)
            seconds.append(time.monotonic() - start)
            alarms.update(found.failed)
            for row in found.rows:
                if row.verdict == "fail":
                    print(number, row.name, row.detail, file=sys.stderr)
    print(
        json.dumps({"modules": modules, "alarms": alarms, "median_s": statistics.median(seconds)})
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
