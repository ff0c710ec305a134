"""``make bench-budget``: what a budget promises, on the dithered built-in model, into tests/bench/BUDGET.md.

First by prediction alone: more bytes never predict more loss, and at the bytes of each of a ratio's, llama.cpp's rule's
and greedy's plans (``tests/rivals.py``) the solver's is predicted to lose no more. Then by measuring: plans of the
same bytes, found for damages that were changed at random, are carried out, and what was predicted is compared with
what was measured on the built-in texts: the median relative error, and Spearman's rank correlation.
"""

import argparse
import json
import math
import random
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path
from statistics import median

from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import ratio_defining
from studio.planning.allotment import bounds
from studio.planning.choice import Choice
from studio.planning.knapsack import TOLERANCE
from studio.planning.layer_losses import Figures
from studio.planning.palettes import PALETTES
from studio.planning.plan import Plan, make_plan
from studio.planning.predicted_damage import measure
from studio.planning.predicted_loss import predicted_loss
from studio.planning.survey import sensitivities
from studio.session.session import Session
from tests import rivals
from tests.bench.quality_data import dithered
from tests.steps import finish

FILE = Path(__file__).with_name("BUDGET.md")
BUDGETS = 50
SPREADS = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Of the logarithm of what damages are multiplied by, for plans that are worse and worse."""
INTRO = """# What a budget promises

`make bench-budget` wrote this; the protocol stands in `budget.py`. The dithered built-in model, damages measured on
the short built-in text.
"""


def known(checkpoint: Checkpoint, targets: tuple[str, ...]) -> Figures:
    """Return the damages in every scheme of these targets."""
    schemes = dict.fromkeys(scheme for target in targets for scheme in PALETTES[target].schemes)
    return finish(measure(checkpoint, list(schemes)))


def promises(checkpoint: Checkpoint, damages: Figures) -> list[str]:
    """Return lines of a table: how many budgets keep what is promised, by prediction."""
    layers, lines = checkpoint.layers, []
    for target in ("studio", "gguf"):
        low, high = bounds(layers, PALETTES[target])
        limits = [low + (high - low) * step // (BUDGETS - 1) for step in range(BUDGETS)]
        losses = [rivals.loss(rivals.of_budget(layers, limit, target, damages), damages) for limit in limits]
        kept = sum(after <= before * (1 + TOLERANCE) for before, after in pairwise(losses))
        lines.append(f"| {target}: more bytes never predict more loss | {kept + 1} of {BUDGETS} | |")
        theirs = [rivals.loss(rivals.greedy(layers, limit, target, damages), damages) for limit in limits]
        lines.append(against(f"{target}: greedy", losses, theirs))
    nncf = finish(sensitivities(checkpoint))
    plans = {
        "studio: ratio by damage": list(rivals.by_ratio(layers, damages, None, BUDGETS)),
        "studio: ratio by NNCF's score": list(rivals.by_ratio(layers, damages, nncf, BUDGETS)),
        "gguf: llama.cpp's rule": list(islice(rivals.by_rule(layers), BUDGETS)),
    }
    for name, others in plans.items():
        target = name.partition(":")[0]
        sizes = [rivals.nbytes(layers, each, PALETTES[target]) for each in others]
        losses = [rivals.loss(rivals.of_budget(layers, size, target, damages), damages) for size in sizes]
        lines.append(against(name, losses, [rivals.loss(each, damages) for each in others]))
    return lines


def against(name: str, ours: list[float], theirs: list[float]) -> str:
    """Return how often the solver's prediction is no worse than a rival's, and by how much in the middle."""
    kept = sum(one <= other * (1 + TOLERANCE) for one, other in zip(ours, theirs, strict=True))
    share = median(one / other for one, other in zip(ours, theirs, strict=True) if other > 0)
    return f"| {name} | {kept} of {len(ours)} | {share:.3f} |"


def of_equal_bytes(checkpoint: Checkpoint, damages: Figures, choice: Choice, count: int) -> list[Plan]:
    """Return plans of one budget, each best for damages that were changed at random, and so worse for the true ones."""
    draw, plans = random.Random(0), []
    for number in range(count):
        spread = SPREADS[number % len(SPREADS)]
        other = {name: _scaled(line, math.exp(draw.gauss(0, spread))) for name, line in damages.items()}
        plans.append(make_plan(checkpoint.layers, choice, damages=other))
    return plans


def _scaled(line: dict[str, float], factor: float) -> dict[str, float]:
    return {scheme: factor * damage for scheme, damage in line.items()}


def measured(checkpoint: Checkpoint, plans: list[Plan], is_short: bool) -> list[float]:
    """Return the KL divergence of each plan, nats a token."""
    found, method = [], plans[0].choice.method
    with closing(Session(paths=True)) as session:
        finish(session.open(str(checkpoint.path)))
        tokens = finish(session.calibration_windows(checkpoint, method)) if method.needs_inputs else None
        for plan in plans:
            finish(session.copy.make(checkpoint, plan, None, tokens, lambda: True))
            drift = finish(session.copy.measure_drift(checkpoint, None, with_floor=False, is_short=is_short))
            assert drift.evaluation is not None
            found.append(drift.evaluation.kld.mean)
            print(f"{len(found)}/{len(plans)}: {found[-1]:.4f}", flush=True)
    return found


def rank_correlation(ours: list[float], theirs: list[float]) -> float:
    """Return Spearman's."""
    from scipy.stats import spearmanr

    return float(spearmanr(ours, theirs).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, default=50, help="how many are measured, 0 for none")
    parser.add_argument("--budget", default="4.6bpw")
    parser.add_argument("--to", default="gguf", choices=tuple(PALETTES))
    parser.add_argument("--method", default="best")
    parser.add_argument("--short", action="store_true", help="measure on a few windows")
    parser.add_argument("--dir", type=Path, default=Path.home() / ".cache" / "studio-bench-budget")
    parser.add_argument("--out", type=Path, default=FILE)
    given = parser.parse_args()
    checkpoint = dithered(given.dir / "model")
    damages = known(checkpoint, tuple(dict.fromkeys(("studio", "gguf", given.to))))
    assert all(layer.name in damages for layer in ratio_defining(checkpoint.layers))
    lines = ["| by prediction | kept | predicted loss over theirs, median |", "| --- | --- | --- |"]
    lines += promises(checkpoint, damages)
    if given.plans:
        choice = Choice.of(budget=given.budget, target=given.to, method=given.method)
        plans = of_equal_bytes(checkpoint, damages, choice, given.plans)
        kld = measured(checkpoint, plans, given.short)
        predicted = [predicted_loss(plan, damages) or 0.0 for plan in plans]
        error = median(abs(one / other - 1) for one, other in zip(predicted, kld, strict=True))
        rank = rank_correlation(predicted, kld)
        lines += [
            "",
            f"{len(plans)} plans of {given.budget} on {given.to}, {given.method}: median relative error of what is "
            f"predicted {error:.1%}, rank correlation {rank:.3f}; measured {min(kld):.4f} to {max(kld):.4f} nats.",
            "",
            f"<!-- {json.dumps({'predicted': predicted, 'measured': kld})} -->",
        ]
    given.out.write_text("\n".join([INTRO, *lines, ""]), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
