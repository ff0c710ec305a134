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


def test_what_it_is_asked_passes_as_json() -> None:
    for language in LANGUAGES:
        words = {name: text(f"export.in_browser_{name}", language) for name in ("loading", "answering", "failed")}
        sent = json.loads(json.dumps(asked("/gradio_api/file=/x/model", 'a "b" </script>', words)))
        assert sent["prompt"] == 'a "b" </script>'
        assert set(sent["words"]) == set(re.findall(r"asked\.words\.(\w+)", SCRIPT))
