"""What is written as GGUF, in a real llama.cpp: it gives the packed numbers' distributions and answers.

The yardstick is transformers' model in fp32 with the folder's own numbers. llama.cpp sums in fp32, but rounds what a
packed weight is multiplied with to 8 bits, in blocks of 32 (Q8_0) or 256 (Q8_K). In a block whose largest is m this
adds noise of m / 127 / sqrt(12). Activations spread like a normal law have an m of 2.4 (32) or 3.1 (256) standard
deviations, so a product is off by 0.6 or 0.7 % of its spread. Four products a block and the head's are roundings of
their own, whose squares add up: sqrt(4 L + 1) times that, 2 % of the logits' spread for two layers and 4 % for seven.
The divergence of logits that are off by e is e^2 / 2: with a spread of 1.2, 3e-4 and 1.2e-3. A bound of 2e-3 holds for
all, where a lost rotation, a norm without its one or rows out of order give more than 1e-2.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import ProcessError
from studio.export.gguf.llama_cpp import LlamaCpp, Question, Reply
from studio.export.read_back import SAMPLE, kld
from tests.engines.models import FAMILIES, ids, save, tokenizer, truth, written

BOUND = 2e-3
KEPT_BOUND = 1e-3
"""F16 and BF16: both factors have 8 to 11 bits."""
LOST = 1e-2
MODES: dict[str, dict[str, Any]] = {
    "kept": {"mode": "q8_0", "pins": ["*=none"]},
    "q8_0": {"mode": "q8_0"},
    "q4_0": {"mode": "q4_0"},
    "int4_sym-g32": {"mode": "int4_sym", "group_size": 32, "pins": ["*embed*=q8_0", "lm_head*=q8_0"]},
    "q4_k": {"mode": "q4_k"},
}  # fmt: skip


def divergences(engine: LlamaCpp, files: dict[str, tuple[str, Path]]) -> tuple[dict[str, float], dict[str, Reply]]:
    """Return the mean divergence of each file, named with its family, from its folder; and what llama.cpp said."""
    asked = [Question(folder.with_suffix(".gguf"), ids(of), [SAMPLE], answer=4) for of, folder in files.values()]
    replies = dict(zip(files, engine.ask(*asked), strict=True))
    measured = {
        name: kld(truth(folder, ids(of)), replies[name].probabilities.log()).mean
        for name, (of, folder) in files.items()
    }
    print({name: f"{mean:.1e}" for name, mean in measured.items()})
    for name, (of, _) in files.items():
        assert replies[name].tokens == [tokenizer(of)(SAMPLE, add_special_tokens=False).input_ids], name
    return measured, replies


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """Every family's compressed folder, the file beside it."""
    place = tmp_path_factory.mktemp("families")
    for name in FAMILIES:
        written(save(name, place / f"{name}-source"), place / name, mode="q8_0")
    return {name: (name, place / name) for name in FAMILIES}


def test_every_family_gives_its_own_distributions(engine: LlamaCpp, families: dict[str, tuple[str, Path]]) -> None:
    measured, _ = divergences(engine, families)  # also phi3, whose name alone llama.cpp takes for a promise
    assert {name: mean for name, mean in measured.items() if mean > BOUND} == {}


def test_every_kind_of_block_is_read_as_it_was_packed(engine: LlamaCpp, tmp_path: Path, own_cache: Path) -> None:
    source = save("llama", tmp_path / "source")
    files = {name: ("llama", tmp_path / name) for name in MODES}
    for name, (_, folder) in files.items():
        written(source, folder, **MODES[name])
    measured, replies = divergences(engine, files)
    assert {name: mean for name, mean in measured.items() if mean > (KEPT_BOUND if name == "kept" else BOUND)} == {}
    assert replies["kept"].answer[:1] == [int(truth(files["kept"][1], ids("llama"))[-1].argmax())]


def test_past_a_window_that_llama_cpp_passes_by_it_is_another_model(
    engine: LlamaCpp, families: dict[str, tuple[str, Path]]
) -> None:
    """So such a file says that it follows as many tokens as the window has; this is why, and that it is no fewer."""
    names = ("mistral", "qwen2-window", "phi3")
    texts = {name: ids(name, 90) for name in names}
    replies = engine.ask(*(Question(families[name][1].with_suffix(".gguf"), texts[name]) for name in names))
    for name, reply in zip(names, replies, strict=True):
        expected, given = truth(families[name][1], texts[name]), reply.probabilities.log()
        assert kld(expected[:48], given[:48]).mean < BOUND, name
        assert kld(expected[60:], given[60:]).mean > LOST, name


def test_a_file_that_is_none_is_refused_in_a_sentence(engine: LlamaCpp, tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_text(json.dumps("no model"))
    with pytest.raises(ProcessError, match=r"no\.gguf"):
        engine.ask(Question(tmp_path / "no.gguf", [0]))
    with pytest.raises(ProcessError, match="longer than 0 s"):
        engine.ask(Question(tmp_path / "no.gguf", [0]), patience=0.01)
