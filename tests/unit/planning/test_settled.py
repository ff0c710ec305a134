"""What a machine leaves for weights is what the verdict says would just fit; a context that cannot be is refused."""

from dataclasses import replace

import pytest

from studio.base.errors import SchemeError
from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.planning.choice import Choice
from studio.planning.hosts import DEFAULT_CONTEXT, GB, PROGRAM, own_host
from studio.planning.settled import as_far_as_possible, cache_bytes, longest_context, settled
from tests.terminal import TinyModel


@pytest.fixture
def checkpoint(tiny_model: TinyModel) -> Checkpoint:
    return of_folder(tiny_model("llama"))


def left(checkpoint: Checkpoint, words: str) -> int:
    found = settled(Choice.of(budget=words), checkpoint).budget
    assert found is not None
    assert found.left is not None
    return found.left


def test_it_is_the_memory_without_context_and_program(checkpoint: Checkpoint) -> None:
    longest = longest_context(checkpoint)
    assert longest is not None
    cache = cache_bytes(checkpoint, 100)
    assert cache is not None
    assert cache > 0
    assert left(checkpoint, "fits:8GB@100") == own_host(8, 0).available - PROGRAM - cache
    usual = cache_bytes(checkpoint, min(longest, DEFAULT_CONTEXT))
    assert left(checkpoint, "fits:8GB") == 6 * GB - PROGRAM - (usual or 0)
    assert left(checkpoint, "fits:8GB@100/kv8") > left(checkpoint, "fits:8GB@100")
    assert left(checkpoint, "fits:0.1GB@100") == 0


def test_a_size_is_left_as_it_is(checkpoint: Checkpoint) -> None:
    choice = Choice.of(budget="5GB")
    assert settled(choice, checkpoint) is choice
    assert settled(Choice(), checkpoint) == Choice()


def test_a_context_longer_than_the_models_is_refused_with_the_longest(checkpoint: Checkpoint) -> None:
    with pytest.raises(SchemeError) as caught:
        left(checkpoint, "fits:8GB@900000k")
    assert caught.value.key == "budget_context"
    assert f"{longest_context(checkpoint):,}" in str(caught.value)


def test_from_headers_alone_the_layers_tell(checkpoint: Checkpoint) -> None:
    far = replace(checkpoint, folder=None)
    assert longest_context(far) is None
    assert cache_bytes(far, 100) == cache_bytes(checkpoint, 100)
    assert (cache_bytes(far, 100, 8) or 0) * 16 == (cache_bytes(far, 100) or 0) * 9
    without = tuple(layer for layer in far.layers if ".k_proj." not in layer.name and ".v_proj." not in layer.name)
    with pytest.raises(SchemeError, match="give a size"):
        left(replace(far, layers=without), "fits:8GB")


def test_another_model_drops_what_it_cannot_have(checkpoint: Checkpoint) -> None:
    assert as_far_as_possible(Choice.of(budget="fits:8GB@900000k"), checkpoint).budget is None
    assert as_far_as_possible(Choice.of(budget="80GB"), checkpoint).budget is None, "it is smaller than that"
    assert str(as_far_as_possible(Choice.of(budget="fits:80GB@100"), checkpoint).budget) == "fits:80GB@100"
    assert as_far_as_possible(Choice.of(budget="8bpw"), checkpoint).budget is not None
