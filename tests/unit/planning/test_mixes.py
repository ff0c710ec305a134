"""llama.cpp's mixes: the types that its own quantizer gives, by its own rule, and what it takes for odd widths."""

import pytest

from studio.base.errors import SchemeError
from studio.checkpoint.layers import Kind, Layer
from studio.planning.choice import Choice
from studio.planning.mixes import MIXES, fitting
from studio.planning.plan import make_plan

BLOCKS = 16
MORE = {0, 1, 4, 7, 10, 13, 14, 15}
"""Of 16 blocks, those that llama.cpp's ``use_more_bits`` is true for."""


def layers(width: int = 256, kv: int = 64, tied: bool = False) -> list[Layer]:
    """Return a Llama's weights, and a norm."""
    found = [Layer("model.embed_tokens.weight", ("e",), Kind.EMBEDDING, (1000, width))]
    for block in range(BLOCKS):
        name = f"model.layers.{block}"
        shapes = {
            "self_attn.q_proj": (256, width), "self_attn.k_proj": (kv, width), "self_attn.v_proj": (kv, width),
            "self_attn.o_proj": (width, 256), "mlp.up_proj": (512, width), "mlp.down_proj": (width, 512),
        }  # fmt: skip
        found += [Layer(f"{name}.{each}.weight", (each,), Kind.LINEAR, shape) for each, shape in shapes.items()]
    found.append(Layer("model.norm.weight", ("n",), Kind.OTHER, (width,)))
    return found if tied else [*found, Layer("lm_head.weight", ("h",), Kind.HEAD, (1000, width))]


def types(mix: str, **shape: int | bool) -> dict[str, str]:
    schemes = MIXES[mix].schemes(layers(**shape))  # type: ignore[arg-type]
    return {name: str(scheme) for name, scheme in schemes.items()}


def test_more_bits_go_where_llama_cpp_puts_them() -> None:
    found = types("q4_k_m")
    for part in ("self_attn.v_proj", "mlp.down_proj"):
        assert {b for b in range(BLOCKS) if found[f"model.layers.{b}.{part}.weight"] == "q6_k"} == MORE
    assert {found[f"model.layers.{b}.self_attn.q_proj.weight"] for b in range(BLOCKS)} == {"q4_k"}
    assert (found["lm_head.weight"], found["model.embed_tokens.weight"]) == ("q6_k", "q4_k")
    assert "model.norm.weight" not in found


def test_a_tied_embedding_is_an_output() -> None:
    assert types("q4_k_m", tied=True)["model.embed_tokens.weight"] == "q6_k"


def test_widths_that_blocks_do_not_divide_take_what_llama_cpp_takes() -> None:
    found = types("q4_k_m", width=288)
    assert found["model.layers.0.self_attn.q_proj.weight"] == "q5_0"
    assert found["model.layers.0.self_attn.v_proj.weight"] == "q8_0"
    assert found["lm_head.weight"] == "q8_0"
    assert found["model.layers.2.mlp.down_proj.weight"] == "q4_k"  # 512 wide
    assert fitting("iq4_xs", 50) is None


@pytest.mark.parametrize(("kv", "mode"), [(64, "q5_k"), (128, "iq4_xs")], ids=["four to one", "two to one"])
def test_values_that_heads_share_count_more_in_iq4_xs(kv: int, mode: str) -> None:
    assert types("iq4_xs", kv=kv)["model.layers.3.self_attn.v_proj.weight"] == mode


def test_a_mix_is_planned_with_its_exact_bytes_and_pins_come_first() -> None:
    choice = Choice.of(mix="Q4_K_M", pins=["*.up_proj=q8_0", "lm_head=none"])
    plan = make_plan(layers(), choice)
    schemes = {a.layer.name: a.scheme for a in plan.assignments}
    assert plan.is_exact
    assert str(schemes["model.layers.5.mlp.up_proj.weight"]) == "q8_0"
    assert schemes["lm_head.weight"] is None
    assert plan.compressed_bytes == sum(a.nbytes for a in plan.assignments)
    assert choice.title == "Q4_K_M"


def test_an_unknown_mix_names_the_known() -> None:
    with pytest.raises(SchemeError, match="q4_k_m"):
        Choice.of(mix="Q9")
