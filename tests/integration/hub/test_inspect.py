"""The Hub's module with the real client: headers and configs, and not one weight."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from studio.base.errors import CheckpointError, HubError, ModelError
from studio.checkpoint import hub
from studio.checkpoint.file_names import CONFIG, INDEX, PACKED, WEIGHTS
from studio.checkpoint.json_file import MAX_BYTES
from tests.hub_server import LocalHub
from tests.small_repository import REPO, UNWANTED, sharded, weight


def write_header(path: Path, claims: dict[str, Any], data_bytes: int) -> None:
    header = json.dumps(claims).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(data_bytes))


class TestInspect:
    def test_reads_headers_and_no_weights(self, server: LocalHub, folder: Path) -> None:
        model = server.add(REPO, folder)
        repository = hub.inspect(REPO)
        assert (repository.repo, repository.sha) == (REPO, model.sha)
        assert repository.config == {"model_type": "llama"}
        assert {name: (entry.file, entry.dtype, entry.shape) for name, entry in repository.entries.items()} == {
            "embed": (WEIGHTS, "F16", (1500, 1000)),
            "head": (WEIGHTS, "F16", (1500, 1000)),
        }
        asked = [request for request in server.requests if request.path.endswith(WEIGHTS)]
        assert all(request.range for request in asked)
        assert server.sent(WEIGHTS) <= hub.FIRST_READ_BYTES

    def test_reads_a_long_header_in_two_requests(self, server: LocalHub, folder: Path) -> None:
        tensors = {f"a.tensor.with.a.long.name.{i}": np.zeros((1, 500), np.float16) for i in range(2000)}
        save_file(tensors, folder / WEIGHTS)
        server.add(REPO, folder)
        assert hub.inspect(REPO).entries.keys() == tensors.keys()
        header = int.from_bytes((folder / WEIGHTS).read_bytes()[:8], "little")
        assert server.sent(WEIGHTS) == 8 + header > hub.FIRST_READ_BYTES

    def test_counts_exactly_what_a_download_fetches(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, folder)
        repository = hub.inspect(REPO)
        names = {WEIGHTS, "config.json", "tokenizer.json", "chat_template.jinja", "vocab[1].txt"}
        assert repository.files == {name: (folder / name).stat().st_size for name in names}
        assert repository.download_bytes == sum(repository.files.values())

    def test_takes_the_shards_of_the_index_and_nothing_else(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, sharded(folder))
        repository = hub.inspect(REPO)
        shards = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
        assert {entry.file for entry in repository.entries.values()} == shards
        assert {name for name in repository.files if name.endswith(".safetensors")} == shards

    def test_at_a_commit(self, server: LocalHub, folder: Path) -> None:
        model = server.add(REPO, folder)
        assert hub.inspect(REPO, model.sha).sha == model.sha

    def test_a_missing_repository(self, server: LocalHub) -> None:
        with pytest.raises(ModelError, match="no model “owner/none”"):
            hub.inspect("owner/none")

    def test_a_missing_commit(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, folder)
        with pytest.raises(ModelError, match="no model"):
            hub.inspect(REPO, "0" * 40)

    def test_a_path_is_never_asked_for(self, server: LocalHub) -> None:
        with pytest.raises(ModelError, match="no model"):
            hub.inspect("../../etc/passwd")
        assert server.requests == []

    def test_a_gated_repository(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, folder, gated=True)
        with pytest.raises(ModelError, match="accept their terms"):
            hub.inspect(REPO)

    def test_a_repository_without_safetensors(self, server: LocalHub, folder: Path) -> None:
        """An adapter and a variant remain; that the adapter's config is no JSON is not what is wrong."""
        (folder / WEIGHTS).unlink()
        server.add(REPO, folder)
        with pytest.raises(ModelError, match="only an adapter") as caught:
            hub.inspect(REPO)
        assert (caught.value.key, caught.value.values["base"]) == ("adapter_only", "?")

    @pytest.mark.parametrize(
        ("left", "key"),
        [
            ({"consolidated.safetensors", "pytorch_model.bin"}, "no_index"),
            ({"pytorch_model.bin"}, "only_pickles"),
            (set(), "no_safetensors"),
        ],
        ids=["a-variant", "a-pickle", "nothing"],
    )
    def test_why_a_repository_has_no_weights(self, left: set[str], key: str, server: LocalHub, folder: Path) -> None:
        for name in {WEIGHTS, *UNWANTED} - left - {"README.md"}:
            (folder / name).unlink()
        server.add(REPO, folder)
        with pytest.raises(ModelError) as caught:
            hub.inspect(REPO)
        assert caught.value.key == key

    def test_a_repository_of_an_export(self, server: LocalHub, folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / PACKED)
        server.add(REPO, folder)
        with pytest.raises(ModelError, match="compressed already"):
            hub.inspect(REPO)

    @pytest.mark.parametrize(("said", "license"), [({"license": "gemma"}, "gemma"), ({"license": 7}, ""), ({}, "")])
    def test_the_license_is_what_the_card_says(
        self, server: LocalHub, folder: Path, said: dict[str, Any], license: str
    ) -> None:
        server.add(REPO, folder, card=said)
        assert hub.inspect(REPO).license.id == license

    def test_so_are_the_languages(self, server: LocalHub, folder: Path) -> None:
        server.add(REPO, folder, card={"language": ["en", "zh-Hant", "<b>", 7]})
        assert hub.inspect(REPO).languages == ("en", "zh-Hant")

    def test_a_repository_without_config(self, server: LocalHub, folder: Path) -> None:
        (folder / "config.json").unlink()
        server.add(REPO, folder)
        with pytest.raises(ModelError, match=r"no config\.json"):
            hub.inspect(REPO)

    @pytest.mark.usefixtures("closed_port")
    def test_nobody_answers(self) -> None:
        with pytest.raises(HubError, match="does not answer"):
            hub.inspect(REPO)

    def test_an_error_is_named(self, server: LocalHub) -> None:
        server.status = 503
        with pytest.raises(HubError, match="HTTP 503"):
            hub.inspect(REPO)

    @pytest.mark.parametrize(
        "content", [b"not json", b"[1]", b"[" * 100_000, b" " * (MAX_BYTES[CONFIG] + 1)], ids=lambda c: str(c[:4])
    )
    def test_a_config_that_is_none(self, content: bytes, server: LocalHub, folder: Path) -> None:
        (folder / "config.json").write_bytes(content)
        server.add(REPO, folder)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            hub.inspect(REPO)
        if len(content) > MAX_BYTES[CONFIG]:
            assert server.sent("config.json") == 0

    @pytest.mark.parametrize(
        "claim",
        [
            {"dtype": "F16", "shape": [1000, 1000], "data_offsets": [0, 2000]},
            {"dtype": "F16", "shape": [-1000, -1], "data_offsets": [0, 2000]},
            {"dtype": "F16", "shape": [999], "data_offsets": [2, 2000]},
            {"dtype": "F16", "shape": [500], "data_offsets": [0, 1000]},
            {"dtype": "F16", "shape": [True, 1000], "data_offsets": [0, 2000]},
            # Multiplied before it is looked at, this shape is a text of 80 GB.
            {"dtype": "F16", "shape": ["xxxxxxxx", 10**10], "data_offsets": [0, 2000]},
            {"dtype": "F16", "shape": [1] * 8 + [1000], "data_offsets": [0, 2000]},
            {"dtype": "F16", "shape": [1000]},
            ["F16"],
        ],
        ids=["too-large", "negative", "gap", "rest", "bool", "text", "axes", "no-offsets", "list"],
    )
    def test_a_header_that_lies(self, claim: Any, server: LocalHub, folder: Path) -> None:
        write_header(folder / WEIGHTS, {"embed": claim}, 2000)
        server.add(REPO, folder)
        with pytest.raises(CheckpointError, match=WEIGHTS):
            hub.inspect(REPO)

    @pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 8 + b"{}", b"\2" + bytes(7) + b"[]"])
    def test_a_file_without_header(self, content: bytes, server: LocalHub, folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(content)
        server.add(REPO, folder)
        with pytest.raises(CheckpointError, match=WEIGHTS):
            hub.inspect(REPO)

    @pytest.mark.parametrize(
        ("weight_map", "key", "named"),
        [
            ({}, "index_without_map", INDEX),
            ([], "index_without_map", INDEX),
            ({"embed": "nowhere.safetensors"}, "missing_file", "nowhere.safetensors"),
            ({"embed": "../x.safetensors"}, "bad_index", INDEX),
            ({"embed": 1}, "bad_index", INDEX),
            ({"embed": "README.md"}, "bad_index", INDEX),
        ],
        ids=str,
    )
    def test_an_index_that_lies(self, weight_map: Any, key: str, named: str, server: LocalHub, folder: Path) -> None:
        (sharded(folder) / INDEX).write_text(json.dumps({"weight_map": weight_map}))
        server.add(REPO, folder)
        with pytest.raises(CheckpointError) as caught:
            hub.inspect(REPO)
        assert (caught.value.key, caught.value.values["file"]) == (key, named)

    def test_one_tensor_in_two_shards(self, server: LocalHub, folder: Path) -> None:
        save_file({"embed": weight(0)}, sharded(folder) / "model-00002-of-00002.safetensors")
        server.add(REPO, folder)
        with pytest.raises(CheckpointError) as caught:
            hub.inspect(REPO)
        assert (caught.value.key, caught.value.values["tensor"]) == ("tensor_twice", "embed")
