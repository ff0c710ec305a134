"""``python -m tests.chat_memory SMALL FOLDER``: the memory of one chat with a compressed folder, as JSON.

A chat with the small one comes first: what it imports and compiles is no part of a model. Anonymous memory only, for
pages of files are the system's to take back; the tokenizer has a process of its own.
"""

import json
import sys
from pathlib import Path

from studio.base.malloc import release_free_memory
from studio.chat.answer import answer
from studio.chat.columns import compressed_column
from studio.runtime.sampling import Sampling

MESSAGES = [{"role": "user", "content": "Name three planets and say one fact about each."}]
SAMPLING = Sampling(max_new_tokens=24)


def anonymous_bytes() -> int:
    """Return the anonymous memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def main(small: Path, folder: Path) -> None:
    list(answer(compressed_column(small).open(), MESSAGES, SAMPLING))
    before = anonymous_bytes()
    loaded = compressed_column(folder).open()
    release_free_memory()  # what several threads' loading leaves with the allocator is nobody's
    after = anonymous_bytes()
    most = kept = tokens = 0
    for reply in answer(loaded, MESSAGES, SAMPLING):
        most = max(most, anonymous_bytes())
        kept, tokens = reply.kv_bytes, reply.tokens
    backend = loaded.decoder.backend.value
    found = {"backend": backend, "loading": after - before, "answering": most - before, "kv": kept, "tokens": tokens}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
