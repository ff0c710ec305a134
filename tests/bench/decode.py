"""``make bench-decode``, ``python -m tests.bench.decode [--only SECTION] [--dir DIR]``: what answering costs.

Every engine has a process of its own with the model loaded; in each of five rounds each answers once, one after the
other, so that all see the same machine. Medians go into DECODE.md, with the limit that reading all weights once a token
sets. Where there is a CUDA device, ``decode_cuda.py`` has its turn last.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.bench import decode_models as models
from tests.bench.measure import memory_bandwidth

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("DECODE.md")
ROUNDS = 5
INT4, BF16, LLAMA, OPENVINO = "studio, INT4", "studio, 16 bits", "llama.cpp, Q4_0", "OpenVINO GenAI, INT4_ASYM 64"


@dataclass(frozen=True)
class Engine:
    """A process that answers when told to."""

    process: "subprocess.Popen[str]"

    @classmethod
    def start(cls, kind: str, path: Path | str, tokens: int) -> "Engine":
        command = [sys.executable, "-W", "ignore", "-m", "tests.bench.decode_engine", kind, str(path), str(tokens)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        return cls(subprocess.Popen(command, cwd=ROOT, text=True, **pipes))  # type: ignore[call-overload]

    def answer(self) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                found: dict[str, float] = json.loads(line)
                return found
        raise SystemExit(f"{self.process.args} ended")  # type: ignore[str-bytes-safe]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def measured(engines: dict[str, Engine]) -> dict[str, dict[str, float]]:
    """Return the median of each engine's runs, the first of which does not count."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    try:
        for _ in range(ROUNDS + 1):
            for name, engine in engines.items():
                found[name].append(engine.answer())
    finally:
        for engine in engines.values():
            engine.stop()
    return {
        name: {key: statistics.median(run[key] for run in runs[1:]) for key in ("first", "speed")}
        for name, runs in found.items()
    }


def weights_in(folder: Path) -> int:
    """Return the bytes of an exported model's weights; the embedding is the head, read once."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def built_in(place: Path) -> list[str]:
    half = models.requantized(models.built_in_gguf(), models.F16, place / "smollm2-f16.gguf")
    small = models.exported("builtin", 64, place / "smollm2-int4")
    q4_0 = models.requantized(models.built_in_gguf(), models.Q4_0, place / "smollm2-q4_0.gguf")
    vino = models.openvino_int4(half, place / "smollm2-openvino")
    found = measured(
        {
            INT4: Engine.start("studio", small, 128),
            BF16: Engine.start("studio", "builtin", 128),
            LLAMA: Engine.start("llama", q4_0, 128),
            OPENVINO: Engine.start("openvino", vino, 128),
        }
    )
    here, limit = found[INT4]["speed"], memory_bandwidth() / weights_in(small)
    wanted = {LLAMA: ("1x", "1.7x"), OPENVINO: ("1.6x", "2.7x"), BF16: ("1.4x", "2x")}
    rows = [
        row(f"built-in model, INT4 64 + INT8 head, against {name}", here, found[name]["speed"], limit, *wanted[name])
        for name in wanted
    ]
    first = found[INT4]["first"]
    for name, must, goal in ((OPENVINO, "2x its time", "its time"), (LLAMA, "–", "–")):
        work, theirs = f"65-token prompt, time to the first token, against {name}", found[name]["first"]
        ratio = f"{theirs * 1e3:.0f} ms, {first / theirs:.2f}x its time"
        rows.append(f"| {work} | {first * 1e3:.0f} ms | {ratio} | – | {must} | {goal} |")
    return rows


def billion(place: Path) -> list[str]:
    folder = models.billion(place / "llama-1b-random")
    small = models.exported(str(folder), 64, place / "llama-1b-int4")
    half = models.billion_gguf(folder, place / "llama-1b-f16.gguf")
    q4_0 = models.requantized(half, models.Q4_0, place / "llama-1b-q4_0.gguf")
    found = measured(
        {
            INT4: Engine.start("studio", small, 64),
            BF16: Engine.start("studio", folder, 64),
            LLAMA: Engine.start("llama", q4_0, 64),
        }
    )
    here, limit = found[INT4]["speed"], memory_bandwidth() / weights_in(small)
    wanted = {LLAMA: ("1x", "1.3x"), BF16: ("2.5x", "3.3x")}
    return [
        row(f"Llama-3.2-1B's shapes, INT4 64, against {name}", here, found[name]["speed"], limit, *wanted[name])
        for name in wanted
    ]


def memory(place: Path) -> list[str]:
    small = models.exported("builtin", 64, place / "smollm2-int4")
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench.decode_memory", str(small)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    found = json.loads(done.stdout)
    chat, page = found["terminal"], found["page"]
    return [
        held("terminal chat on the compressed model, at most", chat["peak"], chat["weights"], 600),
        held("the page over its idle, both models in memory, after two questions",
             page["after"] - page["idle"], page["weights"], 200),
        held("the same at most", page["peak"] - page["idle"], page["weights"], 200),
    ]  # fmt: skip


def held(work: str, nbytes: int, weights: int, must: int) -> str:
    """Return a row on memory: what is held beyond the weights is what counts."""
    beyond = f"{weights / 1e6:.0f} MB of weights + {(nbytes - weights) / 1e6:.0f} MB"
    return f"| {work} | {nbytes / 1e6:.0f} MB | – | {beyond} | weights + {must} MB | – |"


def row(work: str, here: float, theirs: float, limit: float, must: str, goal: str) -> str:
    share = f"{limit:.0f} tokens/s: {100 * here / limit:.0f} % of it"
    return f"| {work} | {here:.0f} tokens/s | {theirs:.0f} tokens/s, {here / theirs:.2f}x | {share} | {must} | {goal} |"


SECTIONS = {"built-in": built_in, "billion": billion, "memory": memory}
HEAD = """# Decoding, measured

Made by `make bench-decode` (`python -m tests.bench.decode`), batch 1, two threads each, medians of five rounds in which
every engine answers once: a prompt of 65 tokens, then 128 (the large model: 64). The limit is memory: the bandwidth
measured in this run by the bytes of all weights. llama.cpp's figure leaves out its sampling and its Python; the
studio's has both.
"""


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--only", choices=[*SECTIONS, "cuda"])
    arguments.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()) / "bench-decode")
    options = arguments.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    known = sections(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    for name, measure in SECTIONS.items():
        if options.only in (None, name):
            before = os.getloadavg()[0]
            lines = measure(options.dir)
            head = f"| work | here | peer, and how much faster | limit | must | goal |\n|{' --- |' * 6}"
            note = f"On {processor()}; {before:.1f} other processes ran in the minute before."
            known[name] = "\n".join((f"\n## {name}\n", note, "", head, *lines, ""))
            print(known[name], flush=True)
    FILE.write_text(HEAD + "".join(known[name] for name in SECTIONS if name in known), encoding="utf-8")
    if options.only in (None, "cuda") and torch.cuda.is_available():
        subprocess.run([sys.executable, "-W", "ignore", "-m", "tests.bench.decode_cuda"], cwd=ROOT, check=True)


def sections(text: str) -> dict[str, str]:
    """Return what an earlier run found, by section."""
    _, *parts = text.split("\n## ")
    return {part.partition("\n")[0]: f"\n## {part}" for part in parts}


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a processor")
    return f"{os.cpu_count()} cores of {name}"


if __name__ == "__main__":
    main()
