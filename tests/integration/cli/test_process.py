"""``python -m studio`` as a process: its exit, its streams, its signals."""

import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from studio.base.text import text
from studio.checkpoint.checkpoint import Checkpoint
from tests.conftest import ROOT
from tests.terminal import PATIENCE, TinyModel, assert_refused, names, run, run_process, start, tensor_bytes


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, studio.cli.commands; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_help_names_every_command() -> None:
    answer = run("--help")
    assert answer.code == 0
    for command in ("serve", "prepare", "estimate", "compress", "chat"):
        assert command in answer.stdout


def test_a_process_answers_on_stdout_and_reports_on_stderr(tiny_model: TinyModel, tmp_path: Path) -> None:
    answer = run_process("compress", tiny_model("llama"), "--out", tmp_path / "out", "--json", "--group-size", "32")
    assert answer.code == 0
    assert answer.json["compressed_bytes"] == tensor_bytes(tmp_path / "out" / "weights.studio")
    assert text("stage.compress") in answer.stderr.splitlines()[:2]  # the first says that headers are read
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


def test_a_disk_that_fills_up_is_one_sentence_and_leaves_nothing(tiny_model: TinyModel, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))"
    out = tmp_path / "a" / "out"
    answer = run_process("compress", tiny_model("llama"), "--out", out, "--json", "--group-size", "32", before=limit)
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


def test_what_a_library_in_c_prints_is_no_part_of_the_answer(tiny_model: TinyModel) -> None:
    noise = (
        "import ctypes, studio.planning.plan as plan; made = plan.make_plan; "
        "plan.make_plan = lambda *given, **named: (ctypes.CDLL(None).puts(b'noise'), made(*given, **named))[1]"
    )
    answer = run_process("estimate", tiny_model("llama"), "--json", before=noise)
    assert answer.code == 0
    assert answer.json["exact"]
    assert "noise" in answer.stderr
