"""What each kind of tensor loses: fewer bits more, two kinds more than one, keys and values as the chat keeps them."""

from collections.abc import Callable
from pathlib import Path

import torch

from studio.checkpoint.checkpoint import of_folder
from studio.evaluation.simulated import ROUNDINGS
from studio.evaluation.tensor_kinds import kv_losses, simulated_losses
from tests.steps import finish

IDS = torch.arange(3 * 40).reshape(3, 40) * 7 % 200


def test_fewer_bits_lose_more_and_keys_and_values_are_the_chats(
    tiny_model: Callable[[str], Path], own_cache: Path
) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    losses = {row.name: row.evaluation.kld.mean for row in finish(simulated_losses(checkpoint, IDS))}
    assert list(losses) == [each.name for each in ROUNDINGS]
    assert losses["W8"] < losses["W4"]
    assert losses["A8"] < losses["A4"] < losses["W4A4"]
    assert losses["W8A8"] < losses["W4A8"] < losses["W4A4"]
    rows = finish(kv_losses(checkpoint, IDS))
    assert [row.kv_bits for row in rows][:2] == [16, 8]
    assert rows[0].evaluation.kld.mean < rows[1].evaluation.kld.mean
    assert not any(row.is_simulated for row in rows)
