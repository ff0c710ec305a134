"""An export on the Hub: every byte of it in one commit as its owner, what broke off taken up again, or one sentence."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub.lfs
import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import http_backoff  # type: ignore[attr-defined]

from studio.base.errors import CheckpointError, HubError, ModelError, SchemeError, UserError
from studio.base.progress import Progress
from studio.checkpoint.recipe import is_compressed
from studio.cli.terminal import say
from studio.export.bundle import export_folder
from studio.export.onnx.genai import GENAI
from studio.export.onnx.target import FILES, FOLDER
from studio.export.onnx.weights import DATA
from studio.export.push import COMMIT, Destination, Pushed
from studio.export.push_files import OF_PROGRAMS
from studio.export.targets import TARGETS, export
from studio.planning.choice import Choice
from studio.quantization.scheme import Mode
from studio.session.pushing import pushing
from tests.hub_server import LocalHub
from tests.integration.gguf.models import packed
from tests.steps import finish
from tests.terminal import assert_refused, run

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own
TOKEN, REPO = "hf_writes", "owner/small"


@pytest.fixture(scope="module")
def compressed(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compressed folder that GGUF, MLX and others hold."""
    return packed(tiny_model("llama"), tmp_path_factory.mktemp("push") / "p", Choice(Mode.Q8_0, 32, backup=Mode.Q8_0))


@pytest.fixture(scope="module")
def written(compressed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("written") / "bundle"
    return finish(export_folder([TARGETS["gguf"], TARGETS["mlx"]], compressed, place))


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "bundle"))


@pytest.fixture(autouse=True)
def account(server: LocalHub, tmp_path: Path) -> None:
    server.account.place = tmp_path / "hub"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks once."""
    monkeypatch.setattr(huggingface_hub.lfs, "http_backoff", partial(http_backoff, max_retries=0))


def push(*sources: Path, to: tuple[str, ...] = (), token: str = TOKEN, **how: bool) -> Pushed:
    targets = [TARGETS[name] for name in to]
    return finish(pushing(sources, targets, Destination(REPO, **how), token))


def there(server: LocalHub, repo: str = REPO) -> dict[str, bytes]:
    """What the repository holds."""
    blobs = server.models[repo].blobs.items()
    return {name: blob.path.read_bytes() for name, blob in blobs if name != ".gitattributes"}


def held(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_every_byte_arrives_in_one_commit_of_a_private_repository(server: LocalHub, bundle: Path) -> None:
    done = push(bundle)
    assert there(server) == held(bundle)
    assert len(server.account.commits) == 1
    assert server.account.private == {REPO}
    assert (done.url, done.is_private) == (f"{server.url}/{REPO}", True)
    assert done.nbytes == sum(map(len, held(bundle).values()))
    assert any(name.startswith("mlx/") for name in there(server))


def test_a_token_is_sent_to_the_hub_alone(server: LocalHub, bundle: Path) -> None:
    push(bundle)
    elsewhere = [request for request in server.requests if request.method == "PUT"]
    assert elsewhere
    assert all(request.host.startswith("localhost") and request.authorization is None for request in elsewhere)


def test_progress_counts_bytes_and_never_goes_back_in_a_stage(server: LocalHub, bundle: Path) -> None:
    seen: dict[str, list[int]] = {}
    for event in pushing([bundle], [], Destination(REPO), TOKEN):
        seen.setdefault(event.stage, []).append(event.done)
    assert {"checksums", "push"} <= set(seen)
    assert all(done == sorted(done) for stage, done in seen.items() if stage != "checksums")


@pytest.mark.parametrize("to", [("mlx",), ("gguf",), ("mlx", "gguf"), ("studio",)], ids="+".join)
def test_a_compressed_folder_is_written_for_the_programs_asked_for(
    to: tuple[str, ...], server: LocalHub, compressed: Path, tmp_path: Path
) -> None:
    push(compressed, to=to)
    found = there(server)
    assert "README.md" in found
    if to == ("studio",):
        assert found == held(compressed)
    elif to == ("mlx",):
        assert found == held(finish(export(TARGETS["mlx"], compressed, tmp_path / "alone")))
    else:
        assert sum(name.endswith(".gguf") and "/" not in name for name in found) == 1
        assert ("mlx/config.json" in found) == ("mlx" in to)
        assert b"](map.png)" in found["README.md"]


def test_a_line_that_breaks_once_is_taken_up_again(server: LocalHub, bundle: Path) -> None:
    """By the client itself, which waits a second."""
    server.account.break_after, server.account.breaks = 1000, 1
    push(bundle)
    assert there(server) == held(bundle)
    assert sorted(server.account.put.values())[-2:] == [1, 2]


@pytest.mark.usefixtures("impatient")
def test_what_arrived_before_a_line_broke_is_not_sent_again(server: LocalHub, bundle: Path) -> None:
    large = max(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    server.account.break_after = large - 1000
    with pytest.raises(HubError) as refused:
        push(bundle)
    assert refused.value.key == "push_broke_off"
    assert there(server) == {}, "never half"
    arrived = set(server.account.objects)
    assert arrived
    server.account.break_after = None
    server.account.put.clear()
    push(bundle)  # without --existing: nothing is there
    assert there(server) == held(bundle)
    assert not arrived & set(server.account.put)


def test_a_commit_whose_word_was_lost_is_there(server: LocalHub, bundle: Path) -> None:
    server.account.is_silent = True
    assert push(bundle).commit == server.models[REPO].sha
    assert there(server) == held(bundle)
    assert len(server.account.commits) == 1


def test_a_commit_of_which_nobody_knows_is_told_so(
    server: LocalHub, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made, and nobody answers any more; or broken off, and perhaps made later."""
    made, asked = HfApi.create_commit, HfApi.model_info

    def lost(*_: object, **__: object) -> None:
        raise httpx2.ReadError("lost")

    def made_and_lost(*given: Any, **named: Any) -> None:
        made(*given, **named)
        monkeypatch.setattr(HfApi, "model_info", lost)
        lost()

    for way, count in ((made_and_lost, 1), (lost, 1)):
        monkeypatch.setattr(HfApi, "model_info", asked)
        monkeypatch.setattr(HfApi, "create_commit", way)
        with pytest.raises(HubError) as refused:
            push(bundle, is_existing=True)
        assert (refused.value.key, refused.value.values) == ("push_unknown", {"url": f"{server.url}/{REPO}"})
        assert len(server.account.commits) == count


def test_closing_it_leaves_nothing_half(server: LocalHub, bundle: Path) -> None:
    steps = pushing([bundle], [], Destination(REPO), TOKEN)
    for event in steps:
        if event.stage == "push":
            break
    steps.close()
    assert server.account.commits == []
    push(bundle)
    assert there(server) == held(bundle)


def test_a_name_that_is_taken_asks_for_a_word_more(server: LocalHub, bundle: Path, compressed: Path) -> None:
    push(bundle)
    with pytest.raises(ModelError) as refused:
        push(compressed)
    assert refused.value.key == "push_taken"
    push(compressed, is_existing=True)
    assert there(server) == held(bundle) | held(compressed)
    server.account.private.clear()
    with pytest.raises(ModelError) as refused:
        push(compressed, is_existing=True)
    assert refused.value.key == "push_is_public"


def test_a_repository_that_cannot_be_seen_is_taken(server: LocalHub, bundle: Path) -> None:
    server.account.hidden.add(REPO)
    with pytest.raises(ModelError) as refused:
        push(bundle)
    assert refused.value.key == "push_taken"


def test_a_public_repository_is_asked_for_by_name(server: LocalHub, bundle: Path) -> None:
    assert not push(bundle, is_public=True).is_private
    assert server.account.private == set()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"expired": True}, "push_token_refused"),
        ({"token": "another"}, "push_token_refused"),
        ({"owns": ("somebody",)}, "push_forbidden"),
        ({"role": "read"}, "push_forbidden"),
    ],
    ids=["expired", "unknown", "another's name", "may only read"],
)
def test_a_login_that_may_not(change: dict[str, object], key: str, server: LocalHub, bundle: Path) -> None:
    for name, value in change.items():
        setattr(server.account, name, value)
    with pytest.raises(HubError) as refused:
        push(bundle)
    assert refused.value.key == key
    assert server.account.objects == {}
    assert TOKEN not in str(refused.value)


def test_a_silent_hub_is_a_sentence(closed_port: None, bundle: Path) -> None:
    with pytest.raises(HubError) as refused:
        push(bundle)
    assert refused.value.key == "push_broke_off"


@pytest.mark.parametrize("repo", ["small", "a/b/c", "owner/ ", "owner/..", "-/x", "owner/a b", "", "https://x.y/z"])
def test_what_is_no_repository_is_said_before_anything_is_read(repo: str, server: LocalHub) -> None:
    with pytest.raises(ModelError) as refused:
        finish(pushing([Path("nowhere")], [], Destination(repo), TOKEN))
    assert refused.value.key == "push_bad_name"
    assert server.requests == []


def damage(folder: Path) -> None:
    weights = next(folder.rglob("*.gguf"))
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (damage, "push_damaged"),
        (lambda folder: (folder / "map.png").unlink(), "missing_file"),
        (lambda folder: (folder / "notes.txt").write_text("private"), "push_strange_file"),
        (lambda folder: (folder / "passwd").symlink_to("/etc/passwd"), "push_link"),
        (lambda folder: (folder / "etc").symlink_to("/etc"), "push_link"),
        (lambda folder: [path.unlink() for path in folder.rglob("*") if path.is_file()], "push_no_export"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "push_no_export"),
    ],
    ids=["damaged", "missing", "strange", "link", "linked folder", "empty", "no manifest"],
)
def test_a_folder_that_is_not_whole_is_not_sent(
    change: Callable[[Path], object], key: str, server: LocalHub, bundle: Path
) -> None:
    change(bundle)
    with pytest.raises(CheckpointError) as refused:
        push(bundle)
    assert refused.value.key == key
    assert server.requests == []


@pytest.mark.parametrize("name", ["notes.txt", "train.json", "optimizer.pt", "old.safetensors", "onnx/tokenizer.json"])
@pytest.mark.parametrize("target", [None, "mlx"])
def test_what_no_export_wrote_is_not_sent(
    target: str | None, name: str, server: LocalHub, compressed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    if target is None:
        shutil.copytree(compressed, folder)
    else:
        finish(export(TARGETS[target], compressed, folder))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("private")
    with pytest.raises(CheckpointError) as refused:
        push(folder)
    assert (refused.value.key, refused.value.values) == ("push_strange_file", {"file": name})
    assert server.requests == []


@pytest.mark.parametrize("target", ["onnx", "openvino", "compressed-tensors"])
def test_every_file_that_a_target_writes_is_sent(
    target: str, server: LocalHub, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    choice = Choice(Mode.INT4_SYM, 32, backup=None if target == "compressed-tensors" else Mode.INT8_ASYM)
    model = packed(tiny_model("llama"), tmp_path / "p", choice)
    folder = finish(export(TARGETS[target], model, tmp_path / "out"))
    push(folder)
    assert there(server) == held(folder)


def test_every_name_of_an_onnx_graph_is_known() -> None:
    assert {f"{FOLDER}/{file}{part}" for file in FILES.values() for part in ("", DATA)} | {GENAI} <= OF_PROGRAMS


def test_hidden_files_stay_here(server: LocalHub, compressed: Path, tmp_path: Path) -> None:
    folder = finish(export(TARGETS["mlx"], compressed, tmp_path / "mlx"))
    expected = held(folder)
    (folder / ".env").write_text("SECRET=1")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    push(folder)
    assert there(server) == expected


def test_a_damaged_compressed_folder_is_refused(server: LocalHub, compressed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(compressed, tmp_path / "hurt"))
    assert is_compressed(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError):
        push(folder)
    assert server.requests == []


def test_gguf_files_side_by_side(server: LocalHub, bundle: Path, tmp_path: Path) -> None:
    one = next(bundle.glob("*.gguf"))
    other = tmp_path / "other.gguf"
    other.write_bytes(one.read_bytes())
    push(one, other)
    assert set(there(server)) == {one.name, "other.gguf"}
    other.write_bytes(b"no GGUF")
    for sources, key in (((other,), "push_no_export"), ((one, one), "push_twice"), ((one, bundle), "push_no_export")):
        with pytest.raises(CheckpointError) as refused:
            push(*sources, is_existing=True)
        assert refused.value.key == key
    with pytest.raises(SchemeError):
        push(one, to=("mlx",))


class TestTerminal:
    def test_it_says_where_the_files_are(self, server: LocalHub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        answer = run("push", bundle, "--repo", REPO, "--json").json
        assert answer == {
            "repo": REPO, "url": f"{server.url}/{REPO}", "commit": server.models[REPO].sha,
            "bytes": sum(map(len, held(bundle).values())), "private": True,
        }  # fmt: skip
        assert_refused(run("push", bundle, "--repo", REPO, "--json"), "push_taken")

    @pytest.mark.parametrize(("stage", "key"), [("push", "push_interrupted"), (COMMIT, "push_interrupted_commit")])
    def test_ctrl_c_says_what_may_be_there(
        self, stage: str, key: str, server: LocalHub, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: object) -> Iterator[Progress]:
            yield Progress(stage)
            raise KeyboardInterrupt

        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("studio.session.pushing.pushing", interrupted)
        answer = run("push", bundle, "--repo", REPO, "--json")
        url = {"url": f"{server.url}/{REPO}"} if stage == COMMIT else {}
        assert (answer.code, answer.json["error"]["message"]) == (130, say(key, **url))

    def test_without_a_login_it_says_how(
        self, server: LocalHub, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
        assert_refused(run("push", bundle, "--repo", REPO, "--json"), "push_no_token")
        assert server.requests == []
