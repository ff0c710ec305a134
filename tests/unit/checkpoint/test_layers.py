"""A layer's name says where it stands; its kind says whether a ratio speaks of it."""

import pytest

from studio.checkpoint.layers import Kind, Layer, ratio_defining


def layer(name: str, kind: Kind = Kind.LINEAR, shape: tuple[int, ...] = (8, 4), **more: object) -> Layer:
    return Layer(name, (name,), kind, shape, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "side", "block", "projection", "place"),
    [
        ("model.layers.3.mlp.up_proj.weight", "", 3, "mlp.up_proj", ("mlp.up_proj", 3)),
        ("model.layers.3.mlp.experts.7.up.weight", "", 3, "mlp.experts.7.up", ("mlp.experts.*.up", 3)),
        ("encoder.block.1.layer.0.q.weight", "encoder", 1, "encoder.layer.0.q", ("encoder.layer.*.q", 1)),
        ("lm_head.weight", "", None, "lm_head", None),
    ],
)
def test_where_it_stands(
    name: str, side: str, block: int | None, projection: str, place: tuple[str, int] | None
) -> None:
    one = layer(name, side=side)
    assert (one.block, one.projection, one.place) == (block, projection, place)


def test_only_linear_ones_have_a_place_on_the_map() -> None:
    assert layer("model.layers.0.norm.weight", Kind.OTHER, (4,)).place is None


@pytest.mark.parametrize(
    ("shape", "transposed", "matrix", "stored"),
    [
        ((8, 4), False, (8, 4), (8, 4)),
        ((8, 4), True, (8, 4), (4, 8)),
        ((3, 8, 4), False, (24, 4), (3, 8, 4)),
        ((3, 8, 4), True, (24, 4), (3, 4, 8)),
    ],
    ids=["plain", "transposed", "experts", "experts-transposed"],
)
def test_its_shapes(shape: tuple[int, ...], transposed: bool, matrix: tuple[int, int], stored: tuple[int, ...]) -> None:
    one = layer("a.weight", shape=shape, transposed=transposed)
    assert (one.matrix, one.stored_shape) == (matrix, stored)
    assert one.original_bytes == 2 * one.numel == 2 * matrix[0] * matrix[1]


def test_the_ratio_speaks_of_linear_ones_and_if_asked_of_head_and_embedding_after_them() -> None:
    embedding, head = layer("embed.weight", Kind.EMBEDDING), layer("head.weight", Kind.HEAD)
    norm, linear = layer("norm.weight", Kind.OTHER, (4,)), layer("b.0.up.weight")
    layers = [embedding, norm, linear, head]
    assert ratio_defining(layers) == [linear]
    assert ratio_defining(layers, all_layers=True) == [linear, head, embedding]
