"""A data set on the Hub as a text, through the real client: what is read, what is refused, and that no more is sent."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest

from studio.base.errors import HubError, TextError, UserError
from studio.calibration import dataset
from studio.calibration.dataset import read_dataset
from studio.checkpoint import hub_client
from tests.hub_server import LocalHub

REPO = "owner/stories"
ROWS = [{"text": f"Story {i}: once there was a fox.", "id": str(i)} for i in range(5)]
STORIES = "\n\n".join(row["text"] for row in ROWS)
Add = Callable[[dict[str, bytes]], LocalHub]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setattr(hub_client, "WAITS", (0.01, 0.01))
    with LocalHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
    huggingface_hub.close_session()


@pytest.fixture
def add(server: LocalHub, tmp_path: Path) -> Add:
    def put(files: dict[str, bytes]) -> LocalHub:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        server.add(f"datasets/{REPO}", tmp_path)
        return server

    return put


def lines(rows: list[dict[str, str]] = ROWS) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def table(mark: str) -> bytes:
    return "\n".join([f"id{mark}text", *(f"{row['id']}{mark}{row['text']}" for row in ROWS)]).encode()


def refused(name: str) -> UserError:
    with pytest.raises(UserError) as caught:
        read_dataset(name)
    assert "{" not in caught.value.sentence()
    return caught.value


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("data.jsonl", lines()),
        ("data.json", json.dumps(ROWS).encode()),
        ("data.json", json.dumps({"version": 1, "data": ROWS}).encode()),
        ("data.json", lines()),
        ("data.csv", table(",")),
        ("data.tsv", table("\t")),
    ],
    ids=["jsonl", "json_list", "json_object", "json_lines", "csv", "tsv"],
)
def test_rows_are_joined_and_file_and_field_named(add: Add, file: str, content: bytes) -> None:
    add({file: content})
    found = read_dataset(f"hf://datasets/{REPO}/{file}")
    assert found.text == STORIES
    assert found.name == f"hf://datasets/{REPO}/{file}#text"
    assert read_dataset(found.name) == found  # the name says it all


@pytest.mark.parametrize(
    "name",
    [
        f"{REPO}/sub/a.txt",
        f"datasets/{REPO}/sub/a.txt",
        f"hf://datasets/{REPO}/sub/a.txt",
        f"https://huggingface.co/datasets/{REPO}/blob/main/sub/a.txt",
        f" hf://datasets/{REPO}@main/sub/a.txt ",
    ],
)
def test_a_file_is_named_in_every_usual_way(add: Add, name: str) -> None:
    add({"sub/a.txt": b"A plain text.", "b.txt": b"Another."})
    assert read_dataset(name).text == "A plain text."


def test_without_a_name_text_comes_before_rows_and_cards_are_no_data(add: Add) -> None:
    files = {"README.md": b"# A card", ".hidden/a.txt": b"no", "z.txt": b"Plain.", "a.jsonl": lines(), "run.py": b"1/0"}
    add(files)
    assert read_dataset(REPO).name == f"hf://datasets/{REPO}/z.txt"


def test_without_a_field_called_text_the_longest_is_read_unless_another_is_named(add: Add) -> None:
    add({"a.jsonl": lines([{"title": "Fox", "body": "A long story of a fox."}])})
    assert read_dataset(REPO).name.endswith("#body")
    assert read_dataset(f"{REPO}#title").text == "Fox"
    assert refused(f"{REPO}/a.jsonl#lyrics").values["fields"] == "title, body"


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".json", ".csv"])
def test_no_more_than_the_first_bytes_are_read_and_whole_rows_of_them(
    add: Add, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "MOST_BYTES", 1001)
    rows = [{"text": f"{i}: 狐狸和葡萄"} for i in range(1000)]
    content = {
        ".txt": "狐狸和葡萄" * 1000,
        ".jsonl": lines(rows).decode(),
        ".json": json.dumps(rows, ensure_ascii=False),
        ".csv": "text\n" + "\n".join(row["text"] for row in rows),
    }[suffix]
    server = add({f"long{suffix}": content.encode()})
    found = read_dataset(f"{REPO}/long{suffix}").text
    assert server.sent(f"long{suffix}") == 1001
    assert "狐狸和葡萄" in found
    assert all(part.endswith("狐狸和葡萄") for part in found.split("\n\n")) or suffix == ".txt"


@pytest.mark.parametrize(
    ("files", "name", "key"),
    [
        ({"a.parquet": b"PAR1"}, REPO, "dataset_no_text"),
        ({"a.parquet": b"PAR1"}, f"{REPO}/a.parquet", "dataset_format"),
        ({"a.txt": b"text"}, f"{REPO}/b.txt", "dataset_no_file"),
        ({"a.txt": b"text"}, f"{REPO}/../../secret.txt", "dataset_no_file"),
        ({"a.txt": b""}, REPO, "text_empty"),
        ({"a.txt": b" \n"}, REPO, "text_empty"),
        ({"a.txt": b"\x89PNG\x00\xff"}, REPO, "text_binary"),
        ({"a.txt": b"a\0b"}, REPO, "text_binary"),
        ({"a.jsonl": b'{"text": "cut'}, REPO, "dataset_unreadable"),
        ({"a.jsonl": b"[1, 2]\n"}, REPO, "dataset_unreadable"),
        ({"a.json": b"[" * 100_000}, REPO, "dataset_unreadable"),
        ({"a.json": b"[1, 2]"}, REPO, "dataset_unreadable"),
        ({"a.jsonl": b'{"label": 3}\n'}, REPO, "text_empty"),
        ({"a.csv": b'text\n"' + b"x" * 200_000}, REPO, "dataset_unreadable"),
        ({"a.txt": b"text"}, "owner/nothing", "dataset_not_found"),
        ({"a.txt": b"text"}, f"{REPO}@no-such-branch", "dataset_not_found"),
        ({"a.txt": b"text"}, "", "bad_dataset_name"),
        ({"a.txt": b"text"}, "stories", "bad_dataset_name"),
        ({"a.txt": b"text"}, "own er/sto:ries", "bad_dataset_name"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(add: Add, files: dict[str, bytes], name: str, key: str) -> None:
    add(files)
    error = refused(name)
    assert isinstance(error, TextError)
    assert error.key == key


def test_a_gated_data_set_says_so(server: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    server.add(f"datasets/{REPO}", tmp_path, gated=True)
    assert refused(REPO).key == "dataset_gated"


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client, "WAITS", ())
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    error = refused(REPO)
    assert isinstance(error, HubError)
    assert error.key == "dataset_unreachable"


def test_a_server_that_sends_something_else_is_not_believed(add: Add) -> None:
    add({"a.txt": b"text"}).fault = "long"
    assert refused(REPO).key == "hub_bad_range"
