"""What vLLM asks beyond what transformers does is said of the plans that break it, and of no other."""

import pytest

from studio.base.text import LANGUAGES
from studio.checkpoint.layers import Kind, Layer
from studio.export.compressed_tensors.vllm import cautions
from studio.planning.choice import Choice
from studio.planning.plan import Assignment, Plan
from studio.quantization.scheme import Scheme

SIZES = {"q_proj": 128, "k_proj": 64, "v_proj": 64, "o_proj": 128}
INT4, INT8 = Scheme.parse("int4_sym-g64"), Scheme.parse("int8_sym")


def plan(schemes: dict[str, Scheme | None], head: Scheme | None = None, width: int = 128) -> Plan:
    """Two blocks alike, and a head."""
    made = []
    for block in range(2):
        for part, rows in SIZES.items():
            name = f"model.layers.{block}.self_attn.{part}.weight"
            made.append(Assignment(Layer(name, (name,), Kind.LINEAR, (rows, width)), schemes.get(part, INT4)))
    made.append(Assignment(Layer("lm_head.weight", ("lm_head.weight",), Kind.HEAD, (512, 128)), head))
    return Plan(Choice.of("int4_sym", 64), tuple(made), is_exact=True)


def test_what_vllm_loads_has_no_caution() -> None:
    assert cautions(plan({})) == []
    assert cautions(plan({"o_proj": INT8})) == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("scheme", [INT8, None], ids=["other", "kept"])
def test_unlike_parts_of_what_is_joined_are_named(scheme: Scheme | None, language: str) -> None:
    [found] = cautions(plan({"v_proj": scheme}))
    assert (found.key, found.values["count"]) == ("vllm_unlike", 2)
    assert "--pin 'model.layers.0.self_attn.v_proj=int4_sym-g64'" in found.sentence(language)


def test_odd_shapes_and_a_packed_head_are_named() -> None:
    [odd] = cautions(plan({}, width=192))
    assert (odd.key, odd.values["rows"], odd.values["width"]) == ("vllm_shape", 128, 192)
    [head] = cautions(plan({}, INT8))
    assert (head.key, head.values["layer"]) == ("vllm_head", "lm_head")
