"""``evaluate`` with checks: one object or a table, and one sentence for what does not go together."""

from collections.abc import Callable
from pathlib import Path

import pytest

from studio.evaluation.simulated import ROUNDINGS
from tests.terminal import run

TinyModel = Callable[[str], Path]


def test_every_rounding_is_a_row_and_named_a_simulation(tiny_model: TinyModel, own_cache: Path) -> None:
    answer = run("evaluate", tiny_model("llama"), "--activations", "--kv", "--json")
    kinds = answer.json["kinds"]
    assert [kind["name"] for kind in kinds if kind["simulated"]] == [each.name for each in ROUNDINGS]
    assert [kind["kv_bits"] for kind in kinds if not kind["simulated"]][:2] == [16, 8]
    assert all(kind["kld"]["mean"] >= 0 for kind in kinds)


def test_a_check_to_read_names_its_parts(tiny_model: TinyModel, own_cache: Path) -> None:
    model = tiny_model("llama")
    answer = run("evaluate", model, "--against", model, "--dialogue")
    assert "of 20 answers changed" in answer.stdout
    facts = run("evaluate", model, "--against", model, "--dialogue", "--json").json
    assert facts["answers"]["dialogue"]["questions"] == 20
    assert facts["long_context"] == []


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--activations", "--safety"], "kinds_alone"),
        (["--kv", "--against", "builtin"], "kinds_alone"),
        (["--safety"], "against_missing"),
        ([], "against_missing"),
    ],
    ids=["two at once", "an original", "no original", "nothing"],
)
def test_what_does_not_go_together_is_one_sentence(tiny_model: TinyModel, arguments: list[str], key: str) -> None:
    answer = run("evaluate", tiny_model("llama"), *arguments, "--json")
    assert answer.code == 2
    assert answer.json["error"]["key"] == key
