"""``python -m tests.fuzz --minutes 10``: each target for so many minutes; what was found is kept among the seeds."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.rows import Row, note
from tests.corpus.run import import_all
from tests.fuzz.child import BATCH, GB, SECONDS, Find, digest, fuzzed, seeds_tried, spoiled
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
            count, found = seeds_tried(name, Path(place))
            tried, find = fuzzed(name, Path(place), spoiled(0.0, 1, (), batch))
            found += [] if find is None else [find]
            finds += len(found)
            said = "; ".join(each.why for each in found) or "all read or refused"
            print(f"{name}: {count + tried} inputs: {said}", flush=True)
    return 1 if finds else 0


def searched(name: str, until: float, first: int, place: Path) -> tuple[int, dict[str, Find]]:
    """Try a target's seeds once, and then what is new until the time has come; return how many, and what was found.

    An input counts once, and is not tried again: it would end each round at its beginning.
    """
    count, still = seeds_tried(name, place)
    found = {digest(find.content): find for find in still}
    for old in still:
        print(f"FOUND {name}, as before: {digest(old.content)}: {old.why}", flush=True)
    while time.monotonic() < until and len(found) < MOST:
        tried, find = fuzzed(name, place, spoiled(until, first, found))
        count += tried
        first += 1 + tried // BATCH
        if find is not None:
            found[digest(find.content)] = find
            print(f"FOUND {name}: {find.kept(name) if tried else ''}: {find.why}", flush=True)
            if not tried:  # it was not even ready, nor will it be
                break
    return count, found


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
            count, found = searched(name, time.monotonic() + 60 * asked.minutes, asked.seed, Path(place))
            finds += len(found)
            told.append(f"{name} {count:,}")
            print(f"{name}: {count} inputs, {len(found)} finds", flush=True)
    if not asked.only:
        said = f"{finds} finds in {', '.join(told)} inputs, {asked.minutes:g} minutes each"
        must = f"no crash, no hang over {SECONDS:g} s, no memory over {GB >> 30} GB"
        note("fuzzed", Row("fuzzing of what is read of strangers", said, must, holds=not finds))
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
