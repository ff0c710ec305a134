"""A GGUF file is prepared in a process of its own: once, whole, and with nothing of this one changed."""

import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from studio.base.errors import CheckpointError, UserError
from studio.base.progress import Progress
from studio.base.workers import Ending
from studio.checkpoint.gguf import source
from studio.checkpoint.gguf.source import NOTE, VERSION, prepare, prepared_folder
from studio.checkpoint.license import License
from tests.conftest import save_tiny_model, tiny_tokenizer
from tests.gguf_files import arrays_of, metadata_of, write_gguf
from tests.steps import finish


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("gguf")
    save_tiny_model("llama", folder / "tiny")
    model = AutoModelForCausalLM.from_pretrained(folder / "tiny")
    return write_gguf(folder / "tiny.gguf", "llama", metadata_of(model, tiny_tokenizer()), arrays_of(model, "llama"))


def converting(before: Collection[int] = ()) -> list[psutil.Process]:
    """Return the processes that were forked for this one since."""
    forked = [process for zygote in psutil.Process().children() for process in zygote.children()]
    return [process for process in forked if process.pid not in before]


def left_in(cache: Path) -> list[str]:
    """Return what of half-made folders is there."""
    return [path.name for path in (cache / "prepared").glob(".*.partial-*")]


def test_preparing_changes_nothing_here_and_is_done_once(gguf: Path, own_cache: Path, monkeypatch: Any) -> None:
    before, register = torch.get_default_dtype(), nn.Module.register_parameter
    seen: set[object] = set()
    steps = prepare(gguf)
    said = []
    try:
        while True:
            said.append(next(steps))
            seen |= {torch.get_default_dtype(), nn.Module.register_parameter}
    except StopIteration as finished:
        checkpoint = finished.value
    assert seen == {before, register}
    assert said[0] == Progress("reading")
    assert (checkpoint.source_format, checkpoint.source_bytes) == ("F16", gguf.stat().st_size)
    assert left_in(own_cache) == []
    monkeypatch.setattr(source, "_converted", None)  # not asked again
    assert finish(prepare(gguf)).revision == checkpoint.revision


def test_one_who_stops_ends_the_process_and_leaves_nothing(gguf: Path, own_cache: Path) -> None:
    before = {process.pid for process in converting()}
    steps = prepare(gguf)
    next(steps)
    children = converting(before)
    assert len(children) == 1
    assert len(left_in(own_cache)) == 1
    steps.close()
    assert not any(child.is_running() for child in children)
    assert left_in(own_cache) == []
    assert not prepared_folder(gguf).exists()


def test_a_process_that_dies_is_a_sentence_and_nothing_is_kept(gguf: Path, own_cache: Path) -> None:
    before = {process.pid for process in converting()}
    steps = prepare(gguf)
    next(steps)
    converting(before)[0].terminate()
    with pytest.raises(UserError, match="SIGTERM"):
        finish(steps)
    assert left_in(own_cache) == []
    assert not prepared_folder(gguf).exists()


def test_two_at_once_make_it_once(gguf: Path, own_cache: Path) -> None:
    first = prepare(gguf)
    next(first)
    found: list[Any] = []
    second = threading.Thread(target=lambda: found.append(finish(prepare(gguf))))
    second.start()
    time.sleep(1)
    assert len(left_in(own_cache)) == 1
    revision = finish(first).revision
    second.join(60)
    assert [checkpoint.revision for checkpoint in found] == [revision]


def test_what_an_earlier_version_prepared_is_made_anew(gguf: Path, own_cache: Path) -> None:
    folder = prepared_folder(gguf)
    folder.mkdir(parents=True)
    (folder / NOTE).write_text('{"format": "F16", "bytes": 1}')
    (folder / "model.safetensors").write_text("random numbers")
    killed = folder.parent / f".{folder.name}.partial-999999999-00000000"
    killed.mkdir()
    checkpoint = finish(prepare(gguf))
    assert f'"version": {VERSION}' in (checkpoint.path / NOTE).read_text()
    assert not killed.exists()


def test_what_the_file_says_of_its_license_is_kept(gguf: Path, own_cache: Path, tmp_path: Path) -> None:
    """Also when the prepared folder is found; what can be no name of one is left out."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(gguf.parent / "tiny")
    said = {"general.license": "cc-by-nd-4.0", "general.license.name": "<b>", "general.languages": ["en", "zh", "<b>"]}
    file = write_gguf(
        tmp_path / "said.gguf", "llama", metadata_of(model, tiny_tokenizer()) | said, arrays_of(model, "llama")
    )
    for _ in range(2):
        checkpoint = finish(prepare(file))
        assert (checkpoint.license, checkpoint.languages) == (License("cc-by-nd-4.0"), ("en", "zh"))


def test_the_tokenizer_has_no_token_that_the_file_has_not(gguf: Path, own_cache: Path) -> None:
    """transformers gives any of GPT-2's kind that one's end of a text, for which the model has no row."""
    from transformers import AutoTokenizer

    checkpoint = finish(prepare(gguf))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path)
    assert tokenizer.get_vocab() == tiny_tokenizer().get_vocab()
    assert tokenizer("one two <|endoftext|>")["input_ids"] == tiny_tokenizer()("one two <|endoftext|>")["input_ids"]


def test_the_process_says_what_is_wrong(gguf: Path, own_cache: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(gguf.parent / "tiny")
    arrays = arrays_of(model, "llama")
    del arrays["blk.1.attn_norm.weight"]
    file = write_gguf(tmp_path / "lost.gguf", "llama", metadata_of(model, tiny_tokenizer()), arrays)
    with pytest.raises(CheckpointError, match=r"blk\.1\.attn_norm\.weight"):
        finish(prepare(file))
    assert list((own_cache / "prepared").glob("lost*")) == []


@pytest.mark.parametrize(
    ("code", "key"),
    [(-24, "gguf_tokenizer_slow"), (-9, "gguf_memory"), (-11, "gguf_ended"), (1, "gguf_ended")],
)
def test_a_death_is_told_by_its_kind(code: int, key: str) -> None:
    error = source._ended(Ending(code), Path("m.gguf"), 5)
    assert error.key == key
    assert "m.gguf" in str(error)


def test_a_death_that_is_not_the_files_doing_does_not_blame_it() -> None:
    assert source._ended(Ending(None), Path("m.gguf"), 5).key == "worker_orphaned"


def test_a_cache_that_cannot_be_written_is_a_sentence(gguf: Path, own_cache: Path) -> None:
    own_cache.mkdir(exist_ok=True)
    (own_cache / "prepared").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="prepared"):
        finish(prepare(gguf))
