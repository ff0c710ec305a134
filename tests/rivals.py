"""Other ways to spend bytes on a model's weights, whose predicted loss a budget's is compared with.

A ratio of two classes by the same damages or by NNCF's score, llama.cpp's rule with any two of its types, and greedy
steps that save most for their bytes. Rounds nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations

from studio.checkpoint.layers import Layer
from studio.planning.choice import Choice
from studio.planning.mixes import Mix, Place
from studio.planning.palettes import PALETTES, Palette
from studio.planning.plan import damage_scores, make_plan
from studio.quantization.scheme import Mode, Scheme

Damages = Mapping[str, Mapping[str, float]]
Schemes = Mapping[str, Scheme | None]
TYPES = ("iq4_xs", "q4_k", "q5_k", "q6_k", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl")
"""Of llama.cpp, those of four bits and more."""


def loss(schemes: Schemes, damages: Damages) -> float:
    """Return what weights rounded to nearest are predicted to lose, nats a token."""
    return sum(damages[name][str(scheme)] for name, scheme in schemes.items() if scheme is not None)


def nbytes(layers: Sequence[Layer], schemes: Schemes, palette: Palette) -> int:
    return sum(palette.nbytes(layer, schemes.get(layer.name)) for layer in layers)


def of_budget(layers: Sequence[Layer], limit: int, target: str, damages: Damages) -> Schemes:
    """Return what the studio makes of so many bytes."""
    plan = make_plan(layers, Choice.of(budget=f"{limit}B", target=target), damages=damages)
    return {a.layer.name: a.scheme for a in plan.assignments if a.layer.is_weight}


def by_ratio(
    layers: Sequence[Layer], damages: Damages, nncf: Mapping[str, float] | None, count: int
) -> Iterator[Schemes]:
    """Yield plans of ``int4_asym-g64`` and ``int8_asym``, ranked by damage, or by NNCF's scores if there are some."""
    for place in range(count):
        ratio = round(1 - 0.9 * place / max(1, count - 1), 4)
        choice = Choice.of(ratio=ratio, sensitivity="nncf" if nncf else "damage")
        scores = nncf or damage_scores(layers, choice, damages)
        plan = make_plan(layers, choice, scores)
        yield {a.layer.name: a.scheme for a in plan.assignments if a.layer.is_weight}


def by_rule(layers: Sequence[Layer]) -> Iterator[Schemes]:
    """Yield what llama.cpp's rule for values and down projections gives with two of its types, in whichever order."""
    for usual, more in (order for pair in combinations(TYPES, 2) for order in (pair, pair[::-1])):
        if Mode(usual).bits <= Mode(more).bits:
            yield Mix("rule", usual, more, partial(_costly, more)).schemes(layers)


def _costly(mode: str, place: Place) -> str | None:
    return mode if (place.is_value or place.is_down) and place.counts_more else None


def greedy(layers: Sequence[Layer], limit: int, target: str, damages: Damages) -> Schemes:
    """Return what steps give that each save most for their bytes, from the smallest, as long as one fits."""
    palette = PALETTES[target]
    offered = {layer.name: [*palette.offered(layer), None] for layer in layers if layer.is_weight}
    weights = [layer for layer in layers if layer.is_weight]
    taken: dict[str, Scheme | None] = {
        layer.name: min(offered[layer.name], key=lambda scheme: palette.nbytes(layer, scheme)) for layer in weights
    }
    room = limit - nbytes(layers, taken, palette)

    def step(layer: Layer) -> tuple[float, int, Scheme | None]:
        """Return the step of a weight that saves most for its bytes, of those that fit; 0 saved where there is none."""
        now = taken[layer.name]
        steps = [(0.0, 0, now)]
        for scheme in offered[layer.name]:
            cost = palette.nbytes(layer, scheme) - palette.nbytes(layer, now)
            if 0 < cost <= room:
                steps.append(((_damage(damages, layer, now) - _damage(damages, layer, scheme)) / cost, cost, scheme))
        return max(steps, key=lambda each: each[0])

    steps = {layer.name: step(layer) for layer in weights}
    by_name = {layer.name: layer for layer in weights}
    while True:
        name = max(steps, key=lambda each: steps[each][0])
        saved, cost, scheme = steps[name]
        if saved <= 0:
            return taken
        if cost <= room:
            taken[name], room = scheme, room - cost
        steps[name] = step(by_name[name])


def _damage(damages: Damages, layer: Layer, scheme: Scheme | None) -> float:
    return 0.0 if scheme is None else damages[layer.name][str(scheme)]
