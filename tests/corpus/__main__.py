"""``python -m tests.corpus``: every hostile file, opened as a user would; a line for each, and what was wrong.

Where all of them are, crafted requests to the page follow."""

import argparse
import sys

from tests.bench.rows import Row, note
from tests.conftest import COMPILED
from tests.corpus.crafted import crafted
from tests.corpus.run import KINDS, corpus, judged


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=list(KINDS))
    parser.add_argument("--every", type=int, default=1, help="only each so-many-th of a kind")
    parser.add_argument("--word", default="", help="only those whose name holds it")
    asked = parser.parse_args()
    kinds = [asked.kind] if asked.kind else list(KINDS)
    count, harmless, wrong, slowest, largest = 0, 0, 0, 0.0, 0
    with corpus(COMPILED) as here:
        for verdict in judged(here, kinds, asked.every, asked.word):
            count += 1
            harmless += not verdict.said
            wrong += bool(verdict.faults)
            slowest, largest = max(slowest, verdict.seconds), max(largest, verdict.outcome.nbytes)
            said = "; ".join(verdict.faults) if verdict.faults else verdict.said or "harmless"
            mark = "FAULT" if verdict.faults else "ok"
            size = f"{verdict.outcome.nbytes >> 20:5d} MB"
            print(f"{mark:5} {verdict.seconds:5.1f} s {size}  {verdict.kind}: {verdict.case.name}: {said}", flush=True)
    told = (
        f"{count} cases: {count - harmless} refused, {harmless} harmless, {wrong} wrong; "
        f"{slowest:.1f} s, {largest >> 20} MB at most"
    )
    print(told)
    if count == sum(map(len, KINDS.values())):
        row = Row(
            "hostile corpus of our own, at least 80 cases", told, "all refused or harmless, 5 s, 1 GB, true reason"
        )
        note("hostile", Row(row.what, row.found, row.must, holds=not wrong))
        requests = crafted()
        note("crafted", requests)
        print(f"{requests.what}: {requests.found}")
        wrong += not requests.holds
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
