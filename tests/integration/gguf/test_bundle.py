"""A folder to be shared: file, card, map, recipe and checksums, or nothing; every size told before is the file's."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from PIL import Image
from torch import Tensor

from studio.base.errors import CheckpointError, ResourceError
from studio.checkpoint.recipe import is_compressed, recipe_of
from studio.evaluation.figures import Evaluation, WindowMean
from studio.export.bundle import export_folder
from studio.export.compressed_model import opened
from studio.export.studio_folder import zip_bytes
from studio.export.targets import TARGETS, export
from studio.quantization.packing import PackedTensor
from tests.conftest import ROOT
from tests.full_disk import largest_file
from tests.integration.gguf.models import MIXED, packed, save
from tests.steps import finish

BOTH = [TARGETS["gguf"], TARGETS["studio"]]
QUALITY = Evaluation(
    WindowMean(12.5, 0.25), WindowMean(12.0, 0.25), WindowMean(0.0891, 0.0042), 0.01, 0.9,
    WindowMean(0.8, 0.01), 4096, 1, 1,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bundle")
    return packed(save("llama", place / "source"), place / "packed", MIXED)


def test_several_targets_of_one_compressed_model(folder: Path, tmp_path: Path) -> None:
    out = finish(export_folder(BOTH, folder, tmp_path / "out", check=True, quality=QUALITY))
    files = {path.name: path for path in out.iterdir()}
    assert set(files) == {
        "source-q4_k.gguf", "source-q4_k.zip", "README.md", "map.png", "recipe.json", "manifest.json",
    }  # fmt: skip
    facts = json.loads(files["manifest.json"].read_text())["files"]
    assert set(facts) == set(files) - {"manifest.json"}
    for name, fact in facts.items():
        assert fact == {
            "bytes": files[name].stat().st_size,
            "sha256": hashlib.sha256(files[name].read_bytes()).hexdigest(),
        }, name
    recipe = recipe_of(files["recipe.json"])
    assert [(each.file, each.target) for each in recipe.exports] == [
        ("source-q4_k.gguf", "gguf"), ("source-q4_k.zip", "studio"),
    ]  # fmt: skip
    assert not is_compressed(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    alone = finish(export(TARGETS["gguf"], folder, tmp_path / "alone.gguf"))
    assert alone.read_bytes() == files["source-q4_k.gguf"].read_bytes()


def test_the_card_tells_what_was_measured_and_how_the_file_is_run(folder: Path, tmp_path: Path) -> None:
    out = finish(export_folder([TARGETS["gguf"]], folder, tmp_path / "out", quality=QUALITY))
    card = (out / "README.md").read_text()
    facts = yaml.safe_load(card.split("---\n")[1])
    assert facts["library_name"] == "gguf"
    assert {"gguf", "quantized"} <= set(facts["tags"])
    assert facts["pipeline_tag"] == "text-generation"
    assert "| KL divergence from the original, nats a token | 0.0891 ± 0.0042 |" in card
    for command in ("llama-cli -m source-q4_k.gguf", "llama-server -m source-q4_k.gguf", "ollama run hf.co/USER/"):
        assert command in card
    assert 'echo "FROM ./source-q4_k.gguf" > Modelfile' in card
    assert "](map.png)" in card
    picture = Image.open(io.BytesIO((out / "map.png").read_bytes()))
    assert picture.format == "PNG"
    assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 5
    without = (finish(export_folder([TARGETS["gguf"]], folder, tmp_path / "plain")) / "README.md").read_text()
    assert "KL divergence" not in without


@pytest.mark.parametrize("case", ["llama", "phi3-longrope", "gemma3_text", "qwen2-tied"])
def test_the_size_told_before_is_the_file_s_to_the_byte(case: str, tmp_path: Path) -> None:
    folder = packed(save(case, tmp_path / "source"), tmp_path / "packed", MIXED)
    model = opened(folder)
    holding = {n: t for n, t in TARGETS.items() if t.refusal(model.plan, model.checkpoint) is None}
    assert holding.keys() >= {"gguf", "studio"}
    for name, target in holding.items():
        told = target.file_size(model)
        file = finish(export(target, folder, tmp_path / f"file-{name}{target.suffix}"))
        assert file.stat().st_size == told, name


def test_so_is_that_of_any_zip(tmp_path: Path) -> None:
    sizes = [("a", 0), ("folder/ünïcode-名.txt", 1), ("b" * 200, 70_000)]
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_STORED) as out:
        for name, nbytes in sizes:
            with out.open(name, "w", force_zip64=True) as member:
                member.write(bytes(nbytes))
    assert (tmp_path / "z.zip").stat().st_size == zip_bytes(sizes)


def test_a_zip_of_more_than_four_gigabytes_is_told_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the limit of 2 GiB put down to 1,000 bytes."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    sizes = [("a", 10), ("b", 2000), ("c", 10)]
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_STORED) as out:
        for name, nbytes in sizes:
            with out.open(name, "w", force_zip64=True) as member:
                member.write(bytes(nbytes))
    assert (tmp_path / "z.zip").stat().st_size == zip_bytes(sizes)


def test_what_is_damaged_is_found_at_the_end_and_nothing_stays(folder: Path, tmp_path: Path) -> None:
    hurt = Path(shutil.copytree(folder, tmp_path / "hurt"))
    content = bytearray((hurt / "weights.studio").read_bytes())
    content[-1] ^= 1
    (hurt / "weights.studio").write_bytes(content)
    for steps in (
        export(TARGETS["gguf"], hurt, tmp_path / "out", check=True),
        export_folder(BOTH, hurt, tmp_path / "out", check=True),
    ):
        with pytest.raises(CheckpointError) as caught:
            finish(steps)
        assert (caught.value.key, caught.value.values) == ("damaged_file", {"file": "weights.studio"})
    (hurt / "weights.studio").write_bytes(content[:-100])
    with pytest.raises(CheckpointError):
        finish(export(TARGETS["gguf"], hurt, tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["hurt"]


def test_a_full_disk_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    for steps in (
        export(TARGETS["gguf"], folder, tmp_path / "out"),
        export_folder(BOTH, folder, tmp_path / "out"),
    ):
        with largest_file(100_000), pytest.raises(ResourceError) as caught:
            finish(steps)
        assert caught.value.key == "export_disk_full"
        assert list(tmp_path.iterdir()) == []


def test_one_that_is_closed_midway_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    for wanted in (1, 5, 30):
        steps = export_folder(BOTH, folder, tmp_path / "out", check=True)
        for _ in range(wanted):
            next(steps)
        assert not (tmp_path / "out").exists()
        steps.close()
        assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(ResourceError) as caught:
        finish(export_folder(BOTH, folder, tmp_path / "out"))
    assert caught.value.key == "already_there"
    assert (tmp_path / "out" / "mine").read_text() == "mine"


def arrays_of(held: PackedTensor | Tensor) -> dict[str, Tensor]:
    return held.arrays() if isinstance(held, PackedTensor) else {"": held}


def test_pieces_are_the_tensors(folder: Path) -> None:
    """However small they are, and with heads kept together."""
    model = opened(folder)
    whole = {a.layer.name: held for a, held in model.tensors()}
    seen = dict.fromkeys(whole, 0)
    for a, start, piece in model.pieces(5000, lambda a: 32 if a.layer.name.endswith("q_proj.weight") else 1):
        assert start == seen[a.layer.name]
        seen[a.layer.name] += piece.shape[0]
        held = arrays_of(whole[a.layer.name])
        for name, array in arrays_of(piece).items():
            assert array.equal(held[name][start : start + piece.shape[0]])
        if a.layer.name.endswith("q_proj.weight"):
            assert start % 32 == 0
    assert seen == {name: held.shape[0] for name, held in whole.items()}


WATCH = """
import sys, threading
from pathlib import Path
from studio.export.targets import TARGETS, export
from tests.bench.export_speed import made_up

place = Path(sys.argv[1])
small, large = made_up(place / "small", 1), made_up(place / "large", 8)
for _ in export(TARGETS["gguf"], small, place / "small.gguf", check=True):  # everything is loaded
    pass

def held():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))

peak, start, over = 0, held(), threading.Event()

def watch():
    global peak
    while not over.wait(0.002):
        peak = max(peak, held())

thread = threading.Thread(target=watch)
thread.start()
for _ in export(TARGETS["gguf"], large, place / "large.gguf", check=True):
    pass
over.set()
thread.join()
assert (place / "large.gguf").stat().st_size > 190_000_000
print(peak - start)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux what is held")
def test_a_file_of_200_mb_is_written_in_100_mb(tmp_path: Path) -> None:
    """Eight pieces of 8 MB wait to be written or summed, whatever the size of the model."""
    command = [sys.executable, "-c", WATCH, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "65536"}
    found = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=600)
    assert 0 < int(found.stdout) < 100_000_000
