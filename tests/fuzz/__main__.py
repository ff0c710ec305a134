"""``python -m tests.fuzz --minutes 10``: each target for so many minutes; what was found is kept among the seeds."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.rows import Row, note
from tests.corpus.run import import_all
from tests.fuzz.child import GB, SECONDS, fuzzed
from tests.fuzz.targets import TARGETS

SHORT = {"safetensors": 100, "gguf": 60, "config": 40, "recipe": 60, "tokenizer": 4}
"""Inputs of each target that take seconds together."""
MOST = 10
"""Finds of one target, after which it is left."""


def short() -> int:
    """Try what was found before and a few inputs of a fixed number; return whether anything was found."""
    finds = 0
    with tempfile.TemporaryDirectory() as place:
        for name, batch in SHORT.items():
            tried, find = fuzzed(name, time.monotonic(), Path(place), first=1, batch=batch)
            finds += find is not None
            print(f"{name}: {tried} inputs: {'all read or refused' if find is None else find.why}", flush=True)
    return 1 if finds else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", choices=list(TARGETS))
    parser.add_argument("--seed", type=int, default=0, help="the number of the first batch")
    parser.add_argument("--short", action="store_true", help="only what was found, and a few inputs beside it")
    asked = parser.parse_args()
    import_all()  # in no child
    if asked.short:
        return short()
    finds, told = 0, list[str]()
    with tempfile.TemporaryDirectory() as place:
        for name in [asked.only] if asked.only else TARGETS:
            until, count, first, found = time.monotonic() + 60 * asked.minutes, 0, asked.seed, 0
            while time.monotonic() < until and found < MOST:
                tried, find = fuzzed(name, until, Path(place), first)
                count += tried
                first += 1 + tried // 200
                if find is not None:
                    found += 1
                    print(f"FOUND {name}: {find.kept(name)}: {find.why}", flush=True)
            finds += found
            told.append(f"{name} {count:,}")
            print(f"{name}: {count} inputs, {found} finds", flush=True)
    if not asked.only:
        said = f"{finds} finds in {', '.join(told)} inputs, {asked.minutes:g} minutes each"
        must = f"no crash, no hang over {SECONDS:g} s, no memory over {GB >> 30} GB"
        note("fuzzed", Row("fuzzing of what is read of strangers", said, must, holds=not finds))
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
