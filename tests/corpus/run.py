"""Opens every case, and judges what it left: refused for the true reason, or harmless; in time, in room.

Sound files first, by each command, so that what a case takes is told from what importing and starting take.
"""

import json
import pickle
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.corpus import config_cases, folder_cases, gguf_cases, packed_cases, safetensors_cases, tokenizer_cases
from tests.corpus.case import CHAT, GGUF, PACKED, SECRET, TOO_MUCH, Case, Place
from tests.corpus.child import GB, Outcome, command, ended

KINDS: dict[str, tuple[Case, ...]] = {
    "safetensors": safetensors_cases.CASES,
    "config": config_cases.CASES,
    "tokenizer": tokenizer_cases.CASES,
    "gguf": gguf_cases.CASES,
    "folder": folder_cases.CASES,
    "packed": packed_cases.CASES,
}
SECONDS = 5.0
"""Of a processor, beyond what a sound file takes."""
LONGEST = 1500
"""Characters of a sentence: one that lists what there is instead is the longest."""
UNEXPECTED = "unexpected"


@dataclass(frozen=True)
class Verdict:
    """What was found of a case."""

    kind: str
    case: Case
    outcome: Outcome
    said: str
    """The key of the sentence, "" where it worked."""
    sentence: str
    faults: tuple[str, ...]
    seconds: float
    """Beyond a sound one's."""


@dataclass(frozen=True)
class Corpus:
    """The sound files that cases are built of, and what opening them takes, by the name of the command."""

    base: Path
    sound: dict[str, float]

    def judged(self, kind: str, case: Case) -> Verdict:
        """Build a case, open it and judge what it left."""
        with tempfile.TemporaryDirectory(dir=self.base) as folder:
            place = Place(Path(folder), self.base)
            case.build(place)
            outcome = self._opened(case, place)
            return self._verdict(kind, case, place, outcome)

    def _opened(self, case: Case, place: Place) -> Outcome:
        named = {"model": place.folder / case.model, "out": place.folder / "out", "text": place.folder / "text.txt",
                 "llama": self.base / "llama"}  # fmt: skip
        words = [word.format(**named) for word in case.command]
        allowed = SECONDS + self.sound.get(case.command[0], 60.0)
        return ended(
            command([*words, "--json"]), place.folder, allowed, environment(self.base) | dict(case.environment)
        )

    def _verdict(self, kind: str, case: Case, place: Place, outcome: Outcome) -> Verdict:
        faults = list[str]()
        key, sentence = _said(outcome)
        seconds = max(0.0, outcome.seconds - self.sound.get(case.command[0], 0.0))
        if outcome.hung:
            faults.append("hangs")
        elif outcome.status not in (0, 2):
            faults.append(f"ends with {outcome.status}: {outcome.error[-300:]!r}")
        elif key and key not in (*case.keys, *(TOO_MUCH if case.keys else ())):
            faults.append(f"refused by {key}, which is not why: {sentence[:200]}")
        elif not key and not case.is_harmless:
            faults.append("accepted")
        if case.named and key and case.named not in sentence:
            faults.append(f"does not name {case.named}: {sentence[:200]}")
        if sentence and (not sentence.isprintable() or len(sentence) > LONGEST):
            faults.append(f"not one sentence: {sentence[:200]!r}")
        if seconds > SECONDS:
            faults.append(f"took {seconds:.1f} s")
        if outcome.nbytes > GB:
            faults.append(f"took {outcome.nbytes >> 20} MB")
        if place.marker.exists():
            faults.append("its code ran")
        out = place.folder / "out"
        if key and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
            faults.append("refused, and yet something was written")
        if leaks(outcome, out):
            faults.append("somebody's secret is in what was written or said")
        return Verdict(kind, case, outcome, key, sentence, tuple(faults), seconds)


def _said(outcome: Outcome) -> tuple[str, str]:
    """Return the key and the sentence of a refusal, nothing where there is none."""
    try:
        error = json.loads(outcome.out.strip().splitlines()[-1]).get("error", {})
        return error.get("key", ""), error.get("message", "")
    except (ValueError, IndexError, AttributeError):
        return ("", "") if outcome.status == 0 else (UNEXPECTED, outcome.error[-300:].strip())


def leaks(outcome: Outcome, out: Path) -> bool:
    """Return whether somebody else's file is in what was said, or in the file or folder that was written."""
    files = [file for file in (out, *out.rglob("*")) if file.is_file()]
    return SECRET in outcome.out + outcome.error or any(SECRET.encode() in file.read_bytes() for file in files)


def environment(base: Path) -> dict[str, str]:
    """Return what a child is told beside what this process was."""
    return {
        "STUDIO_CACHE_DIR": str(base / "cache"), "HF_HOME": str(base / "huggingface"), "HF_HUB_OFFLINE": "1",
        "HF_ENDPOINT": "http://127.0.0.1:9", "LC_ALL": "C.UTF-8", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip


@contextmanager
def corpus(compiled: Path | None = None) -> Iterator[Corpus]:
    """Build the sound files, and open each; ``compiled``: a folder of compiled code that is there already."""
    import_all()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "cache").mkdir()
        if compiled is not None:
            compiled.mkdir(parents=True, exist_ok=True)
            (base / "cache" / "native").symlink_to(compiled)
        built = ended(lambda: _build(base), base, 60, environment(base))
        if built.status:
            raise RuntimeError(f"the sound files cannot be built: {built.error}")
        yield Corpus(base, _sound(base))


def _sound(base: Path) -> dict[str, float]:
    """Return the seconds that sound files take, by the command. Raises RuntimeError where one is refused."""
    place = Place(base, base)
    shutil.copytree(base / "llama", place.model)
    place.gguf()
    (base / "text.txt").write_text("The capital of France is Paris. " * 400)
    here = Corpus(base, {})
    cases = {
        "compress": Case("sound", lambda _: None, model=GGUF),  # the longer way
        "chat": Case("sound", lambda _: None, command=CHAT, model=PACKED),
        "evaluate": Case("sound", lambda _: None, command=packed_cases.TEXT),
        "apply": Case("sound", lambda _: None, command=packed_cases.APPLY, model=PACKED),
    }
    found = {}
    for name, case in cases.items():
        outcome = here._opened(case, place)
        if outcome.status and name != "apply":  # whose model nobody else has by its name
            raise RuntimeError(f"{name} of sound files: {outcome.out} {outcome.error}")
        found[name] = outcome.seconds
    shutil.rmtree(base / "out", ignore_errors=True)
    return found


def _build(base: Path) -> None:
    """Write the sound files; in a child, for this computes."""
    from studio import compress
    from tests.conftest import TEMPLATE, save_tiny_model
    from tests.gguf_models import Written

    written = Written("llama", "llama", base)
    (base / "gguf.pickle").write_bytes(pickle.dumps((written.metadata, written.arrays)))
    save_tiny_model("llama", base / "llama")
    (base / "llama" / "chat_template.jinja").write_text(TEMPLATE)
    compress(str(base / "llama"), base / PACKED)


def import_all() -> None:
    """Import what commands need, so that no child does."""
    import gguf
    import transformers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    del gguf, transformers, AutoModelForCausalLM, PreTrainedTokenizerFast


def judged(here: Corpus, kinds: Sequence[str], every: int = 1, word: str = "") -> Iterator[Verdict]:
    """Yield the verdict of each ``every``-th case of these kinds whose name holds a word."""
    for kind in kinds:
        cases = [case for case in KINDS[kind] if word in case.name]
        for case in cases[::every]:
            yield here.judged(kind, case)
