"""Ways to damage a model's folder, and the sentence that each is refused with."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file

from tests.visits import WEIGHTS


def cut_short(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1000)


def flipped_header(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[8:40] = bytes(byte ^ 0x80 for byte in content[8:40])
    (folder / WEIGHTS).write_bytes(content)


def changed_offsets(folder: Path) -> None:
    """A header that is JSON, but lies: one tensor begins where another does."""
    content = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["model.norm.weight"]["data_offsets"] = [0, 128]
    changed = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + length :])


def in_shards(folder: Path) -> dict[str, str]:
    """Split the weights into two shards and return the map from tensors to shards."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(weights)
    shards = {name: f"model-0000{1 + (name > names[len(names) // 2])}-of-00002.safetensors" for name in names}
    for shard in set(shards.values()):
        save_file({name: weights[name] for name in names if shards[name] == shard}, folder / shard)
    write_index(folder, shards)
    return shards


def write_index(folder: Path, shards: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def shard_deleted(folder: Path) -> None:
    (folder / max(in_shards(folder).values())).unlink()


def shard_not_in_the_index(folder: Path) -> None:
    shards = in_shards(folder)
    write_index(folder, {name: shard for name, shard in shards.items() if shard == min(shards.values())})


def shard_elsewhere(folder: Path) -> None:
    write_index(folder, in_shards(folder) | {"model.norm.weight": "../model.safetensors"})


def index_without_a_map(folder: Path) -> None:
    in_shards(folder)
    write_index(folder, ["model.norm.weight"])


def config_not_json(folder: Path) -> None:
    (folder / "config.json").write_text("{'model_type': 'llama'}")


def config_a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[1, 2]")


def config_in_another_encoding(folder: Path) -> None:
    (folder / "config.json").write_bytes(b'{"model_type": "llama\xff"}')


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def config_of_another_size(folder: Path) -> None:
    change_config(folder, intermediate_size=256)


def config_with_more_layers(folder: Path) -> None:
    change_config(folder, num_hidden_layers=3)


def config_of_words(folder: Path) -> None:
    change_config(folder, hidden_size="wide")


def architecture_unknown(folder: Path) -> None:
    change_config(folder, model_type="clairvoyant")


def architecture_with_code(folder: Path) -> None:
    change_config(folder, model_type="own", auto_map={"AutoModelForCausalLM": "modeling_own.Model"})


def quantized_already(folder: Path) -> None:
    change_config(folder, quantization_config={"quant_method": "bitsandbytes", "bits": 4})


DAMAGES: dict[Callable[[Path], object], str] = {
    cut_short: "damaged_file",
    flipped_header: "damaged_file",
    changed_offsets: "damaged_file",
    shard_deleted: "missing_file",
    shard_not_in_the_index: "tensor_missing",
    shard_elsewhere: "bad_index",
    index_without_a_map: "index_without_map",
    config_not_json: "damaged_file",
    config_a_list: "not_an_object",
    config_in_another_encoding: "damaged_file",
    config_of_another_size: "tensor_mismatch",
    config_with_more_layers: "tensor_missing",
    config_of_words: "wrong_config_value",
    architecture_unknown: "unknown_architecture",
    architecture_with_code: "needs_remote_code",
    quantized_already: "already_quantized",
}
