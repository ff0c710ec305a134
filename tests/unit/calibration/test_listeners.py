"""What listeners hear is what torch's modules are given, and the gradients that autograd finds."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from studio.calibration.listeners import ActivationListener, Gradient, listen_to_gradients
from studio.checkpoint.layers import Kind, Layer

NAMES = ("q", "k", "up")


class Block(nn.Module):
    """Two layers that are given the same, one that is given what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.up = (nn.Linear(4, 4, bias=False, dtype=torch.float32) for _ in NAMES)

    def forward(self, given: Tensor) -> Any:
        return self.up(self.q(given) * self.k(given))


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return Block()


LAYERS = [Layer(f"{name}.weight", (f"{name}.weight",), Kind.LINEAR, (4, 4)) for name in NAMES]


def some(seed: int = 1, rows: int = 6) -> Tensor:
    return torch.randn(2, rows // 2, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def test_layers_given_the_same_share_what_is_made_of_it_as_rows(block: Block) -> None:
    made: list[str] = []

    def make(name: str, rows: Tensor) -> Tensor:
        made.append(name)
        return rows.clone()

    listener = ActivationListener(block, LAYERS, make)
    given = some()
    block(given)
    assert made == ["q.weight", "up.weight"]
    assert listener.heard["q.weight"] is listener.heard["k.weight"]
    assert torch.equal(listener.heard["q.weight"], given.reshape(6, 4))
    assert torch.equal(listener.heard["up.weight"], (block.q(given) * block.k(given)).detach().reshape(6, 4))


def test_layers_of_different_groups_share_nothing(block: Block) -> None:
    listener = ActivationListener(block, LAYERS, lambda _, rows: rows.clone(), group=lambda name: name)
    block(some())
    assert listener.heard["q.weight"] is not listener.heard["k.weight"]


@pytest.mark.parametrize("is_merged", [True, False], ids=["merged", "first"])
def test_a_layer_that_runs_twice_is_merged_or_counts_once(block: Block, is_merged: bool) -> None:
    merge = (lambda before, more: before + more) if is_merged else None
    listener = ActivationListener(block, LAYERS, lambda _, rows: float(rows.sum()), merge)
    first, second = some(1), some(2)
    block(first)
    block(second)
    expected = float(first.sum()) + (float(second.sum()) if is_merged else 0.0)
    assert listener.heard["q.weight"] == pytest.approx(expected, rel=1e-5)


def test_memory_that_was_written_since_is_not_the_same(block: Block) -> None:
    listener = ActivationListener(block, LAYERS, lambda _, rows: float(rows.sum()), lambda _, more: more)
    given = some()
    block(given)
    given.mul_(2)
    block(given)
    assert listener.heard["q.weight"] == pytest.approx(float(given.sum()), rel=1e-5)


def test_nothing_is_heard_while_it_is_paused_and_nothing_kept_once_it_forgot(block: Block) -> None:
    listener = ActivationListener(block, LAYERS, lambda _, rows: rows.clone())
    with listener.paused():
        block(some())
    assert listener.heard == {}
    block(torch.empty(0, 4, dtype=torch.float32))
    assert listener.heard == {}, "of nothing, nothing"
    block(some())
    assert listener.heard.keys() == {layer.name for layer in LAYERS}
    listener.release()
    assert listener.heard
    listener.forget()
    assert listener.heard == {}


def test_gradients_are_those_of_each_output(block: Block) -> None:
    heard: dict[str, tuple[Tensor, Tensor]] = {}

    def hear(name: str, given: Tensor) -> Gradient:
        return lambda gradient: heard.update({name: (given.detach(), gradient)})

    listen_to_gradients(block, LAYERS, hear)
    with torch.no_grad():
        block(some())
    assert heard == {}, "on the way forward alone"
    given = some()
    q, k = block.q.weight.detach(), block.k.weight.detach()
    block(given).sum().backward()
    back = torch.ones(4, dtype=torch.float32) @ block.up.weight.detach()
    assert heard.keys() == {layer.name for layer in LAYERS}
    assert torch.equal(heard["q.weight"][0], given)
    torch.testing.assert_close(heard["q.weight"][1], back * (given @ k.T))
    torch.testing.assert_close(heard["k.weight"][1], back * (given @ q.T))
    torch.testing.assert_close(heard["up.weight"][1], torch.ones_like(given))
