"""Configs that ask for what no model can have, for code, or for somebody else's repository."""

import json
import math
from collections.abc import Callable
from pathlib import Path

from tests.corpus.case import CHAT, CONFIG, Case, Place, edit, pickle_that_runs

CODE = "from pathlib import Path\nPath({marker!r}).touch()\nclass Model: pass\nConfig = Tokenizer = Model\n"
VALUE = ("wrong_config_value", "unaccepted_value", "bad_config_pair")


def said(**changes: object) -> Callable[[Place], None]:
    """Say something else in the config."""
    return lambda place: edit(place.llama() / CONFIG, lambda config: config.update(changes))


def text(content: bytes) -> Callable[[Place], object]:
    """Put other bytes in the config's place."""
    return lambda place: (place.llama() / CONFIG).write_bytes(content)


def with_code(**changes: object) -> Callable[[Place], None]:
    """Put code beside the model, which the config names."""

    def build(place: Place) -> None:
        said(**changes)(place)
        for name in ("modeling_own.py", "configuration_own.py", "tokenization_own.py", "custom_generate/generate.py"):
            file = place.model / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(CODE.format(marker=str(place.marker)))

    return build


def with_file(name: str, content: Callable[[Place], bytes], *gone: str) -> Callable[[Place], None]:
    """Put a file beside the model, and take others away."""

    def build(place: Place) -> None:
        folder: Path = place.llama()
        for each in gone:
            (folder / each).unlink()
        (folder / name).write_bytes(content(place))

    return build


def runs(place: Place) -> bytes:
    return pickle_that_runs(place.marker)


def bundled(*builds: Callable[[Place], object]) -> Callable[[Place], None]:
    def build(place: Place) -> None:
        for each in builds:
            each(place)

    return build


OWN = {"AutoConfig": "configuration_own.Config", "AutoModelForCausalLM": "modeling_own.Model",
       "AutoTokenizer": ["tokenization_own.Tokenizer", None]}  # fmt: skip
ROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0], "long_factor": [1.0] * 999,
        "original_max_position_embeddings": 64}  # fmt: skip
CASES = (
    Case("not JSON", text(b"{'model_type': 'llama'}"), ("damaged_file",)),
    Case("empty", text(b""), ("damaged_file",)),
    Case("a list", text(b"[]"), ("not_an_object",)),
    Case("in another encoding", text(b'{"model_type": "llama\xff"}'), ("damaged_file",)),
    Case("nested a million deep", text(b'{"a":' + b"[" * 1_000_000), ("damaged_file", "file_too_large")),
    Case("of a hundred megabytes", text(b'{"a":"' + b"a" * 100_000_000 + b'"}'), ("damaged_file", "file_too_large")),
    Case("model_type that is a path", said(model_type="../../evil"), ("unknown_architecture",)),
    Case("model_type that is a list", said(model_type=["llama"]), ("unknown_architecture", *VALUE)),
    Case("model_type of none", said(model_type="clairvoyant"), ("unknown_architecture",), named="clairvoyant"),
    Case("model_type of escapes", said(model_type="\x1b[2J"), ("unknown_architecture",)),
    Case("model_type of a model within another", said(model_type="timm_wrapper"), ("unknown_architecture",
                                                                                  "not_a_language_model")),
    Case("a class by a path", said(architectures=["../../evil.Model"]), VALUE, may_work=True),
    Case("code for a type of its own", with_code(model_type="own", auto_map=OWN), ("needs_remote_code",)),
    Case("code for a type that is known", with_code(auto_map=OWN), ("needs_remote_code",), may_work=True),
    Case("code of another repository", with_code(auto_map={key: f"evil/code--{each}" for key, each in
                                                          {"AutoModelForCausalLM": "modeling_own.Model"}.items()}),
         ("needs_remote_code",), may_work=True),
    Case("trust_remote_code", with_code(trust_remote_code=True, auto_map=OWN), ("needs_remote_code",), may_work=True),
    Case("kernel of the Hub", said(attn_implementation="evil/kernel", _attn_implementation="evil/kernel",
                                   _attn_implementation_internal="evil/kernel"), may_work=True),
    Case("experts' kernel of the Hub", said(_experts_implementation="evil/kernel", use_kernels=True), may_work=True),
    Case("generation by code of its own", bundled(with_code(), lambda place: (
        place.model / "generation_config.json").write_text(json.dumps({"custom_generate": "."}))), command=CHAT,
         may_work=True),
    Case("adapter of another repository", with_file("adapter_config.json", lambda _: json.dumps(
        {"base_model_name_or_path": "evil/base", "peft_type": "LORA"}).encode()), ("has_adapter", "adapter"),
         may_work=True),
    Case("name of another repository", said(_name_or_path="../../../etc", name_or_path="evil/model"), may_work=True),
    Case("packed by a program that is unknown", said(quantization_config={"quant_method": "evil", "bits": 4}),
         ("already_quantized",)),
    Case("packed in -4 bits", said(quantization_config={"quant_method": "gptq", "bits": -4, "group_size": 0}),
         ("already_quantized", "packed_setting", *VALUE)),
    Case("no weights but a pickle", with_file("pytorch_model.bin", runs, "model.safetensors"), ("only_pickles",)),
    Case("a pickle called safetensors", with_file("model.safetensors", runs), ("damaged_file",)),
    Case("a pickle beside the weights", with_file("pytorch_model.bin", runs), may_work=True),
    Case("training's pickle beside the weights", with_file("training_args.bin", runs), may_work=True),
    Case("num_labels 10^9", said(num_labels=10**9), may_work=True, keys=VALUE),
    Case("a million labels", said(id2label={str(i): "x" for i in range(1_000_000)}), ("file_too_large", *VALUE),
         may_work=True),
    Case("3 heads that share 2", said(num_attention_heads=3), (*VALUE, "tensor_mismatch")),
    Case("more heads that are shared than heads", said(num_key_value_heads=16), VALUE, named="num_key_value_heads"),
    Case("no heads", said(num_attention_heads=0), VALUE, named="num_attention_heads"),
    Case("odd heads", said(head_dim=15), (*VALUE, "tensor_mismatch"), named="head_dim"),
    Case("heads of 8 million channels", said(head_dim=1 << 23), (*VALUE, "tensor_mismatch"), named="head_dim"),
    Case("rotation wider than the head", said(partial_rotary_factor=1e6), VALUE, named="partial_rotary_factor"),
    Case("rotation by too few factors", said(rope_parameters=ROPE), VALUE, named="factor"),
    Case("rotation by a type of none", said(rope_parameters={"rope_type": "whirl"}), VALUE, named="rope_type"),
    Case("rotation by no number", said(rope_parameters={"rope_type": "default", "rope_theta": math.nan}), VALUE,
         named="rope_theta"),
    Case("ten million layers", said(num_hidden_layers=10**7), VALUE, named="num_hidden_layers"),
    Case("a vocabulary of 10^9", said(vocab_size=10**9), (*VALUE, "tensor_mismatch"), named="vocab_size"),
    Case("a width below nothing", said(hidden_size=-64), VALUE, named="hidden_size"),
    Case("a width of 200 digits", said(hidden_size=10**200), VALUE, named="hidden_size"),
    Case("a context of 10^15", said(max_position_embeddings=10**15), VALUE, command=CHAT, may_work=True),
    Case("a context below nothing", said(max_position_embeddings=-1), VALUE, command=CHAT),
    Case("a window below nothing", said(sliding_window=-5), VALUE, command=CHAT, may_work=True),
    Case("an activation of escapes", said(hidden_act="\x1b[31mred"), VALUE, named="hidden_act"),
    Case("an activation that is code", said(hidden_act="__import__('os').system('true')"), VALUE),
    Case("no epsilon", said(rms_norm_eps=math.nan), VALUE, named="rms_norm_eps"),
    Case("a dtype that is a function", said(torch_dtype="load", dtype="hub.load"), VALUE, may_work=True),
    Case("end tokens beyond the vocabulary", said(eos_token_id=[10**12, -3]), (*VALUE, "bad_token_id"), command=CHAT,
         may_work=True),
    Case("a config within a config within", said(text_config={"text_config": {"text_config": {}}}), VALUE,
         may_work=True),
)  # fmt: skip
