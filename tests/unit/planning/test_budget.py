"""A budget is read in every form, and is so many bytes; what is none is refused with what there is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.base.errors import SchemeError
from studio.planning.budget import Budget
from studio.planning.choice import Choice
from studio.planning.mixes import MIXES
from studio.planning.palettes import PALETTES
from studio.planning.plan import make_plan
from tests.unit.planning.test_plan import a_model

STUDIO, GGUF = PALETTES["studio"], PALETTES["gguf"]


def limit(words: str) -> int:
    budget = Budget.parse(words)
    assert budget is not None
    return budget.limit(a_model(), STUDIO)


WEIGHTS = sum(layer.numel for layer in a_model())


@pytest.mark.parametrize(
    ("words", "nbytes"),
    [
        ("5GB", 5_000_000_000), ("5 gb", 5_000_000_000), ("0.5MB", 500_000), ("1.25 GiB", 5 << 28), ("12345B", 12_345),
        ("50%", WEIGHTS), ("4.5bpw", int(WEIGHTS * 4.5 / 8)), (" 8 BPW ", WEIGHTS),
    ],
)  # fmt: skip
def test_every_form_is_so_many_bytes(words: str, nbytes: int) -> None:
    assert limit(words) == nbytes


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("palette", PALETTES.values(), ids=list(PALETTES))
def test_a_mix_is_what_it_takes_of_this_model(mix: str, palette: object) -> None:
    plan = make_plan(a_model(), Choice.of(mix=mix))
    budget = Budget.parse(mix.upper())
    assert budget is not None
    assert budget.limit(a_model(), STUDIO) == plan.compressed_bytes
    norms = sum(2 * a.layer.numel for a in plan.assignments if not a.layer.is_weight)
    assert budget.limit(a_model(), GGUF) == plan.compressed_bytes + norms, "which are F32 there"


@pytest.mark.parametrize("words", ["", " ", "none", "NONE"])
def test_none_is_none(words: str) -> None:
    assert Budget.parse(words) is None


@pytest.mark.parametrize(
    "words",
    [
        "5",
        "fits:",
        "fits:60%",
        "fits:paper",
        "GB",
        "-5GB",
        "5 TBB",
        "1e9B",
        "nan%",
        "infGB",
        "0GB",
        "0.0%",
        "five GB",
        "5GB%",
        "5,5GB",
        "q9_k",
    ],
)
def test_what_is_no_budget_is_refused_with_examples(words: str) -> None:
    with pytest.raises(SchemeError) as caught:
        Budget.parse(words)
    assert caught.value.key == "bad_budget"
    assert all(example in str(caught.value) for example in ("5GB", "60%", "4.5bpw", "fits:8GB@8k", "q4_k_m"))


@given(st.decimals(min_value="0.01", max_value=10**9, places=2), st.sampled_from(["B", "GB", "GiB", "%", "bpw", "kib"]))
def test_it_is_written_one_way_and_read_again(number: object, unit: str) -> None:
    budget = Budget.parse(f"{number}{unit}")
    assert Budget.parse(str(budget)) == budget
    assert budget == Budget.parse(f" {number} {unit.upper()}")


@pytest.mark.parametrize(("other", "word"), [("ratio", 0.5), ("mix", "q4_k_m")])
def test_what_decides_instead_cannot_stand_beside_it(other: str, word: float | str) -> None:
    with pytest.raises(SchemeError) as caught:
        Choice.of(budget="5GB", **{other: word})  # type: ignore[arg-type]
    assert caught.value.key == "budget_and_other"
    assert other in str(caught.value)


def test_an_unknown_target_names_the_known() -> None:
    with pytest.raises(SchemeError, match="studio, gguf, mlx"):
        Choice.of(budget="5GB", target="x")


def test_a_budget_is_ranked_by_damage_and_says_so() -> None:
    choice = Choice.of(budget="60%", target="GGUF")
    assert choice.is_mixed
    assert choice.sensitivity == "damage"
    assert choice.title == "gguf-60%"
    assert choice.arguments(repeated=False)[-4:] == ["--budget", "60%", "--to", "gguf"]


def test_a_machines_memory_is_so_many_bytes_once_a_model_is_known() -> None:
    budget = Budget.parse("fits: 8 gb @8192")
    assert budget is not None
    assert str(budget) == "fits:8GB@8k"
    with pytest.raises(ValueError, match="not settled"):
        budget.limit(a_model(), STUDIO)
    known = replace(budget, left=123)
    assert known.limit(a_model(), STUDIO) == 123
    assert known == budget, "the same choice, whichever model it met"
