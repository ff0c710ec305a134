"""``python -m studio``: what each command answers, and what it says when it cannot.

Most tests call the commands in this process; those about the process itself (its exit, its streams, its signals) start
one, which takes some seconds.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from studio.base.settings import settings
from studio.base.text import text
from studio.checkpoint import open_model
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.headers import read_header
from studio.checkpoint.recipe import read_recipe
from studio.cli.commands import app
from studio.cli.terminal import language
from studio.session import estimate as estimating
from tests.conftest import ARCHITECTURES, ROOT, save_tiny_model

TinyModel = Callable[[str], Path]

QUESTION = "What is the capital of France?"
PATIENCE = 600
"""Seconds that a process has; one that hangs is to be told from one on a busy machine."""


@dataclass(frozen=True)
class Answer:
    """What a command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one object on stdout: anything else there fails here."""
        return json.loads(self.stdout)


def run(*arguments: object) -> Answer:
    """Call a command in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


def start(*arguments: object, before: str = "", **environment: str) -> "subprocess.Popen[str]":
    """Start a command in a process of its own, which runs the Python of ``before`` first.

    Ctrl-C interrupts it however the tests were started: in the background of a script (``nohup … &``) it would not, for
    a signal that is ignored stays so in every child.
    """
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"import runpy, sys\n{heed}\n{before}\nrunpy.run_module('studio', run_name='__main__', alter_sys=True)"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_process(*arguments: object, before: str = "", **environment: str) -> Answer:
    process = start(*arguments, before=before, **environment)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    return Answer(process.returncode, stdout, stderr)


def assert_refused(answer: Answer, key: str) -> None:
    """Check for exit code 2 and one sentence: the last line for a reader, an object for a program."""
    assert answer.code == 2, answer
    assert "Traceback" not in answer.stdout + answer.stderr
    error = answer.json["error"]
    assert error["key"] == key
    assert answer.stderr.splitlines()[-1] == error["message"]
    assert "{" not in error["message"]


def names(folder: Path) -> set[str]:
    """Return everything below a folder, hidden files too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def tensor_bytes(file: Path) -> int:
    return sum(entry.nbytes for entry in read_header(file).values())


# the process


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, studio.cli.commands; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_help_names_every_command() -> None:
    answer = run("--help")
    assert answer.code == 0
    for command in ("serve", "prepare", "estimate", "compress", "chat"):
        assert command in answer.stdout


@pytest.mark.real
def test_a_process_answers_on_stdout_and_reports_on_stderr(builtin: Checkpoint, tmp_path: Path) -> None:
    answer = run_process("compress", "builtin", "--out", tmp_path / "out", "--json")
    assert answer.code == 0
    assert answer.json["compressed_bytes"] == tensor_bytes(tmp_path / "out" / "weights.studio")
    assert answer.stderr.splitlines()[0] == text("stage.compress")
    assert len(answer.stderr.splitlines()) < 10


@pytest.mark.real
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "terminated"]
)
def test_an_interrupted_compression_leaves_nothing(
    builtin: Checkpoint, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start("compress", "builtin", "--out", tmp_path / "a" / "out")
    assert process.stderr is not None
    while not process.stderr.readline().startswith(text("stage.compress")):
        pass
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert stdout == ""
    assert "Traceback" not in stderr
    assert names(tmp_path) == set()


@pytest.mark.real
def test_a_disk_that_fills_up_is_one_sentence_and_leaves_nothing(builtin: Checkpoint, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))"
    out = tmp_path / "a" / "out"
    answer = run_process("compress", "builtin", "--out", out, "--json", before=limit)
    assert_refused(answer, "export_disk_full")
    assert f"“{out}”" in answer.json["error"]["message"]
    assert names(tmp_path) == set()


@pytest.mark.real
def test_the_page_is_served_until_interrupted_and_a_port_only_once(builtin: Checkpoint) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = start("serve", "--port", port)
    try:
        assert server.stdout is not None
        assert f"http://127.0.0.1:{port}" in server.stdout.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as page:
            assert page.status == 200
        second = run_process("serve", "--port", port)
        assert second.code == 2
        assert second.stderr.splitlines()[-1] == text("error.cannot_serve", where=f"127.0.0.1:{port}")
    finally:
        server.send_signal(signal.SIGINT)
        _, stderr = server.communicate(timeout=PATIENCE)
    assert "Traceback" not in stderr


# estimate


@pytest.mark.real
@pytest.mark.parametrize(
    ("choices", "nbytes"),
    [
        (["--mode", "int8_asym"], 135_164_160),
        (["--mode", "int4_asym", "--group-size", "64", "--ratio", "0.9"], 90_761_184),
    ],
    ids=["int8_asym", "int4_asym-g64-0.9"],
)
def test_the_size_of_the_builtin_model(builtin: Checkpoint, choices: list[str], nbytes: int) -> None:
    facts = run("estimate", "builtin", *choices, "--json").json
    assert facts["exact"]
    assert facts["original_bytes"] == 269_030_016
    assert facts["compressed_bytes"] == nbytes
    assert facts["bits_per_weight"] == pytest.approx(8 * nbytes / (269_030_016 / 2))
    assert facts["source_format"] == "Q4_1/Q8_0"
    assert facts["source_bytes"] == open_model.builtin_file().stat().st_size  # type: ignore[union-attr]
    assert sum(layer["bytes"] for layer in facts["layers"]) == nbytes


def test_an_estimate_names_every_choice_and_layer(tiny_model: TinyModel) -> None:
    arguments = ("--mode", "int4_sym", "--group-size", "32", "--ratio", "0.5", "--backup", "none")
    facts = run("estimate", tiny_model("llama"), *arguments, "--json").json
    assert facts.keys() == {
        *("model", "revision", "architecture", "source_format", "source_bytes", "part", "can_chat"),
        *("original_bytes", "compressed_bytes"),
        *("bits_per_weight", "mode", "group_size", "ratio", "backup", "method", "misfit", "all_layers", "pins"),
        *("sensitivity", "exact", "layers"),
    }
    assert (facts["mode"], facts["group_size"], facts["ratio"], facts["backup"]) == ("int4_sym", 32, 0.5, "none")
    assert facts["architecture"] == "llama"
    layers = {layer["name"]: layer for layer in facts["layers"]}
    assert layers["model.embed_tokens.weight"]["scheme"] == "float16"  # the backup
    assert layers["model.norm.weight"] == {
        "name": "model.norm.weight",
        "shape": [64],
        "scheme": "float16",
        "bytes": 128,
    }
    assert {layer["scheme"] for layer in layers.values()} == {"float16", "int4_sym-g32"}


def test_an_estimate_to_read_says_the_same_bytes(tiny_model: TinyModel) -> None:
    facts = run("estimate", tiny_model("qwen3"), "--json").json
    answer = run("estimate", tiny_model("qwen3"))
    assert answer.code == 0
    assert len(answer.stdout.splitlines()) < 8
    assert f"{facts['bits_per_weight']:.2f} bits per weight" in answer.stdout


def test_groups_give_way_unless_they_were_named(tmp_path: Path) -> None:
    save_tiny_model("llama", tmp_path / "narrow", hidden_size=96)  # 96 is no multiple of 64
    assert run("estimate", tmp_path / "narrow", "--json").json["group_size"] == 32
    assert_refused(run("estimate", tmp_path / "narrow", "--group-size", 64, "--json"), "group_size_misfit")


# compress


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "choices",
    [("--mode", "int8_sym"), ("--ratio", "0.5", "--group-size", "32"), ("--mode", "nf4", "--backup", "none")],
    ids=["int8_sym", "int4_asym-g32-0.5", "nf4-none"],
)
def test_what_is_written_is_what_was_estimated(
    tiny_model: TinyModel, tmp_path: Path, architecture: str, choices: tuple[str, ...]
) -> None:
    model, out = tiny_model(architecture), tmp_path / "out"
    estimated = run("estimate", model, *choices, "--json").json
    facts = run("compress", model, *choices, "--out", out, "--json").json
    errors = [layer.pop("relative_error") for layer in facts["layers"]]
    assert facts["path"] == str(out)
    assert facts["seconds"] > 0
    assert {key: facts[key] for key in estimated} == estimated
    assert facts["compressed_bytes"] == tensor_bytes(out / "weights.studio")
    for layer, error in zip(facts["layers"], errors, strict=True):
        assert (error is None) == (layer["scheme"] == "float16")
        assert error is None or 0 < error < 0.3
    assert read_recipe(out).compressed_bytes == facts["compressed_bytes"]
    assert names(tmp_path) == {"out", *(f"out/{path.name}" for path in out.iterdir())}


def test_an_empty_folder_is_filled_and_stays_the_same_folder(tiny_model: TinyModel, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    before = out.stat().st_ino
    assert run("compress", tiny_model("llama"), "--out", out).code == 0
    assert out.stat().st_ino == before
    assert names(tmp_path) == {"out", *(f"out/{path.name}" for path in out.iterdir())}
    assert read_recipe(out)


def test_folders_above_the_target_are_made(tiny_model: TinyModel, tmp_path: Path) -> None:
    assert run("compress", tiny_model("llama"), "--out", tmp_path / "a" / "b" / "out").code == 0
    assert read_recipe(tmp_path / "a" / "b" / "out")


def test_a_compressed_folder_is_no_model_to_compress(tiny_model: TinyModel, tmp_path: Path) -> None:
    run("compress", tiny_model("llama"), "--out", tmp_path / "out")
    before = names(tmp_path)
    answer = run("compress", tmp_path / "out", "--out", tmp_path / "again", "--json")
    assert answer.code == 2
    assert names(tmp_path) == before


# chat


@pytest.fixture(scope="module")
def int8(builtin: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model at int8_asym, as compress leaves it."""
    out = tmp_path_factory.mktemp("compressed") / "int8"
    assert run("compress", "builtin", "--mode", "int8_asym", "--out", out).code == 0
    return out


@pytest.mark.real
def test_the_original_answers(builtin: Checkpoint) -> None:
    facts = run("chat", "builtin", "--prompt", QUESTION, "--json").json
    assert "Paris" in facts["text"]
    assert facts["model"] == "builtin"
    assert facts["prompt_tokens"] > len(QUESTION.split())
    assert 1 < facts["tokens"] <= 64
    assert facts["tokens_per_second"] > 0
    assert facts["time_to_first_token"] > 0
    assert 269_030_016 <= facts["weight_bytes"] < 269_200_000  # norms are fp32 here


@pytest.mark.real
def test_the_compressed_model_answers_on_its_packed_weights(int8: Path) -> None:
    first, second = (run("chat", int8, "--prompt", QUESTION, "--json").json for _ in range(2))
    assert "Paris" in first["text"]
    assert first["model"] == str(int8)
    assert first["weight_bytes"] < 1.1 * 135_164_160
    assert (first["text"], first["tokens"]) == (second["text"], second["tokens"])


def test_an_answer_to_read_is_alone_on_stdout(tiny_model: TinyModel) -> None:
    arguments = ("chat", tiny_model("llama"), "--prompt", "Count from one", "--max-new-tokens", "9")
    facts = run(*arguments, "--json").json
    answer = run(*arguments)
    assert answer.stdout == facts["text"] + "\n"
    assert f"{facts['tokens']} tokens" in answer.stderr


def test_an_answer_is_no_longer_than_asked(tiny_model: TinyModel) -> None:
    facts = run("chat", tiny_model("gpt2"), "--prompt", "Count", "--max-new-tokens", "3", "--json").json
    assert facts["tokens"] <= 3


def test_a_seed_repeats_a_sampled_answer(tiny_model: TinyModel) -> None:
    def ask(seed: int) -> str:
        arguments = ("--prompt", "Count", "--temperature", "1.5", "--seed", seed, "--max-new-tokens", "20", "--json")
        answer: str = run("chat", tiny_model("llama"), *arguments).json["text"]
        return answer

    assert ask(1) == ask(1) != ask(2)


def test_a_system_prompt_is_part_of_the_prompt(tiny_model: TinyModel) -> None:
    arguments = ("chat", tiny_model("llama"), "--prompt", "Count", "--max-new-tokens", "1", "--json")
    assert run(*arguments, "--system", "Be kind.").json["prompt_tokens"] > run(*arguments).json["prompt_tokens"]


# prepare


@pytest.mark.real
def test_the_prepared_model_is_named(builtin: Checkpoint) -> None:
    facts = run("prepare", "--json").json
    assert Path(facts["path"]) == builtin.folder
    assert facts["revision"] == builtin.revision


# bad input


@pytest.fixture
def damaged(tiny_model: TinyModel, tmp_path: Path) -> Path:
    """A copy of a tiny model, to be damaged."""
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "damaged"))


@pytest.mark.parametrize("command", ["estimate", "compress", "chat"])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("owner/no-such-model", "hub_unreachable"),
        ("no such model", "bad_model_name"),
        ("/no/such/folder", "bad_model_name"),
        ("", "bad_model_name"),
        ("x" * 5000, "bad_model_name"),
        ("~nobody-of-that-name/x", "bad_model_name"),
    ],
    ids=["unreachable", "malformed", "no-folder", "empty", "too-long", "no-user"],
)
def test_an_unknown_model(tmp_path: Path, command: str, name: str, key: str) -> None:
    more = {"estimate": (), "compress": ("--out", tmp_path / "out"), "chat": ("--prompt", QUESTION)}[command]
    assert_refused(run(command, name, *more, "--json"), key)
    assert names(tmp_path) == set()


def without_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def cut_short(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 1000)


def cut_in_header(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100)


def empty_file(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 0)


def corrupt_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[8:40] = b"\xff" * 32
    file.write_bytes(content)


def endless_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes((1 << 62).to_bytes(8, "little") + file.read_bytes()[8:])


DAMAGES = [
    (without_safetensors, "only_pickles"),
    (without_config, "missing_file"),
    *((damage, "damaged_file") for damage in (cut_short, cut_in_header, empty_file, corrupt_header, endless_header)),
]


@pytest.mark.parametrize(("damage", "key"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_a_damaged_folder(damaged: Path, tmp_path: Path, damage: Callable[[Path], None], key: str) -> None:
    damage(damaged)
    before = names(tmp_path)
    assert_refused(run("compress", damaged, "--out", tmp_path / "a" / "out", "--json"), key)
    assert_refused(run("chat", damaged, "--prompt", QUESTION, "--json"), key)
    assert names(tmp_path) == before


def test_a_compressed_folder_cut_short(tiny_model: TinyModel, tmp_path: Path) -> None:
    run("compress", tiny_model("llama"), "--out", tmp_path / "out")
    weights = tmp_path / "out" / "weights.studio"
    os.truncate(weights, weights.stat().st_size - 1000)
    assert_refused(run("chat", tmp_path / "out", "--prompt", QUESTION, "--json"), "damaged_file")


@pytest.mark.real
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_gguf_file_cut_short(tmp_path: Path, share: float) -> None:
    whole, cut = open_model.builtin_file(), tmp_path / "cut.gguf"
    assert whole is not None
    with whole.open("rb") as file:
        cut.write_bytes(file.read(int(share * whole.stat().st_size)))
    assert_refused(run("estimate", cut, "--json"), "damaged_file")


def test_a_gguf_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "words.gguf").write_text("words")
    assert_refused(run("estimate", tmp_path / "words.gguf", "--json"), "gguf_no_magic")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("words")
    assert_refused(run("estimate", tmp_path / "words.txt", "--json"), "not_a_model")


@pytest.mark.parametrize(
    ("choices", "key"),
    [
        (("--group-size", "48"), "unknown_group_size"),
        (("--group-size", "256"), "group_size_misfit"),
        (("--group-size", "0"), "unknown_group_size"),
        (("--group-size", "-2"), "unknown_group_size"),
        (("--ratio", "0"), "ratio_range"),
        (("--ratio", "2"), "ratio_range"),
        (("--ratio", "-1"), "ratio_range"),
        (("--ratio", "nan"), "ratio_range"),
        (("--mode", "int3"), "unknown_mode"),
        (("--backup", "int4_asym"), "unknown_backup"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, tuple) else value,
)
def test_a_choice_that_cannot_be(tiny_model: TinyModel, tmp_path: Path, choices: tuple[str, ...], key: str) -> None:
    model = tiny_model("llama")
    assert_refused(run("estimate", model, *choices, "--json"), key)
    assert_refused(run("compress", model, *choices, "--out", tmp_path / "a" / "out", "--json"), key)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("prompt", ["", "  \n"], ids=["empty", "blank"])
def test_a_prompt_with_nothing_in_it(tiny_model: TinyModel, prompt: str) -> None:
    assert_refused(run("chat", tiny_model("llama"), "--prompt", prompt, "--json"), "empty_prompt")


def test_a_prompt_longer_than_the_context(tiny_model: TinyModel) -> None:
    assert_refused(run("chat", tiny_model("llama"), "--prompt", "one " * 1000, "--json"), "prompt_too_long")


def test_a_target_with_files_in_it(tiny_model: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert_refused(run("compress", tiny_model("llama"), "--out", tmp_path, "--json"), "folder_not_empty")
    assert names(tmp_path) == {"notes.txt"}


@pytest.mark.parametrize("place", ["notes.txt", "notes.txt/out", "new/" + "x" * 300])
def test_a_target_that_cannot_be_written(tiny_model: TinyModel, tmp_path: Path, place: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert_refused(run("compress", tiny_model("llama"), "--out", tmp_path / place, "--json"), "cannot_write")
    assert names(tmp_path) == {"notes.txt"}


def test_a_sentence_without_json_is_alone(tmp_path: Path) -> None:
    answer = run("estimate", "no such model")
    assert answer.code == 2
    assert answer.stdout == ""
    assert answer.stderr.splitlines()[-1] == text("error.bad_model_name", model="no such model")


# the surroundings


@pytest.fixture
def fresh_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Settings read anew, with a cache of their own."""
    monkeypatch.setenv("STUDIO_CACHE_DIR", str(tmp_path / "cache"))
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.usefixtures("fresh_settings")
def test_a_bug_is_one_sentence_with_the_place_of_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the reason")

    monkeypatch.setattr(estimating, "open_model", fail)
    answer = run("estimate", "builtin", "--json")
    assert answer.code == 1
    assert answer.json["error"]["key"] == "unexpected"
    [log] = (tmp_path / "cache" / "logs").iterdir()
    assert answer.stderr == answer.json["error"]["message"] + "\n"
    assert str(log) in answer.stderr
    assert "RuntimeError: the reason" in log.read_text()


def test_an_estimate_does_without_a_cache_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, fresh_settings: None, tiny_model: TinyModel, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    answer = run("estimate", tiny_model("llama"), "--ratio", "0.5", "--json")
    assert (answer.code, answer.json["exact"]) == (0, True)
    assert (tmp_path / "cache").read_text() == "a file"


@pytest.mark.usefixtures("fresh_settings")
def test_a_setting_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "seven")
    answer = run("estimate", "builtin", "--json")
    assert_refused(answer, "bad_setting")
    assert "PORT" in answer.stderr


@pytest.mark.parametrize(
    ("locale", "tag"),
    [
        ("zh_CN.UTF-8", "zh-Hans"),
        ("zh_TW.UTF-8", "zh-Hant"),
        ("zh_HK", "zh-Hant"),
        ("en_GB.UTF-8", "en"),
        ("de_DE.UTF-8", "en"),
        ("C", "en"),
        ("", "en"),
    ],
)
def test_the_locale_is_the_language(monkeypatch: pytest.MonkeyPatch, locale: str, tag: str) -> None:
    monkeypatch.delenv("LC_MESSAGES", raising=False)
    monkeypatch.setenv("LC_ALL", "")
    monkeypatch.setenv("LANG", locale)
    assert language() == tag


def test_the_reader_s_language_is_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    answer = run("estimate", "builtin", "--ratio", "0", "--json")
    assert_refused(answer, "ratio_range")
    assert answer.json["error"]["message"] == text("error.ratio_range", "zh-Hans", ratio=0.0, low=0.05)
