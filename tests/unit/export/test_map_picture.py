"""The map of a card: a picture that shows every weight's bits, whatever the model's shape and names."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.open_model import open_model
from studio.export.map_picture import KEPT, MAX_BLOCKS, SCALE, bits_of, map_picture
from studio.planning.choice import Choice, Pin
from studio.planning.plan import Assignment, Plan, make_plan
from studio.quantization.scheme import Mode, Scheme
from tests.steps import finish


def colours(png: bytes) -> dict[tuple[int, int, int], int]:
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    return {colour: count for count, colour in picture.getcolors(1 << 24) or []}  # type: ignore[misc]


def rgb(words: str) -> tuple[int, int, int]:
    return int(words[1:3], 16), int(words[3:5], 16), int(words[5:], 16)


def test_a_kept_weight_has_its_colour_and_its_place(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = finish(open_model(str(tiny_model("llama")), True))
    choice = Choice(Mode.INT4_SYM, 32)
    plain = colours(map_picture(make_plan(checkpoint.layers, choice), "a"))
    kept = colours(
        map_picture(make_plan(checkpoint.layers, Choice(Mode.INT4_SYM, 32, pins=(Pin("*.1.*", None),))), "a")
    )
    assert rgb(KEPT) not in plain
    assert kept[rgb(KEPT)] > 7 * 15 * 15 * SCALE  # a block's seven projections


def test_bits_count_the_scales(tiny_model: Callable[[str], Path]) -> None:
    layer = Layer("a.weight", ("a.weight",), Kind.LINEAR, (64, 64))
    assert bits_of(Assignment(layer, Scheme(Mode.INT4_SYM, 32))) == 4.5
    assert bits_of(Assignment(layer, None)) == 16


@pytest.mark.parametrize("name", ["<b>`\n", "名" * 50, "", "x" * 10_000])
@pytest.mark.parametrize("blocks", [0, 1, 300])
def test_any_model_has_a_picture(name: str, blocks: int) -> None:
    layers = [Layer(f"model.layers.{i}.{name}.weight", ("a",), Kind.LINEAR, (32, 32)) for i in range(blocks)] + [
        Layer(f"{name}.weight", ("a",), Kind.EMBEDDING, (32, 32)),
        Layer("norm.weight", ("a",), Kind.OTHER, (32,)),
    ]
    schemes = [Scheme(Mode.INT4_SYM, 32), Scheme(Mode.INT8_SYM), None]
    assignments = tuple(Assignment(layer, schemes[i % 3]) for i, layer in enumerate(layers))
    png = map_picture(Plan(Choice(Mode.INT4_SYM, 32), assignments, True), name)
    picture = Image.open(io.BytesIO(png))
    assert picture.width <= (MAX_BLOCKS * 18 + 400) * SCALE
    assert len(png) < 500_000
