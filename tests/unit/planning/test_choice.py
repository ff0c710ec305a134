"""What a user can ask of a plan beside mode and ratio: pins, misfits, all layers, and every mode there is."""

import pytest

from studio.base.errors import SchemeError
from studio.checkpoint.layers import Kind, Layer, ratio_defining
from studio.planning.choice import MAX_PATTERN, MAX_PINS, Choice, Pin
from studio.planning.plan import make_plan
from studio.quantization.scheme import Mode, Scheme, backup_modes
from tests.unit.planning.test_plan import BACKUP, PRIMARY, WIDTH, a_layer, a_model, names_at, nncf_primary, scores

NF4, INT8 = Scheme(Mode.NF4, 64), Scheme(Mode.INT8_SYM)
EMBEDDING, HEAD = "embed.weight", "lm_head.weight"


def all_scores(layers: list[Layer]) -> dict[str, float]:
    """Return a sensitivity for every weight, embeddings and head too."""
    names = [layer.name for layer in ratio_defining(layers, all_layers=True)]
    return {name: float((5 * index + 3) % len(names)) for index, name in enumerate(names)}


def pinned(*pins: Pin, ratio: float = 1.0) -> Choice:
    return Choice(ratio=ratio, pins=pins)


# pins


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("b.0.q_proj.weight", {"b.0.q_proj.weight"}),
        ("b.0.q_proj", {"b.0.q_proj.weight"}),
        ("*.q_proj", {f"b.{block}.q_proj.weight" for block in range(3)}),
        ("*.q_proj.weight", {f"b.{block}.q_proj.weight" for block in range(3)}),
        ("b.?.?_proj", {f"b.{block}.{name}_proj.weight" for block in range(3) for name in "qko"}),
        ("b.[01].?_proj", set()),  # a bracket is a bracket
        ("embed", {EMBEDDING}),
        ("lm_head*", {HEAD}),
        ("B.0.Q_PROJ", set()),
        ("q_proj", set()),
        ("*.norm", set()),
        ("b.0.q_proj.", set()),
        ("[", set()),
    ],
)
def test_a_pin_takes_what_its_pattern_names(pattern: str, taken: set[str]) -> None:
    plan = make_plan(a_model(), pinned(Pin(pattern, NF4)))
    assert names_at(plan, NF4) == taken


def test_a_norm_is_never_compressed() -> None:
    plan = make_plan(a_model(), pinned(Pin("*", NF4)))
    assert {a.scheme for a in plan.assignments if a.layer.kind is Kind.OTHER} == {None}
    assert {a.scheme for a in plan.assignments if a.layer.is_weight} == {NF4}


def test_the_first_pin_that_takes_a_weight_decides() -> None:
    plan = make_plan(a_model(), pinned(Pin("b.0.q_proj", INT8), Pin("b.0.*", NF4), Pin("*", None)))
    assert names_at(plan, INT8) == {"b.0.q_proj.weight"}
    assert names_at(plan, NF4) == {f"b.0.{name}.weight" for name in ("k_proj", "o_proj", "up_proj")}
    assert plan.scheme_of("b.1.q_proj.weight") is None
    other_way = make_plan(a_model(), pinned(Pin("*", None), Pin("b.0.q_proj", INT8)))
    assert other_way.compressed_bytes == other_way.original_bytes


def test_none_keeps_16_bits() -> None:
    plan = make_plan(a_model(), pinned(Pin("b.0.q_proj", None)))
    assert plan.scheme_of("b.0.q_proj.weight") is None
    assert next(a for a in plan.assignments if a.layer.name == "b.0.q_proj.weight").nbytes == 2 * 576 * WIDTH


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("scheme", [None, NF4, PRIMARY], ids=str)
def test_pinned_weights_stand_outside_the_ratio(ratio: float, scheme: Scheme | None) -> None:
    """The others are planned as if the pinned ones were not there."""
    layers = a_model()
    plan = make_plan(layers, pinned(Pin("b.1.*", scheme), ratio=ratio), scores(layers))
    rest = {layer.name: layer.numel for layer in ratio_defining(layers) if ".1." not in layer.name}
    primary = nncf_primary(rest, scores(layers), ratio)
    assert {name for name in rest if plan.scheme_of(name) == PRIMARY} == primary
    assert {plan.scheme_of(name) for name in rest.keys() - primary} == {BACKUP}
    assert {a.scheme for a in plan.assignments if ".1." in a.layer.name and a.layer.is_weight} == {scheme}


def test_a_model_pinned_from_end_to_end_needs_no_ratio() -> None:
    plan = make_plan(a_model(), pinned(Pin("*", None), ratio=0.5), {})
    assert plan.compressed_bytes == plan.original_bytes


def test_a_pin_beside_an_8_bit_mode_is_heeded() -> None:
    plan = make_plan(a_model(), Choice(Mode.INT8_SYM, pins=(Pin("b.0.*", NF4),)))
    assert len(names_at(plan, NF4)) == 4
    assert plan.scheme_of(HEAD) == INT8


def test_a_pin_whose_group_does_not_fit_is_refused() -> None:
    with pytest.raises(SchemeError) as caught:
        make_plan(a_model(), pinned(Pin("b.0.q_proj", Scheme(Mode.NF4, 256))))
    assert caught.value.key == "pin_misfit"
    assert all(fact in caught.value.sentence() for fact in ("nf4-g256", "b.0.q_proj.weight", "576"))
    assert make_plan(a_model(), pinned(Pin("b.9.q_proj", Scheme(Mode.NF4, 256))))  # it takes nothing


def test_a_pin_frees_its_weight_from_the_group_of_the_others() -> None:
    layers = [a_layer("b.0.weight", Kind.LINEAR, (10, 128)), a_layer("b.1.weight", Kind.LINEAR, (10, 96))]
    with pytest.raises(SchemeError):
        make_plan(layers, Choice(group_size=128))
    plan = make_plan(layers, Choice(group_size=128, pins=(Pin("b.1", Scheme(Mode.NF4, 96)),)))
    assert plan.scheme_of("b.1.weight") == Scheme(Mode.NF4, 96)


@pytest.mark.parametrize(
    ("words", "pin"),
    [
        ("b.0.*=nf4-g64", Pin("b.0.*", NF4)),
        (" b.0.* = nf4-g64 ", Pin("b.0.*", NF4)),
        ("b.0.*=none", Pin("b.0.*", None)),
        ("a=b=int8_sym", Pin("a=b", INT8)),
        ("x=mxfp4", Pin("x", Scheme(Mode.MXFP4, 32))),
        ("x=int4_sym-gall", Pin("x", Scheme(Mode.INT4_SYM))),
    ],
)
def test_words_make_a_pin(words: str, pin: Pin) -> None:
    assert Pin.parse(words) == pin
    assert Pin.parse(str(pin)) == pin


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("b.0.q_proj", "bad_pin"),
        ("", "bad_pin"),
        ("=nf4-g64", "bad_pattern"),
        ("  =none", "bad_pattern"),
        ("x" * (MAX_PATTERN + 1) + "=none", "bad_pattern"),
        ("x=nf5-g64", "unknown_mode"),
        ("x=", "unknown_mode"),
        ("x=nf4-gmany", "unknown_scheme"),
        ("x=nf4-g" + "9" * 5000, "unknown_scheme"),
        ("x=nf4-g064", "unknown_scheme"),
        ("x=nf4-g0", "group_size_of_mode"),
        ("x=nf4-g-5", "group_size_of_mode"),
        ("x=None", "unknown_mode"),
    ],
    ids=lambda value: value[:20],
)
def test_words_that_make_no_pin_are_refused(words: str, key: str) -> None:
    with pytest.raises(SchemeError) as caught:
        Choice.of("nf4", 64, 1.0, pins=["a=none", words])
    assert caught.value.key == key
    assert len(caught.value.sentence()) < 400


def test_more_pins_than_anyone_needs_are_refused() -> None:
    assert Choice(pins=(Pin("x", None),) * MAX_PINS)
    with pytest.raises(SchemeError) as caught:
        Choice(pins=(Pin("x", None),) * (MAX_PINS + 1))
    assert caught.value.key == "too_many_pins"


PATHOLOGICAL = ("*a" * 99 + "z", "*?" * 99 + "z", "[" * MAX_PATTERN, "*[!b]" * 39 + "z")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("pattern", PATHOLOGICAL, ids=lambda pattern: pattern[:6])
def test_no_pattern_takes_for_ever(pattern: str) -> None:
    """One that goes back over its text would take more steps than the universe has seconds."""
    assert not Pin(pattern, None).takes("a" * 1000)


# misfits and all layers

WIDTHS = {"w576": 576, "w96": 96, "w50": 50, "w128": 128}


def of_all_widths() -> list[Layer]:
    linear = [a_layer(name, Kind.LINEAR, (8, width)) for name, width in WIDTHS.items()]
    return [a_layer("table", Kind.EMBEDDING, (16, 50)), *linear, a_layer("head", Kind.HEAD, (8, 96))]


SMALLER = Scheme(Mode.INT4_ASYM, 32)
GROUP_SIZE_FALLBACKS: dict[tuple[str, bool], dict[str, Scheme | None]] = {
    ("ignore", False): {"w96": None, "w50": None, "head": BACKUP, "table": BACKUP},
    ("adjust", False): {"w96": SMALLER, "w50": BACKUP, "head": BACKUP, "table": BACKUP},
    ("ignore", True): {"w96": None, "w50": None, "head": None, "table": None},
    ("adjust", True): {"w96": SMALLER, "w50": BACKUP, "head": SMALLER, "table": BACKUP},
}


@pytest.mark.parametrize(("group_size_fallback", "all_layers"), GROUP_SIZE_FALLBACKS, ids=str)
def test_what_does_not_fit_is_kept_or_adjusted(group_size_fallback: str, all_layers: bool) -> None:
    plan = make_plan(
        of_all_widths(), Choice.of("int4_asym", 64, 1.0, group_size_fallback=group_size_fallback, all_layers=all_layers)
    )
    expected = {"w576": PRIMARY, "w128": PRIMARY} | GROUP_SIZE_FALLBACKS[group_size_fallback, all_layers]
    assert {a.layer.name: a.scheme for a in plan.assignments} == expected
    assert sum(plan.breakdown.values()) == plan.compressed_bytes


@pytest.mark.parametrize(("all_layers", "count"), [(False, 2), (True, 4)])
def test_what_does_not_fit_is_refused_unless_told_otherwise(all_layers: bool, count: int) -> None:
    with pytest.raises(SchemeError) as caught:
        make_plan(of_all_widths(), Choice(all_layers=all_layers))
    assert (caught.value.key, caught.value.values["count"]) == ("group_size_misfit", count)


def test_an_answer_to_misfits_that_is_none_is_refused() -> None:
    with pytest.raises(SchemeError) as caught:
        Choice.of("nf4", 64, 1.0, group_size_fallback="skip")
    assert caught.value.key == "unknown_misfit"
    assert all(word in caught.value.sentence() for word in ("skip", "error", "ignore", "adjust"))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("ratio", [0.3, 0.6, 1.0])
def test_with_all_layers_embeddings_and_head_follow_the_ratio(tied: bool, ratio: float) -> None:
    layers = a_model(tied=tied)
    sensitivities = all_scores(layers)
    plan = make_plan(layers, Choice(ratio=ratio, all_layers=True), sensitivities)
    sizes = {layer.name: layer.numel for layer in layers if layer.is_weight}
    assert (HEAD in sizes) is not tied
    assert names_at(plan, PRIMARY) == nncf_primary(sizes, sensitivities, ratio)
    if ratio == 1:
        assert plan.scheme_of(EMBEDDING) == PRIMARY
    shares = plan.distribution()
    assert sum(share.ratio_weights for share in shares) == sum(sizes.values()) == sum(s.weights for s in shares)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("mode", [Mode.INT8_SYM, Mode.INT8_ASYM], ids=str)
def test_all_layers_changes_nothing_for_8_bit_integers(mode: Mode, tied: bool) -> None:
    layers = a_model(tied=tied)
    with_all, without = (make_plan(layers, Choice(mode, all_layers=all_layers)) for all_layers in (True, False))
    assert with_all.assignments == without.assignments
    assert with_all.distribution() == without.distribution()


# every mode and backup


@pytest.mark.parametrize("mode", Mode, ids=str)
@pytest.mark.parametrize("backup", backup_modes().values(), ids=str)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_the_breakdown_adds_up_in_every_mode(mode: Mode, backup: Mode | None, tied: bool) -> None:
    layers = a_model(tied=tied, width=256)  # which every block divides
    plan = make_plan(layers, Choice(mode, 64, 0.6, backup), scores(layers))
    parts = plan.breakdown
    assert sum(parts.values()) == plan.compressed_bytes == sum(a.nbytes for a in plan.assignments)
    assert sum(plan.original_breakdown.values()) == plan.original_bytes > plan.compressed_bytes
    assert all(number >= 0 for number in parts.values())
    assert (parts["head"] == 0) is tied
    assert parts["scales"] > 0
    schemes = {a.scheme for a in plan.assignments if a.layer.is_weight}
    assert schemes == {plan.choice.primary, plan.choice.secondary}
    has_zeros = [s.mode.has_zero_point or s.mode.stored_as.has_offset for s in schemes if s is not None]
    assert any(has_zeros) == (parts["zero_points"] > 0)


@pytest.mark.parametrize("backup", [Mode.FP8_E4M3, Mode.MXFP8_E4M3], ids=str)
def test_a_backup_in_groups_gives_way_where_they_do_not_divide(backup: Mode) -> None:
    layers = [
        a_layer("embed.weight", Kind.EMBEDDING, (10, 100)),
        a_layer("b.0.weight", Kind.LINEAR, (10, 128)),
        a_layer("lm_head.weight", Kind.HEAD, (10, 128)),
    ]
    plan = make_plan(layers, Choice(Mode.FP4, 64, backup=backup))
    fits = Scheme(backup, 64) if backup is Mode.FP8_E4M3 else Scheme(backup, 32)
    assert plan.scheme_of("lm_head.weight") == fits
    instead = Scheme(backup) if backup is Mode.FP8_E4M3 else BACKUP
    assert plan.scheme_of("embed.weight") == instead


@pytest.mark.parametrize(("mode", "size"), [(Mode.MXFP4, 32), (Mode.MXFP8_E4M3, 32), (Mode.NVFP4, 16)], ids=str)
@pytest.mark.parametrize("asked", [-1, 64, 256], ids="asked{}".format)
def test_a_format_with_groups_of_its_own_takes_no_other(mode: Mode, size: int, asked: int) -> None:
    plan = make_plan(a_model(), Choice(mode, asked, backup=None))
    assert plan.scheme_of("b.0.q_proj.weight") == Scheme(mode, size)


@pytest.mark.parametrize("mode", [Mode.MXFP4, Mode.NVFP4], ids=str)
@pytest.mark.parametrize("group_size_fallback", ["error", "ignore", "adjust"])
def test_a_format_with_groups_of_its_own_cannot_be_adjusted(mode: Mode, group_size_fallback: str) -> None:
    layers = [a_layer("a.weight", Kind.LINEAR, (8, 64)), a_layer("b.weight", Kind.LINEAR, (8, 50))]
    choice = Choice.of(mode.value, 64, 1.0, "int8_asym", group_size_fallback=group_size_fallback)
    if group_size_fallback == "error":
        with pytest.raises(SchemeError):
            make_plan(layers, choice)
        return
    assert make_plan(layers, choice).scheme_of("b.weight") == (None if group_size_fallback == "ignore" else BACKUP)


@pytest.mark.parametrize(
    ("mode", "backup"),
    [
        *((mode, Mode.INT8_ASYM) for mode in (Mode.INT4_ASYM, Mode.INT3_SYM, Mode.NF4, Mode.NVFP4, Mode.CB4)),
        *((mode, Mode.FP8_E4M3) for mode in (Mode.FP4, Mode.FP8_E4M3)),
        *((mode, Mode.MXFP8_E4M3) for mode in (Mode.MXFP4, Mode.MXFP8_E4M3)),
    ],
    ids=str,
)
def test_the_backup_nobody_named_is_that_of_nncf(mode: Mode, backup: Mode) -> None:
    assert Choice.of(mode.value, 64, 1.0).backup is backup
    assert Choice.of(mode.value, 64, 1.0, "none").backup is None
