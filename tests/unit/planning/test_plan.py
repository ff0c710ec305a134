"""A plan gives each tensor what NNCF would, and its sums are exact."""

import math

import pytest

from studio.base.errors import SchemeError
from studio.checkpoint.layers import Kind, Layer, ratio_defining
from studio.planning.choice import Choice
from studio.planning.plan import Plan, damage_scores, group_sizes, make_plan
from studio.quantization.scheme import Mode, Scheme

WIDTH = 576
ROWS = {"q_proj": 576, "k_proj": 192, "o_proj": 576, "up_proj": 1536}
PRIMARY, BACKUP = Scheme(Mode.INT4_ASYM, 64), Scheme(Mode.INT8_ASYM)
RATIOS = [step / 20 for step in range(1, 21)]


def a_layer(name: str, kind: Kind, shape: tuple[int, ...], tied: tuple[str, ...] = ()) -> Layer:
    return Layer(name, (name,), kind, shape, tied=tied)


def a_model(blocks: int = 3, tied: bool = False, width: int = WIDTH) -> list[Layer]:
    """Return the layers of a small model: an embedding, blocks of four weights and a norm, a head unless it is tied."""
    layers = [a_layer("embed.weight", Kind.EMBEDDING, (1000, width), ("lm_head.weight",) if tied else ())]
    for block in range(blocks):
        layers += [a_layer(f"b.{block}.{name}.weight", Kind.LINEAR, (rows, width)) for name, rows in ROWS.items()]
        layers.append(a_layer(f"b.{block}.norm.weight", Kind.OTHER, (width,)))
    return layers if tied else [*layers, a_layer("lm_head.weight", Kind.HEAD, (1000, width))]


def scores(layers: list[Layer]) -> dict[str, float]:
    """Return a sensitivity for every linear weight, in an order that is not the model's."""
    names = [layer.name for layer in layers if layer.kind is Kind.LINEAR]
    return {name: float((5 * index + 3) % len(names)) for index, name in enumerate(names)}


def names_at(plan: Plan, scheme: Scheme | None) -> set[str]:
    return {a.layer.name for a in plan.assignments if a.scheme == scheme}


def nncf_primary(sizes: dict[str, int], sensitivities: dict[str, float], ratio: float) -> set[str]:
    """Return the weights that NNCF's rule gives the 4-bit mode, from its description alone."""
    if ratio == 1:
        return set(sizes)
    total = sum(sizes.values())
    primary: set[str] = set()
    cumulative = 0
    for name in sorted(sizes, key=lambda name: sensitivities[name]):
        if (cumulative + sizes[name]) / total < ratio:
            cumulative += sizes[name]
            primary.add(name)
        else:
            break
    return primary


@pytest.mark.parametrize("ratio", RATIOS, ids="ratio{:.2f}".format)
def test_the_ratio_rule_is_that_of_nncf(ratio: float) -> None:
    layers = a_model()
    sensitivities = scores(layers)
    plan = make_plan(layers, Choice(Mode.INT4_ASYM, 64, ratio), sensitivities)
    sizes = {layer.name: layer.numel for layer in layers if layer.kind is Kind.LINEAR}
    assert names_at(plan, PRIMARY) == nncf_primary(sizes, sensitivities, ratio)


@pytest.mark.parametrize("ratio", RATIOS[:-1], ids="ratio{:.2f}".format)
def test_the_share_reached_stays_below_the_ratio(ratio: float) -> None:
    layers = a_model()
    primary = names_at(make_plan(layers, Choice(ratio=ratio), scores(layers)), PRIMARY)
    share = sum(layer.numel for layer in layers if layer.name in primary) / sum(
        layer.numel for layer in ratio_defining(layers)
    )
    assert share < ratio


def test_a_share_that_meets_the_ratio_exactly_is_too_much() -> None:
    layers = [a_layer(f"b.{index}.weight", Kind.LINEAR, (64, 64)) for index in range(4)]
    plan = make_plan(layers, Choice(ratio=0.5), {layer.name: float(i) for i, layer in enumerate(layers)})
    assert names_at(plan, PRIMARY) == {"b.0.weight"}


def test_the_budget_left_by_a_large_layer_stays_unused() -> None:
    layers = [a_layer(name, Kind.LINEAR, (rows, 64)) for name, rows in [("a", 10), ("b", 80), ("c", 10)]]
    plan = make_plan(layers, Choice(ratio=0.5), {"a": 1.0, "b": 2.0, "c": 3.0})
    assert names_at(plan, PRIMARY) == {"a"}, "c would fit, but the rule stops at b"


def test_equal_sensitivities_keep_the_model_s_order() -> None:
    layers = a_model()
    equal = dict.fromkeys(scores(layers), 1.0)
    assert make_plan(layers, Choice(ratio=0.5), equal).assignments == make_plan(layers, Choice(ratio=0.5)).assignments


@pytest.mark.parametrize("ratio", [0, 0.04, -0.5, 1.01, math.nan, math.inf], ids=str)
def test_a_ratio_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(SchemeError) as caught:
        Choice(ratio=ratio)
    assert caught.value.key == "ratio_range"
    assert "0.05" in str(caught.value)


@pytest.mark.parametrize("ratio", [0.05, 1, 1.0], ids=str)
def test_the_ends_of_the_range_belong_to_it(ratio: float) -> None:
    assert Choice(ratio=ratio).ratio == ratio


@pytest.mark.parametrize("mode", [Mode.INT4_SYM, Mode.INT4_ASYM, Mode.NF4], ids=str)
@pytest.mark.parametrize("backup", [Mode.INT8_ASYM, Mode.INT8_SYM], ids=str)
def test_head_and_embedding_take_the_backup(mode: Mode, backup: Mode) -> None:
    plan = make_plan(a_model(), Choice(mode, 64, 1.0, backup))
    assert names_at(plan, Scheme(backup)) == {"embed.weight", "lm_head.weight"}
    assert names_at(plan, None) == {f"b.{block}.norm.weight" for block in range(3)}
    assert len(names_at(plan, Scheme(mode, 64))) == 12


def test_a_tied_head_is_one_weight_at_the_backup_and_takes_nothing_from_the_ratio() -> None:
    tied, untied = a_model(tied=True), a_model()
    choice = Choice(ratio=0.6)
    plan = make_plan(tied, choice, scores(tied))
    assert plan.scheme_of("embed.weight") == BACKUP
    assert names_at(plan, PRIMARY) == names_at(make_plan(untied, choice, scores(untied)), PRIMARY)
    assert plan.original_bytes == make_plan(untied, choice).original_bytes - 2 * 1000 * WIDTH
    assert plan.breakdown["head"] == 0


def test_backup_none_keeps_16_bits() -> None:
    layers = a_model()
    plan = make_plan(layers, Choice(ratio=0.5, backup=None), scores(layers))
    kept = [a for a in plan.assignments if a.layer.name not in names_at(plan, PRIMARY)]
    assert {"embed.weight", "lm_head.weight"} < {a.layer.name for a in kept}
    assert any(a.layer.kind is Kind.LINEAR for a in kept)
    assert all(a.scheme is None and a.nbytes == 2 * a.layer.numel for a in kept)


@pytest.mark.parametrize("mode", [Mode.INT8_SYM, Mode.INT8_ASYM], ids=str)
def test_8_bit_modes_take_every_weight_whatever_ratio_group_and_backup(mode: Mode) -> None:
    layers = a_model()
    plan = make_plan(layers, Choice(mode, 128, 0.3, None))
    assert names_at(plan, Scheme(mode)) == {layer.name for layer in layers if layer.kind is not Kind.OTHER}
    assert plan.is_exact


CHOICES = {
    "int4_asym-g64": Choice(),
    "int4_asym-g64-ratio0.7": Choice(ratio=0.7),
    "int4_sym-gall-ratio0.3-none": Choice(Mode.INT4_SYM, -1, 0.3, None),
    "nf4-g32-ratio0.9-int8_sym": Choice(Mode.NF4, 32, 0.9, Mode.INT8_SYM),
    "int8_asym": Choice(Mode.INT8_ASYM),
    "int8_sym": Choice(Mode.INT8_SYM),
}
for_every_choice = pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES.keys())
for_both_heads = pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])


@for_every_choice
@for_both_heads
def test_the_breakdown_adds_up(choice: Choice, tied: bool) -> None:
    layers = a_model(tied=tied)
    plan = make_plan(layers, choice, scores(layers))
    assert sum(plan.breakdown.values()) == plan.compressed_bytes
    assert sum(plan.original_breakdown.values()) == plan.original_bytes
    assert plan.original_bytes == 2 * plan.weights == 2 * sum(layer.numel for layer in layers)
    assert plan.breakdown.keys() == plan.original_breakdown.keys()
    assert plan.bits_per_weight == plan.compressed_bytes * 8 / plan.weights


def test_the_breakdown_counted_by_hand() -> None:
    rows = 3 * sum(ROWS.values())
    assert make_plan(a_model(), Choice()).breakdown == {
        "blocks": rows * WIDTH // 2,
        "embeddings": 1000 * WIDTH,
        "head": 1000 * WIDTH,
        "scales": 2 * (rows * WIDTH // 64) + 2 * (1000 + 1000),
        "zero_points": rows * WIDTH // 64 // 2 + 1000 + 1000,
        "other": 2 * 3 * WIDTH,
    }


@for_every_choice
@for_both_heads
def test_the_distribution_adds_up(choice: Choice, tied: bool) -> None:
    layers = a_model(tied=tied)
    shares = make_plan(layers, choice, scores(layers)).distribution()
    weights = [layer for layer in layers if layer.kind is not Kind.OTHER]
    defining = ratio_defining(layers)
    assert sum(share.weights for share in shares) == sum(layer.numel for layer in weights)
    assert sum(share.layers for share in shares) == len(weights)
    assert sum(share.ratio_weights for share in shares) == sum(layer.numel for layer in defining)
    assert sum(share.ratio_layers for share in shares) == len(defining)


def test_the_distribution_has_most_bits_first() -> None:
    layers = a_model()
    plan = make_plan(layers, Choice(ratio=0.5), scores(layers))
    assert [share.scheme for share in plan.distribution()] == ["int8_asym", "int4_asym-g64"]
    kept = make_plan(layers, Choice(ratio=0.5, backup=None), scores(layers))
    assert [share.scheme for share in kept.distribution()] == ["float16", "int4_asym-g64"]


@pytest.mark.parametrize(
    ("choice", "known", "is_exact"),
    [
        (Choice(ratio=0.8), False, False),
        (Choice(ratio=0.8), True, True),
        (Choice(ratio=1.0), False, True),
        (Choice(Mode.INT8_SYM, ratio=0.8), False, True),
    ],
    ids=["mixed-unknown", "mixed-known", "uniform-unknown", "int8-unknown"],
)
def test_a_plan_is_an_estimate_only_while_it_needs_what_is_unknown(choice: Choice, known: bool, is_exact: bool) -> None:
    layers = a_model()
    assert make_plan(layers, choice, scores(layers) if known else None).is_exact is is_exact


def test_a_group_that_does_not_fit_is_answered_with_those_that_do() -> None:
    with pytest.raises(SchemeError) as caught:
        make_plan(a_model(), Choice(group_size=128))
    sentence = str(caught.value)
    assert caught.value.key == "group_size_misfit"
    assert caught.value.values["fitting"] == "-1, 32, 64"
    assert caught.value.values["count"] == 12
    assert all(fact in sentence for fact in ("128", "b.0.q_proj.weight", "576", "-1, 32, 64"))


def test_a_group_need_not_fit_what_takes_the_backup() -> None:
    layers = [a_layer("embed.weight", Kind.EMBEDDING, (10, 100)), a_layer("b.0.weight", Kind.LINEAR, (10, 128))]
    assert group_sizes(layers) == (-1, 32, 64, 128)
    assert make_plan(layers, Choice(group_size=128)).scheme_of("embed.weight") == BACKUP


def test_words_make_a_choice() -> None:
    assert Choice.of("nf4", 64, 0.9, "none") == Choice(Mode.NF4, 64, 0.9, None)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("q4_k_m", 64, 1.0, "none"), "unknown_mode"),
        (("nf4", 64, 1.0, "int5"), "unknown_backup"),
        (("nf4", 64, 2.0, "none"), "ratio_range"),
    ],
    ids=["mode", "backup", "ratio"],
)
def test_words_that_mean_nothing_are_refused(words: tuple[str, int, float, str], key: str) -> None:
    with pytest.raises(SchemeError) as caught:
        Choice.of(*words)
    assert caught.value.key == key


@pytest.mark.parametrize("group_size", [0, 1, -2, -64], ids=str)
def test_a_group_size_that_is_none_is_refused(group_size: int) -> None:
    with pytest.raises(SchemeError):
        make_plan(a_model(), Choice(group_size=group_size))


def test_by_damage_what_would_cost_most_a_weight_keeps_the_backup() -> None:
    layers = a_model()
    choice = Choice(Mode.INT4_ASYM, 64, 0.5, sensitivity="damage")
    damages = {layer.name: {str(PRIMARY): 0.001 * layer.numel} for layer in layers if layer.kind is Kind.LINEAR}
    damages["b.1.up_proj.weight"][str(PRIMARY)] *= 2
    damages["b.2.k_proj.weight"] = {}  # nothing came here
    scores = damage_scores(layers, choice, damages)
    assert scores is not None
    assert scores["b.0.q_proj.weight"] == pytest.approx(0.001)
    assert scores["b.2.k_proj.weight"] == scores["embed.weight"] == pytest.approx(0.001), "the median one's"
    kept = names_at(make_plan(layers, choice, scores), BACKUP)
    assert {"b.1.up_proj.weight", "embed.weight", "lm_head.weight"} <= kept


def test_experts_without_damage_do_not_push_all_else_to_few_bits() -> None:
    """Most weights of a mixture are experts in one tensor, which have no damage: the ratio counts them all the same."""
    layers = [*a_model(), *(a_layer(f"b.{i}.experts", Kind.LINEAR, (8, 1000, WIDTH)) for i in range(3))]
    choice = Choice(Mode.INT4_ASYM, 64, 0.8, sensitivity="damage")
    sizes = scores(layers)
    damages = {name: {} if "experts" in name else {str(PRIMARY): 1 + size} for name, size in sizes.items()}
    plan = make_plan(layers, choice, damage_scores(layers, choice, damages))
    kept = {name for name in names_at(plan, BACKUP) if "proj" in name}
    assert 0 < len(kept) < 12
    assert min(damages[name][str(PRIMARY)] for name in kept) > 1


@pytest.mark.parametrize(
    ("ratio", "method", "sensitivity", "expected"),
    [
        (0.5, "nearest", None, "nncf"),
        (0.5, "gptq", None, "damage"),
        (0.5, "gptq", "nncf", "nncf"),
        (0.5, "nearest", "damage", "damage"),
        (1.0, "gptq", "damage", "nncf"),
    ],
)
def test_damage_decides_where_a_text_is_read_anyway(
    ratio: float, method: str, sensitivity: str | None, expected: str
) -> None:
    assert Choice.of("int4_asym", 64, ratio, method=method, sensitivity=sensitivity).sensitivity == expected


@pytest.mark.parametrize("what", ["a layer", "a scheme"])
def test_what_is_not_measured_yet_decides_nothing(what: str) -> None:
    layers = a_model()
    damages = {layer.name: {str(PRIMARY): 1.0} for layer in layers if layer.kind is Kind.LINEAR}
    damages["b.0.q_proj.weight"] = {"nf4-g64": 1.0}
    if what == "a layer":
        del damages["b.0.q_proj.weight"]
    choice = Choice(Mode.INT4_ASYM, 64, 0.5, sensitivity="damage")
    assert damage_scores(layers, choice, damages) is None
    assert not make_plan(layers, choice, damage_scores(layers, choice, damages)).is_exact
