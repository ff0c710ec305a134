"""The script that answers in a visitor's browser is one version of each file, whose checksum is told."""

import json
import re
import shutil
import subprocess

import pytest

from studio.base.text import LANGUAGES, text
from studio.ui.in_browser import FILES, MIRROR, SCRIPT, TOKENS, asked
from tests.engines.installed import TRANSFORMERS_JS


def test_every_file_is_of_one_version_with_a_checksum() -> None:
    for path, checksum in FILES.values():
        assert re.fullmatch(r"(@[\w-]+/)?[\w-]+@\d+\.\d+\.\d+[\w.-]*/dist/[\w.-]+", path)
        assert re.fullmatch(r"sha384-[A-Za-z0-9+/]{64}", checksum)
        assert MIRROR + path in SCRIPT
        assert checksum in SCRIPT


def test_it_is_the_version_that_the_tests_ask() -> None:
    pinned = json.loads(TRANSFORMERS_JS.read_text())["dependencies"]["@huggingface/transformers"]
    assert FILES["library"][0].startswith(f"@huggingface/transformers@{pinned}/")


def test_the_script_is_whole() -> None:
    assert f"max_new_tokens: {TOKENS}" in SCRIPT
    assert "SOURCES" not in SCRIPT
    node = shutil.which("node")
    if node is None:
        pytest.skip("node reads scripts")
    subprocess.run([node, "--check", "-"], input=f"const script = {SCRIPT};", text=True, check=True, timeout=60)


ACTED = """
const said = {dataset: {}, textContent: ''}, loaded = [], env = {};
let stopped = 0;
const pipeline = async (task, name) => {
  loaded.push(env.localModelPath + name);
  await null;
  return Object.assign(async (given, {streamer}) => streamer.callback_function('Paris'), {tokenizer: {}});
};
class TextStreamer { constructor(tokenizer, how) { Object.assign(this, how); } }
class InterruptableStoppingCriteria { interrupt() { stopped += 1; } }
const library = {pipeline, TextStreamer, InterruptableStoppingCriteria, env};
Object.assign(globalThis, {
  window: {gradio_config: CONFIG, studioInBrowser: {library}},
  location: {origin: 'https://a.org', href: 'https://a.org/sub/?x=1'},
  document: {querySelector: () => said},
});
Object.defineProperty(globalThis, 'navigator', {value: {}, configurable: true});
const asked = {folder: '/gradio_api/file=/x/model', prompt: 'Hello', words: {}};
(async () => {
  await Promise.all([script(asked), script(asked)]);
  const first = said.dataset.done;
  await script(asked);
  console.log(JSON.stringify({loaded, stopped, first, done: said.dataset.done, text: said.textContent}));
})();
"""


@pytest.mark.parametrize(
    ("config", "prefix"),
    [
        ("undefined", ""),
        ("{root: 'https://a.org/'}", ""),
        ("{root: 'http://a.org/sub'}", "/sub"),
        ("{root: '/s'}", "/s"),
    ],
)
def test_pressed_twice_it_loads_one_model_from_below_the_page(config: str, prefix: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node runs scripts")
    program = f"const script = {SCRIPT};{ACTED.replace('CONFIG', config)}"
    ran = subprocess.run([node, "-"], input=program, text=True, check=True, timeout=60, capture_output=True)
    assert json.loads(ran.stdout) == {
        "loaded": [f"{prefix}/gradio_api/file=/x/model"], "stopped": 0, "first": "1", "done": "2", "text": "Paris",
    }  # fmt: skip


def test_what_it_is_asked_passes_as_json() -> None:
    for language in LANGUAGES:
        words = {name: text(f"export.in_browser_{name}", language) for name in ("loading", "answering", "failed")}
        sent = json.loads(json.dumps(asked("/gradio_api/file=/x/model", 'a "b" </script>', words)))
        assert sent["prompt"] == 'a "b" </script>'
        assert set(sent["words"]) == set(re.findall(r"asked\.words\.(\w+)", SCRIPT))
