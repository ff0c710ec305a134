"""``python -m tests.bench.compress_builtin configuration|survey|move|move_many``: one row of our own, as JSON.

A process of its own for each: the threads of one measure nothing of another's.
"""

import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import orjson

from studio.base.settings import settings
from studio.checkpoint import open_model
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, Layer, ratio_defining
from studio.planning.choice import Choice
from studio.planning.layer_measured import LayerMeasured
from studio.planning.plan import make_plan
from studio.planning.survey import candidates, score, survey
from studio.planning.survey_file import LayerSurvey, Survey
from studio.quantization.quantize import channel_error, quantize
from studio.quantization.scheme import Mode
from studio.session.opened_model import OpenedModel
from studio.session.session import Session
from tests.bench.measure import RUNS, timed
from tests.steps import finish

CHOICE = Choice(Mode.INT4_ASYM, 64, 0.9)
MOVES = 60
BLOCKS, EXPERTS = 48, 67


def built_in() -> Checkpoint:
    return finish(open_model.open_model(open_model.BUILTIN, paths=False))


def configuration() -> dict[str, float]:
    """Weights in memory -> scored, planned and packed, the embedding too."""
    checkpoint = built_in()
    weights = {layer.name: checkpoint.read(layer) for layer in ratio_defining(checkpoint.layers, True)}

    def work() -> None:
        scores = {name: score(channel_error(weight)) for name, weight in weights.items()}
        plan = make_plan(checkpoint.layers, CHOICE, scores)
        packed = [quantize(weights[a.layer.name], a.scheme) for a in plan.assignments if a.scheme is not None]
        assert len(packed) == len(weights)

    written = make_plan(checkpoint.layers, CHOICE).compressed_bytes
    return {"seconds": timed(work), "bytes": sum(weight.nbytes for weight in weights.values()) + written}


def whole_survey() -> dict[str, float]:
    """A survey from the files, of which the system's cache holds all, to the last row and to the first."""
    checkpoint = built_in()
    first: list[float] = []

    def work() -> None:
        begun = time.perf_counter()
        is_first = True
        for step in survey(checkpoint, Survey()):
            if is_first and isinstance(step, LayerMeasured):
                first.append(time.perf_counter() - begun)
                is_first = False

    with tempfile.TemporaryDirectory() as folder:  # what is found is not for the next visit
        kept, settings().cache_dir = settings().cache_dir, Path(folder)
        seconds = timed(work)
        settings().cache_dir = kept
    weights = sum(layer.original_bytes for layer in ratio_defining(checkpoint.layers, True))
    return {"seconds": seconds, "first": statistics.median(first[-RUNS:]), "bytes": weights}


def many_layers() -> list[Layer]:
    """Return the map of a model whose 10,000 weights are mostly experts, each a tensor of its own."""
    wide, deep = 2048, 768
    layers = [Layer("model.embed_tokens.weight", ("model.embed_tokens.weight",), Kind.EMBEDDING, (151936, wide))]
    for block in range(BLOCKS):
        names = {f"self_attn.{name}_proj": (wide, wide) for name in "qkvo"} | {"mlp.gate": (128, wide)}
        for expert in range(EXPERTS):
            for name, shape in (("gate", (deep, wide)), ("up", (deep, wide)), ("down", (wide, deep))):
                names[f"mlp.experts.{expert}.{name}_proj"] = shape
        for name, shape in names.items():
            full = f"model.layers.{block}.{name}.weight"
            layers.append(Layer(full, (full,), Kind.LINEAR, shape))
    return [*layers, Layer("lm_head.weight", ("lm_head.weight",), Kind.HEAD, (151936, wide))]


def made_up(layers: list[Layer]) -> Checkpoint:
    """Return a checkpoint that has no files, as one on the Hub has none here."""
    return Checkpoint(
        "made/up", "0" * 40, "qwen3_moe", "BF16", 2 * sum(x.numel for x in layers), {}, tuple(layers), None
    )


def made_up_survey(layers: list[Layer]) -> Survey:
    """Return errors and sensitivities of chance for every layer."""
    chance = random.Random(0)
    return Survey(
        {
            layer.name: LayerSurvey({str(s): chance.uniform(0.001, 0.2) for s in candidates(layer)}, chance.random())
            for layer in ratio_defining(layers, True)
        }
    )


def opened(many: bool) -> Session:
    """Return a session whose model is surveyed, without reading it."""
    layers = many_layers() if many else []
    checkpoint = made_up(layers) if many else built_in()
    known = made_up_survey(list(checkpoint.layers))
    scores = known.sensitivities(checkpoint.layers)
    session = Session()
    session.planner.take(OpenedModel(checkpoint, known, scores))
    session.planner.plan = make_plan(checkpoint.layers, session.choice, scores)
    return session


def choices() -> list[Choice]:
    """Return what a hand at the controls asks for: mostly the ratio, now and then a mode or a group."""
    ratios = [replace(CHOICE, ratio=round(0.05 + 0.01 * i, 2)) for i in range(95)]
    others = [Choice(mode, 64, 0.8) for mode in (Mode.INT4_SYM, Mode.NF4, Mode.INT8_ASYM)]
    others += [Choice(Mode.INT4_ASYM, size, 0.8) for size in (32, 64, -1)]
    mixed = [choice for ratio, other in zip(ratios, cycle(others), strict=False) for choice in (ratio, ratio, other)]
    return list(islice(cycle(mixed), MOVES))


def move(many: bool) -> dict[str, Any]:
    """The server's part of a move of a control: the plan, every update of the page, and these as JSON."""
    import gradio as gr

    from studio.ui import updates
    from studio.ui.page import build

    blocks, page = build()
    session = opened(many)
    assert session.checkpoint is not None
    seconds, sent = [], 0
    gc.freeze()  # as launch does
    with blocks:
        for choice in choices():
            begun = time.perf_counter()
            session.planner.choose(choice)
            changes = updates.dynamic(page, session, "en")
            sent = len(orjson.dumps([_encoded(gr, component, change) for component, change in changes.items()]))
            seconds.append(time.perf_counter() - begun)
    slowest = statistics.quantiles(seconds[5:], n=20)[-1]
    weights = sum(layer.is_weight for layer in session.checkpoint.layers)
    return {"seconds": slowest, "median": statistics.median(seconds), "sent": sent, "weights": weights}


def _encoded(gr: Any, component: Any, change: Any) -> Any:
    """Return what gradio sends of an update: ``postprocess`` of the component, its model as plain objects."""
    if isinstance(change, dict) and "__type__" in change:
        if "value" not in change:
            return change
        change = {**change, "value": component.postprocess(change["value"])}
        value = change["value"]
        return {**change, "value": value.model_dump() if hasattr(value, "model_dump") else value}
    value = component.postprocess(change)
    return value.model_dump() if hasattr(value, "model_dump") else value


ROWS = {
    "configuration": configuration,
    "survey": whole_survey,
    "move": lambda: move(False),
    "move_many": lambda: move(True),
}

if __name__ == "__main__":
    row: Callable[[], object] = ROWS[sys.argv[1]]
    print(json.dumps(row()))
