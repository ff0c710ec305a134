"""What becomes of layers that the group size does not divide: NNCF's three answers, and ours are the same."""

from typing import Any

import pytest
import torch

from studio.base.errors import SchemeError
from studio.checkpoint.layers import Kind, Layer
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.quantization.scheme import Mode
from tests.parity.nncf_side import constants, listening, model, nncf

GROUP = 64
LINEAR = {"w576": 576, "w96": 96, "w50": 50, "w128": 128}
TABLE, HEAD = 50, 96
"""Widths of the embedding and of the head."""

PRIMARY, BACKUP, FLOAT, SMALLER = "int4_sym-g64", "int8_asym", "float", "int4_sym-g32"
EXPECTED = {
    # group-size fallback, all layers:  w576, w96, w50, w128, head, embedding
    ("ignore", False): (PRIMARY, FLOAT, FLOAT, PRIMARY, BACKUP, BACKUP),
    ("adjust", False): (PRIMARY, SMALLER, BACKUP, PRIMARY, BACKUP, BACKUP),
    ("ignore", True): (PRIMARY, FLOAT, FLOAT, PRIMARY, FLOAT, FLOAT),
    ("adjust", True): (PRIMARY, SMALLER, BACKUP, PRIMARY, SMALLER, BACKUP),
}
NAMES = (*LINEAR, "head", "embedding")
REFUSED = {False: ("w96", "w50"), True: ("w96", "w50", "head", "embedding")}

every_case = pytest.mark.parametrize(
    ("group_size_fallback", "all_layers"),
    EXPECTED,
    ids=lambda value: value if isinstance(value, str) else f"all_layers={value}",
)


def nncf_schemes(group_size_fallback: str, all_layers: bool) -> tuple[str, ...]:
    """Return what NNCF makes of each weight of a small model."""
    weights = {name: torch.randn(8, width) for name, width in (LINEAR | {"head": HEAD}).items()}
    with listening():
        compressed = nncf.compress_weights(
            model(weights, ("embedding", torch.randn(16, TABLE))),
            mode=nncf.CompressWeightsMode.INT4_SYM,
            group_size=GROUP,
            ratio=1.0,
            all_layers=all_layers,
            backup_mode=nncf.BackupMode.INT8_ASYM,
            advanced_parameters=nncf.AdvancedCompressionParameters(
                group_size_fallback_mode=nncf.GroupSizeFallbackMode[group_size_fallback.upper()]
            ),
        )
    found = constants(compressed)
    return tuple(scheme_of(found[name]) for name in NAMES)


def scheme_of(constant: Any) -> str:
    kind = constant.get_element_type().to_string()
    return {"i4": f"int4_sym-g{constant.shape[-1]}", "u8": "int8_asym", "f32": "float"}[kind]


@every_case
def test_nncf_does_what_the_table_says(group_size_fallback: str, all_layers: bool) -> None:
    assert nncf_schemes(group_size_fallback, all_layers) == EXPECTED[group_size_fallback, all_layers]


@pytest.mark.parametrize("all_layers", REFUSED, ids="all_layers={}".format)
def test_nncf_refuses_misfits_by_default(all_layers: bool) -> None:
    with pytest.raises(nncf.InvalidGroupSizeError) as caught:
        nncf_schemes("error", all_layers)
    widths = {**LINEAR, "head": HEAD, "embedding": TABLE}
    named = str(caught.value).split("Failed nodes:")[1]
    assert [int(line.split()[-1].rstrip(")")) for line in named.strip().splitlines()] == [
        widths[name] for name in REFUSED[all_layers]
    ]


LAYERS = [
    Layer("embedding", ("embedding",), Kind.EMBEDDING, (16, TABLE)),
    *(Layer(name, (name,), Kind.LINEAR, (8, width)) for name, width in LINEAR.items()),
    Layer("head", ("head",), Kind.HEAD, (8, HEAD)),
]


def choice(group_size_fallback: str, all_layers: bool) -> Choice:
    options: dict[str, Any] = {"group_size_fallback": group_size_fallback, "all_layers": all_layers}
    return Choice(Mode.INT4_SYM, GROUP, 1.0, Mode.INT8_ASYM, **options)


@every_case
def test_the_plan_does_the_same(group_size_fallback: str, all_layers: bool) -> None:
    plan = make_plan(LAYERS, choice(group_size_fallback, all_layers))
    schemes = tuple(plan.scheme_of(name) for name in NAMES)
    assert (
        tuple("float" if scheme is None else str(scheme) for scheme in schemes)
        == EXPECTED[group_size_fallback, all_layers]
    )


@pytest.mark.parametrize("all_layers", REFUSED, ids="all_layers={}".format)
def test_the_plan_refuses_misfits_too(all_layers: bool) -> None:
    with pytest.raises(SchemeError):
        make_plan(LAYERS, choice("error", all_layers))
