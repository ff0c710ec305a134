"""Units of modules: what is loaded as one, put in place, stood in for, and run again for its gradient."""

import pytest
import torch
from torch import nn

from studio.runtime.module_hooks import Call, DecoderEnded, ended_by, module_units, put_parameter, standing_in


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.up(hidden_states))
        return out


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layers = nn.Embedding(8, 4), nn.ModuleList([Block(), Block()])
        self.register_buffer("angles", torch.zeros(3))

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor]:
        hidden = self.embed(ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return (hidden,)


def test_a_block_is_loaded_whole_and_all_else_by_itself() -> None:
    model = Whole()
    units = module_units(model, dict(model.named_parameters()))
    assert units.keys() == {"embed", "layers.0", "layers.1"}
    assert set(units["layers.0"]) == {
        f"layers.0.{name}" for name in ("up.weight", "up.bias", "norm.weight", "norm.bias")
    }


def test_a_parameter_or_a_buffer_is_put_by_its_name() -> None:
    model = Whole()
    weight, angles = nn.Parameter(torch.ones(4, 4)), torch.ones(3)
    put_parameter(model, "layers.1.up.weight", weight)
    put_parameter(model, "angles", angles)
    assert model.get_parameter("layers.1.up.weight") is weight
    assert model.get_buffer("angles") is angles


def test_a_run_ends_where_the_decoder_does_and_only_within() -> None:
    model, ids = Whole(), torch.tensor([[1, 2]])
    with ended_by(model), pytest.raises(DecoderEnded) as ended:
        model(ids)
    assert torch.equal(ended.value.hidden, model(ids)[0])


def test_what_stands_in_is_told_instead_and_only_within() -> None:
    model, ids, hidden = Whole(), torch.tensor([[1, 2]]), torch.full((1, 2, 4), 7.0)
    before = model(ids)[0]
    with standing_in(model, hidden):
        told = model(ids)
        assert torch.equal(told[0], hidden)
        assert torch.equal(told.last_hidden_state, hidden)
        assert told.past_key_values is None
    assert torch.equal(model(ids)[0], before)


@pytest.mark.parametrize("by_name", [False, True], ids=["by-place", "by-name"])
def test_a_unit_runs_again_for_its_gradient(by_name: bool) -> None:
    block = Block()
    given = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    call = Call("layers.0", block, () if by_name else (given,), {"hidden_states": given} if by_name else {})
    leaf = given.clone().requires_grad_()
    gradient = torch.ones(1, 2, 4)
    block(leaf).backward(gradient)
    gradient_in = call.input_gradient(gradient)
    assert gradient_in is not None
    assert leaf.grad is not None
    assert torch.allclose(gradient_in, leaf.grad)
    assert not given.requires_grad
    assert torch.equal(call.again(), block(given))


def test_what_is_given_no_states_has_no_gradient() -> None:
    embed = nn.Embedding(8, 4)
    assert Call("embed", embed, (torch.tensor([1]),), {}).input_gradient(torch.ones(1, 4)) is None
