"""What is known of a model grows by what jobs find, and its plans follow it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from studio.base.errors import ModelError
from studio.checkpoint.layers import Layer, ratio_defining
from studio.planning import survey_file
from studio.planning.choice import Choice
from studio.planning.sampled_survey import SampledLayer
from studio.planning.survey import candidates
from studio.planning.survey_file import LayerSurvey, Survey
from studio.quantization.scheme import Mode, Scheme
from studio.session.opened_model import OpenedModel

UP = "b.0.up.weight"
WHOLE = Choice(Mode.INT4_ASYM, 32)
MIXED = replace(WHOLE, ratio=0.5)
BY_DAMAGE = replace(MIXED, sensitivity="damage")
SCHEME = Scheme(Mode.INT4_ASYM, 32)


def linear(model: OpenedModel) -> list[Layer]:
    return ratio_defining(model.chosen.layers)


def survey_all(model: OpenedModel) -> None:
    for layer in model.chosen.layers:
        if layer.is_weight:
            model.add_survey(layer.name, LayerSurvey({str(s): 0.1 for s in candidates(layer)}, float(layer.numel)))


def primary(model: OpenedModel, choice: Choice) -> set[str]:
    return {a.layer.name for a in model.plan(choice).assignments if a.scheme == SCHEME}


def test_before_one_is_chosen_nothing_is_known() -> None:
    empty = OpenedModel()
    assert not empty.is_here
    assert not empty.has_figures
    assert empty.known == Survey()
    for ask in (lambda: empty.chosen, lambda: empty.plan(WHOLE), empty.rank):
        with pytest.raises(ModelError):
            ask()


def test_it_is_the_same_with_its_files_fetched_or_not(model: OpenedModel) -> None:
    here = model.chosen
    there = OpenedModel(replace(here, folder=None))
    assert model.is_of(there.chosen)
    assert there.is_of(here)
    assert not model.is_of(replace(here, revision="another"))
    assert not model.is_of(replace(here, name="another"))
    assert not OpenedModel().is_of(here)


def test_figures_can_be_had_where_the_files_are_and_text_is_written(model: OpenedModel) -> None:
    assert model.has_figures
    assert not OpenedModel(replace(model.chosen, folder=None)).has_figures
    assert not OpenedModel(replace(model.chosen, can_chat=False)).has_figures


@pytest.mark.usefixtures("own_cache")
def test_what_earlier_visits_found_is_known_at_once(model: OpenedModel) -> None:
    survey_all(model)
    survey_file.keep(model.chosen, model.known)
    again = OpenedModel.of(model.chosen)
    assert again.known == model.known
    assert again.scores == {layer.name: float(layer.numel) for layer in ratio_defining(model.chosen.layers, True)}
    assert OpenedModel.of(replace(model.chosen, revision="another")).known == Survey()


@pytest.mark.usefixtures("own_cache")
def test_only_a_sample_of_files_elsewhere_costs_reading(model: OpenedModel) -> None:
    assert OpenedModel.of(model.chosen).sample_bytes == 0
    elsewhere = OpenedModel.of(replace(model.chosen, folder=None))
    assert 0 < elsewhere.sample_bytes <= model.chosen.source_bytes


def test_scores_are_those_of_a_whole_survey_and_stay(model: OpenedModel) -> None:
    model.add_survey(UP, LayerSurvey({}, 1.0))
    model.rank()
    assert model.scores is None, "of one layer"
    survey_all(model)
    model.rank()
    scores = model.scores
    assert scores is not None
    model.add_survey(UP, LayerSurvey({}, 1e9))
    model.rank()
    assert model.scores is scores


def test_a_plan_with_a_ratio_is_exact_once_there_are_scores(model: OpenedModel) -> None:
    assert model.plan(WHOLE).is_exact, "all layers take it"
    assert not model.plan(MIXED).is_exact
    least = min(linear(model), key=lambda layer: layer.numel).name
    model.scores = {layer.name: float(layer.name != least) for layer in ratio_defining(model.chosen.layers, True)}
    assert model.plan(MIXED).is_exact
    assert least in primary(model, MIXED)


def test_a_sample_ranks_layers_once_it_has_all_and_makes_estimates(model: OpenedModel) -> None:
    layers = ratio_defining(model.chosen.layers, True)
    last = linear(model)[-1].name
    by_order = primary(model, MIXED)
    assert last not in by_order
    for layer in layers[1:]:
        model.add_sampled(layer.name, SampledLayer({}, float(layer.name != last), 8))
    assert primary(model, MIXED) == by_order, "one is missing"
    model.add_sampled(layers[0].name, SampledLayer({}, 1.0, 8))
    assert last in primary(model, MIXED)
    assert not model.plan(MIXED).is_exact
    model.scores = {layer.name: float(index) for index, layer in enumerate(layers)}
    assert model.plan(MIXED).is_exact, "what is measured comes before it"
    assert last not in primary(model, MIXED)


def test_a_plan_by_damage_goes_by_damage_alone(model: OpenedModel) -> None:
    survey_all(model)
    model.rank()
    assert not model.plan(BY_DAMAGE).is_exact
    last = linear(model)[-1].name
    for layer in linear(model):
        line = {str(s): 0.1 if layer.name == last else 0.9 for s in candidates(layer)}
        model.add_figures("damage", {layer.name: line})
    assert model.plan(BY_DAMAGE).is_exact
    assert last in primary(model, BY_DAMAGE)


def test_figures_of_two_measurements_are_joined(model: OpenedModel) -> None:
    model.add_figures("damage", {UP: {"int4_asym-g32": 0.2}})
    model.add_figures("damage", {UP: {"int8_asym": 0.1}})
    assert model.damages == {UP: {"int4_asym-g32": 0.2, "int8_asym": 0.1}}
    assert model.output_errors == {}


def test_what_many_jobs_find_at_once_is_all_there(model: OpenedModel) -> None:
    names = [f"layer {i}" for i in range(300)]

    def found(name: str) -> None:
        model.add_figures("output", {name: {"nf4": 0.1}})
        model.add_survey(name, LayerSurvey({"nf4": 0.1}, 1.0))
        model.add_sampled(name, SampledLayer({}, 1.0, 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(found, names))
    assert set(model.output_errors) == set(model.known.layers) == set(model.sampled) == set(names)


def test_a_scheme_is_missing_until_every_layer_has_its_figure(model: OpenedModel) -> None:
    plan = model.plan(replace(WHOLE, mode=Mode.NVFP4))
    own = Scheme.of(Mode.NVFP4, 16)
    assert {SCHEME, own} <= set(model.missing("output", plan))
    first, *others = linear(model)
    model.add_figures("output", {layer.name: {str(own): 0.1} for layer in others})
    assert own in model.missing("output", plan)
    model.add_figures("output", {first.name: {}})
    assert own not in model.missing("output", plan), "no token reached it: there is none to be had"
    assert SCHEME in model.missing("output", plan)
    assert own in model.missing("damage", plan)


def test_a_scheme_that_does_not_fit_a_layer_is_not_missing_there(model: OpenedModel) -> None:
    wide = Scheme(Mode.INT4_ASYM, 128)
    assert {wide.fits(layer.matrix[1]) for layer in linear(model)} == {True, False}
    plan = model.plan(WHOLE)
    assert wide in model.missing("output", plan)
    model.add_figures("output", {each.name: {str(wide): 0.1} for each in linear(model) if wide.fits(each.matrix[1])})
    assert wide in model.missing("output", plan), "nothing is known of the others yet"
    model.add_figures("output", {each.name: {"nf4-g32": 0.1} for each in linear(model)})
    assert wide not in model.missing("output", plan)
