"""What all tests share: a world without a Hub, the built-in model, and tiny ones of five architectures."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from filelock import FileLock

# Before the studio or the Hub's client is imported: both read their environment once.
ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("STUDIO_CACHE_DIR", str(ROOT / ".pytest_cache" / "studio"))  # kept: preparing takes 20 s
SHARED = ROOT / os.environ["STUDIO_CACHE_DIR"]
PREPARED, COMPILED = SHARED / "prepared", SHARED / "native"
if WORKER := os.environ.get("PYTEST_XDIST_WORKER"):
    # One of several processes that test: a cache of its own but for the prepared model and compiled code, and one
    # thread, for those that meet after every product wait ten times longer where others compute.
    os.environ["STUDIO_CACHE_DIR"] = str(SHARED) + f"-{WORKER}"
    os.environ["OMP_NUM_THREADS"] = "1"
    for shared in (PREPARED, COMPILED):
        shared.mkdir(parents=True, exist_ok=True)
        own = Path(os.environ["STUDIO_CACHE_DIR"]) / shared.name
        own.parent.mkdir(parents=True, exist_ok=True)
        if not own.is_symlink():
            own.symlink_to(shared)
os.environ["HF_HOME"] = str(Path(os.environ["STUDIO_CACHE_DIR"]) / "huggingface")
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:1"  # nobody listens there, so no test reaches out by accident
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
os.environ["LC_ALL"] = "C.UTF-8"
os.environ["STUDIO_DEVICE"] = "cpu"  # those of GPUs say so themselves
for name in (
    *("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"),
    *("STUDIO_HOST", "STUDIO_NATIVE", "STUDIO_MODEL_MEMORY", "STUDIO_LOCAL_FILES"),
    *("STUDIO_ACCESS", "STUDIO_ALLOWED_HOSTS", "STUDIO_PROXY", "STUDIO_METRICS_PORT", "STUDIO_LOG", "SPACE_HOST"),
    *("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_ROOT_PATH", "PORT"),
    *("COLUMNS", "LINES", "FORCE_COLOR", "CLICOLOR_FORCE", "GITHUB_ACTIONS", "TERMINAL_WIDTH"),  # how wide, how gaudy
):
    os.environ.pop(name, None)

from studio.base import startup  # noqa: E402

startup.prepare()

from studio.base.settings import settings  # noqa: E402
from studio.checkpoint import hub, open_model  # noqa: E402
from studio.checkpoint.checkpoint import Checkpoint  # noqa: E402
from tests.chromium import chromium as chromium_program  # noqa: E402
from tests.sampling import sampled  # noqa: E402
from tests.steps import finish  # noqa: E402

PATIENCE = 600_000
"""Milliseconds a browser waits for anything: machines that test are busy."""

SERVE = """import runpy
from studio.checkpoint import hub
hub.PROBE_SECONDS = 60
runpy.run_module('studio', run_name='__main__')"""
"""The page in a process of its own, which waits as patiently for a Hub on this machine."""
hub.PROBE_SECONDS = 60

ARCHITECTURES = ("llama", "qwen3", "gemma3_text", "phi3", "gpt2")

SENTENCES = (
    "The capital of France is Paris, and that of Italy is Rome.",
    "A model of language is asked a question, and answers it word by word.",
    "What is the capital of France? Count from one to ten: one, two, three.",
)

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run every case of every test, as make test-all does")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what drives the browser: walks through the whole page, which take their time. Leave out what is thorough."""
    for item in items:
        if item.path.parent.name == "browser":
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(1800))
    if not config.getoption("all") and not _is_named(config):
        items[:], left = sampled(items)
        config.hook.pytest_deselected(items=left)


def _is_named(config: pytest.Config) -> bool:
    """Return whether somebody asks for tests by name: then all of them run."""
    return any("::" in argument for argument in config.args) or bool(config.getoption("keyword"))


@pytest.fixture(autouse=True, scope="module")
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Two threads where several compute together, which is what these files are about, also beside other processes."""
    import torch

    before = torch.get_num_threads()
    if WORKER and request.path.name.startswith(("test_decoder", "test_native", "test_products", "test_kernels")):
        torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def own_cache(empty_cache: Path) -> Path:
    """A cache folder of the test's own with nothing in it but compiled code, which takes half a minute to make."""
    COMPILED.mkdir(parents=True, exist_ok=True)
    empty_cache.mkdir()
    (empty_cache / "native").symlink_to(COMPILED)
    return empty_cache


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A cache folder of the test's own that does not exist yet."""
    monkeypatch.setenv("STUDIO_CACHE_DIR", str(tmp_path / "cache"))
    settings.cache_clear()
    yield tmp_path / "cache"
    settings.cache_clear()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process do the work of workers, so that what a test replaces is replaced there too."""
    monkeypatch.setenv("STUDIO_ISOLATE", "0")
    settings.cache_clear()
    yield
    monkeypatch.delenv("STUDIO_ISOLATE")
    settings.cache_clear()


@pytest.fixture(scope="session")
def builtin() -> Checkpoint:
    """The built-in model, prepared. Where its package is missing, this fails with the command that installs it."""
    PREPARED.mkdir(parents=True, exist_ok=True)
    with FileLock(PREPARED / "lock"):
        return finish(open_model.open_model(open_model.BUILTIN, paths=False))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a tiny random model, by architecture: ``tiny_model("llama")``.

    All tests see the same folder: copy it before you change it.
    """

    @cache
    def make(architecture: str) -> Path:
        folder = tmp_path_factory.mktemp(architecture) / f"tiny-{architecture}"
        save_tiny_model(architecture, folder)
        return folder

    return make


def save_tiny_model(architecture: str, folder: Path, **changes: Any) -> None:
    """Save two blocks of 64 channels with random weights in bf16, and a tokenizer trained on three sentences.

    ``changes`` are settings of the config.
    """
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(architecture, len(tokenizer), **changes), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tiny_config(architecture: str, vocabulary: int, **changes: Any) -> Any:
    """Return a config of 64 channels whose token 0 begins a text, 1 ends it, and 2 fills up."""
    from transformers import Gemma3TextConfig, GPT2Config, LlamaConfig, Phi3Config, Qwen3Config

    tokens = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    if architecture == "gpt2":
        return GPT2Config(**{"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, **tokens, **changes})
    kinds = {"llama": LlamaConfig, "qwen3": Qwen3Config, "gemma3_text": Gemma3TextConfig, "phi3": Phi3Config}
    shape = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }
    if architecture in ("qwen3", "gemma3_text"):
        shape["head_dim"] = 16
    return kinds[architecture](**{**shape, **tokens, **changes})


def tiny_tokenizer() -> Any:
    """Return a byte-level BPE tokenizer with a chat template; it can write anything."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "</s>", "<pad>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.chat_template = TEMPLATE
    return fast


@contextmanager
def served(folder: Path, *arguments: str, **environment: str) -> Iterator[str]:
    """Serve the page from a process of its own, with its files in ``folder``, and give its address.

    Without a ``--port`` among the arguments it takes a free one.
    """
    if "--port" not in arguments:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            arguments = (*arguments, "--port", str(probe.getsockname()[1]))
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVE, "serve", *arguments],
            cwd=ROOT,
            # One thread: two that meet after every product wait ten times longer while other tests run.
            env=os.environ | {"GRADIO_TEMP_DIR": str(folder / "gradio"), "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert server.stdout is not None
        try:
            said = server.stdout.readline()
            address = re.search(r"http://\S+", said)
            assert address, said + (folder / "server.log").read_text()
            yield address[0].replace("localhost", "127.0.0.1")
        finally:
            server.terminate()
            try:
                server.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.communicate()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The distribution's browser, driven by Playwright."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium_program(), args=["--no-sandbox", *quiet], timeout=PATIENCE
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a page as a new visitor: ``visit(address, locale="zh-CN")``, with the options of a browser's context."""
    with visiting(chromium) as open_page:
        yield open_page


@contextmanager
def visiting(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open pages as new visitors do.

    In the end none of the visitors' pages may have logged an error or asked any other machine for anything.
    """
    contexts, errors, hosts = [], [], set()

    def open_page(address: str, **options: Any) -> Any:
        shape = {"viewport": {"width": 1440, "height": 900}, "locale": "en-US"}
        options = {**shape, "reduced_motion": "reduce", **options}  # without a GPU, what moves takes half a core
        context = chromium.new_context(accept_downloads=True, **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        page.goto(address)
        return page

    try:
        yield open_page
    finally:
        for context in contexts:
            context.close()
    assert errors == []
    assert hosts - {None} == {"127.0.0.1"}  # None: pictures within the page
