"""Whether a model fits a named machine: arithmetic that a person can do by hand."""

import math

import pytest

from studio.checkpoint.layers import Kind, Layer
from studio.planning.hosts import CONTEXTS, GB, HOSTS, PROGRAM, Fit, Host, cache_per_token, own_host


def layer(name: str, kind: Kind, *shape: int, tied: tuple[str, ...] = ()) -> Layer:
    return Layer(name, (name,), kind, shape, tied=tied)


UNTIED = (
    layer("model.embed_tokens.weight", Kind.EMBEDDING, 1000, 64),
    layer("model.layers.0.self_attn.q_proj.weight", Kind.LINEAR, 64, 64),
    layer("model.layers.0.self_attn.k_proj.weight", Kind.LINEAR, 16, 64),
    layer("model.layers.0.self_attn.v_proj.weight", Kind.LINEAR, 16, 64),
    layer("model.layers.0.mlp.experts.weight", Kind.LINEAR, 8, 32, 64),
    layer("lm_head.weight", Kind.HEAD, 1000, 64),
    layer("model.norm.weight", Kind.OTHER, 64),
)


def test_a_model_fits_where_weights_context_and_program_do() -> None:
    host = Host("mine", 8 * GB, 100 * GB, 3 * GB)
    fit = Fit(host, weights=4 * GB, cache=700 * 10**6, read=4 * GB)
    assert fit.need == 5 * GB == host.available
    assert fit.fits
    assert not Fit(host, 4 * GB + 1, 700 * 10**6, 4 * GB).fits
    assert fit.largest == fit.weights
    assert Fit(host, fit.largest, fit.cache, 1).fits
    assert PROGRAM < GB


def test_speed_is_memory_speed_over_what_a_token_reads() -> None:
    fit = Fit(Host("mine", 8 * GB, 100 * GB), 4 * GB, 1 * GB, 4 * GB)
    assert fit.tokens_per_second == pytest.approx(25)
    assert fit.tokens_per_second_when_full == pytest.approx(20)
    assert Fit(Host("unknown", 8 * GB, 0), 4 * GB, 1 * GB, 4 * GB).tokens_per_second is None


def test_keys_and_values_are_read_off_the_layers_that_make_them() -> None:
    assert cache_per_token(UNTIED) == 2 * (16 + 16)
    assert cache_per_token(UNTIED[:2]) is None


@pytest.mark.parametrize("figure", [0, -1, math.nan, math.inf, 1e9])
def test_a_machine_of_impossible_figures_holds_nothing(figure: float) -> None:
    assert own_host(figure, 50).available == 0
    assert Fit(own_host(16, figure), GB, 0, GB).tokens_per_second is None


def test_a_machine_of_ones_own_leaves_room_for_others() -> None:
    assert own_host(16, 50).available == 12 * GB
    assert own_host(4, 50).available == 3 * GB
    assert own_host(64, 50).bandwidth == 50e9


def test_the_menus_machines_have_room_and_their_contexts_grow() -> None:
    assert all(0 < host.taken < host.memory and host.bandwidth > 0 for host in HOSTS.values())
    assert [name for name, host in HOSTS.items() if host.name != name] == []
    assert list(CONTEXTS) == sorted(CONTEXTS)
